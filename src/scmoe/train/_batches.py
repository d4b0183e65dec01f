"""Batches of cells in memory, and the split into training and validation cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from scvi import REGISTRY_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class _BatchKeys(NamedTuple):
    """Names of the tensors of a batch alongside the registered fields."""

    SIMILARITY: str = "similarity"
    """Similarity of all pairs ``(B, B)``, of pairs in blocks ``(m, size, size)``, or of listed
    pairs ``(m,)``; NaN where unknown."""
    PAIRS: str = "similarity_pairs"
    """Positions of listed pairs, ``(2, m)``."""
    WEIGHT: str = "similarity_weight"
    """Weight of listed pairs, ``(m,)``."""
    CLASSES: str = "classes"
    """Share of each class, ``(B, C)``; rows of NaN where unknown."""
    CLASS_SHARE: str = "class_share"
    """Weight of the class term against the pair term, a scalar in [0, 1]."""
    FREQUENCY: str = "frequency"
    """Number of cells that each cell represents if small groups are drawn more often, ``(B,)``."""
    GROUPS: str = "groups"
    """Share of each group from which the model has started, ``(B, n_groups)``."""
    ARMS: str = "arms"
    """Augmented copy of the scaled cells for each arm, ``(A, B, n_input)``."""
    TAUGHT: str = "taught"
    """Category that each arm is taught for a cell, ``(B, A)`` int64; -1 for none."""


BATCH_KEYS = _BatchKeys()


Batch = dict[str, torch.Tensor]

Augment = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Augments cells ``(n, d)``, given their positions ``(n,)`` among all cells."""

Draw = Callable[[], "Iterator[torch.Tensor]"]
"""Draws the positions of the cells of each batch of an epoch, int64 on their device."""

Complete = Callable[[Batch, torch.Tensor], Batch]
"""Completes a batch, given the positions ``(n,)`` of its cells among all cells."""


class Batches:
    """Batches of each epoch.

    Parameters
    ----------
    data
        Tensors with one row per cell, on one device; a batch has the same names.
    draw
        Draws the cells of each batch.
    n_batches
        Number of batches of an epoch.
    complete
        Completes each batch.
    """

    def __init__(self, data: Batch, draw: Draw, n_batches: int, complete: Complete | None = None):
        self.data, self.draw, self.n_batches, self.complete = data, draw, n_batches, complete

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.draw():
            batch = {name: values.index_select(0, rows) for name, values in self.data.items()}
            yield batch if self.complete is None else self.complete(batch, rows)


