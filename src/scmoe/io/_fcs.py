"""FCS files -> AnnData."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from os import PathLike
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd

from scmoe._keys import Key
from scmoe._numbers import is_whole
from scmoe._progress import bar

from ._channels import WHY
from ._errors import FCSRepairWarning
from ._file import FCSText, read_about, read_values
from ._panels import JOINS, join_panels, variables_of
from ._paths import find_files, sample_names
from ._record import record_of

logger = logging.getLogger("scmoe")

_PROGRESS_FROM = 6


def read_fcs(
    path: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    join: Literal["inner", "exact", "outer"] = "inner",
    dataset: int = 0,
    dtype: Literal["float32", "float64"] = "float32",
    strict: bool = False,
    progress: bool | None = None,
) -> ad.AnnData:
    """Read flow and mass cytometry files (FCS 2.0, 3.0, 3.1, 3.2).

    Values are on the linear scale: the gain (``$PnG``), the logarithmic amplification
    (``$PnE``) and the time step (``$TIMESTEP``, seconds) of the file are applied, nothing
    else is: no compensation, no arcsinh (:func:`scmoe.pp.arcsinh`).

    Parameters
    ----------
    path
        A file; a folder, of which every ``.fcs``, ``.lmd``, ``.fcs.gz`` and ``.lmd.gz`` (any
        case) is read in natural order, sub-folders are not; a glob pattern
        (``"plate/*_A*.fcs"``, ``**`` for sub-folders); or a list of these. Files compressed
        with gzip are told by their first bytes, whatever their name.
    join
        What to do when the files do not have the same channels with the same markers.
        ``"inner"`` keeps the markers that all files share, and warns with the names of the
        others. ``"exact"`` raises. ``"outer"`` keeps all, NaN where a file does not have one,
        and warns. The order of the channels may differ: they are matched by name, in the order
        of the first file. A marker that lies on different channels is warned of.
    dataset
        Which data set to read from files that hold several, counted from 0.
    dtype
        Of ``.X``.
    strict
        Refuse files that disagree with the standard, also where one reading only is possible.
    progress
        Show a progress bar, or one line where nobody watches; by default for more than five
        files.

    Returns
    -------
    Cells x channels, with

    ``.X``
        Dense, of `dtype`.
    ``.obs["sample"]``
        Categorical, the file of each cell: its stem, with its folder before it if two stems
        are equal. ``.obs_names`` are ``"{sample}-{i}"``, `i` counted from 0 in each file.
    ``.obs["event"]``
        That `i`, int64.
    ``.var_names``
        The marker (``$PnS``), else the channel (``$PnN``); markers that occur more than once
        become ``"marker (channel)"``.
    ``.var``
        ``channel``, ``marker`` (``""`` for none), ``kind`` (categorical, see *Notes*), ``PnB``
        (bits, int), ``PnE`` (str), ``PnG``, ``PnR`` (float). Of several files, those of the
        first.
    ``.layers["measured"]``
        With ``join="outer"``, if a file lacks a marker: bool, whether the value was measured.
    ``.uns["fcs"][sample]``
        ``file`` (its name), ``path`` (absolute), ``dataset`` (number of the data set),
        ``version`` (``"FCS3.1"``), ``sha256`` (of the file on disk, hexadecimal), ``keywords``
        (a DataFrame with the column ``value``, str, by keyword, lower case, without the
        leading ``$``: ``["keywords"].loc["cyt", "value"]``), ``repairs`` (a list of str), and
        ``spillover`` (a DataFrame by channel) if the file has one.

    Raises
    ------
    FCSReadError
        If a file cannot be read, or can be read in more than one way; if the panels do not
        match; if a folder holds no FCS file. It names the file and the reason.
    FileNotFoundError
        If there is no such file, or a pattern matches none.
    ValueError, TypeError
        If an argument is not one of those listed.

    Warns
    -----
    FCSRepairWarning
        Once per call, if a file disagrees with the standard in a way that leaves one reading
        only, for instance when DATA is said to end a byte late. What was done is listed in
        ``.uns["fcs"][sample]["repairs"]``.

    Notes
    -----
    ``.var["kind"]`` is ``fluor`` or ``mass`` for what may be a marker, else

    - ``time`` and ``scatter``;
    - ``copy`` for what measures a detector once more: the height or width of a pulse beside its
      area, or a linear channel beside a logarithmic one. The marker is the channel that has
      a marker's name; else the one stored as logarithms (``$PnE``), else the compensated one,
      else the area, else the height;
    - ``other`` for what is no marker by its name: stains of viability and DNA, beads, barcodes,
      background, event length and pulse parameters, clusters, maps, coordinates and other
      computed columns; and for all channels that :func:`write_fcs` added.

    Names are read word by word, and where both are there the marker's (``$PnS``) counts more than
    the channel's: CD8 on the detector ``DAPI-A`` is CD8. ``scmoe channels FILES...`` prints the
    kinds and why.

    Examples
    --------
    >>> adata = scmoe.io.read_fcs("plate/")
    >>> adata.var["kind"].value_counts()
    """
    _check_arguments(join, dataset, dtype)
    paths = find_files(path)
    progress = len(paths) >= _PROGRESS_FROM if progress is None else progress
    # all panels and counts are known before any values are read, so the result is made once
    headers = bar(paths, "reading FCS headers", unit="file", progress=progress)
    files = [read_about(file, dataset=dataset, strict=strict) for file in headers]
    names = join_panels(files, join, stacklevel=3)
    samples = sample_names(paths)
    counts = [file.n_events for file in files]
    X, measured = _allocate(files, names, dtype)
    records = {}
    at = 0
    for sample, file in zip(
        samples, bar(files, "reading FCS files", unit="file", progress=progress), strict=True
    ):
        end = at + file.n_events
        channels, columns = _matching(file, names)
        read_values(file, X[at:end], channels, columns)
        if measured is not None:
            measured[at:end, columns] = True
        records[sample] = record_of(file)
        at = end
    adata = ad.AnnData(
        X=X,
        obs=_cells(samples, counts),
        var=variables_of(files, names).drop(columns=WHY),
        layers=None if measured is None else {Key.layers.MEASURED: measured},
        uns={Key.uns.FCS: records},
    )
    _warn_of_repairs(files)
    logger.info("read %d events x %d channels from %d files", *adata.shape, len(files))
    return adata


def _check_arguments(join: str, dataset: int, dtype: str) -> None:
    if join not in JOINS:
        raise ValueError(f"`join` is 'inner', 'exact' or 'outer', not {join!r}.")
    if not is_whole(dataset) or dataset < 0:
        raise ValueError(f"`dataset` is a number from 0 on, not {dataset!r}.")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"`dtype` is 'float32' or 'float64', not {dtype!r}.")


def _allocate(
    files: list[FCSText], names: list[str], dtype: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Make room for all values; NaN, and a table of what is there, if files lack markers."""
    shape = (sum(file.n_events for file in files), len(names))
    wanted = set(names)
    if all(wanted.issubset(file.variables) for file in files):
        return np.empty(shape, dtype=dtype), None
    return np.full(shape, np.nan, dtype=dtype), np.zeros(shape, dtype=bool)


