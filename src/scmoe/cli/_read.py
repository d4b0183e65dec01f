"""From the names of files to cells."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import pandas as pd
from anndata.io import read_elem
from natsort import natsorted

from scmoe._core.cells import check_adata
from scmoe._core.keys import Key
from scmoe._core.text import listing
from scmoe._core.values import arcsinh_record
from scmoe.io._fcs import Plate, read_plate
from scmoe.io._paths import find_files, sample_names

if TYPE_CHECKING:
    from anndata import AnnData

    from ._settings import Settings

_UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError)


def find(settings: Settings, *, progress: bool) -> list[Path] | Plate:
    """Find the files, of FCS with their headers.

    Raises
    ------
    ValueError, FCSReadError
        For files that cannot be read or do not fit together, and for those that lie in the
        folder that is to be replaced.
    FileNotFoundError
        For files that are not there.
    """
    if settings.from_h5ad:
        files = h5ad_files(settings.files)
    else:
        files = find_files(list(settings.files))
    inside = [file for file in files if settings.output in file.resolve().parents]
    if inside:
        raise ValueError(f"{inside[0]} lies in --output {settings.output}; name another folder.")
    if settings.from_h5ad:
        return files
    plate = Plate(
        files,
        join=settings.join,
        by=settings.by,
        dataset=settings.dataset,
        offsets=settings.offsets,
        dtype="float32",
        strict=settings.strict,
        progress=progress,
    )
    if not sum(plate.counts):
        raise ValueError("There is no event in the files.")
    return plate


def read(found: list[Path] | Plate, settings: Settings) -> AnnData:
    """Read what :func:`find` found into memory; errors likewise."""
    if isinstance(found, Plate):
        return read_plate(found)
    return join_h5ad(found, [_read_one(file) for file in found], settings.join)


def h5ad_files(names: tuple[str, ...]) -> list[Path]:
    files = []
    for name in names:
        if Path(name).exists():
            files.append(Path(name))
            continue
        found = natsorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []
        if not found:
            raise FileNotFoundError(f"{name}: no such file.")
        files += map(Path, found)
    for file in files:
        if not file.is_file():
            # a pipe may never end
            raise ValueError(f"{file} is no regular file.")
    resolved = [file.resolve() for file in files]
    if len(set(resolved)) < len(resolved):
        raise ValueError("The same file is given more than once.")
    return files


def join_h5ad(files: list[Path], cells: list[AnnData], join: str) -> AnnData:
    """Join what was read; raise ValueError for what does not fit together."""
    if len(cells) == 1:
        return cells[0]
    done = [is_transformed(adata) for adata in cells]
    if any(done) and not all(done):
        raise ValueError(
            f"{files[done.index(True)]} has a record of arcsinh in .uns and "
            f"{files[done.index(False)]} has not; transform both or none."
        )
    for file, adata in zip(files, cells, strict=True):
        for what, record in (("arcsinh", _cofactors), ("compensation", _compensated)):
            if record(adata) != record(cells[0]):
                raise ValueError(
                    f"By its records {file} has another {what} than {files[0]}: treat both alike "
                    "before joining them."
                )
    if join == "exact":
        first = set(cells[0].var_names)
        for file, adata in zip(files, cells, strict=True):
            other = sorted(first ^ set(adata.var_names))
            if other:
                raise ValueError(
                    f"{file} and {files[0]} do not have the same markers: {listing(other)}. "
                    "--join inner keeps the shared ones."
                )
    # the samples of each file keep their names
    label = Key.obs.FILE if any(Key.obs.SAMPLE in a.obs for a in cells) else Key.obs.SAMPLE
    adata = ad.concat(
        dict(zip(sample_names(files), cells, strict=True)),
        join="outer" if join == "outer" else "inner",
        label=label,
        index_unique="-",
        merge="unique" if join == "outer" else "same",
        uns_merge="unique",
    )
    for column in (Key.var.CHANNEL, Key.var.MARKER, Key.var.KIND):
        # a merge keeps what is the same in all files; a kind that is lost makes Time a marker
        if all(column in a.var for a in cells):
            values = pd.concat([a.var[column].astype(object) for a in cells])
            adata.var[column] = values[~values.index.duplicated()].reindex(adata.var_names)
    if adata.n_vars == 0:
        raise ValueError("The files have no marker in common.")
    return adata


def _read_one(file: Path) -> AnnData:
    try:
        adata = ad.read_h5ad(file)
    except PermissionError:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"{file}: cannot be read as h5ad: {error}") from error
    try:
        check_adata(adata)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if adata.n_obs == 0:
        raise ValueError(f"{file}: there is no cell in it.")
    return adata


def read_variables(file: Path) -> AnnData:
    """Read ``.var`` alone, as AnnData without cells."""
    try:
        with h5py.File(file) as handle:
            adata = ad.AnnData(var=read_elem(handle["var"]))
    except PermissionError:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"{file}: cannot be read as h5ad: {error}") from error
    try:
        check_adata(adata)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return adata


def _cofactors(adata: AnnData) -> dict[str, dict[str, float] | None]:
    return {place: arcsinh_record(adata, place) for place in adata.uns.get(Key.uns.ARCSINH, {})}


def _compensated(adata: AnnData) -> set[str]:
    return set(adata.uns.get(Key.uns.COMPENSATED, {}))


def is_transformed(adata: AnnData, layer: str | None = None) -> bool:
    """Whether there is a record of an arcsinh of ``.X``, or of the layer."""
    return (layer or "X") in adata.uns.get(Key.uns.ARCSINH, {})
