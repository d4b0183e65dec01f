"""The bytes of DATA as numbers, as they are stored: no gain, no logarithm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ._errors import Fault

if TYPE_CHECKING:
    from ._data import Place
    from ._layout import Column, Layout
    from ._source import Source

_DIGITS = np.zeros(256, dtype=bool)
_DIGITS[list(b"0123456789")] = True
_SEPARATORS = np.zeros(256, dtype=bool)
_SEPARATORS[list(b" \t,\r\n")] = True
_PIECE = 1 << 21
"""Bytes of the events that are decoded at once."""


class Events:
    """Some events of a data set, one channel at a time."""

    def __init__(self, raw: np.ndarray, n_events: int, layout: Layout) -> None:
        columns = layout.columns
        self._layout = layout
        self._rows = raw
        self.matrix: np.ndarray | None = None
        if columns[0].kind == "A":
            self.matrix = _ascii(raw, n_events, columns)
        elif layout.packed:
            self.matrix = _unpacked_bits(raw, n_events, layout)
        else:
            self._rows = raw.reshape(n_events, -1)
            self._starts = np.cumsum([0, *(column.size for column in columns)])
            self.matrix = _uniform(self._rows, layout)

    def column(self, i: int) -> np.ndarray:
        """Return a channel, counted from 0."""
        if self.matrix is not None:
            return self.matrix[:, i]
        column = self._layout.columns[i]
        raw = self._rows[:, self._starts[i] : self._starts[i + 1]]
        return _masked(_words(raw, column, self._layout), column)


def pieces(source: Source, place: Place) -> Iterator[tuple[slice, Events]]:
    """Read the events of a data set, some rows at a time that stay in the cache."""
    bits, n = place.layout.event_bits, place.n_events
    # eight events end with a byte; text with delimiters ends anywhere
    step = max(_PIECE // bits, 1) * 8 if bits else max(n, 1)
    for first in range(0, n, step):
        stop = min(first + step, n)
        begin = place.start + first * bits // 8
        size = place.layout.needed(stop - first) if bits else place.size
        raw = source.array(begin, size)
        if len(raw) < size:
            got = begin - place.start + len(raw)
            raise Fault(f"the file ends within DATA, after {got} of {place.size} bytes")
        yield slice(first, stop), Events(raw, stop - first, place.layout)


def _uniform(rows: np.ndarray, layout: Layout) -> np.ndarray | None:
    """View events whose channels are all stored alike, in words that numpy knows, at once."""
    column = layout.columns[0]
    if len({(c.kind, c.bits) for c in layout.columns}) > 1 or not (layout.little or layout.big):
        return None
    if column.kind == "I" and column.size not in (1, 2, 4, 8):
        return None
    values = rows.view(_dtype(column, layout))
    if all(c.mask is None for c in layout.columns):
        return values
    full = (1 << column.bits) - 1
    masks = [full if c.mask is None else c.mask for c in layout.columns]
    return values & np.array(masks, dtype=values.dtype)


def _dtype(column: Column, layout: Layout) -> np.dtype:
    order = ">" if layout.big else "<"
    return np.dtype(f"{order}{'u' if column.kind == 'I' else 'f'}{column.size}")


def _words(raw: np.ndarray, column: Column, layout: Layout) -> np.ndarray:
    """Put the bytes of one channel together, events x bytes."""
    if not (layout.little or layout.big) and column.size > 1:
        raw = raw[:, np.argsort(layout.order)]
    elif layout.big:
        raw = raw[:, ::-1]
    size = next(size for size in (1, 2, 4, 8) if size >= column.size)
    words = np.zeros((len(raw), size), dtype=np.uint8)
    words[:, : column.size] = raw
    return words.view(f"<{'u' if column.kind == 'I' else 'f'}{size}")[:, 0]


def _masked(values: np.ndarray, column: Column) -> np.ndarray:
    return values if column.mask is None else values & values.dtype.type(column.mask)


def _unpacked_bits(raw: np.ndarray, n_events: int, layout: Layout) -> np.ndarray:
    """Read values that follow one another bit by bit."""
    matrix = np.empty((n_events, len(layout.columns)), dtype=np.uint64)
    order = "big" if layout.big else "little"
    width = layout.event_bits
    bits = np.unpackbits(raw, bitorder=order)[: n_events * width].reshape(n_events, width)
    at = 0
    for i, column in enumerate(layout.columns):
        own = bits[:, at : at + column.bits]
        if order == "big":
            own = own[:, ::-1]
        value = np.zeros(n_events, dtype=np.uint64)
        for k in range(column.bits):
            value |= own[:, k].astype(np.uint64) << np.uint64(k)
        matrix[:, i] = _masked(value, column)
        at += column.bits
    return matrix


def _ascii(raw: np.ndarray, n_events: int, columns: tuple[Column, ...]) -> np.ndarray:
    """Read whole numbers that are written in ASCII."""
    if columns[0].bits == 0:
        return _delimited_ascii(raw, n_events, len(columns))
    rows = raw.reshape(n_events, -1)
    matrix = np.empty((n_events, len(columns)), dtype=np.float64)
    at = 0
    for i, column in enumerate(columns):
        cells = np.ascontiguousarray(rows[:, at : at + column.size])
        at += column.size
        digits = _DIGITS[cells]
        blank = cells == ord(" ")
        # blanks stand before or behind the digits, not among them
        parts = digits[:, 0] + (digits[:, 1:] & ~digits[:, :-1]).sum(axis=1)
        if not (digits | blank).all() or (parts != 1).any():
            raise Fault(f"channel {i + 1} holds ASCII that is no whole number")
        matrix[:, i] = cells.view(f"S{column.size}")[:, 0].astype(np.float64)
    return matrix


def _delimited_ascii(raw: np.ndarray, n_events: int, n: int) -> np.ndarray:
    digits = _DIGITS[raw]
    if not (digits | _SEPARATORS[raw]).all():
        raise Fault("DATA holds ASCII that is neither a digit nor a delimiter")
    count = int(digits[0]) + int((digits[1:] & ~digits[:-1]).sum())
    if count != n_events * n:
        raise Fault(
            f"DATA holds {count} ASCII values, $TOT and $PAR ask for {n_events * n}", "$TOT"
        )
    text = np.where(digits, raw, ord(" ")).astype(np.uint8).tobytes()
    return np.fromstring(text.decode("ascii"), dtype=np.float64, sep=" ").reshape(n_events, n)