def _matching(file: FCSText, names: list[str]) -> tuple[list[int], list[int]]:
    """Return channels of a file and the columns that they go to."""
    column_of = {name: i for i, name in enumerate(names)}
    pairs = [(i, column_of[n]) for i, n in enumerate(file.variables) if n in column_of]
    return [i for i, _ in pairs], [column for _, column in pairs]


def _cells(samples: list[str], counts: list[int]) -> pd.DataFrame:
    events = [np.arange(n, dtype=np.int64) for n in counts]
    return pd.DataFrame(
        {
            Key.obs.SAMPLE: pd.Categorical(np.repeat(samples, counts), categories=samples),
            Key.obs.EVENT: np.concatenate(events),
        },
        index=[f"{s}-{i}" for s, n in zip(samples, counts, strict=True) for i in range(n)],
    )


def _warn_of_repairs(files: list[FCSText]) -> None:
    repaired = [file for file in files if file.repairs]
    if not repaired:
        return
    example = repaired[0]
    warnings.warn(
        f"{len(repaired)} of {len(files)} files disagree with the FCS standard and were read "
        f'nevertheless; .uns["fcs"][sample]["repairs"] tells how. For instance '
        f"{example.path.name}: {'; '.join(example.repairs)}.",
        FCSRepairWarning,
        stacklevel=3,
    )
