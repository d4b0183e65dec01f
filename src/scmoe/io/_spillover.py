"""Parse the spillover matrix of an FCS file, and the shares that its instrument subtracted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scmoe._core.text import h5ad_keys

from ._channels import is_detector
from ._errors import Fault, Repairs, printable, quoted
from ._keywords import BLANKS, Keywords, to_number

_NAMED = ("$SPILLOVER", "SPILLOVER", "SPILL", "$SPILL")
_INDEXED = ("$COMP", "COMP")
_PERCENT = re.compile(r"\$DFC([1-9][0-9]?)TO([1-9][0-9]?)")


@dataclass(frozen=True)
class FileSpillover:
    """Spillover of a file."""

    matrix: pd.DataFrame | None = None
    """Matrix to apply: share of the signal of the row's channel that the column's channel sees.
    Rows are the exact names of the channels, columns the same names as keys of h5ad files."""
    unusable: str | None = None
    """Why the matrix of the file cannot be used, if so."""
    subtracted: pd.DataFrame | None = None
    """Shares that the instrument subtracted already, not to be applied: of the signal of the row's
    detector from the column's, 0 on the diagonal."""


def parse_spillover(
    keywords: Keywords, channels: Sequence[str], markers: Sequence[str], repairs: Repairs
) -> FileSpillover:
    """Parse the keywords of spillover.

    Parameters
    ----------
    keywords
        Keywords of the data set. ``$SPILLOVER``, ``SPILLOVER``, ``SPILL``, ``$SPILL``
        (``n, names, n * n values`` row by row), ``$COMP`` and ``COMP`` of FCS 3.0
        (``n, n * n values``): the first of them that can be used is taken. ``$DFCiTOj`` of
        FCS 2.0 is the percentage of detector ``FLi`` that was subtracted from ``FLj`` before
        the values were stored.
    channels, markers
        Names of the channels and markers of the file, ``""`` for none.
    repairs
        Receives unusable matrices, and matrices that contradict the one that is used.
    """
    found: dict[str, pd.DataFrame] = {}
    left_out: dict[str, Fault] = {}
    for keyword in (*_NAMED, *_INDEXED):
        text = keywords.get(keyword, "").strip(BLANKS)
        if not text or text == "0":
            continue
        notes = Repairs(strict=repairs.strict)
        try:
            if keyword in _NAMED:
                matrix = _parse_named(keyword, text, channels, markers, notes)
            else:
                matrix = _parse_unnamed(keyword, text, channels)
        except Fault as fault:
            left_out[keyword] = fault
            continue
        if matrix is not None:
            found[keyword] = matrix
            if len(found) == 1:
                repairs.messages.extend(notes.messages)
    used = next(iter(found), None)
    for keyword, fault in left_out.items():
        told = f"the spillover matrix was left out: {fault.reason}"
        repairs.repair(
            told if used is None else f"{told}; {used} was used", keyword, keywords[keyword]
        )
    for keyword, matrix in found.items():
        if not _agree(matrix, found[used]):
            repairs.repair(
                f"{used} and {keyword} hold different spillover matrices; {used} was used",
                keyword,
                keywords[keyword],
            )
    unusable = "; ".join(fault.reason for fault in left_out.values()) if not found else ""
    subtracted = None
    try:
        subtracted = _parse_subtracted(keywords, channels)
    except Fault as fault:
        repairs.repair(
            f"what the instrument subtracted was left out: {fault.reason}",
            fault.keyword,
            fault.value,
        )
    if subtracted is not None and used is not None:
        repairs.note(
            f"$DFCiTOj says that the instrument subtracted spillover already, and {used} holds "
            "a matrix"
        )
    return FileSpillover(found.get(used), unusable or None, subtracted)


