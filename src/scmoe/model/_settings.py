"""Which settings of MoE-Sim-VAE make sense."""

from __future__ import annotations

from typing import Any

from scmoe._scaling import SCALINGS
from scmoe.model._module import LEARNED

CHOICES = {
    "network": ("dense", "conv"),
    "activation": ("elu", "relu"),
    "likelihood": ("bernoulli", "gaussian"),
    "scaling": SCALINGS,
    "means": ("em", LEARNED),
    "kl": ("released", "paper"),
    "depict_target": ("paper", "released", "dec"),
}
"""Parameters that are one of a few words."""

LEAST = {
    "n_latent": 1,
    "n_hidden": 1,
    "gate_hidden": 1,
    "expert_hidden": 1,
    "encoder_layers": 0,
    "gate_layers": 0,
    "expert_layers": 0,
    "gate_dropout": 0,
    "code_noise": 0,
    "min_cells": 0,
    "reconstruction_weight": 0,
    "similarity_weight": 0,
    "depict_weight": 0,
    "kl_weight": 0,
}
"""Smallest values of numbers."""


def check_settings(given: dict[str, Any]) -> None:
    """Raise ValueError for a word that is not among the choices and for a number out of range.

    Parameters
    ----------
    given
        The parameters of the model by their names; others are not looked at.
    """
    for name, choices in CHOICES.items():
        if given[name] not in choices:
            raise ValueError(f"`{name}` must be one of {choices}, got {given[name]!r}.")
    noise, dropout = given["code_noise"], given["gate_dropout"]
    if isinstance(noise, str) and noise != LEARNED:
        raise ValueError(f'`code_noise` must be a number or "learned", got {noise!r}.')
    for name, least in LEAST.items():
        value = given[name]
        if value is not None and not isinstance(value, str) and not value >= least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    if not dropout < 1:
        raise ValueError(f"`gate_dropout` must be below 1, got {dropout}.")
