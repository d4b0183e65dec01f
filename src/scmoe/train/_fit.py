"""A Lightning fit for networks that are parts of a model: no AnnData, tensors in memory."""

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

SMALL = 50_000
"""Values in a batch below which a second thread does not pay."""

LEAST = 2
"""Cells of the smallest batch: one alone has no deviation."""


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
    """Train a network with Adam; what is drawn follows torch's global generator.

    Parameters
    ----------
    module
        Its ``loss(batch)`` gives named scalars, among them ``"loss"``. Back on the CPU, and in
        evaluation mode, when it is trained.
    data
        Tensors with a row for each cell, among them ``"x"``; a batch has the same names, and
        ``"index"``, the rows that it holds, unless the data name them otherwise.
    max_epochs, batch_size, lr
        As usual. A last batch of a single cell is left out.
    rate
        What users know the learning rate by.
    cycle
        Whether the rate rises to ``lr`` and falls again.
    augment
        Changes the ``"x"`` of each batch at random.
    description
        Stands before the progress bar.
    progress
        Show the bar.
    accelerator
        As in Lightning.

    Returns
    -------
    Means of the named scalars over each epoch.

    Raises
    ------
    ValueError
        The loss is not finite, or far above that at the start.
    """
    plan = _Plan(module, lr, LossWatch(**{rate: lr}), cycle)

    def complete(batch: Batch, rows: torch.Tensor) -> Batch:
        batch = {"index": rows, **batch}
        return batch if augment is None else {**batch, "x": augment(batch["x"], batch["index"])}

    small = data["x"].shape[1] * batch_size < SMALL
    with interruptible(), quiet(), one_thread(small), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "GPU available but not used")
        # parts that are trained already, or later
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
        draw = partial(shuffled, rows, batch_size, LEAST)
        batches = Batches(data, draw, n_batches + (rest >= LEAST), complete)
        with timed(description, progress=progress):
            trainer.fit(plan, train_dataloaders=batches)
    module.cpu().eval()
    return pd.DataFrame(plan.history)


class _Plan(pl.LightningModule):
    """One optimiser, and the means of each epoch."""

    def __init__(self, module: nn.Module, lr: float, watch: LossWatch, cycle: bool):
        super().__init__()
        self.module = module
        self.lr, self.cycle = lr, cycle
        self.watch = watch
        self.history: list[dict[str, float]] = []
        self._totals: dict[str, torch.Tensor] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer | dict:
        """Adam in one kernel, as in the training of the models."""
        optimizer = torch.optim.Adam(self.module.parameters(), lr=self.lr, fused=True)
        if not self.cycle:
            return optimizer
        return cycled(optimizer, self.trainer.estimated_stepping_batches)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """One step; scalars are summed here, for reading each would cost more than the step."""
        terms = self.module.loss(batch)
        for name, value in terms.items():
            self._totals[name] = self._totals.get(name, 0) + value.detach()
        self.watch.add(terms["loss"].detach())
        return terms["loss"]

    def on_train_epoch_end(self) -> None:
        """Note the means."""
        n = self.trainer.num_training_batches
        self.history.append({name: float(total) / n for name, total in self._totals.items()})
        self._totals = {}
        self.watch.check()

    def on_train_end(self) -> None:
        """Look at what the last steps have left."""
        self.watch.check(self.module)


class _Bar(Callback):
    """A bar that counts epochs and shows the loss."""

    def __init__(self, description: str):
        self.description = description

    def on_train_start(self, trainer: pl.Trainer, plan: _Plan) -> None:
        """Open the bar."""
        self.bar = tqdm(total=trainer.max_epochs, desc=self.description)

    def on_train_epoch_end(self, trainer: pl.Trainer, plan: _Plan) -> None:
        """One epoch more. Callbacks come before the plan, so the loss is that of the last one."""
        if plan.history:
            self.bar.set_postfix(loss=f"{plan.history[-1]['loss']:.4g}", refresh=False)
        self.bar.update()

    def teardown(self, trainer: pl.Trainer, plan: _Plan, stage: str) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, plan: _Plan, exception: BaseException) -> None:
        """Close it after an error or an interruption too, when nothing is torn down."""
        self._close()

    def _close(self) -> None:
        if hasattr(self, "bar"):
            self.bar.close()
