"""Split a TEXT segment into keywords and values, and read numbers from them.

By the standard a delimiter within a keyword or a value is doubled, and no value is empty. Many
writers leave values empty nevertheless, for instance ``/$COM//$SMNO/7/``. Both readings are
tried; the one that gives a sound set of keywords is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ._errors import Fault, Repairs, quoted

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
    """Values by keyword, in upper case and with ``$``; the getters raise Fault."""

    def need(self, key: str) -> str:
        """Return the value of a required keyword, stripped of blanks."""
        if key not in self:
            without = key.removeprefix("$")
            hint = f" (there is {without} without a $)" if without in self else ""
            raise Fault(f"the keyword {key} is missing{hint}", key)
        return self[key].strip(BLANKS)

    def integer(self, key: str) -> int:
        """Return the value of a required keyword as an integer."""
        text = self.need(key)
        if not INTEGER.fullmatch(text):
            raise Fault(f"{key} is {quoted(text)}, not an integer", key, text)
        return int(text)

    def number(self, key: str, default: float) -> float:
        """Return a value as a number, `default` if it is missing or blank."""
        text = self.get(key, "").strip(BLANKS)
        value = to_number(text) if text else default
        if value is None:
            raise Fault(f"{key} is {quoted(text)}, not a number", key, text)
        return value


def to_number(text: str) -> float | None:
    """Return a decimal number; None for any other text, NaN and infinity included."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) != float("inf") else None


def channel_numbers(keywords: Keywords, letter: str) -> Iterator[int]:
    """Yield each n with a keyword ``$Pn`` of this letter."""
    for key in keywords:
        if match := re.fullmatch(rf"\$P([1-9][0-9]{{0,8}}){letter}", key):
            yield int(match[1])


def affects_values(keyword: str) -> bool:
    """Whether the values that are read depend on a keyword (upper case, with its ``$``)."""
    return _MATTERS.fullmatch(keyword) is not None


def find_hidden_keyword(raw: bytes, delimiter: str) -> str | None:
    """Find a keyword that affects values in bytes outside of TEXT; None if there is none."""
    mark = re.escape(delimiter)
    for match in re.finditer(
        rf"(?:{mark}|\s)(\$[A-Z0-9]+)(?:{mark})", raw.decode("latin-1").upper()
    ):
        if affects_values(match[1]):
            return match[1]
    return None


def ascii_upper(key: str) -> str:
    """Return ASCII text in upper case, and any other text as it is."""
    return key.upper() if key.isascii() else key


@dataclass
class Tokens:
    """Keywords and values of a segment, and what is left at its end."""

    pairs: list[tuple[str, str]]
    """Keywords and values as in the file."""
    rest: str | None = None
    """The last keyword, if it has no value."""
    open: bool = False
    """Whether the segment ends without a delimiter."""

    def table(self) -> dict[str, str]:
        """Return the values by keyword, in upper case and stripped of blanks."""
        return {ascii_upper(key.strip(BLANKS)): value for key, value in self.pairs}


def split_text(body: str, delimiter: str, repairs: Repairs, *, primary: bool = True) -> Tokens:
    """Split a segment into keywords and values.

    Parameters
    ----------
    body
        The segment without its first character, the delimiter.
    delimiter
        One character.
    repairs
        Receives the assumptions that were made.
    primary
        Whether the segment must hold the required keywords of a file.

    Raises
    ------
    Fault
        If both readings of doubled delimiters are sound but give different values, or none is.
    """
    if delimiter * 2 not in body:
        return _pair_up(body.split(delimiter))
    parts = re.split(f"({re.escape(delimiter)}+)", body)
    escaped = _pair_up(_tokens(parts, delimiter, empty_values=False))
    emptied = _pair_up(_tokens(parts, delimiter, empty_values=True))
    if escaped == emptied:
        return escaped
    against_escape = _why_unsound(escaped, delimiter, primary=primary)
    against_empty = _why_unsound(emptied, delimiter, primary=primary)
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
    """Split at runs of delimiters; `parts` are text, run, text, ..., text."""
    tokens: list[str] = []
    current = parts[0]
    for run, text in zip(parts[1::2], parts[2::2], strict=True):
        n = len(run)
        if empty_values and n > 1 and len(tokens) % 2 == 0:
            # after a keyword the first delimiter ends it, the others belong to its value
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


def _pair_up(tokens: list[str]) -> Tokens:
    """Pair keywords with values; the last token follows the last delimiter and is mostly blank."""
    last = tokens.pop()
    if last.strip(BLANKS):
        tokens.append(last)
    is_open = bool(last.strip(BLANKS))
    rest = tokens.pop() if len(tokens) % 2 else None
    return Tokens(list(zip(tokens[::2], tokens[1::2], strict=True)), rest, is_open)


def _why_unsound(tokens: Tokens, delimiter: str, *, primary: bool) -> str | None:
    """Return why a reading cannot be right; None if it can."""
    table = tokens.table()
    if "" in table:
        return f"TEXT holds a value without a keyword: {quoted(table[''])}"
    # keywords of the standard start with `$`: none contains another one, or the delimiter,
    # unless the delimiter is a letter or a digit
    mark = re.escape(ascii_upper(delimiter))
    swallowed = re.compile(
        rf".*{mark}\s*(?:\$|SPILL)|" + ("(?!)" if mark.isalnum() else rf"\$.*{mark}")
    )
    odd = next((key for key in table if swallowed.match(key)), None)
    if odd is not None:
        return f"TEXT holds the keyword {quoted(odd)}"
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
        if affects_values(key) and one.get(key) != other.get(key):
            values = [quoted(table[key]) if key in table else "missing" for table in (one, other)]
            raise Fault(
                f"doubled delimiters can be read in two ways: {key} is {values[0]} if they stand "
                f"for one, {values[1]} if they are empty values",
                key,
            )
