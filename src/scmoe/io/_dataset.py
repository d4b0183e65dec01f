"""Read one data set of an FCS file: names, place of DATA, values, spillover, record in .uns."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ._channels import (
    ADDED,
    ADDED_KEYWORD,
    WHY,
    describe_channel,
    is_mass_cytometer,
    mark_copies,
    variable_names,
)
from ._errors import Fault, Repairs, faults_of, join_numbers, printable, quoted
from ._files import Source, open_source, path_text
from ._keywords import BLANKS, Keywords, ascii_upper, channel_numbers, to_number
from ._layout import Place, locate, read_layouts
from ._spillover import FileSpillover, parse_spillover
from ._text import Text, check_gap, read_text, read_texts
from ._values import ChannelScale, read_pieces, read_scales


@dataclass
class FCSDataset:
    """One data set of an FCS file, without its values."""

    path: Path
    number: int
    """Number of the data set in the file, counted from 0."""
    text: Text
    """HEADER and TEXT."""
    place: Place
    """Position of DATA, and how events are stored."""
    names: list[str]
    """``$PnN``, without blanks around them and without control characters."""
    markers: list[str]
    """``$PnS`` likewise, ``""`` for none."""
    scales: list[ChannelScale]
    """Maps from stored numbers to the linear scale, one per channel."""
    notes: Repairs
    offsets: str = "auto"
    """The `offsets` option that the data set was read with."""
    several: bool = False
    """Whether other data sets of the same file are read as well."""

    @property
    def label(self) -> str:
        """Name of the data set in messages."""
        path = printable(str(self.path))
        return f"{path} (data set {self.number})" if self.several else path

    @property
    def version(self) -> str:
        """FCS version, for instance ``"FCS3.1"``."""
        return self.text.version

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self.place.n_events

    @property
    def repairs(self) -> list[str]:
        """Departures from the standard, and how they were read."""
        return self.notes.messages

    @cached_property
    def keywords(self) -> dict[str, str]:
        """Keywords of TEXT: lower case, without the leading ``$``."""
        return self.text.plain

    @cached_property
    def variables(self) -> list[str]:
        """Names of the channels in ``.var_names``."""
        return variable_names(self.names, self.markers)

    @cached_property
    def var(self) -> pd.DataFrame:
        """Table of channels: ``channel, marker, kind, why, PnB, PnE, PnG, PnR``."""
        keywords, numbers = self.text.keywords, range(1, len(self.names) + 1)
        mass = is_mass_cytometer(self.names, keywords.get("$CYT", ""))
        # other programs may drop or reorder channels: those that scmoe added are known by name
        added = {name.strip() for name in keywords.get(ADDED_KEYWORD, "").split(",")}
        kinds = [
            ADDED if channel in added else describe_channel(channel, marker, mass=mass)
            for channel, marker in zip(self.names, self.markers, strict=True)
        ]
        pne = [keywords.get(f"$P{i}E", "0,0").strip(BLANKS) for i in numbers]
        kinds = mark_copies(self.names, self.markers, kinds, pne)
        table = {
            "channel": self.names,
            "marker": self.markers,
            "kind": [kind for kind, _ in kinds],
            WHY: [why for _, why in kinds],
            "PnB": [_bits(keywords, i) for i in numbers],
            "PnE": pne,
            "PnG": [_number(keywords, f"$P{i}G", 1.0) for i in numbers],
            "PnR": [_number(keywords, f"$P{i}R", np.nan) for i in numbers],
        }
        return pd.DataFrame(table, index=self.variables)


def open_dataset(
    path: str | PathLike[str],
    *,
    dataset: int = 0,
    offsets: str = "auto",
    strict: bool = False,
) -> FCSDataset:
    """Read a data set without its values.

    Parameters
    ----------
    path
        The file, which may be compressed with gzip.
    dataset
        Number of the data set, counted from 0.
    offsets
        Decides between two possible positions of DATA, see :func:`locate`.
    strict
        Refuse files that would need a repair.

    Raises
    ------
    FCSReadError
        If the file cannot be read, or can be read in more than one way.
    FileNotFoundError, PermissionError
        If the file does not exist or may not be read.
    """
    path = Path(path)
    notes = Repairs(strict=strict)
    with faults_of(path), open_source(path) as source:
        text = read_text(source, dataset, notes)
        return _describe(path, source, text, notes, dataset=dataset, offsets=offsets)


def open_datasets(
    path: str | PathLike[str], *, offsets: str = "auto", strict: bool = False
) -> list[FCSDataset]:
    """Read all data sets of a file without their values, see :func:`open_dataset`."""
    path = Path(path)
    found: list[FCSDataset] = []
    with faults_of(path), open_source(path) as source:
        try:
            for text, notes, odd in read_texts(source, strict=strict):
                if odd is not None:
                    notes.repair(odd, "$NEXTDATA", text.keywords["$NEXTDATA"])
                n = len(found)
                found.append(_describe(path, source, text, notes, dataset=n, offsets=offsets))
        except Fault as fault:
            where = f"data set {len(found)} (counted from 0): " if found else ""
            hint = "; `dataset=` reads the others one by one" if found else ""
            reason = f"{where}{fault.reason}{hint}"
            raise Fault(reason, fault.keyword, fault.value) from None
    for data in found:
        data.several = len(found) > 1
    return found


def _describe(
    path: Path, source: Source, text: Text, notes: Repairs, *, dataset: int, offsets: str
) -> FCSDataset:
    keywords = text.keywords
    _check_mode(text, notes)
    names = _names(keywords, notes)
    markers = [keywords.get(f"$P{i}S", "").strip(BLANKS) for i in range(1, len(names) + 1)]
    stored = read_layouts(keywords, text.version, len(names), notes)
    linear = read_scales(keywords, names, stored[0].columns, notes)
    place = locate(text, source, stored, notes, offsets)
    check_gap(text, source, place.start - text.offset, notes)
    return FCSDataset(
        path,
        dataset,
        text,
        place,
        _printable("N", names, notes),
        _printable("S", markers, notes),
        linear,
        notes,
        offsets,
    )


def _printable(letter: str, names: list[str], notes: Repairs) -> list[str]:
    """Remove characters that h5ad cannot hold or that control a terminal from names."""
    kept = []
    for i, name in enumerate(names, start=1):
        plain = printable(name)
        if plain != name:
            key = f"$P{i}{letter}"
            if letter == "N" and not plain:
                raise Fault(f"{key} holds no printable character: {quoted(name)}", key, name)
            notes.repair(
                f"characters of {key} that cannot be printed were left out: {quoted(name)}",
                key,
                name,
            )
        kept.append(plain)
    return kept


def read_values(
    data: FCSDataset,
    out: np.ndarray,
    channels: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
) -> None:
    """Read the values of a data set into an array.

    Parameters
    ----------
    data
        From :func:`open_dataset`. Values that are not finite are added to its repairs.
    out
        Array that is filled, events x columns, floats.
    channels
        Channels to read, counted from 0; all by default.
    columns
        Columns of `out` to fill; by default the first ones.
    """
    channels = list(range(len(data.names)) if channels is None else channels)
    columns = list(range(len(channels)) if columns is None else columns)
    everything = channels == columns == list(range(out.shape[1])) == list(range(len(data.names)))
    with (
        faults_of(data.path),
        open_source(data.path) as source,
        np.errstate(over="ignore", invalid="ignore"),
    ):
        bad = np.zeros(out.shape[1], dtype=int)
        for rows, events in read_pieces(source, data.place):
            part = out[rows]
            whole = everything and events.matrix is not None
            if whole:
                part[...] = events.matrix
            for i, column in zip(channels, columns, strict=True):
                scale = data.scales[i]
                if whole and scale.is_identity:
                    continue
                values = events.column(i)
                part[:, column] = values if scale.is_identity else scale.apply(values)
            finite = np.isfinite(part)
            if not finite.all():
                bad += (~finite).sum(axis=0)
        source.check()
    named = [data.variables[i] for i, k in zip(channels, columns, strict=True) if bad[k]]
    if named:
        data.notes.note(
            f"{bad[columns].sum()} values are not finite and were kept, in: {', '.join(named)}"
        )


def read_spillover(data: FCSDataset) -> FileSpillover:
    """Read the spillover matrix of the file; an unusable matrix is a repair."""
    with faults_of(data.path):
        return parse_spillover(data.text.keywords, data.names, data.markers, data.notes)


def _check_mode(text: Text, notes: Repairs) -> None:
    """Refuse histograms; FCS 3.2 has list mode only, so ``$MODE`` may be missing there."""
    if not text.keywords.get("$MODE", "").strip(BLANKS):
        if text.version != "FCS3.2":
            notes.repair_shift("$MODE is missing; taken as list mode", "$MODE")
        return
    mode = ascii_upper(text.keywords.need("$MODE"))
    if mode != "L":
        raise Fault(f"$MODE is {mode!r}; only list mode (L) can be read", "$MODE", mode)


def _names(keywords: Keywords, notes: Repairs) -> list[str]:
    """Return ``$PnN``, which must be there for the channels 1 to ``$PAR`` and no others."""
    n = keywords.integer("$PAR")
    said = keywords["$PAR"]
    if n < 1:
        raise Fault(f"$PAR is {n}", "$PAR", said)
    found = sorted(channel_numbers(keywords, "N"))
    if found != list(range(1, len(found) + 1)) or len(found) != n:
        raise Fault(f"$PAR is {n}, but $PnN is there for n = {join_numbers(found)}", "$PAR", said)
    more = sorted(
        {i for letter in "BER" for i in channel_numbers(keywords, letter) if not 1 <= i <= n}
    )
    if more:
        notes.repair(
            f"$PAR is {n}, but channels are described for n = {join_numbers(more)}", "$PAR", said
        )
    names = [keywords[f"$P{i}N"].strip(BLANKS) for i in found]
    unnamed = [f"$P{i}N" for i, name in enumerate(names, start=1) if not name]
    if unnamed:
        reason = f"channels without a name: {', '.join(unnamed)} blank"
        raise Fault(reason, unnamed[0], keywords[unnamed[0]])
    return names


def _bits(keywords: Keywords, i: int) -> int:
    """Return ``$PnB``, 0 for ASCII values with delimiters."""
    key = f"$P{i}B"
    return 0 if keywords.need(key) == "*" else keywords.integer(key)


def _number(keywords: Keywords, key: str, default: float) -> float:
    """Return a keyword as a number for the table of channels; NaN if it is not a number."""
    text = keywords.get(key, "").strip(BLANKS)
    number = to_number(text) if text else default
    return np.nan if number is None else number


def record_of(
    data: FCSDataset, sha256: str, renamed: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Return the record of a data set for ``.uns["fcs"][sample]``, which h5ad can store.

    Parameters
    ----------
    data
        The data set.
    sha256
        SHA-256 of its file, see :func:`file_sha256`.
    renamed
        Channels whose variable has another name than the file gives them.
    """
    spill = read_spillover(data)
    record: dict[str, Any] = {
        "file": path_text(data.path.name),
        "path": path_text(os.path.abspath(data.path)),
        "dataset": data.number,
        "offsets": data.offsets,
        "version": data.version,
        "sha256": sha256,
        "keywords": _table(data.keywords),
        "repairs": list(data.repairs),
    }
    more = {
        "spillover": spill.matrix,
        "spillover_unusable": spill.unusable,
        "subtracted": spill.subtracted,
        "renamed": renamed,
    }
    return record | {key: value for key, value in more.items() if value is not None}


def _table(keywords: Mapping[str, str]) -> pd.DataFrame:
    """Return keywords as a table, which h5ad writes much faster than a dict of strings.

    NUL bytes are removed, since HDF5 cannot hold them.
    """
    return pd.DataFrame(
        {"value": [value.replace("\0", "") for value in keywords.values()]},
        index=pd.Index([key.replace("\0", "") for key in keywords], name="keyword", dtype=object),
        dtype=object,
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with faults_of(path), path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
