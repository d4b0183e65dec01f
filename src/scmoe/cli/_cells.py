"""Read cells from their files, compensated and transformed by arcsinh."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from natsort import natsorted

from scmoe import pp
from scmoe._core.cells import check_adata
from scmoe._core.keys import Key
from scmoe._core.markers import kinds_of
from scmoe._core.text import listing
from scmoe._core.values import arcsinh_record
from scmoe.io import Plate, ReadOptions, find_files, read_plate, sample_names

from ._settings import COFACTORS

if TYPE_CHECKING:
    from anndata import AnnData

    from ._console import Console
    from ._settings import Settings

_UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError)


def find_cells(settings: Settings, *, progress: bool) -> list[Path] | Plate:
    """Return the paths of h5ad files, or FCS files with their headers.

    Raises
    ------
    ValueError, FCSReadError
        For files that cannot be read or do not fit together, and for files within the output
        folder.
    FileNotFoundError
        For missing files.
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
    options = ReadOptions(
        join=settings.join,
        by=settings.by,
        dataset=settings.dataset,
        offsets=settings.offsets,
        strict=settings.strict,
        progress=progress,
    )
    plate = Plate(files, options)
    if not sum(plate.counts):
        raise ValueError("There is no event in the files.")
    return plate


def read_cells(found: list[Path] | Plate, settings: Settings) -> AnnData:
    """Read the files of :func:`find_cells` into memory, with the same errors."""
    if isinstance(found, Plate):
        return read_plate(found)
    return join_h5ad(found, [_read_one(file) for file in found], settings.join)


def h5ad_files(names: tuple[str, ...]) -> list[Path]:
    """Return the h5ad files of paths and patterns.

    Raises
    ------
    FileNotFoundError
        For missing files.
    ValueError
        For what is no regular file, and for a file that is given twice.
    """
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
    """Join the cells of several files; raise ValueError for cells that do not fit together."""
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
                    f"By its records {file} has another {what} than {files[0]}: process both "
                    "alike before joining them."
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
        # a merge drops columns that differ between files; without its kind, Time is a marker
        if all(column in a.var for a in cells):
            values = pd.concat([a.var[column].astype(object) for a in cells])
            adata.var[column] = values[~values.index.duplicated()].reindex(adata.var_names)
    if adata.n_vars == 0:
        raise ValueError("The files have no marker in common.")
    return adata


def _read_one(file: Path) -> AnnData:
    """Read all of an h5ad file; raise ValueError for one without cells."""
    adata = _read_h5ad(file, ad.read_h5ad)
    if adata.n_obs == 0:
        raise ValueError(f"{file}: there is no cell in it.")
    return adata


def read_variables(file: Path) -> AnnData:
    """Read ``.var`` of an h5ad file, as AnnData without cells."""

    def read(path: Path) -> AnnData:
        with h5py.File(path) as handle:
            return ad.AnnData(var=read_elem(handle["var"]))

    return _read_h5ad(file, read)


def _read_h5ad(file: Path, read: Callable[[Path], AnnData]) -> AnnData:
    """Read an h5ad file; raise ValueError for one that cannot be read or used."""
    try:
        adata = read(file)
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
    """Return whether ``.X``, or the layer, has a record of arcsinh."""
    return (layer or "X") in adata.uns.get(Key.uns.ARCSINH, {})


def compensate_and_transform(adata: AnnData, settings: Settings, console: Console) -> str:
    """Compensate and transform cells in memory, and return the transform in words."""
    done = is_transformed(adata, settings.layer)
    if is_compensation_due(adata, settings, console):
        console.step("compensating")
        pp.compensate(adata, spillover=settings.spillover, layer=settings.layer)
    cofactors, told = choose_transform(adata, settings, done=done)
    if cofactors is not None:
        console.step("transforming by arcsinh")
        channels = list(cofactors) if isinstance(cofactors, dict) else None
        pp.arcsinh(adata, cofactors, layer=settings.layer, channels=channels)
    return told


def is_compensation_due(adata: AnnData, settings: Settings, console: Console) -> bool:
    """Return whether to compensate; warn of spillover matrices that are not applied."""
    if settings.compensates:
        return True
    if (settings.layer or "X") in adata.uns.get(Key.uns.COMPENSATED, {}):
        return False
    records = adata.uns.get(Key.uns.FCS, {})
    there = [name for name, record in records.items() if _has_spillover(record.get("spillover"))]
    if there:
        console.warn(
            f"{len(there)} of {len(records)} samples have a spillover matrix, which was not "
            f"applied ({listing(there)}). --compensate applies it."
        )
    return False


def _has_spillover(matrix: pd.DataFrame | None) -> bool:
    return matrix is not None and not np.array_equal(matrix.to_numpy(), np.eye(len(matrix)))


def choose_transform(
    adata: AnnData, settings: Settings, *, done: bool
) -> tuple[float | dict[str, float] | None, str]:
    """Return the cofactors of the arcsinh that is due, None for no transform, and both in words.

    Parameters
    ----------
    adata
        The cells, or cells without values as the headers of their files describe them.
    settings
        The settings of the run.
    done
        Whether the files have transformed values.

    Raises
    ------
    ValueError
        If no channel is known to be mass or fluorescence.
    """
    wanted = settings.transform
    if wanted is None:
        # h5ad is transformed only where it is known to be raw cytometry
        raw = not settings.from_h5ad or (Key.var.KIND in adata.var and Key.uns.FCS in adata.uns)
        wanted = (raw and not done) or settings.cofactor is not None
    if not wanted:
        return None, "none here; values were taken as they are"
    if settings.cofactor is not None:
        return settings.cofactor, f"arcsinh(x / {settings.cofactor:g})"
    kinds = kinds_of(adata.var)
    of_kind = {kind: value for kind, value in COFACTORS.items() if (kinds == kind).any()}
    if not of_kind:
        raise ValueError(
            "No channel is known to be mass or fluorescence; give --cofactor, or --no-transform."
        )
    cofactors = {name: of_kind[kind] for name, kind in kinds.items() if kind in of_kind}
    told = ", ".join(f"arcsinh(x / {value:g}) of {kind}" for kind, value in of_kind.items())
    return cofactors, told
