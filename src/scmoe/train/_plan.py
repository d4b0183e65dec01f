"""The training plan: one optimiser, and a record of every loss term."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from scvi.train import TrainingPlan
from torch.optim.lr_scheduler import LambdaLR

from scmoe.nn import of_one_device
from scmoe.train._processes import sum_over_processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from scvi.module.base import BaseModuleClass
    from torch import nn

FEW_PAIRS = 0.1
"""Below this many similar partners per cell in its batch, a similarity teaches nothing."""


WARM = 0.3
"""Share of a training over which the learning rate rises."""

WINDOW = 10
"""Steps in a row whose smallest loss counts: single batches may hold cells far beyond others."""

FAR = 10
"""How many times the loss of the first batch a training never comes to that learns anything."""


class LossWatch:
    """Notice a training that runs away, at the ends of epochs: steps wait for nothing.

    Parameters
    ----------
    **rates
        The learning rates, by the names of the arguments that users give them as.
    """

    def __init__(self, **rates: float):
        self.rates = rates
        self._first: torch.Tensor | None = None
        self._least: torch.Tensor | None = None
        self._worst: torch.Tensor | None = None
        self._n = 0

    def add(self, loss: torch.Tensor) -> None:
        """Note the loss of a step, a scalar without a graph."""
        if self._first is None:
            self._first = self._worst = loss
            return
        self._least = torch.minimum(self._least, loss) if self._n % WINDOW else loss
        self._n += 1
        if self._n % WINDOW == 0:
            self._worst = torch.maximum(self._worst, self._least)

    def check(self, module: nn.Module | None = None, mean: Callable = lambda loss: loss) -> None:
        """Raise ValueError if the loss is not finite, or far above that of the first batch.

        With the ``module`` it is the end of the training: its weights are looked at, too, and
        steps that fill no window. ``mean`` is over devices, which all see the same then.
        """
        if self._first is None:
            return
        first, worst = float(mean(self._first.clone())), self._worst
        if not math.isfinite(first):
            raise ValueError(
                f"The loss of the first batch is {first}, before anything was learned: look for "
                "values far beyond all others, and for weights of the loss that are too large."
            )
        if module is not None and self._least is not None:
            worst = torch.maximum(worst, self._least)
        worst = float(mean(worst.clone()))
        if module is not None and not all(p.isfinite().all() for p in module.parameters()):
            worst = math.nan
        if worst <= FAR * max(abs(first), 1):
            return
        rates = " and ".join(f"`{name}={rate:g}`" for name, rate in self.rates.items())
        raise ValueError(
            f"The training ran away: the loss went from {first:.4g} to {worst:.4g}. Use a smaller "
            f"learning rate than {rates}; if it is small already, look for values far beyond "
            "all others."
        )


class TermsPlan(TrainingPlan):
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
    cycle
        Whether the learning rate rises to ``lr`` and falls again, see :func:`one_cycle`.
    """

    def __init__(
        self,
        module: BaseModuleClass,
        *,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        cycle: bool = False,
    ):
        super().__init__(module, lr=lr)
        self.betas, self.cycle = betas, cycle
        self._names: tuple[str, ...] = ()
        self._totals: torch.Tensor | None = None
        self._n_steps = 0
        self.watch = LossWatch(lr=lr)

    def configure_optimizers(self) -> torch.optim.Optimizer | dict:
        """Adam in one kernel: for networks this small the calls cost more than the sums."""
        optimizer = torch.optim.Adam(self.groups(), lr=self.lr, betas=self.betas, fused=True)
        if not self.cycle:
            return optimizer
        return cycled(optimizer, self.trainer.estimated_stepping_batches)

    def groups(self) -> list[dict]:
        """Parameters that learn, in groups with learning rates of their own."""
        return [{"params": list(self.module.parameters())}]

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """One step. Terms are summed here and logged once an epoch: logging is the larger cost."""
        _, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        terms = {"loss": output.loss, **output.extra_metrics}
        values = torch.stack([value.detach() for value in terms.values()])
        self._totals = values if self._n_steps == 0 else self._totals + values
        self._names, self._n_steps = tuple(terms), self._n_steps + 1
        self.watch.add(output.loss.detach())
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
        """Log the means of the epoch."""
        self._log_means()

    def _log_means(self) -> dict[str, torch.Tensor]:
        means = dict(zip(self._names, (self._totals / self._n_steps).unbind(), strict=True))
        self._n_steps = 0
        for name, value in means.items():
            # one value; Lightning would look for the number of cells in the batch
            self.log(
                f"{name}_train",
                value,
                prog_bar=name == "loss",
                sync_dist=self.use_sync_dist,
                batch_size=1,
            )
        self.watch.check(mean=self.trainer.strategy.reduce)
        return means

    def on_train_end(self) -> None:
        """Look at what the last steps have left."""
        self.watch.check(self.module, self.trainer.strategy.reduce)


