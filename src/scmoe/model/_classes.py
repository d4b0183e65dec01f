"""Which cluster a class of a prior has become."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

EMPTY_FIRST = 1e-6
"""Weight of an expert's size where F1 does not decide."""


def owners(positive: np.ndarray, expert: np.ndarray, n_experts: int) -> np.ndarray:
    """The expert that stands for each class: the one whose cells are positive for it.

    The loss teaches class c to expert c. Where another similarity has a say too, a population that
    nobody listed can come first to that expert, by the few of its cells that are positive by
    chance, and the class then settles elsewhere; its name must follow it. Cells that are positive
    for several classes teach nothing, but they count here.

    Parameters
    ----------
    positive
        What speaks for each class, ``(n, C)`` in [0, 1].
    expert
        Expert of each cell, ``(n,)`` int64.
    n_experts
        K, at least C.

    Returns
    -------
    ``(C,)`` int64, different experts, such that the sum of the F1 of positive cells and clusters
    is largest. Clusters that are positive for a class no more often than all cells are do not
    stand for it. A class without a cluster gets an expert without cells, -1 if none is left.
    """
    size = np.bincount(expert, minlength=n_experts)
    hits = np.stack([np.bincount(expert, p, n_experts) for p in positive.T])
    n_positive = positive.sum(0)[:, None]
    enriched = hits * len(expert) > n_positive * size
    f1 = np.divide(2 * hits, n_positive + size, out=np.zeros_like(hits), where=enriched)
    own = linear_sum_assignment(f1 - EMPTY_FIRST * size / len(expert), maximize=True)[1]
    classes = np.arange(len(own))
    return np.where((f1[classes, own] > 0) | (size[own] == 0), own, -1)
