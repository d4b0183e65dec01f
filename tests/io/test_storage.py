"""How events are stored and where they lie: layouts, DATA, decoding, scales."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from fcs_file import read_file

from scmoe.io import FCSReadError

EVENTS = np.array([[1, 2], [3, 4], [5, 6]], dtype=float)


def refusal(path):
    with pytest.raises(FCSReadError) as caught:
        read_file(path)
    return caught.value


@pytest.mark.parametrize(
    ("byteord", "order"),
    [("3,4,1,2", (1, 0, 3, 2)), ("2,1,4,3", (2, 3, 0, 1)), ("4,3,2,1", (0, 1, 2, 3))],
)
@pytest.mark.parametrize("datatype", ["I", "F"])
def test_byte_orders(make_fcs, byteord, order, datatype):
    # `order`: which byte, counted from the most significant, is written where
    values = np.array([[1, 66000], [70000, 2**31]], dtype=float)
    big = values.astype(">u4" if datatype == "I" else ">f4")
    if byteord == "2,1,4,3":
        data = big.view("u1").reshape(-1, 4)[:, [2, 3, 0, 1]]
    elif byteord == "3,4,1,2":
        data = big.view("u1").reshape(-1, 4)[:, [1, 0, 3, 2]]
    else:
        data = big.view("u1").reshape(-1, 4)[:, list(order)]
    path = make_fcs(
        events=values, datatype=datatype, data=data.tobytes(), keywords={"$BYTEORD": byteord}
    )
    np.testing.assert_array_equal(read_file(path).values, values)


@pytest.mark.parametrize(
    ("byteord", "kwargs"),
    [
        ("3,4,1,2", {"datatype": "I", "bits": [16, 16]}),
        ("3,4,1,2", {"datatype": "D"}),
        ("1", {}),
        ("4,3", {}),
        ("1,2,2,4", {}),
        ("", {}),
    ],
)
def test_byte_orders_that_say_nothing(make_fcs, byteord, kwargs):
    assert refusal(make_fcs(**kwargs, keywords={"$BYTEORD": byteord})).keyword == "$BYTEORD"


def test_one_byte_has_no_order(make_fcs):
    path = make_fcs(datatype="I", bits=[8, 8], keywords={"$BYTEORD": "1"})
    np.testing.assert_array_equal(read_file(path).values, EVENTS)


def packed(values, bits, bitorder):
    stream = []
    for row in values:
        for value, width in zip(row, bits, strict=True):
            digits = [int(value) >> k & 1 for k in range(width)]
            stream += digits[::-1] if bitorder == "big" else digits
    return np.packbits(stream, bitorder=bitorder).tobytes()


@pytest.mark.parametrize(("order", "bitorder"), [(">", "big"), ("<", "little")])
def test_integers_bit_by_bit(make_fcs, order, bitorder):
    values = np.arange(40).reshape(20, 2) * 25
    path = make_fcs(
        events=values,
        datatype="I",
        order=order,
        data=packed(values, (10, 12), bitorder),
        keywords={"$P1B": "10", "$P2B": "12", "$P1R": "1024", "$P2R": "4096"},
    )
    file = read_file(path)
    np.testing.assert_array_equal(file.values, values)
    assert file.repairs == ["integers that are not whole bytes are packed bit by bit"]


def test_integers_of_ten_bits_in_words(make_fcs):
    data = EVENTS.astype("<u2").tobytes()
    keywords = {"$P1B": "10", "$P2B": "10", "$P1R": "1024", "$P2R": "1024"}
    file = read_file(make_fcs(datatype="I", data=data, keywords=keywords))
    np.testing.assert_array_equal(file.values, EVENTS)
    assert "stored in words" in file.repairs[0]


def test_integers_of_twenty_bits_in_three_bytes(make_fcs):
    data = b"".join(int(v).to_bytes(3, "little") for v in EVENTS.ravel())
    keywords = {"$P1B": "20", "$P2B": "20", "$P1R": "1048576", "$P2R": "1048576"}
    file = read_file(make_fcs(datatype="I", data=data, keywords=keywords))
    np.testing.assert_array_equal(file.values, EVENTS)


def test_integers_that_could_be_stored_either_way(make_fcs):
    # one value of 10 bits takes two bytes both ways
    keywords = {"$P1B": "10", "$P1R": "1024"}
    path = make_fcs(events=[[5]], channels="A", datatype="I", data=b"\5\0", keywords=keywords)
    assert "more than one layout" in refusal(path).reason


@pytest.mark.parametrize("bits", [[16, 16], [16, 32]])
def test_bits_above_the_range_are_no_part_of_a_value(make_fcs, bits):
    """$PnR of 1000 leaves ten bits; also where channels have different widths."""
    values = np.array([[2000, 7], [1023, 9]])
    words = [np.dtype(f"<u{width // 8}") for width in bits]
    data = b"".join(
        word.type(value).tobytes()
        for row in values
        for word, value in zip(words, row, strict=True)
    )
    keywords = {"$P1R": "1000", "$P2R": "1000"}
    path = make_fcs(events=values, datatype="I", bits=bits, data=data, keywords=keywords)
    np.testing.assert_array_equal(read_file(path).values, [[2000 & 1023, 7], [1023, 9]])


def test_wide_ranges_keep_every_bit(make_fcs):
    # the mask of 2 ** 53 + 1 is 54 bits wide; as a float the range would be 2 ** 53
    path = make_fcs(
        events=[[2**53 + 2]],
        channels="A",
        datatype="I",
        bits=[64],
        keywords={"$P1R": "9007199254740993"},
    )
    np.testing.assert_array_equal(read_file(path).values, [[2**53 + 2]])


def test_ascii_of_fixed_width(make_fcs):
    widths = {"$P1B": "3", "$P2B": "2"}
    path = make_fcs(datatype="A", data=b"  1 2003 4  5 6", keywords=widths)
    np.testing.assert_array_equal(read_file(path).values, EVENTS)
    for data in (b"  1 2003 4 x5 6", b"  1 2003 45 5 6", b"  1 2003    5 6"):
        path = make_fcs(datatype="A", data=data, keywords=widths)
        assert "not an integer" in refusal(path).reason


def test_ascii_with_delimiters(make_fcs):
    free = {"$P1B": "*", "$P2B": "*"}
    path = make_fcs(datatype="A", data=b"1 2,3\t4\r\n\r\n5  6", keywords=free)
    file = read_file(path)
    np.testing.assert_array_equal(file.values, EVENTS)
    assert list(file.var["PnB"]) == [0, 0]
    path = make_fcs(datatype="A", data=b"1 2 3 4 5    ", keywords=free)
    assert "holds 5 ASCII values" in refusal(path).reason
    path = make_fcs(datatype="A", data=b"1 2 3 4 5 6.5", keywords=free)
    assert "neither a digit nor a delimiter" in refusal(path).reason
    path = make_fcs(datatype="A", data=b"1 2 3 4 5 6", keywords={"$P1B": "*", "$P2B": "2"})
    assert "do not mix" in refusal(path).reason


def test_own_types_need_fcs_32(make_fcs):
    path = make_fcs(version="FCS3.1", keywords={"$P2DATATYPE": "I"})
    assert refusal(path).keyword == "$P2DATATYPE"


def test_events_that_are_not_counted(make_fcs):
    file = read_file(make_fcs(drop=["$TOT"]))
    np.testing.assert_array_equal(file.values, EVENTS)
    assert file.repairs == ["$TOT is missing; DATA holds 3 events"]
    assert "integer number of events" in refusal(make_fcs(drop=["$TOT"], data=b"x" * 26)).reason
    apart = make_fcs(drop=["$TOT"], header_data=(0, 8), pad=20)
    assert refusal(apart).keyword == "$TOT"


def test_no_events_but_data(make_fcs):
    path = make_fcs(keywords={"$TOT": "0"})
    assert refusal(path).keyword == "$TOT"
    path.write_bytes(path.read_bytes()[:-1])  # its end is missing as well
    assert refusal(path).keyword == "$TOT"


def test_data_within_text(make_fcs):
    begin = {"header_data": (-40, -40), "text_data": (-40, -40)}
    assert "DATA takes 24 bytes" in refusal(make_fcs(**begin)).reason


def test_places_in_text_only(make_fcs):
    path = make_fcs()
    raw = path.read_bytes()
    for blank in (b"       0       0", b" " * 16, b"99999999" + b"1" * 8):
        path.write_bytes(raw[:26] + blank + raw[42:])
        np.testing.assert_array_equal(read_file(path).values, EVENTS)


@pytest.mark.parametrize("tot", ["1000000000000000", "99999999"])
def test_counts_that_no_file_holds_take_no_memory(make_fcs, tot):
    path = make_fcs(keywords={"$TOT": tot})
    tracemalloc.start()
    refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_scales(make_fcs):
    path = make_fcs(
        events=[[512, 512, 8, 8]],
        channels=["A", "B", "TIME", "C"],
        datatype="I",
        bits=[16, 16, 16, 16],
        keywords={
            "$P1E": "4,0",
            "$P1R": "1024",
            "$P2E": " 2.0 , 10 ",
            "$P2R": "1024",
            "$P3G": "0.01",
            "$TIMESTEP": "0.25",
            "$P4G": "0",
        },
    )
    file = read_file(path)
    np.testing.assert_allclose(file.values, [[100, 100, 2, 8]])
    assert file.repairs == [
        "$PnE is 4,0; read as 4,1, as the standard advises (n = 1)",
        "$PnG is 0; taken as no gain (n = 4)",
    ]


@pytest.mark.parametrize(
    ("keywords", "keyword"),
    [
        ({"$P1E": "4,1", "$P1G": "2"}, "$P1G"),
        ({"$P1E": "4,1", "$P1R": "0"}, "$P1R"),
        ({"$P1E": "-4,1"}, "$P1E"),
        ({"$P1E": "4,1,1"}, "$P1E"),
        ({"$P1E": "nan,1"}, "$P1E"),
        ({"$P1G": "nan"}, "$P1G"),
        ({"$P1G": "-1"}, "$P1G"),
        ({"$P1G": "1_0"}, "$P1G"),
    ],
)
def test_scales_that_cannot_be_applied(make_fcs, keywords, keyword):
    assert refusal(make_fcs(datatype="I", keywords=keywords)).keyword == keyword


def test_mode_that_is_missing(make_fcs):
    assert read_file(make_fcs(drop=["$MODE"], version="FCS3.2")).repairs == []
    assert read_file(make_fcs(drop=["$MODE"])).repairs == ["$MODE is missing; taken as list mode"]


def test_channels_beyond_their_number(make_fcs):
    """Numbers of a channel that $PAR does not count: somebody changed one or the other."""
    file = read_file(make_fcs(keywords={"$P3B": "32", "$P3R": "10"}))
    np.testing.assert_array_equal(file.values, EVENTS)
    assert file.repairs == ["$PAR is 2, but channels are described for n = 3"]
