"""Heat map of the markers of the clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import dendrogram as draw_tree
from scipy.cluster.hierarchy import linkage

from scmoe._core.cells import check_is_adata
from scmoe._core.keys import Key
from scmoe._core.signatures import medians

from ._figure import colors_of, finish, short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# inches
_ROW, _COLUMN = 0.26, 0.3
_LEAST_ROWS = 4
_TREE, _BARS, _GAP = 0.6, 1.3, 0.08
_COLOUR_BAR, _COLOUR_BAR_WIDTH = 0.12, 1.8


def markers(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    markers: Sequence[str] | None = None,
    layer: str | None = None,
    standard_scale: Literal["var", "group"] | None = "var",
    dendrogram: bool = True,
    cmap: str = "viridis",
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Heat map of the median expression of the markers in the clusters, with cluster sizes.

    Clusters are rows, ordered such that similar ones are neighbours (average linkage of the
    Euclidean distances between the rows that are shown, optimal leaf order); markers are
    columns, in the order of ``.var_names`` or of ``markers``. A bar beside each row gives the
    number of cells and their share of all cells, in the colour of the cluster where it has one.

    Parameters
    ----------
    adata
        Clustered cells.
    key
        Column of ``.obs`` with the clusters, the ``key_added`` of :func:`scmoe.tl.cluster`.
        Any other categorical column does too. Cells without a cluster are left out.
    markers
        The markers to show. By default all of ``.var_names`` but those that ``.var["kind"]``,
        which the FCS reader writes, calls ``time``, ``scatter``, ``copy`` or ``other``.
    layer
        The layer to read; by default ``.X``.
    standard_scale
        ``"var"`` scales the medians of each marker to 0 to 1 over the clusters, ``"group"``
        those of each cluster over the markers, None leaves them as they are.
    dendrogram
        Whether to draw the tree that the clusters are ordered by.
    cmap
        Colour map.
    title
        Title of the figure.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    ax
        Axes for the heat map; the tree and the bars are drawn to the right of it.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the axes of the heat map.

    Raises
    ------
    KeyError
        If the clusters, the layer or a marker are not there.
    ValueError
        If there is no cluster or no marker to show, or for an unknown ``standard_scale``.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.pl.markers(adata)
    >>> scmoe.pl.markers(adata, markers=["CD3", "CD19"], standard_scale=None)
    """
    check_is_adata(adata)
    if standard_scale not in ("var", "group", None):
        raise ValueError(f"standard_scale must be 'var', 'group' or None, got {standard_scale!r}.")
    middle, sizes = _medians(adata, key, _markers(adata, markers), layer)
    shown = _scaled(middle, standard_scale)
    tree = _tree(shown)
    if tree is not None:
        order = draw_tree(tree, no_plot=True)["leaves"]
        shown, sizes = shown.iloc[order], sizes.iloc[order]

    n_rows, n_columns = shown.shape
    height = max(n_rows, _LEAST_ROWS) * _ROW
    if ax is None:
        width = n_columns * _COLUMN + _BARS + (_TREE if dendrogram else 0) + 1.6
        fig, ax = plt.subplots(figsize=(max(width, 4.5), height + 1.8), layout="constrained")
    else:
        fig = ax.figure
    # what stands beside the heat map keeps its size in inches, whatever that of the axes
    box = ax.get_window_extent().transformed(fig.dpi_scale_trans.inverted())
    if fig.get_layout_engine() is not None:
        box_width, box_height = n_columns * _COLUMN, height
    else:
        box_width, box_height = box.width, box.height

    limits = (0.0, 1.0) if standard_scale else (None, None)
    image = ax.imshow(
        np.ma.masked_invalid(shown.to_numpy()),
        aspect="auto",
        interpolation="nearest",
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
    )
    ax.set_xticks(range(n_columns), map(short, shown.columns), rotation=90, fontsize="small")
    ax.set_yticks(range(n_rows), map(short, shown.index), fontsize="small")
    ax.tick_params(length=0)
    ax.set_ylabel(short(key))
    ax.set_xticks(np.arange(1, n_columns) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, n_rows) - 0.5, minor=True)
    ax.grid(visible=False, which="major")
    ax.grid(visible=True, which="minor", color="white", linewidth=0.6)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)

    left = 1 + _GAP / box_width
    if dendrogram and tree is not None:
        side = ax.inset_axes((left, 0, _TREE / box_width, 1))
        _draw_tree(side, tree, n_rows)
        left += (_TREE + _GAP) / box_width
    _draw_bars(
        ax.inset_axes((left, 0, _BARS / box_width, 1), sharey=ax),
        sizes,
        colors_of(adata, key) or {},
    )

    above = 1 + 1.5 * _GAP / box_height
    width = min(_COLOUR_BAR_WIDTH / box_width, 1.0)
    bar = ax.inset_axes((0, above, width, _COLOUR_BAR / box_height))
    fig.colorbar(image, cax=bar, orientation="horizontal", ticklocation="top")
    bar.tick_params(labelsize="x-small", length=2)
    bar.set_xlabel(_label(standard_scale, layer), fontsize="small", loc="left")
    bar.xaxis.set_label_position("top")
    if title is not None:
        fig.suptitle(title)
    return finish("markers", fig, ax, show=show, save=save, return_fig=return_fig)


