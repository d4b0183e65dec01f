"""Communities of a neighbour graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def partition(graph: csr_matrix, resolution: float, seed: int) -> np.ndarray:
    """Find Louvain communities.

    Parameters
    ----------
    graph
        ``(n_obs, n_obs)`` weights, symmetric.
    resolution
        Larger gives more communities.
    seed
        Of the order in which cells are looked at. In the order of a file, whose cells may come
        population by population, the same communities would be found again for the order alone.

    Returns
    -------
    Community of each cell, ``(n_obs,)`` int64 from 0.
    """
    from sknetwork.clustering import Louvain

    if graph.nnz == 0:
        return np.arange(graph.shape[0])
    model = Louvain(resolution=resolution, shuffle_nodes=True, random_state=seed)
    return model.fit_predict(graph)
