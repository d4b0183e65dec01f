"""Communities of a neighbour graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scmoe._partition import partition

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

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
