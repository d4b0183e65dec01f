"""One look at all cells, and the random sketch of them that is learned from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from scmoe.tl._manifest import DataHash, block_hash

if TYPE_CHECKING:
    import pandas as pd

    from scmoe._core.rows import Rows

SKETCH = 100_000
"""Cells that are learned from, at most; of a population of 0.05 % there are about 50 in them."""

OF_BATCH = 100
"""Cells of each batch that are learned from, where it has so many."""


@dataclass(frozen=True)
class Survey:
    """What one look at all cells tells.

    Parameters
    ----------
    data
        SHA-256 of the values, see :func:`scmoe.tl._manifest.data_hash`.
    limits
        Least and largest value of each marker, ``(2, n_markers)`` float32.
    key
        A number of each cell by which a sketch does not depend on their order, ``(n,)``.
    """

    data: str
    limits: np.ndarray
    key: np.ndarray


def survey(rows: Rows, names: pd.Index, seed: int) -> Survey:
    """Look at all cells once, block by block; ``seed`` is that of the sketch."""
    weights = np.random.default_rng(seed).normal(size=len(names))
    digest = DataHash(rows.shape, names)
    low, high = np.full((2, len(names)), [[np.inf], [-np.inf]], dtype=np.float32)
    key = np.empty(len(rows))
    for place, (of_block, least, largest, keys) in rows.map(partial(_survey_block, weights)):
        digest.add(of_block)
        low, high = np.minimum(low, least), np.maximum(high, largest)
        key[place] = keys
    return Survey(digest.hex(), np.stack([low, high]), key)


def _survey_block(
    weights: np.ndarray, block: np.ndarray
) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
    """Hash, least and largest values, and keys of a block."""
    key = np.einsum("ij,j->i", block, weights)
    return block_hash(block), block.min(0), block.max(0), key


def draw_sketch(key: np.ndarray, seed: int, batch: np.ndarray | None = None) -> np.ndarray:
    """Positions of the cells of a sketch, sorted: the same cells in whatever order they come.

    Parameters
    ----------
    key
        Of :func:`survey`.
    seed
        Of what is drawn.
    batch
        Batch of each cell, ``(n,)`` integers from 0: a sketch has cells of all of them.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(key, kind="stable")
    drawn = np.zeros(len(key), dtype=bool)
    drawn[order[rng.choice(len(key), SKETCH, replace=False)]] = True
    if batch is not None:
        size = np.bincount(batch)
        least, has = np.minimum(size, OF_BATCH), np.bincount(batch[drawn], minlength=len(size))
        for number in np.flatnonzero(has < least):
            own = order[batch[order] == number]
            drawn[rng.choice(own, least[number], replace=False)] = True
    return np.flatnonzero(drawn)
