"""The neighbour graph of a clustering that is given none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
from sklearn.neighbors import NearestNeighbors
from umap.umap_ import fuzzy_simplicial_set

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

logger = logging.getLogger("scmoe")

N_NEIGHBORS = 15
"""Neighbours of each cell; scanpy's default."""

N_PCS_FROM = 50
"""With more features than this, the graph is built on principal components, as in scanpy."""

EXACT_NEIGHBORS = 50_000
"""Up to this many cells neighbours are searched exactly, which needs no compilation."""

LEAST_OF_BATCH = 3
"""Neighbours in each batch, however many batches there are; as in BBKNN."""


def build_graph(x: np.ndarray, batches: pd.Series | None, seed: int) -> csr_matrix:
    """What ``sc.pp.neighbors`` would build with its defaults; with batches, balanced over them.

    Parameters
    ----------
    x
        Cells x features.
    batches
        Batch of each cell. Then its neighbours are searched in each batch apart, as many in
        each (BBKNN, Polański et al. 2020), so that a shift between batches joins no cell to its
        own batch alone.
    seed
        Of approximate searches.

    Returns
    -------
    Connectivities, cells x cells.
    """
    logger.warning(
        "No neighbour graph found: building one of %d neighbours%s. Run `sc.pp.neighbors` first "
        "to choose your own.",
        N_NEIGHBORS,
        "" if batches is None else ", from all batches alike",
    )
    cells, use_rep = ad.AnnData(x), "X"
    if cells.n_vars > N_PCS_FROM:
        sc.pp.pca(cells, n_comps=min(N_PCS_FROM, cells.n_obs - 1), random_state=seed)
        use_rep = "X_pca"
    if batches is not None and batches.nunique() > 1:
        values = cells.X if use_rep == "X" else cells.obsm[use_rep]
        return balanced_graph(values, batches.astype(str).to_numpy(), seed)
    sc.pp.neighbors(
        cells,
        n_neighbors=min(N_NEIGHBORS, cells.n_obs - 1),
        use_rep=use_rep,
        random_state=seed,
        transformer="sklearn" if cells.n_obs <= EXACT_NEIGHBORS else None,
    )
    return cells.obsp["connectivities"]


def balanced_graph(x: np.ndarray, batches: np.ndarray, seed: int) -> csr_matrix:
    """Connectivities of as many neighbours from each batch, the cell itself among them."""
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
