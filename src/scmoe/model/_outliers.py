"""How far a cell is from everything that a model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

N_LANDMARKS = 3000
"""Training cells that are kept at most ..."""

BUDGET = 500_000
"""... and values of them at most, ..."""

LEAST_LANDMARKS = 500
"""... but so many cells, however many values each has."""

N_NEIGHBORS = 5
"""The distance to this neighbour counts: one odd landmark makes nothing familiar."""

FEW = 50
"""Cells of a cluster with fewer landmarks, or with half as many as clusters have on average, are
compared with those of all clusters: its own are all of its cells, and far apart."""

N_LEVELS = 2001
"""Quantiles of the distances, and of each marker, that are kept."""

N_MARKER_LEVELS = 65

AT_ONCE = 1024
"""Cells of a cluster whose distances are computed at a time: they stay in the cache."""

SAME = 1e-6
"""A landmark so near is the cell itself; scaled markers range over about 1."""

LANDMARKS, OWNER = "outliers.landmarks", "outliers.owner"
"""Tensors of a module; models that were saved by version 0.1.0 lack the second."""

OF_LANDMARKS = (LANDMARKS, OWNER, "outliers.n_landmarks", "outliers.distances")
"""Tensors of a module that hold training cells, or say something only beside them."""


class Outliers(nn.Module):
    """Landmarks among the training cells, and how far from them training cells are.

    A cell is as much of an outlier as the share of training cells that are nearer to their
    fifth nearest landmark, among those of their clusters and in the space of the scaled markers
    (conformal prediction with the score of a nearest-neighbour detector: Ramaswamy et al. 2000,
    Laxhammar & Falkman 2010). So a known share of cells like the training cells lies above any
    threshold.

    Parameters
    ----------
    n_markers
        Markers of a cell.
    """

    def __init__(self, n_markers: int):
        super().__init__()
        size = min(N_LANDMARKS, max(BUDGET // n_markers, LEAST_LANDMARKS))
        # as many rows as the markers allow, so that any state fits; the first of them are used
        self.register_buffer("landmarks", torch.zeros(size, n_markers))
        # the cluster of each landmark
        self.register_buffer("owner", torch.zeros(size, dtype=torch.long))
        self.register_buffer("n_landmarks", torch.zeros((), dtype=torch.long))
        self.register_buffer("distances", torch.zeros(N_LEVELS))
        self.register_buffer("markers", torch.zeros(N_MARKER_LEVELS, n_markers))

    @property
    def available(self) -> bool:
        """Whether there are landmarks, without which there is no score."""
        return bool(self.n_landmarks > 0)

    def check_available(self) -> None:
        """Raise ValueError where there are none."""
        if not self.available:
            raise ValueError(
                "The model was saved with `landmarks=False`, without training cells to compare "
                "with: it has no outlier scores."
            )

    def fit(self, scaled: np.ndarray, expert: np.ndarray) -> None:
        """Choose landmarks and learn the distances of the training cells.

        Clusters give landmarks in proportion to the root of their size, so that cells of rare
        ones are not strangers.

        Parameters
        ----------
        scaled
            Scaled markers of the training cells, not clipped, ``(n, n_markers)``.
        expert
            Their clusters, ``(n,)``.
        """
        rng = np.random.default_rng(0)
        weight = np.bincount(expert)[expert] ** -0.5
        n = min(len(self.landmarks), len(scaled))
        chosen = np.sort(rng.choice(len(scaled), n, replace=False, p=weight / weight.sum()))
        self.n_landmarks.fill_(n)
        for buffer, values in ((self.landmarks, scaled), (self.owner, expert)):
            buffer.zero_()
            buffer[:n] = torch.from_numpy(values[chosen]).to(buffer)
        distances = np.quantile(self.distance(scaled, expert), np.linspace(0, 1, N_LEVELS))
        self.distances.copy_(torch.from_numpy(distances))
        levels = np.linspace(0, 1, N_MARKER_LEVELS)
        self.markers.copy_(torch.from_numpy(np.quantile(scaled, levels, axis=0)))

    def distance(self, scaled: np.ndarray, expert: np.ndarray) -> np.ndarray:
        """Distance to the fifth nearest landmark, ``(n,)``, not counting the cell itself.

        Landmarks are those of the cluster of a cell, ``(n,)``, unless it has too few.
        """
        n = int(self.n_landmarks)
        landmarks, owner = (t[:n].numpy(force=True) for t in (self.landmarks, self.owner))
        least = max(min(FEW, n // (2 * len(np.unique(owner)))), N_NEIGHBORS + 1)
        found = np.empty(len(scaled), dtype=np.float32)
        for k in np.unique(expert):
            cells, own = np.flatnonzero(expert == k), owner == k
            near = landmarks[own] if own.sum() >= least else landmarks
            for start in range(0, len(cells), AT_ONCE):
                some = cells[start : start + AT_ONCE]
                found[some] = _fifth_nearest(scaled[some], near)
        return found

    def score(self, scaled: np.ndarray, expert: np.ndarray) -> np.ndarray:
        """Share of the training cells that are nearer to the landmarks, ``(n,)`` float32.

        Raises ValueError where the model was saved without them.
        """
        self.check_available()
        known, distance = self.distances.numpy(force=True), self.distance(scaled, expert)
        # ties count half: a distance that many cells have is not the largest of them
        below = np.searchsorted(known, distance, side="left")
        upto = np.searchsorted(known, distance, side="right")
        return ((below + upto) / (2 * N_LEVELS)).astype(np.float32)


def _fifth_nearest(cells: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Distance of each cell to its fifth nearest landmark that is not the cell itself."""
    k = min(N_NEIGHBORS, len(landmarks) - 1)
    # in float64, as small distances are differences of large squares
    cells, landmarks = cells.astype(float), landmarks.astype(float)
    # the square of the cell is the same for all landmarks
    square = cells @ (-2 * landmarks.T)
    square += np.square(landmarks).sum(1)
    nearest = np.sort(np.partition(square, k, axis=1)[:, : k + 1], axis=1)
    nearest = np.sqrt(np.maximum(nearest + np.square(cells).sum(1)[:, None], 0))
    return np.where(nearest[:, 0] <= SAME, nearest[:, k], nearest[:, k - 1])


def without_landmarks(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a module without the training cells among them."""
    return {
        name: torch.zeros_like(tensor) if name in OF_LANDMARKS else tensor
        for name, tensor in tensors.items()
    }


def with_owner(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a module, in which landmarks of a saved one may lack their clusters.

    They are those of one cluster then: every cell is compared with all of them, as it was.
    """
    landmarks = tensors.get(LANDMARKS)
    if OWNER in tensors or landmarks is None:
        return tensors
    return {**tensors, OWNER: torch.zeros(landmarks.shape[:1], dtype=torch.long)}
