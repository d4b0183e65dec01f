"""The latent dimension finder of Santos: how many dimensions carry the variance of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

CLUSTERING, RECONSTRUCTION = 0.90, 0.95
"""Shares of the variance that Santos keeps (section III.B)."""

FLAT = 1e-6
"""Standard deviation below which codes say nothing."""


@dataclass(frozen=True)
class LatentDim:
    """Dimensions that codes need."""

    n_latent: int
    """The smallest number of principal components that reach the threshold."""
    explained: np.ndarray
    """Share of the variance that each principal component explains, ``(d,)`` float64, falling."""
    threshold: float
    """Share that was asked for."""
    n_cells: int

    @property
    def evidence(self) -> dict[str, Any]:
        """The record of the estimate, as plain values that h5ad can hold."""
        return dict(vars(self))


def check_threshold(threshold: float) -> None:
    """Raise ValueError for a share that is not above 0 and at most 1."""
    if isinstance(threshold, bool) or not isinstance(threshold, float | int | np.number):
        raise ValueError(f"`threshold` must be a number, got {threshold!r}.")
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be above 0 and at most 1, got {threshold}.")


def find_latent_dim(codes: np.ndarray, threshold: float = CLUSTERING) -> LatentDim:
    """How many principal components of codes explain a share of their variance.

    The codes must be means of posteriors. Samples add unit variance to every dimension that the
    autoencoder does not use, and nearly all dimensions seem needed.

    Parameters
    ----------
    codes
        ``(n, d)``.
    threshold
        Share of the variance to keep: 0.90 for clustering, 0.95 for reconstruction.

    Raises
    ------
    ValueError
        Fewer than 2 cells, NaN or infinite codes, codes that are all the same, and a threshold
        out of range.
    """
    check_threshold(threshold)
    codes = np.asarray(codes, dtype=np.float64)
    if len(codes) < 2:
        raise ValueError(f"Latent dimensions need at least 2 cells, got {len(codes)}.")
    if not np.isfinite(codes).all():
        raise ValueError("The codes hold NaN or infinite values.")
    if codes.std(0).max() < FLAT:
        raise ValueError(
            "The codes of all cells are the same: the autoencoder has learned nothing from the "
            "data (too few steps, or values without structure). Train longer, or check the scale."
        )
    explained = PCA().fit(codes).explained_variance_ratio_
    # the last sum may miss 1 by rounding
    reached = explained.cumsum() >= threshold - 1e-12
    n_latent = int(reached.argmax()) + 1 if reached.any() else len(explained)
    return LatentDim(n_latent, explained, float(threshold), len(codes))
