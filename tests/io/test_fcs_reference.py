"""The judge of the fuzz tests, on files written out by hand."""

from __future__ import annotations

import gzip
import struct
from random import Random

import pytest
from fcs_reference import readings
from fcs_specimens import build, encode, specimen

KEYWORDS = {
    "$BEGINDATA": "{begin}", "$ENDDATA": "{end}", "$BYTEORD": "4,3,2,1", "$DATATYPE": "I",
    "$MODE": "L", "$NEXTDATA": "0", "$PAR": "2", "$TOT": "2", "$P1B": "16", "$P1E": "0,0",
    "$P1N": "A", "$P1R": "1024", "$P2B": "8", "$P2E": "2,1", "$P2N": "Time", "$P2R": "100",
}  # fmt: skip
EVENTS = bytes([0x04, 0x07, 50, 0x03, 0xFF, 100])


def file(version="FCS3.1", data=EVENTS, late=0, **changes):
    pairs = KEYWORDS | {f"${key}": value for key, value in changes.items()}
    text = "/" + "".join(f"{k}/{v}/" for k, v in pairs.items() if v is not None)
    begin = 58 + len(text.format(begin=" " * 6, end=" " * 6))
    end = begin + len(data) - 1 + late
    text = text.format(begin=f"{begin:>6}", end=f"{end:>6}")
    numbers = (58, 57 + len(text), begin, end, 0, 0)
    return f"{version}    {''.join(f'{n:>8}' for n in numbers)}{text}".encode() + data


def test_integers_mask_and_logarithm():
    # 0x0407 below 1024 is 7; 10 ** (2 * 50 / 100) = 10
    (reading,) = readings(file())
    assert reading.values == [[7, 10.0], [1023, 100.0]]
    assert reading.names == ["A", "Time"]
    assert not reading.departures
    assert readings(gzip.compress(file())) == readings(file())


def test_byte_order():
    (reading,) = readings(file(BYTEORD="1,2,3,4", P1R="65536", P2E="0,0"))
    assert reading.values == [[0x0704, 50], [0xFF03, 100]]


def test_floats_gain_and_time_step():
    data = struct.pack("<2d", 3.5, 7.0)
    changes = {"BYTEORD": "1,2,3,4", "DATATYPE": "D", "TOT": "1", "P1B": "64", "P2B": "64"}
    changes |= {"P1G": "2", "P2G": "9", "P2E": "0,0", "TIMESTEP": "0.5"}
    (reading,) = readings(file(data=data, **changes))
    assert reading.values == [[1.75, 3.5]]


def test_bits_without_a_gap():
    # 0000000001 0000000010 and four bits left over
    data = bytes([0b00000000, 0b01000000, 0b00100000])
    changes = {"TOT": "1", "P1B": "10", "P2B": "10", "P2R": "1024", "P2E": "0,0"}
    assert readings(file(data=data, **changes))[0].values == [[1, 2]]


def test_ascii():
    changes = {"DATATYPE": "A", "P1B": "*", "P2B": "*", "P2E": "0,0"}
    (reading,) = readings(file(data=b"12, 3\n4 5", **changes))
    assert reading.values == [[12, 3], [4, 5]]
    (reading,) = readings(file(data=b"12 3 4 5", **(changes | {"P1B": "2", "P2B": "2"})))
    assert reading.values == [[12, 3], [4, 5]]


NOTHING_SURE = [
    {"TOT": "3"}, {"TOT": "0"}, {"TOT": "1_0"}, {"TOT": "-2"}, {"PAR": "1"}, {"PAR": None},
    {"P1B": "8"}, {"P1B": "x"}, {"DATATYPE": "F"}, {"DATATYPE": "X"}, {"MODE": "C"},
    {"BYTEORD": "1"}, {"BYTEORD": "1,3"}, {"P2E": "x"}, {"P2R": "0"}, {"P1G": "nan"},
    {"P1G": "-1"}, {"BEGINDATA": "0", "ENDDATA": "0", "TOT": "9"}, {"version": "FCS9.9"},
    {"late": 2}, {"late": -1},
]  # fmt: skip


def test_says_nothing_sure():
    sure = [changes for changes in NOTHING_SURE if readings(file(**changes))]
    assert sure == []


@pytest.mark.parametrize(
    ("changes", "departure"),
    [
        ({"late": 1, "data": EVENTS + b" "}, None),
        ({"P1R": "x"}, "$PnR is no range"),
        ({"P1E": None}, "no $PnE"),
        ({"TOT": None}, "no $TOT"),
        ({"MODE": None}, "no $MODE"),
        ({"ENDDATA": "9"}, "HEADER and TEXT disagree on the place of DATA"),
        ({"BEGINSTEXT": "9", "ENDSTEXT": "99"}, "supplemental TEXT lies nowhere"),
    ],
)
def test_overlooks(changes, departure):
    if departure is None:
        blob = file(**(changes | {"late": 0, "data": EVENTS}), BEGINDATA="0", ENDDATA="0")
        begin = len(blob) - len(EVENTS)
        blob = blob[:34] + f"{begin + 6:>8}".encode() + blob[42:] + b" "
        departure = "the end of DATA is one byte late"
    else:
        blob = file(**changes)
    (reading,) = readings(blob)
    assert reading.departures == {departure}


def test_a_doubled_delimiter_is_an_empty_value_before_a_keyword_that_matters():
    (reading,) = readings(file(CYT="", P1G="2"))
    assert reading.values[1][0] == 511.5


def test_second_data_set():
    first, second = file(), file(P1R="65536", P2E="0,0")
    length = len(file(NEXTDATA="      "))
    blob = file(NEXTDATA=f"{length:>6}") + second
    assert readings(blob, 1) == readings(second)
    assert readings(blob, 0) == readings(first)
    assert readings(first, 1) == []


def test_reads_what_the_generator_wrote():
    for seed in range(300):
        s = specimen(Random(seed))
        strict = [way for way in readings(build(s)) if not way.departures]
        assert strict
        for way in strict:
            assert way.names == [encode(name).decode("latin-1") for name in s.names]
            for row, right in zip(way.values, s.values, strict=True):
                for x, y, touched in zip(row, right, s.scaled, strict=True):
                    assert x == pytest.approx(y, rel=1e-12 if touched else 0, abs=0, nan_ok=True)
