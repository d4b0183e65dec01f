"""``scmoe.tl.n_clusters``: estimate the number of clusters."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scmoe._core.cells import check_adata
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe._core.markers import choose_markers
from scmoe._core.neighbors import N_PCS_FROM, components
from scmoe._core.plain import for_h5ad
from scmoe._core.random import as_seed, seeded
from scmoe._core.values import holds_images
from scmoe.tl._graph import given_graph, graph_of_other_values
from scmoe.tl._results import check_key, data_hash, graph_hash, manifest, write
from scmoe.tl._values import check_scale, working_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scmoe._estimate import Found

logger = logging.getLogger("scmoe")

STABILITY = "stability"
"""The method that uses a neighbour graph."""

RECORD = {"method", "evidence", "params", "version"}
"""Entries by which the record of an estimate is known."""


def n_clusters(
    adata: AnnData,
    *,
    method: Literal["tree", "stability", "density", "santos"] | None = None,
    use_rep: str | None = None,
    layer: str | None = None,
    markers: Sequence[str] | None = None,
    neighbors_key: str | None = None,
    obsp: str | None = None,
    min_cluster_size: int | None = None,
    method_kwargs: dict[str, Any] | None = None,
    key_added: str = Key.N_CLUSTERS,
    random_state: int | np.random.Generator = 0,
    copy: bool = False,
    progress: bool = True,
) -> AnnData | None:
    """Estimate the number of clusters, and write the clusters and the evidence.

    There are four methods. ``"tree"`` cuts the cells at valleys of the density of their markers
    and counts the parts; with the same markers it is the tree that :func:`scmoe.tl.cluster`
    starts from. ``"stability"`` counts the communities of a neighbour graph that recur in random
    subsets of the cells. ``"density"`` counts the dense regions of a UMAP; ``"santos"`` does so
    with the settings of Santos' paper, which are meant for the codes of an autoencoder.

    By default values are chosen as in scanpy: up to 50 variables as they are; for more,
    ``.obsm["X_pca"]`` or 50 principal components. ``"stability"`` takes the graph of
    ``sc.pp.neighbors`` if there is one and no values are named.

    Parameters
    ----------
    adata
        Cells, with floating-point values on a scale on which distances are meaningful.
    method
        ``"tree"``, ``"stability"``, ``"density"`` or ``"santos"``. None for ``"tree"`` if the
        values are up to 50 markers, and for ``"stability"`` if they are principal components,
        another representation or images, or if a graph is named or was computed from such
        values.
    use_rep
        Representation in ``.obsm`` to use, or ``"X"``.
    layer
        Layer to use instead of ``.X``.
    markers
        Names of the markers to use. By default all or, if there is ``.var["kind"]``, the channels
        whose kind is that of a marker.
    neighbors_key
        As in scanpy: the record in ``.uns`` that names the graph; for ``"stability"``.
    obsp
        Key of the graph in ``.obsp``; excludes ``neighbors_key``.
    min_cluster_size
        Number of cells of the smallest cluster. None for the default of the method.
    method_kwargs
        Settings of the method, such as ``{"significance": 5}`` or ``{"resolutions": [0.1, 1]}``;
        settings of a method that is not the default need ``method``, too.
    key_added
        Name of the slots that are written.
    random_state
        Seed; the same seed gives the same answer on the same machine.
    copy
        Return an annotated copy and leave ``adata`` unchanged.
    progress
        Show a progress bar.

    Returns
    -------
    None, or the copy. Writes

    ``.uns[key_added]``
        ``n_clusters``, ``method``, ``noise`` (share of the cells without a cluster),
        ``evidence`` (DataFrame: results of other settings), ``settings`` (those that were used),
        ``params``, ``features`` (names of the values that were used; empty for a graph of
        yours), ``version`` and ``manifest``.
    ``.obs[key_added]``
        Cluster of each cell: categories are strings in natural order, ``"0"`` is the largest;
        NaN for noise.
    ``.obsm[key_added + "_proba"]``
        Membership, DataFrame ``(n_obs, n_clusters)`` float32, rows sum to 1; not
        written if there is no cluster.
    ``.obsm["X_" + key_added]``
        UMAP, ``(n_obs, n_components)`` float32; for ``"density"`` and
        ``"santos"``.

    Warns
    -----
    UserWarning
        There are fewer than two clusters; the results are written nevertheless.

    Raises
    ------
    ValueError
        An unknown method; a view; names that are not unique; sparse or integer values; NaN or
        infinite values; values that are the same in all cells; fewer than 10 cells; a graph of
        the wrong shape; a ``key_added`` whose slots are taken; ``layer`` with ``use_rep``,
        ``obsp`` with ``neighbors_key``; a graph for a method that uses values, or together with
        values.
    KeyError
        An unknown layer, representation, marker or graph.

    Examples
    --------
    >>> scmoe.tl.n_clusters(adata)
    >>> adata.uns["n_clusters"]["n_clusters"]
    >>> scmoe.pl.n_clusters(adata)
    """
    from scmoe._estimate import FEW_CELLS, METHODS, advice, find_n_clusters

    if method is not None and method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
    of_values = any(said is not None for said in (use_rep, layer, markers))
    of_graph = neighbors_key is not None or obsp is not None
    _check_choice(method, of_values, of_graph)
    seed = as_seed(random_state)
    check_adata(adata)
    looked_at = _representation(adata, of_values, use_rep)
    if method is None:
        other = of_graph or (not of_values and graph_of_other_values(adata, None) is not None)
        method = STABILITY if other else _default_method(adata, markers, looked_at)
    check_key(adata, key_added, RECORD)
    graph, origin = None, "not used"
    if method == STABILITY:
        origin = "built here"
        if not of_values:
            graph, origin = given_graph(adata, neighbors_key, obsp, of_variables=True)
    names, x = np.array([], dtype=str), np.empty((adata.n_obs, 0), np.float32)
    if graph is None:
        x, names = _values(adata, markers, layer, looked_at, seed)
    settings = dict(method_kwargs or {})
    if min_cluster_size is not None:
        settings["min_cluster_size"] = min_cluster_size
    with seeded(seed):
        codes = x if graph is None else None
        found = find_n_clusters(
            codes, graph, settings, method=method, seed=seed, progress=progress
        )
    result = {
        "n_clusters": found.n_clusters,
        "method": method,
        "noise": found.noise,
        "evidence": found.table,
        "settings": found.settings,
        "params": {
            "use_rep": use_rep,
            "layer": layer,
            "neighbors": origin,
            "neighbors_key": neighbors_key,
            "obsp": obsp,
            "min_cluster_size": min_cluster_size,
            "method_kwargs": method_kwargs,
            "random_state": seed,
        },
        "features": np.asarray(names, dtype=str),
        "version": version("scmoe"),
        "manifest": manifest(data_hash(x, names), graph=graph_hash(graph), seed=seed),
    }
    if method == STABILITY and adata.n_obs < FEW_CELLS:
        logger.warning(
            "%d cells are few: a cloud without groups may be cut into some.", adata.n_obs
        )
    logger.info(
        "%d clusters; %.1f %% of the cells are noise.", found.n_clusters, 100 * found.noise
    )
    adata = adata.copy() if copy else adata
    labels, proba = _columns(found, adata.obs_names)
    write(
        (adata.obs, Key.obs.labels(key_added), labels),
        (adata.obsm, Key.obsm.proba(key_added), proba),
        (adata.obsm, Key.obsm.latent(key_added), found.embedding),
        (adata.uns, Key.uns.result(key_added), for_h5ad(result)),
    )
    if found.n_clusters < 2:
        warnings.warn(advice(found), UserWarning, stacklevel=2)
    return adata if copy else None


def _check_choice(method: str | None, of_values: bool, of_graph: bool) -> None:
    """Raise ValueError for values together with a graph, and for a graph that is not used."""
    if of_graph and method not in (None, STABILITY):
        raise ValueError(
            f"`method={method!r}` looks at values, not at a graph: leave `neighbors_key` and "
            "`obsp` out."
        )
    if of_graph and of_values:
        raise ValueError(
            "A graph (`neighbors_key`, `obsp`) and values (`use_rep`, `layer`, `markers`) can't "
            "go together: a graph is taken as it is, and of values one is built."
        )


def _representation(adata: AnnData, of_values: bool, use_rep: str | None) -> str | None:
    """Return the representation to use: by scanpy's rule if no values are named."""
    wide = adata.n_vars > N_PCS_FROM and rep_key(adata, "X_pca") in adata.obsm
    return "X_pca" if wide and not of_values else use_rep


