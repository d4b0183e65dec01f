"""The neighbour graph of a clustering that is given none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
from sklearn.neighbors import NearestNeighbors

from scmoe._compat import same_threads, seed_argument
from scmoe._progress import stage
from scmoe.estimate._graph import EXACT_NEIGHBORS, N_NEIGHBORS, N_PCS_FROM
from scmoe.tree import align

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

logger = logging.getLogger("scmoe")

LEAST_OF_BATCH = 3
"""Neighbours in each batch, however many batches there are; as in BBKNN."""


def build_graph(
    x: np.ndarray, obs: pd.DataFrame, batch_key: str | None, seed: int, *, progress: bool = False
) -> csr_matrix:
    """Connectivities of cells x features, as :func:`add_graph` makes them; says that it does."""
    logger.warning(
        "No neighbour graph found: building one of %d neighbours%s. Run `sc.pp.neighbors` first "
        "to choose your own.",
        N_NEIGHBORS,
        "" if batch_key is None else ", from all batches alike",
    )
    cells = ad.AnnData(x, obs=obs[[] if batch_key is None else [batch_key]].copy())
    with stage("searching neighbours", progress=progress):
        add_graph(cells, batch_key=batch_key, seed=seed)
    return cells.obsp["connectivities"]


def add_graph(
    adata: AnnData, *, use_rep: str = "X", batch_key: str | None = None, seed: int = 0
) -> None:
    """Write what ``sc.pp.neighbors`` would write with its defaults; with batches, balanced.

    Parameters
    ----------
    adata
        Cells.
    use_rep
        Of what values: ``"X"``, or a name in ``.obsm``.
    batch_key
        Column of the batches. Then the features are brought to the same mean and spread in all
        batches, and neighbours are searched in each batch apart, as many in each (BBKNN,
        Polański et al. 2020), so that no cell is joined to its own batch alone.
    seed
        Of approximate searches.
    """
    # scanpy takes a record of other neighbours into account
    for slots, key in ((adata.uns, "neighbors"), (adata.obsp, "distances")):
        if key in slots:
            del slots[key]
    values = adata.X if use_rep == "X" else adata.obsm[use_rep]
    batches = None
    if batch_key is not None and adata.obs[batch_key].nunique() > 1:
        batches = adata.obs[batch_key].astype(str).to_numpy()
        values = align(values, batches)
    if values.shape[1] > N_PCS_FROM:
        n_comps = min(N_PCS_FROM, adata.n_obs - 1)
        values = sc.pp.pca(values, n_comps=n_comps, **seed_argument(sc.pp.pca, seed))
        use_rep = "X_pca"
        adata.obsm[use_rep] = values
    if batches is not None:
        adata.obsp["connectivities"] = _balanced(values, batches, seed)
        adata.uns["neighbors"] = {
            "connectivities_key": "connectivities",
            "params": {
                "method": "umap",
                "metric": "euclidean",
                "n_neighbors": N_NEIGHBORS,
                "use_rep": use_rep,
                "batch_key": batch_key,
            },
        }
        return
    with same_threads():
        sc.pp.neighbors(
            adata,
            n_neighbors=min(N_NEIGHBORS, adata.n_obs - 1),
            use_rep=use_rep,
            **seed_argument(sc.pp.neighbors, seed),
            transformer="sklearn" if adata.n_obs <= EXACT_NEIGHBORS else None,
        )


def _balanced(x: np.ndarray, batches: np.ndarray, seed: int) -> csr_matrix:
    """Connectivities of as many neighbours from each batch, the cell itself among them."""
    # what compiles is loaded where it is needed
    from umap.umap_ import fuzzy_simplicial_set

    names = np.unique(batches)
    of_batch = max(LEAST_OF_BATCH, N_NEIGHBORS // len(names))
    indices, distances = [], []
    for name in names:
        members = np.flatnonzero(batches == name)
        search = NearestNeighbors(n_neighbors=min(of_batch, len(members))).fit(x[members])
        distance, nearest = search.kneighbors(x)
        indices.append(members[nearest])
        distances.append(distance)
    indices, distances = np.hstack(indices), np.hstack(distances)
    order = distances.argsort(axis=1, kind="stable")
    with same_threads():
        connectivities, *_ = fuzzy_simplicial_set(
            x,
            indices.shape[1],
            np.random.RandomState(seed),
            "euclidean",
            knn_indices=np.take_along_axis(indices, order, axis=1),
            knn_dists=np.take_along_axis(distances, order, axis=1).astype(np.float32),
        )
    connectivities.setdiag(0)
    connectivities.eliminate_zeros()
    return connectivities.tocsr()
