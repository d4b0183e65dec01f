"""An FCS file of the values of AnnData: floats, FCS 3.1, where no original is at hand."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pandas as pd
from scipy import sparse

from scmoe._core.keys import Key
from scmoe._core.text import listing

from ._compose import CRC, Pairs, head, replace, with_codes
from ._encode import LITTLE, as_bytes
from ._errors import printable
from ._record import keywords_of

if TYPE_CHECKING:
    from anndata import AnnData

    from ._extra import Extra

_CHUNK = 100_000
_EXACT_IN_FLOAT32 = 2**24

# what the values, the channels or this writer say anew
_LAYOUT = re.compile(
    r"(begin|end)(data|analysis|stext)|nextdata|par|tot|mode|datatype|byteord|unicode|timestep"
    r"|spillover|spill|comp|originality|scmoe_(version|events|original_version)"
)
_OF_CHANNEL = re.compile(r"p(\d+)([a-z]+)")
_LAYOUT_OF_CHANNEL = ("b", "e", "g", "r", "n", "s", "d", "datatype", "display")
_STANDARD_OF_CHANNEL = re.compile("[floptv]|calibration|analyte|feature|tag|type|det")
_STANDARD = re.compile(
    r"abrt|btim|carrier(id|type)|cells|com|csmode|cstot|csvbits|cyt|cytsn|date|(begin|end)datetime"
    r"|etim|exp|fil|flowrate|gate|gating|inst|last_modifie[dr]|locationid|lost|op|plate(id|name)"
    r"|proj|smno|src|sys|tr|dfc\d+to\d+|unstained(centers|info)|vol|wellid"
)


def plain_writer(
    adata: AnnData,
    rows: np.ndarray,
    values: Any,
    extras: Sequence[Extra],
    *,
    record: Mapping[str, Any] | None,
    compensated: bool,
    notes: Mapping[str, str],
) -> Callable[[BinaryIO], None]:
    """Return what writes some rows of a matrix and the extra channels.

    Parameters
    ----------
    adata
        For the names of the channels.
    rows
        Positions of the cells.
    values
        Cells x channels, of all cells.
    extras
        Channels that are appended.
    record
        What was known of the file that the cells come from; its keywords are kept.
    compensated
        Whether the values are, so that the spillover is no longer theirs.
    notes
        Keywords of this writer.
    """
    # those of a sample mostly lie together, and may be in an array of zarr
    first = rows.min()
    values = values[first : rows.max() + 1][rows - first]
    kind = "D" if _needs_double(values) else "F"
    size = 8 if kind == "D" else 4
    for extra in extras:
        extra.check_float(8 * size)
    channels = _channel_names(adata)
    clash = [extra.name for extra in extras if extra.name in channels]
    if clash:
        raise ValueError(f"`obs` names {listing(clash)}, and there are channels called so.")
    n = len(channels) + len(extras)
    tops = [*_tops(values), *(extra.top() for extra in extras)]
    names = [*channels, *(extra.name for extra in extras)]
    markers = [*_markers(adata, channels), *("" for _ in extras)]
    pairs: Pairs = [
        ("$BYTEORD", ",".join(map(str, LITTLE))),
        ("$DATATYPE", kind),
        ("$MODE", "L"),
        ("$PAR", str(n)),
        ("$TOT", str(len(rows))),
    ]
    for i, (name, marker, top) in enumerate(zip(names, markers, tops, strict=True), start=1):
        pairs += [(f"$P{i}N", name), (f"$P{i}B", str(8 * size)), (f"$P{i}E", "0,0")]
        pairs += [(f"$P{i}R", str(math.floor(max(top, 0)) + 1))]
        pairs += [(f"$P{i}S", marker)] if marker else []
    if record is not None:
        pairs += _kept_keywords(record, channels)
        pairs += [] if compensated else _kept_spillover(record, channels)
    pairs, delimiter = with_codes(replace(pairs, notes), extras, "\x0c")
    start = head("FCS3.1", pairs, len(rows) * n * size, delimiter=delimiter)

    def write(handle: BinaryIO) -> None:
        handle.write(start)
        for begin in range(0, len(rows), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            block = values[chunk]
            block = block.toarray() if sparse.issparse(block) else np.asarray(block)
            added = [extra.values[rows[chunk], None] for extra in extras]
            every = np.concatenate([block, *added], axis=1)
            handle.write(as_bytes(every, kind, size, LITTLE).tobytes())
        handle.write(CRC)

    return write


def _needs_double(values: Any) -> bool:
    if values.dtype.kind == "f":
        return values.dtype.itemsize > 4
    return values.size > 0 and abs(values).max() > _EXACT_IN_FLOAT32


def _tops(values: Any) -> list[float]:
    """Return the largest finite value of each channel, 0 for none."""
    if sparse.issparse(values):
        return [float(top) for top in values.max(axis=0).toarray().ravel()]
    values = np.asarray(values)
    return np.max(values, axis=0, initial=0, where=np.isfinite(values)).astype(float).tolist()


def _channel_names(adata: AnnData) -> list[str]:
    names = adata.var_names
    if Key.var.CHANNEL in adata.var and adata.var[Key.var.CHANNEL].is_unique:
        names = adata.var[Key.var.CHANNEL].where(adata.var[Key.var.CHANNEL].notna(), names)
    names = [str(name) for name in names]
    bad = [name for name in names if "," in name or not name.strip() or not name.isprintable()]
    if bad:
        raise ValueError(
            f"These cannot name channels of an FCS file, because they are blank, or have a comma "
            f"or a control character in them: {listing(bad)}. Rename them in .var."
        )
    return names


def _markers(adata: AnnData, channels: list[str]) -> list[str]:
    if Key.var.MARKER in adata.var:
        names = [str(m).strip() if pd.notna(m) else "" for m in adata.var[Key.var.MARKER]]
        bad = [name for name in names if printable(name) != name.replace("\xa0", " ")]
        if bad:
            raise ValueError(
                "These cannot name markers of an FCS file, because they have a control character "
                f"in them: {listing(bad)}. Rename them in .var[{Key.var.MARKER!r}]."
            )
        return names
    return [n if n != c else "" for n, c in zip(map(str, adata.var_names), channels, strict=True)]


def _kept_keywords(record: Mapping[str, Any], channels: list[str]) -> Pairs:
    """Return the keywords of a file that still hold, those of channels by their new numbers."""
    keywords = keywords_of(record) if "keywords" in record else {}
    numbers = {
        key[1:-1]: str(channels.index(printable(value.strip())) + 1)
        for key, value in keywords.items()
        if re.fullmatch(r"p\d+n", key) and printable(value.strip()) in channels
    }
    kept = []
    for key, value in keywords.items():
        of_channel = _OF_CHANNEL.fullmatch(key)
        if _LAYOUT.fullmatch(key) or not value.strip():
            continue
        if of_channel is None:
            kept.append((f"${key.upper()}" if _STANDARD.fullmatch(key) else key.upper(), value))
            continue
        number, what = of_channel.groups()
        if number in numbers and what not in _LAYOUT_OF_CHANNEL:
            standard = "$" if _STANDARD_OF_CHANNEL.fullmatch(what) else ""
            kept.append((f"{standard}P{numbers[number]}{what.upper()}", value))
    return kept


def _kept_spillover(record: Mapping[str, Any], channels: list[str]) -> Pairs:
    matrix = record.get("spillover")
    if matrix is None or not set(matrix.index) <= set(channels):
        return []
    values = ",".join(repr(float(value)) for value in matrix.to_numpy().ravel())
    return [("$SPILLOVER", f"{len(matrix)},{','.join(matrix.index)},{values}")]
