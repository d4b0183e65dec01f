"""A trained module as plain values, which an AnnData can carry along."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scmoe._compat import one_thread
from scmoe._random import one_at_a_time
from scmoe.model._cplmixvae_module import CplMixVAEModule
from scmoe.model._module import MoESimVAEModule
from scmoe.model._moevae_module import MoEVAEModule

if TYPE_CHECKING:
    from scmoe.model._base import ExpertModel
    from scmoe.model._described import DescribedModule

MODULES = {
    "MoESimVAE": MoESimVAEModule,
    "MoEVAE": MoEVAEModule,
    "CplMixVAE": CplMixVAEModule,
}
"""Module of each model, by the name of its class."""

PREDICT_BATCH = 8192
"""Cells at a time where nothing is learned."""

SMALL = 100
"""Markers below which a second thread does not pay."""


NAMES = ("latent", "proba", "expert", "position")
"""Outputs of a module that are of use outside."""


@dataclass(frozen=True)
class Trained:
    """A trained module and what it does not know itself."""

    module: DescribedModule
    clusters: list[str]
    """Names of the clusters, in the order of the experts."""
    batches: list[str]
    """Names of the batches."""

    @torch.inference_mode()
    def predict(self, x: np.ndarray, batch: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Put cells into the clusters.

        Parameters
        ----------
        x
            Cells x markers, float32, in the order of the training markers.
        batch
            Number of the batch of each cell, for an encoder that looks at it.

        Returns
        -------
        ``latent`` (n, n_latent), ``proba`` (n, n_experts), ``expert`` (n,), ``outlier`` (n,), and
        ``position`` (n, n_markers), the scaled markers, not clipped.
        """
        module, parts = self.module.eval(), []
        for start in range(0, len(x), PREDICT_BATCH):
            some = slice(start, start + PREDICT_BATCH)
            cells = torch.from_numpy(x[some]).to(module.low.device)
            of_batch = None if batch is None else torch.from_numpy(batch[some, None])
            with one_thread(x.shape[1] < SMALL):
                outputs = module.inference(cells, of_batch)
            outputs["position"] = module.position(cells)
            parts.append({name: outputs[name] for name in NAMES})
        found = {name: torch.cat([p[name] for p in parts]).numpy(force=True) for name in parts[0]}
        return {**found, "outlier": module.outliers.score(found["position"])}

    def hash(self) -> str:
        """SHA-256 of the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.numpy(force=True)).data)
        return digest.hexdigest()


def to_record(model: ExpertModel) -> dict[str, Any]:
    """Settings, names of the clusters and weights, as h5ad can hold them."""
    return {
        "class": type(model).__name__,
        # numbers of numpy, which a computed setting may be, as plain ones
        "settings": json.dumps(model.module_settings_, default=lambda value: value.item()),
        "clusters": np.asarray(model.cluster_names_, dtype=str),
        "batches": np.asarray(model.batch_names, dtype=str),
        "weights": {
            name: tensor.numpy(force=True) for name, tensor in model.module.state_dict().items()
        },
    }


def from_record(record: dict[str, Any]) -> Trained:
    """The way back; ValueError where weights do not fit."""
    # initial weights are drawn and replaced
    with one_at_a_time(), torch.random.fork_rng(devices=[]):
        module = MODULES[str(record["class"])](**json.loads(record["settings"]))
    weights = {name: torch.as_tensor(np.asarray(w)) for name, w in record["weights"].items()}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"The record of the model is damaged: {error}") from error
    module.eval()
    clusters, batches = ([str(name) for name in record[key]] for key in ("clusters", "batches"))
    return Trained(module, clusters, batches)
