"""The training plan: one optimiser, and a record of every loss term."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from scvi.train import TrainingPlan

if TYPE_CHECKING:
    from scvi.module.base import BaseModuleClass

FEW_PAIRS = 0.1
"""Below this many similar partners per cell in its batch, a similarity teaches nothing."""


class SimilarityPlan(TrainingPlan):
    """Adam over all parts, and epoch means of all loss terms in ``model.history``.

    Parameters
    ----------
    module
        The module; the ``extra_metrics`` of its loss are recorded.
    lr
        Learning rate of Adam. Its other constants are torch's rather than scvi-tools', whose
        ``eps`` of 0.01 is made for counts and slows these small gradients down.
    betas
        Decay rates of Adam's averages.
    """

    def __init__(
        self,
        module: BaseModuleClass,
        *,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        super().__init__(module, lr=lr)
        self.betas = betas
        self._totals: dict[str, torch.Tensor] = {}
        self._n_steps = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam in one kernel: for networks this small the calls cost more than the sums."""
        return torch.optim.Adam(self.module.parameters(), lr=self.lr, betas=self.betas, fused=True)

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """One step. Terms are summed here and logged once an epoch: logging is the larger cost."""
        _, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        terms = {"loss": output.loss, **output.extra_metrics}
        for name, value in terms.items():
            self._totals[name] = self._totals.get(name, 0) + value.detach()
        self._n_steps += 1
        return output.loss

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        """Log the loss and its terms, weighted by the cells of the batch.

        Lightning would guess their number, and a batch holds pairs and scalars too.
        """
        _, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        self.log(
            "validation_loss",
            output.loss,
            on_epoch=True,
            batch_size=output.n_obs_minibatch,
            sync_dist=self.use_sync_dist,
        )
        self.compute_and_log_metrics(output, self.val_metrics, "validation")

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch; warn when the similarity had nothing to say."""
        means = {name: total / self._n_steps for name, total in self._totals.items()}
        self._totals, self._n_steps = {}, 0
        for name, value in means.items():
            self.log(f"{name}_train", value, prog_bar=name == "loss", sync_dist=self.use_sync_dist)
        if self.current_epoch == 0 and means["similar_pairs"] < FEW_PAIRS:
            warnings.warn(
                f"The similarity has {float(means['similar_pairs']):.2g} similar partners per "
                "cell within a batch, too few to learn from. Use a larger `batch_size` or "
                "another similarity (CoAssociation is dense in any batch).",
                UserWarning,
                stacklevel=2,
            )
