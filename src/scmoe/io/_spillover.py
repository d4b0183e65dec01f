"""The spillover matrix that a file carries."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ._channels import is_detector
from ._errors import Fault, Repairs, shown
from ._split import BLANKS
from ._text import Keywords, to_number

_NAMED = ("$SPILLOVER", "SPILLOVER", "SPILL", "$SPILL")
_INDEXED = ("$COMP", "COMP")
_PERCENT = re.compile(r"\$DFC([1-9][0-9]?)TO([1-9][0-9]?)")


def find_spillover(
    keywords: Keywords, channels: Sequence[str], repairs: Repairs
) -> pd.DataFrame | None:
    """Read the spillover matrix of a file.

    Parameters
    ----------
    keywords
        Of the data set. ``$SPILLOVER`` or ``SPILL`` (``n, names, n * n values`` row by row);
        else ``$COMP`` of FCS 3.0 (``n, n * n values``); else ``$DFCiTOj`` of FCS 2.0, which
        percentage of detector ``FLi`` is seen in ``FLj``.
    channels
        Names of the channels of the file.
    repairs
        Receives why a matrix was left out.

    Returns
    -------
    Rows are the exact names of the channels; columns are the same in the same order, with
    ``/`` as ``_`` because no key of an h5ad file may hold it. Row by column is the share of the
    row's signal that is seen in the column. None if there is no matrix.
    """
    for keyword in (*_NAMED, *_INDEXED):
        text = keywords.get(keyword, "").strip(BLANKS)
        if not text or text == "0":
            continue
        read = _named if keyword in _NAMED else _indexed
        try:
            return read(keyword, text, channels)
        except Fault as fault:
            repairs.repair(f"the spillover matrix was left out: {fault.reason}", keyword, text)
            return None
    try:
        return _percentages(keywords, channels)
    except Fault as fault:
        repairs.repair(
            f"the spillover matrix was left out: {fault.reason}", fault.keyword, fault.value
        )
        return None


def _table(values: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        values, index=list(names), columns=[name.replace("/", "_") for name in names]
    )


def _count(keyword: str, fields: list[str]) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", fields[0]):
        raise Fault(f"{keyword} starts with {shown(fields[0])}, not a count")
    return int(fields[0])


def _square(keyword: str, fields: list[str], n: int) -> np.ndarray:
    values = [to_number(field) for field in fields]
    if None in values:
        bad = fields[values.index(None)]
        raise Fault(f"{keyword} holds {shown(bad)}, which is not a number")
    return np.array(values, dtype=np.float64).reshape(n, n)


def _named(keyword: str, text: str, channels: Sequence[str]) -> pd.DataFrame | None:
    fields = [field.strip(BLANKS) for field in text.split(",")]
    n = _count(keyword, fields)
    if n == 0:
        return None
    if len(fields) != 1 + n + n * n:
        raise Fault(f"{keyword} is for {n} channels but holds {len(fields) - 1} fields")
    names = [_channel(name, channels, keyword) for name in fields[1 : 1 + n]]
    if len(set(names)) != n:
        raise Fault(f"{keyword} names a channel twice")
    return _table(_square(keyword, fields[1 + n :], n), names)


def _channel(name: str, channels: Sequence[str], keyword: str) -> str:
    if channels.count(name) > 1:
        raise Fault(f"{keyword} names {name!r}, which several channels are called")
    if name in channels:
        return name
    if re.fullmatch(r"[0-9]{1,5}", name) and 1 <= int(name) <= len(channels):
        return channels[int(name) - 1]
    raise Fault(f"{keyword} names {shown(name)}, which is no channel of the file")


def _indexed(keyword: str, text: str, channels: Sequence[str]) -> pd.DataFrame | None:
    """Read a matrix by number: of all channels, or of all that measure fluorescence."""
    fields = [field.strip(BLANKS) for field in text.split(",")]
    n = _count(keyword, fields)
    if n == 0:
        return None
    if len(fields) != 1 + n * n:
        raise Fault(f"{keyword} is for {n} channels but holds {len(fields) - 1} values")
    values = _square(keyword, fields[1:], n)
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


def _percentages(keywords: Keywords, channels: Sequence[str]) -> pd.DataFrame | None:
    """Read ``$DFCiTOj``."""
    found: dict[tuple[int, int], float] = {}
    for key, text in keywords.items():
        if match := _PERCENT.fullmatch(key):
            value = to_number(text.strip(BLANKS))
            if value is None:
                raise Fault(f"{key} is {shown(text)}, not a number", key, text)
            found[int(match[1]), int(match[2])] = value
    pairs = {pair: value for pair, value in found.items() if value and pair[0] != pair[1]}
    if not pairs:
        return None
    detectors = sorted({i for pair in pairs for i in pair})
    names = [_detector(i, channels) for i in detectors]
    values = np.eye(len(detectors))
    for (i, j), value in pairs.items():
        values[detectors.index(i), detectors.index(j)] = value / 100
    return _table(values, names)


def _detector(i: int, channels: Sequence[str]) -> str:
    named = [name for name in channels if re.match(rf"FL{i}(?![0-9])", name, re.IGNORECASE)]
    if len(named) != 1:
        several = "several channels are" if named else "no channel is"
        raise Fault(f"$DFCiTOj speaks of detector FL{i}, which {several} called")
    return named[0]
