"""Heat map of the markers of the clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
from scipy.cluster.hierarchy import dendrogram as draw_dendrogram
from scipy.cluster.hierarchy import leaves_list, linkage

from scmoe._core.cells import check_is_adata
from scmoe._core.keys import Key
from scmoe._core.signatures import measured_markers, medians

from ._figure import clusters_of, colors_of, fill_docs, finish, short
from ._heatmaps import draw_heatmap, draw_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

StandardScale = Literal["var", "group"]

# inches
_ROW, _COLUMN = 0.26, 0.3
_LEAST_ROWS = 4
_TREE, _BARS, _GAP = 0.6, 1.3, 0.08
_LETTER, _LABEL, _TITLE, _ABOVE, _LEAST_WIDTH = 0.075, 0.25, 0.3, 0.62, 4.5


@fill_docs
def markers(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    markers: Sequence[str] | None = None,
    layer: str | None = None,
    standard_scale: StandardScale | None = "var",
    dendrogram: bool = True,
    cmap: str = "viridis",
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Draw the median expression of the markers in the clusters as a heat map, with cluster sizes.

    Rows are clusters, ordered such that similar clusters are neighbours (average linkage of the
    Euclidean distances between the rows, optimal leaf order). Columns are markers, in the order of
    ``.var_names`` or of ``markers``. A bar beside each row gives the number of cells and their
    share of all cells, in the colour of the cluster if there is one. The dendrogram and the bars
    are to the right of the axes of the heat map, also with ``ax``.

    Parameters
    ----------
    adata
        Clustered cells.
    {groupby_key} Cells without a cluster are left out.
    markers
        The markers to show. By default all of ``.var_names`` except those whose
        ``.var["kind"]``, as the FCS reader writes it, is ``time``, ``scatter``, ``copy`` or
        ``other``.
    layer
        The layer to read; by default ``.X``.
    standard_scale
        ``"var"`` scales the medians of each marker to 0 to 1 over the clusters, ``"group"``
        those of each cluster over the markers; None does not scale.
    dendrogram
        Whether to draw the dendrogram of the clusters.
    cmap
        Colour map.
    {title}
    {show_save_ax}

    Returns
    -------
    {returns} the axes of the heat map.

    Raises
    ------
    KeyError
        If the clusters, the layer or a marker do not exist.
    ValueError
        If there is no cluster or no marker to show, or ``standard_scale`` is unknown.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.pl.markers(adata)
    >>> scmoe.pl.markers(adata, markers=["CD3", "CD19"], standard_scale=None)
    """
    check_is_adata(adata)
    if standard_scale not in (*get_args(StandardScale), None):
        raise ValueError(f"standard_scale must be 'var', 'group' or None, got {standard_scale!r}.")
    names = _shown_markers(adata, markers)
    labels = clusters_of(adata, key).astype("category").cat.remove_unused_categories()
    table = scale_medians(medians(adata, labels, names, layer), standard_scale)
    sizes = labels.value_counts(sort=False)
    sizes = sizes.set_axis(sizes.index.astype(str)).loc[table.index]
    tree = _linkage(table)
    if tree is not None:
        order = leaves_list(tree)
        table, sizes = table.iloc[order], sizes.iloc[order]

    rows, columns = list(map(short, table.index)), list(map(short, table.columns))
    if ax is None:
        beside = _BARS + (_TREE + _GAP if dendrogram and tree is not None else 0)
        ax = _make_axes(rows, columns, beside, _TITLE if title else 0)
    fig = ax.figure
    box = ax.get_window_extent().transformed(fig.dpi_scale_trans.inverted())
    width, height = box.width, box.height
    draw_heatmap(
        ax,
        table,
        rows,
        columns,
        size=(width, height),
        label=_label(standard_scale, layer),
        cmap=cmap,
        vmin=0 if standard_scale else None,
        vmax=1 if standard_scale else None,
    )
    ax.tick_params("x", rotation=90)
    ax.set_ylabel(short(key))
    left = 1 + _GAP / width
    if dendrogram and tree is not None:
        _draw_tree(ax.inset_axes((left, 0, _TREE / width, 1)), tree)
        left += (_TREE + _GAP) / width
    bars = ax.inset_axes((left, 0, _BARS / width, 1), sharey=ax)
    draw_sizes(bars, sizes, colors_of(adata, key) or {})
    return finish("markers", fig, ax, title=title, show=show, save=save, return_fig=return_fig)


def _make_axes(rows: list[str], columns: list[str], beside: float, title: float) -> Axes:
    """Make a figure with axes for a heat map, and room for its names and what is beside it.

    Layout engines of matplotlib fail if names or the axes beside the heat map are wide.
    """
    left, below = (0.25 + _LETTER * max(map(len, names)) for names in (rows, columns))
    left += _LABEL
    width, height = len(columns) * _COLUMN, max(len(rows), _LEAST_ROWS) * _ROW
    whole = max(left + width + _GAP + beside + 0.1, _LEAST_WIDTH), below + height + _ABOVE + title
    fig = plt.figure(figsize=whole)
    place = (left / whole[0], below / whole[1], width / whole[0], height / whole[1])
    return fig.add_axes(place)


def _shown_markers(adata: AnnData, wanted: Sequence[str] | None) -> list[str]:
    """Return the markers to show, by default all that are not technical channels."""
    if wanted is not None:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        missing = [name for name in names if name not in adata.var_names]
        if missing:
            raise KeyError(f"There is no marker {', '.join(map(repr, missing))} in .var_names.")
    else:
        names = measured_markers(adata, [])
    if not names:
        raise ValueError(
            f"There is no marker to show: .var[{Key.var.KIND!r}] calls every channel one of "
            f"{', '.join(Key.var.TECHNICAL_KINDS)}. Name some with markers=."
            if wanted is None and adata.n_vars
            else "There is no marker to show."
        )
    return names


def scale_medians(medians: pd.DataFrame, standard_scale: StandardScale | None) -> pd.DataFrame:
    """Scale medians to 0 to 1, over the rows (``"var"``) or the columns (``"group"``)."""
    if standard_scale is None:
        return medians
    axis = 0 if standard_scale == "var" else 1
    other = 1 - axis
    low, high = medians.min(axis=axis), medians.max(axis=axis)
    span = (high - low).where(high > low, 1.0)
    return medians.sub(low, axis=other).div(span, axis=other)


def _linkage(table: pd.DataFrame) -> np.ndarray | None:
    """Cluster the rows hierarchically; None for fewer than 3 rows."""
    if len(table) < 3:
        return None
    values = np.nan_to_num(table.to_numpy(dtype=np.float64))
    return linkage(values, method="average", metric="euclidean", optimal_ordering=True)


def _label(standard_scale: StandardScale | None, layer: str | None) -> str:
    what = "median expression" if layer is None else f"median of {layer!r}"
    scale = {"var": ", 0 to 1 per marker", "group": ", 0 to 1 per cluster", None: ""}
    return what + scale[standard_scale]


def _draw_tree(ax: Axes, tree: np.ndarray) -> None:
    """Draw a dendrogram with its root at the right, leaves beside the rows of the heat map."""
    draw_dendrogram(
        tree,
        ax=ax,
        orientation="left",
        no_labels=True,
        color_threshold=0,
        above_threshold_color="0.45",
    )
    for links in ax.collections:
        links.set_linewidth(0.8)
    # scipy puts leaf i at 10 i + 5
    ax.set(xlim=(0, ax.get_xlim()[0]), ylim=(10 * (len(tree) + 1), 0))
    ax.axis("off")
