"""What the models have in common: cells, failures, files, predictions and new cells."""

from __future__ import annotations

import copy
import inspect
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# scvi-tools (1.4) shows setups by this module of rich, and does not import it
import rich.pretty  # noqa: F401
import torch
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField, NumericalObsField
from scvi.model.base import BaseModelClass, UnsupervisedTrainingMixin

from scmoe._core.cells import (
    check_adata,
    check_batches,
    check_is_adata,
    layer_values,
    warn_of_small_batches,
)
from scmoe._core.compat import interruptible, one_thread, quiet
from scmoe._core.files import ModelFileError
from scmoe._core.keys import Key
from scmoe._core.progress import is_watched, timed
from scmoe._core.scaling import value_range
from scmoe._core.settings import as_whole
from scmoe._core.text import listing
from scmoe._core.values import (
    check_training,
    check_unit_interval,
    check_values,
    dense,
    holds_images,
)
from scmoe.model._clusters import finish_clusters
from scmoe.model._generate import generate_cells
from scmoe.model._predict import LARGE_BATCH, Predictions
from scmoe.model._record import Trained, checked
from scmoe.model._save import SafeFiles
from scmoe.model._saved import NAMES, attributes_of, batch_names, saved_class
from scmoe.model._settings import AUTO, ModelSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData
    from lightning.pytorch import LightningDataModule

    from scmoe.model._module import DescribedModule


