"""FCS files that do not fit into memory: their values go to a zarr store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scmoe.cli._memory import available_memory
from scmoe.io._zarr import open_store, write_store

from ._channels import why_left_out
from ._folder import STORE
from ._prepare import choose_transform, undoes_spillover

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from scmoe.io._fcs import Plate
    from scmoe.similarity import Similarity

    from ._console import Console
    from ._settings import Settings

COPIES = 2
"""Times that the values of files that fit are in memory at most: while they are compensated."""

OF_CELL = 300
"""Bytes beside its values that a cell takes: its name, codes and probabilities, and sorting it."""


def needs_store(plate: Plate, settings: Settings, console: Console) -> bool:
    """Whether the values go to a store: as the user says, or by the memory that there is."""
    needed = sum(plate.counts) * (COPIES * plate.dtype.itemsize * len(plate.var) + OF_CELL)
    if settings.cells != "auto":
        return settings.cells == "zarr"
    available = available_memory()
    if needed > available:
        console.step(
            f"the files need about {needed / 1e9:,.3g} GB of memory, of {available / 1e9:,.3g} GB "
            f"that are free: their values go to {STORE}"
        )
    return needed > available


def check_similarity(chosen: Similarity | None, settings: Settings) -> None:
    """Raise ValueError for a similarity that looks at all cells at once."""
    if chosen is None or not (chosen.needs_graph or hasattr(chosen, "use_rep")):
        return
    option = "similarity" if settings.similarity is not None else "preset"
    raise ValueError(
        f"--{option} {getattr(settings, option)} looks at a graph or a map of all cells, which "
        f"takes them into memory, but their values go to {STORE}: leave it out (the tree looks at "
        "no graph), give fewer files, or read them into memory with --cells h5ad."
    )


def to_store(
    plate: Plate, head: AnnData, settings: Settings, console: Console, folder: Path
) -> tuple[AnnData, str]:
    """Compensate and transform the files on their way to a store in a folder.

    Parameters
    ----------
    plate, head
        The files, and what their headers tell.
    settings, console
        Of the run.
    folder
        Where to write the store.

    Returns
    -------
    The cells, their values in the store, and how they were transformed, in words.
    """
    # a name that is not there is told before the values are read
    why_left_out(head.var, settings.markers, settings.exclude)
    compensate = undoes_spillover(head, settings, console)
    if compensate and settings.spillover is not None:
        compensate = settings.spillover
    cofactors, told = choose_transform(head, settings, done=False)
    store = folder / STORE
    uns = write_store(plate, store, compensate=compensate, cofactor=cofactors)
    return open_store(plate, store, uns), told
