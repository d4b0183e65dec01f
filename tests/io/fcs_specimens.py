"""FCS files over the whole format, and the numbers that are in them.

A specimen is a description of a file; ``build`` makes its bytes. All chance comes from the
generator that is handed in, so that a seed is a file.
"""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass, field
from random import Random

VERSIONS = ("FCS2.0", "FCS3.0", "FCS3.1", "FCS3.2")
NAMES = (
    "FSC-A", "SSC-H", "FL1-A", "Time", "TIME", "CD3", "Ir(191)Di", "Pe/Cy7", "B 525", "A$", "x",
    "Nd142Di", "FITC, high", "Event_length", "µm", "p1n",
)  # fmt: skip
REMARKS = (
    ("$CYT", "LSR II"), ("$FIL", "a b.fcs"), ("$COM", "cost $5"), ("GUID", "1-2-3"), ("$SYS", "π"),
    ("CREATOR", "a/b//c"), ("P1DISPLAY", "LOG"), ("$P9V", "300"), ("par", "7"), ("tot", "99"),
    ("$DATE", "01-JAN-2020"), ("$OP", "Ren\xe9"), ("P1G", "64"), ("x", "\\|!^.?+*[]()"),
    ("$LAST_MODIFIED", "\t7 o'clock "), ("$EXP", "a\r\nb"), ("APPLY COMPENSATION", "TRUE"),
    ("$DFC1TO2", "20"), ("$DFC2TO1", "3.5"),
)  # fmt: skip
RANGES = (1, 2, 3, 100, 256, 1000, 1024, 65535, 65536, 262144, 2**32, 2**53 + 1, 2**63, 2**64)


@dataclass
class Specimen:
    """A file of one data set, and what is in it."""

    version: str = "FCS3.1"
    delimiter: bytes = b"/"
    text: list[list[str]] = field(default_factory=list)
    """Keywords and values in order; offsets are put in for ``{begin}``, ``{end}`` and so on."""
    supplement: list[list[str]] | None = None
    """Keywords of supplemental TEXT."""
    data: bytes = b""
    values: list[list[float]] = field(default_factory=list)
    """The right answer."""
    names: list[str] = field(default_factory=list)
    scaled: list[bool] = field(default_factory=list)
    spillover: list[list[float]] | None = None
    layout: str = "text data supplement"
    gap: bytes = b""
    """What lies between the segments."""
    tail: bytes = b""
    """What follows the last segment."""
    header_data: str = "same"
    """What HEADER says of DATA: the ``same`` as TEXT, ``zero`` or ``blank``."""
    shift_header: tuple[int, int] = (0, 0)
    shift_text: tuple[int, int] = (0, 0)
    shift_text_segment: tuple[int, int] = (0, 0)
    shift_supplement: tuple[int, int] = (0, 0)
    last_delimiter: bool = True
    raw: tuple[bytes, ...] = ()
    """Pairs of bytes: the first is replaced by the second in TEXT, without any escape."""
    left_aligned: bool = False
    offset_format: str = "{:>12}"
    packed: str = ""
    """``gz`` for a compressed file."""

    def get(self, key: str, default: str = "") -> str:
        """Return the value of a keyword."""
        return next((v for k, v in self.text if k.upper() == key), default)

    def set(self, key: str, value: str | None) -> None:
        """Change, add or (None) drop a keyword."""
        kept = [pair for pair in self.text if pair[0].upper() != key]
        if value is None:
            self.text = kept
        elif len(kept) == len(self.text):
            self.text.append([key, value])
        else:
            self.text = [[k, value if k.upper() == key else v] for k, v in self.text]


