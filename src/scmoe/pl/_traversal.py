"""Plot of the decoder along the state of a cluster, with the cells of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key
from scmoe._core.settings import check_whole
from scmoe._core.signatures import marker_values
from scmoe._core.text import listing
from scmoe._core.values import holds_images
from scmoe.get import state_genes

from ._figure import fill_docs, finish, make_panels, open_frame, short
from ._images import IMAGE, draw_canvas, image_shape_of, make_canvas

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scmoe.model import Trained, Traversal

_PANEL = (1.9, 1.7)
_CELL, _LINE = "0.72", "tab:blue"
_SHOWN = 2000
"""Cells that are drawn at most."""
_OUTSIDE = 0.5
"""Percent of the cells that lie beyond either end of the axis of a state."""
_LONGEST = 20
"""Letters of a name that are shown."""


@dataclass(frozen=True)
class _Clustering:
    """The model, values and states of a cluster."""

    trained: Trained
    markers: list[str]
    layer: str | None
    use_rep: str | None
    own: np.ndarray
    """Positions of the cells of the cluster."""
    states: np.ndarray


@fill_docs
def traversal(
    adata: AnnData,
    *,
    cluster: str,
    key: str = Key.DEFAULT,
    dims: int | Sequence[int] | None = None,
    markers: Sequence[str] | str | None = None,
    n_markers: int = 6,
    n_steps: int = 11,
    cmap: str = "gray_r",
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Draw the decoded values along the state of a cluster of ``"cpl-mixvae"``.

    For markers: a row of panels for each dimension of the state and a column for each marker, with
    the cells of the cluster as points and the decoded values as a line, from the 5 % to the 95 %
    quantile of the dimension, with all other dimensions at their medians. If the line does not
    follow the points, the dimensions are correlated, or the decoder is wrong. For images: a row
    of decoded images for each dimension.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster`.
    cluster
        Name of the cluster.
    {key}
    dims
        Dimension or dimensions of the state; by default all.
    markers
        The markers to show. By default the first in rank by :func:`scmoe.tl.state_genes`, or,
        without this table, those whose decoded values change most.
    n_markers
        Number of markers, if ``markers`` is None.
    n_steps
        Number of steps along each dimension.
    cmap
        Colour map of images with one colour.
    title
        Title of the figure; by default the name of the cluster.
    {show_save}

    Returns
    -------
    {returns} the list of axes, row by row; for images, the axes.

    Raises
    ------
    KeyError
        If there is no such clustering, cluster or marker, or the states are missing.
    ValueError
        If the clustering is by another model, the cluster has no cells, the state does not have
        such a dimension, there is no marker to show, or ``n_steps`` is below 2.

    Notes
    -----
    Counts are shown at the typical total of the cluster: the counts of each cell are scaled to
    this total, and the decoded values are the expected counts at this total.

    Examples
    --------
    >>> scmoe.tl.cluster(adata, model="cpl-mixvae")
    >>> scmoe.pl.traversal(adata, cluster="0")
    """
    from scmoe.model import check_dims, traverse

    check_whole("n_markers", n_markers, 1)
    known = _open(adata, key, cluster)
    dims = check_dims(dims, known.states.shape[1])
    found = traverse(known.trained, cluster, known.states, dims=dims, n_steps=n_steps)
    whole = known.use_rep is None and known.markers == list(adata.var_names)
    what = "cells"
    if holds_images(adata) and whole and markers is None:
        what = "images"
        fig, axes = _images(adata, found, known, cmap)
    else:
        names = _markers(adata, key, cluster, markers, n_markers, known, found)
        fig, axes = _lines(adata, cluster, names, known, found)
    if title is None:
        title = f"cluster {cluster} ({len(known.own):,} {what})"
    return finish("traversal", fig, axes, title=title, show=show, save=save, return_fig=return_fig)


def _open(adata: AnnData, key: str, cluster: str) -> _Clustering:
    from scmoe.model import CplMixVAEModule
    from scmoe.tl import read_clustering

    record = clustering_record(adata, key)
    if "model" not in record or key not in adata.obs:
        raise KeyError(
            f"Did not find a clustering with its model in `.uns[{key!r}]`: run "
            '`scmoe.tl.cluster(adata, model="cpl-mixvae")` first, or name its `key_added` as '
            "`key`."
        )
    trained, params, markers = read_clustering(adata, key)
    if not isinstance(trained.module, CplMixVAEModule):
        raise ValueError(
            f'{key!r} is not a clustering by `model="cpl-mixvae"`, so its clusters have no states.'
        )
    if Key.obsm.state(key) not in adata.obsm:
        raise KeyError(
            f"Did not find the states, `.obsm[{Key.obsm.state(key)!r}]`: cluster again."
        )
    own = np.flatnonzero(adata.obs[key].astype(str) == str(cluster))
    states = np.asarray(adata.obsm[Key.obsm.state(key)])[own]
    use_rep = params.get("use_rep", "X")
    return _Clustering(
        trained,
        list(markers),
        params.get("layer"),
        None if use_rep == "X" else use_rep,
        own,
        states,
    )


