"""HEADER and TEXT, and what a doubled delimiter means."""

from __future__ import annotations

import numpy as np
import pytest
from fcs_file import read_file

from scmoe.io import FCSReadError
from scmoe.io._dataset import open_dataset
from scmoe.io._errors import Fault, Repairs

EVENTS = [[1, 2], [3, 4], [5, 6]]


def refusal(path, **kwargs):
    with pytest.raises(FCSReadError) as caught:
        read_file(path, **kwargs)
    return caught.value


def test_any_delimiter(make_fcs):
    for delimiter in "/|\\+?^.[*-!~\t\n\f\x01;\x1e#":
        path = make_fcs(delimiter=delimiter, keywords={"NOTE": f"a{delimiter}b"}, version="FCS3.1")
        file = read_file(path)
        np.testing.assert_array_equal(file.values, EVENTS, repr(delimiter))
        assert file.keywords["note"] == f"a{delimiter}b"
        assert file.repairs == [], delimiter


def test_pairs_are_kept_as_they_are_written(make_fcs):
    about = open_dataset(make_fcs(keywords={"Spare Tyre": "cost $5", "$com": " blanks "}))
    assert about.text.pairs[-2:] == [("Spare Tyre", "cost $5"), ("$com", " blanks ")]
    assert about.keywords["spare tyre"] == "cost $5"
    assert about.text.delimiter == "/"
    assert about.version == "FCS3.0"
    assert about.place.start == about.path.stat().st_size - 24
    assert [column.bits for column in about.place.layout.columns] == [32, 32]


def test_keywords_with_and_without_a_dollar(make_fcs):
    path = make_fcs(datatype="I", keywords={"P1G": "2", "TOT": "9", "par": "1", "$TIMESTEP": "1"})
    file = read_file(path)
    np.testing.assert_array_equal(file.values, EVENTS)
    assert file.keywords["tot"] == "3"
    assert file.keywords["tot_"] == "9"
    assert file.keywords["p1g"] == "2"
    error = refusal(make_fcs("b.fcs", keywords={"TOT": "3", "PAR": "2"}, drop=["$PAR"]))
    assert error.keyword == "$PAR"
    assert "there is PAR without a $" in error.reason


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_encoding(make_fcs, encoding):
    path = make_fcs(keywords={"$OP": "Renée µ"}, encoding=encoding)
    file = read_file(path)
    assert file.keywords["op"] == "Renée µ"
    assert (file.repairs == []) == (encoding == "utf-8")


def test_empty_values_are_told_from_escapes(make_fcs):
    emptied = read_file(make_fcs(raw_text="$COM//$SRC//"))
    assert emptied.keywords["com"] == emptied.keywords["src"] == ""
    assert emptied.repairs == ["doubled delimiters were read as empty values, of $COM, $SRC"]
    escaped = read_file(make_fcs(raw_text="$COM/a//b////c/"))
    assert escaped.keywords["com"] == "a/b//c"
    assert escaped.repairs == []
    both = read_file(make_fcs(raw_text="$COM//$SRC/a//b/"))
    assert (both.keywords["com"], both.keywords["src"]) == ("", "a/b")
    marker = read_file(make_fcs(raw_text="$P1S//$P2S/CD4/"))
    assert list(marker.var["marker"]) == ["", "CD4"]
    # a private keyword may hold a delimiter: the standard's reading is taken
    assert read_file(make_fcs(raw_text="a//b/c/")).keywords["a/b"] == "c"


@pytest.mark.parametrize(
    ("raw_text", "reason"),
    [
        ("a/b//$COM/c/", "out of step|without a keyword|cannot be read|holds the keyword"),
        ("$COM/a/b/", "out of step|ends after"),
        ("//x/", "without a keyword|cannot be read"),
    ],
)
def test_keywords_out_of_step(make_fcs, raw_text, reason):
    assert refusal(make_fcs(raw_text=raw_text)).path.name == "cells.fcs"
    with pytest.raises(FCSReadError, match=reason):
        read_file(make_fcs(raw_text=raw_text))


def test_keyword_that_is_there_twice(make_fcs):
    same = read_file(make_fcs(raw_text="$tot/ 3/"))
    assert same.repairs == ["$TOT is there more than once, with one value"]
    harmless = read_file(make_fcs(raw_text="$OP/A/$OP/B/"))
    assert harmless.keywords["op"] == "A"
    assert "'A' was kept, not 'B'" in harmless.repairs[0]
    error = refusal(make_fcs(raw_text="$P1G/2/$P1G/4/"))
    assert error.keyword == "$P1G"
    assert "'2' and '4'" in error.reason


