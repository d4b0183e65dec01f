"""Saved models: tensors and plain JSON, nothing that runs."""

from __future__ import annotations

import inspect
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi.data import AnnDataManager

from scmoe._checks import listing
from scmoe._compat import on_device, unregistered_on_failure
from scmoe._plain import from_plain, to_plain
from scmoe._store import (
    ModelFileError,
    check_keys,
    describe,
    json_bytes,
    pack_tensors,
    read_json,
    unpack_tensors,
    write_folder,
)

if TYPE_CHECKING:
    from typing import Self

SCHEMA = "scmoe model"
SCHEMA_VERSION = 1

JSON, TENSORS, CELLS = "model.json", "model.safetensors", "adata.h5ad"
"""Names of the files, after the prefix."""

PICKLES = ("model.pt", "model_params.pt", "attr.pkl")
"""What scvi-tools calls its files."""

LIBRARIES = ("scmoe", "scvi-tools", "torch", "lightning", "anndata", "numpy", "safetensors")
"""Whose versions are written down."""

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

RESTORED = ("registry_", "init_params_")
"""Attributes that the constructor sets from what is saved."""


class SafeFiles:
    """Saving and loading of scvi-tools models without pickle.

    Put it before ``BaseModelClass``. Attributes that end in an underscore are saved; the
    constructor must set all of them, and one that it sets to something other than None must keep
    its type.
    """

    def save(
        self,
        dir_path: str | os.PathLike,
        *,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        **anndata_write_kwargs,
    ) -> None:
        """Save the model: a folder of ``model.safetensors`` and ``model.json``.

        The folder is written beside, then takes the name: an error, or a process that is
        killed, leaves no half of a model, and the model that was there before as it was.

        Parameters
        ----------
        dir_path
            The folder. It must not exist, or hold a saved model if ``overwrite``.
        prefix
            Put before the names of the files.
        overwrite
            Replace a model that is there.
        save_anndata
            Save the cells too, as ``adata.h5ad``.
        **anndata_write_kwargs
            As in :meth:`anndata.AnnData.write_h5ad`.

        Raises
        ------
        ValueError
            The folder exists, or holds what no model wrote; an attribute or a setting that
            can't be written as plain values (named); options that can't be honoured.
        """
        folder, prefix = Path(dir_path), _checked_prefix(prefix)
        _check_write_options(save_anndata, anndata_write_kwargs)
        _check_place(folder, prefix, overwrite)
        data, tensors = pack_tensors(self.module.state_dict())
        attributes = {name: v for name, v in _attributes(self).items() if name not in RESTORED}
        description = {
            "class": type(self).__name__,
            "versions": {name: version(name) for name in LIBRARIES},
            "registry": to_plain(self.registry_, "registry"),
            "init_params": to_plain(self.init_params_, "init_params"),
            "attributes": to_plain(attributes, "attributes"),
            "var_names": [str(name) for name in self.adata.var_names],
            "has_cells": save_anndata,
            "tensors": tensors,
        }
        files = {
            prefix + JSON: json_bytes(SCHEMA, SCHEMA_VERSION, description),
            prefix + TENSORS: data,
        }
        if save_anndata:
            files[prefix + CELLS] = lambda path: self.adata.write_h5ad(
                path, **anndata_write_kwargs
            )
        write_folder(folder, files, replace=overwrite)

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike,
        adata: AnnData | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
    ) -> Self:
        """Load a saved model; no program in the files is ever run.

        Parameters
        ----------
        dir_path
            The folder that was given to :meth:`save`.
        adata
            Cells with the markers of the training cells, in their order; registered as the
            training cells were. None for the cells that were saved with the model.
        accelerator, device
            As in scvi-tools; a model that was trained on a GPU loads on the CPU too.
        prefix
            As given to :meth:`save`.

        Raises
        ------
        ModelFileError
            No model is there, or one that scvi-tools pickled; files that are damaged, of
            another model, of another class, or of a version that this one does not know. It is
            a ValueError.
        ValueError, KeyError
            Cells that do not fit the model; as :meth:`setup_anndata`. They are left as they
            were.
        """
        target = on_device(accelerator, device)
        folder, prefix = Path(dir_path), _checked_prefix(prefix)
        content, tensors = cls.read_saved(folder, prefix)
        if adata is None:
            adata = _saved_cells(folder / f"{prefix}{CELLS}", content["has_cells"])
        if not isinstance(adata, AnnData):
            raise ValueError(f"`adata` must be an AnnData, got {type(adata).__name__}.")
        _check_var_names(adata, content["var_names"])
        registry = content["registry"]
        with unregistered_on_failure(cls, adata), torch.random.fork_rng(devices=[]):
            try:
                cls.setup_anndata(adata, source_registry=registry, **registry["setup_args"])
                model = cls(adata, **_init_arguments(cls, content["init_params"]))
            except (TypeError, AttributeError) as error:
                raise ModelFileError(
                    f"The settings in {str(folder)!r} are damaged: {error}"
                ) from error
            _set_attributes(model, content["attributes"])
            set_weights(model.module, tensors)
            model._check_loaded()
        model.to_device(target)
        model.module.eval()
        model._validate_anndata(adata)
        return model

    @classmethod
    def read_saved(
        cls, dir_path: str | os.PathLike, prefix: str | None = None
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """What a saved model says of itself, and its weights; errors as :meth:`load`."""
        folder, prefix = Path(dir_path), _checked_prefix(prefix)
        content = _read(folder, prefix, cls)
        return content, unpack_tensors(folder / f"{prefix}{TENSORS}", content["tensors"])

    def _check_loaded(self) -> None:
        """Raise ModelFileError where loaded attributes do not go together."""

    @classmethod
    def load_registry(cls, dir_path: str | os.PathLike, prefix: str | None = None) -> dict:
        """How the cells of a saved model were registered; errors as :meth:`load`."""
        return _read(Path(dir_path), _checked_prefix(prefix), cls)["registry"]

    @classmethod
    def view_setup_args(cls, dir_path: str | os.PathLike, prefix: str | None = None) -> None:
        """Show the arguments of ``setup_anndata`` of a saved model; errors as :meth:`load`."""
        AnnDataManager.view_setup_method_args(cls.load_registry(dir_path, prefix))

    @classmethod
    def convert_legacy_save(cls, *args, **kwargs) -> None:
        """Refuse: files of scvi-tools before 0.15 are pickles, and none are models of scmoe."""
        raise ModelFileError(
            "Legacy models are pickles. Pickles can run programs, so they are never opened."
        )


def _checked_prefix(prefix: str | None) -> str:
    prefix = prefix or ""
    if not isinstance(prefix, str) or os.path.basename(prefix) != prefix:
        raise ValueError(f"`prefix` must be a string without separators, got {prefix!r}.")
    return prefix


def _check_write_options(save_anndata: bool, options: dict[str, Any]) -> None:
    known = set(inspect.signature(AnnData.write_h5ad).parameters) - {"self", "filename"}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(
            f"`save` can't honour {listing(unknown)}: a model is saved as tensors and JSON, and "
            f"further options are those of `AnnData.write_h5ad`."
        )
    if options and not save_anndata:
        raise ValueError(f"{listing(sorted(options))} needs `save_anndata=True`.")


def _check_place(folder: Path, prefix: str, overwrite: bool) -> None:
    """Raise ValueError where a model must not be written."""
    if not folder.exists():
        return
    if not overwrite:
        raise ValueError(
            f"{str(folder)!r} exists already. Name another folder, or use `overwrite=True`."
        )
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file; a model is saved as a folder.")
    own = {prefix + name for name in (JSON, TENSORS, CELLS)}
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in own)
    if others:
        raise ValueError(
            f"{str(folder)!r} holds {listing(others)}, which would be lost: a folder belongs to "
            "one model. Name another folder."
        )


