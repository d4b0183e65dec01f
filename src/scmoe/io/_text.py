"""Read the HEADER and TEXT segments of each data set of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ._errors import Fault, Repairs, quoted
from ._keywords import (
    BLANKS,
    INTEGER,
    Keywords,
    Tokens,
    affects_values,
    ascii_upper,
    find_hidden_keyword,
    split_text,
)

if TYPE_CHECKING:
    from ._files import Source

VERSIONS = ("FCS2.0", "FCS3.0", "FCS3.1", "FCS3.2")
HEADER_SIZE = 58
_MOST_TEXT = 32 << 20
_MOST_DATA_SETS = 2000
_GAP = 1 << 16
_LOOK = 1 << 12


@dataclass(frozen=True)
class Header:
    """The first 58 bytes of a data set: first and last byte of each segment."""

    version: str
    text: tuple[int, int]
    data: tuple[int, int] | None
    """None if HEADER holds no numbers there."""
    analysis: tuple[int, int] | None


@dataclass(frozen=True)
class Text:
    """HEADER and TEXT of one data set."""

    offset: int
    """First byte of the data set in the file; all other positions count from here."""
    header: Header
    delimiter: str
    pairs: list[tuple[str, str]]
    """Keywords and values in the order and spelling of the file, supplemental TEXT last;
    doubled delimiters are resolved."""
    keywords: Keywords

    @property
    def version(self) -> str:
        """FCS version, for instance ``"FCS3.1"``."""
        return self.header.version

    @property
    def plain(self) -> dict[str, str]:
        """Values by keyword, in lower case and without the leading ``$``.

        A keyword without ``$`` gets a ``_`` appended if the same one with ``$`` exists.
        """
        table = {key[1:].lower(): v for key, v in self.keywords.items() if key[:1] == "$"}
        for key, value in self.keywords.items():
            if key[:1] != "$":
                name = key.lower()
                while name in table:
                    name += "_"
                table[name] = value
        return table


def read_texts(
    source: Source, *, strict: bool, only: int | None = None
) -> Iterator[tuple[Text, Repairs, str | None]]:
    """Read HEADER and TEXT of all data sets, along the chain of ``$NEXTDATA``.

    Yields each with its repairs, and with the reason why no other follows if that is a departure
    from the standard. With `only`, the repairs of the other data sets are never refused.
    """
    at = 0
    for n in range(1, _MOST_DATA_SETS + 1):
        notes = Repairs(strict=strict and only in (None, n - 1))
        text = _read_data_set(source, at, notes)
        step = _next_data_set(text, source)
        odd = step if isinstance(step, str) else None
        if step and n == _MOST_DATA_SETS:
            odd = f"no more than {n} data sets are read"
        yield text, notes, odd
        if odd is not None or step == 0:
            return
        at += step


def read_text(source: Source, dataset: int, repairs: Repairs) -> Text:
    """Read HEADER and TEXT of one data set, counted from 0."""
    found: Text | None = None
    n, end = 0, None
    try:
        for text, notes, odd in read_texts(source, strict=repairs.strict, only=dataset):
            if n == dataset:
                found, told = text, notes
            n += 1
            end = None if odd is None else (odd, "$NEXTDATA", text.keywords["$NEXTDATA"])
    except Fault as fault:
        if n <= dataset:
            raise
        end = (f"data set {n} (counted from 0) is damaged and not read: {fault}",)
    if found is None:
        raise Fault(f"there is no data set {dataset}: the file holds {n}, counted from 0")
    if end is not None:
        repairs.repair(*end)
    repairs.messages.extend(told.messages)
    repairs.shift = told.shift
    if n > 1:
        repairs.note(
            f"the file holds {n} data sets; number {dataset} (counted from 0) was read, "
            "`dataset=` chooses another or all"
        )
    return found


def _next_data_set(text: Text, source: Source) -> int | str:
    """Return the bytes to the next data set, 0 if there is none, or why there is none."""
    if not text.keywords.get("$NEXTDATA", "").strip(BLANKS):
        return 0
    step = text.keywords.integer("$NEXTDATA")
    if step < 0 or not source.holds(text.offset + step):
        return f"$NEXTDATA is {step}, outside the file; taken as the end"
    rest = source.read(text.offset + step, text.offset + step + HEADER_SIZE)
    if not rest.strip(b" \0\r\n\x1a"):
        return f"$NEXTDATA is {step}, where no data set follows; taken as the end"
    return step


def _read_data_set(source: Source, offset: int, repairs: Repairs) -> Text:
    header = _read_header(source, offset)
    first, last = header.text
    if not HEADER_SIZE <= first < last or not source.holds(offset + last + 1):
        raise Fault(f"HEADER says that TEXT lies at bytes {first} to {last}, outside the file")
    if last - first > _MOST_TEXT:
        raise Fault(f"HEADER says that TEXT takes {last - first + 1} bytes, more than any can")
    raw = source.read(offset + first, offset + last + 1)
    ends_before = raw[:-1].rstrip(BLANKS.encode().replace(raw[:1], b""))[-1:] == raw[:1]
    is_late = header.data is not None and header.data[0] == last
    if ends_before and (is_late or (raw[-2:-1] == raw[:1] and raw[-1:] in b" \r\n\t\0")):
        repairs.repair_shift("HEADER gives the end of TEXT one byte late")
        last, raw = last - 1, raw[:-1]
        header = replace(header, text=(first, last))
    body = _decode(raw, repairs)
    delimiter, tokens = _find_delimiter(body, repairs)
    keywords = Keywords()
    _add_keywords(keywords, tokens, repairs)
    following = source.read(offset + last + 1, offset + last + 1 + _LOOK)
    data = {header.data[0]} if header.data else set()
    if INTEGER.fullmatch(keywords.get("$BEGINDATA", "").strip(BLANKS)):
        data.add(keywords.integer("$BEGINDATA"))
    _check_end(tokens, following, delimiter, last, data, repairs)
    pairs = list(tokens.pairs)
    if header.version != "FCS2.0":
        more = _read_supplement(source, offset, header, keywords, delimiter, repairs)
        pairs += more.pairs
        _add_keywords(keywords, more, repairs)
    return Text(offset, header, delimiter, pairs, keywords)


def _read_header(source: Source, offset: int) -> Header:
    raw = source.read(offset, offset + HEADER_SIZE)
    if not raw:
        raise Fault("the file is empty")
    version = raw[:6].decode("latin-1")
    if version not in VERSIONS:
        if version.startswith("FCS"):
            raise Fault(f"version {version!r} is not one of {', '.join(VERSIONS)}")
        raise Fault(f"this is not an FCS file: it starts with {version!r}")
    if len(raw) < HEADER_SIZE:
        raise Fault(f"the file ends within the HEADER, after {len(raw)} bytes")
    fields = [raw[i : i + 8].decode("latin-1").strip(BLANKS) for i in range(10, HEADER_SIZE, 8)]
    numbers = [int(x) if re.fullmatch("[0-9]{1,8}", x) else None for x in fields]
    if numbers[0] is None or numbers[1] is None:
        raise Fault(
            f"HEADER says that TEXT lies at bytes {fields[0]!r} to {fields[1]!r}, not two numbers"
        )
    data, analysis = (
        None if first is None or last is None else (first, last)
        for first, last in (numbers[2:4], numbers[4:6])
    )
    return Header(version, (numbers[0], numbers[1]), data, analysis)


def _decode(raw: bytes, repairs: Repairs) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        repairs.repair("TEXT is not UTF-8 and was read as Latin-1")
        return raw.decode("latin-1")


def _find_delimiter(text: str, repairs: Repairs) -> tuple[str, Tokens]:
    """Return the delimiter, the first character (or first non-blank one), and the tokens."""
    for body in (text, text.lstrip(BLANKS)):
        if not body or not 1 <= ord(body[0]) <= 126:
            continue
        notes = Repairs(strict=repairs.strict)
        tokens = split_text(body[1:], body[0], notes)
        if len(body) == len(text) and (body[0] not in BLANKS or "$PAR" in tokens.table()):
            repairs.messages.extend(notes.messages)
            return body[0], tokens
        if len(body) < len(text):
            repairs.repair_shift("TEXT begins with blanks before its first delimiter")
            repairs.messages.extend(notes.messages)
            return body[0], tokens
    raise Fault(f"TEXT begins with {text[:1]!r}, which cannot be a delimiter")


def _add_keywords(keywords: Keywords, tokens: Tokens, repairs: Repairs) -> None:
    """Add pairs to the keywords in upper case; decide between repeated ones."""
    for written, value in tokens.pairs:
        key = written.strip(BLANKS)
        if key != written and key[:1] == "$":
            repairs.repair(f"blanks around the keyword {key} were removed")
        key = ascii_upper(key)
        if not key:
            raise Fault(f"TEXT holds a value without a keyword: {quoted(value)}", None, value)
        if value.lstrip(BLANKS)[:1] == "$" and affects_values(ascii_upper(value.strip(BLANKS))):
            raise Fault(
                f"{key} has the value {value.strip(BLANKS)}: keywords and values are out of step",
                key,
                value,
            )
        if key not in keywords:
            keywords[key] = value
            continue
        first = keywords[key]
        if first.strip(BLANKS) == value.strip(BLANKS):
            repairs.repair(f"{key} is there more than once, with one value", key, value)
        elif affects_values(key):
            raise Fault(
                f"{key} is there more than once, with different values: {quoted(first)} and "
                f"{quoted(value)}",
                key,
                value,
            )
        else:
            repairs.repair(
                f"{key} is there more than once; {quoted(first)} was kept, not {quoted(value)}",
                key,
                value,
            )


def _check_end(
    tokens: Tokens,
    following: bytes,
    delimiter: str,
    last: int,
    data: set[int],
    repairs: Repairs,
) -> None:
    """Check that TEXT was not cut off within a keyword or a value."""
    # words and a delimiter after the end show that HEADER gives a wrong end
    blanks = BLANKS.replace(delimiter, "")
    word, found, _ = following.decode("latin-1").lstrip(blanks).partition(delimiter)
    goes_on = bool(found) and word.isprintable()
    blank = following[:1] in {character.encode() for character in blanks}
    whole = not goes_on and (blank or last + 1 in data)
    between = following[: min((at for at in data if at > last), default=last + 1) - last - 1]
    if tokens.rest is not None:
        key = tokens.rest.strip(BLANKS)
        lost = key.startswith("$") or not (key.isascii() and key.isprintable())
        # FACSCalibur ends TEXT with a doubled delimiter after a keyword
        lost |= not key or (tokens.open and not key.endswith(delimiter))
        if lost or goes_on or not blank or last + 1 in data or between.strip(blanks.encode()):
            raise Fault(f"TEXT ends after the keyword {quoted(key)}, before its value", key)
        repairs.repair(
            f"TEXT ends with a keyword without a value, which was left out: {quoted(key)}"
        )
    elif tokens.open:
        key, value = tokens.pairs[-1]
        # bytes between TEXT and DATA may be shifted DATA, as many numbers begin with NUL
        cut = not whole and (following or affects_values(ascii_upper(key.strip(BLANKS))))
        if cut or between.strip(b" \t\r\n"):
            raise Fault(f"TEXT ends in the middle of {key}, after {quoted(value)}", key, value)
        repairs.repair_shift("the last delimiter of TEXT is missing")


def _read_supplement(
    source: Source,
    offset: int,
    header: Header,
    keywords: Keywords,
    delimiter: str,
    repairs: Repairs,
) -> Tokens:
    """Read the supplemental TEXT; no tokens if there is none."""
    nothing = Tokens([])
    keys = ("$BEGINSTEXT", "$ENDSTEXT")
    named = [key for key in keys if keywords.get(key, "").strip(BLANKS)]
    if not named:
        return nothing
    if len(named) == 1:
        if keywords.integer(named[0]) > 0:
            raise Fault(f"of $BEGINSTEXT and $ENDSTEXT only {named[0]} is there", named[0])
        repairs.repair(f"of $BEGINSTEXT and $ENDSTEXT only {named[0]} is there", named[0])
        return nothing
    first, last = keywords.integer("$BEGINSTEXT"), keywords.integer("$ENDSTEXT")
    if (first, last) in ((0, 0), header.text):
        return nothing
    said = f"the supplemental TEXT lies at bytes {first} to {last} by $BEGINSTEXT and $ENDSTEXT"
    if last < first:
        repairs.repair(f"{said}; there is none", keys[0], str(first))
        return nothing
    if last - first > _MOST_TEXT:
        raise Fault(f"{said}, more than any can take", "$ENDSTEXT", str(last))
    if not HEADER_SIZE <= first <= last or not source.holds(offset + last + 1):
        raise Fault(f"{said}, outside the file", "$BEGINSTEXT", str(first))
    raw = source.read(offset + first, offset + last + 1)
    if _lacks_only_its_delimiter(raw, source, offset, header, keywords, delimiter):
        repairs.repair_shift("the supplemental TEXT has no delimiter before its first keyword")
        raw = delimiter.encode() + raw
    if raw[:1] != delimiter.encode():
        hidden = find_hidden_keyword(raw, delimiter)
        if hidden is not None:
            raise Fault(f"{said}, where {hidden} is found, but no TEXT begins", hidden)
        repairs.repair(f"{said}, where there is no TEXT; left out", "$BEGINSTEXT", str(first))
        return nothing
    tokens = split_text(_decode(raw, repairs)[1:], delimiter, repairs, primary=False)
    following = source.read(offset + last + 1, offset + last + 1 + _LOOK)
    _check_end(tokens, following, delimiter, last, set(), repairs)
    return tokens


def _lacks_only_its_delimiter(
    raw: bytes,
    source: Source,
    offset: int,
    header: Header,
    keywords: Keywords,
    delimiter: str,
) -> bool:
    """Whether a supplemental TEXT is sound except for its missing first delimiter."""
    first = keywords.integer("$BEGINSTEXT")
    mark = delimiter.encode()
    if raw[:1] == mark or raw.rstrip(BLANKS.encode().replace(mark, b""))[-1:] != mark:
        return False
    ends = {header.text[1], header.data[1] if header.data else -1}
    if INTEGER.fullmatch(keywords.get("$ENDDATA", "").strip(BLANKS)):
        ends.add(keywords.integer("$ENDDATA"))
    before = source.read(offset + first - 1, offset + first)
    if first - 1 not in ends and before not in (mark, b" ", b"\0", b"\n"):
        return False
    try:
        tokens = split_text(_decode(raw, Repairs()), delimiter, Repairs(), primary=False)
    except Fault:
        return False
    keys = [key.strip(BLANKS) for key, _ in tokens.pairs]
    return tokens.rest is None and bool(keys) and all(key.isprintable() and key for key in keys)


def check_gap(text: Text, source: Source, data: int, repairs: Repairs) -> None:
    """Check the bytes between TEXT and the next segment, where TEXT may go on.

    Parameters
    ----------
    text, source
        The data set, and its file.
    data
        First byte of DATA, counted from the start of the data set.
    repairs
        Receives a note of bytes that are in no segment.
    """
    begin = text.header.text[1] + 1
    keywords = text.keywords
    starts = [data]
    if text.header.analysis is not None:
        starts.append(text.header.analysis[0])
    for key in ("$BEGINSTEXT", "$BEGINANALYSIS", "$NEXTDATA"):
        value = keywords.get(key, "").strip(BLANKS)
        starts.append(int(value) if INTEGER.fullmatch(value) else 0)
        if key == "$BEGINSTEXT" and starts[-1] > begin:
            # its first delimiter may precede the stated position
            at = text.offset + starts[-1]
            mark = text.delimiter.encode()
            starts[-1] -= source.read(at - 1, at) == mark != source.read(at, at + 1)
    following = [start for start in starts if start >= begin]
    end = min(following, default=begin + _GAP)
    gap = source.read(text.offset + begin, text.offset + min(end, begin + _GAP))
    if not gap.strip(BLANKS.replace(text.delimiter, "").encode()):
        return
    hidden = find_hidden_keyword(text.delimiter.encode() + gap, text.delimiter)
    if hidden is not None:
        raise Fault(f"{hidden} is found behind the end of TEXT, at byte {begin} or later", hidden)
    if following or not re.fullmatch(rb"[0-9]{1,8}", gap.strip(BLANKS.encode())):
        repairs.repair_shift(f"bytes from {begin} on, behind TEXT, belong to no segment")
