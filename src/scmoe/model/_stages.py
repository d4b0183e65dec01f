"""How long the stages of a coupled training are."""

from __future__ import annotations

import math
from typing import NamedTuple

N_STEPS = 3000
"""Optimiser steps of a default training ..."""

PRUNE_STEPS = 300
"""... and after every category that is pruned."""

MAX_EPOCHS = 500
"""A default training sees every cell at most so often."""

START_STEPS = 500
"""Before, in which groups are learned; no more epochs than afterwards."""


class Stages(NamedTuple):
    """Epochs of each stage."""

    start: int
    """In which groups are learned."""
    main: int
    prune: int
    """After each round of pruning."""


def stage_epochs(n_batches: int, main: int | None, start: int | None, prune: int | None) -> Stages:
    """Epochs of so many batches; None for as many as make the default number of steps."""
    if main is None:
        main = min(math.ceil(N_STEPS / n_batches), MAX_EPOCHS)
    if start is None:
        start = min(math.ceil(START_STEPS / n_batches), main)
    if prune is None:
        most = MAX_EPOCHS * PRUNE_STEPS // N_STEPS
        prune = min(math.ceil(PRUNE_STEPS / n_batches), most)
    return Stages(start, main, prune)