def _markers(
    adata: AnnData,
    key: str,
    cluster: str,
    wanted: Sequence[str] | str | None,
    n: int,
    known: _Clustering,
    found: Traversal,
) -> list[str]:
    """Return the names of the markers to show."""
    if wanted is not None:
        names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
        unknown = [name for name in names if name not in known.markers]
        if unknown:
            raise KeyError(f"The decoder of {key!r} does not know {listing(unknown)}.")
        if not names or len(set(names)) < len(names):
            raise ValueError("`markers` is empty or names a marker twice.")
        return names
    if Key.uns.state_genes(key) in adata.uns:
        table = state_genes(adata, key=key)
        ranked = table.loc[table["cluster"] == str(cluster), "marker"].unique()
        names = [str(name) for name in ranked if name in set(known.markers)]
        if names:
            return names[:n]
    moved = np.ptp(found.scaled, axis=1).max(0)
    return [known.markers[i] for i in np.argsort(-moved, kind="stable")[:n]]


def _observed(adata: AnnData, cluster: str, names: list[str], known: _Clustering) -> pd.DataFrame:
    """Return the values of the cells of a cluster, on the scale of the decoder."""
    cells = adata[known.own]
    if known.use_rep is not None:
        x = pd.DataFrame(np.asarray(cells.obsm[known.use_rep]), columns=known.markers)
        return x[names]
    missing = [name for name in known.markers if name not in adata.var_names]
    if missing:
        raise KeyError(f"Markers that were clustered are missing: {listing(missing)}.")
    x = marker_values(cells, known.markers, known.layer)
    module = known.trained.module
    if module.takes_counts:
        typical = module.totals[known.trained.clusters.index(str(cluster)), 0].exp().item()
        x = x.mul(typical / x.sum(axis=1).clip(lower=1), axis=0)
    return x[names]


def _lines(
    adata: AnnData, cluster: str, names: list[str], known: _Clustering, found: Traversal
) -> tuple[Figure, list[Axes]]:
    """Draw a panel for each dimension and marker."""
    observed = _observed(adata, cluster, names, known).to_numpy(dtype=float)
    drawn = np.random.default_rng(0).permutation(len(observed))[:_SHOWN]
    columns = [known.markers.index(name) for name in names]
    n_rows, n_columns = len(found.dims), len(names)
    fig, axes = make_panels(
        n_rows * n_columns,
        n_columns,
        (_PANEL[0] * n_columns + 0.4, _PANEL[1] * n_rows + 0.6),
        sharex="row",
        sharey="col",
    )
    grid = np.reshape(axes, (n_rows, n_columns))
    point = float(np.clip(3000 / len(drawn), 1.5, 12))
    for i, dimension in enumerate(found.dims):
        state = known.states[:, dimension]
        for j, column in enumerate(columns):
            ax = grid[i, j]
            ax.scatter(
                state[drawn], observed[drawn, j], s=point, c=_CELL, linewidths=0, rasterized=True
            )
            ax.plot(found.positions[i], found.values[i, :, column], color=_LINE, linewidth=2)
            ax.tick_params(labelsize="x-small")
            open_frame(ax)
        ends = np.percentile(state, [_OUTSIDE, 100 - _OUTSIDE])
        if ends[0] < ends[1]:
            grid[i, 0].set_xlim(*ends + np.array([-0.03, 0.03]) * np.ptp(ends))
        grid[i, 0].set_ylabel(f"along dimension {dimension}", fontsize="small")
    for ax, name in zip(grid[0], names, strict=True):
        shown = short(name, _LONGEST)
        ax.set_title(shown, fontsize="medium" if len(shown) < _LONGEST / 2 else "small")
    fig.supxlabel("state", fontsize="small")
    return fig, axes


def _images(
    adata: AnnData, found: Traversal, known: _Clustering, cmap: str
) -> tuple[Figure, Axes]:
    """Draw a row of images for each dimension."""
    shape = image_shape_of(adata, None)
    n_dims, n_steps, _ = found.values.shape
    own = marker_values(adata[known.own], known.markers, known.layer).to_numpy()
    limits = float(own.min()), float(own.max())
    low, high = limits if limits[0] < limits[1] else (0.0, 1.0)
    rows = {
        f"{dimension} ({ends[0]:.1f} to {ends[-1]:.1f})": np.arange(i * n_steps, (i + 1) * n_steps)
        for i, (dimension, ends) in enumerate(zip(found.dims, found.positions, strict=True))
    }
    # the values of a Gaussian decoder may be outside of the limits
    x = found.values.reshape(n_dims * n_steps, -1).clip(low, high)
    canvas = make_canvas(x, rows, shape, n_steps, (low, high))
    size = (n_steps * IMAGE * shape[1] / shape[0] + 1.4, n_dims * IMAGE + 0.6)
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    draw_canvas(ax, canvas, shape, list(rows), cmap=cmap, vmin=low, vmax=high)
    ax.set_ylabel("dimension", fontsize="small")
    return fig, ax
