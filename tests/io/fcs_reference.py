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

VERSIONS = (b"FCS2.0", b"FCS3.0", b"FCS3.1", b"FCS3.2")
HEADER_SIZE = 58
BLANK = " \t\r\n"
INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
MATTERS = re.compile(
    r"\$(PAR|TOT|MODE|DATATYPE|BYTEORD|BEGINDATA|ENDDATA|BEGINSTEXT|ENDSTEXT|TIMESTEP"
    r"|P[0-9]+(N|B|E|G|R|DATATYPE))"
)
COULD_MATTER = re.compile(r"\$(P[0-9]*[A-Z]*|[TMDBE][A-Z]{0,10})?")
"""A keyword that matters, or the start of one."""
LOST = "\ufffe"
"""Stands for the value of a keyword that has none."""


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


@dataclass(frozen=True)
class Column:
    """How a channel is stored."""

    kind: str
    bits: int | None
    mask: int | None
    """The bits that hold an integer."""


class NotReadableError(Exception):
    """These bytes do not say what the numbers are."""


def readings(blob: bytes, dataset: int = 0) -> list[Reading]:
    """Return every way to read a data set of the file that these bytes are."""
    try:
        blob = _unpacked(blob)
        for _ in range(dataset):
            blob = blob[_next_data_set(blob) :]
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


def _next_data_set(blob: bytes) -> int:
    """Return the bytes to the next data set; all else in this one may be damaged."""
    first, last = _said(blob, 10), _said(blob, 18)
    if blob[:6] in VERSIONS and first is not None and last is not None and 10 <= first < last:
        text = blob[first : last + 1].decode("latin-1").lstrip(" \0")
        for pairs in filter(None, _cuts(text) if text else []):
            keywords = {key.strip(BLANK).upper(): value for key, value in pairs}
            step = _integer(keywords.get("$NEXTDATA", "0"))
            if step is not None and 0 < step < len(blob):
                return step
    raise NotReadableError


def _readings(blob: bytes) -> Iterator[Reading]:
    cuts = []
    for keywords, departures in _texts(blob):
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


# -- HEADER and TEXT --------------------------------------------------------------------------


def _texts(blob: bytes) -> Iterator[tuple[dict[str, str], frozenset[str]]]:
    """Yield the keywords, for every way to cut TEXT into them."""
    if blob[:6] not in VERSIONS or len(blob) < HEADER_SIZE:
        return
    first, last = _said(blob, 10), _said(blob, 18)
    if first is None or last is None or not 10 <= first < last < len(blob):
        return
    departures = set()
    start = first
    while blob[start : start + 1] in (b" ", b"\0") and start < last:
        start += 1
    if start > first:
        departures.add("blanks before TEXT")
    if start < HEADER_SIZE:
        return
    delimiter = chr(blob[start])
    text = blob[start : last + 1].decode("latin-1")
    if _said(blob, 26) == last and _ends(text[:-1], delimiter) and text[-1] != delimiter:
        departures.add("the end of TEXT is one byte late")
        text, last = text[:-1], last - 1
    rest = blob[last + 1 : last + 200].decode("latin-1")
    ways = _cuts(text)
    for number, pairs in enumerate(ways):
        if pairs is None:
            continue
        seen = set(departures)
        if number:
            seen.add("empty values (optional)")
        lost = pairs[-1][1] == LOST
        if lost or not _ends(text, delimiter):
            # TEXT and all behind it may be shifted
            begin = _integer(dict(pairs).get("$BEGINDATA", ""))
            if _goes_on(rest, delimiter, last + 1 in (_said(blob, 26), begin)):
                continue
            seen.add("TEXT does not end as it should")
        if lost:
            if not _ends(text, delimiter):
                continue
            pairs = pairs[:-1]
        if any(MATTERS.fullmatch(value.strip(BLANK).upper()) for _, value in pairs):
            continue
        pairs = pairs + _supplement(blob, pairs, delimiter, number, (first, last), seen)
        keywords = _table(pairs)
        if keywords is None:
            continue
        keywords |= {" FIRST": str(first), " LAST": str(last)}
        if _left_over(blob, keywords, last, delimiter):
            seen.add("bytes that nothing accounts for follow TEXT")
        yield keywords, frozenset(seen)


def _said(blob: bytes, at: int) -> int | None:
    """Return a number of HEADER."""
    return _integer(blob[at : at + 8].decode("latin-1"))


