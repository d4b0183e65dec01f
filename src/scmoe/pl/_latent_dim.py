"""How many dimensions codes need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scmoe._core.cells import check_is_adata
from scmoe._core.keys import Key

from ._figure import finish
from ._groups import choose_groups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ALL, _GROUP = "tab:blue", "0.7"
_ENOUGH = 0.99
"""Share of the variance beyond which a curve has nothing more to show."""

_ROWS = 6
"""Least number of rows that bars are drawn for, so that few are not thick."""

_SHORT = 8
"""Letters of a name that there is room for anyway."""

_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


def latent_dim(
    adata: AnnData,
    *,
    key: str = Key.LATENT_DIM,
    groups: Sequence[str] | bool = True,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw how much of the variance of codes few dimensions explain.

    The first panel has the curve of all cells, thin lines for the groups, and the threshold;
    the dot is the size to use. Beside it, if there are groups, the size of each and the cells
    that it has.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.latent_dim`.
    key
        Its ``key_added``.
    groups
        Groups to draw, False for none.
    title
        Title of the figure.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_plate.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the list of axes.

    Raises
    ------
    KeyError
        There is no such estimate, or a group that it does not have.
    ValueError
        ``groups`` is empty, or there are groups to choose from and none was measured.

    Examples
    --------
    >>> scmoe.tl.latent_dim(adata)
    >>> scmoe.pl.latent_dim(adata)
    """
    check_is_adata(adata)
    record = adata.uns.get(key, {})
    if "explained" not in record:
        raise KeyError(
            f"Did not find latent dimensions in `.uns[{key!r}]`: run `scmoe.tl.latent_dim(adata)` "
            "first, or name its `key_added` as `key`."
        )
    table, curves = _chosen(record, groups, f"`.uns[{key!r}]`")
    widths = [4.2, 3.4] if len(table) else [4.2]
    height = max(3.2, 0.9 + 0.22 * len(table))
    fig, axes = plt.subplots(
        1,
        len(widths),
        figsize=(sum(widths) + _room(table.index), height),
        width_ratios=widths,
        layout="constrained",
        squeeze=False,
    )
    axes = list(axes[0])
    _draw_curves(axes[0], record, curves)
    if len(table):
        _draw_sizes(axes[1], table, int(record["n_latent"]))
    if title is not None:
        fig.suptitle(title)
    return finish("latent_dim", fig, axes, show=show, save=save, return_fig=return_fig)


def _room(names: pd.Index) -> float:
    """Inches that long names take from the panels beside them."""
    longest = max((len(str(name)) for name in names), default=0)
    size = FontProperties(size=plt.rcParams["ytick.labelsize"]).get_size_in_points()
    return 0.6 * size / 72 * max(longest - _SHORT, 0)


def _chosen(
    record: Mapping[str, Any], groups: Sequence[str] | bool, where: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of the groups to draw, and their curves."""
    if groups is False or (groups is True and "groups" not in record):
        return pd.DataFrame(), np.empty((0, 0))
    if "groups" not in record:
        raise KeyError(f"{where} has no groups: run `scmoe.tl.latent_dim` with `groupby`.")
    table = record["groups"]
    wanted = None if groups is True else groups
    rows = table.index.get_indexer(choose_groups(list(table.index), wanted, where))
    return table.iloc[rows], np.asarray(record["groups_explained"])[rows]


def _draw_curves(ax: Axes, record: Mapping[str, Any], curves: np.ndarray) -> None:
    threshold, n_latent = float(record["threshold"]), int(record["n_latent"])
    whole = np.cumsum(record["explained"])
    lines = [np.cumsum(curve[~np.isnan(curve)]) for curve in curves]
    for i, line in enumerate(line for line in lines if len(line)):
        ax.plot(
            np.arange(len(line)) + 1,
            line,
            color=_GROUP,
            linewidth=0.8,
            label=None if i else "groups",
        )
    ax.plot(np.arange(len(whole)) + 1, whole, color=_ALL, linewidth=1.8, label="all cells")
    reached = whole[n_latent - 1]
    ax.axhline(threshold, color="0.4", linestyle="--", linewidth=1)
    ax.plot([n_latent, n_latent], [0, reached], color=_ALL, linestyle=":", linewidth=1)
    ax.plot([n_latent], [reached], "o", color=_ALL, zorder=3)
    ax.text(n_latent, 0.3, f" {n_latent} for {100 * threshold:g}%", color=_ALL, bbox=_WHITE)
    # the dimensions that are not in use would fill the picture
    end = max(int((line < _ENOUGH).sum()) + 1 for line in [whole, *lines] if len(line))
    ax.set_xlim(0.5, max(end, n_latent + 2) + 0.5)
    ax.set_ylim(0, 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("dimensions")
    ax.set_ylabel("variance explained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)
    if lines:
        ax.legend(frameon=False, fontsize="small", loc="lower right")


def _draw_sizes(ax: Axes, table: pd.DataFrame, n_latent: int) -> None:
    table = table.iloc[::-1]
    sizes = table["n_latent"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    ax.barh(range(len(table)), np.nan_to_num(sizes), color=_GROUP, height=0.7)
    ax.axvline(n_latent, color=_ALL, linewidth=1.2, zorder=0.5)
    for y, (size, n_cells) in enumerate(zip(sizes, table["n_cells"], strict=True)):
        text = "none" if np.isnan(size) else f"{size:.0f}"
        ax.annotate(
            f"{text} ({n_cells:,})",
            (np.nan_to_num(size), y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            size=8,
            bbox=_WHITE,
        )
    ax.set_yticks(range(len(table)), [str(name) for name in table.index])
    ax.set_xlim(0, 1.35 * max(np.nanmax(sizes, initial=0), n_latent))
    ax.set_ylim(min(-0.6, len(table) - _ROWS - 0.6), len(table) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("dimensions (cells)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)
