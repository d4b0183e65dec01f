"""Maps of the cells, coloured by clusters, other columns or markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.lines import Line2D

from scmoe._core.cells import check_in_memory, clustering_record, obs_columns
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe.pl._map import MAP, with_map

from ._figure import (
    categories,
    colors_of,
    fill_docs,
    finish,
    make_panels,
    set_colors,
    share_colors,
    short,
)
from ._map_labels import RARE, shown_groups, write_labels

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_PANEL = 4.2
"""Width and height of a panel in inches, without its legend."""
_ROWS_OF_LEGEND = 16
"""Entries of a legend in one column."""
_LONGEST_ON_MAP = 4
"""Longest label, in letters, that is written on the map by default."""
_INK, _LARGEST = 500.0, 16.0
"""Area in square points of all cells of a group at least, and of one of these cells at most."""


@fill_docs
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
    """Draw a two-dimensional map of the cells, one panel for each colouring.

    The points are drawn by :func:`scanpy.pl.embedding`. The legend of a categorical column is
    beside its panel and readable for about 30 clusters. Short labels are also written on the map,
    in the middle of their cells, because 30 colours are hard to distinguish. Small groups are
    drawn last, in larger points, with their labels beside them. Columns with the same groups, such
    as clusters and their names, have the same colours.

    Parameters
    ----------
    adata
        Clustered cells.
    key
        The ``key_added`` of :func:`scmoe.tl.cluster`.
    basis
        The map in ``.obsm``, with or without the prefix ``"X_"``; its first two dimensions are
        drawn. By default ``"X_umap"`` or, if it does not exist, ``"X_tsne"``. Without either, a
        t-SNE map of the clustered values is computed for at most 10,000 random cells; the titles
        give their number, and the map is not kept.
    color
        One or several columns of ``.obs`` or names of markers; by default ``key``. With
        ``[key, "population"]`` clusters and known populations are side by side.
    title
        Title of each panel; by default the name of the column or marker.
    ncols
        Number of panels in a row.
    on_map
        Whether to write labels on the map; by default labels of at most 4 letters.
    {show_save_ax}
    **kwargs
        Passed to :func:`scanpy.pl.embedding`, such as ``palette``, ``size``, ``cmap``,
        ``layer``, ``groups``.

    Returns
    -------
    {returns} the axes, as a list if there are several.

    As in scanpy, the colours are kept in ``.uns[column + "_colors"]``, and columns of text
    become categorical; a view stays as it is.

    Raises
    ------
    KeyError
        If the map, a column or a marker does not exist.
    ValueError
        If the map has fewer than two dimensions, ``ax`` is combined with several colours, or the
        cells are in a file.

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
            f"ax takes one panel, but color asks for {len(colors)}: {colors}. Omit ax, or "
            "draw the panels one by one."
        )
    if ncols < 1:
        raise ValueError(f"ncols must be 1 or more, got {ncols}.")

    if name not in adata.obsm:
        adata, titles = _compute_map(adata, key, colors, titles)

    if ax is None:
        ncols = min(ncols, len(colors))
        nrows = -(-len(colors) // ncols)
        widths = [
            max(_width(adata, colors[i]) for i in range(column, len(colors), ncols))
            for column in range(ncols)
        ]
        fig, axes = make_panels(len(colors), ncols, (sum(widths), _PANEL * nrows))
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
        # labels are placed in pixels, which are known after the layout
        fig.draw_without_rendering()
    for panel, column in labelled:
        longest = max(map(len, categories(adata.obs[column])), default=0)
        if longest <= _LONGEST_ON_MAP if on_map is None else on_map:
            points = _coordinates(adata, name)
            write_labels(panel, adata, points, column, kwargs.get("groups"))

    result = axes[0] if len(axes) == 1 else axes
    return finish("clusters", fig, result, title=None, show=show, save=save, return_fig=return_fig)


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
    """Return the name of the map, or the name of a new one if it must be computed."""
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


def _compute_map(
    adata: AnnData, key: str, colors: list[str], titles: list[str]
) -> tuple[AnnData, list[str]]:
    """Compute a map of some of the cells, and add their number to the titles."""
    for column in adata.obs[[c for c in colors if c in adata.obs]].select_dtypes("category"):
        # before groups without a cell in the sample are removed
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
    """Return the width of a panel with its legend, in inches."""
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
    shown = shown_groups(labels, groups)
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
    """Draw small groups last, the smallest on top, in visible points."""
    points = ax.collections[-1]
    offsets, colors = points.get_offsets(), points.get_facecolors()
    if not len(offsets) == len(colors) == adata.n_obs:
        return
    values = adata.obs[column].astype(str)
    known = values.isin(shown_groups(categories(adata.obs[column]), groups)).to_numpy()
    counts = values.map(values.value_counts()).to_numpy(dtype=float)
    sizes = np.broadcast_to(points.get_sizes(), counts.shape)
    wanted = np.where(known, np.minimum(_INK / counts, _LARGEST), 0)
    rare = known & ((wanted > sizes) | (counts < RARE * adata.n_obs))
    order = np.argsort(np.where(rare, -counts, -np.inf), kind="stable")
    points.set_offsets(offsets[order])
    points.set_facecolors(colors[order])
    points.set_sizes(np.maximum(sizes, wanted)[order])


def _coordinates(adata: AnnData, basis: str) -> NDArray[np.floating]:
    points = adata.obsm[basis]
    if isinstance(points, pd.DataFrame):
        points = points.to_numpy()
    return np.asarray(points[:, :2])
