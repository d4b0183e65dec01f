"""A trained module as plain values, which an AnnData can carry along."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scmoe.model._module import MoESimVAEModule

if TYPE_CHECKING:
    from scmoe.model._moesimvae import MoESimVAE


def to_record(model: MoESimVAE) -> dict[str, Any]:
    """Settings, names of the clusters and weights, as h5ad can hold them."""
    return {
        # numbers of numpy, which a computed setting may be, as plain ones
        "settings": json.dumps(model.module_settings_, default=lambda value: value.item()),
        "clusters": np.asarray(model.cluster_names_, dtype=str),
        "weights": {
            name: tensor.numpy(force=True) for name, tensor in model.module.state_dict().items()
        },
    }


def from_record(record: dict[str, Any]) -> tuple[MoESimVAEModule, list[str]]:
    """The module and the names of its clusters; ValueError where weights do not fit."""
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and replaced
        module = MoESimVAEModule(**json.loads(record["settings"]))
    weights = {name: torch.as_tensor(np.asarray(w)) for name, w in record["weights"].items()}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"The record of the model is damaged: {error}") from error
    module.eval()
    return module, [str(name) for name in record["clusters"]]
