"""Read flow and mass cytometry files (FCS) into AnnData."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd

from scmoe._core.keys import Key
from scmoe._core.progress import bar
from scmoe._core.settings import is_whole

from ._channels import WHY
from ._dataset import FCSDataset, file_sha256, open_dataset, open_datasets, read_values, record_of
from ._errors import FCSRepairWarning, printable
from ._files import find_files, sample_names
from ._panels import join_panels

logger = logging.getLogger("scmoe")

_CHOICES = {
    "join": ("inner", "exact", "outer"),
    "by": ("marker", "channel"),
    "offsets": ("auto", "header", "text"),
    "dtype": ("float32", "float64"),
}
_PROGRESS_FROM = 6
_STARTS = np.array([str(i) for i in range(1000)], dtype=object)
_ENDS = np.array([f"{i:03d}" for i in range(1000)], dtype=object)


def read_fcs(
    path: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    join: Literal["inner", "exact", "outer"] = "inner",
    by: Literal["marker", "channel"] = "marker",
    dataset: int | Literal["all"] = 0,
    offsets: Literal["auto", "header", "text"] = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    strict: bool = False,
    progress: bool | None = None,
) -> ad.AnnData:
    """Read flow and mass cytometry files (FCS 2.0, 3.0, 3.1, 3.2).

    Values are on the linear scale: the gain (``$PnG``), the logarithmic amplification (``$PnE``)
    and the time step (``$TIMESTEP``, seconds) of the file are applied. Values are not compensated
    (:func:`scmoe.pp.compensate`) and not transformed (:func:`scmoe.pp.arcsinh`).

    Parameters
    ----------
    path
        A file; a folder, whose ``.fcs``, ``.lmd``, ``.fcs.gz`` and ``.lmd.gz`` files (any case)
        are read in natural order, without sub-folders; a glob pattern (``"plate/*_A*.fcs"``,
        ``**`` for sub-folders); or a list of these. Files compressed with gzip are recognised by
        their first bytes, whatever their name.
    join
        How to join files with different panels. ``"inner"`` keeps the markers that all files
        share, and warns of the others. ``"outer"`` keeps all markers, with NaN for files that
        lack one, and warns. ``"exact"`` raises an error. Channels are matched by name, in the
        order of the first file. A warning names markers that are on different channels.
    by
        How to match the channels of files. ``"marker"``: by the name in ``.var_names``.
        ``"channel"``: by ``$PnN``, for files that name the marker of a channel differently
        (``CD8`` and ``CD8a``) or have no ``$PnS``; a variable is named as in the first file with
        a marker on this channel, and a warning lists what was renamed. A file with that marker
        on another channel is refused.
    dataset
        Which data set to read from files that hold several, counted from 0; a warning says how
        many there are. ``"all"`` reads each as a sample of its own. (Some instruments write the
        same events twice, in two formats.)
    offsets
        Which position of DATA to use if HEADER and TEXT state different ones and both are
        possible: ``"header"``, ``"text"``, or ``"auto"`` for the one directly after TEXT; if
        neither is, the file is refused.
    dtype
        Data type of ``.X``.
    strict
        Refuse every file that departs from the standard, even if only one reading is possible.
    progress
        Show a progress bar (one line outside of terminals and notebooks); by default for more
        than five files.

    Returns
    -------
    AnnData, cells x channels, with

    ``.X``
        Dense values of type `dtype`.
    ``.obs["sample"]``
        Categorical, the file of each cell: the stem of its name, with the folder in front if two
        stems are equal, and with ``_`` and the number of the data set appended if several of a
        file are read. ``.obs_names`` are ``"{sample}-{i}"``, `i` counted from 0 in each file.
    ``.obs["event"]``
        The number `i` of the event in its file, int64.
    ``.var_names``
        The marker (``$PnS``), else the channel (``$PnN``); repeated markers become
        ``"marker (channel)"``. Control characters are removed from names, which is a repair.
    ``.var``
        ``channel``, ``marker`` (``""`` for none), ``kind`` (categorical, see *Notes*), ``PnB``
        (bits, int), ``PnE`` (str), ``PnG``, ``PnR`` (float), from the first file that has the
        variable.
    ``.layers["measured"]``
        Bool, whether the value was measured; only with ``join="outer"``, if a file lacks a
        marker.
    ``.uns["fcs"][sample]``
        ``file`` (its name), ``path`` (absolute), ``dataset`` (number of the data set),
        ``offsets`` (as given), ``version`` (``"FCS3.1"``), ``sha256`` (of the file on disk,
        hexadecimal), ``keywords`` (a DataFrame with the column ``value``, str, by keyword,
        lower case, without the leading ``$``: ``["keywords"].loc["cyt", "value"]``) and
        ``repairs`` (a list of str). If the file has a spillover matrix, ``spillover`` (a square
        float64 DataFrame by channel), which :func:`scmoe.pp.compensate` applies, or
        ``spillover_unusable`` (str), why it cannot be used. If the instrument compensated before
        the values were stored (``$DFCiTOj`` of FCS 2.0), ``subtracted``: a square float64
        DataFrame with the share of the row's detector that was subtracted from the column's.
        With ``by="channel"``, ``renamed``: a DataFrame of str by channel, with the ``marker`` of
        the file and its ``variable``, where they differ.

    Raises
    ------
    FCSReadError
        If a file cannot be read, or can be read in more than one way; if the panels do not
        match; if channels are ambiguous with ``by="channel"``; if a folder has no FCS file. The
        error names the file and the reason.
    FileNotFoundError
        If a file does not exist, or a pattern matches none.
    ValueError, TypeError
        If an argument is invalid.

    Warns
    -----
    FCSRepairWarning
        Once per call, if a file departs from the standard but only one reading is possible, for
        instance if the stated end of DATA is one byte late. The repairs are listed in
        ``.uns["fcs"][sample]["repairs"]``.
    UserWarning
        If files differ in their markers, or in the channels or names of markers, or seem to hold
        the same events twice.

    Notes
    -----
    ``.var["kind"]`` is ``fluor`` or ``mass`` for channels that may be markers, else

    - ``time`` or ``scatter``;
    - ``copy`` for a channel that measures a detector again: the height or width of a pulse
      alongside its area, or a linear channel alongside a logarithmic one. The marker is the
      channel with the name of a marker; else the one stored as logarithms (``$PnE``), else the
      compensated one, else the area, else the height;
    - ``other`` for channels that are not markers by their names: stains of viability and DNA,
      beads, barcodes, background, event length and pulse parameters, clusters, embeddings,
      coordinates and other computed columns; and for all channels that :func:`write_fcs` added.

    Names are split into words. The marker (``$PnS``) counts more than the channel: CD8 on the
    detector ``DAPI-A`` is CD8. ``scmoe channels FILES...`` prints the kinds and the reasons.

    Examples
    --------
    >>> adata = scmoe.io.read_fcs("plate/")
    >>> adata.var["kind"].value_counts()
    """
    options = ReadOptions(join, by, dataset, offsets, dtype, strict, progress)
    return read_plate(Plate(path, options))


@dataclass(frozen=True)
class ReadOptions:
    """Options of :func:`read_fcs`, checked: ValueError for a value that is not one of them."""

    join: Literal["inner", "exact", "outer"] = "inner"
    by: Literal["marker", "channel"] = "marker"
    dataset: int | Literal["all"] = 0
    offsets: Literal["auto", "header", "text"] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    strict: bool = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        for name, words in _CHOICES.items():
            given = getattr(self, name)
            if given not in words:
                told = " or ".join([", ".join(map(repr, words[:-1])), repr(words[-1])])
                raise ValueError(f"`{name}` is {told}, not {given!r}.")
        if self.dataset != "all" and (not is_whole(self.dataset) or self.dataset < 0):
            raise ValueError(f"`dataset` is a number from 0 on, or 'all', not {self.dataset!r}.")


def read_plate(plate: Plate) -> ad.AnnData:
    """Read all files of a plate into memory."""
    X, measured = plate.allocate(sum(plate.counts))
    at = 0
    for i in plate.each("reading FCS files"):
        end = at + plate.counts[i]
        plate.read(i, X[at:end], None if measured is None else measured[at:end])
        at = end
    # the names are unique by construction
    with ad.settings.override(check_uniqueness=False):
        adata = ad.AnnData(
            X=X,
            obs=plate.cells(range(len(plate.files))),
            var=plate.var,
            layers=None if measured is None else {Key.layers.MEASURED: measured},
            uns={Key.uns.FCS: plate.records()},
        )
    plate.warn()
    logger.info("read %d events x %d channels from %d files", *adata.shape, len(plate.files))
    return adata


class Plate:
    """FCS files that are read one by one into one table.

    All headers are read first: with the panels and the numbers of events known, the result is
    allocated once.

    Parameters
    ----------
    path
        As in :func:`read_fcs`.
    options
        As in :func:`read_fcs`.
    """

    def __init__(
        self, path: str | PathLike[str] | Iterable[str | PathLike[str]], options: ReadOptions
    ) -> None:
        paths = find_files(path)
        self.dtype = np.dtype(options.dtype)
        many = len(paths) >= _PROGRESS_FROM
        self._progress = many if options.progress is None else options.progress
        headers = bar(paths, "reading FCS headers", unit="file", progress=self._progress)
        self.files = read_headers(
            headers, dataset=options.dataset, offsets=options.offsets, strict=options.strict
        )
        self._panel = join_panels(self.files, options.join, options.by, stacklevel=4)
        self.samples = sample_names(
            [file.path for file in self.files],
            [file.number if file.several else None for file in self.files],
        )
        self.counts = [file.n_events for file in self.files]
        self.var = self._panel.variables(self.files).drop(columns=WHY)
        self._hasher = ThreadPoolExecutor(1)
        self._digests: dict[Path, Future[str]] = {}

    def each(self, text: str) -> Iterator[int]:
        """Yield the number of each sample, with a progress bar."""
        return bar(range(len(self.files)), text, unit="file", progress=self._progress)

    def allocate(self, n_events: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Allocate events x channels; NaN and a mask of measured values if files lack markers."""
        shape = (n_events, len(self._panel.names))
        if self._panel.is_whole:
            return np.empty(shape, dtype=self.dtype), None
        return np.full(shape, np.nan, dtype=self.dtype), np.zeros(shape, dtype=bool)

    def read(self, i: int, X: np.ndarray, measured: np.ndarray | None) -> None:
        """Read the values of a sample into arrays of :meth:`allocate`."""
        file = self.files[i]
        channels, columns = self._panel.matching(i)
        if file.path not in self._digests:
            # hashing lags by one file at most: what was just read is still in the page cache
            for previous in list(self._digests.values())[-1:]:
                previous.result()
            self._digests[file.path] = self._hasher.submit(file_sha256, file.path)
        read_values(file, X, channels, columns)
        if measured is not None:
            measured[:, columns] = True

    def records(self, *, read: bool = True) -> dict[str, dict]:
        """Return ``.uns["fcs"]``; with ``read=False`` from the headers alone, without hashes."""
        return {
            sample: record_of(
                file,
                self._digests[file.path].result() if read else "",
                self._panel.renamed(i, file),
            )
            for i, (sample, file) in enumerate(zip(self.samples, self.files, strict=True))
        }

    def head(self) -> ad.AnnData:
        """Make AnnData from the headers: one cell, of zeros, for each sample that has any."""
        names = [sample for sample, n in zip(self.samples, self.counts, strict=True) if n]
        return ad.AnnData(
            np.zeros((len(names), len(self.var)), dtype=self.dtype),
            obs=pd.DataFrame({Key.obs.SAMPLE: names, Key.obs.EVENT: 0}, index=names),
            var=self.var,
            uns={Key.uns.FCS: self.records(read=False)},
        )

    def _names(self, i: int) -> np.ndarray:
        """Return the names of the cells of a sample: ``sample-0``, ``sample-1`` and so on."""
        n, start = self.counts[i], f"{self.samples[i]}-"
        thousands = [f"{start}{k}" for k in range(1, -(-n // 1000))]
        # sums of strings take half the time of formatting each number
        later = np.add.outer(np.array(thousands, dtype=object), _ENDS).ravel()
        return np.concatenate([start + _STARTS, later])[:n]

    def unnamed_cells(self, numbers: Sequence[int]) -> pd.DataFrame:
        """Make ``.obs`` of some samples, with a range as index."""
        counts = [self.counts[i] for i in numbers]
        events = [np.zeros(0, dtype=np.int64), *(np.arange(n, dtype=np.int64) for n in counts)]
        codes = np.repeat(np.array(numbers, dtype=np.int64), counts)
        return pd.DataFrame(
            {
                Key.obs.SAMPLE: pd.Categorical.from_codes(codes, categories=self.samples),
                Key.obs.EVENT: np.concatenate(events),
            }
        )

    def cells(self, numbers: Sequence[int]) -> pd.DataFrame:
        """Make ``.obs`` of some samples."""
        names = [np.array([], dtype=object), *(self._names(i) for i in numbers)]
        return self.unnamed_cells(numbers).set_axis(pd.Index(np.concatenate(names)))

    def warn(self) -> None:
        """Warn of data sets that look alike and of repairs, after everything was read."""
        _warn_of_copies(self.files)
        _warn_of_repairs(self.files)


def read_headers(
    paths: Iterable[Path], *, dataset: int | str = 0, offsets: str = "auto", strict: bool = False
) -> list[FCSDataset]:
    """Read files without their events: one data set of each, with ``"all"`` every data set."""
    files: list[FCSDataset] = []
    for path in paths:
        if dataset == "all":
            files += open_datasets(path, offsets=offsets, strict=strict)
        else:
            files.append(open_dataset(path, dataset=dataset, offsets=offsets, strict=strict))
    return files


def _warn_of_copies(files: list[FCSDataset]) -> None:
    """Warn of data sets of a file that may hold the same events, in two versions of FCS."""
    seen: dict[tuple, FCSDataset] = {}
    for file in files:
        other = seen.setdefault((file.path, file.n_events), file)
        if other.version != file.version and file.n_events:
            warnings.warn(
                f"{printable(str(file.path))}: data sets {other.number} and {file.number} have "
                f"{file.n_events} events each, in {other.version} and {file.version}: they may "
                "be the same events. `dataset=` chooses one.",
                stacklevel=4,
            )
            return


def _warn_of_repairs(files: list[FCSDataset]) -> None:
    repaired = [file for file in files if file.repairs]
    if not repaired:
        return
    example = repaired[0]
    warnings.warn(
        f"{len(repaired)} of {len(files)} files disagree with the FCS standard and were read "
        f'nevertheless; .uns["fcs"][sample]["repairs"] tells how. For instance '
        f"{printable(example.path.name)}: {'; '.join(example.repairs)}.",
        FCSRepairWarning,
        stacklevel=4,
    )
