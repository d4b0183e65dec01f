"""How cells and their similarity become batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.dataloaders import DataSplitter
from torch.utils.data import DataLoader, Sampler

from scmoe.train._keys import BATCH_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scmoe.similarity import Target
    from scmoe.train._fit import Augment


ROUNDING = 1e-9
"""Shares such as 0.9 and 0.1 are not 1 to the last bit."""


def check_shares(train_size: float, validation_size: float | None) -> None:
    """Raise ValueError for shares out of range, or above 1 together."""
    if isinstance(train_size, str) or not 0 < train_size <= 1:
        raise ValueError(f"`train_size` must be above 0 and at most 1, got {train_size!r}.")
    if validation_size is not None and not 0 <= validation_size <= 1 - train_size + ROUNDING:
        raise ValueError(
            "`validation_size` must be 0 or more, and at most 1 together with `train_size`; got "
            f"{validation_size} with {train_size}."
        )


def split_cells(
    target: Target,
    n_obs: int,
    train_size: float,
    validation_size: float | None,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Indices of the cells that train, that validate, and of all others.

    Shares are of the cells that the similarity can teach. The first two are drawn where not all
    cells train.
    """
    taught = np.arange(n_obs) if target.cells is None else target.cells
    return split_indices(taught, n_obs, train_size, validation_size, rng)


