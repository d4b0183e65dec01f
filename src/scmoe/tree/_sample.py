"""Which cells a tree is grown on, in which order, and what becomes of repeated values."""

from __future__ import annotations

import numpy as np

WHOLE = 100_000
"""Cells that a tree is grown on: of more cells ever smaller dips would become significant."""

SAMPLE = 30_000
"""Cells of which nodes are made, and through which a region is looked at."""


def canonical_order(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of cells ``(n, d)`` that does not depend on the order in which they come."""
    key = np.einsum("ij,j->i", x, rng.normal(size=x.shape[1]))
    return np.argsort(key, kind="stable")[rng.permutation(len(x))]
