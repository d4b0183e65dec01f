"""The DATA segment: where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._errors import Fault, Repairs
from ._split import BLANKS
from ._text import HEADER_SIZE, Text

if TYPE_CHECKING:
    from ._layout import Layout
    from ._source import Source


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


OFFSETS = ("auto", "header", "text")


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
