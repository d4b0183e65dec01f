"""Maps of the cells, coloured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree

from scmoe._core.cells import check_in_memory, clustering_record, obs_columns
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe._core.tsne import MAP, with_map

from ._figure import categories, colors_of, finish, set_colors, share_colors, short

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

_PANEL = 4.2
"""Width and height of a panel in inches, without its legend."""
_ROWS_OF_LEGEND = 16
"""Entries of a legend in one column."""
_LONGEST_ON_MAP = 4
"""Labels of at most so many letters are written on the map."""
_RARE = 0.01
"""Groups with a smaller share of the cells are drawn last."""
_INK, _LARGEST = 500.0, 16.0
"""Square points that the cells of a group have together at least, and one of them at most."""
_COMMON = 0.4
"""What hiding a cluster counts that is not rare, where hiding a rare one counts 1."""
_RINGS = 8
"""How far from its cells a label may stand, in steps."""
_LOOKED_AT = 2000
"""Cells that the middle of a cluster is searched among."""
_CROWD = 10
"""Cells that a label which was moved lies on as badly as on any more."""


def clusters(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    basis: str | None = None,
    color: str | Sequence[str] | None = None,
    title: str | Sequence[str] | None = None,
    ncols: int = 2,
    on_map: bool | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
    **kwargs: Any,
) -> Figure | Axes | list[Axes] | None:
    """Two-dimensional map of the cells, one panel for each thing to colour by.

    The points are drawn by :func:`scanpy.pl.embedding`. The legend of a categorical column
    stands beside its panel and stays readable up to some 30 clusters; short labels are written
    on the map too, in the middle of their cells, because 30 colours are hard to tell apart. Groups
    of few cells are drawn last, in larger points, and their labels stand beside them. The same
    groups have the same colours in all columns, such as clusters and their names.

    Parameters
    ----------
    adata
        Clustered cells.
    key
        Name of the clustering, the ``key_added`` of :func:`scmoe.tl.cluster`.
    basis
        The map in ``.obsm``, with or without ``"X_"`` in front; its first two dimensions are
        drawn. By default ``"X_umap"`` or ``"X_tsne"``, whichever is there. Where neither is, at
        most 10,000 cells, drawn at random, are put on a map by t-SNE of what was clustered; the
        titles say how many, and the map is not kept.
    color
        One or several columns of ``.obs`` or names of markers; by default ``key``. With
        ``[key, "population"]`` the clusters stand beside known populations.
    title
        Title of each panel; by default the name of what colours it.
    ncols
        Panels in a row.
    on_map
        Whether labels are written on the map. By default those of at most 4 letters are.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    ax
        Axes to draw in; for one colour only.
    return_fig
        Return the figure and show nothing unless ``show=True``.
    **kwargs
        Passed to :func:`scanpy.pl.embedding`, such as ``palette``, ``size``, ``cmap``,
        ``layer``, ``groups``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the axes, a list of them
    where there is more than one.

    As in scanpy, the colours are kept in ``.uns[column + "_colors"]``, and columns of text
    become categorical; a view stays as it is.

    Raises
    ------
    KeyError
        If the map or something to colour by is not there.
    ValueError
        If the map has less than two dimensions, ``ax`` comes with several colours, or the cells
        are in a file.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.pl.clusters(adata)
    >>> scmoe.pl.clusters(adata, color=["scmoe", "CD3"])
    """
    check_in_memory(adata)
    if adata.is_view:
        adata = adata.copy()
    colors = _colors(adata, key, color)
    titles = _titles(title, colors)
    name = _basis(adata, key, basis)
    if ax is not None and len(colors) > 1:
        raise ValueError(
            f"ax takes one panel, but color asks for {len(colors)}: {colors}. Leave ax out, "
            "or draw the panels one by one."
        )
    if ncols < 1:
        raise ValueError(f"ncols must be 1 or more, got {ncols}.")

    if name not in adata.obsm:
        adata, titles = _drawn(adata, key, colors, titles)

    if ax is None:
        ncols = min(ncols, len(colors))
        nrows = -(-len(colors) // ncols)
        widths = [
            max(_width(adata, colors[i]) for i in range(column, len(colors), ncols))
            for column in range(ncols)
        ]
        fig, grid = plt.subplots(
            nrows,
            ncols,
            figsize=(sum(widths), _PANEL * nrows),
            squeeze=False,
            layout="constrained",
        )
        axes = list(grid.flat)
        for empty in axes[len(colors) :]:
            empty.remove()
        axes = axes[: len(colors)]
    else:
        fig, axes = ax.figure, [ax]

    # scanpy's own legends and colour bars change the size of the axes
    kwargs = {"legend_loc": "none", "colorbar_loc": None, **kwargs}
    labelled = []
    for panel, column, text in zip(axes, colors, titles, strict=True):
        if _is_categorical(adata, column) and "palette" not in kwargs:
            share_colors(adata, column)
        sc.pl.embedding(
            adata,
            name.removeprefix("X_"),
            color=column,
            ax=panel,
            title=text,
            show=False,
            **kwargs,
        )
        if not _is_categorical(adata, column):
            if kwargs["colorbar_loc"] is None:
                fig.colorbar(panel.collections[-1], cax=panel.inset_axes((1.03, 0, 0.04, 1)))
            continue
        _raise_rare(panel, adata, column, kwargs.get("groups"))
        if kwargs["legend_loc"] == "none":
            _legend(panel, adata, column, kwargs.get("groups"))
            labelled.append((panel, column))
    if labelled:
        # labels are placed in pixels, which the layout decides on
        fig.draw_without_rendering()
    for panel, column in labelled:
        _write_labels(panel, adata, name, column, on_map, kwargs.get("groups"))

    result = axes[0] if len(axes) == 1 else axes
    return finish("clusters", fig, result, show=show, save=save, return_fig=return_fig)


def _colors(adata: AnnData, key: str, color: str | Sequence[str] | None) -> list[str]:
    colors = [key] if color is None else [color] if isinstance(color, str) else list(color)
    if not colors:
        raise ValueError("color is empty: name at least one column of .obs or one marker.")
    for column in colors:
        if column in adata.obs or column in adata.var_names:
            continue
        if column == key:
            raise KeyError(
                f"There is no clustering {key!r} in .obs: run scmoe.tl.cluster(adata, "
                f"key_added={key!r}) first, or name the clustering with key=."
            )
        raise KeyError(
            f"Cannot colour by {column!r}: it is neither a column of .obs "
            f"({', '.join(obs_columns(adata)) or 'none there'}) nor a marker in "
            ".var_names."
        )
    return colors


def _titles(title: str | Sequence[str] | None, colors: list[str]) -> list[str]:
    titles = colors if title is None else [title] if isinstance(title, str) else list(title)
    if len(titles) != len(colors):
        raise ValueError(f"There are {len(titles)} titles for {len(colors)} panels.")
    return titles


def _basis(adata: AnnData, key: str, basis: str | None) -> str:
    """The name of the map; that of none where it is to be made."""
    wanted = ("X_umap", MAP) if basis is None else (basis,)
    name = next((n for n in (rep_key(adata, w) for w in wanted) if n in adata.obsm), None)
    if name is not None:
        n_dimensions = adata.obsm[name].shape[1]
        if n_dimensions < 2:
            raise ValueError(f".obsm[{name!r}] has {n_dimensions} dimension, a map needs 2.")
        return name
    if basis is None and {"markers", "params"} <= set(clustering_record(adata, key)):
        return MAP
    there = ", ".join(map(str, adata.obsm)) or "nothing"
    how = (
        "run sc.pp.neighbors(adata) and sc.tl.umap(adata) first, or name another map with basis="
        if basis in (None, "X_umap", "umap")
        else "name one of these with basis="
    )
    raise KeyError(f"There is no map {wanted[0]!r} in .obsm (there is {there}): {how}.")


def _drawn(
    adata: AnnData, key: str, colors: list[str], titles: list[str]
) -> tuple[AnnData, list[str]]:
    """Some of the cells on a map of their own, and titles that say so."""
    for column in adata.obs[[c for c in colors if c in adata.obs]].select_dtypes("category"):
        # before groups that have no cell in the sample are forgotten
        share_colors(adata, column)
        if colors_of(adata, column) is None:
            set_colors(adata, column)
    shown = with_map(adata, key)
    if shown.n_obs < adata.n_obs:
        some = f"{shown.n_obs:,} of {adata.n_obs:,} cells"
        titles = [f"{text} ({some})" if text else some for text in titles]
    return shown, titles


def _is_categorical(adata: AnnData, column: str) -> bool:
    return column in adata.obs and (
        isinstance(adata.obs[column].dtype, pd.CategoricalDtype)
        or pd.api.types.is_bool_dtype(adata.obs[column])
        or pd.api.types.is_string_dtype(adata.obs[column])
    )


def _width(adata: AnnData, column: str) -> float:
    """Width of a panel with its legend, in inches."""
    if not _is_categorical(adata, column):
        return _PANEL + 0.5
    labels = categories(adata.obs[column])
    longest = max((len(short(label)) for label in labels), default=0)
    return _PANEL + _legend_columns(len(labels)) * (0.35 + 0.075 * longest)


def _legend_columns(n: int) -> int:
    return max(1, -(-n // _ROWS_OF_LEGEND))


def _legend(
    ax: Axes, adata: AnnData, column: str, groups: str | Sequence[str] | None = None
) -> None:
    labels = categories(adata.obs[column])
    palette = list(adata.uns[f"{column}_colors"])
    shown = _shown(labels, groups)
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=6, color=colour, label=short(label))
        for label, colour in zip(labels, palette, strict=False)
        if label in shown
    ]
    if adata.obs[column].isna().any() or len(shown) < len(labels):
        handles.append(
            Line2D([], [], linestyle="", marker="o", markersize=6, color="lightgray", label="NA")
        )
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        ncols=_legend_columns(len(handles)),
        frameon=False,
        fontsize="small",
        handletextpad=0.1,
        columnspacing=0.8,
        borderaxespad=0.2,
    )


def _raise_rare(
    ax: Axes, adata: AnnData, column: str, groups: str | Sequence[str] | None = None
) -> None:
    """Draw small groups last, the smallest on top, and in points that can be seen."""
    points = ax.collections[-1]
    offsets, colors = points.get_offsets(), points.get_facecolors()
    if not len(offsets) == len(colors) == adata.n_obs:
        return
    values = adata.obs[column].astype(str)
    known = values.isin(_shown(categories(adata.obs[column]), groups)).to_numpy()
    counts = values.map(values.value_counts()).to_numpy(dtype=float)
    sizes = np.broadcast_to(points.get_sizes(), counts.shape)
    wanted = np.where(known, np.minimum(_INK / counts, _LARGEST), 0)
    rare = known & ((wanted > sizes) | (counts < _RARE * adata.n_obs))
    order = np.argsort(np.where(rare, -counts, -np.inf), kind="stable")
    points.set_offsets(offsets[order])
    points.set_facecolors(colors[order])
    points.set_sizes(np.maximum(sizes, wanted)[order])


def _shown(labels: list[str], groups: str | Sequence[str] | None) -> list[str]:
    wanted = labels if groups is None else [groups] if isinstance(groups, str) else groups
    return [label for label in labels if label in set(wanted)]


def _write_labels(
    ax: Axes,
    adata: AnnData,
    basis: str,
    column: str,
    on_map: bool | None,
    groups: str | Sequence[str] | None = None,
) -> None:
    """Write labels on the cells, or beside those that they would hide."""
    labels = categories(adata.obs[column])
    if on_map is None:
        on_map = max((len(label) for label in labels), default=0) <= _LONGEST_ON_MAP
    if not on_map:
        return
    points = ax.transData.transform(_coordinates(adata, basis))
    codes = pd.Categorical(adata.obs[column].astype(str), categories=labels).codes
    there = (codes >= 0) & np.isfinite(points).all(axis=1)
    points, codes = points[there], codes[there]
    sizes = np.bincount(codes, minlength=len(labels))
    taken = np.empty((0, 4))
    for k in np.argsort(-sizes, kind="stable"):
        if not sizes[k] or labels[k] not in _shown(labels, groups):
            continue
        own = points[codes == k]
        text = ax.text(
            0,
            0,
            short(labels[k]),
            ha="center",
            va="center",
            fontsize="small",
            fontweight="bold",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        box = text.get_window_extent()
        middle = _middle(own, radius=1.5 * box.height)
        place, box = _place(middle, (box.width, box.height), points, codes, sizes, taken, ax.bbox)
        taken = np.vstack([taken, box])
        x, y = ax.transData.inverted().transform(place)
        text.set_position((x, y))
        if not (place == middle).all():
            x0, y0 = ax.transData.inverted().transform(middle)
            ax.plot(
                [x0, x],
                [y0, y],
                color="0.4",
                linewidth=0.8,
                # it must not hide what it points at
                zorder=0.5,
                scalex=False,
                scaley=False,
            )


def _middle(own: NDArray[np.floating], radius: float) -> NDArray[np.floating]:
    """Find the cell nearest to the median that has many neighbours of its cluster.

    The median itself may lie in another cluster: between two parts, or in a crescent.
    """
    own = own[:: -(-len(own) // _LOOKED_AT)]
    neighbors = cKDTree(own).query_ball_point(own, radius, return_length=True)
    own = own[neighbors >= neighbors.max() / 2]
    return own[((own - np.median(own, axis=0)) ** 2).sum(axis=1).argmin()]


def _place(
    middle: NDArray[np.floating],
    size: tuple[float, float],
    points: NDArray[np.floating],
    codes: NDArray[np.integer],
    sizes: NDArray[np.integer],
    taken: NDArray[np.floating],
    axes: Bbox,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Find the place of a label, nearest to the middle of its cells, that hides least.

    What is hidden counts by its share of its cluster, so that rare cells are spared.

    Returns
    -------
    The place in pixels, and the box of the label.
    """
    half = np.array(size) / 2 + 2
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    around = np.column_stack([np.cos(turns), np.sin(turns)])
    rings = [around * (half + size[1] * (0.4 + 0.6 * ring)) for ring in range(_RINGS)]
    places = middle + np.vstack([np.zeros((1, 2)), *rings])
    near = (np.abs(points - middle) <= np.abs(places - middle).max(axis=0) + half).all(axis=1)
    weights = np.where(sizes < _RARE * len(codes), 1, _COMMON) / np.maximum(sizes, 1)
    points, weights = points[near], weights[codes[near]]
    best, least = 0, np.inf
    for i, place in enumerate(places):
        box = np.concatenate([place - half, place + half])
        under = (np.abs(points - place) <= half).all(axis=1)
        cost = 4 * weights[under].sum()
        if i:
            # a label that moves away stands where no cells are, as near as it can
            cost += 0.8 + 0.05 * ((i - 1) // len(turns)) + 0.5 * min(under.sum() / _CROWD, 1)
        apart = (box[:2] >= taken[:, 2:]).any(axis=1) | (box[2:] <= taken[:, :2]).any(axis=1)
        cost += 3 * (~apart).sum()
        cost += 10 * ((box[:2] < axes.min) | (box[2:] > axes.max)).any()
        if cost < least:
            best, least = i, cost
    place = places[best]
    return place, np.concatenate([place - half, place + half])


def _coordinates(adata: AnnData, basis: str) -> NDArray[np.floating]:
    points = adata.obsm[basis]
    if isinstance(points, pd.DataFrame):
        points = points.to_numpy()
    return np.asarray(points[:, :2])
