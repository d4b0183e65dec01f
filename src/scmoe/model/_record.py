"""A trained module as plain values, which an AnnData can carry along."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scmoe._core.files import ModelFileError
from scmoe._core.plain import NUMBERS
from scmoe._core.settings import shown
from scmoe._core.text import listing
from scmoe.model._cplmixvae_module import CplMixVAEModule
from scmoe.model._moesimvae_module import MoESimVAEModule
from scmoe.model._moevae_module import MoEVAEModule
from scmoe.model._outliers import with_owner, without_landmarks
from scmoe.model._saved import check_names, make_module

if TYPE_CHECKING:
    from scmoe.model._module import DescribedModule

MODULES = {
    "MoESimVAE": MoESimVAEModule,
    "MoEVAE": MoEVAEModule,
    "CplMixVAE": CplMixVAEModule,
}
"""Module of each model, by the name of its class."""


@dataclass(frozen=True)
class Trained:
    """A trained module and what it does not know itself."""

    module: DescribedModule
    clusters: list[str]
    """Names of the clusters, in the order of the experts."""
    batches: list[str]
    """Names of the batches."""
    merged: list[str] | None = None
    """Cluster of each expert where several are one (:func:`scmoe.tl.cut`), "" for none."""

    @property
    def names(self) -> list[str]:
        """Cluster of each expert."""
        return self.clusters if self.merged is None else self.merged

    def hash(self) -> str:
        """SHA-256 of the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.numpy(force=True)).data)
        return digest.hexdigest()


def to_record(trained: Trained, *, landmarks: bool = True) -> dict[str, Any]:
    """Write settings, cluster names and weights as values that h5ad can hold.

    ``landmarks``: whether to keep the training cells that outlier scores are made of.
    """
    tensors = trained.module.state_dict()
    (name,) = (name for name, module in MODULES.items() if module is type(trained.module))
    return {
        "class": name,
        "settings": json.dumps(trained.module.settings.to_networks()),
        "clusters": np.asarray(trained.clusters, dtype=str),
        "batches": np.asarray(trained.batches, dtype=str),
        "weights": {
            name: tensor.numpy(force=True)
            for name, tensor in (tensors if landmarks else without_landmarks(tensors)).items()
        },
    }


RECORD = {"class", "settings", "clusters", "batches", "weights"}
"""What :func:`to_record` writes."""


def from_record(record: Any, where: str = "the record of a model") -> Trained:
    """Read a record of :func:`to_record`, which may come out of a file.

    Parameters
    ----------
    record
        The record.
    where
        Where it was found, for messages.

    Raises
    ------
    ModelFileError
        The record is not one of a trained model: entries are missing, of wrong types or out of
        range, or contradict each other.
    """
    if not isinstance(record, Mapping) or set(record) != RECORD:
        raise ModelFileError(f"{where} is no record of a model: {', '.join(sorted(RECORD))}.")
    name, settings = record["class"], record["settings"]
    if not isinstance(name, str) or name not in MODULES:
        raise ModelFileError(
            f"{where} is of a model {shown(name)}; known are {listing(list(MODULES))}."
        )
    if not isinstance(settings, str):
        raise ModelFileError(f"{where} is damaged: its settings are no text.")
    try:
        settings = json.loads(settings)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{where} is damaged: its settings are no JSON: {error}") from error
    clusters, batches = (_names(record[key], key, where) for key in ("clusters", "batches"))
    module = make_module(MODULES[name], settings, _tensors(record["weights"], where), where)
    return checked(module, clusters, batches, where)


def checked(
    module: DescribedModule, clusters: list[str], batches: list[str], where: str
) -> Trained:
    """Put a module and names that were read together; ModelFileError where they do not fit."""
    check_names(clusters, module.n_experts, "clusters", where)
    check_names(batches, module.batches.shape[1], "batches", where)
    return Trained(module, clusters, batches)


def _names(names: Any, what: str, where: str) -> list[str]:
    if not isinstance(names, np.ndarray | list) or getattr(names, "ndim", 1) != 1:
        raise ModelFileError(f"{where} is damaged: {what!r} must be a list of names.")
    return [str(name) if isinstance(name, str) else name for name in names]


def _tensors(weights: Any, where: str) -> dict[str, torch.Tensor]:
    if not isinstance(weights, Mapping):
        raise ModelFileError(f"{where} is damaged: its weights are no mapping.")
    for name, value in weights.items():
        # a single number may come out of a file as one of Python
        is_array = isinstance(value, np.ndarray | np.generic | bool | int | float)
        if not is_array or np.asarray(value).dtype.name not in NUMBERS:
            raise ModelFileError(
                f"{where} is damaged: the weights {name!r} are no array of numbers."
            )
    # a file may hold numbers in the order of another machine, or be read without leave to write
    return with_owner(
        {
            str(name): torch.from_numpy(np.require(np.asarray(value), requirements="CW"))
            for name, value in weights.items()
        }
    )
