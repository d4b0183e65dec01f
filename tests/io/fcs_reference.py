"""A plain, slow reader of FCS by the letter of the standard: the judge of the fuzz tests.

It shares no code with the package and uses integers and ``struct`` only. Where bytes can be
read in more than one way it returns every way, and what each of them has to overlook; where
they can be read in none, nothing. It knows nothing of analysis, display or instruments.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from fcs_reference_data import Column, find_stored
from fcs_reference_text import (
    BLANK,
    NotReadableError,
    next_data_set,
    parse_integer,
    parse_number,
    texts,
)


@dataclass(frozen=True)
class Reading:
    """One way to read a data set."""

    values: list[list[float]]
    """Events, each with a number a channel, on the linear scale."""
    names: list[str]
    """``$PnN``, one character a byte."""
    scaled: list[bool]
    """Whether arithmetic lies between the stored number and the value."""
    departures: frozenset[str]
    """What the standard does not allow and had to be overlooked."""


def readings(blob: bytes, dataset: int = 0) -> list[Reading]:
    """Return every way to read a data set of the file that these bytes are."""
    try:
        blob = _unpacked(blob)
        for _ in range(dataset):
            blob = blob[next_data_set(blob) :]
        return list(_readings(blob))
    except NotReadableError:
        return []


def _unpacked(blob: bytes) -> bytes:
    if blob[:2] != b"\x1f\x8b":
        return blob
    try:
        return gzip.decompress(blob)
    except (OSError, EOFError, zlib.error, struct.error):
        raise NotReadableError from None


def _readings(blob: bytes) -> Iterator[Reading]:
    cuts = []
    for keywords, departures in texts(blob):
        found = [
            replace(reading, departures=reading.departures | departures)
            for reading in _interpretations(blob, keywords)
        ]
        if found:
            cuts.append(found)
    # where there is no event there is no number to be wrong
    cuts = [[r if r.values else replace(r, departures=frozenset()) for r in c] for c in cuts]
    if any(_needed(cut) for cut in cuts):
        cuts = [cut for cut in cuts if _needed(cut)]
    known = {repr([(r.names, r.values) for r in cut]) for cut in cuts}
    for reading in (reading for cut in cuts for reading in cut):
        if len(known) > 1:
            more = {"TEXT can be cut into keywords in two ways"}
            yield replace(reading, departures=reading.departures | more)
        else:
            yield reading


def _needed(cut: list[Reading]) -> bool:
    """Whether nothing but empty values has to be overlooked."""
    return any(reading.departures <= {"empty values (optional)"} for reading in cut)


def same(first: Reading, second: Reading) -> bool:
    """Whether two ways give the same numbers under the same names."""
    return (first.names, repr(first.values)) == (second.names, repr(second.values))


def _interpretations(blob: bytes, keywords: dict[str, str]) -> Iterator[Reading]:
    version = blob[3:6]
    departures = set()
    n_channels = parse_integer(keywords.get("$PAR", ""))
    if n_channels is None or not 0 < n_channels <= len(keywords):
        return
    mode = keywords.get("$MODE", "").strip("\0").upper()
    if mode not in ("L", ""):
        return
    if not mode and version != b"3.2":
        departures.add("no $MODE")
    numbers = [int(m[1]) for k in keywords if (m := re.fullmatch(r"\$P([0-9]{1,9})[NB]", k))]
    if max(numbers, default=0) > n_channels:
        departures.add("more channels are described than there are")
    n_events = parse_integer(keywords.get("$TOT", ""))
    if (n_events is None and keywords.get("$TOT", "")) or (n_events or 0) < 0:
        return
    if n_events is None:
        departures.add("no $TOT")
    for columns, more in _layouts(keywords, version, n_channels):
        for packed, padding in _packings(columns):
            try:
                order = _byte_order(keywords, [8] if packed is None else padding)
                widths = (packed, padding)
                stored, about = find_stored(blob, keywords, columns, *widths, n_events, order)
                yield from _scaled(keywords, columns, stored, departures | more | about)
            except NotReadableError:
                continue


def _layouts(keywords, version, n_channels) -> Iterator[tuple[list[Column], set[str]]]:
    """Yield how the channels are stored, with and without their own types."""
    kinds = [keywords.get("$DATATYPE", "").upper()] * n_channels
    own = [keywords.get(f"$P{i}DATATYPE", "").upper() or k for i, k in enumerate(kinds, 1)]
    if version == b"3.2" or own == kinds:
        ways = [(own, set())]
    else:
        text = "channels have a type of their own, which this version does not know"
        ways = [(kinds, {text}), (own, {text})]
    for types, departures in ways:
        try:
            yield [_column(keywords, i, k, departures) for i, k in enumerate(types, 1)], departures
        except NotReadableError:
            continue


def _column(keywords, i, kind, departures) -> Column:
    width = keywords.get(f"$P{i}B", "")
    if kind == "A" and width == "*":
        return Column("A", None, None)
    bits = parse_integer(width)
    if bits is None or kind not in ("A", "I", "F", "D") or (bits < 1 and kind in ("A", "I")):
        raise NotReadableError
    if kind == "A":
        return Column("A", 8 * bits, None)
    if kind in ("F", "D"):
        right = {"F": 32, "D": 64}[kind]
        if bits != right:
            departures.add("$PnB is not the width of the type")
        return Column(kind, right, None)
    if bits > 64:
        raise NotReadableError
    text = keywords.get(f"$P{i}R", "")
    top = parse_integer(text)
    if top is None and (number := parse_number(text)) is not None:
        top = int(number) if number < 1e30 else 1 << 100
    if top is None or top < 1:
        departures.add("$PnR is no range")
        top = 1 << bits
    return Column("I", bits, (1 << min(bits, (top - 1).bit_length())) - 1)


def _packings(columns: list[Column]) -> Iterator[tuple[bool | None, list[int]]]:
    """Yield the bits that each channel takes: as they are, then filled up to bytes and words."""
    widths = [column.bits for column in columns]
    if any(column.kind == "A" for column in columns):
        if all(column.kind == "A" for column in columns) and len({w is None for w in widths}) == 1:
            yield None, widths
        return
    odd = any(width % 8 for width in widths)
    if not odd or all(column.kind == "I" for column in columns):
        yield odd, widths
    if odd:
        for sizes in (range(8, 72, 8), (8, 16, 32, 64)):
            yield False, [w if w % 8 == 0 else min(x for x in sizes if x >= w) for w in widths]


def _byte_order(keywords: dict[str, str], widths: list[int]) -> list[int]:
    text = re.sub(f"[{BLANK}]", "", keywords.get("$BYTEORD", ""))
    order = (
        [int(x) for x in text.split(",")] if re.fullmatch("[0-9],?([0-9],)*[0-9]", text) else []
    )
    if set(widths) == {8}:
        return [1, 2]
    if len(order) < 2 or sorted(order) != list(range(1, len(order) + 1)):
        raise NotReadableError
    one_way = order in (sorted(order), sorted(order, reverse=True))
    if not one_way and any(width not in (8, 8 * len(order)) for width in widths):
        raise NotReadableError
    return order


def _scaled(keywords, columns, stored, departures) -> Iterator[Reading]:
    names = [keywords.get(f"$P{i}N", "") for i in range(1, len(columns) + 1)]
    if "" in names:
        raise NotReadableError
    times = [name.strip(BLANK + "\0").lower() == "time" for name in names]
    step = 1.0
    if any(times) and keywords.get("$TIMESTEP", ""):
        step = parse_number(keywords["$TIMESTEP"])
        if step is None or not 0 < step < float("inf"):
            departures = departures | {"$TIMESTEP is no time"}
            step = 1.0
        elif sum(times) > 1 and step != 1:
            departures = departures | {"two channels are the time"}
    ways = []
    for i, column in enumerate(columns, 1):
        found = list(_scales(keywords, i, column, step if times[i - 1] else None))
        if not found:
            return
        ways.append(found)
    for chosen in product(*ways):
        scales = [scale for scale, _, _ in chosen]
        more = frozenset().union(*(about for _, _, about in chosen))
        values = [[s(x) for s, x in zip(scales, row, strict=True)] for row in stored]
        yield Reading(values, names, [touched for _, touched, _ in chosen], more | departures)


def _scales(keywords, i, column, step):
    """Yield each way to bring a channel to the linear scale, and what it overlooks.

    ``step`` is None but for the time, which has a step in place of a gain.
    """
    departures = set()
    time, step = step is not None, step or 1.0
    decades, offset = 0.0, 0.0
    text = keywords.get(f"$P{i}E", "")
    said = [parse_number(part) for part in text.split(",")]
    integer = column.kind in ("I", "A")
    if not text:
        if integer:
            departures.add("no $PnE")
    elif len(said) == 2 and None not in said:
        decades, offset = said
    elif said[0] == 0:
        departures.add("$PnE is no pair of numbers")
    elif integer:
        return
    if decades and not integer:
        departures.add("$PnE of a float")
        decades = 0.0
    gain = parse_number("1" if time else keywords.get(f"$P{i}G", "") or "1")
    if gain is None or not 0 <= gain < float("inf"):
        return
    if gain == 0:
        departures.add("$PnG is 0")
        gain = 1.0
    if decades == 0:
        yield (lambda x: _divided(x * step, gain)), step != 1 or gain != 1, departures
        return
    top = parse_number(keywords.get(f"$P{i}R", ""))
    if decades < 0 or offset < 0 or step != 1 or top is None or not top > 0:
        return
    offset = offset or 1.0
    if gain != 1:
        departures.add("both logarithm and gain")
        yield (lambda x: _power(decades, x, top, offset) / gain), True, departures
    yield (lambda x: _power(decades, x, top, offset)), True, departures


def _divided(value: float, gain: float) -> float:
    try:
        return float(value) / gain
    except OverflowError:
        return float("inf")


def _power(decades: float, value: float, top: float, offset: float) -> float:
    try:
        return 10 ** (decades * value / top) * offset
    except OverflowError:
        return float("inf")
