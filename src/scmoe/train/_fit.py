"""A Lightning fit for networks that are parts of a model: no AnnData, tensors in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from tqdm.auto import tqdm

from scmoe._compat import interruptible, one_thread, quiet
from scmoe._progress import is_watched, timed
from scmoe.train._plan import LossWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

Augment = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Changes cells ``(n, d)`` at random, told which rows ``(n,)`` of all cells they are."""

SMALL = 50_000
"""Values in a batch below which a second thread does not pay."""


def fit(
    module: nn.Module,
    data: dict[str, torch.Tensor],
    *,
    max_epochs: int,
    batch_size: int,
    lr: float,
    rate: str = "lr",
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
    plan = _Plan(module, lr, augment, LossWatch(**{rate: lr}))
    batches = _Batches(data, batch_size)
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
        with timed(description, progress=progress):
            trainer.fit(plan, train_dataloaders=batches)
    module.cpu().eval()
    return pd.DataFrame(plan.history)


class _Batches:
    """Rows of tensors in a new random order every epoch."""

    def __init__(self, data: dict[str, torch.Tensor], batch_size: int):
        self.data = data
        self.n = len(data["x"])
        self.batch_size = batch_size

    def __len__(self) -> int:
        full, rest = divmod(self.n, self.batch_size)
        return full + (rest > 1)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for index in torch.randperm(self.n).split(self.batch_size):
            if len(index) > 1:
                yield {"index": index, **{name: t[index] for name, t in self.data.items()}}


class _Plan(pl.LightningModule):
    """One optimiser, and the means of each epoch."""

    def __init__(self, module: nn.Module, lr: float, augment: Augment | None, watch: LossWatch):
        super().__init__()
        self.module = module
        self.lr = lr
        self.augment = augment
        self.watch = watch
        self.history: list[dict[str, float]] = []
        self._totals: dict[str, torch.Tensor] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam in one kernel, as in the training of the models."""
        return torch.optim.Adam(self.module.parameters(), lr=self.lr, fused=True)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """One step; scalars are summed here, for reading each would cost more than the step."""
        if self.augment is not None:
            batch = {**batch, "x": self.augment(batch["x"], batch["index"])}
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
