"""Plots of the evidence for the number of clusters and of latent dimensions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scanpy.plotting.palettes import default_20, default_102

from scmoe._core.cells import check_is_adata
from scmoe._core.keys import Key

from ._figure import choose_groups, fill_docs, finish, make_panels, open_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_RATIO = math.log(1.4)
"""Least distance of two ticks on a logarithmic axis, so that their numbers do not touch."""

REPEATED = {"tree": ("significance", "clusters"), "stability": ("resolution", "communities")}
"""The setting that is varied and the groups that are counted, by method."""

_MAIN, _SECOND, _CHOSEN, _NOISE = "tab:blue", "tab:orange", "0.45", "lightgray"
_GROUP = "0.7"
_ENOUGH = 0.99
"""Explained variance beyond which a curve is cut off."""
_ROWS = 6
"""Rows for which there is room at least, so that few bars are not thick."""
_SHORT = 8
"""Letters of a name that need no additional room."""
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


@fill_docs
def n_clusters(
    adata: AnnData,
    *,
    key: str = Key.N_CLUSTERS,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw the evidence for the number of clusters, with the chosen setting marked.

    For density: the map in which the clusters were found, noise in grey, and the number of
    clusters and the share of noise against the least size of a cluster. For the tree and for
    stability: the number of clusters, the number of clusters that recur in random subsets of the
    cells, and their mean stability, against the significance of the valleys or the resolution of
    the graph.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.n_clusters`.
    key
        The ``key_added`` of :func:`scmoe.tl.n_clusters`.
    title
        Title of the figure; by default the result.
    {show_save}

    Returns
    -------
    {returns} the two axes.

    Raises
    ------
    KeyError
        If there is no such estimate, or its labels or its map are missing.

    Examples
    --------
    >>> scmoe.tl.n_clusters(adata)
    >>> scmoe.pl.n_clusters(adata)
    """
    check_is_adata(adata)
    record = adata.uns.get(Key.uns.result(key), {})
    if not {"evidence", "method"} <= set(record):
        raise KeyError(
            f"Did not find an estimate in `.uns[{key!r}]`: run `scmoe.tl.n_clusters(adata)` "
            "first, or name its `key_added` as `key`."
        )
    table = record["evidence"]
    over = REPEATED.get(record["method"])
    if over is None:
        for place, slots, name in (
            ("obs", adata.obs, Key.obs.labels(key)),
            ("obsm", adata.obsm, Key.obsm.latent(key)),
        ):
            if name not in slots:
                raise KeyError(
                    f"Did not find `.{place}[{name!r}]`: run `scmoe.tl.n_clusters(adata, "
                    f"key_added={key!r})` again."
                )
    fig, axes = make_panels(2, 2, (9.5, 4))
    left, right = axes
    if over is not None:
        _draw_counts(left, table, *over)
        _draw_stability(right, table, over[0])
    else:
        labels = adata.obs[Key.obs.labels(key)]
        _draw_map(left, np.asarray(adata.obsm[Key.obsm.latent(key)]), labels)
        _draw_noise(right, table)
    if title is None:
        n = int(record["n_clusters"])
        title = f"{n} cluster{'' if n == 1 else 's'} by {record['method']}"
        title += f", {float(record['noise']):.1%} noise" if record["noise"] > 0 else ""
    return finish(
        "n_clusters", fig, axes, title=title, show=show, save=save, return_fig=return_fig
    )


def _mark_chosen(ax: Axes, table: pd.DataFrame, column: str) -> None:
    """Draw a dashed line at the chosen setting, if there is one."""
    for value in table.loc[table["chosen"].astype(bool), column]:
        ax.axvline(value, color=_CHOSEN, linestyle="--", linewidth=1, zorder=0)


def _frame(ax: Axes, x: str, y: str, ticks: list[float], *, whole: bool = False) -> None:
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.minorticks_off()
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    open_frame(ax)
    if whole:
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def _round_ticks(values: pd.Series) -> list[float]:
    """Return round numbers within the range as ticks, or the numbers themselves."""
    steps = [m * 10.0**e for e in range(-4, 5) for m in (1, 2, 5)]
    inside = [s for s in steps if values[values > 0].min() <= s <= values.max()]
    return inside or values.tolist()


def _separate_ticks(table: pd.DataFrame) -> list[float]:
    """Return sizes whose ticks do not touch on a logarithmic axis, always the chosen size."""
    sizes = table.sort_values("chosen", ascending=False, kind="stable")["min_cluster_size"]
    kept: list[float] = []
    for size in sizes:
        if all(abs(math.log(size / other)) > LEAST_RATIO for other in kept):
            kept.append(size)
    return sorted(kept)


def _draw_map(ax: Axes, points: np.ndarray, labels: pd.Series) -> None:
    """Draw the first two dimensions (a single one against the order of the cells)."""
    x, y = points[:, 0], points[:, 1] if points.shape[1] > 1 else np.arange(len(points))
    names = list(labels.cat.categories)
    palette = default_20 if len(names) <= len(default_20) else default_102
    size = np.clip(120_000 / len(points), 1, 200) ** 0.5
    codes = labels.cat.codes.to_numpy()
    noise = codes < 0
    ax.scatter(x[noise], y[noise], s=size, c=_NOISE, linewidths=0, rasterized=True)
    colors = np.array(palette)[codes[~noise] % len(palette)]
    ax.scatter(x[~noise], y[~noise], s=size, c=colors, linewidths=0, rasterized=True)
    for k, name in enumerate(names[:30]):
        ax.text(
            np.median(x[codes == k]),
            np.median(y[codes == k]),
            name,
            ha="center",
            va="center",
            fontsize="small",
            fontweight="bold",
            bbox={"facecolor": "white", "alpha": 0.6, "edgecolor": "none", "pad": 0.5},
        )
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("UMAP 1")
    ax.set_ylabel("UMAP 2")
    ax.grid(False)


