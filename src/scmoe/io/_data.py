"""The DATA segment: where it lies, and its bytes as numbers.

flowio reads the TEXT segment and applies gain, logarithm and time step. Its decoder is not
used: it does not check the number of events against ``$TOT``, refuses integers of 10, 24 or
64 bits, takes the integer columns of FCS 3.2 for floats, and lets an unknown byte order pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FLOAT_BITS = {"F": 32, "D": 64}
_LITTLE, _BIG = "<", ">"


@dataclass(frozen=True)
class Column:
    """How one channel is stored in an event."""

    kind: str
    """``I``, ``F`` or ``D``."""
    size: int
    """Bytes."""
    mask: int | None
    """The bits of an integer that hold the value (``$PnR``); None for all."""


def columns(keywords: Mapping[str, str], version: str, n: int, notes: list[str]) -> list[Column]:
    """Read the storage of every channel from ``$DATATYPE``, ``$PnB``, ``$PnR``.

    Parameters
    ----------
    keywords
        Lower case, without the leading ``$``.
    version
        Of FCS; only 3.2 knows ``$PnDATATYPE``.
    n
        Number of channels.
    notes
        Receives what had to be assumed.
    """
    default = keywords["datatype"].strip().upper()
    found = []
    odd: dict[str, list[int]] = {}
    for i in range(1, n + 1):
        own = keywords.get(f"p{i}datatype", "") if version == "3.2" else ""
        keyword = f"$P{i}DATATYPE" if own.strip() else "$DATATYPE"
        kind = own.strip().upper() or default
        if kind not in ("I", "F", "D"):
            raise ValueError(f"{keyword} is {kind!r}; I, F and D can be read")
        bits = _integer(keywords, f"p{i}b")
        if kind in _FLOAT_BITS:
            if bits != _FLOAT_BITS[kind]:
                text = f"$PnB is {bits}, read as the {_FLOAT_BITS[kind]} bits of type {kind}"
                odd.setdefault(text, []).append(i)
            found.append(Column(kind, _FLOAT_BITS[kind] // 8, None))
            continue
        if not 1 <= bits <= 64:
            raise ValueError(f"$P{i}B is {bits}; integers of 1 to 64 bits can be read")
        size = bits // 8
        if bits % 8:
            size = next(s for s in (1, 2, 4, 8) if 8 * s >= bits)
            text = f"$PnB is {bits}, read as an integer of {8 * size} bits"
            odd.setdefault(text, []).append(i)
        mask, known = _mask(keywords[f"p{i}r"], 8 * size)
        if not known:
            odd.setdefault("$PnR is no range, so all bits are read", []).append(i)
        found.append(Column("I", size, mask))
    notes.extend(per_channel(text, numbers) for text, numbers in odd.items())
    return found


def per_channel(text: str, numbers: list[int]) -> str:
    """Say once what holds for several channels."""
    shown = ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
    return f"{text} (n = {shown})"


def _integer(keywords: Mapping[str, str], key: str) -> int:
    value = keywords[key].strip()
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"${key.upper()} is {value!r}, not an integer") from None


def _mask(value: str, bits: int) -> tuple[int | None, bool]:
    """Return the mask of the smallest power of two not below the range, and if there is one."""
    try:
        top = int(float(value))
    except (ValueError, OverflowError):
        return None, False
    if top < 1:
        return None, False
    width = (top - 1).bit_length()
    return ((1 << width) - 1 if width < bits else None), True


def byte_order(keywords: Mapping[str, str]) -> str:
    """Return ``<`` or ``>``; an order that is neither way round is refused."""
    value = keywords["byteord"]
    try:
        order = [int(x) for x in value.split(",")]
    except ValueError:
        order = []
    if order and order == list(range(1, len(order) + 1)):
        return _LITTLE
    if order and order == list(range(len(order), 0, -1)):
        return _BIG
    raise ValueError(f"$BYTEORD is {value!r}; only least or most significant byte first is known")


def locate(
    segments: Mapping[str, tuple[int, int]], needed: int, available: int, notes: list[str]
) -> int:
    """Find the first byte of DATA.

    Parameters
    ----------
    segments
        First and last byte by who says so (``HEADER``, ``TEXT``), best source first.
        ``(0, 0)`` says nothing.
    needed
        Bytes that ``$TOT`` events take.
    available
        Bytes of the file, from the start of the data set on.
    notes
        Receives what disagreed.

    Notes
    -----
    A pair of offsets is believed if as many bytes lie between them as the events take and the
    file has them all. Where none is, a pair whose end is one byte late is (many writers give
    the byte after the last one). Two pairs that could both be right are refused.
    """
    said = {source: pair for source, pair in segments.items() if pair != (0, 0)}
    if needed == 0:
        return 0
    stated = "; ".join(f"{source} says bytes {a} to {b}" for source, (a, b) in said.items())
    for late in (0, 1):
        fits = {
            source: first
            for source, (first, last) in said.items()
            if last - first + 1 - late == needed and first > 0 and first + needed <= available
        }
        if len(set(fits.values())) > 1:
            raise ValueError(f"{stated}: both fit $TOT, so DATA could begin at either")
        if fits:
            source, first = next(iter(fits.items()))
            if len(set(said.values())) > 1:
                notes.append(f"{stated}; {source} was used, the one that $TOT events fit")
            if late:
                notes.append(f"{source} gives the end of DATA one byte late")
            return first
    if not said:
        raise ValueError("neither HEADER nor TEXT says where DATA lies")
    if all(first + needed > available for first, _ in said.values()):
        raise ValueError(
            f"the file is truncated, or $TOT is too large: DATA takes {needed} bytes, "
            f"{stated}, and the file has {available}"
        )
    raise ValueError(f"DATA takes {needed} bytes by $TOT and $PnB, but {stated}")


def decode(path: Path, start: int, n_events: int, layout: list[Column], order: str) -> np.ndarray:
    """Read the events as numbers, as they are stored: no gain, no logarithm.

    Parameters
    ----------
    path
        The file.
    start
        First byte of DATA, from the start of the file.
    n_events
        Number of events.
    layout
        Storage of each channel.
    order
        ``<`` or ``>``.

    Returns
    -------
    Events x channels, float64.
    """
    width = sum(column.size for column in layout)
    if n_events == 0:
        return np.empty((0, len(layout)), dtype=np.float64)
    raw = np.fromfile(path, dtype=np.uint8, count=n_events * width, offset=start)
    raw = raw.reshape(n_events, width)
    if len(set(layout)) == 1:
        dtype = _dtype(layout[0], order)
        if dtype is not None:
            return _masked(raw.view(dtype), layout[0]).astype(np.float64)
    values = np.empty((n_events, len(layout)), dtype=np.float64)
    at = 0
    for i, column in enumerate(layout):
        values[:, i] = _decode_column(raw[:, at : at + column.size], column, order)
        at += column.size
    return values


def _dtype(column: Column, order: str) -> np.dtype | None:
    if column.kind == "I" and column.size not in (1, 2, 4, 8):
        return None
    return np.dtype(f"{order}{'u' if column.kind == 'I' else 'f'}{column.size}")


def _masked(values: np.ndarray, column: Column) -> np.ndarray:
    return values if column.mask is None else values & values.dtype.type(column.mask)


def _decode_column(raw: np.ndarray, column: Column, order: str) -> np.ndarray:
    dtype = _dtype(column, order)
    if dtype is not None:
        return _masked(np.ascontiguousarray(raw).view(dtype)[:, 0], column)
    values = np.zeros(len(raw), dtype=np.uint64)
    most_significant_first = range(column.size)
    if order == _LITTLE:
        most_significant_first = reversed(most_significant_first)
    for byte in most_significant_first:
        values = (values << np.uint64(8)) | raw[:, byte]
    return _masked(values, column)
