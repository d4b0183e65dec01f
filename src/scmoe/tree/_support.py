"""Which splits of a tree other trees of the same cells show again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scmoe.tree import Tree

ALIKE = 0.8
"""Jaccard index of both sides from which on a split is found again."""


def support(tree: Tree, leaf: np.ndarray, others: Iterable[np.ndarray]) -> np.ndarray:
    """Share of other trees that set the two sides of each split apart.

    Each leaf of the other tree is given to the side of the split that has most of its cells; the
    split is found again if both sides have a Jaccard index of at least 0.8 with what they are
    given. So the other tree may make its splits in another order, or cut the sides further, but
    no leaf of it may lie on both of them.

    Parameters
    ----------
    tree
        The tree.
    leaf
        Its leaf of each cell, ``(n,)``.
    others
        Leaf of each cell in each of the other trees, ``(n,)``; -1 for cells that it was not
        grown on.

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
        found.append(np.minimum(*alike) >= ALIKE)
    return np.mean(found, axis=0).astype(np.float32)
