"""What all models share of a training: the request, its checks, and the split of the cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scmoe.train import check_shares, check_training_settings, split_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass(kw_only=True)
class Training:
    """A training as it was asked for; the fields are arguments of ``train`` of the models.

    Parameters
    ----------
    max_epochs
        Epochs; None for a default number of steps.
    batch_size
        Cells of a batch.
    train_size, validation_size
        Shares of the cells, as in scvi-tools.
    accelerator, devices
        Devices, as in Lightning.
    early_stopping
        Whether to stop when the loss of the validation cells no longer falls.
    plan_kwargs
        Arguments of the training plan.
    trainer_kwargs
        Arguments of the trainers of scvi-tools and Lightning.
    """

    max_epochs: int | None
    batch_size: int
    train_size: float
    validation_size: float | None
    accelerator: str
    devices: int | list[int] | str
    early_stopping: bool
    plan_kwargs: dict[str, Any] | None
    trainer_kwargs: dict[str, Any] = field(default_factory=dict)

    def check(self, plan_class: type, *, several: bool = False) -> None:
        """Raise ValueError or TypeError for arguments that a training does not have.

        Parameters
        ----------
        plan_class
            The training plan.
        several
            Whether the model trains on several devices.
        """
        check_shares(self.train_size, self.validation_size)
        check_training_settings(
            self.max_epochs,
            self.batch_size,
            plan_class,
            self.plan_kwargs,
            self.trainer_kwargs,
            self.accelerator,
            self.devices,
            several=several,
        )
        if self.early_stopping:
            if self.train_size >= 1:
                raise ValueError("Early stopping needs validation cells: `train_size` below 1.")
            self.trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")

    def split(
        self, n_obs: int, rng: np.random.Generator, cells: np.ndarray | None = None
    ) -> Sequence[np.ndarray]:
        """Draw training, validation and test cells.

        Parameters
        ----------
        n_obs
            Cells.
        rng
            Source of randomness.
        cells
            Indices of the cells that may train; None for all.

        Raises
        ------
        ValueError
            Early stopping without validation cells.
        """
        split = split_cells(cells, n_obs, self.train_size, self.validation_size, rng)
        if self.early_stopping and len(split[1]) == 0:
            n = n_obs if cells is None else len(cells)
            raise ValueError(
                f"Early stopping needs validation cells: of {n} cells that may train "
                "none is left for it. Use a smaller `train_size`."
            )
        return split

    @property
    def progress(self) -> bool:
        """Whether to show progress bars."""
        return self.trainer_kwargs.get("enable_progress_bar", True)

    def to_trainer(self) -> dict[str, Any]:
        """Return the arguments of scvi-tools' ``train``."""
        return {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "early_stopping": self.early_stopping,
            "plan_kwargs": self.plan_kwargs,
            **self.trainer_kwargs,
        }
