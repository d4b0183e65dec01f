"""Grow a density tree: cut the cells at the clearest valley of their density, recursively."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scmoe.tree._directions import (
    candidates,
    find_nodes,
    fisher_of_sides,
    measure_noise,
    nearest,
)
from scmoe.tree._prepare import spread_discrete, without_copies
from scmoe.tree._tree import Tree
from scmoe.tree._valleys import Valleys, find_valleys

SIGNIFICANCE = 3.5
"""Smallest difference of the counts at a valley and its lower peak, in standard deviations."""

DEPTH = 0.5
"""Largest density of a valley, as a share of that of its lower peak."""

MIN_CELLS = 12
"""Smallest number of cells on either side of a valley."""

MAX_CELLS = 100_000
"""Largest number of cells that a tree is grown on.

With more cells, ever smaller dips would become significant.
"""

REGION_SAMPLE = 30_000
"""Largest number of cells that nodes are made of, and that a region is searched with."""

N_REFINED = 4
"""Number of valleys whose direction is refined."""

REFINING_ROUNDS = 3
"""Largest number of rounds of refining."""


@dataclass(frozen=True)
class Cells:
    """The cells that a tree is grown on, in random order.

    Parameters
    ----------
    x
        Values, with discrete values spread, ``(n, d)`` float32.
    nodes
        Node of each cell, ``(n,)``.
    noise
        Covariance within one population, ``(d, d)``.
    batch
        Batch of each cell, ``(n,)`` integers from 0, or None.
    raw
        Values before they were spread, ``(n, d)`` float32.
    """

    x: np.ndarray
    nodes: np.ndarray
    noise: np.ndarray
    batch: np.ndarray | None
    raw: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, seed: int, batch: np.ndarray | None = None) -> Cells:
        """Draw from all cells ``(n, d)``; a seed gives the same cells whatever their order."""
        x, rng = np.ascontiguousarray(x, dtype=np.float32), np.random.default_rng(seed)
        order = canonical_order(x, rng)[:MAX_CELLS]
        order = order[without_copies(x[order])]
        spread = spread_discrete(x[order], rng)
        sample = spread[:REGION_SAMPLE]
        centres = find_nodes(sample)
        return cls(
            spread,
            nearest(spread, centres),
            measure_noise(sample, centres),
            None if batch is None else batch[order],
            x[order],
        )

    def batch_of(self, cells: np.ndarray) -> np.ndarray | None:
        """Return the batches of some cells; None without batches."""
        return None if self.batch is None else self.batch[cells]

    def noise_along(self, directions: np.ndarray) -> np.ndarray:
        """Return the standard deviation of one population along directions ``(m, d)``."""
        return np.sqrt(((directions @ self.noise) * directions).sum(1))


def grow(
    x: np.ndarray,
    markers: np.ndarray,
    *,
    significance: float = SIGNIFICANCE,
    depth: float = DEPTH,
    min_cells: int = MIN_CELLS,
    seed: int = 0,
    batch: np.ndarray | None = None,
    cells: Cells | None = None,
) -> Tree:
    """Grow a density tree.

    The region with the best supported valley is cut first. The order of the cells does not
    matter.

    Parameters
    ----------
    x
        Cells, ``(n, d)``.
    markers
        Names of the markers, ``(d,)``.
    significance, depth, min_cells
        Conditions for a valley, see :class:`scmoe.similarity.DensityTree`.
    seed
        Random seed of the order of the cells, and of the spread of discrete values.
    batch
        Batch of each cell, ``(n,)`` integers from 0: a valley must exist within batches.
    cells
        ``Cells.of(x, seed, batch)``, if it has been computed before.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    cells = Cells.of(x, seed, batch) if cells is None else cells

    def search(members: np.ndarray) -> tuple[Valleys, np.ndarray]:
        # the cells are in random order
        return best_split(cells, members[:REGION_SAMPLE], min_cells)

    region, weights, found = [], [], []
    members, waiting = {0: np.arange(len(cells.x))}, {}
    waiting[0] = search(members[0])
    while waiting:
        best = max(waiting, key=lambda r: waiting[r][0].bound)
        valley, direction = waiting.pop(best)
        if not valley.bound > 0:
            break
        if valley.significance < significance or valley.depth > depth:
            continue
        own = members[best]
        direction = direction.astype(np.float32)
        if direction[np.abs(direction).argmax()] < 0:  # the largest weight is positive
            direction, valley = -direction, valley._replace(threshold=-valley.threshold)
        high = np.einsum("ij,j->i", cells.raw[own], direction) > valley.threshold
        if min(high.sum(), (~high).sum()) < min_cells:  # the step of a discrete marker
            continue
        del members[best]
        low = 2 * len(region) + 1
        region.append(best)
        weights.append(direction)
        found.append(valley)
        for child, some in ((low, own[~high]), (low + 1, own[high])):
            members[child] = some
            if len(some) >= 2 * min_cells:
                waiting[child] = search(some)
    tree = Tree(
        markers=np.asarray(markers, dtype=str),
        region=np.array(region, dtype=np.int32),
        weights=np.array(weights, dtype=np.float32).reshape(len(region), x.shape[1]),
        threshold=np.array([v.threshold for v in found], dtype=float),
        significance=np.array([v.significance for v in found], dtype=float),
        depth=np.array([v.depth for v in found], dtype=float),
        sizes=np.zeros((len(region), 2), dtype=np.int64),
        cluster=np.zeros(2 * len(region) + 1, dtype=np.int32),
    )
    return number_clusters(tree, x)


