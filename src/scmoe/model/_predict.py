"""Pass cells through trained networks, and the predictions of a model."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from natsort import natsorted
from scvi import REGISTRY_KEYS

from scmoe._core.cells import check_batches, check_is_adata, check_names, layer_values
from scmoe._core.compat import one_thread
from scmoe._core.rows import CHUNK, Rows
from scmoe._core.text import listing, with_docs
from scmoe._core.values import check_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anndata import AnnData

    from scmoe.model._module import DescribedModule


LARGE_BATCH = 250_000
"""Values in a batch from which a second thread pays."""

OUTLIER = "outlier"
"""What is said of cells beside the outputs of their module."""

PREDICTIONS = ("latent", "proba", "expert", OUTLIER)
"""What a clustering says of cells, whatever the model."""


def outputs_of(
    module: DescribedModule,
    cells: np.ndarray,
    batch: np.ndarray | None = None,
    chunk: int | None = None,
) -> Iterator[dict[str, torch.Tensor]]:
    """Iterate over the outputs of a trained module, chunk by chunk.

    Parameters
    ----------
    module
        The module.
    cells
        Cells x markers, float32, in the order of the training markers.
    batch
        Number of the batch of each cell, ``(n,)``; None for the first.
    chunk
        Cells at a time.

    Yields
    ------
    What ``inference`` gives, with ``position`` (n, n_markers), the scaled markers, not clipped.

    Raises
    ------
    ValueError
        Cells whose probabilities are no numbers.
    """
    device = module.low.device
    # launches cost a GPU more than sums: it takes all cells of a block at once
    chunk = chunk or (CHUNK if device.type == "cpu" else max(len(cells), 1))
    module.eval()
    for start in range(0, len(cells), chunk):
        some = slice(start, start + chunk)
        x = torch.from_numpy(cells[some]).to(device)
        of_batch = None if batch is None else torch.from_numpy(batch[some, None]).to(device)
        with torch.inference_mode(), one_thread(x.numel() < LARGE_BATCH):
            outputs = module.inference(x, of_batch)
            check_told(outputs["proba"])
            outputs["position"] = module.position(x)
        yield outputs


def predict_blocks(
    module: DescribedModule,
    rows: Rows,
    names: Sequence[str],
    batch: np.ndarray | None = None,
    chunk: int | None = None,
    more: Callable[..., Any] | None = None,
    *of_cells: np.ndarray | None,
) -> Iterator[tuple[slice, dict[str, np.ndarray], Any]]:
    """Predict cells block by block, in this process or on workers.

    Parameters
    ----------
    module, batch, chunk
        As in :func:`outputs_of`.
    rows
        Cells x markers, in the order of the training markers.
    names
        Which outputs, and ``"outlier"``: NaN where the module was saved without landmarks.
    more
        What else is asked of a block: a function, as in :meth:`scmoe._core.rows.Rows.map`, of its
        values, its arrays by name, and its part of each of ``of_cells``.

    Yields
    ------
    Place of the block among the cells, its arrays by name, and what ``more`` gave.
    """
    if rows.client is not None and module.low.device.type != "cpu":
        # workers need not have such a device
        module = deepcopy(module).cpu()
    look = partial(_look_at, module, tuple(names), chunk, more)
    for place, (found, told) in rows.map(look, batch, *of_cells):
        yield place, found, told


def _look_at(
    module: DescribedModule,
    names: tuple[str, ...],
    chunk: int | None,
    more: Callable[..., Any] | None,
    block: np.ndarray,
    batch: np.ndarray | None,
    *of_cells: np.ndarray | None,
) -> tuple[dict[str, np.ndarray], Any]:
    """Return the arrays of a block by name, and the result of ``more``."""
    scored = OUTLIER in names and module.outliers.available
    needed = {*names, *(("position", "expert") if scored else ())} - {OUTLIER}
    parts = [
        {name: outputs[name].numpy(force=True) for name in needed}
        for outputs in outputs_of(module, block, batch, chunk)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in needed}
    found[OUTLIER] = np.full(len(block), np.nan, np.float32)
    if scored:
        found[OUTLIER] = module.outliers.score(found["position"], found["expert"])
    found = {name: found[name] for name in names}
    return found, None if more is None else more(block, found, *of_cells)


def fill_block(
    arrays: dict[str, np.ndarray], n: int, place: slice, part: dict[str, np.ndarray]
) -> None:
    """Write the arrays of a block into those of all ``n`` cells, and make missing ones."""
    for name, values in part.items():
        if name not in arrays:
            arrays[name] = np.empty((n, *values.shape[1:]), values.dtype)
        arrays[name][place] = values


def predict_cells(
    module: DescribedModule,
    rows: Rows,
    names: Sequence[str],
    batch: np.ndarray | None = None,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """Predict all cells; see :func:`predict_blocks`."""
    found: dict[str, np.ndarray] = {}
    for place, part, _ in predict_blocks(module, rows, names, batch, chunk):
        fill_block(found, len(rows), place, part)
    return found


def check_told(proba: torch.Tensor) -> None:
    """Raise ValueError for cells whose probabilities are no numbers."""
    unknown = int((~proba.isfinite()).any(-1).sum())
    if unknown:
        raise ValueError(
            f"The model gives {unknown} of {len(proba)} cells probabilities that are no numbers: "
            "values of these cells are too large for it, or its weights are."
        )


of_cells = with_docs(
    {
        "cells": """\
adata
    Cells with the markers of the training cells, in any order; None for the training cells.
indices
    Positions of the cells to use; None for all.
