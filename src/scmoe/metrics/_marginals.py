"""Differences marker by marker, and pair of markers by pair of markers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def wasserstein(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    r"""Wasserstein distance of each marker, in its units, shape ``(n_markers,)``.

    The area between the two quantile functions, :math:`\int_0^1 |F_x^{-1} - F_y^{-1}|`.
    """
    n, m = len(x), len(y)
    # both quantile functions are constant between neighbouring multiples of 1/n and 1/m
    steps = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(steps, prepend=0) / (n * m)
    of_x = np.sort(x, axis=0)[(steps - 1) // m]
    of_y = np.sort(y, axis=0)[(steps - 1) // n]
    return widths @ np.abs(of_x - of_y)


def correlation_distance(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Root mean square difference of the correlations of all pairs of markers, 0 to 2.

    A marker that is constant on one side correlates with nothing there; markers that are
    constant on both sides are left out. NaN if fewer than two are left.
    """
    varying = (np.ptp(x, axis=0) > 0) | (np.ptp(y, axis=0) > 0)
    if varying.sum() < 2:
        return np.nan
    difference = _correlations(x[:, varying]) - _correlations(y[:, varying])
    return float(np.sqrt(np.mean(difference[np.triu_indices(len(difference), k=1)] ** 2)))


def _correlations(x: NDArray[np.floating]) -> NDArray[np.float64]:
    centred = x - x.mean(axis=0, dtype=np.float64)
    centred[:, np.ptp(x, axis=0) == 0] = 0
    length = np.linalg.norm(centred, axis=0)
    centred /= np.where(length > 0, length, 1)
    return centred.T @ centred