def canonical_order(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a random order of cells ``(n, d)`` that does not depend on their present order."""
    key = np.einsum("ij,j->i", x, rng.normal(size=x.shape[1]))
    return np.argsort(key, kind="stable")[rng.permutation(len(x))]


def best_split(cells: Cells, members: np.ndarray, min_cells: int) -> tuple[Valleys, np.ndarray]:
    """Find the best valley of a region, and its direction ``(d,)``.

    The Fisher direction of the two sides of a valley may show the valley more clearly, so the
    best few directions are refined until their bound no longer rises. Then the valleys along
    several markers are evaluated on held-out cells, see :func:`held_out_valley`.
    """
    x, batch = cells.x[members], cells.batch_of(members)
    directions = candidates(x, cells.nodes[members], cells.noise, min_cells)
    along = directions.astype(np.float32) @ x.T
    found = find_valleys(along, cells.noise_along(directions), min_cells, batch)
    best = np.argsort(-found.bound, kind="stable")[:N_REFINED]
    valleys = [refine(cells, members, found.at(i), directions[i], min_cells) for i in best]
    judged = [
        held_out_valley(cells, members, valley, direction, min_cells)
        if np.count_nonzero(direction) > 1
        else valley
        for valley, direction in valleys
    ]
    first = int(np.argmax([valley.bound for valley in judged]))
    return judged[first], valleys[first][1]


def refine(
    cells: Cells, members: np.ndarray, valley: Valleys, direction: np.ndarray, min_cells: int
) -> tuple[Valleys, np.ndarray]:
    """Replace the direction of a valley by the Fisher direction of its sides while it helps."""
    x, batch = cells.x[members], cells.batch_of(members)
    for _ in range(REFINING_ROUNDS):
        high = x @ direction > valley.threshold
        if not np.isfinite(valley.bound) or not min_cells <= high.sum() <= len(x) - min_cells:
            break
        turned = fisher_of_sides(x[high], x[~high], cells.noise)
        if turned is None:
            break
        spread = cells.noise_along(turned[None])
        again = find_valleys((x @ turned.astype(np.float32))[None], spread, min_cells, batch)
        if not again.bound[0] > valley.bound:
            break
        valley, direction = again.at(0), turned
    return valley, direction


def held_out_valley(
    cells: Cells, members: np.ndarray, valley: Valleys, direction: np.ndarray, min_cells: int
) -> Valleys:
    """Evaluate a valley on held-out cells.

    A direction of many markers that is fitted to few cells separates them even where there are no
    populations. So each half of the cells is projected on the Fisher direction of the other half,
    and the valley is searched in all projections together. The threshold stays that of the
    direction of all cells; the counts are those of the less clear of the two valleys.
    """
    x = cells.x[members]
    along = x @ direction
    high = along > valley.threshold
    projected = np.empty(len(x), dtype=np.float32)
    # every second cell along the direction, so that the halves are not random
    first = np.argsort(np.argsort(along, kind="stable"), kind="stable") % 2 == 0
    for half in (first, ~first):
        left, right = x[~half & ~high], x[~half & high]
        turned = fisher_of_sides(right, left, cells.noise)
        if turned is None:
            return valley._replace(bound=-np.inf)
        middle = (left.mean(0) + right.mean(0)) / 2
        projected[half] = (x[half] - middle) @ turned / cells.noise_along(turned[None])[0]
    again = find_valleys(projected[None], np.ones(1), min_cells, cells.batch_of(members)).at(0)
    return again._replace(threshold=valley.threshold) if again.bound < valley.bound else valley


def number_clusters(tree: Tree, x: np.ndarray) -> Tree:
    """Set the sizes of the regions for cells ``(n, d)``, and number the clusters by size."""
    size = np.bincount(tree.find_leaves(x), minlength=2 * tree.n_splits + 1)
    for split in range(tree.n_splits - 1, -1, -1):
        size[tree.region[split]] = size[2 * split + 1] + size[2 * split + 2]
    cluster = np.full(len(size), -1, dtype=np.int32)
    leaves = tree.leaves
    cluster[leaves[np.argsort(-size[leaves], kind="stable")]] = np.arange(len(leaves))
    return replace(tree, sizes=size[1:].reshape(-1, 2).astype(np.int64), cluster=cluster)
