"""Checks of the settings of a training, before a pretraining that can take minutes."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train import Trainer

from scmoe._core.compat import on_device
from scmoe._core.settings import check_whole, is_number, is_whole
from scmoe._core.text import listing
from scmoe.train._processes import is_one

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEVICE = 'The device is `accelerator="auto"`, `"cpu"` or `"gpu"`.'
_RATE = 'The learning rate is `plan_kwargs={"lr": ...}`.'
ONE_DEVICE = "this model trains on one device; only `MoESimVAE` trains on several"
_EPOCHS = "The number of epochs is `max_epochs`."

HINTS = {
    **dict.fromkeys(("device", "use_gpu", "gpu", "gpus", "cuda"), _DEVICE),
    **dict.fromkeys(("lr", "learning_rate", "betas", "manager_lr"), _RATE),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs"), _EPOCHS),
}
"""Hints for arguments of other packages."""

NOT_OF_USERS = {
    *("self", "kwargs", "trainer_kwargs", "datasplitter_kwargs", "datamodule"),
    *("shuffle_set_split", "load_sparse_tensor"),
}
"""Arguments of the trainers that users cannot set."""


def check_training_settings(
    max_epochs: int | None,
    batch_size: int,
    plan_class: type,
    plan_kwargs: Mapping[str, Any] | None,
    trainer_kwargs: Mapping[str, Any],
    accelerator: str = "auto",
    devices: int | list[int] | str = "auto",
    *,
    several: bool = False,
) -> None:
    """Raise TypeError for unknown settings of a training, and ValueError for invalid values.

    Parameters
    ----------
    max_epochs
        Number of epochs; -1 for no end, as in Lightning.
    batch_size
        Batch size.
    plan_class, plan_kwargs
        The training plan, and its arguments.
    trainer_kwargs
        Arguments of the trainers of scvi-tools and Lightning.
    accelerator, devices
        As in Lightning.
    several
        Whether the model can train on several devices.
    """
    pickles = [name for name in ("enable_checkpointing", "ckpt_path") if trainer_kwargs.get(name)]
    if any(isinstance(c, Checkpoint) for c in trainer_kwargs.get("callbacks") or []):
        pickles.append("a checkpoint among `callbacks`")
    if pickles:
        raise ValueError(
            f"{listing(pickles)} would write pickles, which can run programs when they are read. "
            "A training takes seconds: save the trained model (`save`, `save_model`) instead."
        )
    if max_epochs is not None and not (is_whole(max_epochs) and max_epochs >= -1):
        raise ValueError(f"`max_epochs` must be a whole number from 0 on, got {max_epochs!r}.")
    check_whole("batch_size", batch_size, 1)
    trainers = (UnsupervisedTrainingMixin.train, Trainer.__init__, pl.Trainer.__init__)
    known = {name for trainer in trainers for name in signature(trainer).parameters} - NOT_OF_USERS
    if unknown := sorted(set(trainer_kwargs) - known):
        hints = dict.fromkeys(HINTS[name] for name in unknown if name in HINTS)
        raise TypeError(
            f"`train` has no {listing(unknown)}, and neither have the trainers of scvi-tools and "
            f"Lightning.{''.join(f' {hint}' for hint in hints)}"
        )
    if several:
        on_device(accelerator, devices if is_one(devices) else "auto")
    else:
        for name, usual in (("strategy", "auto"), ("num_nodes", 1)):
            if (told := trainer_kwargs.get(name, usual)) != usual:
                raise ValueError(f"`{name}` can't be {told!r}: {ONE_DEVICE}.")
        check_device(accelerator, devices)
    given = dict(plan_kwargs or {})
    known = sorted(set(signature(plan_class).parameters) - {"module"})
    if unknown := sorted(set(given) - set(known)):
        raise TypeError(f"`plan_kwargs` has no {listing(unknown)}; it has {', '.join(known)}.")
    check_rate("lr", given.get("lr", 0.1))
    # a pretrained manager may stay fixed
    check_rate("manager_lr", given.get("manager_lr", 0.1), or_none=True)


def check_device(accelerator: str, devices: int | list[int] | str = "auto") -> None:
    """Raise ValueError for an unavailable device, and for several devices."""
    if not is_one(devices):
        raise ValueError(
            f'`devices` must be "auto", 1 or a list of one number, got {devices!r}: {ONE_DEVICE}.'
        )
    on_device(accelerator, devices)


def check_rate(name: str, rate: Any, *, or_none: bool = False) -> None:
    """Raise ValueError for an invalid learning rate; ``or_none`` allows 0.

    A step of Adam changes each weight by about the learning rate, and weights are below 1.
    """
    if not is_number(rate) or not (0 < rate < 1 or (or_none and rate == 0)):
        least = "from 0 on" if or_none else "above 0"
        raise ValueError(
            f"`{name}` must be a number {least} and below 1 (a learning rate; 0.0001 to 0.01 are "
            f"usual), got {rate!r}."
        )
