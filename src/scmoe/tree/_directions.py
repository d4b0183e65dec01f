"""Directions along which a region of a tree may fall into two populations."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
from scipy.cluster.hierarchy import linkage

MAX_NODES = 400
"""Largest number of nodes: small groups of cells that directions and noise are computed from."""

CELLS_PER_NODE = 10
"""Smallest number of cells of a data set for each node."""

KMEANS_ROUNDS = 4
"""Number of rounds of k-means."""

POWER_ITERATIONS = 30
"""Number of power iterations for a principal direction."""

NOISE_GROUPS = 40
"""Largest number of groups of nodes within which the noise is measured."""

NOISE_GROUPS_PER_MARKER = 5
"""Largest number of these groups for each marker: with few markers, more would be mere tiles."""

RIDGE = 0.01
"""Share of its own variance that is added to the variance of every marker."""

CELLS_AT_A_TIME = 8192
"""Number of cells whose distances are computed together."""

N_BRANCHES = (2, 4, 8, 16)
"""Numbers of branches that the nodes of a region are cut into."""

CLEAR_ERRORS = 3.0
"""A marker is used if its means differ by more than this many standard errors."""

MAX_MARKERS = 50
"""Largest number of markers in a direction; of thousands of genes, those that differ most."""

SHRINKAGE = 2.0
"""Weight of the noise of all cells in that of a pair of groups, in cells for each marker."""

MAX_WEIGHT = 500
"""Largest weight of a group, in cells, so that a large group does not outweigh a small one."""


def find_nodes(x: np.ndarray) -> np.ndarray:
    """Group cells ``(n, d)`` into nodes and return their centres, ``(k, d)`` float32.

    The group with the largest sum of squares along its principal direction is cut at its mean
    (Boley 1998), until there are enough groups; some rounds of k-means follow. Nothing is random,
    so the nodes depend on the cells alone.
    """
    x = x.astype(np.float64)
    k = max(1, min(MAX_NODES, len(x) // CELLS_PER_NODE))
    groups, largest = [np.arange(len(x))], []

    def look(number: int) -> None:
        centred = x[groups[number]] - x[groups[number]].mean(0)
        along = centred @ principal_direction(centred)
        if np.any(along > 0):
            heappush(largest, (-(along**2).sum(), number, along > 0))

    look(0)
    while largest and len(groups) < k:
        _, number, high = heappop(largest)
        cells = groups[number]
        groups[number] = cells[~high]
        groups.append(cells[high])
        look(number)
        look(len(groups) - 1)
    centres = np.stack([x[cells].mean(0) for cells in groups])
    middle = x.mean(0)
    centred = (x - middle).astype(np.float32)
    for _ in range(KMEANS_ROUNDS):
        node = nearest(centred, (centres - middle).astype(np.float32))
        count = np.bincount(node, minlength=len(centres))[:, None]
        sums = np.stack([np.bincount(node, c, len(centres)) for c in x.T], axis=1)
        centres = np.where(count > 0, sums / np.maximum(count, 1), centres)
    return centres.astype(np.float32)


def principal_direction(x: np.ndarray) -> np.ndarray:
    """Return the first principal direction of centred cells ``(n, d)``, ``(d,)``.

    With more than 50 markers (genes) it is approximated by power iterations that start from the
    outermost cell: the time of an exact solution rises with the cube of the number of markers.
    """
    if x.shape[1] <= MAX_MARKERS:
        return np.linalg.eigh(x.T @ x)[1][:, -1]
    direction = x[(x**2).sum(1).argmax()]
    for _ in range(POWER_ITERATIONS):
        length = np.linalg.norm(direction)
        if length == 0:
            break
        direction = (x @ (direction / length)) @ x
    return direction / max(np.linalg.norm(direction), 1e-300)


def nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the nearest centre of each cell, ``(n,)`` int64."""
    half = (centres**2).sum(1) / 2
    return np.concatenate(
        [
            (half - x[i : i + CELLS_AT_A_TIME] @ centres.T).argmin(1)
            for i in range(0, len(x), CELLS_AT_A_TIME)
        ]
    )


