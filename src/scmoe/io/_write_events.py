"""Write the events of an FCS file: copied from the original file, or encoded from values."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pandas as pd
from scipy import sparse

from scmoe._core.keys import Key
from scmoe._core.text import listing
from scmoe._core.values import fcs_keywords

from ._dataset import FCSDataset, file_sha256, open_dataset
from ._errors import printable
from ._files import open_source, text_path
from ._keywords import BLANKS
from ._values import LITTLE, encode_values
from ._write_text import CRC, Pairs, add_codes, encode_head, exceeds_header, set_keywords

if TYPE_CHECKING:
    from anndata import AnnData

    from ._layout import Place
    from ._text import Text
    from ._write_text import AddedChannel


logger = logging.getLogger("scmoe")


_CHUNK = 100_000
_BITS = {"I": 32, "F": 32, "D": 64}
_MODERN = ("FCS3.1", "FCS3.2")
_EXACT_IN_FLOAT32 = 2**24

# keywords that the values, the channels or this writer set
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


@dataclass(frozen=True)
class Original:
    """A data set of an original file that has not changed since it was read."""

    path: Path
    dataset: int
    offsets: str = "auto"


class CannotAppendError(Exception):
    """Raised for an original file whose storage takes no further channels."""


def find_original(
    record: Mapping[str, Any],
    source: str | PathLike[str] | None,
    known: dict[Path, str],
) -> Original | None:
    """Find the original file of a record of the reader; None if it is gone.

    `known` caches the SHA-256 of files.

    Raises
    ------
    ValueError
        If the file has another SHA-256 than the record.
    FileNotFoundError
        If the file is not in `source`.
    """
    candidates = []
    for spell in (str, text_path):
        recorded, name = Path(spell(str(record["path"]))), spell(str(record["file"]))
        if source is None:
            candidates.append(recorded)
        else:
            folder = Path(source)
            candidates += [folder, folder / name, folder / recorded.parent.name / name]
    found = [path for path in dict.fromkeys(candidates) if path.is_file()]
    for path in found:
        if path not in known:
            known[path] = file_sha256(path)
        if known[path] == str(record["sha256"]):
            return Original(path, int(record["dataset"]), str(record.get("offsets", "auto")))
    if found:
        raise ValueError(
            f"{found[0]} is not the file that the cells were read from, or has changed since: "
            "its SHA-256 is another one. Say where the original is with `source=`, or write the "
            "values of a layer with `layer=`."
        )
    if source is not None:
        raise FileNotFoundError(f"There is no {name} in {source}")
    return None


def original_writer(
    original: Original,
    events: np.ndarray,
    rows: np.ndarray,
    added: Sequence[AddedChannel],
    notes: Mapping[str, str],
) -> Callable[[BinaryIO], None]:
    """Return a function that copies events of a file byte by byte, with channels appended.

    Parameters
    ----------
    original
        The original file.
    events
        Numbers of the events, in the order of writing.
    rows
        Positions of their cells in the values of `added`.
    added
        Channels to append, in the data type of the file.
    notes
        Additional keywords.

    Raises
    ------
    CannotAppendError
        If channels cannot be appended, since the file is packed by bits or ASCII.
    ValueError
        If the file has no such events, or its data type cannot hold a channel.
    """
    data = open_dataset(original.path, dataset=original.dataset, offsets=original.offsets)
    text, place, channels = data.text, data.place, data.names
    order, kind = _added_storage(text, place)
    events = _checked_events(events, place.n_events, original.path)
    clash = [channel.name for channel in added if channel.name in channels]
    if clash:
        raise ValueError(
            f"`obs` names {listing(clash)}, and {original.path} has channels called so; rename "
            "the columns."
        )
    gains = [_stored_gain(channel, kind) for channel in added]
    size = _BITS[kind] // 8
    pairs = _appended_pairs(data, added, gains, kind, notes, n_events=len(rows))
    order = order or LITTLE
    width = place.size // place.n_events
    n_bytes = len(rows) * (width + len(added) * size)
    start = _head_like_original(data, pairs, added, n_bytes)

    def write(handle: BinaryIO) -> None:
        handle.write(start)
        with open_source(original.path) as source:
            stored = source.array(place.start, place.size).reshape(place.n_events, width)
        for begin in range(0, len(rows), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            parts = [stored[events[chunk]]]
            for channel, gain in zip(added, gains, strict=True):
                values = channel.values[rows[chunk]] * gain
                values = np.rint(values) if kind == "I" else values
                parts.append(encode_values(values, kind, size, order))
            handle.write(np.concatenate(parts, axis=1).tobytes())
        handle.write(CRC)

    return write


def _encoding(data: FCSDataset) -> str:
    """Return the encoding of TEXT: UTF-8, else Latin-1, as for the reader."""
    first, last = data.text.header.text
    with open_source(data.path) as source:
        raw = source.read(data.text.offset + first, data.text.offset + last + 1)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _checked_events(events: np.ndarray, n_events: int, path: Path) -> np.ndarray:
    numbers = np.asarray(events, dtype=np.float64)
    bad = ~((numbers >= 0) & (numbers < n_events) & (numbers == np.floor(numbers)))
    if bad.any():
        raise ValueError(
            f".obs[{Key.obs.EVENT!r}] holds {events[bad][0]!r}, which is not an event of {path}: "
            f"that has events 0 to {n_events - 1}."
        )
    return numbers.astype(np.int64)


def _added_storage(text: Text, place: Place) -> tuple[tuple[int, ...] | None, str]:
    """Return the byte order and data type of appended channels."""
    layout = place.layout
    kind = text.keywords.need("$DATATYPE").upper()
    if layout.packed:
        raise CannotAppendError("its integers follow one another bit by bit")
    if kind not in _BITS:
        raise CannotAppendError("its values are ASCII")
    one_way = layout.little or layout.big
    if not one_way and len(layout.order) != _BITS[kind] // 8:
        raise CannotAppendError("its bytes have an order that says nothing of other widths")
    return layout.order, kind


def _stored_gain(channel: AddedChannel, kind: str) -> int:
    if kind == "I":
        return channel.gain()
    channel.check_float(_BITS[kind])
    return 1


def _appended_pairs(
    data: FCSDataset,
    added: Sequence[AddedChannel],
    gains: Sequence[int],
    kind: str,
    notes: Mapping[str, str],
    *,
    n_events: int,
) -> Pairs:
    """Return the keywords of the original file and of the appended channels."""
    n = len(data.names)
    pairs = _kept_pairs(data.text.pairs, n)
    for i, (channel, gain) in enumerate(zip(added, gains, strict=True), start=n + 1):
        pairs += _channel_pairs(i, channel, kind, gain)
    changed = {"$PAR": str(n + len(added)), "$TOT": str(n_events), **_stored_widths(data), **notes}
    if data.place.layout.order is None:
        # every value of the original is one byte, so any byte order fits
        changed["$BYTEORD"] = ",".join(map(str, LITTLE))
    said = data.text.keywords.get("$ORIGINALITY", "").strip().lower()
    if said in ("original", "nondatamodified"):
        changed["$ORIGINALITY"] = "Appended"
    return set_keywords(pairs, changed)


def _kept_pairs(pairs: Pairs, n: int) -> Pairs:
    """Drop values without a keyword, and keywords of channels beyond the last one."""
    kept = []
    for spelt, value in pairs:
        key = spelt.strip(BLANKS)
        of_channel = re.fullmatch(r"\$?P(\d{1,9})[A-Z]+", key.upper())
        if key and (of_channel is None or int(of_channel[1]) <= n):
            kept.append((key if key[0] == "$" else spelt, value))
    return kept


def _stored_widths(data: FCSDataset) -> dict[str, str]:
    """Return the stored width as ``$PnB`` for channels where the file states another one."""
    stated = {f"$P{i}B": c.bits for i, c in enumerate(data.place.layout.columns, start=1)}
    keywords = data.text.keywords
    return {key: str(bits) for key, bits in stated.items() if keywords.integer(key) != bits}


def _channel_pairs(i: int, channel: AddedChannel, kind: str, gain: int) -> Pairs:
    if kind == "I":
        # readers mask the bits from $PnR up, so it must be a power of two
        values = 1 << max(round(channel.largest() * gain).bit_length(), 1)
    else:
        values = math.floor(max(channel.largest(), 0)) + 1
    pairs = [
        (f"$P{i}N", channel.name),
        (f"$P{i}B", str(_BITS[kind])),
        (f"$P{i}E", "0,0"),
        (f"$P{i}R", str(values)),
    ]
    return pairs if gain == 1 else [*pairs, (f"$P{i}G", str(gain))]


def _head_like_original(
    original: FCSDataset, pairs: Pairs, added: Sequence[AddedChannel], n_bytes: int
) -> bytes:
    """Return HEADER and TEXT in the version of the original, or as FCS 3.1 if needed."""
    version, encoding = original.version, _encoding(original)
    needs_unicode = not all(channel.name.isascii() for channel in added)
    if needs_unicode or max(map(ord, "".join(text for pair in pairs for text in pair))) > 255:
        encoding = "utf-8"

    def made(version: str, pairs: Pairs) -> bytes:
        every, free = add_codes(pairs, added, original.text.delimiter)
        return encode_head(version, every, n_bytes, delimiter=free, encoding=encoding)

    start = made(version, pairs)
    too_far = version == "FCS2.0" and exceeds_header(start, n_bytes)
    if too_far or (needs_unicode and version not in _MODERN):
        why = "so many bytes" if too_far else "names that are not ASCII"
        logger.warning("written as FCS3.1: %s cannot hold %s", version, why)
        start = made("FCS3.1", set_keywords(pairs, {"SCMOE_ORIGINAL_VERSION": version}))
    return start


def values_writer(
    adata: AnnData,
    rows: np.ndarray,
    values: Any,
    added: Sequence[AddedChannel],
    *,
    record: Mapping[str, Any] | None,
    compensated: bool,
    notes: Mapping[str, str],
) -> Callable[[BinaryIO], None]:
    """Return a function that writes some rows of a matrix, with channels appended.

    Parameters
    ----------
    adata
        AnnData with the names of the channels.
    rows
        Positions of the cells to write.
    values
        Cells x channels, of all cells.
    added
        Channels to append.
    record
        Record of the file that the cells come from, if known; its keywords are kept.
    compensated
        Whether the values are compensated, so that the spillover matrix no longer applies.
    notes
        Additional keywords.
    """
    # rows of a sample are mostly contiguous, and `values` may be a zarr array on disk
    first = rows.min()
    values = values[first : rows.max() + 1][rows - first]
    kind = "D" if _needs_double(values) else "F"
    size = 8 if kind == "D" else 4
    for channel in added:
        channel.check_float(8 * size)
    channels = _channel_names(adata)
    clash = [channel.name for channel in added if channel.name in channels]
    if clash:
        raise ValueError(f"`obs` names {listing(clash)}, and there are channels called so.")
    n = len(channels) + len(added)
    tops = [*_largest_values(values), *(channel.largest() for channel in added)]
    names = [*channels, *(channel.name for channel in added)]
    markers = [*_markers(adata, channels), *("" for _ in added)]
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
    pairs, delimiter = add_codes(set_keywords(pairs, notes), added, "\x0c")
    start = encode_head("FCS3.1", pairs, len(rows) * n * size, delimiter=delimiter)

    def write(handle: BinaryIO) -> None:
        handle.write(start)
        for begin in range(0, len(rows), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            block = values[chunk]
            block = block.toarray() if sparse.issparse(block) else np.asarray(block)
            columns = [channel.values[rows[chunk], None] for channel in added]
            every = np.concatenate([block, *columns], axis=1)
            handle.write(encode_values(every, kind, size, LITTLE).tobytes())
        handle.write(CRC)

    return write


def _needs_double(values: Any) -> bool:
    if values.dtype.kind == "f":
        return values.dtype.itemsize > 4
    return values.size > 0 and abs(values).max() > _EXACT_IN_FLOAT32


def _largest_values(values: Any) -> list[float]:
    """Return the largest finite value of each channel; 0 if there is none."""
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
    """Return the keywords of a file that are still valid, with the new numbers of channels."""
    keywords = fcs_keywords(record) if "keywords" in record else {}
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
