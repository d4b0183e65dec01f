"""Which cells train a model, and which validate it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scmoe.similarity import Target

ROUNDING = 1e-9
"""Shares such as 0.9 and 0.1 are not 1 to the last bit."""


def check_shares(train_size: float, validation_size: float | None) -> None:
    """Raise ValueError for shares out of range, or above 1 together."""
    if isinstance(train_size, str) or not 0 < train_size <= 1:
        raise ValueError(f"`train_size` must be above 0 and at most 1, got {train_size!r}.")
    if validation_size is not None and not 0 <= validation_size <= 1 - train_size + ROUNDING:
        raise ValueError(
            "`validation_size` must be 0 or more, and at most 1 together with `train_size`; got "
            f"{validation_size} with {train_size}."
        )


def split_cells(
    target: Target,
    n_obs: int,
    train_size: float,
    validation_size: float | None,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Indices of the cells that train, that validate, and of all others.

    Shares are of the cells that the similarity can teach. The first two are drawn where not all
    cells train.
    """
    taught = np.arange(n_obs) if target.cells is None else target.cells
    return split_indices(taught, n_obs, train_size, validation_size, rng)


def split_indices(
    taught: np.ndarray,
    n_obs: int,
    train_size: float,
    validation_size: float | None,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """:func:`split_cells` of the cells that are named.

    scvi-tools would draw them by ``scvi.settings.seed``, and without one anew every time.
    """
    taught = rng.permutation(taught) if train_size < 1 else taught
    n_train = math.ceil(train_size * len(taught))
    n_seen = len(taught)
    if validation_size is not None:
        n_seen = min(n_train + math.floor(validation_size * n_seen), n_seen)
    others = np.setdiff1d(np.arange(n_obs), taught[:n_seen])
    return [taught[:n_train], taught[n_train:n_seen], others]
