"""Trainings on several devices: who starts the processes, and what the first makes for all."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException, active_children

from scmoe._core.compat import empty_trainer, is_notebook, quiet
from scmoe._core.settings import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


T = TypeVar("T")

LAUNCHED = ("ddp_spawn", "ddp_fork", "ddp_notebook")
"""Strategies by which Lightning starts processes for the training alone."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, one for each device.

    Parameters
    ----------
    n
        How many.
    strategy
        What Lightning calls the way in which they are started.
    rank
        Number of this process, from 0; 0 where Lightning starts them for the training alone.
    from_start
        Whether all of them run the user's program from its start, as torchrun and SLURM have it.
    """

    n: int = 1
    strategy: str = "auto"
    rank: int = 0
    from_start: bool = False

    def of_first(self, make: Callable[[], T]) -> T:
        """What the first process makes; the others wait, and get it, or its error."""
        if not self.from_start:
            return make()
        found, error = None, None
        if self.rank == 0:
            try:
                found = make()
            except Exception as raised:  # noqa: BLE001
                error = raised
        told = [(found, error)]
        dist.broadcast_object_list(told, src=0)
        found, error = told[0]
        if error is not None:
            raise error
        return found

    def check_cells(self, x: np.ndarray) -> None:
        """Raise ValueError where processes have different cells ``(n, n_markers)``."""
        if not self.from_start:
            return
        found = [None] * self.n
        dist.all_gather_object(found, hashlib.sha256(np.ascontiguousarray(x)).digest())
        if len(set(found)) > 1:
            raise ValueError(
                "The processes have different cells: each must have all of them; the training "
                "divides every batch."
            )

    @contextmanager
    def training(self, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The surroundings of a Lightning fit; from the arguments of the trainer to all."""
        if self.n == 1:
            yield {**given, "strategy": self.strategy}
            return
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # said of every training of the kind
            warnings.filterwarnings("ignore", "early_stopping was automatically disabled")
            others = set(active_children())
            try:
                # scvi-tools brings the history back by a file, in the working directory by default
                yield {"log_save_dir": folder, **given, "strategy": self.strategy}
            except ProcessRaisedException as error:
                # the text is the traceback in the process
                kind, _, told = str(error).strip().rpartition("\n")[2].partition(": ")
                raise (ValueError if kind == "ValueError" else RuntimeError)(told) from error
            finally:
                # those of a training that was interrupted would go on
                for process in set(active_children()) - others:
                    process.kill()
                    process.join()


def find_processes(
    accelerator: str, devices: int | list[int] | str, trainer_kwargs: Mapping[str, Any]
) -> Processes:
    """The processes that a training is meant to have.

    Parameters
    ----------
    accelerator, devices
        As given.
    trainer_kwargs
        Other arguments of the trainer, perhaps among them ``num_nodes`` and ``strategy``.

    Raises
    ------
    ValueError
        Devices that there are not; a strategy that can't be used, with what can be.
    """
    n_nodes, strategy = trainer_kwargs.get("num_nodes", 1), trainer_kwargs.get("strategy", "auto")
    if is_one(devices) and n_nodes == 1 and strategy == "auto":
        return Processes()
    names = "ddp", *LAUNCHED
    if not (isinstance(strategy, str) and strategy.startswith(("auto", *names))):
        raise ValueError(f"`strategy` must be one of {', '.join(names)}, got {strategy!r}.")
    trainer = empty_trainer(accelerator, devices, n_nodes, strategy)
    if trainer.world_size == 1:
        return Processes()
    from_start = trainer.strategy.cluster_environment.creates_processes_externally
    if strategy == "auto":
        strategy = "ddp" if from_start else "ddp_notebook" if is_notebook() else "ddp_spawn"
    told = f"`strategy={strategy!r}` of {trainer.world_size} devices: "
    of_fit = strategy.startswith(LAUNCHED)
    if from_start and of_fit:
        raise ValueError(f'{told}the processes are there already; use `strategy="ddp"`.')
    if not from_start and not of_fit:
        raise ValueError(
            f"{told}Lightning would run your program once more for each device. Start it by "
            "torchrun or srun, or leave `strategy` out: then processes are started for the "
            "training alone."
        )
    if of_fit and n_nodes > 1:
        raise ValueError(f"{told}start the program on all nodes by torchrun or srun.")
    if from_start:
        with quiet():
            # the group that the training uses, too
            trainer.strategy.setup_environment()
    return Processes(trainer.world_size, strategy, trainer.global_rank, from_start)


def is_one(devices: Any) -> bool:
    """Whether ``devices`` means one device."""
    listed = isinstance(devices, list | tuple) and len(devices) == 1 and is_whole(devices[0])
    return listed or (not isinstance(devices, bool) and devices in ("auto", "1", 1))


class _Sum(torch.autograd.Function):
    """Sum over all processes, of a gradient too."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.apply(gradient)


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, with a gradient."""
    return _Sum.apply(value)