def _table(values: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(values, index=list(names), columns=h5ad_keys(names))


def _agree(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two matrices are equal, with the identity for channels that one of them lacks."""
    names = list(dict.fromkeys([*one.index, *other.index]))
    full = []
    for table in (one, other):
        at = [names.index(name) for name in table.index]
        values = np.eye(len(names))
        values[np.ix_(at, at)] = table
        full.append(values)
    return np.allclose(*full, rtol=1e-6, atol=1e-9)


def _parse_count(keyword: str, fields: list[str]) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", fields[0]):
        raise Fault(f"{keyword} starts with {quoted(fields[0])}, not a count")
    return int(fields[0])


def _parse_square(keyword: str, fields: list[str], n: int) -> np.ndarray:
    values = [to_number(field) for field in fields]
    if None in values:
        bad = fields[values.index(None)]
        raise Fault(f"{keyword} holds {quoted(bad)}, which is not a number")
    return np.array(values, dtype=np.float64).reshape(n, n)


def _parse_named(
    keyword: str, text: str, channels: Sequence[str], markers: Sequence[str], notes: Repairs
) -> pd.DataFrame | None:
    fields = [field.strip(BLANKS) for field in text.split(",")]
    n = _parse_count(keyword, fields)
    if n == 0:
        return None
    if len(fields) != 1 + n + n * n:
        raise Fault(f"{keyword} is for {n} channels but holds {len(fields) - 1} fields")
    given = [printable(field) for field in fields[1 : 1 + n]]
    names = [_find_channel(name, channels, markers, keyword) for name in given]
    if len(set(names)) != n:
        raise Fault(f"{keyword} names a channel twice")
    values = _parse_square(keyword, fields[1 + n :], n)
    by_marker = [name for name in given if name not in channels and name in markers]
    if by_marker:
        notes.repair(
            f"{keyword} names markers, not channels: {', '.join(by_marker)}", keyword, text
        )
    return _table(values, names)


def _find_channel(name: str, channels: Sequence[str], markers: Sequence[str], keyword: str) -> str:
    """Return the channel with a name, else with that number or marker."""
    if channels.count(name) > 1:
        raise Fault(f"{keyword} names {name!r}, which several channels are called")
    if name in channels:
        return name
    found = [i for i, marker in enumerate(markers) if name and marker == name]
    if re.fullmatch(r"[0-9]{1,5}", name) and 1 <= int(name) <= len(channels):
        found.append(int(name) - 1)
    found = list(dict.fromkeys(found))
    if len(found) > 1:
        raise Fault(f"{keyword} names {name!r}, which several channels answer to")
    if not found:
        raise Fault(f"{keyword} names {quoted(name)}, which is not a channel of the file")
    if channels.count(channels[found[0]]) > 1:
        raise Fault(f"{keyword} names {name!r}, whose channel is called as another one")
    return channels[found[0]]


def _parse_unnamed(keyword: str, text: str, channels: Sequence[str]) -> pd.DataFrame | None:
    """Parse a matrix without names: of all channels, or of all that measure fluorescence."""
    fields = [field.strip(BLANKS) for field in text.split(",")]
    n = _parse_count(keyword, fields)
    if n == 0:
        return None
    if len(fields) != 1 + n * n:
        raise Fault(f"{keyword} is for {n} channels but holds {len(fields) - 1} values")
    values = _parse_square(keyword, fields[1:], n)
    names = list(channels)
    if n != len(names):
        names = [name for name in channels if is_detector(name)]
    if n != len(names) or len(set(names)) != n:
        raise Fault(f"{keyword} is for {n} channels, and nothing says which")
    if np.allclose(np.diag(values), 100):
        values = values / 100
    if not np.allclose(np.diag(values), 1):
        raise Fault(f"{keyword} is neither of fractions nor of percentages: its diagonal is not 1")
    return _table(values, names)


def _parse_subtracted(keywords: Keywords, channels: Sequence[str]) -> pd.DataFrame | None:
    """Parse ``$DFCiTOj``, percentages that the instrument subtracted."""
    found: dict[tuple[int, int], float] = {}
    for key, text in keywords.items():
        if match := _PERCENT.fullmatch(key):
            value = to_number(text.strip(BLANKS))
            if value is None:
                raise Fault(f"{key} is {quoted(text)}, not a number", key, text)
            found[int(match[1]), int(match[2])] = value
    pairs = {pair: value for pair, value in found.items() if value and pair[0] != pair[1]}
    if not pairs:
        return None
    detectors = sorted({i for pair in pairs for i in pair})
    values = np.zeros((len(detectors), len(detectors)))
    for (i, j), value in pairs.items():
        values[detectors.index(i), detectors.index(j)] = value / 100
    return _table(values, [_channel_of_detector(i, channels) for i in detectors])


def _channel_of_detector(i: int, channels: Sequence[str]) -> str:
    """Return the channel of a detector if exactly one has its name, else ``FL`` and its number."""
    named = [name for name in channels if re.match(rf"FL{i}(?![0-9])", name, re.IGNORECASE)]
    return named[0] if len(named) == 1 else f"FL{i}"