def one_cycle(progress: float) -> float:
    """Learning rate, as a share of the largest, when so much of a training is done (0 to 1).

    It rises from 4 % over the first 30 %, then falls to nearly 0, both along half a cosine
    (Smith & Topin 2018).
    """
    low, high, part = 0.04, 1.0, progress / WARM
    if progress > WARM:
        low, high, part = 1e-4, 1.0, (1 - min(progress, 1)) / (1 - WARM)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


def cycled(optimizer: torch.optim.Optimizer, n_steps: float) -> dict:
    """An optimiser for Lightning, whose rates follow :func:`one_cycle` over a training."""
    scheduler = LambdaLR(optimizer, lambda step: one_cycle(step / n_steps))
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }


class SimilarityPlan(TermsPlan):
    """The plan of models that are taught by a similarity."""

    def on_fit_start(self) -> None:
        """Let the loss see the batch of all devices, where there are several."""
        if self.trainer.world_size > 1:
            self.module.total = sum_over_processes

    def on_fit_end(self) -> None:
        """Let it see its own cells again."""
        self.module.total = of_one_device

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch; warn when the similarity had nothing to say."""
        means = self._log_means()
        if self.current_epoch == 0 and means["similar_pairs"] < FEW_PAIRS:
            warnings.warn(
                f"The similarity has {float(means['similar_pairs']):.2g} similar partners per "
                "cell within a batch, too few to learn from. Use a larger `batch_size` or "
                "another similarity (CoAssociation is dense in any batch).",
                UserWarning,
                stacklevel=2,
            )


class MixturePlan(TermsPlan):
    """The plan of Santos' mixture: a manager that was taught learns more slowly than the experts.

    Parameters
    ----------
    module
        The module; it has a ``manager``.
    lr
        Learning rate of the experts.
    manager_lr
        That of the manager.
    hardening
        Share of the epochs over which the weight of the sample entropy rises to its value,
        linearly; 0 for a weight that is the same throughout.
    cycle
        As in :class:`TermsPlan`, of both rates.
    """

    def __init__(
        self,
        module: BaseModuleClass,
        *,
        lr: float = 1e-3,
        manager_lr: float = 1e-4,
        hardening: float = 0.0,
        cycle: bool = False,
    ):
        super().__init__(module, lr=lr, cycle=cycle)
        if not 0 <= hardening <= 1:
            raise ValueError(f"`hardening` must be from 0 to 1, got {hardening}.")
        self.manager_lr = manager_lr
        self.watch.rates["manager_lr"] = manager_lr
        self.hardening = hardening

    def groups(self) -> list[dict]:
        """Experts and manager; the VAE of all cells has learned what it will."""
        return [
            {"params": list(self.module.experts.parameters())},
            {"params": list(self.module.manager.parameters()), "lr": self.manager_lr},
        ]

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """One step, with assignments as hard as it is time for."""
        rising = self.hardening * self.trainer.max_epochs
        hardness = 1.0 if rising == 0 else min(self.current_epoch / rising, 1.0)
        self.loss_kwargs["hardness"] = hardness
        loss = super().training_step(batch, batch_idx)
        if hardness < 1:
            # what is learned is another loss in each epoch, and may rise
            self.watch = LossWatch(**self.watch.rates)
        return loss
