"""The latent dimension finder of Santos: how many dimensions carry the variance of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA

from scmoe._core.settings import is_number

if TYPE_CHECKING:
    from collections.abc import Iterable

CLUSTERING, RECONSTRUCTION = 0.90, 0.95
"""Shares of the variance that Santos keeps (section III.B)."""

FLAT = 1e-6
"""Standard deviation below which codes say nothing."""

LEARNED = 0.2
"""Variance of codes along one dimension that an autoencoder has if it has learned anything.

The prior has 1. A factor that two markers share with a correlation of 0.3, or twelve with one of
0.03, has more; independent markers gave 0.005 to 0.15, the more the longer the training.
"""


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
    if not is_number(threshold):
        raise ValueError(f"`threshold` must be a number, got {threshold!r}.")
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be above 0 and at most 1, got {threshold}.")


def count_dims(explained: np.ndarray, threshold: float) -> int:
    """The smallest number of components whose shares sum to the threshold."""
    # the last sum may miss 1 by rounding
    reached = np.cumsum(explained) >= threshold - 1e-12
    return int(reached.argmax()) + 1 if reached.any() else len(explained)


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
        raise ValueError("The codes of all cells are the same: they have no dimensions.")
    explained = PCA(svd_solver="full").fit(codes).explained_variance_ratio_
    return LatentDim(count_dims(explained, threshold), explained, float(threshold), len(codes))


def find_group_dims(
    codes: np.ndarray, labels: Iterable[str | None], threshold: float = CLUSTERING
) -> dict[str, LatentDim | None]:
    """:func:`find_latent_dim` of the cells of each group.

    Parameters
    ----------
    codes
        ``(n, d)``, of one autoencoder for all groups.
    labels
        Group of each cell, ``(n,)``; None for none.
    threshold
        As there.

    Returns
    -------
    By group, in the order of their first cells. None for groups that have no dimensions: of a
    single cell, or of cells with the same codes.

    Raises
    ------
    ValueError
        NaN or infinite codes, and a threshold out of range.
    """
    check_threshold(threshold)
    labels = np.asarray(labels, dtype=object)
    found: dict[str, LatentDim | None] = {}
    for name in dict.fromkeys(label for label in labels if label is not None):
        own = codes[labels == name]
        flat = len(own) < 2 or own.std(0).max() < FLAT
        found[name] = None if flat else find_latent_dim(own, threshold)
    return found


def check_learned(codes: np.ndarray) -> None:
    """Raise ValueError for codes of an autoencoder that has learned nothing.

    The dimensions that it does not use vary a little too, and a share of that little says
    nothing: independent noise would seem to have many dimensions.
    """
    variance = np.var(codes, axis=0, dtype=np.float64).max()
    if not variance > LEARNED:
        raise ValueError(
            "The autoencoder has found nothing that markers have in common: the variance of its "
            f"codes is at most {variance:.2g} in any dimension, and more than {LEARNED} where "
            "there is something. Either markers vary independently of each other (principal "
            "components do: give them as `use_rep`), or it was trained too little (raise "
            "`max_epochs`), or its likelihood hides it (a Bernoulli one, where values are no "
            "probabilities)."
        )
