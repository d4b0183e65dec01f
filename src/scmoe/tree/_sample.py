"""Which cells a tree is grown on, in which order, and what becomes of repeated values."""

from __future__ import annotations

import numpy as np

from scmoe.tree._nodes import find_nodes, nearest

WHOLE = 50_000
"""Cells of a sketch: of more cells ever smaller dips would become significant."""

SPARE = 1.2
"""Up to this many times as many cells are taken as they are."""

EVENLY = 0.4
"""Share of a sketch that is drawn evenly over the nodes; the rest is drawn uniformly."""

SAMPLE = 30_000
"""Cells of which nodes are made, and through which a region is looked at."""


def canonical_order(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of cells ``(n, d)`` that does not depend on the order in which they come."""
    key = np.einsum("ij,j->i", x, rng.normal(size=x.shape[1]))
    return np.argsort(key, kind="stable")[rng.permutation(len(x))]


def draw_sketch(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw a sketch of many cells, rare ones more densely.

    Parameters
    ----------
    x
        Cells in random order, ``(n, d)``.
    rng
        Draws.

    Returns
    -------
    Sorted positions ``(m,)``, and how many cells each one stands for, 1 on average, ``(m,)``;
    all cells and None where there are not many.
    """
    n = len(x)
    if n <= SPARE * WHOLE:
        return np.arange(n), None
    node = nearest(x, find_nodes(x[:SAMPLE]))
    count = np.bincount(node)
    rate = (1 - EVENLY) * WHOLE / n + EVENLY * WHOLE / (count > 0).sum() / np.maximum(count, 1)
    rate = np.minimum(rate, 1)[node]
    kept = np.flatnonzero(rng.random(n) < rate)
    return kept, WHOLE / n / rate[kept]
