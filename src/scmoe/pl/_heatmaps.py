"""Heat maps: the drawing that several plots share, and the plots of a single table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from natsort import natsorted
from scipy.sparse import issparse

from scmoe._core.cells import check_is_adata, check_sparse, clustering_record
from scmoe._core.keys import Key
from scmoe.metrics import category_agreement

from ._figure import clusters_of, fill_docs, finish, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure

# inches
_ROW, _LETTER, _FIELD = 0.3, 0.075, 0.32
_COLOUR_BAR, _COLOUR_BAR_WIDTH, _GAP = 0.12, 1.8, 0.12
_LEAST_WIDTH, _LEAST_ROWS = 2.2, 4
_BARS, _LEAST_ARMS = 1.5, 6

_AMBIGUOUS, _NONE = "ambiguous", "no class"
_TOLERANCE = 1e-3


def draw_heatmap(
    ax: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    size: tuple[float, float],
    label: str,
    cmap: str,
    vmin: float | None = None,
    vmax: float | None = None,
    texts: Sequence[Sequence[str]] | None = None,
    linecolor: str = "white",
) -> None:
    """Draw a table as a heat map, with a colour bar above; the first row is on top.

    Parameters
    ----------
    ax
        Axes to draw in. Row ``i`` is between ``y = i`` and ``i + 1``.
    values
        Rows x columns; NaN is left white.
    rows, columns
        Their names.
    size
        Width and height of the axes in inches, so that the colour bar always has the same size.
    label
        Label of the colour bar.
    cmap, vmin, vmax
        Colours and their limits.
    texts
        Text of each field.
    linecolor
        Colour of the lines between fields.
    """
    width, height = size
    box = (0, 1 + _GAP / height, min(_COLOUR_BAR_WIDTH / width, 1.0), _COLOUR_BAR / height)
    bar = ax.inset_axes(box)
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    if not known.any():
        vmin, vmax = vmin or 0.0, vmax or 1.0
    sns.heatmap(
        values,
        ax=ax,
        cmap=cmap,
        vmin=vmin,
        vmax=vmax,
        annot=None if texts is None else np.array(texts, dtype=object),
        fmt="",
        annot_kws={"fontsize": "x-small"},
        linewidths=0.6,
        linecolor=linecolor,
        xticklabels=list(columns),
        yticklabels=list(rows),
        cbar_ax=bar,
        cbar_kws={"orientation": "horizontal", "ticklocation": "top"},
    )
    turned = max(map(len, columns)) > 3
    ax.tick_params("x", rotation=90 * turned, labelsize="small", length=0)
    ax.tick_params("y", rotation=0, labelsize="small", length=0)
    for i, j in np.argwhere(~known) if texts is not None else ():
        # seaborn writes nothing on a field without a colour
        where = {"ha": "center", "va": "center"}
        ax.text(j + 0.5, i + 0.5, texts[i][j], fontsize="x-small", color="0.4", **where)
    bar.tick_params(labelsize="x-small", length=2)
    bar.set_xlabel(label, fontsize="small", loc="left")
    bar.xaxis.set_label_position("top")


def draw_sizes(ax: Axes, sizes: pd.Series, colors: Mapping[str, str]) -> None:
    """Draw a bar with the number and the share of the cells beside each row of a heat map."""
    share = 100 * sizes / sizes.sum()
    texts = [
        f"{n:,} ({percent:.1f} %)" if percent >= 0.1 else f"{n:,} (<0.1 %)"
        for n, percent in zip(sizes, share, strict=True)
    ]
    bars = ax.barh(
        np.arange(len(sizes)) + 0.5,
        share,
        height=0.75,
        color=[colors.get(name, "0.5") for name in sizes.index],
        alpha=0.5,
    )
    _finish_bars(ax, bars, texts, "cells", max(share.max(), 1e-9))


def _finish_bars(ax: Axes, bars: BarContainer, texts: list[str], title: str, end: float) -> None:
    """Write texts on horizontal bars, from their left end, and hide everything else."""
    for bar, text in zip(bars, texts, strict=True):
        ax.annotate(
            text,
            (0, bar.get_y() + bar.get_height() / 2),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
        )
    ax.set_xlim(0, end)
    ax.set_title(title, fontsize="small", loc="left", pad=4)
    ax.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
    ax.tick_params(which="minor", length=0)
    ax.grid(visible=False, which="both")
    ax.spines[:].set_visible(False)


def _draw_table(
    values: pd.DataFrame,
    texts: Sequence[Sequence[str]],
    ax: Axes | None,
    *,
    label: str,
    cmap: str,
    vmax: float,
) -> tuple[Figure, Axes]:
    """Draw a table with a text in each field, in axes or in a figure of the right size."""
    n_rows, n_columns = values.shape
    rows, columns = values.index.astype(str), values.columns.astype(str)
    longest = max(len(text) for row in texts for text in row)
    width = max(n_columns * max(_FIELD, _LETTER * longest + 0.1), _LEAST_WIDTH)
    height = max(n_rows, _LEAST_ROWS) * _ROW
    if ax is None:
        left, below = (_LETTER * max(map(len, names)) for names in (rows, columns))
        size = (width + left + 0.8, height + below + 1.2)
        fig, ax = plt.subplots(figsize=size, layout="constrained")
    else:
        fig = ax.figure
        box = ax.get_window_extent().transformed(fig.dpi_scale_trans.inverted())
        width, height = box.width, box.height
    colors = {"label": label, "cmap": cmap, "vmin": 0, "vmax": vmax}
    draw_heatmap(ax, values, rows, columns, size=(width, height), texts=texts, **colors)
    return fig, ax


@fill_docs
def mmd(
    table: pd.DataFrame,
    *,
    cmap: str = "viridis",
    label: str | None = None,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Draw the MMD between groups of cells as a heat map with numbers.

    The colour scale starts at 0; estimates below 0, which similar groups have by chance, have the
    colour of 0.

    Parameters
    ----------
    table
        The result of :func:`scmoe.metrics.mmd_table`, or any table of numbers.
    cmap
        Colour map.
    label
        Label of the colour bar; by default the statistic of the table.
    {title}
    {show_save_ax}

    Returns
    -------
    {returns} the axes.

    Raises
    ------
    ValueError
        If ``table`` is not a table of numbers, or none of them is finite.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> table = scmoe.metrics.mmd_table(adata.X, adata.obs["scmoe"])
    >>> scmoe.pl.mmd(table)
    """
    if not isinstance(table, pd.DataFrame) or not all(
        pd.api.types.is_numeric_dtype(column) for column in table.dtypes
    ):
        raise ValueError(
            "pl.mmd draws a table of numbers; make one with scmoe.metrics.mmd_table(x, labels)."
        )
    values = table.to_numpy(dtype=np.float64)
    if not np.isfinite(values).any():
        raise ValueError("There is nothing to draw: the table has no finite number.")
    largest = float(np.nanmax(values))
    if label is None:
        scaled = table.attrs.get("statistic") == "scaled"
        label = "scaled MMD statistic" if scaled else "squared MMD"
    texts = [[_number(value, largest) for value in row] for row in values]
    vmax = largest if largest > 0 else 1
    fig, ax = _draw_table(table, texts, ax, label=label, cmap=cmap, vmax=vmax)
    return finish("mmd", fig, ax, title=title, show=show, save=save, return_fig=return_fig)