def _draw_noise(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the number of clusters and the share of noise against the least size of a cluster."""
    x = table["min_cluster_size"]
    _mark_chosen(ax, table, "min_cluster_size")
    ax.plot(x, table["n_clusters"], "o-", color=_MAIN)
    _frame(ax, "cells of the smallest cluster", "clusters", _separate_ticks(table), whole=True)
    ax.set_ylim(0, max(1.1 * table["n_clusters"].max(), 1))
    ax.yaxis.label.set_color(_MAIN)
    twin = ax.twinx()
    twin.plot(x, table["noise"], "s:", color=_SECOND, markersize=4)
    twin.set_ylim(0, max(1.1 * table["noise"].max(), 0.05))
    twin.set_ylabel("share of noise", color=_SECOND)
    twin.spines["top"].set_visible(False)
    twin.grid(False)


def _draw_counts(ax: Axes, table: pd.DataFrame, column: str, what: str) -> None:
    """Draw the number of clusters or communities, and how many of them recur."""
    x = table[column]
    _mark_chosen(ax, table, column)
    ax.plot(x, table["n_clusters"], "o-", color=_MAIN, label=what)
    ax.plot(x, table["stable"], "s-", color=_SECOND, markersize=4, label="found again")
    _frame(ax, column, what, _round_ticks(x), whole=True)
    # at high resolutions there are hundreds of communities that do not recur
    ax.set_ylim(0, max(min(1.2 * table["n_clusters"].max(), 3 * table["stable"].max()), 4))
    ax.legend(frameon=False, loc="best")


def _draw_stability(ax: Axes, table: pd.DataFrame, column: str) -> None:
    """Draw the mean stability against the setting, with its spread over the subsets."""
    x, mean, spread = table[column], table["stability"], table["spread"]
    _mark_chosen(ax, table, column)
    # no mean can be above 1
    top = (mean + spread).clip(upper=1)
    ax.fill_between(x, mean - spread, top, color=_MAIN, alpha=0.2, linewidth=0)
    ax.plot(x, mean, "o-", color=_MAIN)
    _frame(ax, column, "mean stability (Jaccard index)", _round_ticks(x))
    ax.set_ylim(0, 1.05)


@fill_docs
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
    """Draw the variance of latent codes explained by the first dimensions.

    The first panel has the curve of all cells, thin lines for the groups, and the threshold; the
    dot is the recommended number of dimensions. If there are groups, the second panel shows the
    number of dimensions and the number of cells of each group.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.latent_dim`.
    key
        The ``key_added`` of :func:`scmoe.tl.latent_dim`.
    groups
        Groups to draw, False for none.
    {title}
    {show_save}

    Returns
    -------
    {returns} the list of axes.

    Raises
    ------
    KeyError
        If there is no such estimate, or a group is not in it.
    ValueError
        If ``groups`` is empty.

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
    table, curves = _chosen_groups(record, groups, f"`.uns[{key!r}]`")
    widths = [4.2, 3.4] if len(table) else [4.2]
    height = max(3.2, 0.9 + 0.22 * len(table))
    size = (sum(widths) + _room(table.index), height)
    fig, axes = make_panels(len(widths), len(widths), size, width_ratios=widths)
    _draw_curves(axes[0], record, curves)
    if len(table):
        _draw_sizes(axes[1], table, int(record["n_latent"]))
    return finish(
        "latent_dim", fig, axes, title=title, show=show, save=save, return_fig=return_fig
    )


def _room(names: pd.Index) -> float:
    """Return the room for long names, in inches."""
    longest = max((len(str(name)) for name in names), default=0)
    size = FontProperties(size=plt.rcParams["ytick.labelsize"]).get_size_in_points()
    return 0.6 * size / 72 * max(longest - _SHORT, 0)


def _chosen_groups(
    record: Mapping[str, Any], groups: Sequence[str] | bool, where: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the rows of the groups to draw, and their curves."""
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
    ax.plot(np.arange(len(whole)) + 1, whole, color=_MAIN, linewidth=1.8, label="all cells")
    reached = whole[n_latent - 1]
    ax.axhline(threshold, color="0.4", linestyle="--", linewidth=1)
    ax.plot([n_latent, n_latent], [0, reached], color=_MAIN, linestyle=":", linewidth=1)
    ax.plot([n_latent], [reached], "o", color=_MAIN, zorder=3)
    ax.text(n_latent, 0.3, f" {n_latent} for {100 * threshold:g}%", color=_MAIN, bbox=_WHITE)
    # unused dimensions would fill the picture
    end = max(int((line < _ENOUGH).sum()) + 1 for line in [whole, *lines] if len(line))
    ax.set_xlim(0.5, max(end, n_latent + 2) + 0.5)
    ax.set_ylim(0, 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("dimensions")
    ax.set_ylabel("variance explained")
    open_frame(ax)
    if lines:
        ax.legend(frameon=False, fontsize="small", loc="lower right")


def _draw_sizes(ax: Axes, table: pd.DataFrame, n_latent: int) -> None:
    table = table.iloc[::-1]
    sizes = table["n_latent"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    ax.barh(range(len(table)), np.nan_to_num(sizes), color=_GROUP, height=0.7)
    ax.axvline(n_latent, color=_MAIN, linewidth=1.2, zorder=0.5)
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
    open_frame(ax)
