"""Numbers as the bytes of events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LITTLE = (1, 2, 3, 4)
"""Least significant byte first, as ``$BYTEORD`` says it."""


def as_bytes(values: np.ndarray, kind: str, size: int, order: Sequence[int]) -> np.ndarray:
    """Return the bytes of numbers, one row of `size` each, uint8.

    Parameters
    ----------
    values
        Of any shape; the last axis runs fastest.
    kind
        ``I`` (unsigned integers), ``F`` or ``D``.
    size
        Bytes of each.
    order
        Significance of the bytes from the first on, 1 for the least, as ``$BYTEORD`` has it.
        One that is shorter or longer than `size` must run one way.
    """
    dtype = np.dtype(f"<{'u' if kind == 'I' else 'f'}{size}")
    little = np.ascontiguousarray(values, dtype=dtype).view(np.uint8).reshape(-1, size)
    if list(order) == list(range(1, len(order) + 1)):
        return little
    if list(order) == list(range(len(order), 0, -1)):
        return little[:, ::-1]
    return little[:, [significance - 1 for significance in order]]
