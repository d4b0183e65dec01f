"""Read from TEXT how events are stored, and find the DATA segment."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._errors import Fault, Repairs, listed, shown
from ._keywords import BLANKS, Keywords, capitals, to_number
from ._text import HEADER_SIZE, Text

if TYPE_CHECKING:
    from ._files import Source


_ORDINALS = tuple("12345678")
_FLOAT_BITS = {"F": 32, "D": 64}
_WORDS = (1, 2, 4, 8)
_WHOLE = re.compile(r"\+?([0-9]{1,20})(?:\.0{0,20})?")


@dataclass(frozen=True)
class Column:
    """How one channel is stored in an event."""

    kind: str
    """``I``, ``F``, ``D`` or ``A``."""
    bits: int
    """0 for text that ends at a delimiter."""
    mask: int | None
    """The bits of an integer that hold the value (``$PnR``); None for all."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.bits // 8


@dataclass(frozen=True)
class Layout:
    """How events are stored."""

    columns: tuple[Column, ...]
    order: tuple[int, ...] | None
    """Significance of each byte of a word, 1 for the least; None where no byte order matters."""
    packed: bool = False
    """Whether values follow one another bit by bit, not byte by byte."""
    padded: bool = False
    """Whether integers have words that are larger than ``$PnB`` says."""

    @property
    def event_bits(self) -> int:
        """Bits of an event, 0 if they differ from event to event."""
        widths = [column.bits for column in self.columns]
        return sum(widths) if all(widths) else 0

    def needed(self, n_events: int) -> int:
        """Return the bytes of so many events."""
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
    """Read from ``$DATATYPE``, ``$PnB``, ``$PnR`` and ``$BYTEORD`` how events are stored.

    Parameters
    ----------
    keywords
        Of the data set.
    version
        Of FCS; only 3.2 knows ``$PnDATATYPE``.
    n
        Number of channels.
    repairs
        Receives what had to be assumed.

    Returns
    -------
    One layout; or several where integers are not of whole bytes: each in a word of its own, as
    nearly every writer does it, each filled up to whole bytes, and bit after bit, as the
    standard has it.
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
        repairs.repair(f"{text} (n = {listed(numbers)})")
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
    kind = capitals(keywords.need(key))
    if kind not in ("I", "F", "D", "A"):
        raise Fault(f"{key} is {shown(kind)}; I, F, D and A can be read", key, kind)
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
        odd["$PnR is no range, so all bits are read"].append(i)
        return Column("I", bits, None)
    width = (top - 1).bit_length()
    return Column("I", bits, (1 << width) - 1 if width < bits else None)


def _range(keywords: Keywords, i: int) -> int | None:
    """Return how many values an integer can take, None if ``$PnR`` is 0 or less."""
    key = f"$P{i}R"
    text = keywords.need(key)
    if whole := _WHOLE.fullmatch(text):
        top = int(whole[1])
    else:
        number = to_number(text)
        if number is None:
            raise Fault(f"{key} is {shown(text)}, so it does not say which bits count", key, text)
        top = int(number)
    return top if top >= 1 else None


def _filled(column: Column, sizes: Sequence[int] = _WORDS) -> Column:
    """Give an integer that is not of whole bytes the next larger size of those in bytes."""
    if column.kind != "I" or column.bits % 8 == 0:
        return column
    size = next(size for size in sizes if 8 * size >= column.bits)
    mask = column.mask if column.mask is not None else (1 << column.bits) - 1
    return Column("I", 8 * size, mask)


def _order(keywords: Keywords, columns: list[Column]) -> tuple[int, ...] | None:
    """Read ``$BYTEORD``; None where every value is one byte, or text."""
    text = keywords.need("$BYTEORD")
    if all(column.kind == "A" for column in columns):
        return None
    fields = [field.strip(" ") for field in text.split(",")]
    order = tuple(int(f) if f in _ORDINALS else 0 for f in fields)
    known = sorted(order) == list(range(1, len(order) + 1)) and len(order) <= 8
    if not known:
        raise Fault(
            f"$BYTEORD is {shown(text)}; it must hold the numbers from 1 on, each once",
            "$BYTEORD",
            text,
        )
    sizes = {_filled(column).size for column in columns} - {1}
    if not sizes and all(column.bits % 8 == 0 for column in columns):
        return None
    monotone = order in (tuple(range(1, len(order) + 1)), tuple(range(len(order), 0, -1)))
    if len(order) == 1 or (not monotone and sizes != {len(order)}):
        raise Fault(
            f"$BYTEORD is {shown(text)}, which does not say how values of "
            f"{', '.join(map(str, sorted(sizes)))} bytes are stored",
            "$BYTEORD",
            text,
        )
    return order


_CHOICE = 'offsets="header" or offsets="text" decides'


@dataclass(frozen=True)
class Place:
    """Where the events are, and how they are stored."""

    start: int
    """First byte, counted from the start of the file."""
    size: int
    """Bytes."""
    n_events: int
    layout: Layout


@dataclass(frozen=True)
class _Fit:
    start: int
    size: int
    n_events: int
    layout: Layout
    late: int
    source: str


def locate(
    text: Text,
    source: Source,
    layouts: list[Layout],
    repairs: Repairs,
    offsets: str = "auto",
) -> Place:
    """Find DATA, and which of the layouts it has.

    Parameters
    ----------
    text, source
        The data set, and its file.
    layouts
        How events may be stored.
    repairs
        Receives what had to be assumed.
    offsets
        What to believe where HEADER and TEXT name two places and both could be right:
        ``"header"``, ``"text"``, or ``"auto"``, the one right behind TEXT.

    Notes
    -----
    A pair of offsets is believed if as many bytes lie between them as ``$TOT`` events take and
    the file has them all. Where none is, a pair whose end is one byte late is (many writers give
    the byte after the last one). Of two places that could both be right the one right behind
    TEXT is taken, if `offsets` does not say otherwise; other such readings are refused. Without
    ``$TOT`` the number of events follows from the size of DATA, if it is a whole number.
    """
    chosen = offsets.upper()
    said = _said(text, chosen)
    stated = "; ".join(f"{who} says bytes {a} to {b}" for who, (a, b) in said.items())
    n_events = _count(text)
    if text.header.data is None:
        repairs.repair("HEADER does not say where DATA lies")
    if n_events == 0:
        return _empty(text, said, layouts[0])
    if not said:
        raise Fault("neither HEADER nor TEXT says where DATA lies", "$BEGINDATA")
    delimited = layouts[0].event_bits == 0
    believed = said
    if chosen in said and (n_events is None or delimited):
        # no size tells which of two is right, so the user does
        believed = {chosen: said[chosen]}
    elif n_events is None and (len(set(said.values())) > 1 or len(said) < len(_witnesses(text))):
        raise Fault(
            f"$TOT is missing, and HEADER and TEXT do not agree on DATA: {stated}; {_CHOICE}",
            "$TOT",
        )
    find = _fits_delimited if delimited else _fits
    fits = find(text, source, layouts, believed, n_events, 0)
    if not delimited and (not fits or len(layouts) > 1 or chosen in said):
        fits += find(text, source, layouts, believed, n_events, 1)
    if not fits:
        raise _no_fit(text, source, layouts, believed, stated, n_events)
    why = "the one that $TOT events fit"
    if any(fit.source == chosen for fit in fits):
        if believed is not said or len({fit.start for fit in fits}) > 1:
            why = "as `offsets=` asks"
        fits = [fit for fit in fits if fit.source == chosen]
    if len({fit.layout for fit in fits}) > 1:
        raise Fault(
            f"$PnB is of no whole bytes, and DATA ({stated}) is as large as the values take "
            "in more than one way: in words, in whole bytes, or bit after bit"
        )
    fits = [fit for fit in fits if fit.late == min(other.late for other in fits)]
    best = fits[0]
    if len({(fit.start, fit.n_events) for fit in fits}) > 1:
        best, why = (
            _behind_text(text, source, fits, stated),
            "whose place is right behind the TEXT segment",
        )
    _require_readable(best.layout)
    _note(text, best, said, stated, why, n_events, repairs)
    return Place(text.offset + best.start, best.size, best.n_events, best.layout)


def _said(text: Text, chosen: str) -> dict[str, tuple[int, int]]:
    """Collect what is said about the place of DATA, the best source first."""
    said = {}
    keys = ("$BEGINDATA", "$ENDDATA")
    if all(text.keywords.get(key, "").strip(BLANKS) for key in keys):
        said["TEXT"] = (text.keywords.integer(keys[0]), text.keywords.integer(keys[1]))
    header = text.header.data
    if header is not None and header != (0, 0):
        # FCS 2.0 knows no other place, so nothing that TEXT says there counts
        only = text.version == "FCS2.0" and chosen != "TEXT"
        said = {"HEADER": header} if only else said | {"HEADER": header}
    return {who: pair for who, pair in said.items() if pair != (0, 0)}


def _witnesses(text: Text) -> tuple[str, ...]:
    """Who has to say where DATA lies."""
    return ("HEADER",) if text.version == "FCS2.0" else ("HEADER", "TEXT")


def _count(text: Text) -> int | None:
    """Return ``$TOT``, None where it is missing."""
    if not text.keywords.get("$TOT", "").strip(BLANKS):
        return None
    n_events = text.keywords.integer("$TOT")
    if n_events < 0:
        raise Fault(f"$TOT is {n_events}", "$TOT", str(n_events))
    return n_events


def _empty(text: Text, said: dict[str, tuple[int, int]], layout: Layout) -> Place:
    """No events; Fault where somebody speaks of DATA nevertheless."""
    for who, (first, last) in said.items():
        # an end before or at the first byte is how writers say that there is nothing
        if last > first:
            raise Fault(f"$TOT is 0, but {who} says bytes {first} to {last} for DATA", "$TOT", "0")
    return Place(text.offset, 0, 0, layout)


def _fits(
    text: Text,
    source: Source,
    layouts: list[Layout],
    said: dict[str, tuple[int, int]],
    n_events: int | None,
    late: int,
) -> list[_Fit]:
    found = []
    for layout in layouts:
        for who, (first, last) in said.items():
            size = last - first + 1 - late
            n = n_events
            if n is None:
                n = max(size, 0) * 8 // layout.event_bits
            if n < 1 or size != layout.needed(n) or not _is_free(text, first, size):
                continue
            if source.holds(text.offset + first + size):
                found.append(_Fit(first, size, n, layout, late, who))
    return found


def _fits_delimited(
    text: Text,
    source: Source,
    layouts: list[Layout],
    said: dict[str, tuple[int, int]],
    n_events: int | None,
    late: int,
) -> list[_Fit]:
    """Take what is said for text with delimiters: its size tells nothing."""
    if n_events is None:
        raise Fault("$TOT is missing, and ASCII values with delimiters do not tell it", "$TOT")
    if len(set(said.values())) > 1:
        return []
    who, (first, last) = next(iter(said.items()))
    size = last - first + 1
    held = source.holds(text.offset + first + size)
    if size < 2 * n_events * len(layouts[0].columns) - 1 or not _is_free(text, first, size):
        return []
    return [_Fit(first, size, n_events, layouts[0], late, who)] if held else []


def _behind_text(text: Text, source: Source, fits: list[_Fit], stated: str) -> _Fit:
    """Return the place between which and TEXT is nothing, or nothing but blanks."""
    end = text.header.text[1] + 1
    near = min(fits, key=lambda fit: (fit.start < end, fit.start))
    others = [fit.start for fit in fits if fit.start > near.start]

    def blank(first: int, stop: int) -> bool:
        raw = source.read(text.offset + first, text.offset + stop)
        return not raw.strip(BLANKS.encode())

    # blanks between the two may be padding, or numbers
    if near.start == end or (
        near.start > end
        and blank(end, near.start)
        and not any(blank(near.start, other) for other in others)
    ):
        return near
    raise Fault(f"{stated}: both fit $TOT, so DATA could begin at either; {_CHOICE}", "$BEGINDATA")


def _require_readable(layout: Layout) -> None:
    if not layout.packed:
        return
    if {column.kind for column in layout.columns} != {"I"} or not (layout.little or layout.big):
        raise Fault(
            "integers of no whole bytes follow one another bit by bit, between floats or in a "
            "mixed byte order; this cannot be read"
        )


def _is_free(text: Text, first: int, size: int) -> bool:
    """Whether bytes are neither HEADER nor TEXT."""
    begin, end = text.header.text
    return first >= HEADER_SIZE and (first > end or first + size <= begin)


def _no_fit(
    text: Text,
    source: Source,
    layouts: list[Layout],
    said: dict[str, tuple[int, int]],
    stated: str,
    n_events: int | None,
) -> Fault:
    tot = text.keywords.get("$TOT")
    if n_events is None:
        return Fault(
            f"$TOT is missing, and DATA holds no whole number of events: {stated}", "$TOT"
        )
    if layouts[0].event_bits == 0:
        return Fault(f"DATA of {n_events} events cannot be where {stated}", "$TOT", tot)
    needed = layouts[0].needed(n_events)
    if all(not source.holds(text.offset + max(first, 0) + needed) for first, _ in said.values()):
        return Fault(
            f"the file is truncated, or $TOT is too large: DATA takes {needed} bytes, {stated}, "
            f"and the file has {source.size - text.offset}",
            "$TOT",
            tot,
        )
    return Fault(f"DATA takes {needed} bytes by $TOT and $PnB, but {stated}", "$TOT", tot)


def _note(
    text: Text,
    best: _Fit,
    said: dict[str, tuple[int, int]],
    stated: str,
    why: str,
    n_events: int | None,
    repairs: Repairs,
) -> None:
    if n_events is None:
        repairs.moved(f"$TOT is missing; DATA holds {best.n_events} events", "$TOT")
    if len(set(said.values())) > 1:
        repairs.repair(f"{stated}; {best.source} was used, {why}")
    if best.late:
        repairs.repair(f"{best.source} gives the end of DATA one byte late")
    if text.version != "FCS2.0" and "TEXT" not in said:
        repairs.repair("TEXT does not say where DATA lies; HEADER does", "$BEGINDATA")
    if best.layout.packed:
        repairs.tell("integers of no whole bytes follow one another bit by bit")
    elif best.layout.padded:
        repairs.repair("integers of no whole bytes are stored in words: $PnB is not their size")
