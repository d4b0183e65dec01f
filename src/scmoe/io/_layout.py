"""Read the storage of events from TEXT, and locate the DATA segment."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._errors import Fault, Repairs, join_numbers, quoted
from ._keywords import BLANKS, Keywords, ascii_upper, to_number
from ._text import HEADER_SIZE, Text

if TYPE_CHECKING:
    from ._files import Source


_ORDINALS = tuple("12345678")
_FLOAT_BITS = {"F": 32, "D": 64}
_WORDS = (1, 2, 4, 8)
_WHOLE = re.compile(r"\+?([0-9]{1,20})(?:\.0{0,20})?")


@dataclass(frozen=True)
class Column:
    """Storage of one channel."""

    kind: str
    """``I`` (unsigned integer), ``F``, ``D`` (float) or ``A`` (ASCII)."""
    bits: int
    """Bits per value; 0 for ASCII values with delimiters."""
    mask: int | None
    """Bits of an integer that are used (from ``$PnR``); None for all."""

    @property
    def size(self) -> int:
        """Bytes per value."""
        return self.bits // 8


@dataclass(frozen=True)
class Layout:
    """Storage of an event: types, widths, bit masks, byte order."""

    columns: tuple[Column, ...]
    order: tuple[int, ...] | None
    """Significance of each byte of a word, 1 for the least; None if byte order is irrelevant."""
    packed: bool = False
    """Whether values are packed bit by bit."""
    padded: bool = False
    """Whether integers are stored in words wider than ``$PnB``."""

    @property
    def event_bits(self) -> int:
        """Bits per event; 0 if that varies (ASCII with delimiters)."""
        widths = [column.bits for column in self.columns]
        return sum(widths) if all(widths) else 0

    def needed(self, n_events: int) -> int:
        """Return the number of bytes of `n_events` events."""
        return -(-n_events * self.event_bits // 8)

    @property
    def little(self) -> bool:
        """Whether the least significant byte comes first."""
        return self.order is None or self.order == tuple(range(1, len(self.order) + 1))

    @property
    def big(self) -> bool:
        """Whether the most significant byte comes first."""
        return self.order is not None and self.order == tuple(range(len(self.order), 0, -1))


def read_layouts(keywords: Keywords, version: str, n: int, repairs: Repairs) -> list[Layout]:
    """Read the possible layouts from ``$DATATYPE``, ``$PnB``, ``$PnR`` and ``$BYTEORD``.

    Parameters
    ----------
    keywords
        Keywords of the data set.
    version
        FCS version; only 3.2 has ``$PnDATATYPE``.
    n
        Number of channels.
    repairs
        Receives the assumptions that were made.

    Returns
    -------
    One layout; or several if the bits of integers are not a multiple of 8: each integer in a word
    of its own, as nearly every writer does it, each padded to whole bytes, and packed bit by bit,
    as the standard defines it.
    """
    default = _kind(keywords, "$DATATYPE")
    odd: dict[str, list[int]] = defaultdict(list)
    columns = []
    for i in range(1, n + 1):
        own = f"$P{i}DATATYPE"
        kind = _kind(keywords, own) if keywords.get(own, "").strip(BLANKS) else default
        if kind != default and version != "FCS3.2":
            raise Fault(
                f"{own} is {kind} and $DATATYPE {default}, but only FCS 3.2 mixes types and this "
                f"file says {version}",
                own,
                kind,
            )
        columns.append(_column(keywords, i, kind, odd))
    for text, numbers in odd.items():
        repairs.repair(f"{text} (n = {join_numbers(numbers)})")
    kinds = {column.kind for column in columns}
    if "A" in kinds and (len(kinds) > 1 or len({column.bits == 0 for column in columns}) > 1):
        raise Fault("ASCII values of fixed width, those with delimiters and others do not mix")
    order = _order(keywords, columns)
    padded = any(column.bits % 8 for column in columns)
    as_words = Layout(tuple(_filled(column) for column in columns), order, padded=padded)
    if not padded:
        return [as_words]
    as_bytes = Layout(tuple(_filled(c, range(1, 9)) for c in columns), order, padded=True)
    packed = Layout(tuple(columns), order, packed=True)
    return list(dict.fromkeys([as_words, as_bytes, packed]))


def _kind(keywords: Keywords, key: str) -> str:
    kind = ascii_upper(keywords.need(key))
    if kind not in ("I", "F", "D", "A"):
        raise Fault(f"{key} is {quoted(kind)}; I, F, D and A can be read", key, kind)
    return kind


def _column(keywords: Keywords, i: int, kind: str, odd: dict[str, list[int]]) -> Column:
    key = f"$P{i}B"
    if kind == "A":
        if keywords.need(key) == "*":
            return Column(kind, 0, None)
        width = keywords.integer(key)
        if not 1 <= width <= 64:
            raise Fault(f"{key} is {width}; 1 to 64 characters can be read", key, str(width))
        return Column(kind, 8 * width, None)
    bits = keywords.integer(key)
    if kind in _FLOAT_BITS:
        if f"$P{i}R" not in keywords:
            odd["$PnR is missing"].append(i)
        if bits != _FLOAT_BITS[kind]:
            odd[f"$PnB is {bits}, read as the {_FLOAT_BITS[kind]} bits of type {kind}"].append(i)
        return Column(kind, _FLOAT_BITS[kind], None)
    if not 1 <= bits <= 64:
        raise Fault(f"{key} is {bits}; integers of 1 to 64 bits can be read", key, str(bits))
    top = _range(keywords, i)
    if top is None:
        odd["$PnR is not a valid range, so all bits are read"].append(i)
        return Column("I", bits, None)
    width = (top - 1).bit_length()
    return Column("I", bits, (1 << width) - 1 if width < bits else None)


def _range(keywords: Keywords, i: int) -> int | None:
    """Return the number of values of an integer channel; None if ``$PnR`` is 0 or less."""
    key = f"$P{i}R"
    text = keywords.need(key)
    if whole := _WHOLE.fullmatch(text):
        top = int(whole[1])
    else:
        number = to_number(text)
        if number is None:
            raise Fault(f"{key} is {quoted(text)}, so it does not say which bits count", key, text)
        top = int(number)
    return top if top >= 1 else None


def _filled(column: Column, sizes: Sequence[int] = _WORDS) -> Column:
    """Pad an integer that is not a multiple of 8 bits to the next of the sizes in bytes."""
    if column.kind != "I" or column.bits % 8 == 0:
        return column
    size = next(size for size in sizes if 8 * size >= column.bits)
    mask = column.mask if column.mask is not None else (1 << column.bits) - 1
    return Column("I", 8 * size, mask)


def _order(keywords: Keywords, columns: list[Column]) -> tuple[int, ...] | None:
    """Read ``$BYTEORD``; None if every value is one byte or ASCII."""
    text = keywords.need("$BYTEORD")
    if all(column.kind == "A" for column in columns):
        return None
    fields = [field.strip(" ") for field in text.split(",")]
    order = tuple(int(f) if f in _ORDINALS else 0 for f in fields)
    known = sorted(order) == list(range(1, len(order) + 1)) and len(order) <= 8
    if not known:
        raise Fault(
            f"$BYTEORD is {quoted(text)}; it must hold the numbers from 1 on, each once",
            "$BYTEORD",
            text,
        )
    sizes = {_filled(column).size for column in columns} - {1}
    if not sizes and all(column.bits % 8 == 0 for column in columns):
        return None
    monotone = order in (tuple(range(1, len(order) + 1)), tuple(range(len(order), 0, -1)))
    if len(order) == 1 or (not monotone and sizes != {len(order)}):
        raise Fault(
            f"$BYTEORD is {quoted(text)}, which does not say how values of "
            f"{', '.join(map(str, sorted(sizes)))} bytes are stored",
            "$BYTEORD",
            text,
        )
    return order


Stated = dict[str, tuple[int, int]]
"""First and last byte of DATA by ``TEXT`` and ``HEADER``, the better source first."""

_CHOICE = 'offsets="header" or offsets="text" decides'


@dataclass(frozen=True)
class Place:
    """Position and layout of the events."""

    start: int
    """First byte, counted from the start of the file."""
    size: int
    """Number of bytes."""
    n_events: int
    layout: Layout


@dataclass(frozen=True)
class _Candidate(Place):
    """A possible position of DATA, its first byte counted from the start of the data set."""

    late: int
    """1 if the stated end is one byte late, else 0."""
    source: str
    """``HEADER`` or ``TEXT``."""


def locate(
    text: Text, source: Source, layouts: list[Layout], repairs: Repairs, offsets: str = "auto"
) -> Place:
    """Find the position of DATA and its layout.

    Parameters
    ----------
    text, source
        HEADER and TEXT of the data set, and its file.
    layouts
        The possible layouts, from :func:`read_layouts`.
    repairs
        Receives the assumptions that were made.
    offsets
        Which position to use if those of HEADER and TEXT are both possible: ``"header"``,
        ``"text"``, or ``"auto"``, the one directly after TEXT.

    Notes
    -----
    A pair of offsets is valid if ``$TOT`` events take exactly the bytes between them and the file
    has all of these bytes. If no pair is valid, one whose end is one byte late is accepted (many
    writers give the byte after the last one). Of two valid positions the one directly after TEXT
    is used, unless `offsets` decides; other ambiguous files are refused. Without ``$TOT`` the
    number of events follows from the size of DATA, if it is an integer.
    """
    chosen = offsets.upper()
    said = _stated_offsets(text, chosen)
    stated = "; ".join(f"{who} says bytes {a} to {b}" for who, (a, b) in said.items())
    n_events = _stated_events(text)
    if text.header.data is None:
        repairs.repair("HEADER does not say where DATA lies")
    if n_events == 0:
        return _empty(text, said, layouts[0])
    if not said:
        raise Fault("neither HEADER nor TEXT says where DATA lies", "$BEGINDATA")
    delimited = layouts[0].event_bits == 0
    believed = said
    # FCS 2.0 states the position of DATA in HEADER only
    required = 1 if text.version == "FCS2.0" else 2
    if chosen in said and (n_events is None or delimited):
        # the size does not decide between two positions, so the user does
        believed = {chosen: said[chosen]}
    elif n_events is None and (len(set(said.values())) > 1 or len(said) < required):
        raise Fault(
            f"$TOT is missing, and HEADER and TEXT do not agree on DATA: {stated}; {_CHOICE}",
            "$TOT",
        )
    search = _Search(text, source, layouts, believed, stated, n_events)
    if delimited:
        candidates = search.delimited()
    else:
        candidates = search.fitting(late=0)
        if not candidates or len(layouts) > 1 or chosen in said:
            candidates += search.fitting(late=1)
    if not candidates:
        raise search.failure()
    why = "the one that $TOT events fit"
    if any(candidate.source == chosen for candidate in candidates):
        if believed is not said or len({candidate.start for candidate in candidates}) > 1:
            why = "as `offsets=` asks"
        candidates = [candidate for candidate in candidates if candidate.source == chosen]
    if len({candidate.layout for candidate in candidates}) > 1:
        raise Fault(
            f"$PnB is not a multiple of 8, and the size of DATA ({stated}) fits more than one "
            "layout: in words, in whole bytes, or packed bit by bit"
        )
    least = min(candidate.late for candidate in candidates)
    candidates = [candidate for candidate in candidates if candidate.late == least]
    best = candidates[0]
    if len({(candidate.start, candidate.n_events) for candidate in candidates}) > 1:
        best = search.nearest_after_text(candidates)
        why = "whose place is right behind the TEXT segment"
    _require_readable(best.layout)
    if n_events is None:
        repairs.repair_shift(f"$TOT is missing; DATA holds {best.n_events} events", "$TOT")
    if len(set(said.values())) > 1:
        repairs.repair(f"{stated}; {best.source} was used, {why}")
    _note_repairs(text, best, said, repairs)
    return Place(text.offset + best.start, best.size, best.n_events, best.layout)


def _stated_offsets(text: Text, chosen: str) -> Stated:
    said = {}
    keys = ("$BEGINDATA", "$ENDDATA")
    if all(text.keywords.get(key, "").strip(BLANKS) for key in keys):
        said["TEXT"] = (text.keywords.integer(keys[0]), text.keywords.integer(keys[1]))
    header = text.header.data
    if header is not None and header != (0, 0):
        # in FCS 2.0 only HEADER states the position of DATA
        only = text.version == "FCS2.0" and chosen != "TEXT"
        said = {"HEADER": header} if only else said | {"HEADER": header}
    return {who: pair for who, pair in said.items() if pair != (0, 0)}


def _stated_events(text: Text) -> int | None:
    """Return ``$TOT``; None if it is missing."""
    if not text.keywords.get("$TOT", "").strip(BLANKS):
        return None
    n_events = text.keywords.integer("$TOT")
    if n_events < 0:
        raise Fault(f"$TOT is {n_events}", "$TOT", str(n_events))
    return n_events


def _empty(text: Text, said: Stated, layout: Layout) -> Place:
    """Return an empty DATA; Fault if HEADER or TEXT gives it bytes nevertheless."""
    for who, (first, last) in said.items():
        # writers state an empty segment by an end before or at the first byte
        if last > first:
            raise Fault(f"$TOT is 0, but {who} says bytes {first} to {last} for DATA", "$TOT", "0")
    return Place(text.offset, 0, 0, layout)


@dataclass(frozen=True)
class _Search:
    """Search for the position of DATA."""

    text: Text
    source: Source
    layouts: list[Layout]
    said: Stated
    """The stated positions that may be right."""
    stated: str
    """All stated positions, for messages."""
    n_events: int | None

    def fitting(self, late: int) -> list[_Candidate]:
        """Return the positions whose size fits a layout, if their end is `late` bytes too far."""
        found = []
        for layout in self.layouts:
            for who, (first, last) in self.said.items():
                size = last - first + 1 - late
                n = self.n_events
                if n is None:
                    n = max(size, 0) * 8 // layout.event_bits
                if n < 1 or size != layout.needed(n) or not self._is_free(first, size):
                    continue
                if self.source.holds(self.text.offset + first + size):
                    found.append(_Candidate(first, size, n, layout, late, who))
        return found

    def delimited(self) -> list[_Candidate]:
        """Return the position of ASCII values with delimiters, whose size varies."""
        n, layout = self.n_events, self.layouts[0]
        if n is None:
            raise Fault("$TOT is missing, and ASCII values with delimiters do not tell it", "$TOT")
        if len(set(self.said.values())) > 1:
            return []
        who, (first, last) = next(iter(self.said.items()))
        size = last - first + 1
        fits = size >= 2 * n * len(layout.columns) - 1 and self._is_free(first, size)
        if not self.source.holds(self.text.offset + first + size) or not fits:
            return []
        return [_Candidate(first, size, n, layout, 0, who)]

    def _is_free(self, first: int, size: int) -> bool:
        """Whether bytes overlap neither HEADER nor TEXT."""
        begin, end = self.text.header.text
        return first >= HEADER_SIZE and (first > end or first + size <= begin)

    def nearest_after_text(self, candidates: list[_Candidate]) -> _Candidate:
        """Return the candidate directly after TEXT, or with nothing but blanks between them."""
        end = self.text.header.text[1] + 1
        near = min(candidates, key=lambda candidate: (candidate.start < end, candidate.start))
        others = [candidate.start for candidate in candidates if candidate.start > near.start]
        # blanks between the candidates may be padding, or values
        if near.start == end or (
            near.start > end
            and self._is_blank(end, near.start)
            and not any(self._is_blank(near.start, other) for other in others)
        ):
            return near
        raise Fault(
            f"{self.stated}: both fit $TOT, so DATA could begin at either; {_CHOICE}",
            "$BEGINDATA",
        )

    def _is_blank(self, first: int, stop: int) -> bool:
        raw = self.source.read(self.text.offset + first, self.text.offset + stop)
        return not raw.strip(BLANKS.encode())

    def failure(self) -> Fault:
        """Return why no position fits."""
        n, layout, stated = self.n_events, self.layouts[0], self.stated
        tot = self.text.keywords.get("$TOT")
        if n is None:
            return Fault(
                f"$TOT is missing, and DATA does not hold an integer number of events: {stated}",
                "$TOT",
            )
        if layout.event_bits == 0:
            return Fault(f"DATA of {n} events cannot be where {stated}", "$TOT", tot)
        needed, offset = layout.needed(n), self.text.offset
        starts = [max(first, 0) for first, _ in self.said.values()]
        if not any(self.source.holds(offset + start + needed) for start in starts):
            return Fault(
                f"the file is truncated, or $TOT is too large: DATA takes {needed} bytes, "
                f"{stated}, and the file has {self.source.size - offset}",
                "$TOT",
                tot,
            )
        return Fault(f"DATA takes {needed} bytes by $TOT and $PnB, but {stated}", "$TOT", tot)


def _require_readable(layout: Layout) -> None:
    if not layout.packed:
        return
    if {column.kind for column in layout.columns} != {"I"} or not (layout.little or layout.big):
        raise Fault(
            "integers that are not whole bytes are packed bit by bit, between floats or in a "
            "mixed byte order; this cannot be read"
        )


def _note_repairs(text: Text, best: _Candidate, said: Stated, repairs: Repairs) -> None:
    if best.late:
        repairs.repair(f"{best.source} gives the end of DATA one byte late")
    if text.version != "FCS2.0" and "TEXT" not in said:
        repairs.repair("TEXT does not say where DATA lies; HEADER does", "$BEGINDATA")
    if best.layout.packed:
        repairs.note("integers that are not whole bytes are packed bit by bit")
    elif best.layout.padded:
        repairs.repair(
            "integers that are not whole bytes are stored in words: $PnB is not their size"
        )
