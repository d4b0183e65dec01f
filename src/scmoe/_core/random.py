"""Seeds that do not leak: what a function draws depends on its seed alone."""

from __future__ import annotations

import os
import random
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from scmoe._core.settings import is_whole

if TYPE_CHECKING:
    from collections.abc import Iterator


_turn = threading.RLock()


def _new_turn() -> None:
    """Free a forked process of a thread that it does not have."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_turn)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one thread of the process into all such blocks, which may lie within each other.

    For what a process has once: random generators, the number of threads that torch uses,
    filters of warnings, levels of loggers.
    """
    with _turn:
        yield


def as_seed(random_state: int | np.random.Generator) -> int:
    """Return a seed: an int as it is, of a Generator the next number that it draws."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if is_whole(random_state):
        if not 0 <= random_state < 2**32:
            raise ValueError(f"`random_state` must be in [0, 2**32), got {random_state}.")
        return int(random_state)
    raise ValueError(f"`random_state` must be an int or a numpy Generator, got {random_state!r}.")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch, and restore their states at the end.

    Threads take turns, as they share these generators.
    """
    with one_at_a_time(), _seeded(seed):
        yield


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    import torch

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    # a GPU that nothing has used has no state yet; to ask for one starts CUDA, which ends forking
    unused = torch.cuda.is_available() and not torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=[] if unused else None):
        try:
            # nothing here draws from these two, but similarities of users may, and libraries do
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            if unused:
                torch.cuda.seed_all()
