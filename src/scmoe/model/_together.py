"""Several coupled mixtures of the same cells, whose arms are trained in one fit."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scmoe.model._cplmixvae import CplMixVAE
    from scmoe.model._cplmixvae_module import CplMixVAEModule

OF_OBSERVED = ("observed.noise", "observed.log_dispersion")
"""Tensors of the observed cells with a row for each arm; the others are of the cells."""


def check_together(models: Sequence[CplMixVAE]) -> None:
    """Raise ValueError unless models can be trained in one fit."""
    first, *others = models
    if others and any(model.module is not None for model in models):
        raise ValueError("Models are trained beside each other from the start: make new ones.")
    for model in others:
        if not isinstance(model, type(first)) or model.adata is not first.adata:
            raise ValueError("Models that are trained beside each other are of the same cells.")
        if _asked_for(model) != _asked_for(first):
            raise ValueError("Models that are trained beside each other have the same settings.")
    if len({id(model) for model in models}) < len(models):
        raise ValueError("A model can't be trained beside itself: make another one.")


def _asked_for(model: CplMixVAE) -> tuple:
    """All that two models of the same cells can differ in, but for chance."""
    return (
        model.module_settings_,
        model.n_categories_,
        model.scaling_,
        model.min_cells_,
        model.registry["setup_args"],
    )


OF_FIT = (
    *("trainer", "is_trained_", "history_"),
    *("train_indices", "test_indices", "validation_indices"),
)
"""What scvi-tools notes of a fit."""


@contextmanager
def one_module(models: Sequence[CplMixVAE]) -> Iterator[None]:
    """Within the block the first model has the arms of all; after it each has its own again."""
    first, *others = models
    if not others:
        yield
        return
    parts = [model.module for model in models]
    first.module = join(parts, first.module_settings_)
    yield
    share_out(first.module, parts)
    for model, part in zip(models, parts, strict=True):
        model.module = part.to(first.device).eval()
    for model in others:
        for name in OF_FIT:
            setattr(model, name, copy.copy(getattr(first, name)))


def join(parts: Sequence[CplMixVAEModule], settings: dict) -> CplMixVAEModule:
    """A module with the arms of all, group by group."""
    n_arms = sum(part.n_arms for part in parts)
    joint = type(parts[0])(**{**settings, "n_arms": n_arms, "n_groups": len(parts)})
    states = [part.state_dict() for part in parts]
    joint.load_state_dict(
        {
            name: torch.cat([s[name] for s in states]) if _is_of_arms(name, tensor) else tensor
            for name, tensor in states[0].items()
        }
    )
    return joint


def share_out(joint: CplMixVAEModule, parts: Sequence[CplMixVAEModule]) -> None:
    """Give each part the arms of its group."""
    state = joint.state_dict()
    chunks = {
        name: tensor.chunk(len(parts)) if _is_of_arms(name, tensor) else [tensor] * len(parts)
        for name, tensor in state.items()
    }
    for group, part in enumerate(parts):
        part.load_state_dict({name: tensors[group] for name, tensors in chunks.items()})


def _is_of_arms(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor has rows for each arm, those of the first arm first."""
    # normalisation layers count their batches, in a tensor without dimensions
    return tensor.dim() > 0 and (name.startswith("arms.") or name in OF_OBSERVED)
