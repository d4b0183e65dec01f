"""Check AnnData: names, slots, layers, batches, what lies in memory and what in a file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from natsort import natsorted
from scipy import sparse

from scmoe._core.keys import Key
from scmoe._core.text import listing, written

if TYPE_CHECKING:
    from anndata import AnnData


FEW_OF_BATCH = 3
"""Cells of a batch below which nothing is learned of it; scvi-tools warns of such, too."""


def check_is_adata(adata: Any, name: str = "adata") -> None:
    """Raise ValueError for what is no AnnData: a path, an array, a MuData."""
    from anndata import AnnData

    if isinstance(adata, AnnData):
        return
    how = "Make one of values: `anndata.AnnData(values)`, cells x markers."
    if isinstance(adata, str | PathLike):
        how = "Read the file first: `anndata.read_h5ad(path)`, or `scmoe.io.read_fcs(path)`."
    elif "MuData" in (kind.__name__ for kind in type(adata).__mro__) and len(adata.mod):
        names = [str(modality) for modality in adata.mod]
        how = (
            f"Give one of its modalities, such as `mdata[{names[0]!r}]`; it has {listing(names)}."
        )
    raise ValueError(f"`{name}` must be an AnnData, got {type(adata).__name__}. {how}")


def obs_columns(adata: AnnData) -> list[str]:
    """Return the columns of ``.obs``, without those that scvi-tools and its models keep there."""
    return [c for c in map(str, adata.obs) if c != "_indices" and not c.startswith("_scvi")]


def clustering_record(adata: AnnData, key: str, name: str = "adata") -> Mapping[str, Any]:
    """Return the record of a clustering, or of something else of that name; empty without one.

    Raises ValueError for what joining cells of different clusterings has left of their records.
    """
    check_is_adata(adata, name)
    record = adata.uns.get(Key.uns.result(key))
    if not isinstance(record, Mapping):
        return {}
    # what differs between any two clusterings; `ad.concat` keeps what is the same in both
    has_model = isinstance(record.get("model"), Mapping)
    if has_model and not {"history", "markers"} <= set(record):
        raise ValueError(
            f"The record of the clustering in `{name}.uns[{key!r}]` is not whole, as where cells "
            "of different clusterings were joined (`ad.concat`): their clusters are not the same "
            "ones. Cluster the joined cells, or give cells the clusters of one reference before "
            "joining (`scmoe.tl.assign`)."
        )
    return record


def check_adata(adata: AnnData, *, in_memory: bool = True) -> None:
    """Raise ValueError for what is no AnnData, for a view, and for names twice.

    Where it need not be in memory, for one whose file is closed.
    """
    if in_memory:
        check_in_memory(adata)
    else:
        check_open(adata)
    if adata.is_view:
        raise ValueError(
            "`adata` is a view of another AnnData; pass `adata.copy()` of the subset, so that "
            "the results have a place of their own."
        )
    check_names(adata)
    check_slots(adata)


def check_slots(adata: AnnData) -> None:
    """Raise ValueError for a damaged sparse matrix in any slot, as :func:`check_sparse`.

    Even a subset of the cells would read beyond the memory of such a matrix.
    """
    check_sparse(adata.X, "`adata.X`")
    # graphs above all, but subsetting and copying go through all of them
    for place in ("layers", "obsm", "varm", "obsp", "varp"):
        for key, value in getattr(adata, place).items():
            check_sparse(value, f"`.{place}[{key!r}]`")
    if adata.raw is not None and not adata.isbacked:
        check_sparse(adata.raw.X, "`adata.raw.X`")


def check_sparse(x: Any, where: str) -> None:
    """Raise ValueError for a sparse matrix with indices outside its rows and columns.

    scipy checks the indices when a matrix is built, but not when it is read from a file, and
    invalid ones crash the process without a message. Dense arrays pass.
    """
    if not sparse.issparse(x):
        return
    try:
        if x.format == "coo":
            limits = zip((x.row, x.col), x.shape, strict=True)
            fits = all(len(i) == len(x.data) and _within(i, n) for i, n in limits)
        elif x.format in ("csr", "csc"):
            starts, (major, minor) = x.indptr, x.shape if x.format == "csr" else x.shape[::-1]
            fits = (
                x.indices.ndim == x.data.ndim == starts.ndim == 1
                and len(starts) == major + 1
                and starts[0] == 0
                and _within(starts, len(x.data) + 1)
                and (starts[1:] >= starts[:-1]).all()
                and len(x.indices) == len(x.data)
                and _within(x.indices, minor)
            )
        else:
            # other formats come from nobody's file
            fits = True
    except (AttributeError, TypeError, ValueError, IndexError):
        fits = False
    if not fits:
        raise ValueError(
            f"{where} is a damaged sparse matrix: it has indices beyond its shape, {x.shape}. Do "
            "not use the file that it came from; make the matrix again."
        )


def _within(indices: np.ndarray, n: int) -> bool:
    """Whether all are whole numbers from 0 to below n."""
    whole = indices.dtype.kind in "iu"
    return whole and (not indices.size or bool(indices.min() >= 0 and indices.max() < n))


def check_in_memory(adata: AnnData) -> None:
    """Raise ValueError for cells that are in a file: backed ones, and those read lazily."""
    check_is_adata(adata)
    if adata.isbacked:
        raise ValueError("`adata` is backed by a file; pass `adata.to_memory()`.")
    if not isinstance(adata.obs, pd.DataFrame):
        raise ValueError("`adata` was read lazily; pass `adata.to_memory()`.")


def check_open(adata: AnnData) -> None:
    """Raise ValueError for what is no AnnData, and for one whose file is closed."""
    check_is_adata(adata)
    if adata.isbacked and not adata.file.is_open:
        raise ValueError(
            f"`adata` is backed by {str(adata.filename)!r}, which is closed: read it again "
            '(`anndata.read_h5ad(path, backed="r")`).'
        )


def check_copy(adata: AnnData, copy: bool, name: str) -> None:
    """Raise ValueError for a copy of what is backed by a file, which needs a file of its own."""
    if copy and adata.isbacked:
        raise ValueError(
            f"`copy=True` can't go with `{name}` backed by a file: leave it out, or pass "
            f"`{name}.to_memory()`."
        )


def table(frame: Any) -> pd.DataFrame:
    """Return `.obs` or `.var` in memory, also of an AnnData that was read lazily."""
    return frame if isinstance(frame, pd.DataFrame) else frame.to_memory()


def check_names(adata: AnnData) -> None:
    """Raise ValueError for names of cells or markers that are not unique."""
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()].unique()
        raise ValueError(
            f"Cell names are not unique: {listing(list(twice))}. "
            "Call `adata.obs_names_make_unique()` first."
        )
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"Marker names are not unique: {listing(list(twice))}. "
            "Call `adata.var_names_make_unique()` first."
        )


def check_batches(adata: AnnData, batch_key: str) -> None:
    """KeyError for an unknown column of batches, ValueError for cells that have none."""
    if batch_key not in adata.obs:
        raise KeyError(
            f"Did not find the batches {batch_key!r} in `.obs`, which has {obs_columns(adata)}."
        )
    missing = table(adata.obs)[batch_key].isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"`.obs[{batch_key!r}]` is missing for {missing.sum()} of {adata.n_obs} cells, such "
            f"as {listing(list(adata.obs_names[missing][:1]))}: every cell needs a batch."
        )


def layer_names(adata: AnnData) -> list[str]:
    """Return the names in ``.layers``; anndata 0.13 lists ``.X`` among them, as None."""
    return [name for name in adata.layers if name is not None]


def layer_values(adata: AnnData, layer: str | None, *, in_memory: bool = True) -> Any:
    """Return ``.X`` or a layer, numbers in memory, dense or sparse.

    With ``in_memory=False`` also what :class:`scmoe._core.rows.Rows` reads.

    Raises
    ------
    KeyError
        For an unknown layer.
    ValueError
        For an empty ``.X``, cells that are in a file, and what is not numbers; for an array of
        dask whose chunks have no known size or split the markers.
    """
    if in_memory:
        check_in_memory(adata)
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"Did not find layer {layer!r}; `.layers` holds {layer_names(adata)}.")
    values = adata.X if layer is None else adata.layers[layer]
    where = written("X" if layer is None else layer)
    if values is None:
        raise ValueError("`adata.X` is empty; name a `layer`.")
    if not in_memory:
        check_chunks(values, where)
    elif not (isinstance(values, np.ndarray) or sparse.issparse(values)):
        raise ValueError(
            f"{where} is a {type(values).__module__.split('.')[0]} {type(values).__name__}; pass "
            "`adata.to_memory()`, with values of numpy or scipy."
        )
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{where} holds {values.dtype}, not numbers.")
    check_sparse(values, where)
    return values


def check_chunks(x: Any, where: str) -> None:
    """Raise ValueError for an array that can't be read a few whole cells at a time, or not yet.

    One of dask may have chunks that split the cells, or of unknown sizes; chunks of one of zarr,
    which would read as zeros, may not be there.
    """
    library = type(x).__module__.split(".")[0]
    if library == "zarr" and x.nchunks_initialized < x.nchunks:
        raise ValueError(
            f"{where} is an array of zarr that lacks {x.nchunks - x.nchunks_initialized} of its "
            f"{x.nchunks} chunks: it is being written, or its writing was interrupted. Wait until "
            "it is whole, or write it again (chunks of zeros alone are written with "
            '`zarr.config.set({"array.write_empty_chunks": True})`).'
        )
    if library != "dask":
        return
    if any(math.isnan(size) for sizes in x.chunks for size in sizes):
        raise ValueError(
            f"{where} is a dask array with chunks of unknown sizes: call its "
            "`compute_chunk_sizes()` first."
        )
    if len(x.chunks[1]) > 1:
        raise ValueError(
            f"{where} is a dask array whose chunks split the markers, {len(x.chunks[1])} to a "
            "cell: use `.rechunk({1: -1})`, so that each chunk holds whole cells."
        )


def warn_of_small_batches(adata: AnnData, batch_key: str) -> None:
    """Warn of batches whose cells are too few to learn from."""
    sizes = adata.obs[batch_key].value_counts()
    small = sizes.index[(sizes > 0) & (sizes < FEW_OF_BATCH)].astype(str)
    if len(small):
        warnings.warn(
            f"Of the batches in `.obs[{batch_key!r}]` {listing(natsorted(small))} have fewer than "
            f"{FEW_OF_BATCH} cells, from which nothing can be learned of a batch.",
            UserWarning,
            stacklevel=2,
        )