class InMemory(pl.LightningDataModule):
    """Data module of training and validation cells in memory.

    Random draws are from torch's generator of the device. All training batches are full: the
    last incomplete batch of the random order is dropped.

    Parameters
    ----------
    data
        Tensors with one row per cell.
    split
        Indices of the training cells, the validation cells, and all others.
    batch_size
        Number of cells of a batch on each device, at most its part of the training cells.
    training
        Further tensors, for training batches only.
    change
        Completes training batches.

    Attributes
    ----------
    n_devices, rank
        Number of devices that share a training batch in equal parts, and the part of this one.
    generator
        Generator of the order of the training cells; None for torch's own.
    """

    n_devices, rank = 1, 0
    generator: torch.Generator | None = None

    def __init__(
        self,
        data: Batch,
        split: Sequence[np.ndarray],
        batch_size: int,
        *,
        training: Batch | None = None,
        change: Complete | None = None,
    ):
        super().__init__()
        self.data, self.training, self.change = data, training or {}, change
        # torch rejects integers of numpy
        self.batch_size = int(batch_size)
        # attributes that scvi-tools reads
        self.train_idx, self.val_idx, self.test_idx = split
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    @property
    def device(self) -> torch.device:
        """Device of the training."""
        return self.trainer.strategy.root_device

    def setup(self, stage: str) -> None:
        """Copy the cells to the device, once."""
        self.data, self.training = (
            {name: values.to(self.device) for name, values in tensors.items()}
            for tensors in (self.data, self.training)
        )

    def teardown(self, stage: str) -> None:
        """Release the cells: a trained model keeps its trainer, and the trainer its batches."""
        self.data.clear()
        self.training.clear()

    def train_dataloader(self) -> Batches:
        """Return batches of the training cells."""
        self.training = {**self.data, **self.training}
        cells = torch.from_numpy(self.train_idx).to(self.device)
        draw, n_batches = self.order(cells, min(self.batch_size, self.n_train // self.n_devices))
        return Batches(self.training, draw, n_batches, self.change)

    def val_dataloader(self) -> Batches | None:
        """Return batches of the validation cells in their order; None without such cells."""
        if not self.n_val:
            return None
        parts = torch.from_numpy(self.val_idx).to(self.device).split(self.batch_size)
        return Batches(self.data, lambda: iter(parts), len(parts), self.complete)

    def order(self, cells: torch.Tensor, batch_size: int) -> tuple[Draw, int]:
        """Return a function that draws the batches of an epoch, and their number."""
        size = batch_size * self.n_devices
        draw = partial(shuffled, cells, size, size, self.generator)
        return self.part_of(draw), len(cells) // size

    def part_of(self, draw: Draw) -> Draw:
        """Restrict batches to the part of this device, contiguous: neighbours stay together."""
        if self.n_devices == 1:
            return draw
        return lambda: (rows.chunk(self.n_devices)[self.rank] for rows in draw())

    def complete(self, batch: Batch, rows: torch.Tensor) -> Batch:
        """Complete validation batches."""
        return batch

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Leave the batch where it is: on the device."""
        return batch


def shuffled(
    cells: torch.Tensor,
    batch_size: int,
    least: int = 1,
    generator: torch.Generator | None = None,
) -> Iterator[torch.Tensor]:
    """Yield batches of cells ``(n,)`` in random order; drop a last one of fewer than ``least``."""
    order = torch.randperm(len(cells), device=cells.device, generator=generator)
    for positions in order.split(batch_size):
        if len(positions) >= least:
            yield cells.index_select(0, positions)


def changed(augment: Augment | None) -> Complete | None:
    """Return a function that augments the cells of each batch; None without augmentation."""
    if augment is None:
        return None

    def complete(batch: Batch, rows: torch.Tensor) -> Batch:
        return {**batch, REGISTRY_KEYS.X_KEY: augment(batch[REGISTRY_KEYS.X_KEY], rows)}

    return complete


def copied(augment: Augment | None, n_arms: int) -> Complete | None:
    """Return a function that augments a batch for each arm; None without augmentation."""
    if augment is None:
        return None

    def complete(batch: Batch, rows: torch.Tensor) -> Batch:
        copies = [augment(batch[REGISTRY_KEYS.X_KEY], rows) for _ in range(n_arms)]
        return {**batch, BATCH_KEYS.ARMS: torch.stack(copies)}

    return complete


ROUNDING = 1e-9
"""Rounding error of a sum of shares such as 0.9 and 0.1."""


def check_shares(train_size: float, validation_size: float | None) -> None:
    """Raise ValueError for shares out of range, or with a sum above 1."""
    if isinstance(train_size, str) or not 0 < train_size <= 1:
        raise ValueError(f"`train_size` must be above 0 and at most 1, got {train_size!r}.")
    if validation_size is not None and not 0 <= validation_size <= 1 - train_size + ROUNDING:
        raise ValueError(
            "`validation_size` must be 0 or more, and at most 1 together with `train_size`; got "
            f"{validation_size} with {train_size}."
        )


def split_cells(
    cells: np.ndarray | None,
    n_obs: int,
    train_size: float,
    validation_size: float | None,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Split cells into training cells, validation cells, and all others.

    Shares are of ``cells``, indices of the cells that may train; None for all. The split is random
    unless all of these are training cells. scvi-tools would draw the split with
    ``scvi.settings.seed``, or without a seed.
    """
    taught = np.arange(n_obs) if cells is None else cells
    taught = rng.permutation(taught) if train_size < 1 else taught
    n_train = math.ceil(train_size * len(taught))
    n_seen = len(taught)
    if validation_size is not None:
        n_seen = min(n_train + math.floor(validation_size * n_seen), n_seen)
    others = np.setdiff1d(np.arange(n_obs), taught[:n_seen])
    return [taught[:n_train], taught[n_train:n_seen], others]