def test_blanks_around(make_fcs):
    file = read_file(make_fcs(raw_text="   $P1G/2/\n$OP/me/", tail="  \r\n"))
    np.testing.assert_array_equal(file.values[:, 0], [0.5, 1.5, 2.5])
    assert file.repairs == [
        "blanks around the keyword $P1G were removed",
        "blanks around the keyword $OP were removed",
    ]


def cut(path, n):
    """Let HEADER end TEXT so many bytes early, and take the bytes away."""
    raw = bytearray(path.read_bytes())
    last = int(raw[18:26])
    raw[18:26] = f"{last - n:>8}".encode()
    raw[last - n + 1 : last + 1] = b" " * n
    path.write_bytes(raw)
    return path


def test_last_delimiter_that_is_missing(make_fcs):
    file = read_file(cut(make_fcs(keywords={"$OP": "me"}), 1))
    np.testing.assert_array_equal(file.values, EVENTS)
    assert file.keywords["op"] == "me"
    assert file.repairs == ["the last delimiter of TEXT is missing"]


def test_last_delimiter_that_is_missing_and_bytes_that_are_nothing(make_fcs):
    """As where bytes were cut out of TEXT, and DATA lies before the place that is said."""
    path = cut(make_fcs(keywords={"$OP": "somebody"}), 3)
    raw = bytearray(path.read_bytes())
    end = int(raw[18:26]) + 1
    raw[end : end + 3] = b" \x07 "
    path.write_bytes(raw)
    assert "in the middle of $OP" in refusal(path).reason


def test_two_signs_of_a_shift_are_no_accident():
    repairs = Repairs()
    repairs.repair_shift("one thing")
    assert repairs.messages == ["one thing"]
    with pytest.raises(Fault, match="one thing, and another: bytes were inserted or deleted"):
        repairs.repair_shift("another")


def test_last_piece_without_partner(make_fcs):
    """A keyword that is closed may have lost an empty value; one that is cut off shows a shift."""
    file = read_file(cut(make_fcs(tail="lost/    "), 4))
    assert file.repairs == ["TEXT ends with a keyword without a value, which was left out: 'lost'"]
    assert "before its value" in refusal(cut(make_fcs(tail="lost/    "), 5)).reason


def test_end_of_text_that_is_wrong(make_fcs):
    path = make_fcs(keywords={"$P1G": "64"})
    raw = bytearray(path.read_bytes())
    last = int(raw[18:26])
    for n in (1, 2, 3, 4, 9):
        raw[18:26] = f"{last - n:>8}".encode()
        path.write_bytes(raw)
        refusal(path)
    path = make_fcs(tail="$P1G/64/")
    raw = bytearray(path.read_bytes())
    raw[18:26] = f"{int(raw[18:26]) - 8:>8}".encode()
    path.write_bytes(raw)
    assert "$P1G is found behind the end of TEXT" in refusal(path).reason


def test_supplemental_text(make_fcs):
    file = read_file(make_fcs(supplement={"$P1S": "CD3", "$P2G": "2", "$COM": "a/b"}))
    np.testing.assert_array_equal(file.values, [[1, 1], [3, 2], [5, 3]])
    assert list(file.var["marker"]) == ["CD3", ""]
    assert file.keywords["com"] == "a/b"
    assert file.repairs == []
    clash = make_fcs(keywords={"$P2G": "4"}, supplement={"$P2G": "2"})
    assert refusal(clash).keyword == "$P2G"


@pytest.mark.parametrize("version", ["FCS2.0", "FCS3.0"])
def test_supplemental_text_that_is_none(make_fcs, version):
    nowhere = {"$BEGINSTEXT": "9000", "$ENDSTEXT": "9100"}
    archive = {"$BEGINSTEXT": "{more:>10}", "$ENDSTEXT": "{end:>10}"}
    if version == "FCS2.0":
        assert read_file(make_fcs(version=version, keywords=nowhere)).repairs == []
        return
    assert refusal(make_fcs(keywords=nowhere)).keyword == "$BEGINSTEXT"
    path = make_fcs(keywords=archive)
    path.write_bytes(path.read_bytes().replace(b"{more:>10}", b"0"))
    path = make_fcs(supplement={"PK": "x"})
    path.write_bytes(path.read_bytes()[:-6] + b"PK\3\4zip"[:6])
    file = read_file(path)
    np.testing.assert_array_equal(file.values, EVENTS)
    assert "where there is no TEXT; left out" in file.repairs[0]