batch_size
    Cells in each pass through the networks; None for as many as are fast.""",
        "errors": """\
KeyError
    Markers of the training cells are missing.
ValueError
    Invalid cells, as for :meth:`setup_anndata`; ``indices`` out of range.""",
    }
)
"""Fill ``{cells}`` and ``{errors}``, which all predictions share, into a docstring."""


class Predictions:
    """Codes, clusters and outlier scores, by a module with an encoder and a gate.

    Put it before ``BaseModelClass``; the model has ``cluster_names_`` and ``batch_names``, and
    registers ``layer`` and ``batch_key``.
    """

    @of_cells
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the latent representation of cells.

        Parameters
        ----------
        {cells}

        Returns
        -------
        ``(n, n_latent)`` float32.

        Raises
        ------
        {errors}
        """
        return self._predict_array("latent", adata, indices, batch_size)

    @of_cells
    def predict_proba(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Predict the probability of each cluster.

        Parameters
        ----------
        {cells}

        Returns
        -------
        Cells x experts float32; rows sum to 1. All experts have a column, also those that own no
        cell.

        Raises
        ------
        {errors}
        """
        values = self._predict_array("proba", adata, indices, batch_size)
        return self._by_cluster(values, adata, indices)

    @of_cells
    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Predict the most probable cluster of each cell.

        Clusters are numbered by size among the training cells: ``"0"`` is the largest. Clusters
        of listed classes have the names of the classes.

        Parameters
        ----------
        {cells}

        Returns
        -------
        ``(n,)`` str.

        Raises
        ------
        {errors}
        """
        expert = self._predict_array("expert", adata, indices, batch_size)
        return np.asarray(self.cluster_names_, dtype=object)[expert]

    @of_cells
    def outlier_score(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Score how far each cell is from the training cells.

        The score is the share of training cells that are nearer to their fifth nearest landmark;
        landmarks are a sample of the training cells, here those of the cluster of a cell unless
        these are few. 0.99 means farther than 99 % of the training cells: one in a hundred cells
        that are like the training cells has a higher score.

        Parameters
        ----------
        {cells}

        Returns
        -------
        ``(n,)`` float32 in [0, 1].

        Raises
        ------
        {errors}
            Also for a model that was saved with ``landmarks=False``.
        """
        self._check_if_trained(warn=False)
        self.module.outliers.check_available()
        return self._predict_array(OUTLIER, adata, indices, batch_size)

    def _predict_array(
        self,
        name: str,
        adata: AnnData | None,
        indices: Sequence[int] | None,
        batch_size: int | None,
    ) -> np.ndarray:
        """Compute one of the arrays of :func:`predict_blocks` for all cells."""
        rows, batch = self._cells(adata, indices)
        return predict_cells(self.module, rows, (name,), batch, batch_size)[name]

    def _collect(
        self,
        pick: Callable[[dict[str, torch.Tensor]], torch.Tensor],
        adata: AnnData | None,
        indices: Sequence[int] | None,
        batch_size: int | None,
    ) -> np.ndarray:
        """Pick arrays from the outputs of the module, for all cells."""
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
        """Iterate over the outputs of the trained module, chunk by chunk."""
        rows, batch = self._cells(adata, indices)
        for place, block in rows:
            yield from outputs_of(self.module, block, batch[place], batch_size)

    def _cells(
        self, adata: AnnData | None, indices: Sequence[int] | None
    ) -> tuple[Rows, np.ndarray]:
        """Values in the order of the training markers, and the number of the batch of each cell.

        None for the training cells.
        """
        self._check_if_trained(warn=False)
        if indices is not None and len(indices) == 0:
            raise ValueError("There are no cells to predict: `indices` is empty.")
        layer, batch_key = (self.registry["setup_args"].get(k) for k in ("layer", "batch_key"))
        if adata is None or adata is self.adata:
            x = layer_values(self.adata, layer)
            columns = None
            batch = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        else:
            x, columns = self._values_of(adata, layer)
            batch = np.zeros(adata.n_obs, dtype=np.int64)
            if batch_key is not None and self.module.encode_batch:
                batch = self._known_batches(adata, batch_key)
        if indices is not None:
            indices = np.asarray(indices)
            _check_indices(indices, x.shape[0])
            x, batch = x[indices], batch[indices]
        return Rows(x, columns), batch

    def _values_of(self, adata: AnnData, layer: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Check the matrix of new cells, and find the training markers in it."""
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
        x, columns = layer_values(adata, layer), adata.var_names.get_indexer(names)
        counts = self.registry["setup_args"].get("counts", False)
        check_values(x[:, columns], names, "The matrix of the new cells", counts=counts)
        return x, columns

    def _known_batches(self, adata: AnnData, batch_key: str) -> np.ndarray:
        """Numbers of the batches of new cells, ``(n,)``."""
        known = self.batch_names
        check_batches(adata, batch_key)
        batches = adata.obs[batch_key].astype(str)
        unknown = set(batches) - set(known)
        if unknown:
            raise ValueError(
                f"The model has never seen the batch {listing(natsorted(unknown))}; it knows "
                f"{listing(known)}. With `encode_batch=False` it could do without."
            )
        return pd.Index(known).get_indexer(batches)


def _check_indices(indices: np.ndarray, n_obs: int) -> None:
    """Raise ValueError for positions of cells that there are not."""
    if indices.dtype != bool and not (-n_obs <= indices.min() <= indices.max() < n_obs):
        raise ValueError(
            f"`indices` must be from 0 to {n_obs - 1}, got {indices.min()} to {indices.max()}."
        )
