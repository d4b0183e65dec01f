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

    from scmoe.similarity import Target


class _BatchKeys(NamedTuple):
    SIMILARITY: str = "similarity"
    """``(..., B, B)`` for all pairs, of blocks of the batch if it is ``(m, size, size)``, ``(m,)``
    for listed pairs; NaN where nothing is known."""
    PAIRS: str = "similarity_pairs"
    """Positions of listed pairs, ``(2, m)``."""
    WEIGHT: str = "similarity_weight"
    """Weight of listed pairs, ``(m,)``."""
    CLASSES: str = "classes"
    """Share of each class, ``(B, C)``; rows of NaN where nothing is known."""
    CLASS_SHARE: str = "class_share"
    """What the class term counts beside the pair term, a scalar in [0, 1]."""
    FREQUENCY: str = "frequency"
    """How many cells each one stands for where small groups are drawn more often, ``(B,)``."""
    GROUPS: str = "groups"
    """Share of each group that the model has started from, ``(B, n_groups)``."""
    ARMS: str = "arms"
    """A changed copy of the scaled cells for each arm, ``(A, B, n_input)``."""
    TAUGHT: str = "taught"
    """The category that each arm is taught of a cell, ``(B, A)`` int64; -1 for none."""


BATCH_KEYS = _BatchKeys()


Batch = dict[str, torch.Tensor]

Augment = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Changes cells ``(n, d)`` at random, told which rows ``(n,)`` of all cells they are."""

Draw = Callable[[], "Iterator[torch.Tensor]"]
"""Draws the rows of each batch of an epoch, int64 on the device of the cells."""

Complete = Callable[[Batch, torch.Tensor], Batch]
"""Adds to a batch what is no row of a tensor, told which rows ``(n,)`` of all cells it holds."""


class Batches:
    """The batches of one epoch after the other.

    Parameters
    ----------
    data
        Tensors with a row for each cell, on one device; a batch has the same names.
    draw
        Draws the rows of each batch.
    n_batches
        Batches of an epoch.
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
    """Cells that train a model and cells that validate it, drawn at random.

    What is drawn follows torch's generator of the device. All training batches are full: of
    cells in a random order the last batch, which is not, is left out.

    Parameters
    ----------
    data
        Tensors with a row for each cell.
    split
        Indices of the cells that train, that validate, and of all others.
    batch_size
        Cells of a batch on each device; no more than its part of the cells that train.
    training
        Further tensors that only training batches have.
    change
        Completes training batches.

    Attributes
    ----------
    n_devices, rank
        Devices that share a training batch in equal parts, and which part is drawn here.
    generator
        What order the training cells come in is drawn from; None for torch's own.
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
        # torch splits by no number of numpy
        self.batch_size = int(batch_size)
        # names by which scvi-tools asks
        self.train_idx, self.val_idx, self.test_idx = split
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    @property
    def device(self) -> torch.device:
        """Where the training computes."""
        return self.trainer.strategy.root_device

    def setup(self, stage: str) -> None:
        """Copy the cells to the device, once."""
        self.data, self.training = (
            {name: values.to(self.device) for name, values in tensors.items()}
            for tensors in (self.data, self.training)
        )

    def teardown(self, stage: str) -> None:
        """Let go of the cells: a trained model keeps its trainer, and that keeps its batches."""
        self.data.clear()
        self.training.clear()

    def train_dataloader(self) -> Batches:
        """Batches of the cells that train."""
        self.training = {**self.data, **self.training}
        cells = torch.from_numpy(self.train_idx).to(self.device)
        draw, n_batches = self.order(cells, min(self.batch_size, self.n_train // self.n_devices))
        return Batches(self.training, draw, n_batches, self.change)

    def val_dataloader(self) -> Batches | None:
        """Batches of the cells that validate, in their order; None without such cells."""
        if not self.n_val:
            return None
        parts = torch.from_numpy(self.val_idx).to(self.device).split(self.batch_size)
        return Batches(self.data, lambda: iter(parts), len(parts), self.complete)

    def order(self, cells: torch.Tensor, batch_size: int) -> tuple[Draw, int]:
        """What draws the rows of an epoch's batches of ``cells``, and how many there are."""
        size = batch_size * self.n_devices
        draw = partial(shuffled, cells, size, size, self.generator)
        return self.part_of(draw), len(cells) // size

    def part_of(self, draw: Draw) -> Draw:
        """The part of this device of each batch, in a row: neighbours stay together."""
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
    """Batches of cells ``(n,)`` in a new random order, but a last one of fewer than ``least``."""
    order = torch.randperm(len(cells), device=cells.device, generator=generator)
    for positions in order.split(batch_size):
        if len(positions) >= least:
            yield cells.index_select(0, positions)


def changed(augment: Augment | None) -> Complete | None:
    """What changes the cells of each batch; None without changes."""
    if augment is None:
        return None

    def complete(batch: Batch, rows: torch.Tensor) -> Batch:
        return {**batch, REGISTRY_KEYS.X_KEY: augment(batch[REGISTRY_KEYS.X_KEY], rows)}

    return complete


def copied(augment: Augment | None, n_arms: int) -> Complete | None:
    """What gives each arm a changed copy of each batch; None without changes."""
    if augment is None:
        return None

    def complete(batch: Batch, rows: torch.Tensor) -> Batch:
        copies = [augment(batch[REGISTRY_KEYS.X_KEY], rows) for _ in range(n_arms)]
        return {**batch, BATCH_KEYS.ARMS: torch.stack(copies)}

    return complete


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
