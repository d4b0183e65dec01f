"""Grow a density tree: cut the cells where their density has its clearest valley, and so on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scmoe.tree._directions import candidates, fisher_of_sides
from scmoe.tree._discrete import spread_discrete, without_copies
from scmoe.tree._nodes import find_nodes, measure_noise, nearest
from scmoe.tree._tree import Tree
from scmoe.tree._valleys import Valleys, find_valleys

SIGNIFICANCE = 3.5
"""Standard deviations between the counts at a valley and at its lower peak."""

DEPTH = 0.5
"""Density of a valley, at most, as a share of its lower peak."""

LEAST = 12
"""Cells on either side of a valley."""

WHOLE = 100_000
"""Cells that a tree is grown on: of more cells ever smaller dips would become significant."""

SAMPLE = 30_000
"""Cells of which nodes are made, and through which a region is looked at."""

N_REFINED = 4
"""Valleys whose direction is refined."""

N_ROUNDS = 3
"""Rounds of refining."""


@dataclass(frozen=True)
class Cells:
    """What a tree is grown on: cells in random order.

    Parameters
    ----------
    x
        Values, spread where they are discrete, ``(n, d)`` float32.
    nodes
        Node of each cell, ``(n,)``.
    noise
        Covariance within one population, ``(d, d)``.
    batch
        Batch of each one, ``(n,)`` integers from 0, or None.
    raw
        Values as they are.
    """

    x: np.ndarray
    nodes: np.ndarray
    noise: np.ndarray
    batch: np.ndarray | None
    raw: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, seed: int, batch: np.ndarray | None = None) -> Cells:
        """Of all cells ``(n, d)``; with the same seed the same ones, whatever their order."""
        x, rng = np.ascontiguousarray(x, dtype=np.float32), np.random.default_rng(seed)
        order = canonical_order(x, rng)[:WHOLE]
        order = order[without_copies(x[order])]
        spread = spread_discrete(x[order], rng)
        sample = spread[:SAMPLE]
        centres = find_nodes(sample)
        return cls(
            spread,
            nearest(spread, centres),
            measure_noise(sample, centres),
            None if batch is None else batch[order],
            x[order],
        )

    def batch_of(self, cells: np.ndarray) -> np.ndarray | None:
        """Batches of some cells."""
        return None if self.batch is None else self.batch[cells]

    def noise_along(self, directions: np.ndarray) -> np.ndarray:
        """Spread of one population along directions ``(m, d)``, ``(m,)``."""
        return np.sqrt(((directions @ self.noise) * directions).sum(1))


def grow(
    x: np.ndarray,
    markers: np.ndarray,
    *,
    significance: float = SIGNIFICANCE,
    depth: float = DEPTH,
    least: int = LEAST,
    seed: int = 0,
    batch: np.ndarray | None = None,
    cells: Cells | None = None,
) -> Tree:
    """Grow a density tree.

    The region with the best supported valley is cut first. The same cells in another order give
    the same tree.

    Parameters
    ----------
    x
        Cells, ``(n, d)``.
    markers
        Their markers, ``(d,)``.
    significance, depth, least
        What a valley must have, see :class:`scmoe.similarity.DensityTree`.
    seed
        Of what is drawn at random: the order of the cells, and steps between discrete values.
    batch
        Batch of each cell, ``(n,)`` integers from 0: a valley must be there within batches.
    cells
        ``Cells.of(x, seed, batch)``, where that is at hand.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    cells = Cells.of(x, seed, batch) if cells is None else cells

    def look(members: np.ndarray) -> tuple[Valleys, np.ndarray]:
        # the cells are in random order
        return best_split(cells, members[:SAMPLE], least)

    region, weights, found = [], [], []
    members, waiting = {0: np.arange(len(cells.x))}, {}
    waiting[0] = look(members[0])
    while waiting:
        best = max(waiting, key=lambda r: waiting[r][0].bound)
        valley, direction = waiting.pop(best)
        if not valley.bound > 0:
            break
        if valley.significance < significance or valley.depth > depth:
            continue
        own = members[best]
        direction = direction.astype(np.float32)
        if direction[np.abs(direction).argmax()] < 0:  # high is where the heaviest marker is
            direction, valley = -direction, valley._replace(threshold=-valley.threshold)
        high = np.einsum("ij,j->i", cells.raw[own], direction) > valley.threshold
        if min(high.sum(), (~high).sum()) < least:  # the step of a discrete marker
            continue
        del members[best]
        low = 2 * len(region) + 1
        region.append(best)
        weights.append(direction)
        found.append(valley)
        for child, some in ((low, own[~high]), (low + 1, own[high])):
            members[child] = some
            if len(some) >= 2 * least:
                waiting[child] = look(some)
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
    return numbered(tree, x)


