"""The DATA segment, for the reference reader."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from fcs_reference_text import BLANK, HEADER_SIZE, NotReadableError, parse_integer, parse_number


@dataclass(frozen=True)
class Column:
    """How a channel is stored."""

    kind: str
    bits: int | None
    mask: int | None
    """The bits that hold an integer."""


def find_stored(blob, keywords, columns, packed, widths, n_events, order):
    """Find DATA and return the numbers in it."""
    departures = set()
    if any(c.bits != w for c, w in zip(columns, widths, strict=True)):
        departures.add("integers are filled up to whole bytes")
    pairs = _data_pairs(blob, keywords, departures)
    if n_events == 0:
        if any(last > first and _free(blob, keywords, first, first) for first, last in pairs):
            raise NotReadableError
        return [], set()
    if columns[0].bits is None:
        return _ascii_delimited(blob, keywords, pairs, len(columns), n_events, departures)
    event = sum(widths)
    if n_events is None:
        lengths = {b - a + 1 for a, b in pairs if _free(blob, keywords, a, b)}
        n_events = 8 * max(lengths, default=0) // event
        needed = (event * n_events + 7) // 8
        if lengths - {needed} - ({needed + 1} if event > 8 else set()) or not lengths:
            raise NotReadableError
    needed = (event * n_events + 7) // 8
    start = _place(blob, keywords, pairs, needed, departures)
    segment = blob[start : start + needed]
    if columns[0].kind == "A":
        return _ascii_fixed(segment, [w // 8 for w in widths], n_events), departures
    if packed:
        return _bit_stream(segment, columns, n_events, order), departures
    rows = []
    at = 0
    for _ in range(n_events):
        row = []
        for column, width in zip(columns, widths, strict=True):
            row.append(_word(segment[at : at + width // 8], column, order))
            at += width // 8
        rows.append(row)
    return rows, departures


def _data_pairs(blob, keywords, departures) -> list[tuple[int, int]]:
    """Return what HEADER and TEXT say of the place of DATA, without repetition."""
    header = [
        blob[26:34].decode("latin-1").strip(BLANK),
        blob[34:42].decode("latin-1").strip(BLANK),
    ]
    text = [keywords.get("$BEGINDATA", ""), keywords.get("$ENDDATA", "")]
    pairs = []
    for said in (header, text):
        if said is text and pairs and blob[3:6] == b"2.0":
            continue
        numbers = tuple(parse_integer(x or "0") for x in said)
        if said is text and text.count("") == 1:
            departures.add("TEXT says half of the place of DATA")
        elif None in numbers:
            departures.add("the place of DATA is said twice, once not in numbers")
        elif numbers != (0, 0) and numbers not in pairs:
            pairs.append(numbers)
    if len(pairs) > 1:
        departures.add("HEADER and TEXT disagree on the place of DATA")
    return pairs


def _place(blob, keywords, pairs, needed, departures) -> int:
    """Return the first byte of DATA."""
    for late in (0, 1):
        starts = {
            first
            for first, last in pairs
            if last - first + 1 - late == needed
            and _free(blob, keywords, first, first + needed - 1)
        }
        if len(starts) > 1:
            # not of the standard: between two that are equally good nearness to TEXT decides
            starts = {_behind_text(blob, int(keywords[" LAST"]) + 1, starts)}
        if starts:
            if late:
                departures.add("the end of DATA is one byte late")
            return starts.pop()
    raise NotReadableError


def _behind_text(blob, end, starts) -> int:
    """Return the place that only blanks part from TEXT, if they cannot be numbers."""
    if end in starts:
        return end
    blanks = (BLANK + "\0").encode()
    behind = sorted(start for start in starts if start > end)
    if not behind or blob[end : behind[0]].strip(blanks):
        raise NotReadableError
    if len(behind) > 1 and not blob[behind[0] : behind[1]].strip(blanks):
        raise NotReadableError
    return behind[0]


def _free(blob, keywords, first, last) -> bool:
    """Whether these bytes are there and belong to neither HEADER nor TEXT."""
    text = (int(keywords[" FIRST"]), int(keywords[" LAST"]))
    return HEADER_SIZE <= first <= last < len(blob) and (first > text[1] or last < text[0])


def _word(raw: bytes, column: Column, order: list[int]) -> float | int:
    if order not in (sorted(order), sorted(order, reverse=True)) and len(raw) > 1:
        raw = bytes(raw[order.index(i)] for i in range(1, len(order) + 1))
    elif order[0] != 1:
        raw = raw[::-1]
    if column.kind == "F":
        return struct.unpack("<f", raw)[0]
    if column.kind == "D":
        return struct.unpack("<d", raw)[0]
    value = sum(byte << 8 * i for i, byte in enumerate(raw))
    return value if column.mask is None else value & column.mask


def _bit_stream(segment, columns, n_events, order) -> list[list[int]]:
    """Numbers without a gap between them, the first in the highest bits (or the lowest)."""
    little = order[0] == 1
    stream = int.from_bytes(segment, "little" if little else "big")
    total = 8 * len(segment)
    at = 0
    rows = []
    for _ in range(n_events):
        row = []
        for column in columns:
            shift = at if little else total - at - column.bits
            value = (stream >> shift) & ((1 << column.bits) - 1)
            row.append(value if column.mask is None else value & column.mask)
            at += column.bits
        rows.append(row)
    return rows


def _ascii_fixed(segment, widths, n_events) -> list[list[float]]:
    at = 0
    rows = []
    for _ in range(n_events):
        row = []
        for width in widths:
            row.append(parse_number(segment[at : at + width].decode("latin-1")))
            at += width
        rows.append(row)
    if any(None in row for row in rows):
        raise NotReadableError
    return rows


def _ascii_delimited(blob, keywords, pairs, n_channels, n_events, departures):
    found = []
    for first, last in pairs:
        if _free(blob, keywords, first, last):
            words = re.split(r"[ \t\r\n,]+", blob[first : last + 1].decode("latin-1"))
            numbers = [parse_number(word) for word in words if word]
            rows = [numbers[i : i + n_channels] for i in range(0, len(numbers), n_channels)]
            complete = None not in numbers and len(numbers) % n_channels == 0
            if complete and n_events in (None, len(rows)) and rows not in found:
                found.append(rows)
    if len(found) != 1:
        raise NotReadableError
    return found[0], departures