def _ends(text: str, delimiter: str) -> bool:
    """Whether the last thing in TEXT, but for blanks, is a delimiter."""
    return text.rstrip((BLANK + "\0").replace(delimiter, "")).endswith(delimiter)


def _goes_on(rest: str, delimiter: str, data: bool) -> bool:
    """Whether what follows TEXT reads like more of it.

    A delimiter right behind it is the last one, which HEADER left out, unless DATA is said to
    begin with it.
    """
    more, found, _ = rest.partition(delimiter)
    return bool(found) and (bool(more) or data) and more.isprintable()


def _table(pairs: list[tuple[str, str]]) -> dict[str, str] | None:
    """Return the keywords in upper case, if none that matters is there with two values."""
    keywords: dict[str, str] = {}
    for key, value in pairs:
        key = key.strip(BLANK + "\0").upper()
        value = value.strip(BLANK)
        if not keywords.get(key):
            keywords[key] = value
        elif value and value != keywords[key] and MATTERS.fullmatch(key):
            return None
    return keywords


def _cuts(text: str) -> list[list[tuple[str, str]] | None]:
    """Cut by the standard, then with empty values in place of doubled delimiters."""
    delimiter = text[0]
    body = text[1:]
    escaped = body.replace(delimiter * 2, "\uffff")
    ways = [_paired([part.replace("\uffff", delimiter) for part in _split(escaped, delimiter)])]
    if "\uffff" in escaped:
        for other in (_paired(_split(body, delimiter)), _keys_without_delimiter(body, delimiter)):
            if other is not None and other not in ways:
                ways.append(other)
    if len(ways) > 1 and ways[0] is not None:
        # "$CYT//$P1G/2/": no keyword is called "$CYT/$P1G"
        ends = [key.rpartition(delimiter) for key, _ in ways[0]]
        if any(found and MATTERS.fullmatch(end.upper()) for _, found, end in ends):
            ways[0] = None
    return ways


def _split(body: str, delimiter: str) -> list[str]:
    parts = body.split(delimiter)
    return parts[:-1] if not parts[-1].strip(BLANK + "\0") else parts


def _paired(parts: list[str]) -> list[tuple[str, str]] | None:
    if not parts or not all(key.strip(BLANK) for key in parts[::2]):
        return None
    if len(parts) % 2:
        if COULD_MATTER.fullmatch(parts[-1].strip(BLANK).upper()):
            return None
        parts = [*parts, LOST]
    return list(zip(parts[::2], parts[1::2], strict=True))


def _keys_without_delimiter(body: str, delimiter: str) -> list[tuple[str, str]] | None:
    """Cut so that a doubled delimiter is an empty value after a keyword, else an escape."""
    pairs = []
    at = 0
    while body[at:].strip(BLANK + "\0"):
        end = body.find(delimiter, at)
        if end <= at:
            return None
        key, at = body[at:end], end + 1
        value = ""
        while at < len(body):
            if body[at] != delimiter:
                value += body[at]
                at += 1
            elif value and body[at + 1 : at + 2] == delimiter:
                value += delimiter
                at += 2
            else:
                break
        at += 1
        pairs.append((key, value))
    return pairs


def _supplement(blob, pairs, delimiter, way, text, departures) -> list[tuple[str, str]]:
    """Return the keywords of supplemental TEXT."""
    keywords = {key.strip(BLANK).upper(): value for key, value in pairs}
    said = [keywords.get(key, "").strip(BLANK) for key in ("$BEGINSTEXT", "$ENDSTEXT")]
    if blob[:6] == b"FCS2.0" or not any(said):
        return []
    first, last = map(_integer, said)
    if (first, last) in ((0, 0), text):
        return []
    if first is None or last is None or not HEADER_SIZE <= first < last < len(blob):
        departures.add("supplemental TEXT lies nowhere")
        return []
    segment = blob[first : last + 1].decode("latin-1")
    ways = _cuts(segment) if segment[0] == delimiter else [None]
    found = ways[min(way, len(ways) - 1)] if way else ways[0] or ways[-1]
    if found is None or (first <= text[1] and last >= text[0]):
        departures.add("supplemental TEXT is none")
        return []
    if not _ends(segment, delimiter):
        departures.add("supplemental TEXT does not end as it should")
        if _goes_on(blob[last + 1 : last + 200].decode("latin-1"), delimiter, data=False):
            raise NotReadableError
    return found


