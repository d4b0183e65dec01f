"""A builder of FCS files, byte by byte, for files that no instrument should write."""

from __future__ import annotations

import numpy as np
import pytest


def build_fcs(
    events,
    channels,
    *,
    markers=None,
    version="FCS3.0",
    datatype="F",
    bits=None,
    order="<",
    delimiter="/",
    keywords=None,
    drop=(),
    late=0,
    header_data=None,
    text_data=None,
    data=None,
    pad=0,
    supplement=None,
    raw_text="",
    tail="",
    encoding="utf-8",
):
    """Return the bytes of a file.

    ``late`` is added to the end of DATA wherever it is said; ``header_data`` and
    ``text_data`` shift what HEADER and TEXT say (first, last); ``data`` replaces the bytes of
    DATA; ``drop`` names keywords that are left out; ``supplement`` are keywords of a
    supplemental TEXT behind DATA; ``raw_text`` stands before the first keyword as it is and
    ``tail`` behind the last delimiter. Delimiters within values are doubled.
    """
    events = np.asarray(events, dtype=float)
    n = len(channels)
    bits = bits or [64 if datatype == "D" else 32] * n
    if data is None:
        data = b""
        for row in events:
            for value, width in zip(row, bits, strict=True):
                if datatype == "I":
                    data += int(value).to_bytes(width // 8, "little" if order == "<" else "big")
                else:
                    data += np.array(value, dtype=f"{order}f{width // 8}").tobytes()
    pairs = {
        "$BEGINANALYSIS": "0",
        "$ENDANALYSIS": "0",
        "$BEGINDATA": "{first:>10}",
        "$ENDDATA": "{last:>10}",
        "$BYTEORD": "1,2,3,4" if order == "<" else "4,3,2,1",
        "$DATATYPE": datatype,
        "$MODE": "L",
        "$NEXTDATA": "0",
        "$PAR": str(n),
        "$TOT": str(len(events)),
    }
    for i, channel in enumerate(channels, start=1):
        pairs |= {f"$P{i}N": channel, f"$P{i}B": str(bits[i - 1]), f"$P{i}E": "0,0"}
        pairs[f"$P{i}R"] = str(2 ** bits[i - 1]) if datatype == "I" else "262144"
        if markers and markers[i - 1]:
            pairs[f"$P{i}S"] = markers[i - 1]
    pairs |= keywords or {}
    for key in drop:
        del pairs[key]

    def joined(table):
        pieces = [piece.replace(delimiter, 2 * delimiter) for pair in table for piece in pair]
        return delimiter + "".join(piece + delimiter for piece in pieces)

    if supplement:
        pairs |= {"$BEGINSTEXT": "{more:>10}", "$ENDSTEXT": "{end:>10}"}
    text = delimiter + raw_text + joined(pairs.items())[1:] + tail
    more = joined(supplement.items()).encode(encoding) if supplement else b""
    begin = 58
    length = len(_fill(text, 0, 0, 0, 0).encode(encoding))
    first = begin + length
    last = first + len(data) - 1 + late
    in_header = np.add((first, last), header_data or (0, 0))
    in_text = np.add((first, last), text_data or (0, 0))
    end = first + len(data)
    text = _fill(text, *in_text, end, end + len(more) - 1).encode(encoding)
    header = f"{version}    {begin:>8}{begin + length - 1:>8}{in_header[0]:>8}{in_header[1]:>8}"
    return (header + f"{0:>8}{0:>8}").encode() + text + data + more + b" " * pad


def _fill(text, first, last, more, end):
    for name, value in {"first": first, "last": last, "more": more, "end": end}.items():
        text = text.replace(f"{{{name}:>10}}", f"{value:>10}")
    return text


@pytest.fixture
def make_fcs(tmp_path):
    """Write a file that ``build_fcs`` made and return its path."""

    def make(name="cells.fcs", events=((1, 2), (3, 4), (5, 6)), channels=("A", "B"), **kwargs):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(build_fcs(events, list(channels), **kwargs))
        return path

    return make


@pytest.fixture
def make_chain(make_fcs, tmp_path):
    """Write a file of several data sets, each of its events, and return its path."""

    def make(name, *data_sets, last="0", versions=None, markers=None):
        raw = b""
        for k, events in enumerate(data_sets):
            part = make_fcs(
                "part",
                events=events,
                keywords={"$NEXTDATA": "{step:>9}"},
                version=versions[k] if versions else "FCS3.0",
                markers=markers[k] if markers else None,
            )
            one = part.read_bytes()
            step = last if k == len(data_sets) - 1 else str(len(one))
            raw += one.replace(b"{step:>9}", f"{step:>9}".encode())
            part.unlink()
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return path

    return make