@pytest.mark.parametrize("gone", ["left out", "not said"])
@pytest.mark.parametrize("strict", [False, True])
def test_supplemental_text_without_its_first_delimiter(make_fcs, gone, strict):
    path = make_fcs(supplement={"$P1S": "CD3", "$P2G": "2", "$COM": "a/b"})
    raw = path.read_bytes()
    begin = raw.rindex(b"/$P1S")
    if gone == "left out":
        raw = raw[:begin] + raw[begin + 1 :].ljust(len(raw) - begin)
    else:
        raw = raw.replace(f"{begin:>10}".encode(), f"{begin + 1:>10}".encode(), 1)
    path.write_bytes(raw)
    if strict:
        assert "no delimiter before its first" in refusal(path, strict=True).reason
        return
    file = read_file(path)
    np.testing.assert_array_equal(file.values, [[1, 1], [3, 2], [5, 3]])
    assert list(file.var["marker"]) == ["CD3", ""]
    assert file.keywords["com"] == "a/b"
    assert "the supplemental TEXT has no delimiter before its first keyword" in file.repairs


def test_supplemental_text_that_begins_within_a_keyword(make_fcs):
    path = make_fcs(supplement={"$P2G": "2"}, pad=1)
    raw = path.read_bytes()
    begin = raw.rindex(b"/$P2G")
    path.write_bytes(raw.replace(f"{begin:>10}".encode(), f"{begin + 2:>10}".encode(), 1))
    file = read_file(path)
    assert "where there is no TEXT; left out" in file.repairs[0]
    assert "p2g" not in file.keywords


def test_strict_refuses_what_is_repaired(make_fcs):
    path = make_fcs(raw_text="$COM//")
    assert len(read_file(path).repairs) == 1
    assert "strict" in refusal(path, strict=True).reason
    assert "empty values, of $COM" in refusal(path, strict=True).reason
    late = refusal(make_fcs(late=1), strict=True)
    assert "one byte late" in late.reason
    # two data sets and values that are not finite are no errors
    assert read_file(make_fcs(events=[[np.nan, 1]]), strict=True).repairs


def chain(make_fcs, *steps):
    raw = b""
    for k, step in enumerate(steps):
        one = make_fcs("part.fcs", events=[[k, k]], keywords={"$NEXTDATA": "{step}"}).read_bytes()
        text = f"{step if step is not None else len(one):>6}".encode()
        raw += one.replace(b"{step}", text)
    path = make_fcs("cells.lmd")
    path.write_bytes(raw)
    return path


def test_chain_of_data_sets(make_fcs):
    path = chain(make_fcs, None, None, 0)
    for k in range(3):
        file = read_file(path, dataset=k)
        np.testing.assert_array_equal(file.values, [[k, k]])
        assert "holds 3 data sets" in file.repairs[-1]
        assert file.about.text.offset == k * path.stat().st_size // 3
    assert "there is no data set 3" in refusal(path, dataset=3).reason


@pytest.mark.parametrize("step", [-5, 999999])
def test_chain_that_leads_nowhere(make_fcs, step):
    path = chain(make_fcs, step)
    assert f"$NEXTDATA is {step}" in read_file(path).repairs[0]
    refusal(path, dataset=1)


def test_chain_with_a_damaged_link(make_fcs):
    path = chain(make_fcs, None, 0)
    raw = path.read_bytes()
    half = len(raw) // 2
    path.write_bytes(raw[:half] + raw[half:].replace(b"FCS3.0", b"XXXXXX"))
    np.testing.assert_array_equal(read_file(path).values, [[0, 0]])
    assert "data set 1 (counted from 0) is damaged" in read_file(path).repairs[0]
    assert "not an FCS file" in refusal(path, dataset=1).reason


@pytest.mark.parametrize("number", ["1_0", "٣", "3.5", "1e1", "", "99999999999999999999999"])
def test_numbers_that_only_python_reads(make_fcs, number):
    path = make_fcs(keywords={"$PAR": number})
    assert refusal(path).keyword == "$PAR"


def test_error_names_file_keyword_and_value(make_fcs):
    path = make_fcs(keywords={"$P2B": "x"})
    error = refusal(path)
    assert (error.path, error.keyword, error.value) == (path, "$P2B", "x")
    assert str(error) == f"{path}: $P2B is 'x', not an integer"
