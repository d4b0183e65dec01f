"""HEADER and TEXT, for the reference reader: every way to cut them into keywords."""

from __future__ import annotations

import re
from collections.abc import Iterator

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


class NotReadableError(Exception):
    """These bytes do not say what the numbers are."""


def texts(blob: bytes) -> Iterator[tuple[dict[str, str], frozenset[str]]]:
    """Yield the keywords, for every way to cut TEXT into them."""
    if blob[:6] not in VERSIONS or len(blob) < HEADER_SIZE:
        return
    first, last = said_at(blob, 10), said_at(blob, 18)
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
    if said_at(blob, 26) == last and _ends(text[:-1], delimiter):
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
            begin = parse_integer(dict(pairs).get("$BEGINDATA", ""))
            if _goes_on(rest, delimiter, last + 1 in (said_at(blob, 26), begin)):
                continue
            seen.add("TEXT does not end as it should")
        if lost:
            if not _ends(text, delimiter) and rest[:1] not in ("", " ", "\0"):
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


def said_at(blob: bytes, at: int) -> int | None:
    """Return a number of HEADER."""
    return parse_integer(blob[at : at + 8].decode("latin-1"))


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
        value = value.strip(BLANK + "\0")
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
    first, last = map(parse_integer, said)
    if (first, last) in ((0, 0), text):
        return []
    if first is None or last is None or not HEADER_SIZE <= first < last < len(blob):
        departures.add("supplemental TEXT lies nowhere")
        return []
    segment = blob[first : last + 1].decode("latin-1")
    if segment[0] != delimiter and _keyword_begins(blob, keywords, first, delimiter, text):
        whole = _cuts(delimiter + segment)
        sound = [w for w in whole if w and all(key.strip(BLANK).isprintable() for key, _ in w)]
        if _ends(segment, delimiter) and sound and LOST not in sound[0][-1]:
            departures.add("supplemental TEXT begins without a delimiter")
            segment = delimiter + segment
    ways = _cuts(segment) if segment[0] == delimiter else [None]
    found = ways[min(way, len(ways) - 1)] if way else ways[0] or ways[-1]
    if found is None:
        departures.add("supplemental TEXT is none")
        return []
    if first <= text[1] and last >= text[0]:
        departures.add("supplemental TEXT and TEXT overlap")
    if not _ends(segment, delimiter):
        departures.add("supplemental TEXT does not end as it should")
        if _goes_on(blob[last + 1 : last + 200].decode("latin-1"), delimiter, data=False):
            raise NotReadableError
    return found


def _keyword_begins(blob, keywords, first, delimiter, text) -> bool:
    """Whether a keyword may begin here: behind a segment, a blank or a delimiter."""
    said = [text[1], said_at(blob, 34), parse_integer(keywords.get("$ENDDATA", ""))]
    return first - 1 in said or chr(blob[first - 1]) in (delimiter, " ", "\0", "\n")


def _left_over(blob: bytes, keywords: dict[str, str], last: int, delimiter: str) -> bool:
    """Whether something lies between TEXT and the next segment that could be more of it."""
    said = [said_at(blob, at) for at in (26, 42)]
    names = ("$BEGINDATA", "$BEGINSTEXT", "$BEGINANALYSIS", "$NEXTDATA")
    said += [parse_integer(keywords.get(name, "")) for name in names]
    end = min([at for at in said if at is not None and at > last], default=len(blob))
    rest = blob[last + 1 : end].decode("latin-1")
    return delimiter in rest and bool(rest.strip(BLANK + "\0" + "0" + delimiter))


def parse_integer(text: str) -> int | None:
    text = text.strip(BLANK + "\0")
    return int(text.partition(".")[0]) if INTEGER.fullmatch(text) else None


def parse_number(text: str) -> float | None:
    text = text.strip(BLANK + "\0")
    return float(text) if NUMBER.fullmatch(text) else None


def next_data_set(blob: bytes) -> int:
    """Return the bytes to the next data set; all else in this one may be damaged."""
    first, last = said_at(blob, 10), said_at(blob, 18)
    if blob[:6] in VERSIONS and first is not None and last is not None and 10 <= first < last:
        text = blob[first : last + 1].decode("latin-1").lstrip(" \0")
        for pairs in filter(None, _cuts(text) if text else []):
            keywords = {key.strip(BLANK).upper(): value for key, value in pairs}
            step = parse_integer(keywords.get("$NEXTDATA", "0"))
            if step is not None and 0 < step < len(blob):
                return step
    raise NotReadableError
