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

SAMPLE = 20_000
"""Cells of which nodes are made, and through which a region is looked at."""

DISTINCT = 0.98
"""Share of distinct values from which a marker counts as continuous."""

N_LOOKED_AT = 2_000
"""Cells by which a marker is called continuous."""


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


def dithered(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cells ``(n, d)`` whose repeated values are spread: steps between them are no valleys.

    A repeated value is spread half-way to the values beside it, and at most by twice the smaller
    gap, so that a wide gap stays one.
    """
    x = x.copy()
    for column in x.T:
        some = column[:N_LOOKED_AT]
        if len(np.unique(some)) > DISTINCT * len(some):
            continue
        value, at, count = np.unique(column, return_inverse=True, return_counts=True)
        if len(value) < 2:
            continue
        gap = np.diff(value)
        below, above = np.concatenate([gap[:1], gap]), np.concatenate([gap, gap[-1:]])
        most = np.where(count > 1, 2 * np.minimum(below, above), 0)
        below, above = np.minimum(below, most)[at], np.minimum(above, most)[at]
        column += rng.random(len(at), dtype=np.float32) * (below + above) / 2 - below / 2
    return x
