"""Trainings that go on where they were killed, to the very bits of one that never was."""

from __future__ import annotations

import logging
import os
import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import SaveCheckpoint

from scmoe._core.atomic import clean, remove_folder, write_folder
from scmoe._core.compat import advance_bar, fit_state, history_of, restore_fit
from scmoe._core.files import ModelFileError, json_bytes, pack_tensors, read_json, unpack_tensors
from scmoe._core.plain import from_plain, to_plain
from scmoe._core.settings import is_whole
from scmoe._core.text import listing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning.pytorch import LightningModule, Trainer

logger = logging.getLogger("scmoe")

SCHEMA = "scmoe checkpoint"
SCHEMA_VERSION = 1
KEYS = {"run": dict, "seed": int, "epoch": int, "state": dict, "tensors": dict}
JSON, TENSORS = "checkpoint.json", "checkpoint.safetensors"

KEPT = 2
"""Checkpoints that are kept: the newest, and one should that be damaged."""


class Checkpoints(Callback):
    """Write the state of a training after epochs, and go on from it.

    Between two epochs the state is: weights, the optimiser and what it remembers, schedulers,
    the loops' counters, callbacks, history, and all generators of random numbers.

    Parameters
    ----------
    folder
        Where checkpoints are, each a folder ``epoch-000007`` of ``checkpoint.json`` and
        ``checkpoint.safetensors``; written beside and renamed, so there is never half of one.
    every
        Epochs from one checkpoint to the next.
    run
        What the training is of, see :func:`~scmoe.train._fingerprint.fingerprint`.
    seed
        What the training draws its random numbers from, if it starts here.

    Attributes
    ----------
    seed
        The same, or that of the training that goes on.
    rng
        The generator of that seed, which the training must draw from: its state is kept too.

    Raises
    ------
    ValueError
        A checkpoint of another training; it says what differs.
    ModelFileError
        All checkpoints are damaged.
    """

    def __init__(
        self, folder: str | os.PathLike, *, every: int, run: Mapping[str, str], seed: int
    ):
        self.folder, self.every, self.run, self.seed = Path(folder), every, dict(run), seed
        self._state: dict[str, Any] | None = None
        if not is_whole(every) or every < 1:
            raise ValueError(f"`checkpoint_every` must be a number of epochs from 1, got {every}.")
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"`checkpoint`: {str(folder)!r} is a file; name a folder.")
        content = self._newest()
        if content is not None:
            self._check_run(content["run"])
            self.seed, self._state = content["seed"], content["state"]
            logger.info("Training goes on after epoch %d of its checkpoint.", content["epoch"])
        self.rng = np.random.default_rng(self.seed)

    def _newest(self) -> dict[str, Any] | None:
        """What the newest checkpoint says that can be read; None where there is none."""
        damage = []
        for place in written(self.folder):
            try:
                content = read_json(place / JSON, SCHEMA, SCHEMA_VERSION, KEYS)
                tensors = unpack_tensors(place / TENSORS, content["tensors"])
                content["state"] = _decoded(content["state"], tensors, place)
            except ModelFileError as error:
                damage.append(str(error))
                continue
            if damage:
                warnings.warn(
                    f"{damage[0]} Training goes on from {place.name!r}, the checkpoint before.",
                    UserWarning,
                    stacklevel=4,
                )
            return content
        if damage:
            raise ModelFileError(
                f"No checkpoint in {str(self.folder)!r} can be read; to train from the start, "
                f"delete the folder. {damage[0]}"
            )
        return None

    def _check_run(self, found: Mapping[str, Any]) -> None:
        """Raise ValueError unless the checkpoint is of this training."""
        names = [name for name in {**self.run, **found} if self.run.get(name) != found.get(name)]
        if not names:
            return
        told = [_difference(name, found.get(name), self.run.get(name)) for name in names]
        raise ValueError(
            f"The checkpoint in {str(self.folder)!r} is of another training; not the same are: "
            f"{'; '.join(told)}. Name another folder, or delete this one to train from the start."
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what a checkpoint could not hold."""
        if trainer.world_size > 1:
            raise ValueError("`checkpoint` needs a training on one device.")
        if history_of(trainer) is None:
            raise ValueError("`checkpoint` needs the default logger, which keeps the history.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put everything back but random numbers, which setting up an epoch draws from."""
        if self._state is None:
            return
        state = self._state
        try:
            pl_module.load_state_dict(state["plan"])
            restore_fit(trainer, state["fit"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise self._damaged(error) from error

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the state between two epochs; all of the last one is in the history by now."""
        if self._state is not None:
            self._set_random()
            advance_bar(trainer)
        elif trainer.current_epoch > 0 and trainer.current_epoch % self.every == 0:
            self._write(trainer, pl_module)

    def _set_random(self) -> None:
        try:
            _set_random(self._state["random"], self.rng)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise self._damaged(error) from error
        self._state = None

    def _damaged(self, error: Exception) -> ModelFileError:
        return ModelFileError(
            f"The checkpoint in {str(self.folder)!r} is damaged: {error!r}. To train from the "
            "start, delete the folder."
        )

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tensors: dict[str, torch.Tensor] = {}
        state = {
            "plan": dict(pl_module.state_dict()),
            "fit": fit_state(trainer),
            "random": _random(self.rng),
        }
        state = to_plain(state, "state", tensors)
        data, description = pack_tensors(tensors)
        content = {
            "run": self.run,
            "seed": self.seed,
            "epoch": trainer.current_epoch,
            "state": state,
            "tensors": description,
        }
        files = {JSON: json_bytes(SCHEMA, SCHEMA_VERSION, content), TENSORS: data}
        place = self.folder / f"epoch-{trainer.current_epoch:06d}"
        write_folder(place, files, replace=True)
        for place in written(self.folder)[KEPT:]:
            remove_folder(place)


def written(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest first."""
    return sorted(folder.glob("epoch-[0-9]*"), reverse=True)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints in a folder, and the folder unless it holds something else."""
    for place in written(folder):
        remove_folder(place)
    if folder.is_dir():
        clean(folder)
        if not any(folder.iterdir()):
            folder.rmdir()


def refuse_pickles(trainer_kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError for checkpoints of other libraries, which are read as pickles."""
    given = [name for name in ("enable_checkpointing", "ckpt_path") if trainer_kwargs.get(name)]
    if any(isinstance(c, SaveCheckpoint) for c in trainer_kwargs.get("callbacks") or []):
        given.append("SaveCheckpoint")
    if given:
        raise ValueError(
            f"{listing(given)} would read pickles, which can run programs. Use `checkpoint`."
        )


def _decoded(state: dict, tensors: Mapping[str, torch.Tensor], place: Path) -> dict[str, Any]:
    try:
        state = from_plain(state, tensors)
    except ValueError as error:
        raise ModelFileError(f"{str(place)!r} is damaged: {error}") from error
    if not isinstance(state, dict) or state.keys() != {"plan", "fit", "random"}:
        raise ModelFileError(f"{str(place)!r} is damaged: it lacks a part of the state.")
    return state


def _difference(name: str, before: str | None, now: str | None) -> str:
    """A part of the fingerprint in words; hashes say nothing to people."""
    values = [v for v in (before, now) if v is not None]
    if any(not isinstance(v, str) or len(v) == 64 for v in values):
        return name
    return f"{name} (checkpoint: {before}, now: {now})"


def _random(rng: np.random.Generator) -> dict[str, Any]:
    """The state of all generators of random numbers."""
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "batches": rng.bit_generator.state,
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
    }


def _set_random(state: Mapping[str, Any], rng: np.random.Generator) -> None:
    rng.bit_generator.state = state["batches"]
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
