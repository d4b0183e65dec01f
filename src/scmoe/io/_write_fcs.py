"""Write cells with their clusters to FCS files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from scmoe._core.atomic import made_folder, refuse_existing, write_files
from scmoe._core.cells import check_in_memory, layer_values
from scmoe._core.keys import Key
from scmoe._core.progress import bar
from scmoe._core.text import listing

from ._files import stem
from ._write_events import (
    CannotAppendError,
    Original,
    find_original,
    original_writer,
    values_writer,
)
from ._write_text import AddedChannel, added_channels

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("scmoe")

_PROGRESS_FROM = 6
_WITHOUT_SAMPLE = "cells"


def write_fcs(
    adata: AnnData,
    path: str | PathLike[str],
    *,
    obs: str | Sequence[str] = (Key.DEFAULT,),
    source: str | PathLike[str] | None = None,
    layer: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> list[Path]:
    """Write cells with their clusters to FCS files, for FlowJo, Cytobank and the like.

    Cells from :func:`read_fcs` are copied from their original files: the same bytes of every
    channel, including channels that `adata` dropped or transformed, and the same keywords.
    Columns of ``.obs`` are appended as channels.

    Parameters
    ----------
    adata
        Cells x channels. Cells may have been dropped and reordered.
    path
        A folder, created if needed, for one file per sample (``.obs["sample"]``), named like the
        original, with ``_`` and the number of the data set appended if several of it were read.
        Or, for cells of one sample, the name of a file that ends in ``.fcs``.
    obs
        Columns of ``.obs`` to append. A clustering (with ``.obsm[name + "_proba"]``) becomes the
        channels `name`, ``name_proba`` (the highest probability of each cell) and, if that column
        exists, ``name_outlier``.
    source
        The folder of the original files (or the file itself), if they were moved.
    layer
        Write the values of ``.layers[layer]`` instead of copying the original files.
    overwrite
        Replace existing files. Original files of the cells are never replaced.
    progress
        Show a progress bar; by default on a terminal with more than five files.

    Returns
    -------
    list of Path
        The files, in the order of their samples.

    Raises
    ------
    ValueError
        If an original file has changed since it was read (by its SHA-256); if there is no original
        and ``.X`` holds arcsinh or compensated values; if a column cannot be stored in a file (its
        type, its name, NaN in a file of integers); if several samples would go to one file; if a
        file would replace an original file.
    KeyError
        If a column of `obs`, or `layer`, does not exist.
    FileExistsError
        If a file exists, unless `overwrite`.
    FileNotFoundError
        If `source` lacks an original file, or the folder of `path` does not exist.

    Notes
    -----
    On an error no file is left behind. Whether a file was copied or written from values is logged
    and noted in its keyword ``SCMOE_EVENTS``.

    **Labels** (categorical, str, bool) become codes: the labels themselves if all are integers;
    else 1, 2, ... in the order of the categories (bool: 0, 1). A missing label has the largest
    code plus 1. The keyword ``SCMOE_CODES_<name>`` maps codes to labels, in JSON:
    ``{"1":"B cells","2":"T cells","3":null}``. The keyword ``SCMOE_COMPUTED`` names all added
    channels, so that :func:`read_fcs` does not take them for markers.

    **Storage** is that of the original file. In files of integers, added channels have 32 bits;
    fractions are multiplied by a gain (``$PnG``) of up to 10^6, and negative values or NaN are
    refused. In files of floats NaN stays NaN.

    Faults of an original file are repaired: wrong offsets, empty values (written as a blank),
    ``$PnB`` that is not the stored width. ANALYSIS and the other data sets of a file are left out,
    ``$ORIGINALITY`` becomes ``Appended``. If the version of the file cannot hold the result (names
    that are not ASCII before 3.1, more than 99,999,999 bytes in 2.0), it is written as FCS 3.1,
    with its former version in ``SCMOE_ORIGINAL_VERSION``.

    **Without an original file** (cells from another source, or deleted files) the values of ``.X``
    are written as FCS 3.1 in 32-bit floats, 64-bit if they are float64; so are cells of bit-packed
    and ASCII files.

    Examples
    --------
    >>> adata = scmoe.io.read_fcs("plate/")
    >>> scmoe.pp.arcsinh(adata)
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.io.write_fcs(adata, "clustered/")
    """
    check_in_memory(adata)
    if adata.n_obs == 0:
        raise ValueError("`adata` has no cells to write.")
    if layer is not None and source is not None:
        raise ValueError(
            "`layer` and `source` exclude each other: which values are to be written?"
        )
    added = added_channels(adata, obs)
    samples = _samples(adata)
    records = {s: adata.uns.get(Key.uns.FCS, {}).get(s) for s in samples}
    targets = _targets(Path(path), samples, records)
    known = adata.uns.get(Key.uns.FCS, {}).values()
    _refuse_originals((Path(str(r["path"])) for r in known if "path" in r), targets.values())
    if not overwrite:
        refuse_existing(targets.values())

    job = _Job(adata, added, source, layer, list(targets.values()))
    progress = len(samples) >= _PROGRESS_FROM if progress is None else progress
    shown = bar(samples.items(), "writing FCS files", total=len(samples), progress=progress)
    folder = next(iter(targets.values())).parent
    with made_folder(folder):
        write_files(((targets[s], job.writer(s, rows, records[s])) for s, rows in shown), folder)
    return list(targets.values())


def _samples(adata: AnnData) -> dict[str, np.ndarray]:
    """Return the positions of the cells of each sample, in the order of its categories."""
    if Key.obs.SAMPLE not in adata.obs:
        return {_WITHOUT_SAMPLE: np.arange(adata.n_obs)}
    column = adata.obs[Key.obs.SAMPLE].astype("category")
    if column.isna().any():
        raise ValueError(
            f".obs[{Key.obs.SAMPLE!r}] has no sample for {column.isna().sum()} cells."
        )
    codes = column.cat.codes.to_numpy()
    rows = {str(s): np.flatnonzero(codes == i) for i, s in enumerate(column.cat.categories)}
    return {sample: of_sample for sample, of_sample in rows.items() if len(of_sample)}


def _targets(
    path: Path, samples: Mapping[str, Any], records: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Path]:
    if path.suffix.lower() == ".fcs" and not path.is_dir():
        if len(samples) > 1:
            raise ValueError(
                f"The cells are of {len(samples)} samples ({listing(list(samples))}), but "
                f"{path} is one file; name a folder."
            )
        if not path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {path.parent}")
        return {next(iter(samples)): path}
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is neither a folder nor a file name that ends in '.fcs'.")
    names = [_file_stem(sample, records[sample]) for sample in samples]
    if _collide(names):
        names = [_file_stem(sample, None) for sample in samples]
    if _collide(names):
        raise ValueError(f"Several samples would go to the same file: {listing(names)}.")
    return {sample: path / f"{name}.fcs" for sample, name in zip(samples, names, strict=True)}


def _file_stem(sample: str, record: Mapping[str, Any] | None) -> str:
    if record is not None and "file" in record:
        name = stem(Path(str(record["file"])))
        # a data set out of several keeps its number
        numbered = f"{name}_{record.get('dataset')}"
        return numbered if sample.endswith(numbered) else name
    name = sample.replace("/", "_").replace("\\", "_").replace("\0", "_")
    return f"_{name}" if not name.strip(".") else name


def _collide(names: list[str]) -> bool:
    # some file systems ignore case
    return max(Counter(name.casefold() for name in names).values()) > 1


def _refuse_originals(originals: Iterable[Path], targets: Iterable[Path]) -> None:
    """Raise ValueError for a target that is an original file, which may be the only copy."""
    originals = {original.resolve() for original in originals}
    for target in targets:
        if target.resolve() in originals:
            raise ValueError(f"{target} is the file that cells were read from; choose another.")


@dataclass(frozen=True)
class _Job:
    """Options and caches that all files of a call share."""

    adata: AnnData
    added: list[AddedChannel]
    source: str | PathLike[str] | None
    layer: str | None
    targets: list[Path]
    known: dict[Path, str] = field(default_factory=dict)
    """SHA-256 of the original files."""

    def writer(
        self, sample: str, rows: np.ndarray, record: Mapping[str, Any] | None
    ) -> Callable[[BinaryIO], None]:
        """Return a function that writes the file of a sample."""
        original = None if self.layer is not None else self._find_original(sample, rows, record)
        why = ""
        if original is not None:
            try:
                events = self.adata.obs[Key.obs.EVENT].to_numpy()[rows]
                writer = original_writer(
                    original, events, rows, self.added, self._notes("original")
                )
            except CannotAppendError as error:
                why = f" ({error})"
            else:
                logger.info("%s: %d events of %r", sample, len(rows), str(original.path))
                return writer
        return self._values_writer(sample, rows, record, why)

    def _find_original(
        self, sample: str, rows: np.ndarray, record: Mapping[str, Any] | None
    ) -> Original | None:
        known = record is not None and {"path", "sha256"} <= set(record)
        if not known and self.source is None and Key.obs.EVENT in self.adata.obs:
            raise ValueError(
                f"`.obs[{Key.obs.EVENT!r}]` says that the cells of sample {sample!r} come from a "
                f"file, but .uns[{Key.uns.FCS!r}] has no record of it, so it is unknown whether "
                '.X is transformed: join cells by `ad.concat(..., uns_merge="unique")`, or name '
                "the values to write with `layer=`."
            )
        if known and Key.obs.EVENT in self.adata.obs:
            self._check_events(sample, rows)
            original = find_original(record, self.source, self.known)
            _refuse_originals([original.path] if original else [], self.targets)
            return original
        if self.source is not None:
            missing = f".obs[{Key.obs.EVENT!r}]" if known else f".uns[{Key.uns.FCS!r}][{sample!r}]"
            raise ValueError(
                f"Sample {sample!r} cannot be found in {self.source}: `scmoe.io.read_fcs` notes "
                f"where cells come from, and {missing} is not there."
            )
        return None

    def _check_events(self, sample: str, rows: np.ndarray) -> None:
        """Raise ValueError if cells of two files with one name were joined."""
        events = self.adata.obs[Key.obs.EVENT].to_numpy()[rows]
        if len(np.unique(events)) < len(events):
            raise ValueError(
                f"Sample {sample!r} has the same event more than once: cells of several files of "
                "that name were joined. Give them different samples before joining (a copy of an "
                "event cannot be written either)."
            )

    def _values_writer(
        self, sample: str, rows: np.ndarray, record: Mapping[str, Any] | None, why: str
    ) -> Callable[[BinaryIO], None]:
        name = "X" if self.layer is None else self.layer
        values = layer_values(self.adata, self.layer, in_memory=False)
        done = [
            k for k in (Key.uns.ARCSINH, Key.uns.COMPENSATED) if name in self.adata.uns.get(k, {})
        ]
        if done and self.layer is None:
            told = " and ".join(f".uns[{key!r}]" for key in done)
            raise ValueError(
                f"There is no original file for sample {sample!r}{why}, and .X no longer holds "
                f"its values, see {told}. Say where the original is with `source=`, or which "
                "values to write with `layer=`, or undo the transform "
                "(`scmoe.pp.inverse_arcsinh`)."
            )
        logger.info("%s: %d cells with the values of %r%s", sample, len(rows), name, why)
        return values_writer(
            self.adata,
            rows,
            values,
            self.added,
            record=record,
            compensated=Key.uns.COMPENSATED in done,
            notes=self._notes(" ".join([name, *done])),
        )

    def _notes(self, events: str) -> dict[str, str]:
        from scmoe import __version__

        return {"SCMOE_VERSION": __version__, "SCMOE_EVENTS": events}
