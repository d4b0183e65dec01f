"""What the files of a saved model say, and whether that can be."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from scmoe._checks import listing
from scmoe._plain import from_plain
from scmoe._store import ModelFileError, check_keys, describe, read_json

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from anndata import AnnData

SCHEMA = "scmoe model"
SCHEMA_VERSION = 2

ADDED = ("estimates_",)
"""Attributes that came with version 2: models that were saved before have those of a new one."""

ADDED_SETTINGS = frozenset({"isotropic"})
"""Settings of modules that came later: models that were saved before have their defaults."""

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

REGISTRY_KEYS = {"model_name": str, "setup_method_name": str, "setup_args": dict}
FIELD_KEYS = {"data_registry": dict, "state_registry": dict, "summary_stats": dict}

SETTINGS = "module_settings_"

GROWING = ("estimates_",)
"""Mappings that training adds to."""

RESTORED = ("registry_", "init_params_")
"""Attributes that the constructor sets from what is saved."""


def attributes_of(model: Any) -> dict[str, Any]:
    """What scvi-tools would save: attributes that end in one underscore."""
    return {
        name: value
        for name, value in sorted(vars(model).items())
        if name.endswith("_") and not name.startswith("_")
    }


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
    """What ``model.json`` says, checked and without its encoding."""
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
    if not all(isinstance(name, str) for name in content["var_names"]):
        raise ModelFileError(f"{str(path)!r} is damaged: names of markers must be strings.")
    _check_registry(content["registry"], cls, str(path))
    return content


def _check_registry(registry: dict, cls: type, where: str) -> None:
    needed = {**REGISTRY_KEYS, "field_registries": dict}
    check_keys({k: v for k, v in registry.items() if k in needed}, needed, f"{where}: registry")
    if registry["model_name"] != cls.__name__ or registry["setup_method_name"] != "setup_anndata":
        raise ModelFileError(f"{where}: the cells were registered for another model.")
    for name, field in registry["field_registries"].items():
        if not isinstance(field, dict):
            raise ModelFileError(f"{where}: the field {name!r} of the registry is no mapping.")
        check_keys(field, FIELD_KEYS, f"{where}: field {name!r} of the registry")
    known = set(inspect.signature(cls.setup_anndata).parameters) - {"adata", "kwargs"}
    if set(registry["setup_args"]) != known:
        raise ModelFileError(
            f"{where}: `setup_anndata` takes {sorted(known)}, the file gives "
            f"{sorted(registry['setup_args'])}."
        )


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
    except (OSError, KeyError, ValueError, TypeError) as error:
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


def init_arguments(cls: type, saved: dict[str, Any]) -> dict[str, Any]:
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
    further = {k: v for values in saved["kwargs"].values() for k, v in values.items()}
    return {**given, **further}


def set_attributes(model: Any, saved: dict[str, Any]) -> None:
    """Set what training found; ModelFileError for names and types that a new model lacks."""
    fresh = {name: v for name, v in attributes_of(model).items() if name not in RESTORED}
    missing = sorted(fresh.keys() - saved.keys() - set(ADDED))
    extra = sorted(saved.keys() - fresh.keys())
    if missing or extra:
        raise ModelFileError(
            f"The attributes of the model lack {missing} and have {extra} beside."
        )
    for name, value in saved.items():
        if not _alike(name, fresh[name], value):
            raise ModelFileError(f"The attribute {name!r} of the model has the wrong type.")
        if name == SETTINGS:
            value = {**fresh[name], **value}
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
        return isinstance(saved, np.ndarray)
    if fresh is None:
        return True
    if name in GROWING:
        return isinstance(saved, dict) and fresh.keys() <= saved.keys()
    if name == SETTINGS:
        there = isinstance(saved, dict) and saved.keys() <= fresh.keys()
        return there and fresh.keys() - saved.keys() <= ADDED_SETTINGS
    if isinstance(fresh, dict) and fresh:
        return isinstance(saved, dict) and fresh.keys() == saved.keys()
    if isinstance(fresh, list) and fresh:
        return type(saved) is list and all(type(item) is type(fresh[0]) for item in saved)
    return type(fresh) is type(saved)


def set_weights(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Give a module weights that are all of its own; ModelFileError where they are not."""
    expected = module.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ModelFileError(f"The model has tensors that the file lacks: {listing(missing)}.")
    if extra := sorted(tensors.keys() - expected.keys()):
        raise ModelFileError(f"The file has tensors that the model lacks: {listing(extra)}.")
    for name, tensor in tensors.items():
        found, wanted = describe(tensor), describe(expected[name])
        if found != wanted:
            raise ModelFileError(
                f"The tensor {name!r} is {found['dtype']} of shape {found['shape']} in the file, "
                f"{wanted['dtype']} of shape {wanted['shape']} in the model."
            )
    module.load_state_dict(tensors)
