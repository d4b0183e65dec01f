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
    # the pre-processing imports this package
    from scmoe.pp._arcsinh import JUDGED, channel_cofactors, record_of, to_judge, transform

    uns: dict[str, Any] = {}
    raw = np.empty((0, 0))
    cofactors = None
    if cofactor is not None:
        cofactors = channel_cofactors(ad.AnnData(var=plate.var), cofactor)
        columns = plate.var.index.get_indexer(cofactors.index)
        uns[Key.uns.ARCSINH] = {"X": record_of(cofactors, "X")}
    with made_folder(target.parent), workspace(target.parent) as work:
        group = _new_store(plate, work / "new")
        rows: dict[str, _Rows] = {}
        for i in plate.each("writing FCS files to zarr"):
            X, measured = plate.allocate(plate.counts[i])
            plate.read(i, X, measured)
            if cofactors is not None:
                if not raw.size:
                    raw = to_judge(X[:JUDGED].copy(), columns, cofactors.to_numpy())
                X = transform(X, columns, cofactors.to_numpy(), in_place=True)
            for name, values in _by_array(X, measured, plate.cells([i])).items():
                if name not in rows:
                    rows[name] = _Rows(group[name])
                rows[name].add(values)
        for grown in rows.values():
            grown.close()
        uns[Key.uns.FCS] = plate.records()
        if cofactors is not None:
            warn_if_transformed(
                ad.AnnData(var=plate.var, uns=uns), raw, "X", "Leave `cofactor` out."
            )
        plate.warn()
        write_elem(group, "uns", uns)
        zarr.consolidate_metadata(group.store)
        _check_target(target, overwrite=overwrite)
        move_folder(work / "new", target, replace=overwrite, work=work)
    logger.info("wrote %d events of %d files to %s", sum(plate.counts), len(plate.files), target)
    return target


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError for what must not be replaced."""
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise FileExistsError(f"Would overwrite {target}; pass `overwrite=True`.")
    if not any((target / name).is_file() for name in (".zgroup", "zarr.json")):
        raise FileExistsError(f"{target} is no zarr store, so it is not replaced.")


def _new_store(plate: Plate, folder: Path) -> zarr.Group:
    """Make a store without cells, whose arrays can grow by whole chunks."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=ad.settings.zarr_write_format)
    X, measured = plate.allocate(0)
    layers = {} if measured is None else {Key.layers.MEASURED: measured}
    empty = ad.AnnData(X, obs=plate.cells([]), var=plate.var, layers=layers)
    # as AnnData does when it is written
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
    """Return values of some cells by the array of the store that they go to."""
    arrays = {
        "X": X,
        f"layers/{Key.layers.MEASURED}": measured,
        "obs/_index": cells.index.to_numpy(),
        f"obs/{Key.obs.SAMPLE}/codes": cells[Key.obs.SAMPLE].cat.codes.to_numpy(),
        f"obs/{Key.obs.EVENT}": cells[Key.obs.EVENT].to_numpy(),
    }
    return {name: values for name, values in arrays.items() if values is not None}


class _Rows:
    """An array that grows by whole chunks, so that none is compressed twice."""

    def __init__(self, array: zarr.Array) -> None:
        self._array = array
        self._left: list[np.ndarray] = []
        self._n_left = 0

    def add(self, values: np.ndarray) -> None:
        """Add rows; less than a chunk of them wait."""
        first = 0
        while self._n_left + len(values) - first >= ROWS:
            stop = first + ROWS - self._n_left
            self._left.append(values[first:stop])
            self.close()
            first = stop
        # a copy: a view would keep all values in memory
        self._left.append(values[first:].copy())
        self._n_left += len(values) - first

    def close(self) -> None:
        """Write the rows that wait."""
        if self._left:
            self._array.append(np.concatenate(self._left))
        self._left, self._n_left = [], 0