def _attributes(model: Any) -> dict[str, Any]:
    """What scvi-tools would save: attributes that end in one underscore."""
    return {
        name: value
        for name, value in sorted(vars(model).items())
        if name.endswith("_") and not name.startswith("_")
    }


def _read(folder: Path, prefix: str, cls: type) -> dict[str, Any]:
    """What ``model.json`` says, checked and without its encoding."""
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
    content = read_json(path, SCHEMA, SCHEMA_VERSION, KEYS)
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


def _saved_cells(path: Path, has_cells: bool) -> AnnData:
    if not has_cells:
        raise ModelFileError(
            f"The model in {str(path.parent)!r} was saved without its cells. Give cells as "
            "`adata`, or save with `save_anndata=True`."
        )
    if not path.is_file():
        raise ModelFileError(f"{str(path)!r} is missing; give cells as `adata`.")
    try:
        return ad.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError, ad.io.AnnDataReadError) as error:
        raise ModelFileError(f"{str(path)!r} is no h5ad file: {error}") from error


def _check_var_names(adata: AnnData, names: list[str]) -> None:
    """Raise unless the cells have the markers of the model in their order."""
    missing = [name for name in names if name not in adata.var_names]
    if missing:
        raise KeyError(f"The model was trained with markers that are missing: {listing(missing)}.")
    if list(adata.var_names) != names:
        raise ValueError(
            "The cells have further markers than the model, or the same in another order. Give "
            f"`adata[:, names].copy()` with the names {listing(names)}."
        )


def _init_arguments(cls: type, saved: dict[str, Any]) -> dict[str, Any]:
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


def _set_attributes(model: Any, saved: dict[str, Any]) -> None:
    """Set what training found; ModelFileError for names and types that a new model lacks."""
    fresh = {name: v for name, v in _attributes(model).items() if name not in RESTORED}
    missing, extra = sorted(fresh.keys() - saved.keys()), sorted(saved.keys() - fresh.keys())
    if missing or extra:
        raise ModelFileError(
            f"The attributes of the model lack {missing} and have {extra} beside."
        )
    for name, value in saved.items():
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
        return isinstance(saved, np.ndarray)
    if fresh is None:
        return True
    if isinstance(fresh, dict) and fresh:
        return isinstance(saved, dict) and fresh.keys() == saved.keys()
    if isinstance(fresh, list) and fresh:
        return type(saved) is list and all(type(item) is type(fresh[0]) for item in saved)
    return type(fresh) is type(saved)


def set_weights(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
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
