"""What a trained model says of cells, also of new ones."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from natsort import natsorted
from scvi import REGISTRY_KEYS

from scmoe._checks import (
    check_batches,
    check_is_adata,
    check_names,
    check_values,
    dense,
    layer_values,
    listing,
)
from scmoe._compat import forget, one_thread, quiet
from scmoe.model._record import PREDICT_BATCH, check_told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LARGE_BATCH = 250_000
"""Values in a batch from which a second thread pays."""


class Predictions:
    """Codes, clusters and outlier scores, by a module with an encoder and a gate.

    Put it before ``BaseModelClass``; the model has ``cluster_names_`` and ``batch_names``, and
    registers ``layer`` and ``batch_key``.
    """

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Codes of the cells, ``(n, n_latent)`` float32.

        Parameters
        ----------
        adata
            Cells with the markers of the training cells, in any order; None for the
            training cells.
        indices
            Which cells; all by default.
        batch_size
            Cells at a time.

        Raises
        ------
        KeyError
            Markers of the training cells are missing.
        ValueError
            As :meth:`setup_anndata`; cells that there are not.
        """
        return self._collect(itemgetter("latent"), adata, indices, batch_size)

    def predict_proba(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Probability of each cluster, cells x experts float32; parameters as for the codes.

        All experts have a column, also those that own no cell. Rows sum to 1.
        """
        values = self._collect(itemgetter("proba"), adata, indices, batch_size)
        return self._by_cluster(values, adata, indices)

    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Most probable cluster of each cell, ``(n,)`` str; parameters as for the codes.

        Clusters are numbered by size among the training cells: ``"0"`` is the largest. Those
        of listed classes have the names of the classes.
        """
        expert = self._collect(itemgetter("expert"), adata, indices, batch_size)
        return np.asarray(self.cluster_names_, dtype=object)[expert]

    def outlier_score(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """How far each cell is from the training cells, ``(n,)`` float32 in [0, 1].

        The share of training cells that are nearer to their fifth nearest landmark, a sample
        of the training cells: 0.99 means stranger than 99 % of them. So one in a hundred cells
        that are like the training cells lies above 0.99. Parameters as for the codes. Raises
        ValueError too where the model was saved with ``landmarks=False``.
        """
        position = self._collect(itemgetter("position"), adata, indices, batch_size)
        return self.module.outliers.score(position)

    def _collect(
        self,
        pick: Callable[[dict[str, torch.Tensor]], torch.Tensor],
        adata: AnnData | None,
        indices: Sequence[int] | None,
        batch_size: int | None,
    ) -> np.ndarray:
        """What is picked from the outputs of the module, for all cells."""
        with torch.inference_mode():
            parts = [pick(outputs).cpu() for outputs in self._infer(adata, indices, batch_size)]
        return torch.cat(parts).numpy()

    def _by_cluster(
        self, values: np.ndarray, adata: AnnData | None, indices: Sequence[int] | None
    ) -> pd.DataFrame:
        """Cells x experts with their names."""
        names = (self.adata if adata is None else adata).obs_names
        return pd.DataFrame(
            values,
            index=names if indices is None else names[np.asarray(indices)],
            columns=self.cluster_names_,
        )

    def _infer(self, adata, indices, batch_size) -> Iterator[dict[str, torch.Tensor]]:
        """Outputs of the trained module, batch by batch."""
        self._check_if_trained(warn=False)
        if indices is not None and len(indices) == 0:
            raise ValueError("There are no cells to predict: `indices` is empty.")
        new = adata is not None and adata is not self.adata
        if indices is not None:
            _check_indices(np.asarray(indices), (adata if new else self.adata).n_obs)
        with quiet():
            adata = self._validate_anndata(self._match(adata) if new else adata)
        self.module.eval()
        loader = self._make_data_loader(
            adata=adata, indices=indices, batch_size=batch_size or PREDICT_BATCH
        )
        try:
            for tensors in loader:
                inputs = self.module._get_inference_input(tensors)
                with one_thread(inputs["x"].numel() < LARGE_BATCH):
                    outputs = self.module.inference(**inputs)
                    check_told(outputs["proba"])
                    outputs["position"] = self.module.position(inputs["x"].to(self.device))
                yield outputs
        finally:
            if new:
                forget(self, adata)

    def _match(self, adata: AnnData) -> AnnData:
        """The values of new cells in the order of the training markers, as an AnnData of its own.

        scvi-tools writes to what it registers; the user's cells stay as they are.
        """
        check_is_adata(adata)
        registered = self.registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
        names = pd.Index(registered["column_names"])
        missing = names.difference(adata.var_names, sort=False)
        if len(missing):
            raise KeyError(
                f"The model was trained with markers that are missing: {listing(list(missing))}."
            )
        if adata.n_obs == 0:
            raise ValueError("There are no cells to predict.")
        check_names(adata)
        layer, batch_key = (self.registry["setup_args"].get(k) for k in ("layer", "batch_key"))
        obs = pd.DataFrame(index=adata.obs_names)
        if batch_key is not None:
            obs[batch_key] = self._known_batches(adata, batch_key)
        x = layer_values(adata, layer)
        if not names.equals(adata.var_names):
            x = x[:, adata.var_names.get_indexer(names)]
        counts = self.registry["setup_args"].get("counts", False)
        check_values(x, names, "The matrix of the new cells", counts=counts)
        x = dense(x)
        return AnnData(
            x if layer is None else None,
            obs=obs,
            var=pd.DataFrame(index=names),
            layers={} if layer is None else {layer: x},
        )

    def _known_batches(self, adata: AnnData, batch_key: str) -> pd.Categorical:
        """Batches of new cells, which only an encoder that looks at them need know."""
        known, registered = self.batch_names, self._registered_batches()
        if not self.module.encode_batch:
            return pd.Categorical([registered[0]] * adata.n_obs, categories=registered)
        check_batches(adata, batch_key)
        unknown = set(adata.obs[batch_key].astype(str)) - set(known)
        if unknown:
            raise ValueError(
                f"The model has never seen the batch {listing(natsorted(unknown))}; it knows "
                f"{listing(known)}. With `encode_batch=False` it could do without."
            )
        codes = pd.Index(known).get_indexer(adata.obs[batch_key].astype(str))
        return pd.Categorical.from_codes(codes, categories=registered)

    def _registered_batches(self) -> np.ndarray:
        """The batches as they were registered: numbers may be among them."""
        registered = self.registry["field_registries"][REGISTRY_KEYS.BATCH_KEY]["state_registry"]
        return np.asarray(registered["categorical_mapping"])


def _check_indices(indices: np.ndarray, n_obs: int) -> None:
    """Raise ValueError for positions of cells that there are not."""
    if indices.dtype != bool and not (-n_obs <= indices.min() <= indices.max() < n_obs):
        raise ValueError(
            f"`indices` must be from 0 to {n_obs - 1}, got {indices.min()} to {indices.max()}."
        )
