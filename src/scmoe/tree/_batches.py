"""Bring the markers of batches to one place, so that populations lie on each other."""

from __future__ import annotations

import numpy as np


def align(x: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Give every batch the mean and the spread of all cells, marker by marker.

    Right where batches have the same populations in the same shares.

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


def align_groups(x: np.ndarray, batch: np.ndarray, group: np.ndarray, least: int) -> np.ndarray:
    """Move every batch by what its groups differ from those of the others, marker by marker.

    The shift of a batch is the median over groups, weighted by the root of their cells, of the
    difference between the mean of the group in the batch and the mean of these means over all
    batches. The shares of the groups do not enter, as they do in :func:`align`.

    Parameters
    ----------
    x
        Cells, ``(n, d)``.
    batch, group
        Batch and group of each cell, ``(n,)`` integers from 0.
    least
        Cells of a group that a batch must have.
    """
    n_batches, n_groups = int(batch.max()) + 1, int(group.max()) + 1
    both = batch * n_groups + group
    count = np.bincount(both, minlength=n_batches * n_groups).reshape(n_batches, n_groups)
    sums = np.stack([np.bincount(both, column, count.size) for column in x.T], axis=1)
    mean = sums.reshape(n_batches, n_groups, -1) / np.maximum(count, 1)[..., None]
    known = count >= least
    known &= known.sum(0) > 1
    middle = (mean * known[..., None]).sum(0) / np.maximum(known.sum(0), 1)[:, None]
    moved = x.copy()
    for number in range(n_batches):
        weight = np.sqrt(count[number]) * known[number]
        if not weight.any():
            continue
        difference = mean[number] - middle
        order = np.argsort(difference, axis=0, kind="stable")
        share = np.cumsum(weight[order], axis=0) / weight.sum()
        at = order[(share >= 0.5).argmax(0), np.arange(x.shape[1])]
        shift = difference[at, np.arange(x.shape[1])]
        moved[batch == number] -= shift.astype(x.dtype)
    return moved