def encode(text: str) -> bytes:
    """Latin-1 where it will do, UTF-8 elsewhere."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def segment(pairs: list[list[str]], delimiter: bytes) -> bytes:
    """Return keywords and values as TEXT, without the last delimiter."""
    double = delimiter * 2
    return b"".join(delimiter + encode(x).replace(delimiter, double) for p in pairs for x in p)


def build(specimen: Specimen) -> bytes:
    """Return the bytes of the file."""
    blob = _assembled(specimen)
    return gzip.compress(blob, 1, mtime=0) if specimen.packed == "gz" else blob


def chain(first: Specimen, second: Specimen) -> bytes:
    """Return a file of two data sets."""
    first.set("$NEXTDATA", " " * 8)
    length = len(_assembled(first))
    first.set("$NEXTDATA", f"{length:>8}")
    return _assembled(first) + _assembled(second)


def _assembled(s: Specimen) -> bytes:
    places = dict.fromkeys(("begin", "end", "sbegin", "send"), 0)
    # the offsets take room in TEXT, which moves what they point at
    for _ in range(4):
        text = _text(s.text, s, places)
        if s.last_delimiter:
            text += s.delimiter
        extra = b""
        if s.supplement is not None:
            extra = _text(s.supplement, s, places) + s.delimiter
        segments = {"text": text, "data": s.data, "supplement": extra}
        at, bodies, spans = 58, [], {}
        for name in s.layout.split():
            at += len(s.gap)
            bodies.append(s.gap + segments[name])
            spans[name] = (at, at + len(segments[name]) - 1)
            at += len(segments[name])
        data = spans["data"] if s.data else (0, 0)
        places = {
            "begin": data[0] + s.shift_text[0],
            "end": data[1] + s.shift_text[1],
            "sbegin": spans["supplement"][0] + s.shift_supplement[0] if extra else 0,
            "send": spans["supplement"][1] + s.shift_supplement[1] if extra else 0,
        }
    numbers = [a + b for a, b in zip(spans["text"], s.shift_text_segment, strict=True)]
    header = s.version.encode() + b"    " + b"".join(_offset(s, n) for n in numbers)
    if s.header_data == "same":
        header += b"".join(_offset(s, a + b) for a, b in zip(data, s.shift_header, strict=True))
    else:
        header += _offset(s, 0) * 2 if s.header_data == "zero" else b" " * 16
    return header + _offset(s, 0) * 2 + b"".join(bodies) + s.tail


def _text(pairs: list[list[str]], s: Specimen, places: dict[str, int]) -> bytes:
    filled = [[k, v] for k, v in pairs]
    for pair in filled:
        if pair[1][:1] == "{" and pair[1][1:-1] in places:
            pair[1] = s.offset_format.format(places[pair[1][1:-1]])
    text = segment(filled, s.delimiter)
    for old, new in zip(s.raw[::2], s.raw[1::2], strict=True):
        text = text.replace(old, new)
    return text


def _offset(s: Specimen, number: int) -> bytes:
    return f"{number:<8}".encode() if s.left_aligned else f"{number:>8}".encode()


# -- specimens by chance ----------------------------------------------------------------------


def specimen(rng: Random, *, plain: bool = False, columns=None) -> Specimen:
    """Return a file that obeys the standard.

    Parameters
    ----------
    rng
        Where chance comes from.
    plain
        Only what mutations can be applied to without a second thought: a common delimiter,
        no compression, all offsets in both places.
    columns
        Types (``I``) and bits of the channels, if chance is not to choose them.
    """
    s = Specimen(version=rng.choice(VERSIONS))
    n_channels = rng.randint(1, 4)
    n_events = rng.choice((0, 1, 2, 3, 3, 4, 5)) if not plain else rng.randint(2, 5)
    kind = rng.choice("IIFFD" if plain else "IIIFFFDDA")
    if columns:
        kind, n_channels = "I", len(columns)
    else:
        without_gap = s.version in ("FCS2.0", "FCS3.0") and n_events != 1 and rng.random() < 0.1
        packed = kind == "I" and without_gap
        columns = _columns(rng, s.version, "P" if packed else kind, n_channels)
    s.names = [rng.choice(NAMES) for _ in columns]
    if sum(name.lower() == "time" for name in s.names) > 1:
        s.names = [f"{name}{i}" for i, name in enumerate(s.names)]
    order = _byte_order(rng, s.version, columns)
    if any(kind == "I" and bits % 8 for kind, bits in columns):
        order = [4, 3, 2, 1]
    described = [_channel(rng, s, i, column, kind) for i, column in enumerate(columns, 1)]
    stored = [[draw(rng) for draw, _, _, _ in described] for _ in range(n_events)]
    s.data, kept = _bytes(rng, columns, stored, order)
    step = rng.choice((None, "0.01", "1", "1E-3", "  2")) if s.version != "FCS2.0" else None
    for i, (name, (_, scale, touched, keywords)) in enumerate(
        zip(s.names, described, strict=True), 1
    ):
        s.text += [[f"$P{i}N", name], *keywords]
        s.scaled.append(touched or (name.lower() == "time" and step is not None))
        for row in kept:
            x = row[i - 1]
            if name.lower() == "time" and step is not None:
                x = x * float(step)
            row[i - 1] = scale(x)
    s.values = [[float(x) for x in row] for row in kept]
    if step is not None:
        s.text.append(["$TIMESTEP", step])
    s.text += [
        ["$PAR", str(n_channels)],
        ["$TOT", str(n_events)],
        ["$MODE", "L"],
        ["$DATATYPE", kind],
        ["$BYTEORD", ",".join(map(str, order))],
        ["$NEXTDATA", "0"],
    ]
    if s.version != "FCS2.0":
        s.text += [["$BEGINDATA", "{begin}"], ["$ENDDATA", "{end}"]]
        s.text += [["$BEGINANALYSIS", "0"], ["$ENDANALYSIS", "0"]]
        s.text += [["$BEGINSTEXT", "{sbegin}"], ["$ENDSTEXT", "{send}"]]
    s.text += [list(pair) for pair in rng.sample(REMARKS, rng.randint(0, 4))]
    _add_spillover(rng, s)
    rng.shuffle(s.text)
    _dress(rng, s, plain)
    return s


def _columns(rng: Random, version: str, kind: str, n: int) -> list[tuple[str, int]]:
    """Return type and bits (characters, for ASCII; 0 where they are delimited) by channel."""
    if kind == "P":
        return [("I", rng.choice((10, 12, 4, 20, 8))) for _ in range(n - 1)] + [("I", 10)]
    if kind == "A":
        return [("A", 0)] * n if rng.random() < 0.5 else [("A", rng.randint(1, 9))] * n
    kinds = [kind] * n
    if version == "FCS3.2":
        kinds = [rng.choice((kind, kind, "I", "F", "D")) for _ in range(n)]
    one = rng.choice((8, 16, 16, 24, 32, 32, 64, 40))
    mixed = rng.random() < 0.4
    return [
        (k, {"F": 32, "D": 64}.get(k) or (rng.choice((8, 16, 24, 32, 48, 64)) if mixed else one))
        for k in kinds
    ]


def _byte_order(rng: Random, version: str, columns: list[tuple[str, int]]) -> list[int]:
    widths = {bits for _, bits in columns}
    choices = [[1, 2, 3, 4], [4, 3, 2, 1]]
    if version in ("FCS2.0", "FCS3.0"):
        if widths <= {8, 16}:
            choices += [[1, 2], [2, 1]]
        if widths <= {8, 32}:
            choices += [[3, 4, 1, 2], [2, 4, 1, 3]]
    return rng.choice(choices)


def _channel(rng: Random, s: Specimen, i: int, column: tuple[str, int], default: str):
    """Return how to draw a number, how to scale it, whether that changes it, and keywords."""
    kind, bits = column
    keywords = [[f"$P{i}B", str(bits) if bits else "*"]]
    if kind != default:
        keywords.append([f"$P{i}DATATYPE", kind])
    if rng.random() < 0.3:
        keywords.append([f"$P{i}S", rng.choice(("CD3", "a marker", "CD8/CD4", "Ünal"))])
    top = rng.choice(RANGES) if kind in "IA" else 262144
    if kind == "I":
        top = min(top, 2**bits)
    spelled = str(top) if kind in "IA" or rng.random() < 0.8 else "2.62144e5"
    keywords.append([f"$P{i}R", spelled])
    scale, touched, amplification = _scale(rng, s, i, kind, top, keywords)
    keywords.append([f"$P{i}E", amplification])
    if kind == "F":
        return _draw_single, scale, touched, keywords
    if kind == "D":
        return _draw_double, scale, touched, keywords
    if kind == "A":
        most = 10**bits - 1 if bits else 10**6
        return (lambda r: r.randint(0, most)), scale, touched, keywords
    mask = (1 << (top - 1).bit_length()) - 1
    return (lambda r: (r.getrandbits(bits), mask)), scale, touched, keywords


def _scale(rng, s, i, kind, top, keywords):
    if kind == "I" and top > 1 and s.names[i - 1].lower() != "time" and rng.random() < 0.3:
        decades, offset = rng.choice(((4.0, 1.0), (2.5, 0.1), (5.0, 0.01), (1.0, 10.0)))
        return (
            lambda x: 10 ** (decades * x / top) * offset,
            True,
            f"{decades:g}{rng.choice((',', ', ', ' ,'))}{offset:g}",
        )
    zero = rng.choice(("0,0", "0,0", "0.0,0.0", " 0 , 0 "))
    if s.version == "FCS2.0" or rng.random() < 0.5:
        return (lambda x: x), False, zero
    gain = rng.choice(("1", "1.0", "2", "0.01", "3.7", " 8 ", "1e1"))
    keywords.append([f"$P{i}G", gain])
    if s.names[i - 1].lower() == "time":
        return (lambda x: x), False, zero
    return (lambda x: x / float(gain)), float(gain) != 1, zero


def _draw_single(rng: Random) -> float:
    if rng.random() < 0.1:
        return rng.choice((math.inf, -math.inf, math.nan, -0.0, 2.0**-149, 3.4028234663852886e38))
    return struct.unpack("<f", struct.pack("<f", rng.uniform(-1000, 262144)))[0]


def _draw_double(rng: Random) -> float:
    if rng.random() < 0.1:
        return rng.choice((math.inf, -math.inf, math.nan, -0.0, 5e-324, 1.7976931348623157e308))
    return rng.uniform(-1000, 262144)


def _bytes(rng: Random, columns, stored, order) -> tuple[bytes, list[list[float]]]:
    """Return DATA, and the numbers in it below the bit mask."""
    out = bytearray()
    kept = []
    words = []
    stream = ""
    packed = any(kind == "I" and bits % 8 for kind, bits in columns)
    for row in stored:
        kept.append([])
        for (kind, bits), drawn in zip(columns, row, strict=True):
            number, mask = drawn if isinstance(drawn, tuple) else (drawn, None)
            kept[-1].append(number if mask is None else number & mask)
            if kind == "A":
                words.append(str(number).rjust(bits))
            elif packed:
                stream += f"{number:0{bits}b}"
            elif kind == "I":
                out += _ordered(number.to_bytes(bits // 8, "little"), order)
            else:
                out += _ordered(struct.pack("<f" if kind == "F" else "<d", number), order)
    if columns[0] == ("A", 0):
        separator = rng.choice((" ", ",", "\t", "\r\n", "\n", ", "))
        out += separator.join(words).encode()
    elif words:
        out += "".join(words).encode()
    if packed:
        stream += "0" * (-len(stream) % 8)
        out += bytes(int(stream[i : i + 8], 2) for i in range(0, len(stream), 8))
    return bytes(out), kept


def _ordered(little: bytes, order: list[int]) -> bytes:
    """Put the bytes of a number, least significant first, into the order of the file."""
    if order in ([1, 2, 3, 4], [1, 2]) or len(little) == 1:
        return little
    if order in ([4, 3, 2, 1], [2, 1]):
        return little[::-1]
    return bytes(little[i - 1] for i in order)


def _add_spillover(rng: Random, s: Specimen) -> None:
    names = [name for name in s.names if "," not in name and name.isascii()]
    if len(names) < 2 or len(set(s.names)) < len(s.names) or rng.random() < 0.6:
        return
    n = 2
    s.spillover = [[1.0, rng.choice((0.0, 0.25, 1e-3))], [rng.choice((0.5, 0.125)), 1.0]]
    numbers = ",".join(f"{x:g}" for row in s.spillover for x in row)
    s.text.append(["$SPILLOVER", f"{n},{names[0]},{names[1]},{numbers}"])


def _dress(rng: Random, s: Specimen, plain: bool) -> None:
    """Choose delimiter, place, spacing and spelling."""
    s.delimiter = rng.choice((b"/", b"|", b"\x0c", b"\x1e", b"\\", b"!", b"*"))
    s.offset_format = rng.choice(("{:>12}", "{:>10}", "{:012d}", "{:>8}"))
    movable = [p for p in s.text if p[1][:1] != "{"]
    if s.version != "FCS2.0" and rng.random() < 0.25:
        s.supplement = rng.sample(movable, min(len(movable), rng.randint(1, 3)))
        required = ("$PAR", "$TOT", "$MODE", "$DATATYPE", "$BYTEORD", "$NEXTDATA")
        s.supplement = [p for p in s.supplement if p[0] not in required] or None
        if s.supplement:
            s.text = [p for p in s.text if p not in s.supplement]
    if rng.random() < 0.3:
        layouts = ("data text supplement", "text supplement data", "supplement text data")
        s.layout = rng.choice(layouts)
    if rng.random() < 0.3:
        s.gap = rng.choice((b" ", b"\0\0", b" " * 70))
    if rng.random() < 0.3:
        s.tail = rng.choice((b"00000000", b"\0" * 9, b"    1234", b"\r\n"))
    if not s.data or "data text" in s.layout:
        s.tail = s.tail.replace(b"1234", b"0000")
    if not plain:
        if rng.random() < 0.5:
            s.delimiter = bytes([rng.randint(1, 126)])
        if s.version != "FCS2.0":
            s.header_data = rng.choice(("same", "same", "zero", "blank"))
        s.left_aligned = rng.random() < 0.1
        s.packed = rng.choice(("", "", "", "gz"))
        if rng.random() < 0.2:
            s.text = [[k.lower(), v] for k, v in s.text]
    pairs = s.text + (s.supplement or [])
    first = {encode(x)[:1] for pair in pairs for x in pair if x[:1] != "{"}
    keys = b"".join(encode(key) for key, _ in pairs)
    taken = b"0123456789 -+.," + keys
    # keywords are added to plain files: a letter would have to be doubled in them
    while s.delimiter in first or s.delimiter in taken or (plain and s.delimiter.isalnum()):
        s.delimiter = bytes([rng.randint(1, 126)])
