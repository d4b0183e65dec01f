"""FCS files -> AnnData."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from os import PathLike
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from tqdm import tqdm

from scmoe._keys import Key

from ._errors import FCSReadError, FCSRepairWarning
from ._flowio import FCSFile, read_file
from ._paths import find_files, sample_names

logger = logging.getLogger("scmoe")

_PROGRESS_FROM = 6


def read_fcs(
    path: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    join: Literal["exact", "inner"] = "exact",
    dataset: int = 0,
    dtype: Literal["float32", "float64"] = "float32",
    progress: bool | None = None,
) -> ad.AnnData:
    """Read flow and mass cytometry files (FCS 2.0, 3.0, 3.1, 3.2).

    Values are on the linear scale: the gain (``$PnG``), the logarithmic amplification
    (``$PnE``) and the time step (``$TIMESTEP``, seconds) of the file are applied, nothing
    else is: no compensation, no arcsinh (:func:`scmoe.pp.arcsinh`).

    Parameters
    ----------
    path
        A file; a folder, of which every ``.fcs`` and ``.lmd`` (any case) is read in natural
        order, sub-folders are not; a glob pattern (``"plate/*_A*.fcs"``, ``**`` for
        sub-folders); or a list of these.
    join
        What to do when the files do not have the same channels with the same markers.
        ``"exact"`` raises; ``"inner"`` keeps the markers that all files share, and warns with
        the names of the others. The order of the channels may differ: they are matched by
        name, in the order of the first file.
    dataset
        Which data set to read from files that hold several, counted from 0.
    dtype
        Of ``.X``.
    progress
        Show a progress bar; by default on a terminal with more than five files.

    Returns
    -------
    Cells x channels, with

    ``.X``
        Dense, of `dtype`.
    ``.obs["sample"]``
        Categorical, the file of each cell: its stem, with its folder before it if two stems
        are equal. ``.obs_names`` are ``"{sample}-{i}"``, `i` counted from 0 in each file.
    ``.var_names``
        The marker (``$PnS``), else the channel (``$PnN``); markers that occur more than once
        become ``"marker (channel)"``.
    ``.var``
        ``channel``, ``marker`` (``""`` for none), ``kind`` (categorical: ``fluor``, ``mass``,
        ``scatter``, ``time``, or ``other`` for what is clearly no marker: event length, DNA,
        viability, barcodes, beads, labels), ``PnB`` (bits, int), ``PnE`` (str), ``PnG``,
        ``PnR`` (float). Of several files, those of the first.
    ``.uns["fcs"][sample]``
        ``file`` (its name), ``keywords`` (a dict of str; lower case, without the leading
        ``$``, ``/`` replaced by ``_`` because h5ad keys cannot hold it), ``repairs`` (a list
        of str), and ``spillover`` (a DataFrame by channel) if the file has one.

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

    Examples
    --------
    >>> adata = scmoe.io.read_fcs("plate/")
    >>> adata.var["kind"].value_counts()
    """
    _check_arguments(join, dataset, dtype)
    paths = find_files(path)
    if progress is None:
        hidden = None if len(paths) >= _PROGRESS_FROM else True
    else:
        hidden = not progress
    files = [
        read_file(file, dataset=dataset, dtype=dtype)
        for file in tqdm(paths, desc="FCS files", unit="file", disable=hidden)
    ]
    names = _shared_variables(files, join)
    samples = sample_names(paths)
    counts = [len(file.values) for file in files]
    adata = ad.AnnData(
        X=_stack(files, names),
        obs=pd.DataFrame(
            {Key.obs.SAMPLE: pd.Categorical(np.repeat(samples, counts), categories=samples)},
            index=[f"{s}-{i}" for s, n in zip(samples, counts, strict=True) for i in range(n)],
        ),
        var=_variables(files[0], names),
        uns={Key.uns.FCS: {s: _record(f) for s, f in zip(samples, files, strict=True)}},
    )
    _warn_of_repairs(files)
    logger.info("read %d events x %d channels from %d files", *adata.shape, len(files))
    return adata


def _check_arguments(join: str, dataset: int, dtype: str) -> None:
    if join not in ("exact", "inner"):
        raise ValueError(f"`join` is 'exact' or 'inner', not {join!r}.")
    if isinstance(dataset, bool) or not isinstance(dataset, int | np.integer) or dataset < 0:
        raise ValueError(f"`dataset` is a number from 0 on, not {dataset!r}.")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"`dtype` is 'float32' or 'float64', not {dtype!r}.")


def _shared_variables(files: list[FCSFile], join: str) -> list[str]:
    """Return the variables to keep, in the order of the first file."""
    first = files[0]
    shared = list(first.var.index)
    for file in files[1:]:
        if join == "exact":
            _require_same_panel(first, file)
        else:
            present = set(file.var.index)
            shared = [name for name in shared if name in present]
    if not shared:
        raise FCSReadError(
            files[-1].path, f"no marker is shared by this file and all the others ({first.path})"
        )
    dropped = {file.path: [n for n in file.var.index if n not in set(shared)] for file in files}
    dropped = {path: names for path, names in dropped.items() if names}
    if dropped:
        told = "; ".join(f"{path}: {', '.join(names)}" for path, names in dropped.items())
        warnings.warn(f"Markers that not all files have were dropped. {told}", stacklevel=3)
    return shared


def _require_same_panel(first: FCSFile, file: FCSFile) -> None:
    ours, theirs = _panel(first), _panel(file)
    if ours == theirs:
        return
    only_first = ", ".join(sorted(ours - theirs)) or "none"
    only_here = ", ".join(sorted(theirs - ours)) or "none"
    raise FCSReadError(
        file.path,
        f"its panel does not match that of {first.path}. Only in {file.path.name}: {only_here}. "
        f'Only in {first.path.name}: {only_first}. join="inner" keeps the shared markers',
    )


def _panel(file: FCSFile) -> set[str]:
    return {
        name if name == channel else f"{name} [channel {channel}]"
        for name, channel in file.var["channel"].items()
    }


def _stack(files: list[FCSFile], names: list[str]) -> np.ndarray:
    n = sum(len(file.values) for file in files)
    stacked = np.empty((n, len(names)), dtype=files[0].values.dtype)
    at = 0
    for file in files:
        end = at + len(file.values)
        stacked[at:end] = file.values[:, file.var.index.get_indexer(names)]
        at = end
    return stacked


def _variables(file: FCSFile, names: list[str]) -> pd.DataFrame:
    var = file.var.loc[names].copy()
    var[Key.var.KIND] = pd.Categorical(var[Key.var.KIND])
    return var


def _record(file: FCSFile) -> dict[str, Any]:
    record: dict[str, Any] = {
        "file": file.path.name,
        "keywords": _writable(file.keywords),
        "repairs": list(file.repairs),
    }
    if file.spillover is not None:
        record["spillover"] = file.spillover
    return record


def _writable(keywords: dict[str, str]) -> dict[str, str]:
    """Rid keywords of what HDF5 cannot hold: ``/`` in keys, NUL bytes, keys of dots only."""
    written: dict[str, str] = {}
    for key, value in keywords.items():
        name = key.replace("/", "_").replace("\0", "").strip()
        if not name.strip("."):
            name = f"_{name}"
        while name in written:
            name += "_"
        written[name] = value.replace("\0", "")
    return written


def _warn_of_repairs(files: list[FCSFile]) -> None:
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