def _number(value: float, largest: float) -> str:
    if np.isnan(value):
        return "–"
    digits = 0 if largest >= 100 else 2
    # adding 0 turns "-0.00", which would look like a difference, into "0.00"
    return f"{round(value, digits) + 0.0:.{digits}f}"


@fill_docs
def prior(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    prior: str = Key.obsm.PRIOR,
    cmap: str = "viridis",
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Draw the clusters of the cells of each class of a prior as a heat map.

    The colour is the share of the cells of a row in each cluster, the number in a field is the
    number of cells. Rows are the classes, in natural order, with the cells that certainly belong
    to one class; two more rows show the cells with several classes (``ambiguous``) and without a
    class (``no class``). Cells without a cluster are left out.

    Parameters
    ----------
    adata
        Clustered cells with a prior.
    {groupby_key}
    prior
        Name of the prior in ``.obsm``, cells x classes, as ``scmoe.pp.marker_prior`` writes it: a
        data frame, or an array, whose classes are then numbered. A cell certainly belongs to a
        class if its row sums to 1 and one value is above 0.5.
    cmap
        Colour map.
    {title}
    {show_save_ax}

    Returns
    -------
    {returns} the axes.

    Raises
    ------
    KeyError
        If the clusters or the prior do not exist.
    ValueError
        If no cell has a cluster, or the prior holds NaN or negative values.

    Examples
    --------
    >>> scmoe.pp.marker_prior(adata, {"T": "CD3", "B": "CD19", "NK": ["CD56", "CD3-"]})
    >>> scmoe.tl.cluster(adata, similarity=scmoe.similarity.Prior(), n_clusters=3)
    >>> scmoe.pl.prior(adata)
    """
    check_is_adata(adata)
    classes, labels = _prior_classes(adata, prior), clusters_of(adata, key)
    counts = pd.crosstab(classes.to_numpy(), labels.astype(str).where(labels.notna()).to_numpy())
    # classes without cells stay
    counts = counts.reindex(classes.cat.categories, fill_value=0)[natsorted(counts.columns)]
    sizes = counts.sum(axis=1)
    named = counts.set_axis([f"{name} ({sizes[name]:,})" for name in counts.index])
    fig, ax = _draw_table(
        named.div(np.maximum(sizes.to_numpy(), 1), axis=0),
        [[f"{n:,}" if n else "" for n in row] for row in counts.to_numpy()],
        ax,
        label="share of the cells of a class",
        cmap=cmap,
        vmax=1,
    )
    ax.set_xlabel(key)
    ax.set_ylabel(prior)
    n_classes = sum(name not in (_AMBIGUOUS, _NONE) for name in counts.index)
    if n_classes < len(counts):
        ax.axhline(n_classes, color="white", linewidth=4)
    return finish("prior", fig, ax, title=title, show=show, save=save, return_fig=return_fig)


def _prior_classes(adata: AnnData, prior: str) -> pd.Series:
    """Return the class of each cell by the prior, or ``ambiguous`` or ``no class``."""
    if prior not in adata.obsm:
        there = ", ".join(map(str, adata.obsm)) or "nothing"
        raise KeyError(
            f"There is no prior {prior!r} in .obsm (there is {there}): run "
            "scmoe.pp.marker_prior first, or name the prior with prior=."
        )
    table = adata.obsm[prior]
    check_sparse(table, f".obsm[{prior!r}]")
    if issparse(table):
        table = table.toarray()
    names = table.columns.astype(str) if isinstance(table, pd.DataFrame) else None
    values = np.asarray(table, dtype=np.float64)
    if np.isnan(values).any() or (values < 0).any():
        raise ValueError(f".obsm[{prior!r}] holds NaN or negative values; a prior is 0 to 1.")
    names = [str(i) for i in range(values.shape[1])] if names is None else list(names)
    total = values.sum(axis=1)
    certain = (np.abs(total - 1) <= _TOLERANCE) & (values.max(axis=1) > 0.5)
    classes = np.array(names, dtype=object)[values.argmax(axis=1)]
    classes[~certain] = _AMBIGUOUS
    classes[total == 0] = _NONE
    rows = [*natsorted(names), *(row for row in (_AMBIGUOUS, _NONE) if (classes == row).any())]
    return pd.Series(pd.Categorical(classes, categories=rows), index=adata.obs_names)


@fill_docs
def arms(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    cmap: str = "Blues",
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw the agreement between the categories of the arms of ``"cpl-mixvae"``.

    A field compares the cells that one arm assigns to the category of the row with the cells that
    another arm assigns to the category of the column: the number of shared cells, divided by the
    larger of the two numbers (:func:`scmoe.metrics.category_agreement`). With two arms the first
    one is in the rows; with more arms the fields are means over all pairs. The diagonal is the
    consensus of each category; the bars show the consensus again, with the number of cells. Dark
    fields off the diagonal are categories that the arms confuse.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster`.
    {key}
    cmap
        Colour map.
    title
        Title of the figure; by default the mean consensus.
    {show_save}

    Returns
    -------
    {returns} the axes of the matrix and of the bars.

    Raises
    ------
    KeyError
        If there are no votes of arms: no such clustering, or one by another model or with one
        arm.

    Examples
    --------
    >>> scmoe.tl.cluster(adata, model="cpl-mixvae")
    >>> scmoe.pl.arms(adata)
    """
    clustering_record(adata, key)
    slot = Key.obsm.votes(key)
    if slot not in adata.obsm or Key.obsm.proba(key) not in adata.obsm:
        raise KeyError(
            f"Did not find the votes of the arms, `.obsm[{slot!r}]`, and the probabilities: run "
            '`scmoe.tl.cluster(adata, model="cpl-mixvae")` with two arms or more, or name its '
            "`key_added` as `key`."
        )
    votes, proba = np.asarray(adata.obsm[slot]), adata.obsm[Key.obsm.proba(key)]
    agreement = category_agreement(votes.T, proba.shape[1])
    n_cells = np.bincount(proba.to_numpy().argmax(1), minlength=proba.shape[1])
    # categories of no arm are left out
    used = np.unique(votes)
    agreement, n_cells = agreement[np.ix_(used, used)], n_cells[used]
    names = [short(name) for name in proba.columns[used]]

    side = max(len(names), _LEAST_ARMS) * _ROW
    room = _LETTER * max(map(len, names))
    fig, (ax, bars) = plt.subplots(
        1,
        2,
        figsize=(side + _BARS + room + 1.0, side + room + 1.3),
        width_ratios=(side, _BARS),
        sharey=True,
        layout="constrained",
    )
    colors = {"cmap": cmap, "vmin": 0, "vmax": 1, "linecolor": "0.9"}
    label = "share of the cells"
    draw_heatmap(ax, agreement, names, names, size=(side, side), label=label, **colors)
    pair = votes.shape[1] == 2
    ax.set_ylabel("first arm" if pair else "one arm", fontsize="small")
    ax.set_xlabel("second arm" if pair else "another arm", fontsize="small")
    consensus = agreement.diagonal()
    texts = [f"{value:.2f} ({n:,})" for value, n in zip(consensus, n_cells, strict=True)]
    drawn = bars.barh(np.arange(len(names)) + 0.5, consensus, height=0.7, color="0.8")
    _finish_bars(bars, drawn, texts, "consensus (cells)", 1)
    if title is None:
        mean = consensus[n_cells > 0].mean()
        title = f"mean consensus {mean:.2f} of {(n_cells > 0).sum()} categories"
    axes = [ax, bars]
    return finish("arms", fig, axes, title=title, show=show, save=save, return_fig=return_fig)
