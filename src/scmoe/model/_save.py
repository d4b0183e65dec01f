"""Saved models: tensors and plain JSON, nothing that runs."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anndata import AnnData

from scmoe._core.atomic import write_folder
from scmoe._core.compat import on_device, show_setup, unregistered_on_failure
from scmoe._core.files import ModelFileError, json_bytes, pack_tensors, unpack_tensors
from scmoe._core.plain import to_plain
from scmoe._core.random import one_at_a_time
from scmoe._core.settings import FLAG
from scmoe._core.text import listing
from scmoe.model._outliers import with_owner, without_landmarks
from scmoe.model._saved import (
    CELLS,
    JSON,
    OF_MODEL,
    RESTORED,
    SCHEMA,
    SCHEMA_VERSION,
    SETTINGS,
    TENSORS,
    attributes_of,
    check_names,
    check_tensors,
    check_var_names,
    damaged,
    entries_of,
    init_arguments,
    make_module,
    read,
    saved_cells,
    set_attributes,
)

if TYPE_CHECKING:
    from typing import Self

    from scmoe.model._module import DescribedModule

LIBRARIES = ("scmoe", "scvi-tools", "torch", "lightning", "anndata", "numpy", "safetensors")
"""Whose versions are written down."""


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
        landmarks: bool = True,
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
        landmarks
            Save up to 3,000 of the training cells, by which new cells get an outlier score: who
            has the model can restore their values. Without them there is no outlier score, and
            :func:`scmoe.tl.assign` rejects no cell; all else is the same.
        **anndata_write_kwargs
            As in :meth:`anndata.AnnData.write_h5ad`.

        Raises
        ------
        ValueError
            A model whose networks are made when it is trained, and that was not; the folder
            exists, or holds what no model wrote; an attribute or a setting that
            can't be written as plain values (named); options that can't be honoured.

        Notes
        -----
        Without landmarks the model still holds summaries of the training cells: means and
        covariances of the clusters, and for each marker 65 quantiles of all cells and of those
        of each cluster, from the smallest value to the largest. Of a cluster of a few cells these
        are the values of its cells, marker by marker.
        """
        FLAG.check("landmarks", landmarks)
        if self.module is None:
            raise ValueError("The model has numbers to estimate and no networks yet: train first.")
        folder, prefix = Path(dir_path), _checked_prefix(prefix)
        _check_write_options(save_anndata, anndata_write_kwargs)
        _check_place(folder, prefix, overwrite)
        tensors = self.module.state_dict()
        data, tensors = pack_tensors(tensors if landmarks else without_landmarks(tensors))
        attributes = {name: v for name, v in attributes_of(self).items() if name not in RESTORED}
        attributes |= entries_of(self.settings)
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
        where = repr(str(folder))
        module = cls._saved_module(content, tensors, where)
        if adata is None:
            adata = saved_cells(folder / f"{prefix}{CELLS}", content["has_cells"])
        if not isinstance(adata, AnnData):
            raise ValueError(f"`adata` must be an AnnData, got {type(adata).__name__}.")
        check_var_names(adata, content["var_names"])
        registry = content["registry"]
        with (
            one_at_a_time(),
            unregistered_on_failure(cls, adata),
            torch.random.fork_rng(devices=[]),
        ):
            with damaged(where):
                cls.setup_anndata(adata, source_registry=registry, **registry["setup_args"])
            arguments = init_arguments(cls, content["init_params"], where)
            # networks that the arguments ask for take no memory
            with damaged(where, ValueError, ArithmeticError), torch.device("meta"):
                model = cls(adata, **arguments)
            if model.module is not None:
                check_tensors(model.module, tensors, where)
            set_attributes(model, content["attributes"])
            found = module.settings
            of_model = {name: getattr(found, name) for name in OF_MODEL}
            model.settings = replace(model.settings, **found.to_networks(), **of_model)
            model.module, module.settings = module, model.settings
            model._check_loaded(where)
        model.to_device(target)
        model.module.eval()
        model._validate_anndata(adata)
        return model

    @classmethod
    def read_saved(
        cls, dir_path: str | os.PathLike, prefix: str | None = None
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Read the description and the weights of a saved model; errors as :meth:`load`."""
        folder, prefix = Path(dir_path), _checked_prefix(prefix)
        content = read(folder, prefix, cls)
        tensors = unpack_tensors(folder / f"{prefix}{TENSORS}", content["tensors"])
        return content, with_owner(tensors)

    @classmethod
    def _saved_module(
        cls, content: dict[str, Any], tensors: dict[str, torch.Tensor], where: str
    ) -> DescribedModule:
        """Make the networks of a saved model; errors as :meth:`load`."""
        saved = content["attributes"]
        missing = [f"{name}_" for name in OF_MODEL if f"{name}_" not in saved]
        if missing or saved["scaling_"] is None:
            raise ModelFileError(
                f"The attributes of the model in {where} lack {missing or ['scaling_']}."
            )
        of_model = {name: saved[f"{name}_"] for name in OF_MODEL}
        module = make_module(cls._module_cls, saved.get(SETTINGS), tensors, where, **of_model)
        check_names(content["var_names"], module.low.numel(), "markers", where)
        return module

    def _check_loaded(self, where: str) -> None:
        """Raise ModelFileError where loaded attributes do not go together."""

    @classmethod
    def load_registry(cls, dir_path: str | os.PathLike, prefix: str | None = None) -> dict:
        """How the cells of a saved model were registered; errors as :meth:`load`."""
        return read(Path(dir_path), _checked_prefix(prefix), cls)["registry"]

    @classmethod
    def view_setup_args(cls, dir_path: str | os.PathLike, prefix: str | None = None) -> None:
        """Show the arguments of ``setup_anndata`` of a saved model; errors as :meth:`load`."""
        show_setup(cls.load_registry(dir_path, prefix))

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
