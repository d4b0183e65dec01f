"""The neighbour graph of codes, and its communities."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import SparseEfficiencyWarning

from scmoe._compat import same_threads
from scmoe._partition import partition

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

N_NEIGHBORS = 15
"""Neighbours of each cell; scanpy's default."""

N_PCS_FROM = 50
"""With more features than this, a graph is made of principal components, as in scanpy."""

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
    import scanpy as sc
    from anndata import AnnData

    cells = AnnData(codes)
    with same_threads(), warnings.catch_warnings():
        # scanpy: where more cells are alike than it looks for neighbours
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        sc.pp.neighbors(
            cells,
            n_neighbors=min(N_NEIGHBORS, len(codes) - 1),
            use_rep="X",
            random_state=seed,
            transformer="sklearn" if len(codes) <= EXACT_NEIGHBORS else None,
        )
    return cells.obsp["connectivities"]


FINEST = 50.0
"""Resolution beyond which no more communities are looked for ..."""

HALVINGS = 12
"""... in so many steps, each of which halves what may be the resolution, on the log scale."""


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
