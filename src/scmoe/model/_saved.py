"""Reading of saved models, of files and of records: all that they say is checked here."""

from __future__ import annotations

import inspect
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS

from scmoe._core.files import ModelFileError, check_keys, describe, read_json
from scmoe._core.plain import from_plain
from scmoe._core.random import one_at_a_time
from scmoe._core.settings import FLAG, NOTHING, TEXT, as_whole, is_whole
from scmoe._core.text import listing
from scmoe.model._settings import ModelSettings, check_sizes
from scmoe.similarity import Similarity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from scmoe.model._module import DescribedModule

SCHEMA = "scmoe model"
SCHEMA_VERSION = 3

ADDED = ("estimates_",)
"""Attributes that came with version 2: models that were saved before have those of a new one."""

JSON, TENSORS, CELLS = "model.json", "model.safetensors", "adata.h5ad"
"""Names of the files, after the prefix."""

PICKLES = ("model.pt", "model_params.pt", "attr.pkl")
"""What scvi-tools calls its files."""

KEYS = {
    "class": str,
    "versions": dict,
    "registry": dict,
    "init_params": dict,
    "attributes": dict,
    "var_names": list,
    "has_cells": bool,
    "tensors": dict,
}
"""What ``model.json`` holds beside the schema."""

OF_REGISTRY = {"model_name": str, "setup_method_name": str, "setup_args": dict}
OF_FIELD = {"data_registry": dict, "state_registry": dict, "summary_stats": dict}
CATEGORIES = "categorical_mapping"
FIELDS = {REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.INDICES_KEY}

SETUP = {"layer": TEXT | NOTHING, "batch_key": TEXT | NOTHING, "counts": FLAG}
"""Arguments of ``setup_anndata`` beside the similarity."""

NOT_NEGATIVE = ("size", "batches", "running_var", "n_landmarks", "distances", "expected")
"""Last parts of the names of tensors that hold counts, variances, distances or shares."""

COUNTED = {"clusters": "experts"}
"""What there is one of for each name."""

TABLES = ("consensus_", "pruning_")
"""Attributes that are a table once there is something to say."""

NAMES = "cluster_names_"
"""Attribute that holds the names of the clusters."""

SETTINGS, OF_MODEL = "module_settings_", ("scaling", "min_cells")
"""Entry of the settings of the networks, and settings with an entry of their own (and ``_``)."""

GROWING = ("estimates_",)
"""Mappings that training adds to."""

RESTORED = ("registry_", "init_params_")
"""Attributes that the constructor sets from what is saved."""


def attributes_of(model: Any) -> dict[str, Any]:
    """Return the attributes that scvi-tools saves: those that end in one underscore."""
    return {
        name: value
        for name, value in sorted(vars(model).items())
        if name.endswith("_") and not name.startswith("_")
    }


def entries_of(settings: ModelSettings) -> dict[str, Any]:
    """Return the entries of a file's attributes that hold the settings."""
    of_model = {f"{name}_": getattr(settings, name) for name in OF_MODEL}
    return {SETTINGS: settings.to_networks(), **of_model}


def saved_class(folder: Path, prefix: str = "") -> str:
    """Name of the class of a saved model."""
    return _content(folder, prefix)["class"]


