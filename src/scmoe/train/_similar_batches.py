"""Batches with the similarity of their cells."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from scmoe.nn import in_blocks
from scmoe.similarity import MAX_DENSE, PARTNERS, Target, TensorTarget
from scmoe.train._batches import BATCH_KEYS, InMemory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scmoe.train._batches import Batch, Draw

BLOCK = 2 * PARTNERS
"""Number of cells that are compared with each other, where a whole batch would be too many.

It is the number of partners of a cell when each draws its own: those drawn, and those that drew
the cell.
"""


class SimilarBatches(InMemory):
    """Data module whose batches have the similarity of their cells.

    The target answers on the device where it can, see :class:`~scmoe.similarity.TensorTarget`;
    else it is asked about numpy indices, batch by batch.

    Parameters
    ----------
    data, split, batch_size
        As in :class:`InMemory`.
    target
        The target of the similarity.
    rng
        Generator of the target, for numpy indices.
    started
        Whether the model has started from the groups of the target. Then pairs are listed in
        batches of any size, and training batches have the number of cells that each represents.
    """

    def __init__(
        self,
        data: Batch,
        split: Sequence[np.ndarray],
        batch_size: int,
        *,
        target: Target,
        rng: np.random.Generator,
        started: bool = False,
    ):
        data, training, n_obs = dict(data), {}, sum(map(len, split))
        if target.class_share > 0:
            data[BATCH_KEYS.CLASSES] = torch.from_numpy(target.classes(np.arange(n_obs)))
        if started:
            data[BATCH_KEYS.GROUPS] = torch.from_numpy(target.membership)
            training[BATCH_KEYS.FREQUENCY] = torch.from_numpy(frequencies(target, split[0], n_obs))
        super().__init__(data, split, batch_size, training=training, change=self.complete)
        self.target, self.rng, self.started = target, rng, started

    def setup(self, stage: str) -> None:
        """Copy the cells, and the traits that the target compares, to the device."""
        super().setup(stage)
        self._divide()
        share = self.target.class_share
        self.share = torch.tensor(share, dtype=torch.float32, device=self.device)
        self.traits = None
        if share < 1 and isinstance(self.target, TensorTarget):
            traits = torch.from_numpy(np.ascontiguousarray(self.target.traits))
            self.traits = traits.to(self.device)

    def _divide(self) -> None:
        """Prepare a device of several: the same order of cells on all, and noise of its own."""
        n, rank = self.trainer.world_size, self.trainer.global_rank
        if n == 1:
            return
        # a forked process can hang waiting for threads of its parent
        torch.set_num_threads(1)
        self.n_devices, self.rank = n, rank
        of_order, of_noise = self.rng.integers(2**31, size=2).tolist()
        self.generator = torch.Generator(self.device).manual_seed(of_order)
        torch.manual_seed(of_noise + rank)
        self.rng = self.rng.spawn(n)[rank]

    def teardown(self, stage: str) -> None:
        """Release the cells and their traits."""
        super().teardown(stage)
        self.traits = None

    def order(self, cells: torch.Tensor, batch_size: int) -> tuple[Draw, int]:
        """Return batches drawn by the similarity, or at random; see :class:`InMemory`.

        Each device draws its own batches of a similarity.
        """
        own = type(self.target).batches is not Target.batches
        size = batch_size * self.n_devices
        index, n_batches = self.train_idx, -(-len(cells) // size)
        weight = None if own else self.target.draw_weights(index)
        if weight is not None:
            draw = partial(weighted, cells, weight, size, n_batches, self.generator)
            return self.part_of(draw), n_batches
        if not own or self.target.batches(index, batch_size, self.rng) is None:
            return super().order(cells, batch_size)

        def draw() -> Iterator[torch.Tensor]:
            for rows in islice(self.target.batches(index, batch_size, self.rng), n_batches):
                yield cells[torch.from_numpy(rows).to(self.device)]

        return draw, n_batches

    def complete(self, batch: Batch, rows: torch.Tensor) -> Batch:
        """Add the similarity of the cells: the share of the class term, and pairs or blocks."""
        share = self.target.class_share
        if share > 0:
            batch[BATCH_KEYS.CLASS_SHARE] = self.share
        if share < 1:
            batch.update(self._asked(rows) if self.traits is None else self._compared(rows))
        return batch

    def _compared(self, rows: torch.Tensor) -> Batch:
        """Compare all pairs, or those within blocks, on the device.

        The order of the cells is random, so the cells of a block are random partners.
        """
        n = len(rows)
        size = n if n <= MAX_DENSE and not self.started else min(BLOCK, n)
        cells, traits = in_blocks(rows, size), in_blocks(self.traits.index_select(0, rows), size)
        alike = self.target.alike(traits[:, :, None], traits[:, None])
        same = cells[:, :, None] == cells[:, None]
        return {BATCH_KEYS.SIMILARITY: alike.masked_fill(same, 1)}

    def _asked(self, rows: torch.Tensor) -> Batch:
        """Ask the target for the similarity of numpy indices."""
        ask = self.target.listed if self.started else self.target
        answer = ask(rows.numpy(force=True), self.rng)
        if isinstance(answer, np.ndarray):
            found = {BATCH_KEYS.SIMILARITY: answer}
        else:
            names = BATCH_KEYS.PAIRS, BATCH_KEYS.SIMILARITY, BATCH_KEYS.WEIGHT
            found = dict(zip(names, answer, strict=True))
        return {name: torch.from_numpy(v).to(self.device) for name, v in found.items()}


def frequencies(target: Target, cells: np.ndarray, n_obs: int) -> np.ndarray:
    """Return the number of random cells that each drawn cell represents, ``(n_obs,)`` float32.

    Its mean over the cells that a target draws is 1, as over cells drawn at random.
    """
    found = np.ones(n_obs, np.float32)
    weight = target.draw_weights(cells)
    if weight is not None:
        found[cells] = weight.mean() / weight
    return found


def weighted(
    cells: torch.Tensor,
    weight: np.ndarray,
    batch_size: int,
    n_batches: int,
    generator: torch.Generator | None = None,
) -> Iterator[torch.Tensor]:
    """Draw batches of cells ``(n,)`` with replacement, in proportion to a weight ``(n,)``."""
    # float32 is too coarse for sums over millions of cells, but Apple GPUs have no float64
    exact = torch.float32 if cells.device.type == "mps" else torch.float64
    until = torch.from_numpy(np.cumsum(weight)).to(cells.device, exact)
    for _ in range(n_batches):
        drawn = torch.rand(batch_size, dtype=exact, device=cells.device, generator=generator)
        drawn = drawn * until[-1]
        place = torch.searchsorted(until, drawn, right=True)
        yield cells.index_select(0, place.clamp_max(len(cells) - 1))