def measure_noise(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the covariance of cells ``(n, d)`` within coarse groups of nodes.

    ``(d, d)``, positive definite.
    """
    k, d = centres.shape
    group = np.zeros(len(x), dtype=np.int64)
    if k > 2:
        (cut,) = branches(
            linkage(centres, "ward"),
            (max(2, min(NOISE_GROUPS, NOISE_GROUPS_PER_MARKER * d, k // 3)),),
        )
        coarse = np.empty(k, dtype=np.int64)
        for number, members in enumerate(cut):
            coarse[list(members)] = number
        group = coarse[nearest(x, centres)]
    count = np.maximum(np.bincount(group), 1)
    mean = np.stack([np.bincount(group, weights=column) / count for column in x.T], axis=1)
    rest = x - mean[group]
    noise = (rest.T @ rest / len(x)).astype(float)
    return noise + np.diag(RIDGE * np.diag(noise) + 1e-12)


def fisher(difference: np.ndarray, variance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Compute sparse Fisher directions: markers whose means do not differ clearly have weight 0.

    Dense directions find valleys in noise, since every marker adds its random difference.

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
    Unit vectors ``(k, d)``; there is none for a difference without a clear marker.
    """
    t = np.abs(difference) / np.sqrt(np.diag(noise) * variance[:, None])
    used = np.argsort(-t, axis=1, kind="stable")[:, :MAX_MARKERS]
    clear = np.take_along_axis(t, used, axis=1) > CLEAR_ERRORS
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
    """Compute the Fisher direction from low to high cells, both ``(n, d)``.

    The noise is the covariance within the two groups, shrunk towards ``noise``, that of all cells,
    ``(d, d)``. None if no marker differs clearly.
    """
    if not len(high) or not len(low):
        return None
    difference = high.mean(0) - low.mean(0)
    variance = 1 / len(high) + 1 / len(low)
    if len(noise) > MAX_MARKERS:
        # the covariance of all markers would take too long
        gap = np.abs(difference) / np.sqrt(np.diag(noise))
        used = np.argsort(-gap, kind="stable")[:MAX_MARKERS]
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
    """Return the covariance within two groups ``(n, d)``, shrunk towards that of all cells."""
    total, amount = SHRINKAGE * len(noise) * noise, SHRINKAGE * len(noise)
    for group in (left, right):
        if len(group) > 1:
            weight = min(len(group), MAX_WEIGHT)
            total = total + weight * np.cov(group.T).reshape(noise.shape)
            amount += weight
    return total / amount


def branches(links: np.ndarray, sizes: tuple[int, ...]) -> list[list[tuple[int, ...]]]:
    """Cut a linkage into each of these numbers of branches, and return the groups of each cut."""
    n = len(links) + 1
    members, cuts = {i: (i,) for i in range(n)}, []
    for i, (a, b) in enumerate(links[:, :2].astype(int)):
        if len(members) in sizes:
            cuts.append(list(members.values()))
        members[n + i] = members.pop(a) + members.pop(b)
    return cuts


def candidates(x: np.ndarray, nodes: np.ndarray, noise: np.ndarray, min_cells: int) -> np.ndarray:
    """Return the directions in which valleys are searched.

    These are every marker, and the Fisher directions of branches of nodes: the nodes in a region
    are linked (average and Ward), and each branch is compared with the rest of the region and
    with its nearest branch.

    Parameters
    ----------
    x
        Cells of the region, ``(n, d)`` float32.
    nodes
        Node of each cell, ``(n,)``.
    noise
        Covariance within one population, ``(d, d)``.
    min_cells
        Smallest number of cells of a branch.

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
                if group not in seen and min_cells <= count[i] <= len(x) - min_cells
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
