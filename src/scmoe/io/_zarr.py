"""Write FCS files that do not fit into memory to a zarr store."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem

from scmoe._core.atomic import check_free, made_folder, move_folder, workspace
from scmoe._core.keys import Key
from scmoe.pp import StreamedArcsinh, StreamedCompensation

from ._read_fcs import Plate, ReadOptions

logger = logging.getLogger("scmoe")

Spillovers = pd.DataFrame | str | PathLike[str] | Mapping[str, pd.DataFrame | str | PathLike[str]]
"""A spillover matrix, or one for each sample."""

ROWS = 1 << 16
"""Cells per chunk."""


def fcs_to_zarr(
    path: str | PathLike[str] | Iterable[str | PathLike[str]],
    store: str | PathLike[str],
    *,
    compensate: bool | Spillovers = False,
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

    The store holds the AnnData of :func:`read_fcs`, for files that do not fit into memory
    together: one file and 65,536 cells are in memory at most. Open it by
    :func:`anndata.experimental.read_lazy`, or read it into memory by :func:`anndata.read_zarr`.

    Parameters
    ----------
    path, join, by, dataset, offsets, dtype, strict, progress
        As in :func:`read_fcs`.
    store
        The folder to write, for instance ``"plate.zarr"``; parent folders are created.
    compensate
        Compensate the values: True with the matrix of each file; or with one matrix, or one for
        each sample, as the `spillover` of :func:`scmoe.pp.compensate`.
    cofactor
        Transform to ``arcsinh(x / cofactor)``, as :func:`scmoe.pp.arcsinh` does by default, after
        compensation if any; None for intensities.
    overwrite
        Replace an existing zarr store, after the new one is complete.

    Returns
    -------
    The path of the store. It holds, in chunks of 65,536 cells and all channels, ``.X``,
    ``.layers["measured"]``, ``.obs``, ``.var`` and ``.uns`` of :func:`read_fcs`,
    ``.uns["compensated"]`` of :func:`scmoe.pp.compensate` and ``.uns["arcsinh"]`` of
    :func:`scmoe.pp.arcsinh`.

    Raises
    ------
    FCSReadError, FileNotFoundError, TypeError
        As :func:`read_fcs`.
    ValueError
        As :func:`read_fcs`, as :func:`scmoe.pp.compensate` for `compensate` and as
        :func:`scmoe.pp.arcsinh` for a `cofactor`.
    KeyError
        If `cofactor` names an unknown marker.
    FileExistsError
        If `store` exists and `overwrite` is not set, or `store` is not a zarr store.
    OSError
        If the disk has no room for the uncompressed values; checked before any value is read.

    Warns
    -----
    FCSRepairWarning, UserWarning
        As :func:`read_fcs`.
    ScaleWarning
        As :func:`scmoe.pp.compensate` and :func:`scmoe.pp.arcsinh`.

    Notes
    -----
    The store gets its name after it is complete: on an error there is no new store, and an old
    one stays.

    Examples
    --------
    >>> scmoe.io.fcs_to_zarr("plate/", "plate.zarr", cofactor=5)
    >>> adata = anndata.experimental.read_lazy("plate.zarr")
    """
    target = Path(os.path.realpath(store))
    _check_target(target, overwrite=overwrite)
    plate = Plate(path, ReadOptions(join, by, dataset, offsets, dtype, strict, progress))
    with made_folder(target.parent), workspace(target.parent) as work:
        write_store(plate, work / "new", compensate=compensate, cofactor=cofactor)
        _check_target(target, overwrite=overwrite)
        move_folder(work / "new", target, replace=overwrite, work=work)
    logger.info("wrote %d events of %d files to %s", sum(plate.counts), len(plate.files), target)
    return target


def write_store(
    plate: Plate,
    folder: Path,
    *,
    compensate: bool | Spillovers = False,
    cofactor: float | Mapping[str, float] | pd.Series | None = None,
) -> dict[str, Any]:
    """Write the files of a plate to a new store and return its ``.uns``.

    An error leaves an incomplete store.
    """
    head = plate.head()
    steps: list[StreamedCompensation | StreamedArcsinh] = []
    if compensate is not False:
        steps.append(StreamedCompensation(head, None if compensate is True else compensate))
    if cofactor is not None:
        steps.append(StreamedArcsinh(head, cofactor, sum(plate.counts)))
    check_free(folder, sum(plate.counts) * len(plate.var) * plate.dtype.itemsize)
    group = _new_store(plate, folder)
    growing: dict[str, _GrowingArray] = {}
    for i in plate.each("writing FCS files to zarr"):
        X, measured = plate.allocate(plate.counts[i])
        plate.read(i, X, measured)
        for step in steps:
            step.apply(X, plate.samples[i])
        for name, values in _by_array(X, measured, plate.cells([i])).items():
            if name not in growing:
                growing[name] = _GrowingArray(group[name])
            growing[name].add(values)
    for array in growing.values():
        array.flush()
    uns: dict[str, Any] = {Key.uns.FCS: plate.records()}
    for step in steps:
        step.warn(ad.AnnData(var=plate.var, uns=uns))
        uns |= step.record()
    plate.warn()
    write_elem(group, "uns", uns)
    zarr.consolidate_metadata(group.store)
    return uns


