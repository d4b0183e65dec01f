"""Which settings of Santos' mixture make sense."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._numbers import is_number, is_whole
from scmoe._scaling import SCALINGS
from scmoe.model._auto import AUTO, check_number
from scmoe.model._moevae_module import BALANCES, LOSSES

if TYPE_CHECKING:
    from collections.abc import Sequence

CHOICES = {
    "network": ("dense", "conv"),
    "activation": ("elu", "relu"),
    "likelihood": ("bernoulli", "gaussian"),
    "scaling": SCALINGS,
    "kl": ("elbo", "normalized"),
    "loss": LOSSES,
    "balance": BALANCES,
}


WEIGHTS = ("sample_weight", "batch_weight")
"""Settings that need not be whole numbers."""


def check_mixture_settings(given: dict[str, Any]) -> None:
    """Raise ValueError for words that are not among the choices, and numbers out of range."""
    for name, choices in CHOICES.items():
        if given[name] not in choices:
            raise ValueError(f"`{name}` must be one of {choices}, got {given[name]!r}.")
    check_number("n_experts", given["n_experts"], 2)
    least = {
        "n_hidden": 1,
        "n_layers": 0,
        "width": 1,
        "n_routed": 1,
        "min_cells": 0,
        "sample_weight": 0,
        "batch_weight": 0,
    }
    for name, smallest in least.items():
        value, is_weight = given[name], name in WEIGHTS
        if value is None and name in ("width", "n_routed", "min_cells"):
            continue
        fits = is_number(value) if is_weight else is_whole(value)
        if not fits or not smallest <= value < math.inf:
            what = "a number" if is_weight else "a whole number"
            raise ValueError(f"`{name}` must be {what} of at least {smallest}, got {value!r}.")


def latent_sizes(n_latent: int | Sequence[int] | str, n_experts: int | str) -> list[int] | None:
    """Latent sizes as a list of one or K; None for those that are estimated."""
    if isinstance(n_latent, str):
        if n_latent != AUTO:
            raise ValueError(f'`n_latent` must be "auto" or whole numbers, got {n_latent!r}.')
        return None
    sizes = list(np.ravel(n_latent).tolist())
    if any(not isinstance(size, int) or size < 1 for size in sizes) or not sizes:
        raise ValueError(f'`n_latent` must be "auto" or whole numbers from 1, got {n_latent!r}.')
    if np.ndim(n_latent) and (n_experts == AUTO or len(sizes) != n_experts):
        raise ValueError(
            f"`n_latent` names {len(sizes)} latent sizes for {n_experts} experts; give one for "
            "each, or one number for all."
        )
    return sizes
