"""Settings of a training, looked at before anything is learned: pretraining can take minutes."""

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

_DEVICE = '`accelerator` says what to compute on: "auto", "cpu" or "gpu".'
_RATE = 'The learning rate is `plan_kwargs={"lr": ...}`.'
ONE_DEVICE = "this model learns on one device; `MoESimVAE` alone takes several"
_EPOCHS = "`max_epochs` says how long to train."

HINTS = {
    **dict.fromkeys(("device", "use_gpu", "gpu", "gpus", "cuda"), _DEVICE),
    **dict.fromkeys(("lr", "learning_rate", "betas", "manager_lr"), _RATE),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs"), _EPOCHS),
}
"""What the arguments of other packages are here."""

OURS = {
    *("self", "kwargs", "trainer_kwargs", "datasplitter_kwargs", "datamodule"),
    *("shuffle_set_split", "load_sparse_tensor"),
}
"""Names in the signatures of the trainers that are not the user's."""


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
    """TypeError for settings that a training does not have, ValueError for what they can't be.

    Parameters
    ----------
    max_epochs
        As given; -1 for no end, as in Lightning.
    batch_size
        As given.
    plan_class, plan_kwargs
        The training plan, and what was given for it.
    trainer_kwargs
        What was given for the trainers of scvi-tools and Lightning.
    accelerator, devices
        As given.
    several
        Whether the model can learn on several devices.
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
    known = {name for trainer in trainers for name in signature(trainer).parameters} - OURS
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
    # a manager that was taught may stay as it is
    check_rate("manager_lr", given.get("manager_lr", 0.1), or_none=True)


def check_device(accelerator: str, devices: int | list[int] | str = "auto") -> None:
    """Raise ValueError for a device that there is not, and for several."""
    if not is_one(devices):
        raise ValueError(
            f'`devices` must be "auto", 1 or a list of one number, got {devices!r}: {ONE_DEVICE}.'
        )
    on_device(accelerator, devices)


def check_rate(name: str, rate: Any, *, or_none: bool = False) -> None:
    """Raise ValueError for what no learning rate can be; ``or_none`` lets 0 pass.

    Adam moves every weight by about as much in a step, and weights are below 1.
    """
    if not is_number(rate) or not (0 < rate < 1 or (or_none and rate == 0)):
        least = "from 0 on" if or_none else "above 0"
        raise ValueError(
            f"`{name}` must be a number {least} and below 1 (a learning rate; 0.0001 to 0.01 are "
            f"usual), got {rate!r}."
        )
