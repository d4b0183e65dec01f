"""What moves with the state within clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from scmoe._core.keys import Key
from scmoe._core.settings import check_whole
from scmoe.get import state_genes as get_state_genes

from ._figure import finish
from ._groups import choose_groups

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.22
"""Inches of a marker."""
_PANEL = 2.4
"""Width of a panel in inches, without names."""
_LETTER = 0.085
_LONGEST, _TITLE = 24, 34
"""Letters of a marker and of a cluster that are shown."""
_FAINT = 0.25
"""Of points whose dimension is not in use ..."""
_UNUSED = 0.1
"""... because less than this share of its variance is that of the cells."""
_COLOURS = 10


def state_genes(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    groups: Sequence[str] | str | None = None,
    n_markers: int = 8,
    ncols: int = 4,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """The markers that move most with the state, a panel for each cluster.

    Markers are rows, the first in rank on top. Points are rank correlations with the dimensions
    of the state, with their 95 % intervals; points are faint where a dimension is hardly in use.
    Beside each row is the share of the marker's variance that the state explains, in the arm
    where it is least.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.state_genes`.
    key
        Its ``key_added``.
    groups
        The clusters to show, in this order; by default all.
    n_markers
        Markers of each cluster.
    ncols
        Panels in a row.
    title
        Title of the figure.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the axes of the panels.

    Raises
    ------
    KeyError
        There is no such table, or no such cluster in it.
    ValueError
        No clusters, markers or columns to show.

    Examples
    --------
    >>> scmoe.tl.cluster(adata, model="cpl-mixvae")
    >>> scmoe.tl.state_genes(adata)
    >>> scmoe.pl.state_genes(adata)
    """
    check_whole("n_markers", n_markers, 1)
    check_whole("ncols", ncols, 1)
    table = get_state_genes(adata, key=key)
    there = [str(name) for name in table["cluster"].unique()]
    names = choose_groups(there, groups, f"`.uns[{Key.uns.state_genes(key)!r}]`")
    table = table[table["rank"] <= n_markers]
    parts = {name: table[table["cluster"] == name] for name in names}

    n_rows = max(part["rank"].nunique() for part in parts.values())
    longest = max(len(_short(name)) for part in parts.values() for name in part["marker"])
    ncols = min(ncols, len(parts))
    nrows = -(-len(parts) // ncols)
    size = (ncols * (_PANEL + _LETTER * longest), nrows * (_ROW * n_rows + 0.85) + 0.4)
    fig, grid = plt.subplots(nrows, ncols, figsize=size, squeeze=False, layout="constrained")
    axes = list(grid.flat)
    for empty in axes[len(parts) :]:
        empty.remove()
    axes = axes[: len(parts)]
    for ax, (name, part) in zip(axes, parts.items(), strict=True):
        _panel(ax, part, n_rows)
        title_of = f"{_short(name, _TITLE)}\n{part['n_cells'].iloc[0]:,} cells"
        ax.set_title(title_of, fontsize="small")
    # once: under each panel it would run into that of the next
    fig.supxlabel("rank correlation with the state", fontsize="small")
    dims = table["dimension"].unique()
    if len(dims) > 1:
        handles = [
            plt.Line2D([], [], color=_colour(d), marker="o", linestyle="", label=f"{d}")
            for d in dims
        ]
        fig.legend(
            handles=handles,
            title="dimension",
            loc="outside right upper",
            frameon=False,
            fontsize="small",
        )
    if title is not None:
        fig.suptitle(title)
    return finish("state_genes", fig, axes, show=show, save=save, return_fig=return_fig)


def _short(name: str, longest: int = _LONGEST) -> str:
    name = str(name)
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _colour(dimension: int) -> str:
    return f"C{dimension % _COLOURS}"


def _panel(ax: Axes, part: pd.DataFrame, n_rows: int) -> None:
    ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    dims = part["dimension"].unique()
    # dimensions lie one below the other, so that equal ones are seen
    offsets = np.linspace(-0.2, 0.2, len(dims)) if len(dims) > 1 else [0.0]
    for dimension, offset in zip(dims, offsets, strict=True):
        rows = part[part["dimension"] == dimension]
        y = rows["rank"].to_numpy() - 1 + offset
        alpha = 1 if rows["reliability"].iloc[0] >= _UNUSED else _FAINT
        how = {"color": _colour(dimension), "alpha": alpha}
        ax.hlines(y, rows["lower"], rows["upper"], linewidth=1.4, **how)
        ax.scatter(rows["effect"], y, s=14, linewidths=0, zorder=3, **how)
    once = part[part["dimension"] == dims[0]]
    ax.set_yticks(range(len(once)), [_short(name) for name in once["marker"]], fontsize="small")
    shares = ["" if np.isnan(share) else f"{max(share, 0):.0%}" for share in once["r2_min"]]
    for y, text in enumerate([f"R² {shares[0]}" if shares[0] else "", *shares[1:]]):
        ax.annotate(
            text,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
            color="0.4",
        )
    ax.set_xlim(-1.05, 1.05)
    ax.set_ylim(n_rows - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)
