"""HEADER and TEXT of an FCS file that is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_letters, digits

from ._channels import ADDED_KEYWORD
from ._extra import TABLE_MARKS, Extra

Pairs = list[tuple[str, str]]
"""Keywords and values in order, as they are spelt."""

_HEADER_SIZE = 58
_MOST_IN_HEADER = 99_999_999
_WIDEST = 20
_DELIMITERS = "\x0c|/\\!~#@\x1e\x1f" + "".join(map(chr, range(1, 127)))

CRC = b"00000000"
"""Stands for "not computed" at the end of a data set."""


def replace(pairs: Pairs, values: dict[str, str]) -> Pairs:
    """Give keywords other values where they stand, in any case; add those that are not there."""
    wanted = {key.upper(): (key, value) for key, value in values.items()}
    changed = [
        (key, wanted[key.upper()][1] if key.upper() in wanted else value) for key, value in pairs
    ]
    there = {key.upper() for key, _ in pairs}
    return changed + [pair for key, pair in wanted.items() if key not in there]


def with_codes(pairs: Pairs, extras: Sequence[Extra], preferred: str) -> tuple[Pairs, str]:
    """Add which channels were computed, and the tables of codes.

    Return all pairs, and a delimiter that occurs in none of them.

    So nothing is to be escaped, which not all readers understand.
    """
    coded = [extra for extra in extras if extra.codes is not None]
    # those that a file which was read had already, unless they are gone
    said = ",".join(value for key, value in pairs if key.upper() == ADDED_KEYWORD).split(",")
    there = {value.strip() for key, value in pairs if re.fullmatch(r"\$P\d+N", key.upper())}
    added = [name.strip() for name in (*said, *(extra.name for extra in extras))]
    names = ",".join(dict.fromkeys(name for name in added if name in there))
    pairs = replace(pairs, {ADDED_KEYWORD: names}) if names else pairs
    used = set(ascii_letters + digits + "$ " + (TABLE_MARKS if coded else ""))
    used = used.union(*(text for pair in pairs for text in pair))
    delimiter = next((d for d in preferred + _DELIMITERS if d not in used), None)
    if delimiter is None:
        raise ValueError("The keywords hold every character that could delimit them.")
    return replace(pairs, dict(extra.keyword(delimiter) for extra in coded)), delimiter


def head(
    version: str, pairs: Pairs, n_bytes: int, *, delimiter: str, encoding: str = "utf-8"
) -> bytes:
    """Return everything before DATA: HEADER, TEXT, and blanks up to where DATA begins.

    Parameters
    ----------
    version
        As in ``FCS3.1``.
    pairs
        Keywords and values; those with the place of segments are set here.
    n_bytes
        Of DATA, which follows at once.
    delimiter
        A character that occurs in none of them, see :func:`with_codes`.
    encoding
        Of TEXT.
    """
    pairs = replace(pairs, {"$NEXTDATA": "0"})
    places = _places("9" * _WIDEST, "9" * _WIDEST)
    if version == "FCS2.0":
        there = {key.upper() for key, _ in pairs}
        places = {key: value for key, value in places.items() if key in there}

    # DATA begins where it would if the numbers were as wide as can be
    widest = _text(replace(pairs, places), delimiter, encoding)
    first = _HEADER_SIZE + len(widest)
    last = first + n_bytes - 1
    values = _places(str(first), str(last))
    text = _text(replace(pairs, {key: values[key] for key in places}), delimiter, encoding)

    in_header = (first, last) if last <= _MOST_IN_HEADER else (0, 0)
    offsets = (_HEADER_SIZE, _HEADER_SIZE + len(text) - 1, *in_header, 0, 0)
    header = f"{version}    " + "".join(f"{offset:>8}" for offset in offsets)
    return header.encode("ascii") + text.ljust(len(widest))


def _places(first: str, last: str) -> dict[str, str]:
    return {
        "$BEGINANALYSIS": "0",
        "$ENDANALYSIS": "0",
        "$BEGINSTEXT": "0",
        "$ENDSTEXT": "0",
        "$BEGINDATA": first,
        "$ENDDATA": last,
    }


def _text(pairs: Pairs, delimiter: str, encoding: str) -> bytes:
    # no value may be empty: the delimiters around it would be one that is escaped
    fields = [field for key, value in pairs for field in (key, value or " ")]
    return (delimiter + "".join(field + delimiter for field in fields)).encode(encoding)


def only_in_text(start: bytes, n_bytes: int) -> bool:
    """Whether DATA behind `start` ends where the eight digits of HEADER cannot say it."""
    return len(start) + n_bytes - 1 > _MOST_IN_HEADER
