"""What the arms of coupled mixtures learn first."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from scmoe._core.settings import check_whole
from scmoe.estimate import communities
from scmoe.tree import SIGNIFICANCE, grow

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix

    from scmoe.tree import Tree

    Find: TypeAlias = Callable[[np.ndarray, int], np.ndarray]
    """From indices of cells and a seed to the group of each of them, ``(n,)`` int64."""

logger = logging.getLogger("scmoe")

LEAST_SIZE = 10
"""Cells of the smallest community that is learned."""

SHARE = 0.5
"""Of the cells, in which the groups of an arm are sought."""


def check_start(start: Any, epochs: int | None) -> None:
    """Raise ValueError for settings of the start that make no sense."""
    if not isinstance(start, bool):
        raise ValueError(f"`start` must be True, False or None, got {start!r}.")
    if epochs is not None:
        check_whole("start_epochs", epochs, 1)


def leaves(values: np.ndarray, n_categories: int | None, seed: int) -> Tree | None:
    """Grow the density tree that arms start from, cut at a number that is known.

    Parameters
    ----------
    values
        Markers as they are, ``(n, n_input)``.
    n_categories
        None for as many as there are.
    seed
        Of the tree.

    Returns
    -------
    The tree, with ``n_categories`` clusters, or two or more; None where it has fewer.
    """
    tree = grow(values, np.arange(values.shape[1]).astype(str), seed=seed)
    if tree.n_clusters < (n_categories or 2):
        logger.info(
            "The density tree has no more than %d leaves: the arms start from communities of the "
            "neighbour graph.",
            tree.n_clusters,
        )
        return None
    if n_categories is None or tree.n_clusters == n_categories:
        return tree
    return tree.merge(tree.cut(n_clusters=n_categories))


def of_tree(values: np.ndarray, whole: Tree) -> Find:
    """Find the leaves of a density tree of some cells, at most as many as the tree of all has.

    Of fewer cells the same valley is less significant.
    """

    def find(cells: np.ndarray, seed: int) -> np.ndarray:
        tree, n = whole, whole.n_clusters
        if len(cells) < len(values):
            less = SIGNIFICANCE * math.sqrt(len(cells) / len(values))
            tree = grow(values[cells], whole.markers, significance=less, seed=seed)
        if tree.n_clusters > n:
            tree = tree.merge(tree.cut(n_clusters=n))
        return tree.predict(values[cells]).astype(np.int64)

    return find


def of_graph(graph: csr_matrix, n_categories: int) -> Find:
    """Find the communities of some cells in a neighbour graph."""

    def find(cells: np.ndarray, seed: int) -> np.ndarray:
        return communities(graph[cells][:, cells], n_categories, LEAST_SIZE, seed)

    return find


def start_categories(
    find: Find, n_cells: int, n_categories: int, n_arms: int, seed: int
) -> np.ndarray:
    """Groups that the arms learn, those of an arm found among its own cells.

    Arms that learn the same partition would agree on it, right or wrong. So each of several gets
    a random half of the cells, and their groups: what a partition owes to chance the arms
    learn differently. They have the names of those groups of all cells that they have most
    cells in common with (the assignment by which the sum over all is largest). A single arm
    learns those of all cells, and so does one whose half shows less than two, which would be a
    name for everything or for nothing.

    Parameters
    ----------
    find
        From indices of cells and a seed to the group of each, -1 for none.
    n_cells
        n.
    n_categories
        How many groups there are at most.
    n_arms
        A.
    seed
        Of the halves, and of the groups.

    Returns
    -------
    ``(n, A)`` int64, below ``n_categories``; -1 for cells that an arm is taught nothing about.
    """
    whole = find(np.arange(n_cells), seed)
    if n_arms == 1:
        return whole[:, None]
    rng = np.random.default_rng(seed)
    taught = np.full((n_cells, n_arms), -1, dtype=np.int64)
    for arm in range(n_arms):
        cells = np.sort(rng.permutation(n_cells)[: round(SHARE * n_cells)])
        own = find(cells, seed + arm)
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
