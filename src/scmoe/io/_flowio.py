"""One FCS file: parsed by flowio, checked, and repaired where one reading alone is possible."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from flowio import FlowData
from flowio.exceptions import FCSParsingError, FlowIOException

from . import _data
from ._channels import channel_kind, is_mass_cytometer, variable_names
from ._errors import FCSReadError
from ._spillover import parse_spillover

VERSIONS = ("FCS2.0", "FCS3.0", "FCS3.1", "FCS3.2")
_HEADER_SIZE = 58
_MAX_DATA_SETS = 1000

_BROKEN = (
    FlowIOException,
    ValueError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    EOFError,
    OSError,
    re.error,
    struct.error,
)
"""Whatever flowio, or numpy on its behalf, raises on bytes that are not as they should be."""


@dataclass
class FCSFile:
    """What a file holds."""

    path: Path
    values: np.ndarray
    """Events x channels, on the linear scale."""
    var: pd.DataFrame
    """One row a channel: ``channel, marker, kind, PnB, PnE, PnG, PnR``."""
    keywords: dict[str, str]
    """The TEXT segment: lower case, without the leading ``$``."""
    spillover: pd.DataFrame | None
    repairs: list[str] = field(default_factory=list)
    """What disagreed with the standard, and how it was read."""


def read_file(path: Path, *, dataset: int = 0, dtype: str = "float32") -> FCSFile:
    """Read one data set of one file.

    Raises
    ------
    FCSReadError
        If the file cannot be read, or can be read in more than one way.
    """
    try:
        return _read(path, dataset, np.dtype(dtype))
    except (FileNotFoundError, FCSReadError):
        raise
    except KeyError as error:
        keyword = f"${str(error.args[0]).upper()}"
        reason = f"the keyword {keyword} is missing, or the TEXT segment is damaged"
        raise FCSReadError(path, reason) from error
    except FlowIOException as error:
        reason = str(error).removeprefix(path.name).strip()
        raise FCSReadError(path, reason) from error
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        if type(error) not in (ValueError, NotImplementedError):
            reason = f"the file is damaged ({type(error).__name__}: {error})"
        raise FCSReadError(path, reason) from error


def _read(path: Path, dataset: int, dtype: np.dtype) -> FCSFile:
    size = path.stat().st_size
    repairs: list[str] = []
    offset = _find_data_set(path, size, dataset, repairs)
    parsed = _parse_text(path, size, offset)
    keywords = parsed.text

    n_events, n_channels = parsed.event_count, parsed.channel_count
    if n_events < 0:
        raise ValueError(f"$TOT is {n_events}")
    names = [parsed.channels[i]["pnn"].strip() for i in _numbers(parsed, n_channels)]
    unnamed = [f"$P{i}N" for i, name in enumerate(names, start=1) if not name]
    if unnamed:
        raise ValueError(f"channels without a name: {', '.join(unnamed)} blank")
    if keywords["mode"].strip().upper() != "L":
        raise ValueError(f"$MODE is {keywords['mode']!r}; only list mode (L) can be read")

    layout = _data.columns(keywords, parsed.version, n_channels, repairs)
    order = _data.byte_order(keywords)
    needed = n_events * sum(column.size for column in layout)
    start = _data.locate(_segments(parsed), needed, size - offset, repairs)
    raw = _data.decode(path, offset + start, n_events, layout, order)
    values = _scale(parsed, raw, layout, repairs).astype(dtype, copy=False)

    var = _channel_table(parsed, names)
    _note_non_finite(values, var.index, repairs)
    try:
        spillover = parse_spillover(keywords, names)
    except ValueError as error:
        spillover = None
        repairs.append(f"the spillover matrix was left out: {error}")
    return FCSFile(path, values, var, dict(keywords), spillover, repairs)


def _find_data_set(path: Path, size: int, dataset: int, repairs: list[str]) -> int:
    """Return the first byte of a data set, and note that there are several."""
    offsets = [0]
    while len(offsets) < _MAX_DATA_SETS:
        try:
            step = int(_parse_text(path, size, offsets[-1]).text.get("nextdata", "0"))
        except _BROKEN:
            if len(offsets) - 1 <= dataset:
                raise
            repairs.append(f"data set {len(offsets) - 1} (counted from 0) is damaged; not read")
            break
        if step == 0:
            break
        if step < 0 or offsets[-1] + step >= size:
            repairs.append(f"$NEXTDATA is {step}, outside the file; taken as the end")
            break
        offsets.append(offsets[-1] + step)
    if dataset >= len(offsets):
        raise ValueError(
            f"there is no data set {dataset}: the file holds {len(offsets)}, counted from 0"
        )
    if len(offsets) > 1:
        repairs.append(
            f"the file holds {len(offsets)} data sets; number {dataset} (counted from 0) was "
            "read, `dataset=` chooses another"
        )
    return offsets[dataset]


def _parse_text(path: Path, size: int, offset: int) -> FlowData:
    """Let flowio read HEADER and TEXT of the data set at a byte of the file."""
    with path.open("rb") as handle:
        handle.seek(offset)
        _check_header(handle.read(_HEADER_SIZE), size - offset)
        # which offsets of DATA are right is settled by `_data.locate`, so flowio is told to
        # take either; it still refuses those that point behind the end of the file
        try:
            return FlowData(
                handle, only_text=True, use_header_offsets=True, nextdata_offset=offset
            )
        except FCSParsingError:
            with path.open("rb") as again:
                return FlowData(
                    again, only_text=True, ignore_offset_discrepancy=True, nextdata_offset=offset
                )


def _check_header(header: bytes, size: int) -> None:
    if not header:
        raise ValueError("the file is empty")
    version = header[:6].decode("latin-1")
    if version not in VERSIONS:
        if version.startswith("FCS"):
            raise ValueError(f"version {version} is not one of {', '.join(VERSIONS)}")
        raise ValueError(f"this is no FCS file: it starts with {version!r}")
    if len(header) < _HEADER_SIZE:
        raise ValueError(f"the file ends within the HEADER, after {len(header)} bytes")
    first, last = header[10:18], header[18:26]
    try:
        inside = _HEADER_SIZE <= int(first) < int(last) < size
    except ValueError:
        inside = False
    if not inside:
        raise ValueError(
            f"HEADER says that TEXT lies at bytes {first.decode('latin-1').strip()!r} to "
            f"{last.decode('latin-1').strip()!r} of {size}"
        )
    data = header[26:42].decode("latin-1")
    try:
        int(data[:8]), int(data[8:])
    except ValueError:
        raise ValueError(f"HEADER gives {data!r} as the place of DATA, not two numbers") from None


def _numbers(parsed: FlowData, n_channels: int) -> list[int]:
    """Return 1 to ``$PAR`` if these and no others are the channels that have a name."""
    named = sorted(parsed.channels)
    if n_channels < 1:
        raise ValueError(f"$PAR is {n_channels}")
    if len(named) != n_channels or named != list(range(1, n_channels + 1)):
        raise ValueError(f"$PAR is {n_channels}, but $PnN is there for n = {_shorten(named)}")
    return named


def _shorten(numbers: list[int], most: int = 20) -> str:
    text = ", ".join(map(str, numbers[:most])) or "none"
    return f"{text}, ..." if len(numbers) > most else text


def _segments(parsed: FlowData) -> dict[str, tuple[int, int]]:
    """Collect what is said about the place of DATA; FCS 2.0 says it in HEADER only."""
    said = {"HEADER": (parsed.header["data_start"], parsed.header["data_stop"])}
    if parsed.version == "2.0":
        return said
    try:
        return {"TEXT": (int(parsed.text["begindata"]), int(parsed.text["enddata"])), **said}
    except (KeyError, ValueError):
        return said


def _scale(
    parsed: FlowData, raw: np.ndarray, layout: list[_data.Column], repairs: list[str]
) -> np.ndarray:
    """Let flowio apply time step, logarithm and gain."""
    step = parsed.text.get("timestep", "1").strip() or "1"
    if parsed.time_index is not None and not _is_positive(step):
        repairs.append(f"$TIMESTEP is {step!r}, no time: the time channel was not scaled")
        parsed.text["timestep"] = "1"
    ignored = []
    for i, column in enumerate(layout, start=1):
        decades, _ = parsed.channels[i]["pne"]
        if decades > 0 and column.kind != "I":
            ignored.append(i)
            parsed.channels[i]["pne"] = (0.0, 0.0)
        elif decades > 0 and not parsed.channels[i]["pnr"] > 0:
            raise ValueError(f"$P{i}R is {parsed.text[f'p{i}r']!r} on a logarithmic channel")
    if ignored:
        text = "$PnE is logarithmic, but floats are stored on the linear scale: $PnE is ignored"
        repairs.append(_data.per_channel(text, ignored))
    parsed.events = raw.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        return parsed.as_array(preprocess=True)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < np.inf
    except ValueError:
        return False


def _channel_table(parsed: FlowData, names: list[str]) -> pd.DataFrame:
    numbers = range(1, len(names) + 1)
    markers = [parsed.channels[i]["pns"].strip() for i in numbers]
    mass = is_mass_cytometer(names, parsed.text.get("cyt", ""))
    table = {
        "channel": names,
        "marker": markers,
        "kind": [channel_kind(c, m, mass=mass) for c, m in zip(names, markers, strict=True)],
        "PnB": [int(parsed.text[f"p{i}b"]) for i in numbers],
        "PnE": [parsed.text.get(f"p{i}e", "0,0").strip() for i in numbers],
        "PnG": [_number(parsed.text, f"p{i}g", 1.0) for i in numbers],
        "PnR": [parsed.channels[i]["pnr"] for i in numbers],
    }
    return pd.DataFrame(table, index=variable_names(names, markers))


def _number(keywords: Mapping[str, str], key: str, default: float) -> float:
    return float(keywords.get(key, default))


def _note_non_finite(values: np.ndarray, names: pd.Index, repairs: list[str]) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        bad = ", ".join(names[~finite.all(axis=0)])
        repairs.append(f"{(~finite).sum()} values are not finite and were kept, in: {bad}")
