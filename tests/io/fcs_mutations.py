"""Ways to break an FCS file, each with what a reader may answer.

``same``: the right numbers. ``error``: a refusal. ``either``: one of the two. ``judge``: what
the mutated bytes say by the standard (see ``fcs_reference``), or a refusal.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from random import Random

from fcs_specimens import NAMES, Specimen, build, chain, encode, specimen

Made = tuple[bytes, str]
Crafted = Callable[[Random, Specimen], "Made | str | None"]
CRAFTED: dict[str, Crafted] = {}
"""Each changes a specimen and says what to expect of it (with the bytes, if it made them)."""

BLIND: dict[str, Callable[[Random, bytes], bytes]] = {}
"""Each changes bytes and knows nothing of them."""


def crafted(function: Crafted) -> Crafted:
    CRAFTED[function.__name__] = function
    return function


def blind(function):
    BLIND[function.__name__] = function
    return function


def make(rng: Random, name: str | None = None) -> tuple[str, bytes, str, Specimen] | None:
    """Return a crafted file: name of the mutation, bytes, expectation, what it was made of."""
    name = name or rng.choice(list(CRAFTED))
    s = specimen(rng, plain=True)
    told = CRAFTED[name](rng, s)
    if told is None:
        return None
    return (name, *told, s) if isinstance(told, tuple) else (name, build(s), told, s)


def mutate(rng: Random, blob: bytes) -> tuple[str, bytes]:
    """Apply one to three blind mutations."""
    names = rng.choices(list(BLIND), k=rng.choice((1, 1, 1, 2, 3)))
    for name in names:
        blob = BLIND[name](rng, blob)
    return "+".join(names), blob


def _any_channel(rng: Random, s: Specimen) -> int:
    return rng.randint(1, len(s.names))


def _old(s: Specimen) -> bool:
    return s.version == "FCS2.0"


def _without_gap(s: Specimen) -> bool:
    """Whether numbers follow one another bit by bit; other layouts may take as many bytes."""
    pairs = s.text + (s.supplement or [])
    widths = [value for key, value in pairs if re.fullmatch(r"\$P\d+B", key) and value != "*"]
    return any(int(width) % 8 for width in widths)


# -- offsets ----------------------------------------------------------------------------------


@crafted
def end_of_data_one_late(rng, s):
    s.shift_header = s.shift_text = (0, 1)
    s.tail = s.tail or b" "
    return "judge" if _without_gap(s) else "same"


@crafted
def end_of_data_one_late_in_header(rng, s):
    s.shift_header = (0, 1)
    return "judge" if _without_gap(s) else "same"


@crafted
def end_of_data_one_late_in_text(rng, s):
    s.shift_text = (0, 1)
    return "judge" if _without_gap(s) else "same"


@crafted
def wrong_place_in_header(rng, s):
    s.shift_header = (rng.randint(-40, 40), rng.choice((-30, -7, 9, 40, 10**6)))
    if s.shift_header[1] - s.shift_header[0] in (0, 1):
        return None
    return "either" if _old(s) else "same"


@crafted
def wrong_place_in_text(rng, s):
    s.shift_text = (rng.randint(-40, 40), rng.choice((-30, -7, 9, 40, 10**9)))
    return None if s.shift_text[1] - s.shift_text[0] in (0, 1) else "same"


@crafted
def two_places_that_both_fit(rng, s):
    if _old(s) or s.supplement or "text data" not in s.layout:
        return None
    shift = rng.randint(1, 7)
    s.shift_header = (shift, shift)
    s.tail = bytes(rng.randrange(256) for _ in range(8))
    return "error"


@crafted
def same_wrong_place_twice(rng, s):
    shift = rng.choice((-9, -2, 2, 5))
    s.shift_header = s.shift_text = (0, shift)
    return "error"


@crafted
def data_inside_text(rng, s):
    if "text data" not in s.layout:
        return None
    s.gap = b""
    s.shift_header = s.shift_text = (-60, -60)
    return "error" if len(s.data) < 200 else None


@crafted
def no_place_in_text(rng, s):
    s.set("$BEGINDATA", None)
    s.set("$ENDDATA", None)
    return "same"


@crafted
def place_of_data_blank_in_text(rng, s):
    if _old(s):
        return None
    s.set(rng.choice(("$BEGINDATA", "$ENDDATA")), rng.choice((" ", "x", "0x10", "-1", "1e3")))
    return "either"


@crafted
def no_place_at_all(rng, s):
    s.set("$BEGINDATA", None)
    s.set("$ENDDATA", None)
    s.header_data = rng.choice(("zero", "blank"))
    return "error"


@crafted
def negative_place_of_data(rng, s):
    s.shift_header = s.shift_text = (-(10**5), rng.choice((0, -(10**5))))
    return "error"


@crafted
def end_of_data_before_begin(rng, s):
    s.shift_header = s.shift_text = (0, -len(s.data) - rng.randint(1, 9))
    return "error"


@crafted
def end_of_text_beyond_file(rng, s):
    s.shift_text_segment = (0, 10**6)
    return "either"


@crafted
def end_of_text_before_begin(rng, s):
    s.shift_text_segment = (0, -len(build(s)))
    return "error"


@crafted
def text_cut_short(rng, s):
    # HEADER ends TEXT within a value: what is lost may be a gain
    s.shift_text_segment = (0, -rng.randint(2, 60))
    return "judge"


@crafted
def text_too_long(rng, s):
    s.shift_text_segment = (0, rng.randint(1, 20))
    return "judge"


@crafted
def supplement_nowhere(rng, s):
    if s.supplement is None:
        return None
    s.shift_supplement = rng.choice(((0, 10**6), (10**6, 10**6), (-5, -5), (1, 0), (0, -3)))
    return "judge"


@crafted
def supplement_of_old_habit(rng, s):
    if s.supplement or _old(s):
        return None
    # a place where nothing is, or nothing at all
    s.set("$BEGINSTEXT", rng.choice((" ", "x", "0", str(10**8))))
    return "either"


# -- numbers of events and channels -----------------------------------------------------------

NO_NUMBERS = ("x", "1_0", "0x2", "1e1", "--2", "5 5", "nan", "1,0", "2/", "\u0663", "\uff12")


@crafted
def wrong_total(rng, s):
    n = len(s.values)
    if rng.random() < 0.2 and s.get("$DATATYPE") == "A":
        return None
    s.set("$TOT", str(rng.choice((0, n - 1, n + 1, 10 * n, -n, 10**6, 10**15, 10**30, -1))))
    # a byte too many may be taken for the end of DATA one byte late
    return "judge" if _without_gap(s) or len(s.data) == n else "error"


@crafted
def total_is_no_number(rng, s):
    s.set("$TOT", rng.choice(NO_NUMBERS))
    return "judge"


@crafted
def no_total(rng, s):
    s.set("$TOT", None)
    return "same" if _old(s) and not _without_gap(s) else "judge"


@crafted
def wrong_number_of_channels(rng, s):
    n = len(s.names)
    s.set("$PAR", str(rng.choice((0, n - 1, n + 1, -n, 10**9, 10**30))))
    return "error"


@crafted
def channels_are_no_number(rng, s):
    s.set("$PAR", rng.choice(NO_NUMBERS))
    return "judge"


@crafted
def data_truncated(rng, s):
    if s.supplement or (s.layout.split()[-1] != "data" and "text data" not in s.layout):
        return None
    s.gap = s.tail = b""
    return build(s)[: -rng.randint(1, len(s.data))], "error"


@crafted
def no_required_keyword(rng, s):
    key = rng.choice(("$PAR", "$DATATYPE", f"$P{_any_channel(rng, s)}B"))
    s.set(key, None)
    s.supplement = [p for p in s.supplement if p[0] != key] if s.supplement else None
    return "error" if s.get(key) == "" else None


@crafted
def no_byte_order(rng, s):
    s.set("$BYTEORD", rng.choice((None, "1", "3", "0", "1,2,2,1", "4,3", "a,b", "1234", "1,2,,3")))
    return "judge"


@crafted
def unknown_byte_order(rng, s):
    s.set("$BYTEORD", rng.choice(("2,3,4,1", "1,3,2,4", "3,4,1,2", "2,1,4,3", "1,2,3,4,5,6,7,8")))
    return "judge"


@crafted
def no_list_mode(rng, s):
    s.set("$MODE", rng.choice(("C", "U", "c", "u", "X", "LL")))
    return "error"


@crafted
def unknown_type(rng, s):
    s.set("$DATATYPE", rng.choice(("X", "FF", "i8", "", "B", "<f4")))
    own = any(re.fullmatch(r"\$P\d+DATATYPE", k.upper()) for k, _ in s.text + (s.supplement or []))
    return None if own else "error"


@crafted
def other_type(rng, s):
    s.set("$DATATYPE", rng.choice("IFDA"))
    return "judge"


@crafted
def other_version(rng, s):
    s.version = rng.choice(("FCS2.0", "FCS3.0", "FCS3.1", "FCS3.2"))
    return "judge"


@crafted
def unknown_version(rng, s):
    s.version = rng.choice(("FCS1.0", "FCS4.0", "FCS3.9", "FCS   ", "fcs3.0", "FCSx.y", "%PDF-1"))
    return "error" if s.version != "fcs3.0" else "either"


# -- channels ---------------------------------------------------------------------------------


@crafted
def odd_width(rng, s):
    i = _any_channel(rng, s)
    s.set(f"$P{i}B", rng.choice(("0", "-8", "7", "10", "33", "65", "128", "1e9", "*", "x", "3_2")))
    return "judge"


@crafted
def odd_range(rng, s):
    i = _any_channel(rng, s)
    choices = (None, "0", "-5", "x", "inf", "nan", "1e5", "1e400", "1_000", "256.5", " 77 ")
    s.set(f"$P{i}R", rng.choice(choices))
    return "judge"


@crafted
def odd_amplification(rng, s):
    i = _any_channel(rng, s)
    choices = (
        None,
        "4",
        "4,1,1",
        "x,y",
        "-4,1",
        "0,1",
        "nan,nan",
        "4;1",
        "4,-1",
        "inf,1",
        "1_0,1",
    )
    s.set(f"$P{i}E", rng.choice(choices))
    return "judge"


@crafted
def offset_of_the_logarithm_is_zero(rng, s):
    for pair in s.text:
        if re.fullmatch(r"\$P\d+E", pair[0]) and pair[1].replace(" ", "") == "4,1":
            pair[1] = rng.choice(("4,0", "4.0,0.0"))
            return "same"
    return None


@crafted
def logarithm_of_floats(rng, s):
    i = _any_channel(rng, s)
    if s.get("$DATATYPE") not in "FD" or s.get(f"$P{i}DATATYPE") == "I" or s.supplement:
        return None
    s.set(f"$P{i}E", "4,1")
    return "same"


@crafted
def odd_gain(rng, s):
    i = _any_channel(rng, s)
    choices = ("0", "-1", "x", "nan", "inf", "1_0", "0x2", "1,5", "1e400", "\uff12", "")
    s.set(f"$P{i}G", rng.choice(choices))
    return "judge"


@crafted
def odd_time_step(rng, s):
    if "time" not in [name.lower() for name in s.names]:
        s.names[0] = "Time"
        s.set("$P1N", "Time")
    s.set("$TIMESTEP", rng.choice(("0", "-1", "x", "nan", "inf", "1_0", "0,01", "", "1e-400")))
    return "judge"


@crafted
def own_types_before_they_were_known(rng, s):
    if not any(key.endswith("DATATYPE") and key != "$DATATYPE" for key, _ in s.text):
        return None
    s.version = "FCS3.1"
    return "judge"


@crafted
def integers_filled_up(rng, s):
    """Ten bits in words of sixteen."""
    s.__dict__.update(specimen(rng, plain=True, columns=[("I", 16)] * 3).__dict__)
    if s.supplement:
        return None
    for i in range(1, 4):
        if int(s.get(f"$P{i}R", "9999")) > 1024:
            return None
        s.set(f"$P{i}B", "10")
    return "same"


@crafted
def duplicate_names(rng, s):
    if len(s.names) < 2 or "time" in (s.names[0].lower(), s.names[1].lower()):
        return None
    s.set("$P1N", s.names[1])
    s.names[0] = s.names[1]
    s.supplement = [p for p in s.supplement if p[0] != "$P1N"] if s.supplement else None
    return "same"


@crafted
def no_name(rng, s):
    s.set(f"$P{_any_channel(rng, s)}N", rng.choice((None, " ")))
    return "judge"


@crafted
def names_of_any_bytes(rng, s):
    i = _any_channel(rng, s)
    if s.names[i - 1].lower() == "time" or s.supplement:
        return None
    name = "".join(rng.choice(NAMES + ("Ⅳ", "\xff", "日本", "\x00", "ſ", "\x85z")) for _ in "12")
    if name[0].encode()[:1] == s.delimiter or name.strip("\0").lower() == "time":
        return None
    s.names[i - 1] = name
    s.set(f"$P{i}N", name)
    return "either"


@crafted
def bad_spillover(rng, s):
    choices = (
        "", " ", "x", "2", "2,a,b,1,0,0,1", "-1", "1000000000,a", "2,1,2,1,0,0,1", "1e3,x",
        "0", "2,A,A,1,2,3,4", "2,1,2,1,nan,inf,1", "1_0,1", "2,0,1,1,1,1,1", "3,1,2,1,0,0,1",
    )  # fmt: skip
    s.set("$SPILLOVER", None)
    s.set(rng.choice(("$SPILLOVER", "SPILL", "$COMP")), rng.choice(choices) or "0")
    return "same"


# -- TEXT -------------------------------------------------------------------------------------


@crafted
def no_last_delimiter(rng, s):
    s.last_delimiter = False
    s.gap = b""
    s.layout = "supplement text data"
    # what follows may read like the rest of the value
    likely = s.data[:1].decode("latin-1").isprintable() or s.data[:1] == s.delimiter
    return "either" if likely else "same"


@crafted
def empty_value(rng, s):
    """Of a keyword that no number hangs on, before one that none hangs on either."""
    s.text += [["X1", "a"], ["$CYTNUM", "\ufffe"], ["X2", "b"]]
    s.raw = ("\ufffe".encode(), b"")
    return "same"


@crafted
def empty_value_before_a_required_keyword(rng, s):
    s.text = [["$CYTNUM", "\ufffe"], *s.text]
    s.raw = ("\ufffe".encode(), b"")
    return "either"


@crafted
def empty_values(rng, s):
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(s.text))
        s.text.insert(at, [f"X{rng.randint(0, 99)}", "\ufffe"])
    s.raw = ("\ufffe".encode(), b"")
    return "judge"


@crafted
def delimiter_not_doubled(rng, s):
    s.text.insert(rng.randint(0, len(s.text)), ["X1", "a\ufffeb"])
    s.raw = ("\ufffe".encode(), s.delimiter)
    return "judge"


@crafted
def delimiter_at_the_start_of_a_value(rng, s):
    s.text.insert(rng.randint(0, len(s.text)), ["X1", s.delimiter.decode() + "b"])
    return "judge"


@crafted
def letter_as_delimiter(rng, s):
    """The standard allows it; keywords then hold doubled letters."""
    s.delimiter = rng.choice(b"ABDEGINOPRST").to_bytes(1, "big")
    if any(encode(x)[:1] == s.delimiter for p in s.text + (s.supplement or []) for x in p):
        return None
    return "either"


@crafted
def delimiter_within_a_value(rng, s):
    s.text.insert(0, ["X1", "b" + s.delimiter.decode() * rng.randint(1, 3) + "c"])
    return "same"


@crafted
def dollars_within_a_value(rng, s):
    s.text.insert(rng.randint(0, len(s.text)), ["X1", rng.choice(("$", "$5 a $P1B", "$$", "a$b"))])
    return "same"


@crafted
def keywords_in_lower_case(rng, s):
    s.text = [["".join(rng.choice((c.lower(), c)) for c in k), v] for k, v in s.text]
    return "same"


@crafted
def keywords_without_dollar(rng, s):
    """What a private keyword says is no standard keyword."""
    s.text += [["P1G", "77"], ["TIMESTEP", "9"], ["P1E", "4,1"], ["P1R", "2"], ["par", "9"]]
    return "same"


@crafted
def keyword_twice_the_same(rng, s):
    s.text.append(list(rng.choice([p for p in s.text if p[1][:1] != "{"])))
    return "same"


@crafted
def keyword_twice_not_the_same(rng, s):
    i = _any_channel(rng, s)
    key = rng.choice(("$PAR", "$TOT", "$DATATYPE", "$BYTEORD", "$MODE", f"$P{i}B", f"$P{i}G"))
    if not s.get(key) or (key == "$BYTEORD" and set(map(len, s.data.split())) == {1}):
        return None
    other = {"$DATATYPE": "IFD", "$MODE": "CU", "$BYTEORD": ("1,2", "2,1")}.get(key, "1235")
    value = rng.choice([x for x in other if x != s.get(key).strip()])
    s.text.insert(rng.randint(0, len(s.text)), [key, value])
    return "judge"


@crafted
def harmless_keyword_twice(rng, s):
    s.text += [["$CYT", "one"], ["X", "1"], ["X", "2"], ["$CYT", "two"]]
    return "same"


@crafted
def spaces_around(rng, s):
    i = rng.randrange(len(s.text))
    if s.text[i][1][:1] == "{" or s.delimiter in b" \t\r\n" or s.text[i][0].endswith("N"):
        return None
    s.text[i] = [
        s.text[i][0] + " ",
        f"{s.text[i][1]}{rng.choice((' ', chr(9), chr(13) + chr(10)))}",
    ]
    return "same"


@crafted
def odd_next_data_set(rng, s):
    s.set("$NEXTDATA", rng.choice(("-1", "x", "1", "58", str(10**12), "0", " ", "57", "1_0")))
    return "either"


@crafted
def two_data_sets(rng, s):
    return chain(s, specimen(rng, plain=True)), "same"


@crafted
def second_data_set(rng, s):
    """Read with ``dataset=1``."""
    return chain(specimen(rng, plain=True), s), "same"


@crafted
def text_is_noise(rng, s):
    blob = bytearray(build(s))
    for i in range(59, min(len(blob), 400)):
        blob[i] = rng.randrange(256)
    return bytes(blob), "judge"


# -- the file as a whole ----------------------------------------------------------------------


@crafted
def no_fcs(rng, s):
    choices = (
        b"",
        b"FCS",
        b"FCS3.0",
        b"FCS3.0    ",
        build(s)[:57],
        b"\x89PNG\r\n",
        b"Time,CD3\n1,2\n",
    )
    return rng.choice(choices), "error"


@crafted
def header_only(rng, s):
    return build(s)[: rng.choice((58, 59, 60, 100))], "error"


@crafted
def packed(rng, s):
    return gzip.compress(build(s), 1, mtime=0), "same"


@crafted
def packed_in_two_parts(rng, s):
    blob = build(s)
    at = rng.randrange(len(blob))
    return gzip.compress(blob[:at], 1, mtime=0) + gzip.compress(blob[at:], 1, mtime=0), "same"


@crafted
def packed_and_truncated(rng, s):
    blob = gzip.compress(build(s), 1, mtime=0)
    return blob[: rng.randint(2, len(blob) - 1)], "judge"


@crafted
def packed_and_damaged(rng, s):
    blob = bytearray(gzip.compress(build(s), 1, mtime=0))
    blob[rng.randint(2, len(blob) - 1)] ^= 1 << rng.randrange(8)
    return bytes(blob), "judge"


@crafted
def packed_twice(rng, s):
    return gzip.compress(gzip.compress(build(s), 1, mtime=0), 1, mtime=0), "either"


@crafted
def packed_zeros(rng, s):
    size = rng.choice((10**5, 10**6, 10**7))
    return gzip.compress(build(s) + bytes(size), 1, mtime=0), "either"


# -- blind ------------------------------------------------------------------------------------


def _span(rng: Random, blob: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(blob))
    return start, min(len(blob), start + rng.choice((1, 1, 2, 3, 8, 30)))


@blind
def flip_bit(rng, blob):
    if not blob:
        return blob
    at = rng.randrange(len(blob))
    return blob[:at] + bytes([blob[at] ^ 1 << rng.randrange(8)]) + blob[at + 1 :]


@blind
def change_byte(rng, blob):
    at = rng.randint(0, len(blob))
    return blob[:at] + bytes([rng.randrange(256)]) + blob[at + 1 :]


@blind
def change_header(rng, blob):
    at = rng.randrange(58)
    new = rng.choice(b"0123456789 -+_x\0")
    return blob[:at] + bytes([new]) + blob[at + 1 :]


@blind
def change_digit(rng, blob):
    digits = [m.start() for m in re.finditer(rb"[0-9]", blob[:3000])]
    if not digits:
        return blob
    at = rng.choice(digits)
    return blob[:at] + bytes([rng.choice(b"0123456789")]) + blob[at + 1 :]


@blind
def change_value(rng, blob):
    """A number of TEXT becomes another one of the same length."""
    numbers = [m.span() for m in re.finditer(rb"[0-9.]+", blob[58:3000])]
    if not numbers:
        return blob
    start, end = (58 + at for at in rng.choice(numbers))
    new = bytes(rng.choice(b"00123456789.,-+e_ ") for _ in range(end - start))
    return blob[:start] + new + blob[end:]


@blind
def insert(rng, blob):
    at = rng.randint(0, len(blob))
    new = bytes(rng.randrange(256) for _ in range(rng.choice((1, 1, 2, 9))))
    return blob[:at] + new + blob[at:]


@blind
def insert_delimiter(rng, blob):
    at = rng.randint(58, max(58, min(len(blob), 800)))
    return blob[:at] + blob[58:59] + blob[at:]


@blind
def delete(rng, blob):
    start, end = _span(rng, blob)
    return blob[:start] + blob[end:]


@blind
def truncate(rng, blob):
    return blob[: rng.randint(0, len(blob))]


@blind
def repeat(rng, blob):
    start, end = _span(rng, blob)
    return blob[:end] + blob[start:end] + blob[end:]


@blind
def overwrite(rng, blob):
    """A part of the file is written over another."""
    start, end = _span(rng, blob)
    to = rng.randint(0, len(blob))
    return blob[:to] + blob[start:end] + blob[to + end - start :]


@blind
def swap(rng, blob):
    a, b = sorted(_span(rng, blob))
    c, d = _span(rng, blob)
    if c < b:
        return blob
    return blob[:a] + blob[c:d] + blob[b:c] + blob[a:b] + blob[d:]


@blind
def swap_values(rng, blob):
    """Two pieces between delimiters change places, with room for none of the offsets to move."""
    delimiter = blob[58:59]
    parts = blob.split(delimiter) if delimiter else []
    for i in range(len(parts) - 1):
        j = rng.randint(i + 1, len(parts) - 1)
        if rng.random() < 0.1 and len(parts[i]) == len(parts[j]):
            parts[i], parts[j] = parts[j], parts[i]
            return delimiter.join(parts)
    return blob


@blind
def splice(rng, blob):
    """The start of this file, the end of another."""
    other = build(specimen(rng, plain=True))
    at = rng.randint(0, len(blob))
    return blob[:at] + other[min(at, len(other)) :]