def open_store(plate: Plate, store: Path, uns: dict[str, Any]) -> ad.AnnData:
    """Open a store as AnnData whose values stay on disk; the cells are named by numbers."""
    obs = plate.unnamed_cells(range(len(plate.files)))
    # the index is set afterwards, since anndata makes strings of numbers
    names = pd.Index(np.array(["cell"], dtype=object).repeat(len(obs)), dtype=object)
    with ad.settings.override(check_uniqueness=False):
        adata = ad.AnnData(obs=obs.set_axis(names), var=plate.var, uns=uns)
    adata.obs_names = pd.RangeIndex(len(obs))
    set_values(adata, store)
    return adata


def set_values(adata: ad.AnnData, store: Path) -> None:
    """Set ``.X`` and the layers to the arrays of a store."""
    group = zarr.open_group(str(store), mode="r")
    adata.X = group["X"]
    for name in group["layers"]:
        adata.layers[name] = group[f"layers/{name}"]


def write_results(adata: ad.AnnData, store: Path) -> None:
    """Add new columns of ``.obs`` and new entries of ``.obsm`` and ``.uns`` to a store."""
    group = zarr.open_group(str(store), mode="r+", use_consolidated=False)
    obs, names = group["obs"], group["obs/_index"]
    for column in adata.obs.columns.difference(list(obs.attrs["column-order"]), sort=False):
        values = adata.obs[column].array
        values = values if isinstance(values, pd.Categorical) else values.to_numpy()
        write_elem(obs, str(column), values, dataset_kwargs={"chunks": (ROWS,)})
    obs.attrs["column-order"] = [str(column) for column in adata.obs]
    for name, values in adata.obsm.items():
        if isinstance(values, pd.DataFrame):
            _write_table(group["obsm"], name, values, names)
        else:
            of_values = {"chunks": (ROWS, *values.shape[1:])}
            write_elem(group["obsm"], name, values, dataset_kwargs=of_values)
    for name, value in adata.uns.items():
        if name not in group["uns"]:
            write_elem(group["uns"], name, value)
    zarr.consolidate_metadata(group.store)


def _write_table(group: zarr.Group, name: str, table: pd.DataFrame, names: zarr.Array) -> None:
    """Write a table whose index is an array of the store, chunk by chunk."""
    empty = table.iloc[:0].set_axis(pd.Index([], dtype=object))
    write_elem(group, name, empty, dataset_kwargs={"chunks": (ROWS,)})
    for first in range(0, len(table), ROWS):
        rows = slice(first, first + ROWS)
        group[f"{name}/_index"].append(names[rows])
        for column in table:
            group[f"{name}/{column}"].append(table[column].to_numpy()[rows])


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError if the target must not be replaced."""
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise FileExistsError(f"Would overwrite {target}; pass `overwrite=True`.")
    if not any((target / name).is_file() for name in (".zgroup", "zarr.json")):
        raise FileExistsError(f"{target} is not a zarr store, so it is not replaced.")


def _new_store(plate: Plate, folder: Path) -> zarr.Group:
    """Make a store without cells, with arrays that grow by whole chunks."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=2)
    X, measured = plate.allocate(0)
    layers = {} if measured is None else {Key.layers.MEASURED: measured}
    empty = ad.AnnData(X, obs=plate.cells([]), var=plate.var, layers=dict(layers))
    # AnnData does the same when it is written
    empty.strings_to_categoricals()
    write_elem(group, "/", empty)
    of_matrix = {"chunks": (ROWS, X.shape[1])}
    write_elem(group, "X", X, dataset_kwargs=of_matrix)
    write_elem(group, "layers", layers, dataset_kwargs=of_matrix)
    write_elem(group, "obs", empty.obs, dataset_kwargs={"chunks": (ROWS,)})
    return group


def _by_array(
    X: np.ndarray, measured: np.ndarray | None, cells: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Return the values of some cells by the name of their array in the store."""
    arrays = {
        "X": X,
        f"layers/{Key.layers.MEASURED}": measured,
        "obs/_index": cells.index.to_numpy(),
        f"obs/{Key.obs.SAMPLE}/codes": cells[Key.obs.SAMPLE].cat.codes.to_numpy(),
        f"obs/{Key.obs.EVENT}": cells[Key.obs.EVENT].to_numpy(),
    }
    return {name: values for name, values in arrays.items() if values is not None}


class _GrowingArray:
    """An array on disk that grows by whole chunks, so that each is compressed once."""

    def __init__(self, array: zarr.Array) -> None:
        self._array = array
        self._left: list[np.ndarray] = []
        self._n_left = 0

    def add(self, values: np.ndarray) -> None:
        """Add rows; fewer than a chunk of them are kept in memory."""
        first = 0
        while self._n_left + len(values) - first >= ROWS:
            stop = first + ROWS - self._n_left
            self._left.append(values[first:stop])
            self.flush()
            first = stop
        # a copy, since a view would keep all values in memory
        self._left.append(values[first:].copy())
        self._n_left += len(values) - first

    def flush(self) -> None:
        """Write the rows that are kept in memory."""
        if self._left:
            self._array.append(np.concatenate(self._left))
        self._left, self._n_left = [], 0