def split_indices(
    taught: np.ndarray,
    n_obs: int,
    train_size: float,
    validation_size: float | None,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """:func:`split_cells` of the cells that are named.

    scvi-tools would draw them by ``scvi.settings.seed``, and without one anew every time.
    """
    taught = rng.permutation(taught) if train_size < 1 else taught
    n_train = math.ceil(train_size * len(taught))
    n_seen = len(taught)
    if validation_size is not None:
        n_seen = min(n_train + math.floor(validation_size * n_seen), n_seen)
    others = np.setdiff1d(np.arange(n_obs), taught[:n_seen])
    return [taught[:n_train], taught[n_train:n_seen], others]


def frequencies(target: Target, cells: np.ndarray, n_obs: int) -> np.ndarray:
    """How many random cells each drawn cell stands for, ``(n_obs,)`` float32.

    The mean over what a target draws of ``cells`` is 1, as it is over cells drawn at random.
    """
    found = np.ones(n_obs, np.float32)
    weight = target.draw_weights(cells)
    if weight is not None:
        found[cells] = weight.mean() / weight
    return found


class TargetSampler(Sampler):
    """Batches that a similarity draws itself, as positions in the training cells."""

    def __init__(
        self, target: Target, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ):
        self.target = target
        self.cells = cells
        self.batch_size = min(batch_size, len(cells))
        self.rng = rng

    def __len__(self) -> int:
        return -(-len(self.cells) // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.target.batches(self.cells, self.batch_size, self.rng))


class SimilaritySplitter(DataSplitter):
    """scvi-tools' splitter, which also hands every batch the similarity of its cells.

    Parameters
    ----------
    adata_manager
        Manager with the cell index registered under ``REGISTRY_KEYS.INDICES_KEY``.
    target
        The bound similarity.
    rng
        Draws batches and pairs.
    started
        Whether the model has started from the groups of the target. Then pairs are listed in
        batches of any size, and a training batch says how many cells each of its cells stands for.
    **kwargs
        As in :class:`scvi.dataloaders.DataSplitter`.
    """

    def __init__(
        self,
        adata_manager,
        *,
        target: Target,
        rng: np.random.Generator,
        started: bool = False,
        **kwargs,
    ):
        super().__init__(adata_manager, **kwargs)
        self.target = target
        self.rng = rng
        self.started = started
        self._frequency: np.ndarray | None = None

    def train_dataloader(self) -> DataLoader:
        """Batches drawn by the similarity if it wants to, else at random."""
        cells = np.asarray(self.train_idx)
        batch_size = self.data_loader_kwargs["batch_size"]
        if self.started:
            self._frequency = frequencies(self.target, cells, self.adata_manager.adata.n_obs)
        if self.target.batches(cells, batch_size, self.rng) is None:
            return super().train_dataloader()
        return DataLoader(
            self.adata_manager.create_torch_dataset(indices=cells),
            sampler=TargetSampler(self.target, cells, batch_size, self.rng),
            batch_size=None,
        )

    def on_before_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Add the similarity of the batch: classes, and pairs, dense or listed."""
        cells = batch[REGISTRY_KEYS.INDICES_KEY].numpy().astype(np.int64).ravel()
        share = self.target.class_share
        if share > 0:
            batch[BATCH_KEYS.CLASSES] = torch.from_numpy(self.target.classes(cells))
            batch[BATCH_KEYS.CLASS_SHARE] = torch.tensor(share, dtype=torch.float32)
        if self._frequency is not None and self.trainer.training:
            batch[BATCH_KEYS.FREQUENCY] = torch.from_numpy(self._frequency[cells])
        if share == 1:
            return batch
        listed = self.target.listed if self.started else self.target
        answer = listed(cells, self.rng)
        if isinstance(answer, np.ndarray):
            batch[BATCH_KEYS.SIMILARITY] = torch.from_numpy(answer)
        else:
            batch[BATCH_KEYS.SIMILARITY] = torch.from_numpy(answer.similarity)
            batch[BATCH_KEYS.PAIRS] = torch.from_numpy(answer.rows)
            batch[BATCH_KEYS.WEIGHT] = torch.from_numpy(answer.weight)
        return batch


class AugmentingSplitter(DataSplitter):
    """scvi-tools' splitter, which changes the cells of every training batch at random.

    Parameters
    ----------
    adata_manager
        Manager with the cell index registered under ``REGISTRY_KEYS.INDICES_KEY``.
    augment
        The changes; None for none.
    **kwargs
        As in :class:`scvi.dataloaders.DataSplitter`.
    """

    def __init__(self, adata_manager, *, augment: Augment | None = None, **kwargs):
        super().__init__(adata_manager, **kwargs)
        self.augment = augment

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Change the cells, on the device that they are on."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.augment is not None and self.trainer.training:
            index = batch[REGISTRY_KEYS.INDICES_KEY].long().ravel()
            batch[REGISTRY_KEYS.X_KEY] = self.augment(batch[REGISTRY_KEYS.X_KEY], index)
        return batch


class ArmsSplitter(DataSplitter):
    """scvi-tools' splitter, which gives each arm a changed copy of every training batch.

    Parameters
    ----------
    adata_manager
        Manager with the cell index registered under ``REGISTRY_KEYS.INDICES_KEY``.
    n_arms
        A.
    augment
        From the cells of a batch to a changed copy of them, scaled; None for no copies.
    taught
        The category that each arm is taught of each cell, ``(n_obs, n_arms)`` int64, -1 for none;
        None where categories are not taught.
    **kwargs
        As in :class:`scvi.dataloaders.DataSplitter`.
    """

    def __init__(
        self,
        adata_manager,
        *,
        n_arms: int,
        augment: Augment | None = None,
        taught: torch.Tensor | None = None,
        **kwargs,
    ):
        super().__init__(adata_manager, **kwargs)
        self.n_arms = n_arms
        self.augment = augment
        self.taught = taught

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Add the copies and what is taught; the cells themselves stay as they are."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if not self.trainer.training:
            return batch
        index = batch[REGISTRY_KEYS.INDICES_KEY].long().ravel()
        if self.augment is not None:
            x = batch[REGISTRY_KEYS.X_KEY]
            copies = [self.augment(x, index) for _ in range(self.n_arms)]
            batch[BATCH_KEYS.ARMS] = torch.stack(copies)
        if self.taught is not None:
            batch[BATCH_KEYS.TAUGHT] = self.taught.to(index.device)[index]
        return batch
