"""What a batch carries beside the registered fields."""

from __future__ import annotations

from typing import NamedTuple


class _BatchKeys(NamedTuple):
    SIMILARITY: str = "similarity"
    """``(..., B, B)`` for all pairs, of blocks of the batch if it is ``(m, size, size)``, ``(m,)``
    for listed pairs; NaN where nothing is known."""
    PAIRS: str = "similarity_pairs"
    """Positions of listed pairs, ``(2, m)``."""
    WEIGHT: str = "similarity_weight"
    """Weight of listed pairs, ``(m,)``."""
    CLASSES: str = "classes"
    """Share of each class, ``(B, C)``; rows of NaN where nothing is known."""
    CLASS_SHARE: str = "class_share"
    """What the class term counts beside the pair term, a scalar in [0, 1]."""
    FREQUENCY: str = "frequency"
    """How many cells each one stands for where small groups are drawn more often, ``(B,)``."""
    GROUPS: str = "groups"
    """Share of each group that the model has started from, ``(B, n_groups)``."""
    ARMS: str = "arms"
    """A changed copy of the scaled cells for each arm, ``(A, B, n_input)``."""
    TAUGHT: str = "taught"
    """The category that each arm is taught of a cell, ``(B, A)`` int64; -1 for none."""


BATCH_KEYS = _BatchKeys()
