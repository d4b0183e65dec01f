"""The TEXT segment as keywords and values: what a doubled delimiter means.

By the standard a delimiter within a keyword or a value is doubled, and no value is empty.
Many writers leave values empty all the same, so ``/$COM//$SMNO/7/`` is met, too. Both readings
are tried; the one that leaves a sound set of keywords is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ._errors import Fault, Repairs, shown

BLANKS = " \t\r\n\0"
_MATTERS = re.compile(
    r"\$(?:PAR|TOT|BYTEORD|DATATYPE|MODE|NEXTDATA|(?:BEGIN|END)(?:DATA|STEXT)|TIMESTEP"
    r"|P[0-9]+(?:[BNREG]|DATATYPE))"
)
_NEEDED = ("$PAR", "$DATATYPE", "$BYTEORD")
_COUNT = re.compile("[0-9]{1,9}")
INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,9})?"
)


class Keywords(dict[str, str]):
    """Keywords in upper case, with their ``$``; the getters raise Fault."""

    def need(self, key: str) -> str:
        """Return a value without blanks around it."""
        if key not in self:
            without = key.removeprefix("$")
            hint = f" (there is {without} without a $)" if without in self else ""
            raise Fault(f"the keyword {key} is missing{hint}", key)
        return self[key].strip(BLANKS)

    def integer(self, key: str) -> int:
        """Return a whole number."""
        text = self.need(key)
        if not INTEGER.fullmatch(text):
            raise Fault(f"{key} is {shown(text)}, not an integer", key, text)
        return int(text)

    def number(self, key: str, default: float) -> float:
        """Return a number, `default` where there is none or it is blank."""
        text = self.get(key, "").strip(BLANKS)
        value = to_number(text) if text else default
        if value is None:
            raise Fault(f"{key} is {shown(text)}, not a number", key, text)
        return value


def to_number(text: str) -> float | None:
    """Return a decimal number, None for anything else (NaN and infinity included)."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) != float("inf") else None


def numbered(keywords: Keywords, letter: str) -> Iterator[int]:
    """Find the n for which there is a ``$Pn`` keyword of a letter."""
    for key in keywords:
        if match := re.fullmatch(rf"\$P([1-9][0-9]{{0,8}}){letter}", key):
            yield int(match[1])


def matters(keyword: str) -> bool:
    """Whether the numbers that are read depend on a keyword (upper case, with its ``$``)."""
    return _MATTERS.fullmatch(keyword) is not None


def hidden_keyword(raw: bytes, delimiter: str) -> str | None:
    """Find a keyword that matters in bytes that are no TEXT."""
    mark = re.escape(delimiter)
    for match in re.finditer(
        rf"(?:{mark}|\s)(\$[A-Z0-9]+)(?:{mark})", raw.decode("latin-1").upper()
    ):
        if matters(match[1]):
            return match[1]
    return None


def capitals(key: str) -> str:
    """Return a keyword in capitals; only ASCII has the same letter in two cases here."""
    return key.upper() if key.isascii() else key


@dataclass
class Tokens:
    """A segment cut into pieces."""

    pairs: list[tuple[str, str]]
    """Keywords and values, as they are written."""
    rest: str | None = None
    """A last keyword that has no value."""
    open: bool = False
    """Whether the last keyword or value has no delimiter behind it."""

    def table(self) -> dict[str, str]:
        """Keywords in upper case without blanks around them."""
        return {capitals(key.strip(BLANKS)): value for key, value in self.pairs}