class IndexField(NumericalObsField):
    """The position of each cell, by which batches look their similarity up.

    It is written at every registration: a subset or a query that carries the positions of
    another AnnData along would be matched with the wrong cells.
    """

    COLUMN = "_indices"

    def __init__(self):
        super().__init__(REGISTRY_KEYS.INDICES_KEY, self.COLUMN)

    def register_field(self, adata: AnnData) -> dict:
        """Write the position of each cell."""
        adata.obs[self.COLUMN] = np.arange(adata.n_obs)
        return super().register_field(adata)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Write the position of each cell of the other AnnData."""
        adata_target.obs[self.COLUMN] = np.arange(adata_target.n_obs)
        return super().transfer_field(state_registry, adata_target, **kwargs)


class ExpertModel(SafeFiles, Predictions, UnsupervisedTrainingMixin, BaseModelClass):
    """A model of clusters with one decoder for each cluster.

    A published model is a subclass with its settings (:class:`ModelSettings`), its module and its
    training.
    """

    module: DescribedModule | None = None
    """The networks; None until their sizes are known."""

    settings: ModelSettings
    """Hyper-parameters, with what the cells and the training decide."""

    def __init__(self, adata: AnnData, *args: Any, **kwargs: Any):
        try:
            given = inspect.signature(type(self)).bind(adata, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        given.apply_defaults()
        check_is_adata(adata)
        arguments = {name: v for name, v in given.arguments.items() if name != "adata"}
        settings = self._module_cls.settings_class(**arguments)
        super().__init__(adata)
        self.settings = self._with_cells(settings)
        self.cluster_names_ = ["0"]
        self.estimates_: dict[str, Any] = {}
        self.init_params_ = {"kwargs": {}, "non_kwargs": arguments}
        told = ", ".join(
            f"{f.name}={value!r}"
            for f in settings.arguments()
            if (value := getattr(settings, f.name)) != f.default
        )
        self._model_summary_string = f"{type(self).__name__}({told})"

    def _with_cells(self, settings: ModelSettings) -> ModelSettings:
        """Fill in what the registered cells decide: sizes, and defaults that depend on them."""
        images = holds_images(self.adata)
        scaling = settings.scaling or ("none" if images else "quantile")
        return replace(settings, n_input=self.summary_stats.n_vars, scaling=scaling)

    @classmethod
    def _registered(
        cls,
        adata: AnnData,
        layer: str | None,
        batch_key: str | None,
        setup_method_args: dict[str, Any],
        *,
        counts: bool = False,
        if_counts: str = "",
        **kwargs,
    ) -> AnnDataManager:
        """Check cells and register them; the manager is not yet that of the class."""
        check_adata(adata)
        if batch_key is not None:
            check_batches(adata, batch_key)
            warn_of_small_batches(adata, batch_key)
        where = "`adata.X`" if layer is None else f"`adata.layers[{layer!r}]`"
        x = layer_values(adata, layer)
        check_values(x, adata.var_names, where, counts=counts, if_counts=if_counts)
        manager = AnnDataManager(
            fields=[
                LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
                CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                IndexField(),
            ],
            setup_method_args=setup_method_args,
        )
        with quiet():
            manager.register_fields(adata, **kwargs)
        return manager

    def _values(self, n_experts: int | str) -> np.ndarray:
        """Cells x markers float32, from which so many experts can learn."""
        layer = self.registry["setup_args"]["layer"]
        x = dense(layer_values(self.adata, layer))
        unscaled = self.settings.scaling == "none"
        least = 2 if n_experts in (AUTO, None) else n_experts
        check_training(x, self.adata.var_names, least, constant=unscaled)
        if unscaled and self.settings.likelihood == "bernoulli":
            check_unit_interval(x, self.adata.var_names)
        return x

    def _tensors(self, x: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the tensors that batches are drawn from: values, and batches of cells if used."""
        # torch warns of arrays that it could not write to
        tensors = {REGISTRY_KEYS.X_KEY: torch.from_numpy(np.require(x, requirements="W"))}
        if self.module.n_batch:
            batch = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)
            tensors[REGISTRY_KEYS.BATCH_KEY] = torch.from_numpy(batch.astype(np.int64)).view(-1, 1)
        return tensors

    @contextmanager
    def _training(self, batch_size: int) -> Iterator[None]:
        """Train quietly and interruptibly; a failure leaves the model as it was."""
        small = self.adata.n_vars * batch_size < LARGE_BATCH
        with self._as_it_was_on_failure(), interruptible(), quiet(), one_thread(small):
            yield

    def _fit(self, max_epochs: int, batches: LightningDataModule, **settings: Any) -> None:
        """Run one stage of a training on batches of cells, with arguments of scvi-tools."""
        # Lightning and torch take no whole numbers of numpy
        settings = {name: as_whole(value) for name, value in settings.items()}
        progress = settings.pop("enable_progress_bar", True)
        settings["enable_progress_bar"] = progress and is_watched()
        # scvi-tools leaves a trained or loaded module in eval mode, which has no noise
        self.module.train()
        with timed("training", progress=progress):
            UnsupervisedTrainingMixin.train(
                self, as_whole(max_epochs), datamodule=batches, **settings
            )

    def _build(self) -> None:
        """Make the networks, once all of their sizes are known."""
        self.module = self._module_cls(self.settings)

    def _number_clusters(self) -> None:
        """Name clusters by the numbers of their experts."""
        self.cluster_names_ = [str(k) for k in range(self.module.n_experts)]

    def _outputs(self) -> Iterator[dict[str, torch.Tensor]]:
        """Pass all cells through the networks, batch by batch."""
        return self._infer(self.adata, None, None)

    @torch.inference_mode()
    def _finish_clusters(self, names: Sequence[str] = ()) -> None:
        """Order, retire and describe the trained clusters; the first have these names."""
        self.cluster_names_ = finish_clusters(
            self.module, list(names), self._outputs, self.adata.n_obs, self.settings.min_cells
        )

    @property
    def batch_names(self) -> list[str]:
        """Names of the batches of the training cells; one, ``"0"``, without ``batch_key``."""
        return batch_names(self.registry)

    @contextmanager
    def _as_it_was_on_failure(self) -> Iterator[None]:
        """Give the model back as it was when it cannot be trained, or not any further."""
        # not the weights alone: experts may have other numbers by then, and other sizes
        module = copy.deepcopy(self.module)
        settings = self.settings
        before = {name: copy.copy(value) for name, value in attributes_of(self).items()}
        try:
            yield
        except BaseException:
            self.module, self.settings = module, settings
            for name, value in before.items():
                setattr(self, name, value)
            raise

    def _check_loaded(self, where: str) -> None:
        checked(self.module, self.cluster_names_, self.batch_names, where)

    def _fit_scaling(self, x: np.ndarray) -> None:
        """Set the range of each marker, from cells x markers."""
        for buffer, limit in zip(
            (self.module.low, self.module.high), value_range(x, self.settings.scaling), strict=True
        ):
            buffer.copy_(torch.from_numpy(limit))

    @property
    def trained(self) -> Trained:
        """The module with the names of clusters and batches; without the cells."""
        self._check_if_trained(warn=False)
        return Trained(self.module, self.cluster_names_, self.batch_names)

    @classmethod
    def read_trained(cls, dir_path: str | os.PathLike) -> tuple[Trained, dict[str, Any]]:
        """Read the trained part of a saved model, and the registry of its cells.

        Errors as :meth:`load`.
        """
        content, tensors = cls.read_saved(dir_path)
        registry, attributes = content["registry"], content["attributes"]
        where = repr(str(dir_path))
        module, names = cls._saved_module(content, tensors, where), attributes.get(NAMES)
        if not isinstance(names, list) or attributes.get("is_trained_") not in (True, False):
            raise ModelFileError(f"The attributes of the model in {where} are damaged.")
        if not attributes["is_trained_"]:
            raise ModelFileError(f"The model in {where} was saved before it was trained.")
        return checked(module, names, batch_names(registry), where), registry

    def generate(
        self,
        n: int | Mapping[str, int],
        clusters: Sequence[str] | None = None,
        *,
        batch: str | None = None,
        gate: str = "requested",
        prior: str = "fitted",
        noise: bool | None = None,
        calibrate: bool | None = None,
        random_state: int | np.random.Generator = 0,
    ) -> AnnData:
        """Draw new cells of the clusters.

        Parameters
        ----------
        n
            Number of cells in all, or a mapping of clusters to the number of cells of each.
        clusters
            Clusters to draw from, in proportion to their sizes; all by default.
        batch, gate, prior, noise, calibrate, random_state
            As in :func:`scmoe.tl.generate`, which does the same from an AnnData.

        Returns
        -------
        ``(n, n_vars)`` float32, on the scale of the values that were trained on, with the
        slots that :func:`scmoe.tl.generate` names.

        Raises
        ------
        KeyError, ValueError
            As :func:`scmoe.tl.generate`.
        """
        return generate_cells(
            self.trained,
            self.adata,
            n,
            clusters,
            key=Key.DEFAULT,
            layer=self.registry["setup_args"]["layer"],
            batch_key=self.registry["setup_args"].get("batch_key"),
            batch=batch,
            gate=gate,
            prior=prior,
            noise=noise,
            calibrate=calibrate,
            random_state=random_state,
        )


def read_trained(dir_path: str | os.PathLike) -> tuple[Trained, dict[str, Any]]:
    """Read the trained part of a saved model of any kind, and the registry of its cells.

    Raises
    ------
    ModelFileError
        As :meth:`MoESimVAE.load`.
    """
    name = saved_class(Path(dir_path))
    models = {model.__name__: model for model in ExpertModel.__subclasses__()}
    if name not in models:
        raise ModelFileError(
            f"{str(dir_path)!r} holds a model of the class {name!r}; known are "
            f"{listing(list(models))}."
        )
    return models[name].read_trained(dir_path)
