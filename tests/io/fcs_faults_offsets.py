"""Faults of what HEADER and TEXT say of the place of things, and of how many there are."""

from __future__ import annotations

import re

from fcs_faults import any_channel, crafted, is_old, without_gap
from fcs_specimens import build


@crafted
def end_of_data_one_late(rng, s):
    s.shift_header = s.shift_text = (0, 1)
    s.tail = s.tail or b" "
    return "judge" if without_gap(s) else "same"


@crafted
def end_of_data_one_late_in_header(rng, s):
    s.shift_header = (0, 1)
    return "judge" if without_gap(s) else "same"


@crafted
def end_of_data_one_late_in_text(rng, s):
    s.shift_text = (0, 1)
    return "judge" if without_gap(s) else "same"


@crafted
def wrong_place_in_header(rng, s):
    s.shift_header = (rng.randint(-40, 40), rng.choice((-30, -7, 9, 40, 10**6)))
    if s.shift_header[1] - s.shift_header[0] in (0, 1):
        return None
    return "either" if is_old(s) else "same"


@crafted
def wrong_place_in_text(rng, s):
    s.shift_text = (rng.randint(-40, 40), rng.choice((-30, -7, 9, 40, 10**9)))
    return None if s.shift_text[1] - s.shift_text[0] in (0, 1) else "same"


@crafted
def two_places_that_both_fit(rng, s):
    if is_old(s) or s.supplement or "text data" not in s.layout:
        return None
    shift = rng.randint(1, 7)
    s.shift_header = (shift, shift)
    s.tail = bytes(rng.randrange(256) for _ in range(8))
    # TEXT is right, and DATA right behind it
    return "judge" if s.gap else "same"


@crafted
def two_places_none_behind_text(rng, s):
    if is_old(s) or s.supplement or "text data" not in s.layout:
        return None
    shift = rng.randint(1, 7)
    s.gap = b"??"
    s.shift_header = (shift, shift)
    s.tail = bytes(rng.randrange(256) for _ in range(8))
    return "error"


@crafted
def same_wrong_place_twice(rng, s):
    shift = rng.choice((-9, -2, 2, 5))
    s.shift_header = s.shift_text = (0, shift)
    return "judge" if without_gap(s) else "error"


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
    if is_old(s):
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
def supplement_without_first_delimiter(rng, s):
    if not s.supplement:
        return None
    # the byte before the first keyword is a delimiter, which is left out of the segment
    s.shift_supplement = (1, 0)
    return "same"


@crafted
def supplement_of_old_habit(rng, s):
    if s.supplement or is_old(s):
        return None
    # a place where nothing is, or nothing at all
    s.set("$BEGINSTEXT", rng.choice((" ", "x", "0", str(10**8))))
    return "either"


NO_NUMBERS = ("x", "1_0", "0x2", "1e1", "--2", "5 5", "nan", "1,0", "2/", "\u0663", "\uff12")


@crafted
def wrong_total(rng, s):
    n = len(s.values)
    if rng.random() < 0.2 and s.get("$DATATYPE") == "A":
        return None
    s.set("$TOT", str(rng.choice((0, n - 1, n + 1, 10 * n, -n, 10**6, 10**15, 10**30, -1))))
    # a byte too many may be taken for the end of DATA one byte late
    return "judge" if without_gap(s) or len(s.data) == n else "error"


@crafted
def total_is_no_number(rng, s):
    s.set("$TOT", rng.choice(NO_NUMBERS))
    return "judge"


@crafted
def no_total(rng, s):
    s.set("$TOT", None)
    return "same" if is_old(s) and not without_gap(s) else "judge"


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
    key = rng.choice(("$PAR", "$DATATYPE", f"$P{any_channel(rng, s)}B"))
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
