"""How far a cell is from everything that a model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
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

N_LEVELS = 2001
"""Quantiles of the distances, and of each marker, that are kept."""

N_MARKER_LEVELS = 65

SAME = 1e-6
"""A landmark so near is the cell itself; scaled markers range over about 1."""


OF_LANDMARKS = ("outliers.landmarks", "outliers.n_landmarks", "outliers.distances")
"""Tensors of a module that hold training cells, or say something only beside them."""


class Outliers(nn.Module):
    """Landmarks among the training cells, and how far from them training cells are.

    A cell is as much of an outlier as the share of training cells that are nearer to their
    fifth nearest landmark, in the space of the scaled markers (conformal prediction with the
    score of a nearest-neighbour detector: Ramaswamy et al. 2000, Laxhammar & Falkman 2010).
    So a known share of cells like the training cells lies above any threshold.

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
        self.register_buffer("n_landmarks", torch.zeros((), dtype=torch.long))
        self.register_buffer("distances", torch.zeros(N_LEVELS))
        self.register_buffer("markers", torch.zeros(N_MARKER_LEVELS, n_markers))

    @property
    def available(self) -> bool:
        """Whether there are landmarks, without which there is no score."""
        return bool(self.n_landmarks > 0)

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
        self.landmarks.zero_()
        self.n_landmarks.fill_(n)
        self.landmarks[:n] = torch.from_numpy(scaled[chosen]).to(self.landmarks)
        distances = np.quantile(self.distance(scaled), np.linspace(0, 1, N_LEVELS))
        self.distances.copy_(torch.from_numpy(distances))
        levels = np.linspace(0, 1, N_MARKER_LEVELS)
        self.markers.copy_(torch.from_numpy(np.quantile(scaled, levels, axis=0)))

    def distance(self, scaled: np.ndarray) -> np.ndarray:
        """Distance to the fifth nearest landmark, ``(n,)``, not counting the cell itself."""
        landmarks = self.landmarks[: self.n_landmarks].numpy(force=True)
        k = min(N_NEIGHBORS, len(landmarks) - 1)
        search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute", n_jobs=1).fit(landmarks)
        distances, _ = search.kneighbors(scaled)
        itself = distances[:, 0] <= SAME
        return np.where(itself, distances[:, k], distances[:, k - 1])

    def score(self, scaled: np.ndarray) -> np.ndarray:
        """Share of the training cells that are nearer to the landmarks, ``(n,)`` float32.

        Raises ValueError where the model was saved without them.
        """
        if not self.available:
            raise ValueError(
                "The model was saved with `landmarks=False`, without training cells to compare "
                "with: it has no outlier scores."
            )
        known, distance = self.distances.numpy(force=True), self.distance(scaled)
        # ties count half: a distance that many cells have is not the largest of them
        below = np.searchsorted(known, distance, side="left")
        upto = np.searchsorted(known, distance, side="right")
        return ((below + upto) / (2 * N_LEVELS)).astype(np.float32)


def without_landmarks(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a module without the training cells among them."""
    return {
        name: torch.zeros_like(tensor) if name in OF_LANDMARKS else tensor
        for name, tensor in tensors.items()
    }
