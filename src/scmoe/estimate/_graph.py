"""The neighbour graph of codes."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from scmoe._compat import same_threads

N_NEIGHBORS = 15
"""As many as in scanpy."""

EXACT_NEIGHBORS = 50_000
"""Up to this many cells neighbours are searched exactly, which needs no compilation."""


def neighbor_graph(codes: np.ndarray, seed: int) -> csr_matrix:
    """The graph that ``sc.pp.neighbors`` makes of codes by default.

    Parameters
    ----------
    codes
        ``(n, d)`` float32.
    seed
        Of the approximate search among many cells.

    Returns
    -------
    ``(n, n)`` float32, weights in (0, 1], symmetric, empty diagonal.
    """
    from sklearn.neighbors import NearestNeighbors
    from umap.umap_ import fuzzy_simplicial_set, nearest_neighbors

    k = min(N_NEIGHBORS, len(codes) - 1)
    random_state = np.random.RandomState(seed)
    with same_threads():
        if len(codes) <= EXACT_NEIGHBORS:
            distances, indices = NearestNeighbors(n_neighbors=k).fit(codes).kneighbors(codes)
        else:
            indices, distances, _ = nearest_neighbors(
                codes, k, "euclidean", {}, angular=False, random_state=random_state
            )
        graph, *_ = fuzzy_simplicial_set(
            codes,
            k,
            random_state,
            "euclidean",
            knn_indices=indices,
            knn_dists=distances.astype(np.float32),
        )
    graph.setdiag(0)
    graph.eliminate_zeros()
    return csr_matrix(graph, dtype=np.float32)
