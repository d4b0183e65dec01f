"""Batches for similarities that know some of the cells only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


def draw_known(
    known: np.ndarray, cells: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray] | None:
    """Batches of which half are known cells, where chance would give fewer.

    Parameters
    ----------
    known
        Whether each cell of the data is known, ``(n_obs,)`` bool.
    cells
        Indices of the cells that train.
    batch_size
        Cells of a batch.
    rng
        Draws the cells, without replacement within a batch.

    Returns
    -------
    Positions in ``cells``, batch by batch; with fewer known cells than half a batch each batch
    has them all. None where at least half of ``cells`` are known, or none is.
    """
    is_known = known[cells]
    n_known = np.count_nonzero(is_known)
    if n_known == 0 or 2 * n_known >= len(cells):
        return None
    return _half_known(np.flatnonzero(is_known), np.flatnonzero(~is_known), batch_size, rng)


def _half_known(
    known: np.ndarray, unknown: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    n = len(known) + len(unknown)
    batch_size = min(batch_size, n)
    n_known = min(-(-batch_size // 2), len(known))
    for _ in range(-(-n // batch_size)):
        yield np.concatenate(
            [
                rng.choice(known, n_known, replace=False),
                rng.choice(unknown, batch_size - n_known, replace=False),
            ]
        )
