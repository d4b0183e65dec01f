"""Clusters whose number was estimated, and checks of the cells that they are estimated from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._core.settings import check_whole

if TYPE_CHECKING:
    import pandas as pd

MIN_CELLS = 10
"""Least number of cells from which a number of clusters is estimated."""


@dataclass(frozen=True, eq=False)
class Found:
    """Clusters found by an estimate of their number.

    Parameters
    ----------
    method
        Method of the estimate, one of ``METHODS``.
    labels
        Cluster of each cell, ``(n,)`` int64: 0 is the largest, -1 is noise.
    proba
        Membership of each cell, ``(n, n_clusters)`` float32; rows sum to 1 if there is a cluster.
    table
        The evidence: the results of other settings. ``chosen`` marks the setting that was used.
    settings
        The settings that were used, by name.
    embedding
        The embedding in which the clusters were found, ``(n, n_components)`` float32, or None.
    """

    method: str
    labels: np.ndarray
    proba: np.ndarray
    table: pd.DataFrame
    settings: dict[str, float]
    embedding: np.ndarray | None = None

    @property
    def n_clusters(self) -> int:
        """Number of clusters; 0 and 1 are possible."""
        return self.proba.shape[1]

    @property
    def noise(self) -> float:
        """Share of the cells that belong to no cluster."""
        return float(np.mean(self.labels < 0))

    @property
    def evidence(self) -> dict[str, Any]:
        """Record of the estimate, as plain values that h5ad can hold."""
        return {
            "method": self.method,
            "n_clusters": self.n_clusters,
            "noise": self.noise,
            "table": self.table,
            "settings": dict(self.settings),
        }


def by_size(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber clusters by size, so that 0 is the largest.

    Parameters
    ----------
    labels
        ``(n,)`` integers; negative labels become -1.

    Returns
    -------
    The new labels, int64, and the old number of each new one.
    """
    old, first, count = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    # of clusters of equal size, the one with the first cell comes first
    order = np.lexsort((first, -count))
    new = np.full(max(labels.max(initial=-1), 0) + 2, -1, dtype=np.int64)
    new[old[order]] = np.arange(len(old))
    return new[np.maximum(labels, -1)], old[order]


def check_cells(n_cells: int) -> None:
    """Raise ValueError for fewer than ``MIN_CELLS`` cells."""
    if n_cells < MIN_CELLS:
        raise ValueError(
            f"The number of clusters can't be estimated from {n_cells} cells; it takes at least "
            f"{MIN_CELLS}. Give the number instead."
        )


def check_codes(codes: Any) -> np.ndarray:
    """Return codes as ``(n, d)`` float32; ValueError where they cannot be clustered."""
    codes = np.asarray(codes, dtype=np.float32)
    if codes.ndim != 2:
        raise ValueError(f"`codes` must be cells x features, got an array of {codes.shape}.")
    check_cells(len(codes))
    if not np.isfinite(codes).all():
        raise ValueError("`codes` holds NaN or infinite values; remove those cells or features.")
    if codes.shape[1] == 0 or not np.ptp(codes, axis=0).any():
        raise ValueError("`codes` is the same for all cells: there is nothing to cluster.")
    largest = float(np.abs(codes).max())
    if 4 * codes.shape[1] * largest**2 > float(np.finfo(np.float32).max):
        raise ValueError(
            f"Values up to {largest:.3g} are too large for distances between cells; transform or "
            "scale them first."
        )
    return codes


def check_size(name: str, value: Any, least: int, n_cells: int) -> None:
    """Raise ValueError unless a value is a whole number from ``least`` to ``n_cells``."""
    check_whole(name, value, least)
    if value > n_cells:
        raise ValueError(f"`{name}` is {value}, but there are only {n_cells} cells.")
