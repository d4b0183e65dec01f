"""Decode the bytes of events, map values to the linear scale, and encode values as bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._errors import Fault, Repairs, join_numbers, quoted
from ._keywords import BLANKS, Keywords, to_number

if TYPE_CHECKING:
    from ._files import Source
    from ._layout import Column, Layout, Place


_DIGITS = np.zeros(256, dtype=bool)
_DIGITS[list(b"0123456789")] = True
_SEPARATORS = np.zeros(256, dtype=bool)
_SEPARATORS[list(b" \t,\r\n")] = True
_PIECE = 1 << 21
"""Bytes decoded at once."""


class Events:
    """Decoded events; `matrix` holds all channels if they can be decoded at once, else None."""

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
        """Return the stored values of a channel, counted from 0."""
        if self.matrix is not None:
            return self.matrix[:, i]
        column = self._layout.columns[i]
        raw = self._rows[:, self._starts[i] : self._starts[i + 1]]
        return _masked(_words(raw, column, self._layout), column)


def read_pieces(source: Source, place: Place) -> Iterator[tuple[slice, Events]]:
    """Yield the events of a data set in pieces that fit into the cache, with their rows."""
    bits, n = place.layout.event_bits, place.n_events
    # eight packed events end at a byte; ASCII with delimiters is read whole
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
    """Decode all channels at once if they have the same type; None if that is not possible."""
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
    """Return one channel as numbers from its bytes, events x bytes."""
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
    """Decode integers that are packed bit by bit."""
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
    """Decode integers that are written in ASCII."""
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
        # blanks are before or after the digits, not between them
        parts = digits[:, 0] + (digits[:, 1:] & ~digits[:, :-1]).sum(axis=1)
        if not (digits | blank).all() or (parts != 1).any():
            raise Fault(f"channel {i + 1} holds ASCII that is not an integer")
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


_TIME = "time"


@dataclass(frozen=True)
class ChannelScale:
    """Map of one channel from stored values to the linear scale; by default the identity."""

    factor: float = 1.0
    divisor: float = 1.0
    decades: float = 0.0
    lowest: float = 1.0
    span: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether values stay unchanged."""
        return self.factor == 1 and self.divisor == 1 and self.decades == 0

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Return stored values on the linear scale, float64."""
        values = stored.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if self.decades:
                return 10.0 ** (self.decades * values / self.span) * self.lowest
            return values * self.factor if self.factor != 1 else values / self.divisor


def read_scales(
    keywords: Keywords, names: Sequence[str], columns: Sequence[Column], repairs: Repairs
) -> list[ChannelScale]:
    """Read the scale of each channel from ``$PnE``, ``$PnG`` and ``$TIMESTEP``.

    Parameters
    ----------
    keywords
        Keywords of the data set.
    names
        ``$PnN``. The channel ``Time`` (any case) has the time step, and no gain.
    columns
        Storage of each channel; floats are linear whatever ``$PnE`` is.
    repairs
        Receives the assumptions that were made.
    """
    odd: dict[str, list[int]] = defaultdict(list)
    found = []
    times = [i for i, name in enumerate(names, start=1) if name.lower() == _TIME]
    step = _time_step(keywords, repairs) if times else 1.0
    if step != 1 and len(times) > 1:
        repairs.repair(
            f"several channels are called Time; all were scaled (n = {join_numbers(times)})"
        )
    for i, column in enumerate(columns, start=1):
        decades, lowest = _amplification(keywords, i, column, odd)
        is_time = i in times
        factor = step if is_time else 1.0
        gain = 1.0 if is_time else _gain(keywords, i, odd)
        if decades and (factor != 1 or gain != 1):
            other = "$TIMESTEP" if is_time else f"$P{i}G"
            raise Fault(
                f"$P{i}E is {quoted(keywords[f'$P{i}E'])}, logarithmic, and {other} is "
                f"{quoted(keywords[other])}: the standard does not say how they go together",
                other,
                keywords[other],
            )
        span = 1.0
        if decades:
            span = keywords.number(f"$P{i}R", 0)
            if not span > 0:
                text = keywords.need(f"$P{i}R")
                raise Fault(f"$P{i}R is {quoted(text)} on a logarithmic channel", f"$P{i}R", text)
        found.append(ChannelScale(factor, gain, decades, lowest, span))
    for text, numbers in odd.items():
        repairs.repair(f"{text} (n = {join_numbers(numbers)})")
    return found


def _amplification(
    keywords: Keywords, i: int, column: Column, odd: dict[str, list[int]]
) -> tuple[float, float]:
    """Return the decades and the value that 0 stands for; ``(0, 1)`` for a linear channel."""
    key = f"$P{i}E"
    is_float = column.kind in ("F", "D")
    text = keywords.get(key, "").strip(BLANKS)
    if not text:
        if not is_float:
            odd["$PnE is missing; taken as linear"].append(i)
        return 0.0, 1.0
    fields = [to_number(field.strip(" ")) for field in text.split(",")]
    if len(fields) == 2 and fields[0] == 0 and fields[1] is not None:
        return 0.0, 1.0
    if is_float:
        odd["$PnE is not 0,0, but floats are stored on the linear scale: $PnE is ignored"].append(
            i
        )
        return 0.0, 1.0
    if len(fields) != 2 or None in fields or min(fields) < 0:
        raise Fault(f"{key} is {quoted(text)}, not two numbers from 0 on", key, text)
    decades, lowest = fields
    if lowest == 0:
        odd[f"$PnE is {text}; read as {decades:g},1, as the standard advises"].append(i)
        lowest = 1.0
    return decades, lowest


def _gain(keywords: Keywords, i: int, odd: dict[str, list[int]]) -> float:
    key = f"$P{i}G"
    gain = keywords.number(key, 1.0)
    if gain < 0:
        raise Fault(f"{key} is {quoted(keywords[key])}, not a valid gain", key, keywords[key])
    if gain == 0:
        odd["$PnG is 0; taken as no gain"].append(i)
        return 1.0
    return gain


def _time_step(keywords: Keywords, repairs: Repairs) -> float:
    text = keywords.get("$TIMESTEP", "").strip(BLANKS)
    if not text:
        return 1.0
    step = to_number(text)
    if step is None or step <= 0:
        repairs.repair(
            f"$TIMESTEP is {quoted(text)}, not a valid time step: the time channel was not scaled",
            "$TIMESTEP",
            text,
        )
        return 1.0
    return step


LITTLE = (1, 2, 3, 4)
"""``$BYTEORD`` with the least significant byte first."""


def encode_values(values: np.ndarray, kind: str, size: int, order: Sequence[int]) -> np.ndarray:
    """Encode numbers as bytes, uint8, one row of `size` bytes each.

    Parameters
    ----------
    values
        Numbers of any shape; the last axis varies fastest.
    kind
        ``I`` (unsigned integers), ``F`` or ``D``.
    size
        Bytes per number.
    order
        Significance of each byte, 1 for the least, as in ``$BYTEORD``. An order of another length
        than `size` must be ascending or descending.
    """
    dtype = np.dtype(f"<{'u' if kind == 'I' else 'f'}{size}")
    little = np.ascontiguousarray(values, dtype=dtype).view(np.uint8).reshape(-1, size)
    if list(order) == list(range(1, len(order) + 1)):
        return little
    if list(order) == list(range(len(order), 0, -1)):
        return little[:, ::-1]
    return little[:, [significance - 1 for significance in order]]
