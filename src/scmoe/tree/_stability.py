"""How stable a tree is in other cells: memberships from subsamples, and the support of splits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scmoe.tree._directions import fisher_of_sides
from scmoe.tree._grow import DEPTH, MIN_CELLS, REGION_SAMPLE, SIGNIFICANCE, Cells
from scmoe.tree._valleys import Valleys, find_valleys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scmoe.tree._tree import Tree

N_SUBSAMPLES = 10
"""Number of subsamples in which the valleys are searched again."""

SUBSAMPLE = 0.7
"""Share of the cells in a subsample."""

FOUND_AGAIN = 0.8
"""Jaccard index of both sides from which a split counts as found again."""


def memberships(
    tree: Tree,
    x: np.ndarray,
    *,
    significance: float = SIGNIFICANCE,
    depth: float = DEPTH,
    min_cells: int = MIN_CELLS,
    seed: int = 0,
    batch: np.ndarray | None = None,
    cells: Cells | None = None,
) -> np.ndarray:
    """Compute the membership of each cell in each cluster of a tree.

    The valley of each split is searched again in subsamples of the cells. Its position differs
    between subsamples, and in some there is no valley, so cells near a valley fall on either
    side. The tree itself counts as much as all subsamples together, so the largest membership of
    a cell is always that in its own cluster.

    Parameters
    ----------
    tree
        The tree, grown on these cells.
    x
        Cells, ``(n, d)``.
    significance, depth, min_cells, seed, batch, cells
        Arguments that the tree was grown with, see :func:`scmoe.tree.grow`.

    Returns
    -------
    ``(n, n_clusters)`` float32, rows sum to 1.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    cluster = tree.predict(x)
    shares = N_SUBSAMPLES * np.eye(tree.n_clusters, dtype=np.float32)[cluster]
    if tree.n_clusters > 1:
        rng = np.random.default_rng(seed)
        cells = Cells.of(x, seed, batch) if cells is None else cells
        for _ in range(N_SUBSAMPLES):
            some = np.flatnonzero(rng.random(len(cells.x)) < SUBSAMPLE)
            again = refit(tree, cells, some, depth, min_cells)
            # the same valley is less significant with fewer cells
            into = again.cut(significance=significance * np.sqrt(SUBSAMPLE))
            shares += cluster_shares(into[again.predict(x)], cluster, tree.n_clusters)
    return shares / shares.sum(1, keepdims=True)


def refit(tree: Tree, cells: Cells, some: np.ndarray, depth: float, min_cells: int) -> Tree:
    """Fit the directions and valleys of the splits of a tree to some of the cells.

    The direction of a split of several markers becomes the Fisher direction of its two sides. A
    valley that is not deep enough in these cells, or has too few cells on a side, keeps its
    position and gets a significance of 0.
    """
    weights, threshold = tree.weights.copy(), tree.threshold.copy()
    significance = np.zeros_like(tree.significance)
    members = {0: some}
    for split, region in enumerate(tree.region):
        own = members.pop(int(region))
        found, direction = _refit_split(tree, cells, own[:REGION_SAMPLE], split, min_cells)
        if found.bound > 0 and found.depth <= depth:
            weights[split], threshold[split] = direction, found.threshold
            significance[split] = found.significance
        high = np.einsum("ij,j->i", cells.x[own], weights[split]) > threshold[split]
        members[2 * split + 1], members[2 * split + 2] = own[~high], own[high]
    return replace(tree, weights=weights, threshold=threshold, significance=significance)


def _refit_split(
    tree: Tree, cells: Cells, some: np.ndarray, split: int, min_cells: int
) -> tuple[Valleys, np.ndarray]:
    """Find the valley of a split in some cells of its region, and its direction in them."""
    x, direction = cells.x[some], tree.weights[split]
    if np.count_nonzero(direction) > 1:
        high = x @ direction > tree.threshold[split]
        turned = fisher_of_sides(x[high], x[~high], cells.noise)
        direction = direction if turned is None else turned.astype(np.float32)
    spread = cells.noise_along(direction[None])
    return find_valleys((x @ direction)[None], spread, min_cells, cells.batch_of(some)).at(
        0
    ), direction


def cluster_shares(found: np.ndarray, cluster: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return the share of each cluster in the group of each cell.

    Parameters
    ----------
    found, cluster
        Group and cluster of each cell, ``(n,)`` integers from 0.
    n_clusters
        Number of clusters.

    Returns
    -------
    ``(n, n_clusters)`` float32, rows sum to 1.
    """
    pairs = np.bincount(found * n_clusters + cluster, minlength=(found.max() + 1) * n_clusters)
    table = pairs.reshape(-1, n_clusters).astype(np.float32)
    return (table / np.maximum(table.sum(1, keepdims=True), 1))[found]


def support(tree: Tree, leaf: np.ndarray, others: Iterable[np.ndarray]) -> np.ndarray:
    """Return the share of other trees in which each split is found again.

    Each leaf of the other tree is assigned to the side of the split that has most of its cells.
    The split is found again if each side has a Jaccard index of at least 0.8 with the leaves that
    are assigned to it. So the other tree may make its splits in another order, or cut the sides
    further, but none of its leaves may lie on both sides.

    Parameters
    ----------
    tree
        The tree.
    leaf
        Leaf of each cell in the tree, ``(n,)``.
    others
        Leaf of each cell in each of the other trees, ``(n,)``; -1 for cells that the other tree
        was not grown on.

    Returns
    -------
    ``(n_splits,)`` float32.
    """
    inside = tree.inside()
    low, high = inside[1::2].astype(np.int64), inside[2::2].astype(np.int64)
    found = []
    for other in others:
        known = other >= 0
        counts = np.zeros((len(inside), other.max() + 1), dtype=np.int64)
        np.add.at(counts, (leaf[known], other[known]), 1)
        below, above = low @ counts, high @ counts
        is_above = above > below
        alike = [
            np.where(given, own, 0).sum(1) / np.maximum(np.where(given, rest, 0).sum(1) + total, 1)
            for own, rest, given, total in (
                (below, above, ~is_above, below.sum(1)),
                (above, below, is_above, above.sum(1)),
            )
        ]
        found.append(np.minimum(*alike) >= FOUND_AGAIN)
    return np.mean(found, axis=0).astype(np.float32)
