"""FCS files -> a zarr store, where they do not fit into memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import zarr
from anndata.io import write_elem

from scmoe._atomic import made_folder, move_folder, workspace
from scmoe._checks import warn_if_transformed
from scmoe._keys import Key

from ._fcs import Plate

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("scmoe")

ROWS = 1 << 16
"""Cells of a chunk."""


def fcs_to_zarr(
    path: str | PathLike[str] | Iterable[str | PathLike[str]],
    store: str | PathLike[str],
    *,
    cofactor: float | Mapping[str, float] | pd.Series | None = None,
    overwrite: bool = False,
    join: Literal["inner", "exact", "outer"] = "inner",
    by: Literal["marker", "channel"] = "marker",
    dataset: int | Literal["all"] = 0,
    offsets: Literal["auto", "header", "text"] = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    strict: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write flow and mass cytometry files to a zarr store, file by file.

    The store holds what :func:`read_fcs` returns, for files that do not fit into memory together:
    there are never more than one of them and 65,536 cells in it. It is opened by
    :func:`anndata.experimental.read_lazy`, or whole by :func:`anndata.read_zarr`.

    Parameters
    ----------
    path, join, by, dataset, offsets, dtype, strict, progress
        As in :func:`read_fcs`.
    store
        The folder to write, ``"plate.zarr"``; folders above it are made.
    cofactor
        Transform to ``arcsinh(x / cofactor)`` on the way, as :func:`scmoe.pp.arcsinh` does by
        default; None for intensities.
    overwrite
        Replace a zarr store of that name, once the new one is whole.

    Returns
    -------
    The path of the store. In chunks of 65,536 cells and all channels it holds ``.X``,
    ``.layers["measured"]``, ``.obs``, ``.var`` and ``.uns`` of :func:`read_fcs`, and with a
    `cofactor` ``.uns["arcsinh"]`` of :func:`scmoe.pp.arcsinh`.

    Raises
    ------
    FCSReadError, FileNotFoundError, TypeError
        As :func:`read_fcs`.
    ValueError
        As :func:`read_fcs`, and as :func:`scmoe.pp.arcsinh` for a `cofactor`.
    KeyError
        If `cofactor` names a marker that is not there.
    FileExistsError
        If there is something at `store` and `overwrite` is not set, or it is no zarr store.

    Warns
    -----
    FCSRepairWarning, UserWarning
        As :func:`read_fcs`.
    ScaleWarning
        As :func:`scmoe.pp.arcsinh`, by the first cells.

    Notes
    -----
    The store gets its name once it is whole: on an error there is none, and what was there
    before stays.

    Examples
    --------
    >>> scmoe.io.fcs_to_zarr("plate/", "plate.zarr", cofactor=5)
    >>> adata = anndata.experimental.read_lazy("plate.zarr")
    """
    target = Path(os.path.realpath(store))
    _check_target(target, overwrite=overwrite)
    plate = Plate(
        path,
        join=join,
        by=by,
        dataset=dataset,
        offsets=offsets,
        dtype=dtype,
        strict=strict,
        progress=progress,
    )
    with made_folder(target.parent), workspace(target.parent) as work:
        write_plate(plate, work / "new", cofactor)
        _check_target(target, overwrite=overwrite)
        move_folder(work / "new", target, replace=overwrite, work=work)
    plate.warn()
    logger.info("wrote %d events of %d files to %s", sum(plate.counts), len(plate.files), target)
    return target
