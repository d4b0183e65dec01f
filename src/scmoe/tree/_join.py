"""Join leaves that are pieces of one population: a threshold that was set for others cut it."""

from __future__ import annotations

import numpy as np

from scmoe.tree._directions import fisher, pooled_noise
from scmoe.tree._valleys import find_valleys

BOUND = 0.4
"""Leaves with a smaller bound of the valley between them are one population."""

N_NEAR = 6
"""Leaves next to a leaf with which it may be joined."""

N_CELLS = 4_000
"""Cells of a leaf that are looked at, or this many times the smaller leaf of a pair:"""

RATIO = 20


def join(
    x: np.ndarray,
    leaf: np.ndarray,
    noise: np.ndarray,
    least: int,
    weight: np.ndarray | None = None,
    batch: np.ndarray | None = None,
) -> dict[int, int]:
    """Cluster of each leaf, from 0.

    Parameters
    ----------
    x
        Cells in random order, ``(n, d)``.
    leaf
        Leaf of each cell.
    noise
        Covariance within one population.
    least
        Cells on either side of a valley.
    weight
        How many cells each one stands for.
    batch
        Batch of each cell, see :func:`~scmoe.tree._valleys.find_valleys`.
    """
    names = np.unique(leaf)
    members = {int(k): np.flatnonzero(leaf == k) for k in names}
    mean = {k: x[cells].mean(0) for k, cells in members.items()}
    inverse = np.linalg.inv(noise)
    within = {k: [k] for k in members}

    def bound(i: int, j: int) -> float:
        most = max(N_CELLS, RATIO * min(len(members[i]), len(members[j])))
        cells = [members[k][:most] for k in (i, j)]
        both = np.concatenate(cells)
        some = [None if of_cells is None else of_cells[both] for of_cells in (weight, batch)]
        return between(*(x[c] for c in cells), noise, least, *some)

    def near(k: int) -> list[tuple[int, int]]:
        gap = {j: mean[j] - mean[k] for j in members if j != k}
        nearest = sorted(gap, key=lambda j: gap[j] @ inverse @ gap[j])[:N_NEAR]
        return [(min(j, k), max(j, k)) for j in nearest]

    pairs = {pair for k in members for pair in near(k)} if len(members) > 2 else set()
    found = {pair: bound(*pair) for pair in sorted(pairs)}
    while len(members) > 2 and min(found.values()) < BOUND:
        kept, gone = sorted(min(found, key=found.get), key=lambda k: -len(members[k]))
        members[kept] = np.sort(np.concatenate([members[kept], members.pop(gone)]))
        mean[kept] = x[members[kept]].mean(0)
        within[kept] += within.pop(gone)
        found = {pair: v for pair, v in found.items() if not {kept, gone} & set(pair)}
        found |= {pair: bound(*pair) for pair in near(kept)}
    return {leaf: number for number, leaves in enumerate(within.values()) for leaf in leaves}


def between(
    left: np.ndarray,
    right: np.ndarray,
    noise: np.ndarray,
    least: int,
    weight: np.ndarray | None = None,
    batch: np.ndarray | None = None,
) -> float:
    """Bound of the best valley between two groups ``(n, d)``; -inf where there is none.

    It is looked for along their Fisher direction and the two markers that differ most.
    """
    difference = left.mean(0) - right.mean(0)
    variance = np.array([1 / len(left) + 1 / len(right)])
    direction, _ = fisher(difference[None], variance, pooled_noise(left, right, noise))
    if not len(direction):
        return -np.inf
    most = np.argsort(-np.abs(difference) / np.sqrt(np.diag(noise)))[:2]
    directions = np.concatenate([direction, np.eye(len(noise))[most]])
    least = max(3, min(least, len(left) // 2, len(right) // 2))
    spread = np.sqrt(np.einsum("ij,jk,ik->i", directions, noise, directions))
    cells = np.concatenate([left, right])
    return float(find_valleys(directions @ cells.T, spread, least, weight, batch).bound.max())
