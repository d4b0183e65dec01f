"""Find the valley of the density along a direction that the numbers of cells support best."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

N_BINS = 128
"""Number of bins of a projection."""

BANDWIDTHS = (0.15, 0.25, 0.4)
"""Bandwidths of the density, as shares of the noise along the direction."""

CONFIDENCE = 1.64
"""Standard errors between a log ratio and its lower confidence bound (one-sided 95 %)."""

VALUES_AT_A_TIME = 4_000_000
"""Number of projected values that are processed together."""

MARGIN = 3.0
"""Distance of the outermost bins from the outermost cells that count, in bandwidths."""


class Valleys(NamedTuple):
    """The best valley along each of m directions."""

    bound: np.ndarray
    """Lower confidence bound of log(lower peak / valley), ``(m,)``; -inf without a valley."""
    threshold: np.ndarray
    """Position of the valley, ``(m,)``."""
    peak: np.ndarray
    """Number of cells under the kernel at the lower of the two peaks, ``(m,)``."""
    valley: np.ndarray
    """Number of cells under the kernel at the valley, ``(m,)``."""

    def at(self, i: int) -> Valleys:
        """Return the valley along one direction, as scalars."""
        return Valleys(*(values[i] for values in self))

    @property
    def significance(self) -> np.ndarray:
        """Difference of the two counts in standard deviations.

        The square root of a count has a standard deviation of one half, whatever the count.
        """
        return np.sqrt(2) * (np.sqrt(self.peak) - np.sqrt(self.valley))

    @property
    def depth(self) -> np.ndarray:
        """Density of the valley as a share of that of the lower peak."""
        return self.valley / self.peak


def find_valleys(
    projected: np.ndarray,
    noise: np.ndarray,
    min_cells: int,
    batch: np.ndarray | None = None,
) -> Valleys:
    """Find the best supported valley along each direction.

    A projection is smoothed by Gaussian kernels of three bandwidths. At each position, the log
    ratio between the lower of the peaks on its two sides and the density there has a lower
    confidence bound; the valley is the position where this bound is highest. Peak and valley are
    counts of cells, so a dip among few cells does not win over a clear gap among many.

    Parameters
    ----------
    projected
        Cells along each direction, ``(m, n)``.
    noise
        Standard deviation of one population along each direction, ``(m,)``.
    least
        Smallest number of cells on either side.
    batch
        Batch of each cell, ``(n,)`` integers from 0. Peaks and valleys are counted within each
        batch and summed, so that differences between batches are no valley. None for one batch.
    """
    rows = max(1, VALUES_AT_A_TIME // max(1, projected.shape[1]))
    parts = [
        _find_valleys(projected[i : i + rows], noise[i : i + rows], min_cells, batch)
        for i in range(0, len(projected), rows)
    ]
    return Valleys(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _find_valleys(
    projected: np.ndarray,
    noise: np.ndarray,
    min_cells: int,
    batch: np.ndarray | None,
) -> Valleys:
    """Find valleys as :func:`find_valleys` does, for so few values that copies fit into memory."""
    m, n = projected.shape
    if n < 2 * min_cells:
        return Valleys(*(np.full(m, value) for value in (-np.inf, 0.0, 1.0, 1.0)))
    edges = np.partition(projected, (min_cells - 1, n - min_cells), axis=1)
    margin = MARGIN * BANDWIDTHS[-1] * noise
    low = np.maximum(projected.min(1), edges[:, min_cells - 1] - margin)
    high = np.minimum(projected.max(1), edges[:, n - min_cells] + margin)
    step = np.maximum((high - low) / (N_BINS - 1), 1e-9)
    bins = ((projected - low[:, None]) / step[:, None] + 0.5).clip(-1, N_BINS).astype(np.int64) + 1
    batch, n_batches = (0, 1) if batch is None else (batch, int(batch.max()) + 1)
    bins += (np.arange(m)[:, None] * n_batches + batch) * (N_BINS + 2)

    shape = (m, n_batches, N_BINS + 2)
    counts = np.bincount(bins.ravel(), minlength=np.prod(shape)).reshape(shape).astype(float)
    below = counts.sum(1).cumsum(1)[:, 1:-1]
    barred = (below < min_cells) | (n - below < min_cells)
    best = np.full((4, m), -np.inf)
    rows, lag = np.arange(m), np.minimum(np.arange(2 * N_BINS), 2 * N_BINS - np.arange(2 * N_BINS))
    spectrum = np.fft.rfft(counts[..., 1:-1], 2 * N_BINS)
    for bandwidth in BANDWIDTHS:
        width = np.maximum(bandwidth * noise / step, 0.7)[:, None, None]
        # the kernel is transformed numerically: with few bins, its exact spectrum would ring
        kernel = np.exp(-0.5 * (lag / width) ** 2)
        kernel = np.fft.rfft(kernel / kernel.sum(-1, keepdims=True)).real
        # number of cells in a flat window with the variance of the kernel
        density = np.fft.irfft(spectrum * kernel, 2 * N_BINS)[..., :N_BINS].clip(0)
        density *= 2 * np.sqrt(np.pi) * width
        peak = np.minimum(
            np.maximum.accumulate(density, -1),
            np.maximum.accumulate(density[..., ::-1], -1)[..., ::-1],
        )
        peak, density = peak.sum(1) + 0.5, density.sum(1) + 0.5
        bound = np.log(peak / density) - CONFIDENCE * np.sqrt(1 / peak + 1 / density)
        bound[barred] = -np.inf
        at = bound.argmax(1)
        found = np.stack([bound[rows, at], low + step * at, peak[rows, at], density[rows, at]])
        best = np.where(found[0] > best[0], found, best)
    return Valleys(*best)
