"""Training plans: optimiser, learning rates, logs of all loss terms, detection of divergence."""

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
"""Number of similar partners per cell and batch below which a similarity teaches nothing."""

WARM = 0.3
"""Share of a training over which the learning rate rises."""

WINDOW = 10
"""Number of steps in a row whose smallest loss counts: single batches may have outliers."""

FAR = 10
"""Multiple of the loss of the first batch above which a training has diverged."""


class LossWatch:
    """Detect a training that diverges, at the end of epochs, so that no step waits for it.

    Parameters
    ----------
    **rates
        The learning rates, by the names of their arguments.
    """

    def __init__(self, **rates: float):
        self.rates = rates
        self._first: torch.Tensor | None = None
        self._least: torch.Tensor | None = None
        self._worst: torch.Tensor | None = None
        self._n = 0

    def add(self, loss: torch.Tensor) -> None:
        """Record the loss of a step, a detached scalar."""
        if self._first is None:
            self._first = self._worst = loss
            return
        self._least = torch.minimum(self._least, loss) if self._n % WINDOW else loss
        self._n += 1
        if self._n % WINDOW == 0:
            self._worst = torch.maximum(self._worst, self._least)

    def check(self, module: nn.Module | None = None, mean: Callable = lambda loss: loss) -> None:
        """Raise ValueError if the loss is not finite, or far above that of the first batch.

        Parameters
        ----------
        module
            At the end of the training: check its weights, too, and the last incomplete window.
        mean
            Averages a loss over devices, so that all of them agree.
        """
        if self._first is None:
            return
        first, worst = float(mean(self._first.clone())), self._worst
        if not math.isfinite(first):
            raise ValueError(
                f"The loss of the first batch is {first}, before any training step: look for "
                "outliers, and for weights of the loss that are too large."
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
            f"The training diverged: the loss rose from {first:.4g} to {worst:.4g}. Use a smaller "
            f"learning rate than {rates}; if it is small already, look for outliers."
        )


class TermsPlan(TrainingPlan):
    """Train all parameters with Adam; epoch means of all loss terms are in ``model.history``.

    Parameters
    ----------
    module
        The module; the ``extra_metrics`` of its loss are recorded.
    lr
        Learning rate of Adam. Its other constants are those of torch: the ``eps`` of 0.01 of
        scvi-tools is made for counts, and too large for small gradients.
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
        """Return a fused Adam: for small networks the kernel calls dominate the cost."""
        optimizer = torch.optim.Adam(self.groups(), lr=self.lr, betas=self.betas, fused=True)
        if not self.cycle:
            return optimizer
        return cycled(optimizer, self.trainer.estimated_stepping_batches)

    def groups(self) -> list[dict]:
        """Return the trained parameters, in groups with their learning rates."""
        return [{"params": list(self.module.parameters())}]

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """Compute the loss; terms are logged once per epoch, since logging is slow."""
        _, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        terms = {"loss": output.loss, **output.extra_metrics}
        values = torch.stack([value.detach() for value in terms.values()])
        self._totals = values if self._n_steps == 0 else self._totals + values
        self._names, self._n_steps = tuple(terms), self._n_steps + 1
        self.watch.add(output.loss.detach())
        return output.loss

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        """Log the loss and its terms, weighted by the cells of the batch.

        The number is given, since Lightning cannot infer it from pairs and scalars.
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
        """Log the mean losses of the epoch."""
        self._log_means()

    def _log_means(self) -> dict[str, torch.Tensor]:
        means = dict(zip(self._names, (self._totals / self._n_steps).unbind(), strict=True))
        self._n_steps = 0
        for name, value in means.items():
            # without a batch size Lightning would try to infer it
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
        """Check the last steps and the weights."""
        self.watch.check(self.module, self.trainer.strategy.reduce)


def one_cycle(progress: float) -> float:
    """Return the learning rate of a one-cycle schedule, as a share of its maximum.

    It rises from 4 % over the first 30 % of the training, then falls to nearly 0, both along half
    a cosine (Smith & Topin 2018). ``progress`` is the share of the training that is done.
    """
    low, high, part = 0.04, 1.0, progress / WARM
    if progress > WARM:
        low, high, part = 1e-4, 1.0, (1 - min(progress, 1)) / (1 - WARM)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


def cycled(optimizer: torch.optim.Optimizer, n_steps: float) -> dict:
    """Return an optimiser for Lightning whose learning rates follow :func:`one_cycle`."""
    scheduler = LambdaLR(optimizer, lambda step: one_cycle(step / n_steps))
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }


class SimilarityPlan(TermsPlan):
    """Training plan of models that learn from a similarity."""

    def on_fit_start(self) -> None:
        """Compute the loss over the batches of all devices."""
        if self.trainer.world_size > 1:
            self.module.total = sum_over_processes

    def on_fit_end(self) -> None:
        """Compute the loss over the cells of one device again."""
        self.module.total = of_one_device

    def on_train_epoch_end(self) -> None:
        """Log the mean losses of the epoch; warn if the similarity has too few pairs."""
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
    """Training plan of Santos' mixture: a pretrained manager learns more slowly than the experts.

    Parameters
    ----------
    module
        The module; it has a ``manager``.
    lr
        Learning rate of the experts.
    manager_lr
        Learning rate of the manager.
    hardening
        Share of the epochs over which the weight of the sample entropy rises linearly to its
        value; 0 for a constant weight.
    cycle
        As in :class:`TermsPlan`, for both learning rates.
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
        """Return the parameters of experts and manager; the VAE of all cells is trained before."""
        return [
            {"params": list(self.module.experts.parameters())},
            {"params": list(self.module.manager.parameters()), "lr": self.manager_lr},
        ]

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """Compute the loss, with the weight of the sample entropy at this epoch."""
        rising = self.hardening * self.trainer.max_epochs
        hardness = 1.0 if rising == 0 else min(self.current_epoch / rising, 1.0)
        self.loss_kwargs["hardness"] = hardness
        loss = super().training_step(batch, batch_idx)
        if hardness < 1:
            # the loss has other weights in each epoch, and may rise
            self.watch = LossWatch(**self.watch.rates)
        return loss
