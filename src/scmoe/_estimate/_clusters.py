"""What an estimate of the number of clusters says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._core.settings import check_whole

if TYPE_CHECKING:
    import pandas as pd

MIN_CELLS = 10
"""Of fewer cells no number of clusters can be estimated."""


@dataclass(frozen=True, eq=False)
class Found:
    """Clusters that were found without being told their number.

    Parameters
    ----------
    method
        How they were found, one of ``METHODS``.
    labels
        Cluster of each cell, ``(n,)`` int64: 0 is the largest, -1 are cells of none.
    proba
        Membership of each cell, ``(n, n_clusters)`` float32; rows sum to 1 where there is a
        cluster.
    table
        The evidence: what other settings would have given. ``chosen`` marks the one that was
        taken.
    settings
        The settings that were taken, numbers by name.
    embedding
        The map that the clusters were found in, ``(n, n_components)`` float32; None for none.
    """

    method: str
    labels: np.ndarray
    proba: np.ndarray
    table: pd.DataFrame
    settings: dict[str, float]
    embedding: np.ndarray | None = None

    @property
    def n_clusters(self) -> int:
        """How many clusters there are; 0 and 1 are possible answers."""
        return self.proba.shape[1]

    @property
    def noise(self) -> float:
        """Share of the cells that belong to no cluster."""
        return float(np.mean(self.labels < 0))

    @property
    def evidence(self) -> dict[str, Any]:
        """The record of the estimate, as plain values that h5ad can hold."""
        return {
            "method": self.method,
            "n_clusters": self.n_clusters,
            "noise": self.noise,
            "table": self.table,
            "settings": dict(self.settings),
        }


def by_size(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number clusters anew so that 0 is the largest.

    Parameters
    ----------
    labels
        ``(n,)`` integers; what is negative stays -1.

    Returns
    -------
    The new labels, int64, and the old number of each new one.
    """
    old, first, count = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    # of two equally large ones, that which comes first among the cells
    order = np.lexsort((first, -count))
    new = np.full(max(labels.max(initial=-1), 0) + 2, -1, dtype=np.int64)
    new[old[order]] = np.arange(len(old))
    return new[np.maximum(labels, -1)], old[order]


def check_cells(n_cells: int) -> None:
    """Raise ValueError for too few cells."""
    if n_cells < MIN_CELLS:
        raise ValueError(
            f"The number of clusters can't be estimated from {n_cells} cells; it takes at least "
            f"{MIN_CELLS}. Say the number instead."
        )


def check_codes(codes: Any) -> np.ndarray:
    """Codes as ``(n, d)`` float32; ValueError where they say nothing about clusters."""
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
    """Raise ValueError for what is no number of cells, or of clusters of them."""
    check_whole(name, value, least)
    if value > n_cells:
        raise ValueError(f"`{name}` is {value}, but there are only {n_cells} cells.")
