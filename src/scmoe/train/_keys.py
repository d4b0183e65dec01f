"""What a batch carries beside the registered fields."""

from __future__ import annotations

from typing import NamedTuple


class _BatchKeys(NamedTuple):
    SIMILARITY: str = "similarity"
    """``(B, B)`` for all pairs, ``(m,)`` for listed pairs."""
    PAIRS: str = "similarity_pairs"
    """Positions of listed pairs, ``(2, m)``."""
    WEIGHT: str = "similarity_weight"
    """Weight of listed pairs, ``(m,)``."""


BATCH_KEYS = _BatchKeys()
