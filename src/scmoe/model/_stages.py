"""How long the stages of a coupled training are."""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_EPOCHS = 500
"""A default training sees every cell at most so often."""


class Recipe(NamedTuple):
    """Optimiser steps of each stage of a default training, cells of a batch, learning rate."""

    start: int
    main: int
    prune: int
    batch_size: int
    lr: float


FROM_GRAPH = Recipe(500, 3000, 300, 500, 1e-3)
"""Where arms start from communities of the neighbour graph."""

FROM_TREE = Recipe(300, 600, 150, 1000, 2e-3)
"""Where they start from leaves of a density tree, which longer trainings lose again."""


class Stages(NamedTuple):
    """Epochs of each stage."""

    start: int
    """In which groups are learned."""
    main: int
    prune: int
    """After each round of pruning."""


def stage_epochs(
    n_batches: int, main: int | None, start: int | None, prune: int | None, recipe: Recipe
) -> Stages:
    """Return the epochs of each stage; None uses the number of optimiser steps of the recipe."""
    if main is None:
        main = min(math.ceil(recipe.main / n_batches), MAX_EPOCHS)
    if start is None:
        start = min(math.ceil(recipe.start / n_batches), main)
    if prune is None:
        most = MAX_EPOCHS * recipe.prune // recipe.main
        prune = min(math.ceil(recipe.prune / n_batches), most)
    return Stages(start, main, prune)
