"""From the scale of the markers to a range from 0 to 1."""

from __future__ import annotations

import numpy as np

QUANTILES = (0.001, 0.999)
"""Quantiles of each marker that become 0 and 1: the extremes are single events."""

COMMON = "common"
"""One range for all features: for components, whose spreads say how much they matter."""

SCALINGS = ("quantile", "minmax", COMMON, "none")


def value_range(x: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of each marker that is scaled to 0 and 1.

    Parameters
    ----------
    x
        Cells x markers.
    scaling
        ``"quantile"``, ``"minmax"``, ``"common"`` or ``"none"``.

    Returns
    -------
    Both of the type of the cells, ``(n_markers,)``.
    """
    if scaling == "none":
        return np.zeros(x.shape[1], x.dtype), np.ones(x.shape[1], x.dtype)
    low, high = x.min(0), x.max(0)
    if scaling in ("quantile", COMMON):
        # of float32 they come as float64, and so would all cells that are scaled by them
        inner = np.quantile(x, QUANTILES, axis=0).astype(x.dtype)
        # a marker that is constant but for a few cells keeps its full range
        spread = inner[0] < inner[1]
        low, high = np.where(spread, inner, [low, high])
    if scaling == COMMON:
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    return low, high


def rescaled(x: np.ndarray, scaling: str) -> np.ndarray:
    """Cells x markers on that range, not clipped to it."""
    low, high = value_range(x, scaling)
    return (x - low) / (high - low)