def split(body: str, delimiter: str, repairs: Repairs, *, primary: bool = True) -> Tokens:
    """Cut what follows the first delimiter of a segment.

    Parameters
    ----------
    body
        The segment without its first character.
    delimiter
        One character.
    repairs
        Receives what had to be assumed.
    primary
        Whether the segment must hold the keywords that every file needs.

    Raises
    ------
    Fault
        If doubled delimiters can be read in two ways that give different numbers.
    """
    if delimiter * 2 not in body:
        return _pair(body.split(delimiter))
    parts = re.split(f"({re.escape(delimiter)}+)", body)
    escaped = _pair(_tokens(parts, delimiter, empty_values=False))
    emptied = _pair(_tokens(parts, delimiter, empty_values=True))
    if escaped == emptied:
        return escaped
    against_escape = _unsound(escaped, delimiter, primary=primary)
    against_empty = _unsound(emptied, delimiter, primary=primary)
    if against_escape and against_empty:
        raise Fault(
            f"doubled delimiters cannot be read: if they stand for one, {against_escape}; if they "
            f"are empty values, {against_empty}"
        )
    if not (against_escape or against_empty):
        _require_same_numbers(escaped.table(), emptied.table())
    if not against_escape:
        return escaped
    empty = [key.strip(BLANKS) for key, value in emptied.pairs if not value]
    names = ", ".join(empty[:20]) + (", ..." if len(empty) > 20 else "")
    repairs.repair(f"doubled delimiters were read as empty values, of {names or 'no keyword'}")
    return emptied


def _tokens(parts: list[str], delimiter: str, *, empty_values: bool) -> list[str]:
    """Cut at runs of delimiters: `parts` are text, run, text, ..., text."""
    tokens: list[str] = []
    current = parts[0]
    for run, text in zip(parts[1::2], parts[2::2], strict=True):
        n = len(run)
        if empty_values and n > 1 and len(tokens) % 2 == 0:
            # behind a keyword: the first delimiter ends it, the others are of its value
            tokens.append(current)
            literal = delimiter * ((n - 1) // 2)
            if n % 2:
                current = literal + text
            else:
                tokens.append(literal)
                current = text
            continue
        current += delimiter * (n // 2)
        if n % 2:
            tokens.append(current)
            current = text
        else:
            current += text
    tokens.append(current)
    return tokens


def _pair(tokens: list[str]) -> Tokens:
    """Pair tokens up; the last is what follows the last delimiter, blank in most files."""
    last = tokens.pop()
    if last.strip(BLANKS):
        tokens.append(last)
    is_open = bool(last.strip(BLANKS))
    rest = tokens.pop() if len(tokens) % 2 else None
    return Tokens(list(zip(tokens[::2], tokens[1::2], strict=True)), rest, is_open)


def _unsound(tokens: Tokens, delimiter: str, *, primary: bool) -> str | None:
    """Say why keywords cannot be right, None if they can."""
    table = tokens.table()
    if "" in table:
        return f"TEXT holds a value without a keyword: {shown(table[''])}"
    # keywords with a `$` are those of the standard: none of them stands within another, nor
    # holds a delimiter, unless a letter or a digit delimits
    mark = re.escape(capitals(delimiter))
    swallowed = re.compile(
        rf".*{mark}\s*(?:\$|SPILL)|" + ("(?!)" if mark.isalnum() else rf"\$.*{mark}")
    )
    odd = next((key for key in table if swallowed.match(key)), None)
    if odd is not None:
        return f"TEXT holds the keyword {shown(odd)}"
    if not primary or table.get("$BEGINSTEXT", "0").strip(BLANKS + "0"):
        return None
    needed = list(_NEEDED)
    n = table.get("$PAR", "").strip(BLANKS)
    if _COUNT.fullmatch(n):
        if int(n) > len(table):
            return f"$PAR is {n}, more than there are keywords"
        needed += [f"$P{i}{letter}" for i in range(1, int(n) + 1) for letter in "BN"]
    lost = next((key for key in needed if key not in table), None)
    return None if lost is None else f"the keyword {lost} is missing"


def _require_same_numbers(one: dict[str, str], other: dict[str, str]) -> None:
    for key in sorted({*one, *other}):
        if matters(key) and one.get(key) != other.get(key):
            values = [shown(table[key]) if key in table else "missing" for table in (one, other)]
            raise Fault(
                f"doubled delimiters can be read in two ways: {key} is {values[0]} if they stand "
                f"for one, {values[1]} if they are empty values",
                key,
            )
