"""Put the cells of FCS files that do not fit into memory into a zarr store."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scmoe.io import open_store, write_store

from ._cells import choose_transform, is_compensation_due
from ._channels import why_left_out
from ._output import STORE

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.io import Plate
    from scmoe.similarity import Similarity

    from ._console import Console
    from ._settings import Settings

COPIES = 2
"""Copies of the values of a file that are in memory at most, while they are compensated."""

BYTES_OF_CELL = 300
"""Memory of a cell in addition to its values: name, embedding, probabilities, and sorting."""

BYTES_OF_STORED_CELL = 250
"""The least memory of a cell whose values are in a store."""

MEMORY, OWN_GROUP, GROUPS = map(Path, ("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup"))
"""Where Linux states the memory of the machine, and the limit of a container or a job."""


def choose_store(plate: Plate, settings: Settings, console: Console) -> bool:
    """Return whether the values go to a store: by ``--cells``, or by the available memory.

    Raises
    ------
    MemoryError
        If the cells do not even fit into memory while their values are in a store.
    """
    if settings.cells == "h5ad":
        return False
    n_cells = sum(plate.counts)
    needed = n_cells * (COPIES * plate.dtype.itemsize * len(plate.var) + BYTES_OF_CELL)
    available = available_memory()
    if settings.cells == "auto" and needed <= available:
        return False
    least = n_cells * BYTES_OF_STORED_CELL
    if least > available:
        raise MemoryError(
            f"{n_cells:,} cells need at least {_gigabytes(least)} of memory with their values in "
            f"{STORE}, and {_gigabytes(available)} are free: give fewer files, or free memory."
        )
    if settings.cells == "auto":
        console.step(
            f"the files need about {_gigabytes(needed)} of memory, and {_gigabytes(available)} "
            f"are free: their values go to {STORE}"
        )
    return True


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.3g} GB"


def available_memory() -> int:
    """Return the bytes that this process can still take without swapping.

    The memory of the machine where the system does not tell what is free.
    """
    found = []
    with suppress(OSError, KeyError):
        found.append(1024 * _numbers(MEMORY)["MemAvailable"])
    with suppress(OSError, KeyError, ValueError, StopIteration):
        lines = OWN_GROUP.read_text().splitlines()
        own = next(line for line in lines if line.startswith("0::")).removeprefix("0::")
        group = GROUPS / own.strip("/")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        # the system drops cached files first
        found.append(limit - used + _numbers(group / "memory.stat")["inactive_file"])
    return min(found, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _numbers(path: Path) -> dict[str, int]:
    lines = (line.replace(":", "").split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}


def check_similarity(chosen: Similarity | None, settings: Settings) -> None:
    """Raise ValueError for a similarity that needs all cells in memory."""
    if chosen is None or not (chosen.needs_graph or hasattr(chosen, "use_rep")):
        return
    option = "similarity" if settings.similarity is not None else "preset"
    raise ValueError(
        f"--{option} {getattr(settings, option)} needs a graph or a map of all cells, which takes "
        f"them into memory, but their values go to {STORE}: leave it out (the tree needs no "
        "graph), give fewer files, or read them into memory with --cells h5ad."
    )


def to_store(
    plate: Plate, head: AnnData, settings: Settings, console: Console, folder: Path
) -> tuple[AnnData, str]:
    """Write the values of files to a store, compensated and transformed.

    Parameters
    ----------
    plate, head
        The files, and cells without values as the headers of the files describe them.
    settings, console
        Settings and console of the run.
    folder
        Where to write the store.

    Returns
    -------
    The cells, whose values are in the store, and the transform in words.
    """
    # an unknown name is told before the values are read
    why_left_out(head.var, settings.markers, settings.exclude)
    compensate = is_compensation_due(head, settings, console)
    if compensate and settings.spillover is not None:
        compensate = settings.spillover
    cofactors, told = choose_transform(head, settings, done=False)
    store = folder / STORE
    uns = write_store(plate, store, compensate=compensate, cofactor=cofactors)
    return open_store(plate, store, uns), told
