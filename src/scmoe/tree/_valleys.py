"""Where the density along a direction has a valley that the numbers of cells support."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

N_BINS = 128
"""Bins of a projection."""

BANDWIDTHS = (0.15, 0.25, 0.4)
"""Bandwidths of the density, as shares of the noise along the direction."""

CONFIDENCE = 1.64
"""Standard errors between a log ratio and its lower bound: one-sided 95 %."""

MOST_VALUES = 4_000_000
"""Values that are looked at at a time."""

MARGIN = 3.0
"""Bandwidths that the bins reach beyond the outermost cells that count."""


class Valleys(NamedTuple):
    """The best valley along each of m directions."""

    bound: np.ndarray
    """Lower confidence bound of log(lower peak / valley), ``(m,)``; -inf where there is none."""
    threshold: np.ndarray
    """Where the valley is, ``(m,)``."""
    peak: np.ndarray
    """Cells under the kernel at the lower of the two peaks, ``(m,)``."""
    valley: np.ndarray
    """Cells under the kernel at the valley, ``(m,)``."""

    def at(self, i: int) -> Valleys:
        """The valley along one of the directions, as scalars."""
        return Valleys(*(values[i] for values in self))

    @property
    def significance(self) -> np.ndarray:
        """Standard deviations between the two counts, after the root that makes them equal."""
        return np.sqrt(2) * (np.sqrt(self.peak) - np.sqrt(self.valley))

    @property
    def depth(self) -> np.ndarray:
        """Density of the valley as a share of the lower peak."""
        return self.valley / self.peak


def find_valleys(
    projected: np.ndarray,
    noise: np.ndarray,
    least: int,
    batch: np.ndarray | None = None,
) -> Valleys:
    """Find the best supported valley along each direction.

    A projection is smoothed by Gaussian kernels of three bandwidths. The valley is the place
    with the highest lower confidence bound of the log ratio between the lower one of the peaks
    on its two sides and itself; both are counts of cells, so that a dip among few cells does
    not win over a clear gap among many.

    Parameters
    ----------
    projected
        Cells along each direction, ``(m, n)``.
    noise
        Spread of one population along each direction, ``(m,)``.
    least
        Cells that there must be on either side.
    batch
        Batch of each cell, ``(n,)`` integers from 0. Peaks and valleys are counted within each
        batch and summed, so that what only sets batches apart is no valley. None for one batch.
    """
    rows = max(1, MOST_VALUES // max(1, projected.shape[1]))
    parts = [
        _find_valleys(projected[i : i + rows], noise[i : i + rows], least, batch)
        for i in range(0, len(projected), rows)
    ]
    return Valleys(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _find_valleys(
    projected: np.ndarray,
    noise: np.ndarray,
    least: int,
    batch: np.ndarray | None,
) -> Valleys:
    """:func:`find_valleys` of so few values that their copies fit into memory."""
    m, n = projected.shape
    if n < 2 * least:
        return Valleys(*(np.full(m, value) for value in (-np.inf, 0.0, 1.0, 1.0)))
    edges = np.partition(projected, (least - 1, n - least), axis=1)
    margin = MARGIN * BANDWIDTHS[-1] * noise
    low = np.maximum(projected.min(1), edges[:, least - 1] - margin)
    high = np.minimum(projected.max(1), edges[:, n - least] + margin)
    step = np.maximum((high - low) / (N_BINS - 1), 1e-9)
    bins = ((projected - low[:, None]) / step[:, None] + 0.5).clip(-1, N_BINS).astype(np.int64) + 1
    batch, n_batches = (0, 1) if batch is None else (batch, int(batch.max()) + 1)
    bins += (np.arange(m)[:, None] * n_batches + batch) * (N_BINS + 2)

    shape = (m, n_batches, N_BINS + 2)
    counts = np.bincount(bins.ravel(), minlength=np.prod(shape)).reshape(shape).astype(float)
    below = counts.sum(1).cumsum(1)[:, 1:-1]
    barred = (below < least) | (n - below < least)
    best = np.full((4, m), -np.inf)
    rows, lag = np.arange(m), np.minimum(np.arange(2 * N_BINS), 2 * N_BINS - np.arange(2 * N_BINS))
    spectrum = np.fft.rfft(counts[..., 1:-1], 2 * N_BINS)
    for bandwidth in BANDWIDTHS:
        width = np.maximum(bandwidth * noise / step, 0.7)[:, None, None]
        # of a kernel of few bins a spectrum cut off at the highest frequency would ring
        kernel = np.exp(-0.5 * (lag / width) ** 2)
        kernel = np.fft.rfft(kernel / kernel.sum(-1, keepdims=True)).real
        # cells that a flat window with the variance of the kernel would hold
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
