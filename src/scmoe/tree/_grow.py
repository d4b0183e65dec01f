"""Grow a density tree: cut the cells where their density has its clearest valley, and so on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scmoe.tree._directions import candidates, fisher, pooled_noise
from scmoe.tree._join import join
from scmoe.tree._nodes import find_nodes, measure_noise, nearest
from scmoe.tree._sample import SAMPLE, canonical_order, dithered, draw_sketch
from scmoe.tree._tree import Tree
from scmoe.tree._valleys import Valleys, find_valleys

SIGNIFICANCE = 3.5
"""Standard deviations between the counts at a valley and at its lower peak."""

DEPTH = 0.5
"""Density of a valley, at most, as a share of its lower peak."""

LEAST = 12
"""Cells on either side of a valley."""

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
    weight
        How many cells each one stands for, ``(n,)``, or None.
    """

    x: np.ndarray
    nodes: np.ndarray
    noise: np.ndarray
    weight: np.ndarray | None

    def weights_of(self, cells: np.ndarray) -> np.ndarray | None:
        """Weights of some cells."""
        return None if self.weight is None else self.weight[cells]

    def noise_along(self, directions: np.ndarray) -> np.ndarray:
        """Spread of one population along directions ``(m, d)``, ``(m,)``."""
        return np.sqrt(np.einsum("ij,jk,ik->i", directions, self.noise, directions))


def grow(
    x: np.ndarray,
    markers: np.ndarray,
    *,
    significance: float = SIGNIFICANCE,
    depth: float = DEPTH,
    least: int = LEAST,
    seed: int = 0,
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
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    rng = np.random.default_rng(seed)
    order = canonical_order(x, rng)
    kept, weight = draw_sketch(x[order], rng)
    raw = x[order[kept]]
    spread = dithered(raw, rng)
    sample = spread[:SAMPLE]
    centres = find_nodes(sample)
    cells = Cells(spread, nearest(spread, centres), measure_noise(sample, centres), weight)

    def look(members: np.ndarray) -> tuple[Valleys, np.ndarray]:
        # the cells are in random order
        return best_split(cells, members[:SAMPLE], least)

    region, weights, found = [], [], []
    members, waiting = {0: np.arange(len(raw))}, {}
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
        high = np.einsum("ij,j->i", raw[own], direction) > valley.threshold
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
    leaf = np.zeros(len(raw), dtype=np.int32)
    for number, some in members.items():
        leaf[some] = number
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
    return numbered(tree, x, join(cells.x, leaf, cells.noise, least, cells.weight))


def best_split(cells: Cells, members: np.ndarray, least: int) -> tuple[Valleys, np.ndarray]:
    """Find the best valley of a region, and its direction ``(d,)``.

    The Fisher direction of the two sides of a valley may see it better: the best few are turned
    until their bound does not rise.
    """
    x, weight = cells.x[members], cells.weights_of(members)
    directions = candidates(x, cells.nodes[members], cells.noise, least)
    found = find_valleys(directions @ x.T, cells.noise_along(directions), least, weight)
    best = np.argsort(-found.bound, kind="stable")[:N_REFINED]
    best = best[np.isfinite(found.bound[best])]
    if not len(best):
        return found[0], directions[0]
    found, directions = found[best], directions[best]
    turning = np.arange(len(best))
    for _ in range(N_ROUNDS):
        high = directions[turning] @ x.T > found.threshold[turning, None]
        count = high.sum(1)
        two = np.minimum(count, len(x) - count) >= least
        turning, high, count = turning[two], high[two], count[two]
        if not len(turning):
            break
        sides = [(x[h], x[~h]) for h in high]
        turned, of = fisher(
            np.stack([a.mean(0) - b.mean(0) for a, b in sides]),
            1 / count + 1 / (len(x) - count),
            np.stack([pooled_noise(a, b, cells.noise) for a, b in sides]),
        )
        if not len(of):
            break
        again = find_valleys(turned @ x.T, cells.noise_along(turned), least, weight)
        turning = turning[of]
        better = again.bound > found.bound[turning]
        turning = turning[better]
        found = Valleys(
            *(_put(old, turning, new[better]) for old, new in zip(found, again, strict=True))
        )
        directions[turning] = turned[better]
    first = found.bound.argmax()
    return found[first], directions[first]


def _put(values: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A copy of values with new ones in some rows."""
    values = values.copy()
    values[rows] = new
    return values


def numbered(tree: Tree, x: np.ndarray, cluster: dict[int, int]) -> Tree:
    """The tree with the sizes of its regions, and clusters numbered by size.

    Parameters
    ----------
    tree
        A tree with splits.
    x
        All cells.
    cluster
        Cluster of each leaf.
    """
    size = np.bincount(tree.find_leaves(x), minlength=2 * tree.n_splits + 1)
    for split in range(tree.n_splits - 1, -1, -1):
        size[tree.region[split]] = size[2 * split + 1] + size[2 * split + 2]
    found = np.full(len(size), -1, dtype=np.int32)
    for leaf, number in cluster.items():
        found[leaf] = number
    total = np.bincount(found[tree.leaves], size[tree.leaves])
    rank = np.empty(len(total), dtype=np.int32)
    rank[np.argsort(-total, kind="stable")] = np.arange(len(total))
    return replace(
        tree,
        sizes=size[1:].reshape(-1, 2).astype(np.int64),
        cluster=np.where(found < 0, -1, rank[found]).astype(np.int32),
    )
