"""Validate spillover matrices, and match their names to the channels of the cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe._core.keys import Key
from scmoe._core.text import h5ad_keys, listing

if TYPE_CHECKING:
    from anndata import AnnData

MAX_CONDITION = 1e4
"""Largest condition number: noise of a channel is amplified by up to this factor."""

_ALL = ""
"""Name of the sample if the cells have none."""


@dataclass(frozen=True, eq=False)
class SpilloverMatrix:
    """A spillover matrix that was validated."""

    channels: list[str]
    values: np.ndarray
    """Share of the signal of the row's channel that the column's channel sees."""
    columns: np.ndarray | None = None
    """Positions of the channels among the variables, -1 for a missing one."""

    @property
    def content(self) -> tuple[tuple[str, ...], bytes]:
        """Channels and bytes, equal for equal matrices."""
        return tuple(self.channels), self.values.tobytes()

    def needed_but_missing(self) -> list[str]:
        """Return the missing channels that spillover couples to others."""
        coupled = self.values - np.diag(np.diag(self.values)) != 0
        coupled = coupled.any(axis=0) | coupled.any(axis=1)
        return [
            name
            for name, i, needed in zip(self.channels, self.columns, coupled, strict=True)
            if needed and i < 0
        ]

    def agrees(self, other: SpilloverMatrix) -> bool:
        """Whether both matrices are equal, in any order of channels."""
        if set(self.channels) != set(other.channels):
            return False
        order = [other.channels.index(name) for name in self.channels]
        return np.allclose(self.values, other.values[np.ix_(order, order)], rtol=1e-9, atol=1e-12)


def matrices_by_sample(spillover: Any, adata: AnnData) -> dict[str, SpilloverMatrix]:
    """Return the validated matrix of each sample, by ``""`` if the cells have no samples."""
    samples = _samples(adata, needed=spillover is None or _is_mapping(spillover))
    if spillover is None or _is_mapping(spillover):
        tables = (
            _matrices_of_files(adata)
            if spillover is None
            else {str(s): table for s, table in spillover.items()}
        )
        missing = [sample for sample in samples if sample not in tables]
        if missing:
            told = (
                _why_no_matrix(adata, missing)
                if spillover is None
                else f"`spillover` has no matrix; it has: {listing(list(tables))}"
            )
            raise ValueError(f"For sample {listing(missing)} {told}.")
        matrices = {s: _validated(tables[s], f"of sample {s!r}", adata) for s in samples}
        # the files of a plate mostly carry equal matrices
        first: dict[tuple, SpilloverMatrix] = {}
        return {s: first.setdefault(matrix.content, matrix) for s, matrix in matrices.items()}
    shared = _validated(spillover, "in `spillover`", adata)
    return dict.fromkeys(samples, shared)


def _is_mapping(spillover: Any) -> bool:
    return isinstance(spillover, Mapping)


def _samples(adata: AnnData, *, needed: bool) -> list[str]:
    if Key.obs.SAMPLE not in adata.obs:
        if needed:
            raise KeyError(
                f"A matrix per sample needs .obs['{Key.obs.SAMPLE}'], which is not there; pass "
                "one matrix for all cells with `spillover=`."
            )
        return [_ALL]
    column = adata.obs[Key.obs.SAMPLE]
    if column.isna().any():
        raise ValueError(
            f".obs['{Key.obs.SAMPLE}'] has no sample for {column.isna().sum()} cells."
        )
    return [str(sample) for sample in column.unique()]


def _matrices_of_files(adata: AnnData) -> dict[str, Any]:
    records = adata.uns.get(Key.uns.FCS, {})
    return {s: record["spillover"] for s, record in records.items() if "spillover" in record}


def _why_no_matrix(adata: AnnData, samples: list[str]) -> str:
    """Return why samples have no matrix of their own."""
    records = adata.uns.get(Key.uns.FCS, {})
    reasons: dict[str, list[str]] = {}
    for sample in samples:
        record = records.get(sample, {})
        unusable = record.get("spillover_unusable")
        if unusable is not None:
            reason = f"the matrix of the file was left out: {unusable}"
        elif "subtracted" in record:
            reason = (
                "the file carries no matrix to apply: its instrument compensated before the "
                "values were stored ($DFCiTOj, "
                f".uns['{Key.uns.FCS}'][sample]['subtracted'])"
            )
        else:
            reason = f".uns['{Key.uns.FCS}'] has no spillover matrix"
        reasons.setdefault(reason, []).append(sample)
    told = [
        reason if len(reasons) == 1 else f"({listing(of)}) {reason}"
        for reason, of in reasons.items()
    ]
    return f"{'; '.join(told)}; pass one with `spillover=`"


def samples_subtracted(adata: AnnData, samples: Iterable[str]) -> list[str]:
    """Return the samples whose instrument subtracted spillover already."""
    records = adata.uns.get(Key.uns.FCS, {})
    return [sample for sample in samples if "subtracted" in records.get(sample, {})]


def rows_of(adata: AnnData, sample: str) -> np.ndarray:
    """Return the positions of the cells of a sample."""
    if Key.obs.SAMPLE not in adata.obs:
        return np.arange(adata.n_obs)
    return np.flatnonzero(adata.obs[Key.obs.SAMPLE].astype(str).to_numpy() == sample)


def _validated(given: Any, whose: str, adata: AnnData) -> SpilloverMatrix:
    whose = f"The spillover matrix {whose}"
    if isinstance(given, str | PathLike):
        given = _read_csv(Path(given))
    if not isinstance(given, pd.DataFrame):
        raise ValueError(
            f"{whose} is a {type(given).__name__}; it must be a DataFrame with the names of "
            "channels in rows and columns, or the path of a CSV file with one."
        )
    names, values = _square(given, whose)
    _check_values(names, values, whose)
    channels, columns = _match_channels(names, whose, adata)
    return SpilloverMatrix(channels, values, columns)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a matrix with a header line, with or without a column of names."""
    table = pd.read_csv(path, skipinitialspace=True)
    if table.shape[1] and not pd.api.types.is_numeric_dtype(table.iloc[:, 0]):
        return table.set_index(table.columns[0])
    if table.shape[0] != table.shape[1]:
        raise ValueError(
            f"{path} holds {table.shape[0]} lines of {table.shape[1]} values; a spillover "
            "matrix has as many lines as columns, below one line of names."
        )
    return table.set_axis(table.columns, axis=0)


