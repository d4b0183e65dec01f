"""Plots of reliability: stability of clusters, calibration of probabilities, drift of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from natsort import natsort_keygen

from scmoe._core.cells import check_is_adata, obs_columns
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe.metrics import STABLE
from scmoe.metrics import calibration as measure_calibration
from scmoe.tl import DRIFT, SHIFT

from ._figure import fill_docs, finish, make_panels, open_frame, short

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STABLE, _OTHER, _LINE = "tab:blue", "tab:orange", "0.45"
_ALARM = "tab:red"
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
_ROW = 0.28
"""Height of a row in inches."""
_LONGEST = 40
"""Letters of a name that are shown."""
_MAP = 4.2
"""Width of the map in inches, without its colour bar."""


@fill_docs
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
    """Draw the stability and the size of each cluster.

    Each cluster of the reference has a row with a point for each run (the best Jaccard index
    with a cluster of this run), their mean as a stroke, and their 95 % interval as a bar. The
    dashed line is at 0.75: a cluster with at least this mean is stable. The second panel shows
    the sizes of the clusters.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.stability`.
    key
        The ``key_added`` of the clustering.
    basis
        Map in ``.obsm``, with or without the prefix ``"X_"``, on which the ambiguity of each cell
        is drawn; by default none.
    title
        Title of the figure; by default the number of stable clusters.
    {show_save}

    Returns
    -------
    {returns} the axes of the indices, of the sizes, and of the map if there is one.

    Raises
    ------
    KeyError
        If there is no such record or map, or the ambiguity is missing.
    ValueError
        If the map has fewer than two dimensions.

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
    longest = max(len(name) for name in _names(table))
    widths = [4.6 + 0.08 * longest, 1.9] + ([] if points is None else [_MAP + 0.8])
    fig, axes = make_panels(len(widths), len(widths), (sum(widths), height), width_ratios=widths)
    _draw_indices(axes[0], table, jaccard)
    _draw_sizes(axes[1], table)
    if points is not None:
        _draw_map(axes[2], points, adata.obs[Key.obs.ambiguity(key)].to_numpy(), basis)
    if title is None:
        n = int(table["stable"].sum())
        title = f"{n} of {len(table)} cluster{'' if len(table) == 1 else 's'} stable"
        title += f" over {jaccard.shape[1]} runs"
    return finish("stability", fig, axes, title=title, show=show, save=save, return_fig=return_fig)


def _points(adata: AnnData, key: str, basis: str) -> np.ndarray:
    """Return the first two dimensions of a map."""
    name = rep_key(adata, f"X_{basis}")
    if name not in adata.obsm:
        raise KeyError(f"Did not find {basis!r} in `.obsm`, which holds {list(adata.obsm)}.")
    if Key.obs.ambiguity(key) not in adata.obs:
        raise KeyError(
            f"Did not find `.obs[{Key.obs.ambiguity(key)!r}]`: run `scmoe.tl.stability` again."
        )
    points = np.asarray(adata.obsm[name])
    if points.ndim != 2 or points.shape[1] < 2:
        raise ValueError(f"`.obsm[{name!r}]` is no map: it has fewer than two dimensions.")
    return points[:, :2]


def _names(table: pd.DataFrame) -> list[str]:
    return [short(name, _LONGEST) for name in table.index]


def _order_rows(ax: Axes, n: int) -> None:
    """Put the first cluster on top."""
    ax.set_ylim(n - 0.5, -0.5)
    open_frame(ax)


def _draw_indices(ax: Axes, table: pd.DataFrame, jaccard: pd.DataFrame) -> None:
    y = np.arange(len(table))
    colors = np.where(table["stable"].astype(bool), _STABLE, _OTHER)
    ax.axvline(STABLE, color=_LINE, linestyle="--", linewidth=1, zorder=0)
    # thin lines lead from a name to its points
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
    # runs are drawn one below the other, in their order, so that equal ones are visible
    offsets = np.linspace(-0.2, 0.2, jaccard.shape[1])
    for row, values in enumerate(jaccard.to_numpy()):
        ax.scatter(values, row + offsets, s=9, c=colors[row], alpha=0.8, linewidths=0, zorder=3)
    ax.vlines(table["jaccard"], y - 0.36, y + 0.36, colors=colors, linewidth=2, zorder=4)
    ax.set_yticks(y, _names(table))
    ax.set_xlim(-0.02, 1.04)
    ax.set_xlabel("Jaccard index with the best cluster of a run")
    _order_rows(ax, len(table))


def _draw_sizes(ax: Axes, table: pd.DataFrame) -> None:
    colors = np.where(table["stable"].astype(bool), _STABLE, _OTHER)
    ax.barh(np.arange(len(table)), table["n_cells"], height=0.62, color=colors)
    ax.set_yticks([])
    ax.set_xlabel("cells")
    ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    _order_rows(ax, len(table))


def _draw_map(ax: Axes, points: np.ndarray, ambiguity: np.ndarray, basis: str) -> None:
    """Draw the ambiguity of the cells, the most ambiguous on top; grey without a run."""
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


@fill_docs
def calibration(
    adata: AnnData,
    truth: str,
    *,
    key: str = Key.DEFAULT,
    n_bins: int = 15,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw a reliability diagram: the accuracy against the probability of the cluster.

    Bars that end on the diagonal are well calibrated; below the diagonal the model is too
    certain, above it not certain enough. The lower panel shows the number of cells of each bar.

    Parameters
    ----------
    adata
        Cells with probabilities, preferably cells that the model was not trained on
        (:func:`scmoe.tl.assign`).
    truth
        Column of ``.obs`` with the population of each cell; NaN if unknown.
    key
        The ``key_added`` of the clustering; ``.obsm[key + "_proba"]`` is read.
    n_bins
        Number of bars.
    title
        Title of the figure; by default the expected calibration error
        (:func:`scmoe.metrics.calibration`).
    {show_save}

    Returns
    -------
    {returns} the two axes.

    Raises
    ------
    KeyError
        If there is no such column, or there are no probabilities.
    ValueError
        As :func:`scmoe.metrics.calibration`.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.pl.calibration(adata, "population")
    """
    check_is_adata(adata)
    slot = Key.obsm.proba(key)
    if slot not in adata.obsm:
        raise KeyError(
            f"Did not find {slot!r} in `.obsm`: run `scmoe.tl.cluster` or `scmoe.tl.assign` with "
            f"`key_added={key!r}`."
        )
    if truth not in adata.obs:
        raise KeyError(f"Did not find {truth!r} in `.obs`, which holds {obs_columns(adata)}.")
    found = measure_calibration(adata.obsm[slot], adata.obs[truth], n_bins=n_bins)
    table = found.table
    filled = table["n_cells"] > 0
    middle, width = (table["low"] + table["high"]) / 2, 1 / n_bins
    sure, right = table["probability"], table["accuracy"]
    fig, axes = make_panels(2, 1, (4.2, 5), height_ratios=(3, 1), sharex=True)
    upper, lower = axes
    bars = {"width": 0.94 * width, "zorder": 2}
    upper.bar(middle[filled], right[filled], color=_STABLE, alpha=0.8, label="accuracy", **bars)
    upper.bar(
        middle[filled],
        (sure - right)[filled],
        bottom=right[filled],
        color="none",
        edgecolor=_OTHER,
        hatch="////",
        linewidth=0.8,
        label="gap to the probability",
        **bars,
    )
    upper.plot([0, 1], [0, 1], color=_LINE, linestyle="--", linewidth=1, zorder=3)
    upper.set_ylim(0, 1.03)
    upper.set_ylabel("accuracy")
    upper.legend(frameon=False, loc="upper left", fontsize="small")
    lower.bar(middle, table["n_cells"], color=_LINE, **bars)
    lower.set_yscale("symlog", linthresh=1)
    lower.set_ylim(0, None)
    top = int(np.ceil(np.log10(max(table["n_cells"].max(), 10))))
    lower.set_yticks([0, *(10**i for i in range(0, top + 1, max(top // 2, 1)))])
    lower.set_ylabel("cells")
    lower.set_xlabel("probability of the cluster")
    # no probability is below one over the number of clusters
    least = table.loc[filled, "low"].min()
    upper.set_xlim(max(least - width, 0), 1)
    for ax in axes:
        open_frame(ax)
    if title is None:
        title = f"expected calibration error {found.error:.3f}, {found.n_cells:,} cells"
    return finish(
        "calibration", fig, axes, title=title, show=show, save=save, return_fig=return_fig
    )


@fill_docs
def drift(
    query: AnnData,
    *,
    key: str = Key.DEFAULT,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Draw the drift of each sample from the reference as bars, with rejected cells and shifts.

    Samples that :func:`scmoe.tl.assign` warns of are red: because of their cells (the bar goes
    beyond the dashed line) or because of a shifted marker.

    Parameters
    ----------
    query
        Cells assigned by :func:`scmoe.tl.assign`.
    key
        The ``key_added`` of the assignment.
    {title}
    {show_save_ax}

    Returns
    -------
    {returns} the axes.

    Raises
    ------
    KeyError
        If there is no table of drift, because the cells were not assigned.

    Examples
    --------
    >>> scmoe.tl.cluster(reference)
    >>> scmoe.tl.assign(query, reference)
    >>> scmoe.pl.drift(query)
    """
    check_is_adata(query, "query")
    record = query.uns.get(Key.uns.result(key), {})
    if "drift" not in record:
        raise KeyError(
            f"Did not find a table of drift in `.uns[{key!r}]`: run "
            "`scmoe.tl.assign(query, reference)` first, or name its `key_added` as `key`."
        )
    table = record["drift"].sort_index(key=natsort_keygen(), ascending=False)
    if ax is None:
        fig, ax = plt.subplots(figsize=(7, 1.2 + 0.32 * len(table)), layout="constrained")
    else:
        fig = ax.figure
    colors = [_ALARM if alarm else _STABLE for alarm in table["alarm"]]
    ax.barh(range(len(table)), table["drift"], color=colors, height=0.7)
    ax.axvline(DRIFT, color="0.4", linestyle="--", linewidth=1)
    for y, row in enumerate(table.itertuples()):
        moved = f", {row.marker} moved {row.shift:.2f}" if row.shift > SHIFT else ""
        ax.text(
            row.drift + 0.01,
            y,
            f"{row.rejected:.1%} rejected{moved}",
            va="center",
            size=8,
            bbox=_WHITE,
        )
    ax.set_yticks(range(len(table)), [str(name) for name in table.index])
    ax.set_xlim(0, 1.45)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.set_xlabel("drift: excess of cells that are unlike the reference")
    open_frame(ax)
    if title is not None:
        ax.set_title(title)
    return finish("drift", fig, ax, title=None, show=show, save=save, return_fig=return_fig)
