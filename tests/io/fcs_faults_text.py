"""Faults of TEXT, and of the file as a whole."""

from __future__ import annotations

import gzip

from fcs_faults import any_channel, crafted
from fcs_specimens import build, chain, encode, specimen


@crafted
def no_last_delimiter(rng, s):
    s.last_delimiter = False
    s.gap = b""
    s.layout = "supplement text data"
    # what follows may read like the rest of the value
    first = s.data.lstrip(b" \t\r\n\0")[:1]
    likely = first.decode("latin-1").isprintable() or first == s.delimiter
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
    i = any_channel(rng, s)
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