def _markers(adata: AnnData, wanted: Sequence[str] | None) -> list[str]:
    if wanted is not None:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        missing = [name for name in names if name not in adata.var_names]
        if missing:
            raise KeyError(f"There is no marker {', '.join(map(repr, missing))} in .var_names.")
    elif Key.var.KIND in adata.var:
        technical = adata.var[Key.var.KIND].astype(str).isin(Key.var.TECHNICAL_KINDS)
        names = list(adata.var_names[~technical.to_numpy()])
    else:
        names = list(adata.var_names)
    if not names:
        raise ValueError(
            f"There is no marker to show: .var[{Key.var.KIND!r}] calls every channel one of "
            f"{', '.join(Key.var.TECHNICAL_KINDS)}. Name some with markers=."
            if wanted is None and adata.n_vars
            else "There is no marker to show."
        )
    return names


def _medians(
    adata: AnnData, key: str, names: list[str], layer: str | None
) -> tuple[pd.DataFrame, pd.Series]:
    """Clusters x markers, and cells of each cluster."""
    if key not in adata.obs:
        raise KeyError(
            f"There is no clustering {key!r} in .obs: run scmoe.tl.cluster(adata, "
            f"key_added={key!r}) first, or name the clustering with key=."
        )
    labels = adata.obs[key].astype("category").cat.remove_unused_categories()
    if labels.isna().all():
        raise ValueError(f"There is no cluster to show: .obs[{key!r}] has no value.")
    shown = medians(adata, labels, names, layer)
    sizes = labels.value_counts(sort=False)
    sizes.index = sizes.index.astype(str)
    return shown, sizes.loc[shown.index]


def _scaled(medians: pd.DataFrame, standard_scale: str | None) -> pd.DataFrame:
    if standard_scale is None:
        return medians
    axis = 0 if standard_scale == "var" else 1
    other = 1 - axis
    low, high = medians.min(axis=axis), medians.max(axis=axis)
    span = (high - low).where(high > low, 1.0)
    return medians.sub(low, axis=other).div(span, axis=other)


def _tree(shown: pd.DataFrame) -> NDArray[np.float64] | None:
    if len(shown) < 3:
        return None
    values = np.nan_to_num(shown.to_numpy(dtype=np.float64))
    return linkage(values, method="average", metric="euclidean", optimal_ordering=True)


def _label(standard_scale: str | None, layer: str | None) -> str:
    what = "median expression" if layer is None else f"median of {layer!r}"
    scale = {"var": ", 0 to 1 per marker", "group": ", 0 to 1 per cluster", None: ""}
    return what + scale[standard_scale]


def _draw_tree(ax: Axes, tree: NDArray[np.float64], n_rows: int) -> None:
    # scipy puts leaf i at 10 i + 5
    drawn = draw_tree(tree, no_plot=True)
    for ys, xs in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        ax.plot(xs, (np.array(ys) - 5) / 10, color="0.45", linewidth=0.8)
    ax.set_ylim(n_rows - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.axis("off")


def _draw_bars(ax: Axes, sizes: pd.Series, colors: dict[str, str]) -> None:
    share = 100 * sizes / sizes.sum()
    ax.barh(
        range(len(sizes)),
        share,
        height=0.75,
        color=[colors.get(name, "0.5") for name in sizes.index],
        alpha=0.5,
    )
    for row, (n, percent) in enumerate(zip(sizes, share, strict=True)):
        text = f"{n:,} ({percent:.1f} %)" if percent >= 0.1 else f"{n:,} (<0.1 %)"
        ax.annotate(
            text,
            (0, row),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            fontsize="x-small",
        )
    ax.set_xlim(0, max(share.max(), 1e-9))
    ax.set_title("cells", fontsize="small", loc="left", pad=4)
    ax.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
    ax.grid(visible=False, which="both")
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)
