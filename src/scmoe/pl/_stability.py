"""Which clusters come again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from scmoe._core.cells import check_is_adata
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe.estimate._stability import STABLE

from ._figure import finish

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STABLE, _OTHER, _LINE = "tab:blue", "tab:orange", "0.45"
_ROW = 0.28
"""Inches of a cluster."""
_LONGEST = 40
"""Letters of a name that are shown."""
_MAP = 4.2
"""Width of the map in inches, without its colour bar."""


def stability(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    basis: str | None = None,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """How well each cluster was found again, and how large it is.

    A row for each cluster of the reference: a point for each run (its best Jaccard index with a
    cluster of the run), their mean as a stroke, the interval that holds 95 % of them as a bar,
    and the line at 0.75, from which a mean counts as stable. The sizes of the clusters stand
    beside.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.stability`.
    key
        Its ``key_added``.
    basis
        A map in ``.obsm``, with or without ``"X_"`` in front, to show the ambiguity of each cell
        on; by default none.
    title
        Title of the figure; by default how many clusters are stable.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the axes of the indices, of
    the sizes, and of the map if there is one.

    Raises
    ------
    KeyError
        There is no such record, no such map, or the ambiguity is gone.
    ValueError
        A map of less than two dimensions.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.tl.stability(adata, n_runs=3)
    >>> scmoe.pl.stability(adata)
    """
    check_is_adata(adata)
    slot = Key.uns.stability(key)
    record = adata.uns.get(slot, {})
    if not {"clusters", "jaccard"} <= set(record):
        raise KeyError(
            f"Did not find a stability in `.uns[{slot!r}]`: run `scmoe.tl.stability(adata)` "
            "first, or name its `key_added` as `key`."
        )
    table, jaccard = record["clusters"], record["jaccard"]
    points = None if basis is None else _points(adata, key, basis)

    height = max(_ROW * len(table) + 1.2, 2.4 if points is None else _MAP)
    longest = max(len(name) for name in _shown(table))
    widths = [4.6 + 0.08 * longest, 1.9] + ([] if points is None else [_MAP + 0.8])
    fig, axes = plt.subplots(
        1,
        len(widths),
        figsize=(sum(widths), height),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    axes = list(axes[0])
    _indices(axes[0], table, jaccard)
    _sizes(axes[1], table)
    if points is not None:
        _map(axes[2], points, adata.obs[Key.obs.ambiguity(key)].to_numpy(), basis)
    if title is None:
        n = int(table["stable"].sum())
        title = f"{n} of {len(table)} cluster{'' if len(table) == 1 else 's'} stable"
        title += f" over {jaccard.shape[1]} runs"
    fig.suptitle(title)
    return finish("stability", fig, axes, show=show, save=save, return_fig=return_fig)


def _points(adata: AnnData, key: str, basis: str) -> np.ndarray:
    """The first two dimensions of a map."""
    name = rep_key(adata, f"X_{basis}")
    if name not in adata.obsm:
        raise KeyError(f"Did not find {basis!r} in `.obsm`, which holds {list(adata.obsm)}.")
    if Key.obs.ambiguity(key) not in adata.obs:
        raise KeyError(
            f"Did not find `.obs[{Key.obs.ambiguity(key)!r}]`: run `scmoe.tl.stability` again."
        )
    points = np.asarray(adata.obsm[name])
    if points.ndim != 2 or points.shape[1] < 2:
        raise ValueError(f"`.obsm[{name!r}]` is no map: it has less than two dimensions.")
    return points[:, :2]


def _shown(table: pd.DataFrame) -> list[str]:
    names = [str(name) for name in table.index]
    return [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in names]


def _rows(ax: Axes, n: int) -> None:
    """The first cluster on top."""
    ax.set_ylim(n - 0.5, -0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(False)


def _indices(ax: Axes, table: pd.DataFrame, jaccard: pd.DataFrame) -> None:
    y = np.arange(len(table))
    colors = np.where(table["stable"].astype(bool), _STABLE, _OTHER)
    ax.axvline(STABLE, color=_LINE, linestyle="--", linewidth=1, zorder=0)
    # lead from the name to its points
    ax.hlines(y, 0, 1, color="0.92", linewidth=0.8, zorder=0)
    ax.barh(
        y,
        table["upper"] - table["lower"],
        left=table["lower"],
        height=0.62,
        color=colors,
        alpha=0.2,
        linewidth=0,
    )
    # runs lie one below the other, in their order, so that equal ones are seen
    offsets = np.linspace(-0.2, 0.2, jaccard.shape[1])
    for row, values in enumerate(jaccard.to_numpy()):
        ax.scatter(values, row + offsets, s=9, c=colors[row], alpha=0.8, linewidths=0, zorder=3)
    ax.vlines(table["jaccard"], y - 0.36, y + 0.36, colors=colors, linewidth=2, zorder=4)
    ax.set_yticks(y, _shown(table))
    ax.set_xlim(-0.02, 1.04)
    ax.set_xlabel("Jaccard index with the best cluster of a run")
    _rows(ax, len(table))


def _sizes(ax: Axes, table: pd.DataFrame) -> None:
    colors = np.where(table["stable"].astype(bool), _STABLE, _OTHER)
    ax.barh(np.arange(len(table)), table["n_cells"], height=0.62, color=colors)
    ax.set_yticks([])
    ax.set_xlabel("cells")
    ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    _rows(ax, len(table))


def _map(ax: Axes, points: np.ndarray, ambiguity: np.ndarray, basis: str) -> None:
    """Cells by their ambiguity, the most ambiguous on top; grey where no run says anything."""
    size = np.clip(120_000 / len(points), 1, 200) ** 0.5
    known = ~np.isnan(ambiguity)
    order = np.argsort(np.where(known, ambiguity, -1), kind="stable")
    order = order[known[order]]
    if not known.all():
        ax.scatter(*points[~known].T, s=size, c="lightgray", linewidths=0, rasterized=True)
    drawn = ax.scatter(
        *points[order].T,
        s=size,
        c=ambiguity[order],
        cmap="viridis",
        vmin=0,
        vmax=max(float(np.max(ambiguity[known], initial=0)), 0.5),
        linewidths=0,
        rasterized=True,
    )
    ax.figure.colorbar(drawn, ax=ax, label="ambiguity", shrink=0.7)
    name = basis.removeprefix("X_")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel(f"{name} 1")
    ax.set_ylabel(f"{name} 2")
    ax.grid(False)
