"""One pass over cells: all that a trained module says of them."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scmoe._core.compat import one_thread
from scmoe._core.rows import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scmoe._core.rows import Rows
    from scmoe.model._described import DescribedModule

LARGE_BATCH = 250_000
"""Values in a batch from which a second thread pays."""

OUTLIER = "outlier"
"""What is said of cells beside the outputs of their module."""

SEEN = ("latent", "proba", "expert", OUTLIER)
"""What a clustering says of cells, whatever the model."""


def outputs_of(
    module: DescribedModule,
    cells: np.ndarray,
    batch: np.ndarray | None = None,
    chunk: int | None = None,
) -> Iterator[dict[str, torch.Tensor]]:
    """Outputs of a trained module, chunk by chunk.

    Parameters
    ----------
    module
        The module.
    cells
        Cells x markers, float32, in the order of the training markers.
    batch
        Number of the batch of each cell, ``(n,)``; None for the first.
    chunk
        Cells at a time.

    Yields
    ------
    What ``inference`` gives, with ``position`` (n, n_markers), the scaled markers, not clipped.

    Raises
    ------
    ValueError
        Cells whose probabilities are no numbers.
    """
    device = module.low.device
    # launches cost a GPU more than sums: it takes all cells of a block at once
    chunk = chunk or (CHUNK if device.type == "cpu" else max(len(cells), 1))
    module.eval()
    for start in range(0, len(cells), chunk):
        some = slice(start, start + chunk)
        x = torch.from_numpy(cells[some]).to(device)
        of_batch = None if batch is None else torch.from_numpy(batch[some, None]).to(device)
        with torch.inference_mode(), one_thread(x.numel() < LARGE_BATCH):
            outputs = module.inference(x, of_batch)
            check_told(outputs["proba"])
            outputs["position"] = module.position(x)
        yield outputs


def see(
    module: DescribedModule,
    rows: Rows,
    names: Sequence[str],
    batch: np.ndarray | None = None,
    chunk: int | None = None,
    more: Callable[..., Any] | None = None,
    *of_cells: np.ndarray | None,
) -> Iterator[tuple[slice, dict[str, np.ndarray], Any]]:
    """What a trained module says of cells, block by block, where the blocks are looked at.

    Parameters
    ----------
    module, batch, chunk
        As in :func:`outputs_of`.
    rows
        Cells x markers, in the order of the training markers.
    names
        Which outputs, and ``"outlier"``: NaN where the module was saved without landmarks.
    more
        What else is asked of a block: a function, as in :meth:`scmoe._core.rows.Rows.map`, of its
        values, its arrays by name, and its part of each of ``of_cells``.

    Yields
    ------
    Place of the block among the cells, its arrays by name, and what ``more`` gave.
    """
    if rows.client is not None and module.low.device.type != "cpu":
        # workers need not have such a device
        module = deepcopy(module).cpu()
    look = partial(_look_at, module, tuple(names), chunk, more)
    for place, (found, told) in rows.map(look, batch, *of_cells):
        yield place, found, told


def _look_at(
    module: DescribedModule,
    names: tuple[str, ...],
    chunk: int | None,
    more: Callable[..., Any] | None,
    block: np.ndarray,
    batch: np.ndarray | None,
    *of_cells: np.ndarray | None,
) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays of a block by name, and what ``more`` gives."""
    scored = OUTLIER in names and module.outliers.available
    needed = {*names, *(("position", "expert") if scored else ())} - {OUTLIER}
    parts = [
        {name: outputs[name].numpy(force=True) for name in needed}
        for outputs in outputs_of(module, block, batch, chunk)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in needed}
    found[OUTLIER] = np.full(len(block), np.nan, np.float32)
    if scored:
        found[OUTLIER] = module.outliers.score(found["position"], found["expert"])
    found = {name: found[name] for name in names}
    return found, None if more is None else more(block, found, *of_cells)


def put(arrays: dict[str, np.ndarray], n: int, place: slice, part: dict[str, np.ndarray]) -> None:
    """Put the arrays of a block into those of all ``n`` cells, which are made where they lack."""
    for name, values in part.items():
        if name not in arrays:
            arrays[name] = np.empty((n, *values.shape[1:]), values.dtype)
        arrays[name][place] = values


def all_seen(
    module: DescribedModule,
    rows: Rows,
    names: Sequence[str],
    batch: np.ndarray | None = None,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """What :func:`see` says, of all cells."""
    found: dict[str, np.ndarray] = {}
    for place, part, _ in see(module, rows, names, batch, chunk):
        put(found, len(rows), place, part)
    return found


def check_told(proba: torch.Tensor) -> None:
    """Raise ValueError for cells whose probabilities are no numbers."""
    unknown = int((~proba.isfinite()).any(-1).sum())
    if unknown:
        raise ValueError(
            f"The model gives {unknown} of {len(proba)} cells probabilities that are no numbers: "
            "values of these cells are too large for it, or its weights are."
        )
