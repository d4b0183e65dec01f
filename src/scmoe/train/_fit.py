"""Training of single networks with Lightning, on tensors in memory."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from tqdm.auto import tqdm

from scmoe._core.compat import interruptible, one_thread, quiet
from scmoe._core.progress import is_watched, timed
from scmoe.train._batches import Batches, shuffled
from scmoe.train._plan import LossWatch, cycled

if TYPE_CHECKING:
    from scmoe.train._batches import Augment, Batch

SMALL_BATCH = 50_000
"""Number of values in a batch below which one thread is faster than several."""

MIN_BATCH = 2
"""Least number of cells of a batch: a single cell has no variance."""


def fit(
    module: nn.Module,
    data: Batch,
    *,
    max_epochs: int,
    batch_size: int,
    lr: float,
    rate: str = "lr",
    cycle: bool = False,
    augment: Augment | None = None,
    description: str = "Training",
    progress: bool = True,
    accelerator: str = "auto",
) -> pd.DataFrame:
    """Train a network with Adam; random draws are from torch's global generator.

    Parameters
    ----------
    module
        The network; its ``loss(batch)`` returns named scalars, among them ``"loss"``. After the
        training it is on the CPU and in evaluation mode.
    data
        Tensors with one row per cell, among them ``"x"``. A batch has the same names, and
        ``"index"``, the positions of its cells, unless the data have an ``"index"``.
    max_epochs, batch_size, lr
        Number of epochs, batch size and learning rate. A last batch of a single cell is dropped.
    rate
        Name of the learning rate in error messages.
    cycle
        Whether the learning rate rises to ``lr`` and falls again, see :func:`one_cycle`.
    augment
        Augmentation of the ``"x"`` of each batch.
    description
        Text of the progress bar.
    progress
        Show the progress bar.
    accelerator
        As in Lightning.

    Returns
    -------
    Means of the named scalars over each epoch, one row per epoch.

    Raises
    ------
    ValueError
        The loss is not finite, or far above that of the first batch.
    """
    plan = _Plan(module, lr, LossWatch(**{rate: lr}), cycle)

    def complete(batch: Batch, rows: torch.Tensor) -> Batch:
        batch = {"index": rows, **batch}
        return batch if augment is None else {**batch, "x": augment(batch["x"], batch["index"])}

    small = data["x"].shape[1] * batch_size < SMALL_BATCH
    with interruptible(), quiet(), one_thread(small), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "GPU available but not used")
        # modules that are trained before or after
        warnings.filterwarnings("ignore", "Found .* module.s. in eval mode")
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=[_Bar(description)] if progress and is_watched() else [],
        )
        device = trainer.strategy.root_device
        data = {name: values.to(device) for name, values in data.items()}
        n_batches, rest = divmod(len(data["x"]), batch_size)
        rows = torch.arange(len(data["x"]), device=device)
        draw = partial(shuffled, rows, batch_size, MIN_BATCH)
        batches = Batches(data, draw, n_batches + (rest >= MIN_BATCH), complete)
        with timed(description, progress=progress):
            trainer.fit(plan, train_dataloaders=batches)
    module.cpu().eval()
    return pd.DataFrame(plan.history)


class _Plan(pl.LightningModule):
    """Training plan of one network: one optimiser, and the mean losses of each epoch."""

    def __init__(self, module: nn.Module, lr: float, watch: LossWatch, cycle: bool):
        super().__init__()
        self.module = module
        self.lr, self.cycle = lr, cycle
        self.watch = watch
        self.history: list[dict[str, float]] = []
        self._totals: dict[str, torch.Tensor] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer | dict:
        """Return a fused Adam, as in the training of the models."""
        optimizer = torch.optim.Adam(self.module.parameters(), lr=self.lr, fused=True)
        if not self.cycle:
            return optimizer
        return cycled(optimizer, self.trainer.estimated_stepping_batches)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Compute the loss; sums stay on the device, where reading each would be slow."""
        terms = self.module.loss(batch)
        for name, value in terms.items():
            self._totals[name] = self._totals.get(name, 0) + value.detach()
        self.watch.add(terms["loss"].detach())
        return terms["loss"]

    def on_train_epoch_end(self) -> None:
        """Record the mean losses of the epoch."""
        n = self.trainer.num_training_batches
        self.history.append({name: float(total) / n for name, total in self._totals.items()})
        self._totals = {}
        self.watch.check()

    def on_train_end(self) -> None:
        """Check the last steps and the weights."""
        self.watch.check(self.module)


class _Bar(Callback):
    """Progress bar over the epochs, with the loss."""

    def __init__(self, description: str):
        self.description = description

    def on_train_start(self, trainer: pl.Trainer, plan: _Plan) -> None:
        """Open the bar."""
        self.bar = tqdm(total=trainer.max_epochs, desc=self.description)

    def on_train_epoch_end(self, trainer: pl.Trainer, plan: _Plan) -> None:
        """Advance the bar. Callbacks run before the plan: the loss is of the previous epoch."""
        if plan.history:
            self.bar.set_postfix(loss=f"{plan.history[-1]['loss']:.4g}", refresh=False)
        self.bar.update()

    def teardown(self, trainer: pl.Trainer, plan: _Plan, stage: str) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, plan: _Plan, exception: BaseException) -> None:
        """Close the bar after an error or an interruption, without a teardown."""
        self._close()

    def _close(self) -> None:
        if hasattr(self, "bar"):
            self.bar.close()
