"""Neighbour graphs of cells, and their communities."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("scmoe")


N_NEIGHBORS = 15
"""Neighbours of each cell, with itself; scanpy's default."""

N_PCS_FROM = 50
"""With more features than this, a graph is made of principal components, as in scanpy."""

LEAST_OF_BATCH = 3
"""Neighbours in each batch, however many batches there are; as in BBKNN."""

MANY = 100_000
"""The search takes time by the square of the cells; from here on it says so."""

_STEPS = 64
"""Of the search for the width of a neighbourhood ..."""
_EXACT = 1e-5
"""... which ends when the weights of a cell are as near as this to what they shall sum to."""
_NARROWEST = 1e-3
"""Width of a neighbourhood at least, in mean distances of its neighbours."""


def components(x: NDArray[np.floating], seed: int) -> NDArray[np.floating]:
    """Principal components, ``(n, N_PCS_FROM)`` float32, as ``sc.pp.pca`` makes them."""
    from sklearn.decomposition import PCA

    model = PCA(min(N_PCS_FROM, len(x) - 1), svd_solver="arpack", random_state=seed)
    return model.fit_transform(x).astype(np.float32)


def nearest(
    x: NDArray[np.floating], k: int, among: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k nearest neighbours of each cell, exactly, by Euclidean distance.

    Parameters
    ----------
    x
        ``(n, d)`` cells.
    k
        Neighbours of a cell; fewer than there are cells to search.
    among
        ``(m, d)`` cells to search. None for the cells themselves, of which each is no neighbour
        of its own.

    Returns
    -------
    Positions ``(n, k)`` and distances ``(n, k)`` float32, the nearest first.
    """
    searched = x if among is None else among
    if len(searched) > MANY:
        logger.warning(
            "Searching the neighbours of %s cells among %s, exactly: this takes time by their "
            "product. A graph of your own, such as one of `sc.pp.neighbors`, is taken as it is.",
            f"{len(x):,}",
            f"{len(searched):,}",
        )
    if find_spec("faiss"):
        return _by_faiss(x, k, among)
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k).fit(searched)
    distances, positions = search.kneighbors(None if among is None else x)
    return positions.astype(np.int64), distances.astype(np.float32)


def _by_faiss(
    x: NDArray[np.floating], k: int, among: NDArray[np.floating] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Search by faiss, in half the time of scikit-learn."""
    import faiss

    x, own = np.ascontiguousarray(x, dtype=np.float32), among is None
    searched = x if own else np.ascontiguousarray(among, dtype=np.float32)
    _, positions = faiss.knn(x, searched, k + own)
    if own:
        itself = positions == np.arange(len(x))[:, None]
        # of many cells at the same place, a cell itself may not be found
        itself[~itself.any(axis=1), -1] = True
        positions = positions[~itself].reshape(len(x), k)
    # those of faiss are rounded: the same place may be a little apart
    distances = np.stack([np.linalg.norm(x - searched[p], axis=1) for p in positions.T], axis=1)
    order = distances.argsort(axis=1, kind="stable")
    return np.take_along_axis(positions, order, 1), np.take_along_axis(distances, order, 1)


def balanced(
    x: NDArray[np.floating], batches: NDArray[np.str_], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find as many neighbours in each batch (BBKNN, Polański et al. 2020), the cell among them.

    Parameters
    ----------
    x
        ``(n, d)`` cells.
    batches
        ``(n,)`` batch of each cell.
    k
        Neighbours of a cell; more where there would be fewer than three of each batch.

    Returns
    -------
    Positions and distances as of :func:`nearest`.
    """
    names = np.unique(batches)
    of_batch = max(LEAST_OF_BATCH, k // len(names))
    positions, distances = [], []
    for name in names:
        members = np.flatnonzero(batches == name)
        found, distance = nearest(x, min(of_batch, len(members)), among=x[members])
        positions.append(members[found])
        distances.append(distance)
    positions, distances = np.hstack(positions), np.hstack(distances)
    order = distances.argsort(axis=1, kind="stable")
    return np.take_along_axis(positions, order, 1), np.take_along_axis(distances, order, 1)


def neighbor_graph(x: NDArray[np.floating]) -> csr_matrix:
    """Make the graph that ``sc.pp.neighbors`` makes of values by default.

    Parameters
    ----------
    x
        ``(n, d)`` values, two cells at least.

    Returns
    -------
    ``(n, n)`` float32, weights in (0, 1], symmetric, empty diagonal.
    """
    return connectivities(*with_itself(*nearest(x, min(N_NEIGHBORS - 1, len(x) - 1))))


def with_itself(
    positions: NDArray[np.int64], distances: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Put each cell before its neighbours, at no distance."""
    own = np.arange(len(positions))[:, None]
    return np.hstack([own, positions]), np.hstack([np.zeros_like(own, np.float32), distances])


def connectivities(positions: NDArray[np.integer], distances: NDArray[np.floating]) -> csr_matrix:
    r"""Weigh neighbours as UMAP does (McInnes et al. 2018, section 3.1 and algorithm 3).

    The neighbour :math:`j` of cell :math:`i` has the weight
    :math:`w_{ij} = \exp(-\max(0, d_{ij} - \rho_i) / \sigma_i)`, where :math:`\rho_i` is the
    distance of the nearest cell that is not at the same place, and :math:`\sigma_i` is such that
    the weights sum to :math:`\log_2 k`. Both directions are joined by
    :math:`w_{ij} + w_{ji} - w_{ij} w_{ji}`.

    Parameters
    ----------
    positions, distances
        ``(n, k)``, the nearest first; the first is the cell itself.

    Returns
    -------
    ``(n, n)`` float32, symmetric, empty diagonal.
    """
    n, k = positions.shape
    apart = np.where(distances > 0, distances, np.inf).min(axis=1)
    rho = np.where(np.isfinite(apart), apart, 0)
    further = np.maximum(distances - rho[:, None], 0, dtype=np.float64)
    sigma = _widths(further[:, 1:], np.log2(k))
    mean = np.where(rho > 0, distances.mean(axis=1), distances.mean())
    sigma = np.maximum(sigma, _NARROWEST * mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.where(further > 0, np.exp(-further / sigma[:, None]), 1)
    weights[positions == np.arange(n)[:, None]] = 0
    directed = csr_matrix(
        (weights.ravel().astype(np.float32), positions.ravel(), np.arange(0, n * k + 1, k)),
        shape=(n, n),
    )
    directed.eliminate_zeros()
    other = directed.T.tocsr()
    graph = (directed + other - directed.multiply(other)).tocsr()
    graph.sum_duplicates()
    graph.eliminate_zeros()
    return graph


def _widths(further: NDArray[np.floating], target: float) -> NDArray[np.floating]:
    """Widths by which the weights of each row sum to the target, by bisection."""
    n = len(further)
    low, high, width = np.zeros(n), np.full(n, np.inf), np.ones(n)
    open_ = np.arange(n)
    for _ in range(_STEPS):
        total = np.exp(-further[open_] / width[open_, None]).sum(axis=1)
        open_, total = (a[np.abs(total - target) >= _EXACT] for a in (open_, total))
        if not len(open_):
            break
        wide = total > target
        high[open_[wide]], low[open_[~wide]] = width[open_[wide]], width[open_[~wide]]
        bounded = np.isfinite(high[open_])
        middle = (low[open_] + np.where(bounded, high[open_], 0)) / 2
        width[open_] = np.where(bounded, middle, 2 * width[open_])
    return width


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


FINEST = 50.0
"""Largest resolution that is tried; the smallest is its inverse."""

HALVINGS = 12
"""Steps of the bisection of the resolution, on the log scale."""


def communities(graph: csr_matrix, n: int, least: int, seed: int) -> np.ndarray:
    """So many communities of a neighbour graph, the largest first.

    The resolution is the lowest that was seen to give as many.

    Parameters
    ----------
    graph
        ``(n_cells, n_cells)`` weights.
    n
        How many communities.
    least
        Cells of the smallest.
    seed
        Of the order in which cells are looked at.

    Returns
    -------
    ``(n_cells,)`` int64 from 0 to at most n - 1; -1 for cells of smaller communities, and of
    those beyond the n largest.
    """
    low, high = np.log([1 / FINEST, FINEST])
    labels, order = None, np.arange(0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = partition(graph, float(np.exp(middle)), seed)
        size = np.bincount(found)
        large = np.flatnonzero(size >= least)
        if labels is None or len(large) >= n or len(large) > len(order):
            labels, order = found, large[np.argsort(-size[large], kind="stable")]
        if len(large) == n:
            break
        low, high = (low, middle) if len(large) > n else (middle, high)
    number = np.full(labels.max() + 1, -1)
    number[order[:n]] = np.arange(min(n, len(order)))
    return number[labels]