def _content(folder: Path, prefix: str) -> dict[str, Any]:
    """``model.json`` as it stands, with all that it must hold."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ModelFileError(f"{str(folder)!r} {what}; a saved model is a folder.")
    path = folder / f"{prefix}{JSON}"
    if not path.is_file():
        pickles = [n for n in PICKLES if (folder / f"{prefix}{n}").exists()]
        if pickles:
            raise ModelFileError(
                f"{str(folder)!r} holds a model that scvi-tools pickled ({listing(pickles)}). "
                "Pickles can run programs, so they are never opened. Save the model with scmoe."
            )
        raise ModelFileError(f"{str(folder)!r} holds no model: there is no {path.name!r}.")
    return read_json(path, SCHEMA, SCHEMA_VERSION, KEYS)


def read(folder: Path, prefix: str, cls: type) -> dict[str, Any]:
    """Read and check ``model.json``, and decode its plain values."""
    content, path = _content(folder, prefix), folder / f"{prefix}{JSON}"
    if content["class"] != cls.__name__:
        raise ModelFileError(
            f"{str(folder)!r} holds a model of the class {content['class']!r}, not "
            f"{cls.__name__!r}."
        )
    try:
        for key in ("registry", "init_params", "attributes"):
            content[key] = from_plain(content[key])
            if not isinstance(content[key], dict):
                raise ValueError(f"{key!r} is no mapping")
    except ValueError as error:
        raise ModelFileError(f"{str(path)!r} is damaged: {error}") from error
    check_names(content["var_names"], None, "markers", repr(str(path)))
    _check_registry(content["registry"], cls, str(path))
    if list(marker_names(content["registry"])) != content["var_names"]:
        raise ModelFileError(f"{str(path)!r} is damaged: its registry has other markers.")
    return content


def check_names(names: Sequence[Any], n: int | None, what: str, where: str) -> None:
    """Raise ModelFileError unless names are different strings, and as many as there must be.

    Parameters
    ----------
    names
        Of ``what``, such as "clusters".
    n
        Their number, None where nothing else tells it.
    where
        Where they were read.
    """
    if not all(isinstance(name, str) for name in names):
        raise ModelFileError(f"{where} is damaged: names of {what} must be strings.")
    if len(set(names)) < len(names):
        twice = [name for name, n in Counter(names).items() if n > 1]
        raise ModelFileError(
            f"{where} is damaged: names of {what} must be different, {listing(twice)} is there "
            "more than once."
        )
    if n is not None and len(names) != n:
        raise ModelFileError(
            f"{where} is damaged: it has {n} {COUNTED.get(what, what)} and {len(names)} names of "
            f"{what}."
        )


def marker_names(registry: dict[str, Any]) -> np.ndarray:
    """Names of the markers that were registered."""
    return registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]


def batch_names(registry: dict[str, Any]) -> list[str]:
    """Names of the batches that were registered."""
    registered = registry["field_registries"][REGISTRY_KEYS.BATCH_KEY]["state_registry"]
    return [str(name) for name in registered[CATEGORIES]]


def _check_registry(registry: dict, cls: type, where: str) -> None:
    needed = {**OF_REGISTRY, "field_registries": dict}
    check_keys({k: v for k, v in registry.items() if k in needed}, needed, f"{where}: registry")
    if registry["model_name"] != cls.__name__ or registry["setup_method_name"] != "setup_anndata":
        raise ModelFileError(f"{where}: the cells were registered for another model.")
    for name, field in registry["field_registries"].items():
        if not isinstance(field, dict):
            raise ModelFileError(f"{where}: the field {name!r} of the registry is no mapping.")
        check_keys(field, OF_FIELD, f"{where}: field {name!r} of the registry")
    known = set(inspect.signature(cls.setup_anndata).parameters) - {"adata", "kwargs"}
    if set(registry["setup_args"]) != known:
        raise ModelFileError(
            f"{where}: `setup_anndata` takes {sorted(known)}, the file gives "
            f"{sorted(registry['setup_args'])}."
        )
    with damaged(where, ValueError, LookupError):
        for name, value in registry["setup_args"].items():
            if name == "similarity":
                Similarity.from_dict(value)
            else:
                SETUP[name].check(name, value)
    if set(registry["field_registries"]) != FIELDS:
        raise ModelFileError(
            f"{where}: the fields of the registry must be {sorted(FIELDS)}, they are "
            f"{sorted(registry['field_registries'])}."
        )
    states = {k: field["state_registry"] for k, field in registry["field_registries"].items()}
    markers, batches = (states[key] for key in (REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.BATCH_KEY))
    for state, name in ((markers, "column_names"), (batches, CATEGORIES)):
        there = state.get(name)
        if not (isinstance(there, np.ndarray) and there.ndim == 1 and len(there)):
            raise ModelFileError(f"{where}: the registry lacks {name!r}, an array.")
    if not is_whole(markers.get("n_vars")) or markers["n_vars"] != len(markers["column_names"]):
        raise ModelFileError(f"{where}: the registry has names of markers for other cells.")
    if not isinstance(batches.get("original_key"), str):
        raise ModelFileError(f"{where}: the registry of 'batch' names no column.")
    check_names(batch_names(registry), None, "batches", where)


WRONG = (TypeError, AttributeError, RuntimeError)
"""Errors that no cells are the reason of."""


@contextmanager
def damaged(where: str, *more: type[Exception]) -> Iterator[None]:
    """Say of errors, of these types too, that they come from the settings of what is read."""
    try:
        yield
    except ModelFileError:
        raise
    except (*WRONG, *more) as error:
        raise ModelFileError(
            f"The settings in {where} are damaged, or do not fit these cells: {str(error)[:500]}"
        ) from error


def saved_cells(path: Path, has_cells: bool) -> AnnData:
    if not has_cells:
        raise ModelFileError(
            f"The model in {str(path.parent)!r} was saved without its cells. Give cells as "
            "`adata`, or save with `save_anndata=True`."
        )
    if not path.is_file():
        raise ModelFileError(f"{str(path)!r} is missing; give cells as `adata`.")
    try:
        return ad.read_h5ad(path)
    except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{str(path)!r} is no h5ad file: {error}") from error


def check_var_names(adata: AnnData, names: list[str]) -> None:
    """Raise unless the cells have the markers of the model in their order."""
    missing = [name for name in names if name not in adata.var_names]
    if missing:
        raise KeyError(f"The model was trained with markers that are missing: {listing(missing)}.")
    if list(adata.var_names) != names:
        raise ValueError(
            "The cells have further markers than the model, or the same in another order. Give "
            f"`adata[:, names].copy()` with the names {listing(names)}."
        )


def init_arguments(cls: type, saved: dict[str, Any], where: str) -> dict[str, Any]:
    """Arguments of the constructor, which must be all that it has."""
    check_keys(saved, {"kwargs": dict, "non_kwargs": dict}, "The settings of the model")
    parameters = inspect.signature(cls).parameters.values()
    named = {p.name for p in parameters if p.kind != p.VAR_KEYWORD} - {"adata", "registry"}
    given = saved["non_kwargs"]
    if set(given) != named:
        raise ModelFileError(
            f"The settings of the model lack {sorted(named - set(given))} and have "
            f"{sorted(set(given) - named)} beside."
        )
    if saved["kwargs"]:
        raise ModelFileError("The settings of the model have further `kwargs`.")
    check_sizes(given, f"The settings in {where}")
    return given


def set_attributes(model: Any, saved: dict[str, Any]) -> None:
    """Set what training found; ModelFileError for names and types that a new model lacks."""
    fresh = {name: v for name, v in attributes_of(model).items() if name not in RESTORED}
    of_settings = entries_of(model.settings)
    saved = {name: value for name, value in saved.items() if name not in of_settings}
    missing = sorted(fresh.keys() - saved.keys() - set(ADDED))
    extra = sorted(saved.keys() - fresh.keys())
    if missing or extra:
        raise ModelFileError(
            f"The attributes of the model lack {missing} and have {extra} beside."
        )
    for name, value in saved.items():
        value = as_whole(value)
        if not _alike(name, fresh[name], value):
            raise ModelFileError(f"The attribute {name!r} of the model has the wrong type.")
        setattr(model, name, value)


def _alike(name: str, fresh: Any, saved: Any) -> bool:
    """Whether a value is of the type of a new model's, and so are the items of a list.

    What scvi-tools notes of a training is None in a new model.
    """
    if saved is None:
        return fresh is None
    if name == "history_":
        return isinstance(saved, dict) and all(isinstance(t, pd.DataFrame) for t in saved.values())
    if name in ("train_indices_", "validation_indices_", "test_indices_"):
        return isinstance(saved, np.ndarray) and saved.ndim == 1 and saved.dtype.kind in "iu"
    if name in TABLES:
        return isinstance(saved, pd.DataFrame)
    if fresh is None:
        return True
    if name in GROWING:
        return isinstance(saved, dict) and fresh.keys() <= saved.keys()
    if isinstance(fresh, dict) and fresh:
        return isinstance(saved, dict) and fresh.keys() == saved.keys()
    if isinstance(fresh, list) and fresh:
        return type(saved) is list and all(type(item) is type(fresh[0]) for item in saved)
    return type(fresh) is type(saved)


def make_module(
    cls: type[DescribedModule],
    settings: Any,
    tensors: Mapping[str, torch.Tensor],
    where: str,
    **of_model: Any,
) -> DescribedModule:
    """Make networks of settings and weights that were read.

    Nothing is allocated before the shapes that follow from the settings are known to be those
    of the tensors, which are in memory already.

    Parameters
    ----------
    cls
        Class of the networks.
    settings
        Their settings, not checked.
    tensors
        Their weights.
    where
        Where both were read, for messages.
    **of_model
        Settings that networks do not see.

    Raises
    ------
    ModelFileError
        Settings or tensors are missing, of wrong types or out of range, or contradict each
        other; weights that are no numbers.
    """
    settings = cls.settings_class.from_networks(settings, f"The settings in {where}", **of_model)
    if getattr(settings, "image_shape", None) and len(getattr(settings, "n_latents", ())) > len(
        tensors
    ):
        # each would be an object of its own
        raise ModelFileError(f"The settings in {where} name more experts than have weights.")
    errors = ValueError, ArithmeticError
    with damaged(where, *errors), torch.device("meta"):
        sketch = cls(settings)
    check_tensors(sketch, tensors, where)
    with damaged(where, *errors), one_at_a_time(), torch.random.fork_rng(devices=[]):
        # initial weights are drawn and replaced
        module = cls(settings)
    module.load_state_dict(tensors)
    _check_weights(module, where)
    return module.eval()


def check_tensors(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: str
) -> None:
    """Raise ModelFileError unless tensors are by name, shape and dtype those of a module."""
    expected = module.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ModelFileError(
            f"{where} is damaged: the model has tensors that the file lacks: {listing(missing)}."
        )
    if extra := sorted(tensors.keys() - expected.keys()):
        raise ModelFileError(
            f"{where} is damaged: the file has tensors that the model lacks: {listing(extra)}."
        )
    for name, tensor in tensors.items():
        found, wanted = describe(tensor), describe(expected[name])
        if found != wanted:
            raise ModelFileError(
                f"The tensor {name!r} is {found['dtype']} of shape {found['shape']} in the file, "
                f"{wanted['dtype']} of shape {wanted['shape']} in the model: {where} is damaged."
            )


def _check_weights(module: DescribedModule, where: str) -> None:
    """Raise ModelFileError for weights by which no cell gets a cluster, or a wrong one."""

    def refuse(name: str, what: str) -> None:
        raise ModelFileError(
            f"The tensor {name!r} in {where} {what}: the model is damaged, or its training "
            "failed. Train it again."
        )

    for name, tensor in module.state_dict().items():
        last = name.rpartition(".")[2]
        if tensor.is_floating_point() and not tensor.isfinite().all():
            refuse(name, "holds NaN or infinite values")
        if last in NOT_NEGATIVE and (tensor < 0).any():
            refuse(name, "holds negative values")
    if not (module.low < module.high).all():
        refuse("high", "is not above 'low'")
    if not module.live.any():
        refuse("live", "has no cluster")
    if module.outliers.n_landmarks > len(module.outliers.landmarks):
        refuse("outliers.n_landmarks", "is larger than the number of landmarks")
    for name, part in module.named_modules():
        for scale in ("spread", "noise"):
            # cells are divided by them
            if hasattr(part, "centre") and not (getattr(part, scale, torch.ones(1)) > 0).all():
                refuse(f"{name}.{scale}", "holds values that are not above 0")
