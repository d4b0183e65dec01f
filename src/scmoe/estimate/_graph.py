"""The neighbour graph of codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scmoe._compat import same_threads

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

N_NEIGHBORS = 15
"""Neighbours of each cell; scanpy's default."""

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
    with same_threads():
        sc.pp.neighbors(
            cells,
            n_neighbors=min(N_NEIGHBORS, len(codes) - 1),
            use_rep="X",
            random_state=seed,
            transformer="sklearn" if len(codes) <= EXACT_NEIGHBORS else None,
        )
    return cells.obsp["connectivities"]
