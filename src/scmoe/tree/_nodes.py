"""Nodes: many small groups of cells, from which directions and the noise are read."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
from scipy.cluster.hierarchy import linkage

from scmoe.tree._directions import MOST_MARKERS, branches

N_NODES = 400
"""Nodes of a data set."""

CELLS_PER_NODE = 10
"""Cells that there must be for a node."""

N_ROUNDS = 4
"""Rounds of k-means."""

N_ITERATIONS = 30
"""Power iterations of a principal direction."""

N_COARSE = 40
"""Groups of nodes within which the noise is measured."""

COARSE_PER_MARKER = 5
"""As many groups at most for each marker: in a plane 40 of them would be mere tiles."""

RIDGE = 0.01
"""Share of its variance that is added to that of every marker."""

CHUNK = 8192
"""Cells whose distances are computed at a time."""


def find_nodes(x: np.ndarray) -> np.ndarray:
    """Centres of the nodes of cells ``(n, d)``, ``(k, d)`` float32.

    The group with the largest sum of squares along its principal direction is cut at its mean
    (Boley 1998), until there are enough; some rounds of k-means follow. Nothing is drawn at
    random, so that the nodes hang on the cells alone.
    """
    x = x.astype(np.float64)
    k = max(1, min(N_NODES, len(x) // CELLS_PER_NODE))
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
    for _ in range(N_ROUNDS):
        node = nearest(centred, (centres - middle).astype(np.float32))
        count = np.bincount(node, minlength=len(centres))[:, None]
        sums = np.stack([np.bincount(node, c, len(centres)) for c in x.T], axis=1)
        centres = np.where(count > 0, sums / np.maximum(count, 1), centres)
    return centres.astype(np.float32)


def principal_direction(x: np.ndarray) -> np.ndarray:
    """The first principal direction of centred cells ``(n, d)``, ``(d,)``.

    Of many markers (genes) it is nearly that, by power iterations from the cell that is farthest
    out: the time of others rises with the cube of the number of markers.
    """
    if x.shape[1] <= MOST_MARKERS:
        return np.linalg.eigh(x.T @ x)[1][:, -1]
    direction = x[(x**2).sum(1).argmax()]
    for _ in range(N_ITERATIONS):
        length = np.linalg.norm(direction)
        if length == 0:
            break
        direction = (x @ (direction / length)) @ x
    return direction / max(np.linalg.norm(direction), 1e-300)


def nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each cell, ``(n,)`` int64."""
    half = (centres**2).sum(1) / 2
    return np.concatenate(
        [(half - x[i : i + CHUNK] @ centres.T).argmin(1) for i in range(0, len(x), CHUNK)]
    )


def measure_noise(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Covariance of cells ``(n, d)`` within coarse groups of nodes, ``(d, d)``, positive."""
    k, d = centres.shape
    group = np.zeros(len(x), dtype=np.int64)
    if k > 2:
        (cut,) = branches(
            linkage(centres, "ward"), (max(2, min(N_COARSE, COARSE_PER_MARKER * d, k // 3)),)
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