def canonical_order(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of cells ``(n, d)`` that does not depend on the order in which they come."""
    key = np.einsum("ij,j->i", x, rng.normal(size=x.shape[1]))
    return np.argsort(key, kind="stable")[rng.permutation(len(x))]


def best_split(cells: Cells, members: np.ndarray, least: int) -> tuple[Valleys, np.ndarray]:
    """Find the best valley of a region, and its direction ``(d,)``.

    The Fisher direction of the two sides of a valley may see it better: the best few are turned
    until their bound does not rise. Then those of several markers are judged on cells that had
    no say in their direction, see :func:`held_out_valley`.
    """
    x, batch = cells.x[members], cells.batch_of(members)
    directions = candidates(x, cells.nodes[members], cells.noise, least)
    along = directions.astype(np.float32) @ x.T
    found = find_valleys(along, cells.noise_along(directions), least, batch)
    best = np.argsort(-found.bound, kind="stable")[:N_REFINED]
    valleys = [turn(cells, members, found.at(i), directions[i], least) for i in best]
    judged = [
        held_out_valley(cells, members, valley, direction, least)
        if np.count_nonzero(direction) > 1
        else valley
        for valley, direction in valleys
    ]
    first = int(np.argmax([valley.bound for valley in judged]))
    return judged[first], valleys[first][1]


def turn(
    cells: Cells, members: np.ndarray, valley: Valleys, direction: np.ndarray, least: int
) -> tuple[Valleys, np.ndarray]:
    """Turn the direction of a valley to the Fisher direction of its two sides while it helps."""
    x, batch = cells.x[members], cells.batch_of(members)
    for _ in range(N_ROUNDS):
        high = x @ direction > valley.threshold
        if not np.isfinite(valley.bound) or not least <= high.sum() <= len(x) - least:
            break
        turned = fisher_of_sides(x[high], x[~high], cells.noise)
        if turned is None:
            break
        spread = cells.noise_along(turned[None])
        again = find_valleys((x @ turned.astype(np.float32))[None], spread, least, batch)
        if not again.bound[0] > valley.bound:
            break
        valley, direction = again.at(0), turned
    return valley, direction


def held_out_valley(
    cells: Cells, members: np.ndarray, valley: Valleys, direction: np.ndarray, least: int
) -> Valleys:
    """The valley as cells see it that had no say in its direction.

    A direction of many markers that was fitted to few cells parts them even where there is
    nothing. So each half of the cells is projected on the Fisher direction of the other half,
    and the valley is looked for among all of them. The threshold stays that of the direction of
    all cells; the counts are those of the worse one of the two valleys.
    """
    x = cells.x[members]
    along = x @ direction
    high = along > valley.threshold
    projected = np.empty(len(x), dtype=np.float32)
    # every second cell along the direction, so that chance does not choose the halves
    first = np.argsort(np.argsort(along, kind="stable"), kind="stable") % 2 == 0
    for half in (first, ~first):
        left, right = x[~half & ~high], x[~half & high]
        turned = fisher_of_sides(right, left, cells.noise)
        if turned is None:
            return valley._replace(bound=-np.inf)
        middle = (left.mean(0) + right.mean(0)) / 2
        projected[half] = (x[half] - middle) @ turned / cells.noise_along(turned[None])[0]
    again = find_valleys(projected[None], np.ones(1), least, cells.batch_of(members)).at(0)
    return again._replace(threshold=valley.threshold) if again.bound < valley.bound else valley


def numbered(tree: Tree, x: np.ndarray) -> Tree:
    """The tree with the sizes of its regions among cells ``(n, d)``, and leaves by size."""
    size = np.bincount(tree.find_leaves(x), minlength=2 * tree.n_splits + 1)
    for split in range(tree.n_splits - 1, -1, -1):
        size[tree.region[split]] = size[2 * split + 1] + size[2 * split + 2]
    cluster = np.full(len(size), -1, dtype=np.int32)
    leaves = tree.leaves
    cluster[leaves[np.argsort(-size[leaves], kind="stable")]] = np.arange(len(leaves))
    return replace(tree, sizes=size[1:].reshape(-1, 2).astype(np.int64), cluster=cluster)
