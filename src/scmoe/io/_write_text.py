"""Compose HEADER and TEXT of a written FCS file, and channels from columns of ``.obs``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters, digits
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.cells import obs_columns
from scmoe._core.keys import Key
from scmoe._core.text import listing

from ._channels import ADDED_KEYWORD

if TYPE_CHECKING:
    from anndata import AnnData


_EXACT_IN_FLOAT32 = 2**24
_MOST_IN_32_BITS = 2**32 - 1
_MOST_IN_FLOAT32 = float(np.finfo(np.float32).max)
TABLE_MARKS = '",:{}\\'
"""Characters of a table of codes, in addition to those of names and numbers."""
_FINEST_GAIN = 10**6


@dataclass(frozen=True)
class AddedChannel:
    """A channel that is added to those of the instrument."""

    name: str
    values: np.ndarray
    """One value per cell, float64."""
    codes: dict[int, str | None] | None = None
    """Label of each code, None for a missing label; None if the values are numbers."""

    def keyword(self, delimiter: str) -> tuple[str, str]:
        """Return the keyword and the JSON table of the codes; the delimiter is escaped."""
        table = json.dumps(dict(sorted(self.codes.items())), separators=(",", ":"))
        return f"SCMOE_CODES_{self.name}", table.replace(delimiter, f"\\u{ord(delimiter):04x}")

    def largest(self) -> float:
        """Return the largest value; 0 if none is finite."""
        return float(np.max(self.values, initial=0, where=np.isfinite(self.values)))

    def check_float(self, bits: int) -> None:
        """Raise ValueError for values that floats of this many bits cannot hold."""
        if (
            bits == 32
            and np.abs(self.values).max(initial=0, where=self._finite()) > _MOST_IN_FLOAT32
        ):
            raise ValueError(f".obs[{self.name!r}] holds values too large for 32 bits.")

    def _finite(self) -> np.ndarray:
        return np.isfinite(self.values)

    def gain(self) -> int:
        """Return the factor by which values are stored as integers of 32 bits.

        Raises ValueError for values that cannot be stored so.
        """
        where = f".obs[{self.name!r}]"
        bad = ~self._finite()
        if bad.any():
            raise ValueError(
                f"{where} is NaN or infinite for {bad.sum()} cells, which a file of integers "
                "cannot hold; leave it out, or fill it."
            )
        if (self.values < 0).any():
            raise ValueError(f"{where} is negative for some cells; the file holds integers >= 0.")
        top = self.largest()
        if top > _MOST_IN_32_BITS:
            raise ValueError(f"{where} holds {top:g}, too large for integers of 32 bits.")
        if (self.values == np.floor(self.values)).all():
            return 1
        gain = _FINEST_GAIN
        while gain > 1 and round(top * gain) > _MOST_IN_32_BITS:
            gain //= 10
        return gain


def added_channels(adata: AnnData, obs: str | Sequence[str]) -> list[AddedChannel]:
    """Return the channels for columns of ``.obs``, up to three for a clustering.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a column holds neither labels nor numbers, or has no name that a channel can have.
    """
    names = [obs] if isinstance(obs, str) else list(obs)
    unknown = [name for name in names if name not in adata.obs]
    if unknown:
        raise KeyError(
            f"Did not find {listing(unknown)} in .obs, which has {listing(obs_columns(adata))}. "
            "Run `scmoe.tl.cluster(adata)` first, or name other columns as `obs` (`[]` for none)."
        )
    found: dict[str, AddedChannel] = {}
    for name in names:
        for channel in _from_column(adata, name):
            found.setdefault(channel.name, channel)
    for name in found:
        if not name.strip() or "," in name or not name.isprintable():
            raise ValueError(
                f".obs[{name!r}] cannot name a channel: that is blank, or has a comma or a "
                "control character in it. Rename the column."
            )
    upper = [name.upper() for name in found]
    alike = [name for name in found if upper.count(name.upper()) > 1]
    if alike:
        # the codes are in keywords, which have no upper and lower case
        raise ValueError(f"Names of columns differ in case only: {listing(alike)}; rename one.")
    return list(found.values())


def _from_column(adata: AnnData, name: str) -> list[AddedChannel]:
    added = [_from_values(name, adata.obs[name])]
    proba = Key.obsm.proba(name)
    if proba in adata.obsm:
        added.append(
            AddedChannel(proba, np.asarray(adata.obsm[proba]).max(axis=1).astype(np.float64))
        )
        outlier = Key.obs.outlier(name)
        if outlier in adata.obs:
            added.append(_from_values(outlier, adata.obs[outlier]))
    return added


def _from_values(name: str, column: pd.Series) -> AddedChannel:
    dtype = column.dtype
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype):
        numbers = column.astype("boolean").to_numpy(np.float64, na_value=np.nan)
        return _coded(name, numbers, {0: "False", 1: "True"})
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return AddedChannel(name, _numbers(name, column))
    if isinstance(dtype, pd.CategoricalDtype):
        labels = column.array
    elif pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
        text = column.map(str, na_action="ignore")
        labels = pd.Categorical(text, categories=natsorted(text.dropna().unique()))
    else:
        raise ValueError(f".obs[{name!r}] holds {dtype}, neither labels nor numbers.")
    categories = [str(category) for category in labels.categories]
    numbers = _codes(categories)
    given = np.array([*numbers, np.nan])[labels.codes]
    return _coded(name, given, dict(zip(numbers, categories, strict=True)))


def _numbers(name: str, column: pd.Series) -> np.ndarray:
    values = column.to_numpy(np.float64, na_value=np.nan)
    if column.dtype.kind in "iu" and np.abs(values).max(initial=0) > _EXACT_IN_FLOAT32:
        raise ValueError(
            f".obs[{name!r}] holds whole numbers above 2^24, which FCS files of 32-bit floats "
            "would round; leave it out, or pass it as floats."
        )
    return values


def _codes(categories: list[str]) -> list[int]:
    """Return the number of each label if all are integers, else 1, 2, ..."""
    whole = [c for c in categories if c.isdecimal() and c.isascii() and str(int(c)) == c]
    numbers = [int(c) for c in whole]
    if len(numbers) == len(categories) and max(numbers, default=0) < _EXACT_IN_FLOAT32 - 1:
        return numbers
    return list(range(1, len(categories) + 1))


def _coded(name: str, numbers: np.ndarray, codes: dict[int, str | None]) -> AddedChannel:
    """Return a channel of codes, with the next free code for missing labels."""
    missing = np.isnan(numbers)
    if missing.any():
        beyond = max(codes, default=0) + 1
        numbers = np.where(missing, beyond, numbers)
        codes = {**codes, beyond: None}
    return AddedChannel(name, numbers, codes)


Pairs = list[tuple[str, str]]
"""Keywords and values, in order and in their spelling."""

_HEADER_SIZE = 58
_MOST_IN_HEADER = 99_999_999
_WIDEST = 20
_DELIMITERS = "\x0c|/\\!~#@\x1e\x1f" + "".join(map(chr, range(1, 127)))

CRC = b"00000000"
"""End of a data set: a checksum that was not computed."""


def set_keywords(pairs: Pairs, values: dict[str, str]) -> Pairs:
    """Replace values of keywords (case does not matter) in place, and append new keywords."""
    wanted = {key.upper(): (key, value) for key, value in values.items()}
    changed = [
        (key, wanted[key.upper()][1] if key.upper() in wanted else value) for key, value in pairs
    ]
    there = {key.upper() for key, _ in pairs}
    return changed + [pair for key, pair in wanted.items() if key not in there]


def add_codes(pairs: Pairs, added: Sequence[AddedChannel], preferred: str) -> tuple[Pairs, str]:
    """Add the list of computed channels and the tables of codes.

    Return all pairs, and a delimiter that occurs in none of them: not all readers understand
    escaped delimiters.
    """
    coded = [channel for channel in added if channel.codes is not None]
    # channels that were added earlier are listed as well, unless they were dropped
    said = ",".join(value for key, value in pairs if key.upper() == ADDED_KEYWORD).split(",")
    there = {value.strip() for key, value in pairs if re.fullmatch(r"\$P\d+N", key.upper())}
    computed = [name.strip() for name in (*said, *(channel.name for channel in added))]
    names = ",".join(dict.fromkeys(name for name in computed if name in there))
    pairs = set_keywords(pairs, {ADDED_KEYWORD: names}) if names else pairs
    used = set(ascii_letters + digits + "$ " + (TABLE_MARKS if coded else ""))
    used = used.union(*(text for pair in pairs for text in pair))
    delimiter = next((d for d in preferred + _DELIMITERS if d not in used), None)
    if delimiter is None:
        raise ValueError("The keywords hold every character that could delimit them.")
    return set_keywords(pairs, dict(channel.keyword(delimiter) for channel in coded)), delimiter


def encode_head(
    version: str, pairs: Pairs, n_bytes: int, *, delimiter: str, encoding: str = "utf-8"
) -> bytes:
    """Return all bytes before DATA: HEADER, TEXT and padding.

    Parameters
    ----------
    version
        FCS version, as ``FCS3.1``.
    pairs
        Keywords and values; the offsets of segments are set here.
    n_bytes
        Size of DATA, which follows directly.
    delimiter
        A character that occurs in none of the pairs, see :func:`add_codes`.
    encoding
        Encoding of TEXT.
    """
    pairs = set_keywords(pairs, {"$NEXTDATA": "0"})
    places = _segment_offsets("9" * _WIDEST, "9" * _WIDEST)
    if version == "FCS2.0":
        there = {key.upper() for key, _ in pairs}
        places = {key: value for key, value in places.items() if key in there}

    # DATA begins where it would with the widest possible offsets
    widest = _encode_text(set_keywords(pairs, places), delimiter, encoding)
    first = _HEADER_SIZE + len(widest)
    last = first + n_bytes - 1
    values = _segment_offsets(str(first), str(last))
    text = _encode_text(
        set_keywords(pairs, {key: values[key] for key in places}), delimiter, encoding
    )

    in_header = (first, last) if last <= _MOST_IN_HEADER else (0, 0)
    offsets = (_HEADER_SIZE, _HEADER_SIZE + len(text) - 1, *in_header, 0, 0)
    header = f"{version}    " + "".join(f"{offset:>8}" for offset in offsets)
    return header.encode("ascii") + text.ljust(len(widest))


def _segment_offsets(first: str, last: str) -> dict[str, str]:
    return {
        "$BEGINANALYSIS": "0",
        "$ENDANALYSIS": "0",
        "$BEGINSTEXT": "0",
        "$ENDSTEXT": "0",
        "$BEGINDATA": first,
        "$ENDDATA": last,
    }


def _encode_text(pairs: Pairs, delimiter: str, encoding: str) -> bytes:
    # no value may be empty: its two delimiters would mean an escaped one
    fields = [field for key, value in pairs for field in (key, value or " ")]
    return (delimiter + "".join(field + delimiter for field in fields)).encode(encoding)


def exceeds_header(start: bytes, n_bytes: int) -> bool:
    """Whether DATA ends beyond the eight digits of the offsets in HEADER."""
    return len(start) + n_bytes - 1 > _MOST_IN_HEADER