def _default_method(adata: AnnData, markers: Sequence[str] | None, use_rep: str | None) -> str:
    """Return the method for values, if none is named."""
    from scmoe._estimate import default_method

    of_markers = use_rep in (None, "X") and not holds_images(adata)
    n = len(choose_markers(adata, markers)) if of_markers else 0
    return default_method(n, markers=of_markers)


def _values(
    adata: AnnData,
    markers: Sequence[str] | None,
    layer: str | None,
    use_rep: str | None,
    seed: int,
) -> tuple[np.ndarray, Sequence[str]]:
    """Return the values by scanpy's rule, ``(n_obs, d)`` float32, and their names."""
    work = working_copy(adata, markers, layer, use_rep)
    check_scale(adata, work, markers, use_rep, stacklevel=4)
    x, names = np.asarray(work.X), work.var_names
    of_variables = use_rep in (None, "X")
    if of_variables and x.shape[1] > N_PCS_FROM and min(x.shape) > 1 and np.ptp(x, axis=0).any():
        x = components(x, seed)
    return np.asarray(x, dtype=np.float32), names


def _columns(found: Found, cells: pd.Index) -> tuple[pd.Series, pd.DataFrame | None]:
    """Return the labels as strings, and the memberships."""
    names = [str(k) for k in range(found.n_clusters)]
    labels = pd.Series(pd.Categorical.from_codes(found.labels, names), index=cells)
    if not names:
        return labels, None
    return labels, pd.DataFrame(found.proba, index=cells, columns=names)
