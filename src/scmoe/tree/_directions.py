"""Directions in which a region may fall into two populations."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import linkage

N_BRANCHES = (2, 4, 8, 16)
"""Numbers of branches that the nodes of a region are cut into."""

CLEAR = 3.0
"""Standard errors by which the means of a marker must differ if it shall count."""

MOST_MARKERS = 50
"""Markers of a direction, those that differ most: genes come in thousands."""

SHRINKAGE = 2.0
"""Weight of the noise of all cells in that of a pair of groups, in cells for each marker."""

MOST_WEIGHT = 500
"""Cells that a group weighs at most, so that a large one does not drown a small one."""


def fisher(difference: np.ndarray, variance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Sparse Fisher directions: of the markers whose means differ clearly, the others are 0.

    Dense directions find valleys in noise, as every marker adds what its mean differs by chance.

    Parameters
    ----------
    difference
        Differences of two means, ``(m, d)``.
    variance
        Variance of a difference in units of ``noise``: ``1 / n_1 + 1 / n_2``, ``(m,)``.
    noise
        Covariance within one population, ``(d, d)``.

    Returns
    -------
    Unit vectors ``(k, d)``; differences without a clear marker have none.
    """
    t = np.abs(difference) / np.sqrt(np.diag(noise) * variance[:, None])
    used = np.argsort(-t, axis=1, kind="stable")[:, :MOST_MARKERS]
    clear = np.take_along_axis(t, used, axis=1) > CLEAR
    kept = clear.any(1)
    used, clear = used[kept], clear[kept]
    within = noise[used[:, :, None], used[:, None, :]] * (clear[:, :, None] & clear[:, None, :])
    within += np.eye(used.shape[1]) * ~clear[:, None]
    pull = np.where(clear, np.take_along_axis(difference[kept], used, axis=1), 0)
    weights = np.zeros((len(used), difference.shape[1]))
    found = np.linalg.solve(within, pull[..., None])[..., 0]
    np.put_along_axis(weights, used, found, axis=1)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def fisher_of_sides(high: np.ndarray, low: np.ndarray, noise: np.ndarray) -> np.ndarray | None:
    """Fisher direction from low to high cells ``(n, d)``; None where no marker differs clearly.

    The noise is that within the two groups, shrunk to that of all cells: ``(d, d)``.
    """
    if not len(high) or not len(low):
        return None
    difference = high.mean(0) - low.mean(0)
    variance = 1 / len(high) + 1 / len(low)
    if len(noise) > MOST_MARKERS:
        # the covariance of so many markers is not worth its time
        gap = np.abs(difference) / np.sqrt(np.diag(noise))
        used = np.argsort(-gap, kind="stable")[:MOST_MARKERS]
    else:
        used = np.arange(len(noise))
    within = pooled_noise(high[:, used], low[:, used], noise[np.ix_(used, used)])
    found = fisher(difference[None, used], np.array([variance]), within)
    if not len(found):
        return None
    direction = np.zeros(len(noise))
    direction[used] = found[0]
    return direction


def pooled_noise(left: np.ndarray, right: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Covariance within two groups ``(n, d)``, shrunk to that of all cells; ``(d, d)``."""
    total, amount = SHRINKAGE * len(noise) * noise, SHRINKAGE * len(noise)
    for group in (left, right):
        if len(group) > 1:
            weight = min(len(group), MOST_WEIGHT)
            total = total + weight * np.cov(group.T).reshape(noise.shape)
            amount += weight
    return total / amount


def branches(links: np.ndarray, sizes: tuple[int, ...]) -> list[list[tuple[int, ...]]]:
    """The groups of a linkage, cut into each of the numbers of branches."""
    n = len(links) + 1
    members, cuts = {i: (i,) for i in range(n)}, []
    for i, (a, b) in enumerate(links[:, :2].astype(int)):
        if len(members) in sizes:
            cuts.append(list(members.values()))
        members[n + i] = members.pop(a) + members.pop(b)
    return cuts


def candidates(x: np.ndarray, nodes: np.ndarray, noise: np.ndarray, least: int) -> np.ndarray:
    """Directions to look along: every marker, and what sets branches of nodes apart.

    The nodes in a region are linked (average and Ward); each branch is compared with the rest
    of the region, and with the branch next to it.

    Parameters
    ----------
    x
        Cells of the region, ``(n, d)`` float32.
    nodes
        Node of each cell, ``(n,)``.
    noise
        Covariance within one population, ``(d, d)``.
    least
        Cells that a branch must have.

    Returns
    -------
    Unit vectors, ``(m, d)``.
    """
    differences, variances = [], []
    ids, node = np.unique(nodes, return_inverse=True)
    size = np.bincount(node).astype(float)
    total = np.stack([np.bincount(node, weights=column) for column in x.T], axis=1)
    seen: set[tuple[int, ...]] = set()
    for method in ("average", "ward") if len(ids) > 2 else ():
        for groups in branches(linkage(total / size[:, None], method), N_BRANCHES):
            count = np.array([size[list(g)].sum() for g in groups])
            sums = np.stack([total[list(g)].sum(0) for g in groups])
            mean = sums / count[:, None]
            apart = ((mean[:, None] - mean) ** 2).sum(-1)
            np.fill_diagonal(apart, np.inf)
            next_to = apart.argmin(1)
            new = [
                i
                for i, group in enumerate(groups)
                if group not in seen and least <= count[i] <= len(x) - least
            ]
            seen.update(groups[i] for i in new)
            others = len(x) - count[new]
            rest = (total.sum(0) - sums[new]) / others[:, None]
            differences.append(mean[new] - rest)
            variances.append(1 / count[new] + 1 / others)
            if len(groups) > 2:
                differences.append(mean[new] - mean[next_to[new]])
                variances.append(1 / count[new] + 1 / count[next_to[new]])
    markers = np.eye(x.shape[1])
    if not differences:
        return markers
    found = fisher(np.concatenate(differences), np.concatenate(variances), noise)
    return np.concatenate([markers, found])
