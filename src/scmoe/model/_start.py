"""What the arms of coupled mixtures learn first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from scmoe._numbers import check_whole
from scmoe.estimate import communities

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LEAST_SIZE = 10
"""Cells of the smallest community that is learned."""

SHARE = 0.5
"""Of the cells, in which the communities of an arm are sought."""


def check_start(start: Any, epochs: int | None) -> None:
    """Raise ValueError for settings of the start that make no sense."""
    if not isinstance(start, bool):
        raise ValueError(f"`start` must be True, False or None, got {start!r}.")
    if epochs is not None:
        check_whole("start_epochs", epochs, 1)


def start_categories(graph: csr_matrix, n_categories: int, n_arms: int, seed: int) -> np.ndarray:
    """Communities of a neighbour graph that the arms learn, those of an arm among its own cells.

    Arms that learn the same partition would agree on it, right or wrong. So each of several gets
    a random half of the cells, and their communities: what a partition owes to chance the arms
    learn differently. They have the names of those communities of all cells that they have most
    cells in common with (the assignment by which the sum over all is largest). A single arm
    learns those of all cells, and so does one whose half shows less than two, which would be a
    name for everything or for nothing.

    Parameters
    ----------
    graph
        ``(n, n)`` weights.
    n_categories
        How many communities are sought.
    n_arms
        A.
    seed
        Of the halves, and of the order in which cells are looked at.

    Returns
    -------
    ``(n, A)`` int64, below ``n_categories``; -1 for cells that an arm is taught nothing about.
    """
    n = graph.shape[0]
    whole = communities(graph, n_categories, LEAST_SIZE, seed)
    if n_arms == 1:
        return whole[:, None]
    rng = np.random.default_rng(seed)
    taught = np.full((n, n_arms), -1, dtype=np.int64)
    for arm in range(n_arms):
        cells = np.sort(rng.permutation(n)[: round(SHARE * n)])
        own = communities(graph[cells][:, cells], n_categories, LEAST_SIZE, seed + arm)
        if own.max() < 1:
            taught[:, arm] = whole
        else:
            taught[cells, arm] = _named_like(whole[cells], own, n_categories)
    return taught


def _named_like(known: np.ndarray, found: np.ndarray, n: int) -> np.ndarray:
    """The second of two partitions into at most n parts, under the names of the first."""
    there = found >= 0
    both = there & (known >= 0)
    common = np.zeros((n, n))
    np.add.at(common, (found[both], known[both]), 1)
    name = linear_sum_assignment(common, maximize=True)[1]
    return np.where(there, name[found], -1)
