"""How sure it is which cluster of a tree a cell belongs to: its valleys, looked at again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scmoe.tree._directions import fisher_of_sides
from scmoe.tree._grow import DEPTH, LEAST, SAMPLE, SIGNIFICANCE, Cells
from scmoe.tree._valleys import Valleys, find_valleys

if TYPE_CHECKING:
    from scmoe.tree._tree import Tree

N_DRAWN = 10
"""Subsamples in which the valleys are looked at again."""

SUBSAMPLE = 0.7
"""Share of the cells in a subsample."""


def memberships(
    tree: Tree,
    x: np.ndarray,
    *,
    significance: float = SIGNIFICANCE,
    depth: float = DEPTH,
    least: int = LEAST,
    seed: int = 0,
    batch: np.ndarray | None = None,
    cells: Cells | None = None,
) -> np.ndarray:
    """Share of each cluster of a tree for each cell.

    The valley of each split is looked at again in subsamples of the cells, and lies elsewhere in
    each of them, or nowhere: cells near a valley come to either side. The tree itself counts as
    much as all subsamples together, so that no cell has another cluster than by the tree.

    Parameters
    ----------
    tree
        Grown on these cells.
    x
        Cells, ``(n, d)``.
    significance, depth, least, seed, batch, cells
        With which the tree was grown, see :func:`scmoe.tree.grow`.

    Returns
    -------
    ``(n, n_clusters)`` float32, rows sum to 1.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    cluster = tree.predict(x)
    shares = N_DRAWN * np.eye(tree.n_clusters, dtype=np.float32)[cluster]
    if tree.n_clusters > 1:
        rng = np.random.default_rng(seed)
        cells = Cells.of(x, seed, batch) if cells is None else cells
        for _ in range(N_DRAWN):
            some = np.flatnonzero(rng.random(len(cells.x)) < SUBSAMPLE)
            again = look_again(tree, cells, some, depth, least)
            # the same valley is less significant among fewer cells
            into = again.cut(significance=significance * np.sqrt(SUBSAMPLE))
            shares += translated(into[again.predict(x)], cluster, tree.n_clusters)
    return shares / shares.sum(1, keepdims=True)


def look_again(tree: Tree, cells: Cells, some: np.ndarray, depth: float, least: int) -> Tree:
    """The tree with the directions and valleys of its splits in some of the cells.

    The direction of a split of several markers is the Fisher direction of the two sides. A
    valley that is not deep enough there, or has too few cells beside it, has a significance of 0
    and stays where it is.
    """
    weights, threshold = tree.weights.copy(), tree.threshold.copy()
    significance = np.zeros_like(tree.significance)
    members = {0: some}
    for split, region in enumerate(tree.region):
        own = members.pop(int(region))
        found, direction = _valley(tree, cells, own[:SAMPLE], split, least)
        if found.bound > 0 and found.depth <= depth:
            weights[split], threshold[split] = direction, found.threshold
            significance[split] = found.significance
        high = np.einsum("ij,j->i", cells.x[own], weights[split]) > threshold[split]
        members[2 * split + 1], members[2 * split + 2] = own[~high], own[high]
    return replace(tree, weights=weights, threshold=threshold, significance=significance)


def _valley(
    tree: Tree, cells: Cells, some: np.ndarray, split: int, least: int
) -> tuple[Valleys, np.ndarray]:
    """The valley of a split in some cells of its region, and its direction there."""
    x, direction = cells.x[some], tree.weights[split]
    if np.count_nonzero(direction) > 1:
        high = x @ direction > tree.threshold[split]
        turned = fisher_of_sides(x[high], x[~high], cells.noise)
        direction = direction if turned is None else turned.astype(np.float32)
    spread = cells.noise_along(direction[None])
    return find_valleys((x @ direction)[None], spread, least, cells.batch_of(some)).at(
        0
    ), direction


def translated(found: np.ndarray, cluster: np.ndarray, n_clusters: int) -> np.ndarray:
    """What groups say of clusters: the share of each cluster in the group of each cell.

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
