"""Settings of the models: what each may be, for those who build models and for files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._core.files import ModelFileError
from scmoe._core.scaling import SCALINGS
from scmoe._core.settings import (
    FLAG,
    NOTHING,
    POSITIVE,
    SHARE,
    Kind,
    is_whole,
    many,
    number,
    one_of,
    shown,
    whole,
)
from scmoe.model._auto import AUTO
from scmoe.model._cplmixvae_module import DISTANCES
from scmoe.model._described import COUNTS
from scmoe.model._module import LEARNED
from scmoe.model._moevae_module import BALANCES, LOSSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST = 10**9
"""Largest number that a file may give as a size ..."""

MOST_LAYERS = 1000
"""... and as a number of layers, each of which is an object of its own."""

ACTIVATION = one_of("elu", "relu")
OPTIONAL = whole(1) | NOTHING
IMAGE_SHAPE = many(whole(1)) | NOTHING

COMMON = {"scaling": one_of(*SCALINGS), "min_cells": whole(0) | NOTHING}
OF_IMAGES = {"network": one_of("dense", "conv")}
N_LATENT = {"n_latent": whole(1) | one_of(AUTO) | many(whole(1))}

ARGUMENTS: dict[str, dict[str, Kind]] = {
    "MoESimVAE": {**COMMON, **OF_IMAGES, **N_LATENT},
    "MoEVAE": {**COMMON, **OF_IMAGES, **N_LATENT},
    "CplMixVAE": COMMON,
}
"""Arguments of each model that its networks do not have, or not so."""

ESTIMATED = ("n_experts", "n_latent", "n_categories")
"""Arguments of models that may be ``"auto"``, and are looked at where that is known."""

SETTINGS: dict[str, dict[str, Kind]] = {
    "MoESimVAE": {
        "n_input": whole(1),
        "n_experts": whole(2),
        "n_latent": whole(1),
        "n_hidden": whole(1),
        "encoder_layers": whole(0),
        "gate_hidden": OPTIONAL,
        "gate_layers": whole(0),
        "expert_hidden": OPTIONAL,
        "expert_layers": whole(0),
        "image_shape": IMAGE_SHAPE,
        "encoder_channels": many(whole(1)),
        "expert_channels": many(whole(1)),
        "activation": ACTIVATION,
        "batch_norm": FLAG,
        "gate_dropout": SHARE,
        "code_noise": Kind(
            f'a number or "{LEARNED}", not below 0',
            lambda v: number().fits(v) or (isinstance(v, str) and v == LEARNED),
        ),
        "likelihood": one_of("bernoulli", "gaussian"),
        "means": one_of("em", LEARNED),
        "kl": one_of("released", "paper"),
        "depict_target": one_of("paper", "released", "dec"),
        "reconstruction_weight": number(),
        "similarity_weight": number(),
        "depict_weight": number(),
        "kl_weight": number(),
        "n_batch": whole(1),
        "encode_batch": FLAG,
    },
    "MoEVAE": {
        "n_input": whole(1),
        "n_latents": many(whole(1)),
        "n_shared": whole(0),
        "image_shape": IMAGE_SHAPE,
        "n_hidden": whole(1),
        "n_layers": whole(0),
        "width": OPTIONAL,
        "activation": ACTIVATION,
        "likelihood": one_of("bernoulli", "gaussian"),
        "kl": one_of("elbo", "normalized"),
        "loss": one_of(*LOSSES),
        "sample_weight": number(),
        "batch_weight": number(),
        "balance": one_of(*BALANCES),
        "n_routed": OPTIONAL,
        "isotropic": FLAG,
    },
    "CplMixVAE": {
        "n_input": whole(1),
        "n_categories": whole(2),
        "n_arms": whole(1),
        "n_state": whole(1),
        "n_embed": whole(1),
        "n_hidden": whole(1),
        "n_layers": whole(0),
        "activation": ACTIVATION,
        "likelihood": one_of("gaussian", "bernoulli", *COUNTS),
        "input_dropout": SHARE,
        "state_dropout": SHARE,
        "coupling_weight": number(),
        "entropy_weight": number(),
        "kl_weight": number(),
        "distance": one_of(*DISTANCES),
        "sharpness": POSITIVE | NOTHING,
        "temperature": POSITIVE,
        "hard": FLAG,
        "isotropic": FLAG,
    },
}
"""Settings of the networks of each model, by the name of its class."""

OF_MODEL = "('module_settings_' of a model)"

ADDED = frozenset({"isotropic"})
"""Settings that came later: models that were saved before have their defaults."""


OF_NETWORKS = {"n_input", "n_batch", "n_latents", "n_shared", "image_shape", "isotropic"}
"""Settings of networks that the models find themselves."""


def argument_kinds(model: str) -> dict[str, Kind]:
    """What the arguments of a model may be."""
    kinds = {name: k for name, k in SETTINGS[model].items() if name not in OF_NETWORKS}
    return {**kinds, **ARGUMENTS[model]}


def check_arguments(model: str, given: Mapping[str, Any]) -> None:
    """Raise ValueError for words that are not among the choices, and numbers out of range.

    Parameters
    ----------
    model
        Name of the class.
    given
        Arguments of the model by their names; others are not looked at.
    """
    for name, kind in argument_kinds(model).items():
        if name in given and name not in ESTIMATED:
            kind.check(name, given[name])


def check_saved_settings(model: str, saved: Any, where: str) -> None:
    """Raise ModelFileError unless settings that were read are all those of a model's networks.

    ``where`` names their place, as "the settings in ...".
    """
    kinds = SETTINGS[model]
    if not isinstance(saved, dict):
        raise ModelFileError(f"{where} {OF_MODEL} are of the wrong type: they are no mapping.")
    missing, extra = kinds.keys() - saved.keys() - ADDED, saved.keys() - kinds.keys()
    if missing or extra:
        raise ModelFileError(
            f"{where} {OF_MODEL} are of the wrong type: they lack {sorted(missing)} and have "
            f"{sorted(map(str, extra))} beside."
        )
    for name, value in saved.items():
        try:
            kinds[name].check(name, value)
        except ValueError as error:
            raise ModelFileError(f"{where} are damaged: {error}") from error
    check_sizes(saved, where)
    shape = saved.get("image_shape")
    if shape is not None and math.prod(shape) != saved["n_input"]:
        raise ModelFileError(
            f"{where} are damaged: images of {list(shape)} pixels have not {saved['n_input']}."
        )


def check_sizes(saved: Mapping[str, Any], where: str) -> None:
    """Raise ModelFileError for sizes so large that nobody can have meant them."""
    for name, value in saved.items():
        most = MOST_LAYERS if name.endswith("_layers") else MOST
        for size in value if isinstance(value, list | tuple | np.ndarray) else [value]:
            if is_whole(size) and size > most:
                raise ModelFileError(
                    f"{where} are damaged: `{name}` is {shown(size)}, and at most {most:,} is "
                    "read."
                )


def latent_sizes(n_latent: int | Sequence[int] | str, n_experts: int | str) -> list[int] | None:
    """Latent sizes as a list of one or K; None for those that are estimated."""
    if isinstance(n_latent, str):
        if n_latent != AUTO:
            raise ValueError(f'`n_latent` must be "auto" or whole numbers, got {n_latent!r}.')
        return None
    sizes = list(np.ravel(n_latent).tolist())
    if any(not is_whole(size) or size < 1 for size in sizes) or not sizes:
        raise ValueError(f'`n_latent` must be "auto" or whole numbers from 1, got {n_latent!r}.')
    if np.ndim(n_latent) and (n_experts == AUTO or len(sizes) != n_experts):
        raise ValueError(
            f"`n_latent` names {len(sizes)} latent sizes for {n_experts} experts; give one for "
            "each, or one number for all."
        )
    return sizes


def check_counted(likelihood: str, scaling: str, *, counts: bool) -> None:
    """Raise ValueError where only one of likelihood and cells is of counts, or counts are scaled.

    ``counts``: whether the cells were registered as counts.
    """
    of_counts = likelihood in COUNTS
    if of_counts and not counts:
        raise ValueError(
            f"`likelihood={likelihood!r}` is one of counts: register raw counts, "
            "`setup_anndata(adata, counts=True)`."
        )
    if counts and not of_counts:
        raise ValueError(
            f"The cells are registered as counts, which a {likelihood!r} likelihood "
            f"cannot give: use one of {COUNTS}, or transformed values without `counts`."
        )
    if counts and scaling != "none":
        raise ValueError(
            f"Counts are looked at by their logarithms; `scaling={scaling!r}` can't be "
            "used with them."
        )
