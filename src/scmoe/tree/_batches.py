"""Valleys between populations, not between batches."""

from __future__ import annotations

import numpy as np

from scmoe.tree._valleys import find_valleys

ENOUGH = 10
"""A batch has a say in a region with this many times the least cells of a side."""


def align(x: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Give every batch the mean and the spread of all cells, marker by marker.

    Parameters
    ----------
    x
        Cells, ``(n, d)``.
    batch
        Batch of each cell, ``(n,)``.
    """
    aligned = np.empty_like(x)
    mean, spread = x.mean(0), x.std(0)
    for name in np.unique(batch):
        own = batch == name
        # a marker that is constant in a batch stays so
        scale = np.where((own_spread := x[own].std(0)) > 0, own_spread, 1)
        aligned[own] = (x[own] - x[own].mean(0)) / scale * spread + mean
    return aligned


def in_most_batches(
    projected: np.ndarray, high: np.ndarray, batch: np.ndarray, noise: float, least: int
) -> bool:
    """Whether batches see a valley themselves: one that lies between them is none in any.

    A batch with (nearly) all of its cells on one side says nothing: a population may be missing
    there. Of the others at least half must have a valley of their own; where no batch has
    cells enough, the valley stands.

    Parameters
    ----------
    projected
        Cells of the region along the direction, ``(n,)``.
    high
        Which of them are on the high side.
    batch
        Batch of each cell, ``(n,)`` integers.
    noise
        Spread of one population along the direction.
    least
        Cells on either side of a valley.
    """
    votes, asked = [], 0
    for name in np.unique(batch):
        own = batch == name
        if own.sum() < ENOUGH * least:
            continue
        asked += 1
        if least <= high[own].sum() <= own.sum() - least:
            found = find_valleys(projected[None, own], np.array([noise]), least)
            votes.append(found.bound[0] > 0)
    return asked == 0 or (bool(votes) and 2 * sum(votes) >= len(votes))