def _left_over(blob: bytes, keywords: dict[str, str], last: int, delimiter: str) -> bool:
    """Whether something lies between TEXT and the next segment that could be more of it."""
    said = [_said(blob, at) for at in (26, 42)]
    names = ("$BEGINDATA", "$BEGINSTEXT", "$BEGINANALYSIS", "$NEXTDATA")
    said += [_integer(keywords.get(name, "")) for name in names]
    end = min([at for at in said if at is not None and at > last], default=len(blob))
    rest = blob[last + 1 : end].decode("latin-1")
    return delimiter in rest and bool(rest.strip(BLANK + "\0" + "0" + delimiter))


def _integer(text: str) -> int | None:
    text = text.strip(BLANK + "\0\x0b\x0c")
    return int(text.partition(".")[0]) if INTEGER.fullmatch(text) else None


def _number(text: str) -> float | None:
    text = text.strip(BLANK + "\0\x0b\x0c")
    return float(text) if NUMBER.fullmatch(text) else None


# -- from keywords to numbers -----------------------------------------------------------------


def _interpretations(blob: bytes, keywords: dict[str, str]) -> Iterator[Reading]:
    version = blob[3:6]
    departures = set()
    n_channels = _integer(keywords.get("$PAR", ""))
    if n_channels is None or not 0 < n_channels <= len(keywords):
        return
    mode = keywords.get("$MODE", "").upper()
    if mode not in ("L", ""):
        return
    if not mode and version != b"3.2":
        departures.add("no $MODE")
    numbers = [int(m[1]) for k in keywords if (m := re.fullmatch(r"\$P([0-9]{1,9})[NB]", k))]
    if max(numbers, default=0) > n_channels:
        departures.add("more channels are described than there are")
    n_events = _integer(keywords.get("$TOT", ""))
    if (n_events is None and keywords.get("$TOT", "")) or (n_events or 0) < 0:
        return
    if n_events is None:
        departures.add("no $TOT")
    for columns, more in _layouts(keywords, version, n_channels):
        for packed, padding in _packings(columns):
            try:
                order = _byte_order(keywords, [8] if packed is None else padding)
                stored, about = _stored(blob, keywords, columns, packed, padding, n_events, order)
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
    bits = _integer(width)
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
    top = _integer(text)
    if top is None and (number := _number(text)) is not None:
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


def _stored(blob, keywords, columns, packed, widths, n_events, order):
    """Find DATA and return the numbers in it."""
    departures = set()
    if any(c.bits != w for c, w in zip(columns, widths, strict=True)):
        departures.add("integers are filled up to whole bytes")
    pairs = _data_pairs(blob, keywords, departures)
    if n_events == 0:
        if any(last > first >= HEADER_SIZE for first, last in pairs):
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
        numbers = tuple(_integer(x or "0") for x in said)
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
            raise NotReadableError
        if starts:
            if late:
                departures.add("the end of DATA is one byte late")
            return starts.pop()
    raise NotReadableError


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
            row.append(_number(segment[at : at + width].decode("latin-1")))
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
            numbers = [_number(word) for word in words if word]
            rows = [numbers[i : i + n_channels] for i in range(0, len(numbers), n_channels)]
            complete = None not in numbers and len(numbers) % n_channels == 0
            if complete and n_events in (None, len(rows)) and rows not in found:
                found.append(rows)
    if len(found) != 1:
        raise NotReadableError
    return found[0], departures


# -- from stored numbers to the linear scale --------------------------------------------------


def _scaled(keywords, columns, stored, departures) -> Iterator[Reading]:
    names = [keywords.get(f"$P{i}N", "") for i in range(1, len(columns) + 1)]
    if "" in names:
        raise NotReadableError
    times = [name.strip(BLANK + "\0").lower() == "time" for name in names]
    step = 1.0
    if any(times) and keywords.get("$TIMESTEP", ""):
        step = _number(keywords["$TIMESTEP"])
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
    said = [_number(part) for part in text.split(",")]
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
    gain = _number("1" if time else keywords.get(f"$P{i}G", "") or "1")
    if gain is None or not 0 <= gain < float("inf"):
        return
    if gain == 0:
        departures.add("$PnG is 0")
        gain = 1.0
    if decades == 0:
        yield (lambda x: _divided(x * step, gain)), step != 1 or gain != 1, departures
        return
    top = _number(keywords.get(f"$P{i}R", ""))
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
