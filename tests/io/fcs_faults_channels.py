"""Faults of what is said of the channels."""

from __future__ import annotations

import re

from fcs_faults import any_channel, crafted
from fcs_specimens import NAMES, specimen


@crafted
def odd_width(rng, s):
    i = any_channel(rng, s)
    s.set(f"$P{i}B", rng.choice(("0", "-8", "7", "10", "33", "65", "128", "1e9", "*", "x", "3_2")))
    return "judge"


@crafted
def odd_range(rng, s):
    i = any_channel(rng, s)
    choices = (None, "0", "-5", "x", "inf", "nan", "1e5", "1e400", "1_000", "256.5", " 77 ")
    s.set(f"$P{i}R", rng.choice(choices))
    return "judge"


@crafted
def odd_amplification(rng, s):
    i = any_channel(rng, s)
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
    i = any_channel(rng, s)
    if s.get("$DATATYPE") not in "FD" or s.get(f"$P{i}DATATYPE") == "I" or s.supplement:
        return None
    s.set(f"$P{i}E", "4,1")
    return "same"


@crafted
def odd_gain(rng, s):
    i = any_channel(rng, s)
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
    s.set(f"$P{any_channel(rng, s)}N", rng.choice((None, " ")))
    return "judge"


@crafted
def names_of_any_bytes(rng, s):
    i = any_channel(rng, s)
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