def _square(table: pd.DataFrame, whose: str) -> tuple[list[str], np.ndarray]:
    """Return the names of the rows, and the values with columns in the same order."""
    rows = [str(name).strip() for name in table.index]
    columns = [str(name).strip() for name in table.columns]
    if len(rows) != len(columns) or not rows:
        raise ValueError(f"{whose} is not square: {len(rows)} rows, {len(columns)} columns.")
    for names in (rows, columns):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"{whose} names a channel twice: {listing(twice)}.")
    if set(columns) != set(rows):
        # the FCS reader names columns by valid keys of h5ad files
        given = dict(zip(h5ad_keys(rows), rows, strict=True))
        columns = [given.get(name, name) for name in columns]
    if set(columns) != set(rows):
        odd = sorted(set(rows) ^ set(columns))
        raise ValueError(f"{whose} has other names in rows than in columns: {listing(odd)}.")
    try:
        values = table.to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{whose} holds values that are not numbers.") from None
    return rows, values[:, [columns.index(name) for name in rows]]


def _check_values(names: list[str], values: np.ndarray, whose: str) -> None:
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{whose} holds NaN or infinite values in the rows of "
            f"{listing(np.array(names)[bad].tolist())}."
        )
    diagonal = np.diag(values)
    if (diagonal == 0).any():
        raise ValueError(
            f"{whose} has 0 on the diagonal, where the signal of a channel in itself is, for "
            f"{listing(np.array(names)[diagonal == 0].tolist())}; it should be 1."
        )
    if (diagonal == 100).all():
        raise ValueError(f"{whose} has 100 on the diagonal: it is in percent; divide it by 100.")
    condition = np.linalg.cond(values)
    if not condition <= MAX_CONDITION:
        raise ValueError(
            f"{whose} is singular, or nearly so: its condition number is {condition:.3g}, more "
            f"than {MAX_CONDITION:g}. Two of its rows are almost alike, and nothing could tell "
            "their channels apart."
        )


def _match_channels(names: list[str], whose: str, adata: AnnData) -> tuple[list[str], np.ndarray]:
    """Return the channels of the names, and their positions among the variables."""
    known = _variable_names(adata)
    # all names are channels, or all are names of variables or markers
    places = max(
        (_positions(column, names) for column in known), key=lambda found: sum(map(bool, found))
    )
    if not any(places):
        raise ValueError(
            f"{whose} names no channel of the cells. It is for {listing(names)}; the cells have "
            f"{listing(known[0])}."
        )
    twice = [name for name, found in zip(names, places, strict=True) if len(found) > 1]
    if twice:
        raise ValueError(f"{whose} names {listing(twice)}, as several variables are called.")
    columns = np.array([found[0] if found else -1 for found in places])
    channels = [known[0][i] if i >= 0 else name for i, name in zip(columns, names, strict=True)]
    return channels, columns


def _variable_names(adata: AnnData) -> list[list[str]]:
    """Return the names of the variables: by channel, by ``.var_names``, by marker."""
    columns = [
        adata.var[name].astype(str).tolist()
        for name in (Key.var.CHANNEL, Key.var.MARKER)
        if name in adata.var
    ]
    return [*columns[:1], adata.var_names.astype(str).tolist(), *columns[1:]]


def _positions(column: list[str], names: list[str]) -> list[list[int]]:
    return [[i for i, known in enumerate(column) if known == name] for name in names]
