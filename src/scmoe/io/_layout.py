"""How events are stored: types, widths, bit masks, byte order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ._errors import Fault, Repairs, listed, shown
from ._split import BLANKS, Keywords, capitals, to_number

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
