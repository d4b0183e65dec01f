"""Why there are so many clusters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from scanpy.plotting.palettes import default_20, default_102

from scmoe._core.cells import check_is_adata
from scmoe._core.keys import Key

from ._figure import finish

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_RATIO = math.log(1.4)
"""How far apart two ticks of a logarithmic axis must be, so that their numbers do not touch."""

REPEATED = {"tree": ("significance", "clusters"), "stability": ("resolution", "communities")}
"""What is varied, and what is counted, by methods that look at random subsets of the cells."""

_K, _SECOND, _CHOSEN, _NOISE = "tab:blue", "tab:orange", "0.45", "lightgray"


def n_clusters(
    adata: AnnData,
    *,
    key: str = Key.N_CLUSTERS,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """The evidence for the number of clusters, with the choice marked.

    Of density: the map that the clusters were found in, noise in grey, and the number of
    clusters and the share of noise over the size of the smallest cluster. Of a tree and of
    stability: the number of clusters, how many of them are found again among random subsets of
    the cells, and their mean stability, over the significance of the valleys or the resolution
    of the graph.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.n_clusters`.
    key
        Its ``key_added``.
    title
        Title of the figure; by default what was found.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the two axes.

    Raises
    ------
    KeyError
        There is no such estimate, or its labels or its map are gone.

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
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    if over is not None:
        _counts(left, table, *over)
        _found_again(right, table, over[0])
    else:
        labels = adata.obs[Key.obs.labels(key)]
        _map(left, np.asarray(adata.obsm[Key.obsm.latent(key)]), labels)
        _sizes(right, table)
    if title is None:
        n = int(record["n_clusters"])
        title = f"{n} cluster{'' if n == 1 else 's'} by {record['method']}"
        title += f", {float(record['noise']):.1%} noise" if record["noise"] > 0 else ""
    fig.suptitle(title)
    return finish("n_clusters", fig, [left, right], show=show, save=save, return_fig=return_fig)


def _chosen(ax: Axes, table: pd.DataFrame, column: str) -> None:
    """A dashed line at the setting that was taken, if one was."""
    for value in table.loc[table["chosen"].astype(bool), column]:
        ax.axvline(value, color=_CHOSEN, linestyle="--", linewidth=1, zorder=0)


def _frame(ax: Axes, x: str, y: str, ticks: list[float], *, whole: bool = False) -> None:
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.minorticks_off()
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(False)
    if whole:
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def _round(values: pd.Series) -> list[float]:
    """Round numbers in their range for the ticks, or the numbers themselves."""
    steps = [m * 10.0**e for e in range(-4, 5) for m in (1, 2, 5)]
    inside = [s for s in steps if values[values > 0].min() <= s <= values.max()]
    return inside or values.tolist()


def _apart(table: pd.DataFrame) -> list[float]:
    """Sizes that can be written below a logarithmic axis; the one that was taken before others."""
    sizes = table.sort_values("chosen", ascending=False, kind="stable")["min_cluster_size"]
    kept: list[float] = []
    for size in sizes:
        if all(abs(math.log(size / other)) > LEAST_RATIO for other in kept):
            kept.append(size)
    return sorted(kept)


def _map(ax: Axes, points: np.ndarray, labels: pd.Series) -> None:
    """Points of the first two dimensions (of one: over the order of the cells)."""
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


def _sizes(ax: Axes, table: pd.DataFrame) -> None:
    """Number of clusters and share of noise over the size of the smallest cluster."""
    x = table["min_cluster_size"]
    _chosen(ax, table, "min_cluster_size")
    ax.plot(x, table["n_clusters"], "o-", color=_K)
    _frame(ax, "cells of the smallest cluster", "clusters", _apart(table), whole=True)
    ax.set_ylim(0, max(1.1 * table["n_clusters"].max(), 1))
    ax.yaxis.label.set_color(_K)
    twin = ax.twinx()
    twin.plot(x, table["noise"], "s:", color=_SECOND, markersize=4)
    twin.set_ylim(0, max(1.1 * table["noise"].max(), 0.05))
    twin.set_ylabel("share of noise", color=_SECOND)
    twin.spines["top"].set_visible(False)
    twin.grid(False)


def _counts(ax: Axes, table: pd.DataFrame, column: str, what: str) -> None:
    """How many clusters or communities there are, and how many are found again."""
    x = table[column]
    _chosen(ax, table, column)
    ax.plot(x, table["n_clusters"], "o-", color=_K, label=what)
    ax.plot(x, table["stable"], "s-", color=_SECOND, markersize=4, label="found again")
    _frame(ax, column, what, _round(x), whole=True)
    # at high resolutions there are hundreds of communities that nobody finds again
    ax.set_ylim(0, max(min(1.2 * table["n_clusters"].max(), 3 * table["stable"].max()), 4))
    ax.legend(frameon=False, loc="best")


def _found_again(ax: Axes, table: pd.DataFrame, column: str) -> None:
    """Mean stability over what is varied, with its spread over the subsets."""
    x, mean, spread = table[column], table["stability"], table["spread"]
    _chosen(ax, table, column)
    # no mean can be above 1
    top = (mean + spread).clip(upper=1)
    ax.fill_between(x, mean - spread, top, color=_K, alpha=0.2, linewidth=0)
    ax.plot(x, mean, "o-", color=_K)
    _frame(ax, column, "mean stability (Jaccard index)", _round(x))
    ax.set_ylim(0, 1.05)
