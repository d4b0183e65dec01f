"""Processes of a training on several devices."""

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
"""Strategies with which Lightning starts processes for the training only."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, one for each device.

    Parameters
    ----------
    n
        Number of processes.
    strategy
        Strategy of Lightning that starts them.
    rank
        Rank of this process; 0 where Lightning starts them for the training only.
    from_start
        Whether all of them run the whole program of the user, as with torchrun and SLURM.
    """

    n: int = 1
    strategy: str = "auto"
    rank: int = 0
    from_start: bool = False

    def of_first(self, make: Callable[[], T]) -> T:
        """Return the result of the first process to all of them, or raise its error."""
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
        """Raise ValueError if the processes have different cells ``(n, n_markers)``."""
        if not self.from_start:
            return
        found = [None] * self.n
        dist.all_gather_object(found, hashlib.sha256(np.ascontiguousarray(x)).digest())
        if len(set(found)) > 1:
            raise ValueError(
                "The processes have different cells: each must have all cells; the training "
                "divides every batch."
            )

    @contextmanager
    def training(self, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Prepare a Lightning fit; yields all arguments of the trainer."""
        if self.n == 1:
            yield {**given, "strategy": self.strategy}
            return
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # a warning of every training with these strategies
            warnings.filterwarnings("ignore", "early_stopping was automatically disabled")
            others = set(active_children())
            try:
                # scvi-tools writes the history to a file, by default in the working directory
                yield {"log_save_dir": folder, **given, "strategy": self.strategy}
            except ProcessRaisedException as error:
                # the text is the traceback in the process
                kind, _, told = str(error).strip().rpartition("\n")[2].partition(": ")
                raise (ValueError if kind == "ValueError" else RuntimeError)(told) from error
            finally:
                # processes of an interrupted training would continue
                for process in set(active_children()) - others:
                    process.kill()
                    process.join()


def find_processes(
    accelerator: str, devices: int | list[int] | str, trainer_kwargs: Mapping[str, Any]
) -> Processes:
    """Return the processes that a training asks for.

    Parameters
    ----------
    accelerator, devices
        As given.
    trainer_kwargs
        Other arguments of the trainer, perhaps among them ``num_nodes`` and ``strategy``.

    Raises
    ------
    ValueError
        Unavailable devices, or a strategy that cannot be used.
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
        raise ValueError(f'{told}the processes are running already; use `strategy="ddp"`.')
    if not from_start and not of_fit:
        raise ValueError(
            f"{told}Lightning would run your program once more for each device. Start it with "
            "torchrun or srun, or leave `strategy` out: then processes are started for the "
            "training only."
        )
    if of_fit and n_nodes > 1:
        raise ValueError(f"{told}start the program on all nodes with torchrun or srun.")
    if from_start:
        with quiet():
            # the process group that the training uses
            trainer.strategy.setup_environment()
    return Processes(trainer.world_size, strategy, trainer.global_rank, from_start)


def is_one(devices: Any) -> bool:
    """Whether ``devices`` means a single device."""
    listed = isinstance(devices, list | tuple) and len(devices) == 1 and is_whole(devices[0])
    return listed or (not isinstance(devices, bool) and devices in ("auto", "1", 1))


class _Sum(torch.autograd.Function):
    """Sum over all processes, also of the gradient."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.apply(gradient)


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, with a gradient."""
    return _Sum.apply(value)
