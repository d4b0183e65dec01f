"""Where cells lie near each other, for their neighbours."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

N_COMPONENTS = 50
"""Principal components of wide data; up to so many features are taken as they are (scanpy)."""


def places(counts: np.ndarray | None, scaled: np.ndarray, seed: int) -> np.ndarray:
    """Coordinates in which neighbours are sought, ``(n, <= 50)`` float32.

    Parameters
    ----------
    counts
        ``(n, n_input)``; their logarithms at one total for all cells are looked at. None where
        the values are no counts.
    scaled
        The cells as the networks see them, ``(n, n_input)``.
    seed
        Of the approximate decomposition.
    """
    x = scaled
    if counts is not None:
        total = np.maximum(counts.sum(1, keepdims=True), 1)
        x = np.log1p(counts / total * np.median(total))
    if x.shape[1] <= N_COMPONENTS:
        return np.ascontiguousarray(x, dtype=np.float32)
    n = min(N_COMPONENTS, len(x))
    solver = "randomized" if n < min(x.shape) else "full"
    return PCA(n, svd_solver=solver, random_state=seed).fit_transform(x).astype(np.float32)
