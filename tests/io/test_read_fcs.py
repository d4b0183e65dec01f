from __future__ import annotations

import warnings

import anndata as ad
import flowio
import numpy as np
import pytest
from fcs_file import read_file

from scmoe._core.values import fcs_keywords
from scmoe.io import FCSReadError, FCSRepairWarning, read_fcs, write_fcs
from scmoe.io._dataset import open_dataset, read_values

EVENTS = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)


def repairs(adata, sample="cells"):
    return adata.uns["fcs"][sample]["repairs"]


def test_one_file(make_fcs):
    path = make_fcs(markers=["CD3", " "], keywords={"$CYT": "LSRII"})
    adata = read_fcs(path)
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, EVENTS)
    assert list(adata.var_names) == ["CD3", "B"]
    assert list(adata.var["channel"]) == ["A", "B"]
    assert list(adata.var["marker"]) == ["CD3", ""]
    assert list(adata.var["kind"]) == ["fluor", "fluor"]
    assert list(adata.var["PnB"]) == [32, 32]
    assert list(adata.var["PnE"]) == ["0,0", "0,0"]
    assert list(adata.var["PnG"]) == [1, 1]
    assert list(adata.var["PnR"]) == [262144, 262144]
    assert list(adata.obs_names) == ["cells-0", "cells-1", "cells-2"]
    assert adata.obs["sample"].dtype == "category"
    assert adata.uns["fcs"]["cells"]["keywords"].loc["cyt", "value"] == "LSRII"
    assert adata.uns["fcs"]["cells"]["file"] == "cells.fcs"
    assert repairs(adata) == []
    np.testing.assert_array_equal(read_fcs(str(path), dtype="float64").X, EVENTS)


@pytest.mark.parametrize(
    ("datatype", "bits"),
    [("F", [32, 32]), ("D", [64, 64])]
    + [("I", [b, b]) for b in (8, 16, 24, 32, 40, 64)]
    + [("I", [8, 32]), ("I", [24, 16])],
)
def test_storage(make_fcs, datatype, bits):
    for version, order in (("FCS2.0", "<"), ("FCS3.0", ">"), ("FCS3.1", "<"), ("FCS3.2", ">")):
        path = make_fcs(order=order, version=version, datatype=datatype, bits=bits)
        np.testing.assert_array_equal(read_fcs(path).X, EVENTS, f"{version} {order}")


def test_bits_above_the_range_are_masked(make_fcs):
    path = make_fcs(
        events=[[1024 + 7, 1023]], datatype="I", bits=[16, 16], keywords={"$P1R": "1000"}
    )
    np.testing.assert_array_equal(read_fcs(path).X, [[7, 1023]])


def test_integers_of_10_bits_in_words_of_16(make_fcs):
    data = np.array([[1, 2], [3, 4]], dtype="<u2").tobytes()
    path = make_fcs(
        events=[[1, 2], [3, 4]],
        datatype="I",
        data=data,
        keywords={"$P1B": "10", "$P2B": "10", "$P1R": "1024", "$P2R": "1024"},
    )
    with pytest.warns(FCSRepairWarning, match="stored in words"):
        adata = read_fcs(path)
    np.testing.assert_array_equal(adata.X, [[1, 2], [3, 4]])


def test_fcs_32_mixes_types(make_fcs):
    data = b"".join(np.float32(a).tobytes() + np.uint16(b).tobytes() for a, b in EVENTS)
    keywords = {"$P2DATATYPE": "I", "$P2B": "16", "$P2R": "65536"}
    path = make_fcs(version="FCS3.2", data=data, keywords=keywords)
    np.testing.assert_array_equal(read_fcs(path).X, EVENTS)


def test_gain_logarithm_and_time_step_are_applied(make_fcs):
    path = make_fcs(
        events=[[100, 512, 7], [200, 0, 8]],
        channels=["A", "B", "Time"],
        datatype="I",
        bits=[16, 16, 16],
        keywords={"$P1G": "4", "$P2E": "4,1", "$P2R": "1024", "$TIMESTEP": "0.5"},
    )
    np.testing.assert_allclose(read_fcs(path).X, [[25, 100, 3.5], [50, 1, 4]])


def test_time_step_that_is_no_number(make_fcs):
    path = make_fcs(channels=["A", "Time"], keywords={"$TIMESTEP": "xx"})
    with pytest.warns(FCSRepairWarning, match="TIMESTEP"):
        np.testing.assert_array_equal(read_fcs(path).X, EVENTS)


def test_floats_are_never_taken_for_logarithms(make_fcs):
    with pytest.warns(FCSRepairWarning, match=r"\$PnE is ignored.*n = 1"):
        adata = read_fcs(make_fcs(keywords={"$P1E": "4,1"}))
    np.testing.assert_array_equal(adata.X, EVENTS)


def test_data_that_ends_a_byte_late(make_fcs):
    a, b = make_fcs("a.fcs", late=1), make_fcs("b.fcs", late=1, version="FCS2.0")
    with pytest.warns(FCSRepairWarning, match="2 of 2 files") as caught:
        adata = read_fcs([a, b])
    assert len(caught) == 1
    np.testing.assert_array_equal(adata.X, np.vstack([EVENTS, EVENTS]))
    assert repairs(adata, "a") == ["TEXT gives the end of DATA one byte late"]
    assert repairs(adata, "b") == ["HEADER gives the end of DATA one byte late"]


@pytest.mark.parametrize("wrong", [{"header_data": (-9, 0)}, {"text_data": (0, 40)}])
def test_offsets_of_which_one_pair_fits(make_fcs, wrong):
    with pytest.warns(FCSRepairWarning, match="the one that \\$TOT events fit"):
        np.testing.assert_array_equal(read_fcs(make_fcs(**wrong, pad=99)).X, EVENTS)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"header_data": (4, 4), "text_data": (8, 8), "pad": 20}, "could begin at either"),
        ({"keywords": {"$TOT": "4"}}, "truncated, or \\$TOT"),
        ({"keywords": {"$TOT": "2"}}, "DATA takes 16 bytes"),
        ({"keywords": {"$TOT": "-1"}}, "\\$TOT is -1"),
        ({"keywords": {"$TOT": "1000000000000000"}}, "truncated, or \\$TOT"),
        ({"keywords": {"$TOT": "three"}}, "three"),
        ({"keywords": {"$PAR": "3"}}, "\\$PAR is 3"),
        ({"keywords": {"$PAR": "0"}}, "\\$PAR is 0"),
        ({"keywords": {"$PAR": "100000000"}}, "\\$PAR"),
        ({"keywords": {"$P2N": " "}}, "\\$P2N blank"),
        ({"keywords": {"$MODE": "C"}}, "\\$MODE"),
        ({"keywords": {"$DATATYPE": "X"}}, "\\$DATATYPE"),
        ({"keywords": {"$BYTEORD": "3,4,1,3"}}, "\\$BYTEORD"),
        ({"keywords": {"$P1B": "xx"}}, "\\$P1B"),
        ({"datatype": "I", "keywords": {"$P1B": "65"}}, "\\$P1B"),
        ({"datatype": "I", "keywords": {"$P1E": "4"}}, "\\$P1E"),
        ({"keywords": {"$NEXTDATA": "x"}}, "\\$NEXTDATA is 'x'"),
        ({"drop": ["$BYTEORD"]}, "\\$BYTEORD"),
        ({"datatype": "I", "drop": ["$P1R"]}, "\\$P1R"),
        ({"drop": ["$P2N"]}, "\\$PAR is 2"),
        ({"drop": ["$DATATYPE"]}, "\\$DATATYPE"),
        ({"version": "FCS1.0"}, "FCS1.0"),
        ({"version": "FCS3.2", "keywords": {"$P1DATATYPE": "Z"}}, "\\$P1DATATYPE"),
    ],
)
def test_file_that_cannot_be_read(make_fcs, kwargs, reason):
    path = make_fcs(**kwargs)
    with pytest.raises(FCSReadError, match=reason) as caught:
        read_fcs(path)
    assert caught.value.path == path
    assert caught.value.reason in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"CD3,CD4\n1,2\n", "not an FCS file"),
        (b"FCS3.0", "ends within the HEADER"),
        (b"FCS3.0    " + b"x" * 48, "TEXT lies at"),
        (b"FCS3.0    " + b"      5899999999" + b" " * 40, "TEXT lies at"),
    ],
)
def test_what_is_no_fcs_file(tmp_path, content, reason):
    path = tmp_path / "x.fcs"
    path.write_bytes(content)
    with pytest.raises(FCSReadError, match=reason):
        read_fcs(path)


def test_every_truncation_is_an_error(make_fcs, tmp_path):
    whole = make_fcs().read_bytes()
    path = tmp_path / "part.fcs"
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(FCSReadError):
            read_fcs(path)


def test_damaged_bytes_never_raise_anything_else(make_fcs, tmp_path):
    whole = make_fcs(markers=["CD3", "CD4"], keywords={"$TIMESTEP": "1"}).read_bytes()
    path = tmp_path / "damaged.fcs"
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        places = rng.integers(0, len(damaged), rng.integers(1, 4))
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FCSRepairWarning)
            try:
                adata = read_fcs(path)
            except FCSReadError:
                continue
        assert adata.shape == (3, 2)


def test_no_events(make_fcs):
    adata = read_fcs(make_fcs(events=np.empty((0, 2))))
    assert adata.shape == (0, 2)


def test_values_that_are_not_finite(make_fcs):
    with pytest.warns(FCSRepairWarning, match="2 values are not finite.*A, B"):
        adata = read_fcs(make_fcs(events=[[1, np.inf], [np.nan, 2]]))
    assert np.isnan(adata.X[1, 0])
    assert np.isinf(adata.X[0, 1])


def test_repeated_names(make_fcs):
    channels, markers = ["FL1", "FL2", "FL3", "FL3"], ["CD4", "CD4", "", ""]
    adata = read_fcs(make_fcs(events=[[1, 2, 3, 4]], channels=channels, markers=markers))
    assert list(adata.var_names) == ["CD4 (FL1)", "CD4 (FL2)", "FL3", "FL3-2"]
    assert list(adata.var["channel"]) == channels


def test_several_data_sets(make_fcs, tmp_path):
    second = make_fcs("b.fcs", events=[[7, 8]]).read_bytes()
    first = make_fcs("a.fcs", keywords={"$NEXTDATA": "9999"}).read_bytes()
    first = first.replace(b"9999", str(len(first)).zfill(4).encode())
    path = tmp_path / "cells.lmd"
    path.write_bytes(first + second)
    with pytest.warns(FCSRepairWarning, match="holds 2 data sets; number 0"):
        np.testing.assert_array_equal(read_fcs(path).X, EVENTS)
    with pytest.warns(FCSRepairWarning, match="number 1"):
        np.testing.assert_array_equal(read_fcs(path, dataset=1).X, [[7, 8]])
    with pytest.raises(FCSReadError, match="there is no data set 2"):
        read_fcs(path, dataset=2)


SHIFTED = [[2, 3], [4, 5], [6, 0]]


@pytest.mark.parametrize(
    ("kwargs", "auto", "header", "text"),
    [
        # DATA lies right behind TEXT, or blanks do
        ({"header_data": (4, 4)}, EVENTS, SHIFTED, EVENTS),
        ({"text_data": (4, 4)}, EVENTS, EVENTS, SHIFTED),
        ({"header_data": (4, 5)}, EVENTS, SHIFTED, EVENTS),
        ({"header_data": (4, 4), "text_data": (8, 8)}, None, SHIFTED, [[3, 4], [5, 6], [0, 0]]),
        # no choice is needed, and none is followed that cannot be right
        ({}, EVENTS, EVENTS, EVENTS),
        ({"header_data": (4, 0)}, EVENTS, EVENTS, EVENTS),
        ({"version": "FCS2.0", "text_data": (4, 4)}, EVENTS, EVENTS, SHIFTED),
        ({"drop": ["$TOT"], "text_data": (0, -8)}, None, EVENTS, EVENTS[:2]),
    ],
)
def test_two_places_of_data(make_fcs, kwargs, auto, header, text):
    path = make_fcs(pad=20, **kwargs)
    path.write_bytes(path.read_bytes().replace(b" " * 20, bytes(20)))
    for offsets, expected in (("auto", auto), ("header", header), ("text", text)):
        if expected is None:
            with pytest.raises(FCSReadError, match='offsets="header" or offsets="text" decides'):
                read_file(path)
            continue
        about = open_dataset(path, offsets=offsets)
        values = np.empty((about.n_events, 2))
        read_values(about, values)
        np.testing.assert_array_equal(values, expected)


def test_the_choice_of_a_place_is_recorded(make_fcs, tmp_path):
    path = make_fcs(header_data=(4, 4), pad=20)
    with pytest.warns(FCSRepairWarning, match="TEXT was used, whose place is right behind"):
        assert repairs(read_fcs(path)) != []
    with pytest.raises(FCSReadError, match=r"right behind.*strict=True"):
        read_fcs(path, strict=True)
    with pytest.warns(FCSRepairWarning, match="HEADER was used, as `offsets=` asks"):
        adata = read_fcs(path, offsets="header")
    assert adata.uns["fcs"]["cells"]["offsets"] == "header"
    # events are written from the place that they were read from
    adata.obs["k"] = ["1", "2", "3"]
    (new,) = write_fcs(adata, tmp_path / "out", obs="k")
    np.testing.assert_array_equal(read_fcs(new).X[:, :2], adata.X)


def test_names_that_no_file_can_hold(make_fcs, tmp_path):
    name = "h\x1b[31m\n\udcffx.fcs"
    path = make_fcs(
        name,
        channels=["A\x01", "B"],
        markers=["CD\x003\x1b[0m", "a\tb\u202e"],
        keywords={"k\0ey": "v\0al", "SPILL": "2,A\x01,B,1,0.5,0,1"},
    )
    with pytest.raises(FCSReadError, match=r"P1N.*refused") as caught:
        read_fcs(path, strict=True)
    assert str(caught.value).isprintable()
    assert caught.value.path == path
    with pytest.warns(FCSRepairWarning, match=r"\$P1S that cannot be printed.*'CD\\x003") as told:
        adata = read_fcs(path)
    assert str(told[0].message).isprintable()
    assert list(adata.var_names) == ["CD3[0m", "a b"]
    assert list(adata.var["channel"]) == ["A", "B"]
    assert list(adata.uns["fcs"]) == ["h[31m x"]
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    assert list(adata.uns["fcs"]["h[31m x"]["spillover"].index) == ["A", "B"]
    # the original is found again
    adata.obs["k"] = ["1", "2", "3"]
    (new,) = write_fcs(adata, tmp_path / "out", obs="k")
    with pytest.warns(FCSRepairWarning):
        assert list(read_fcs(new).var_names) == ["CD3[0m", "a b", "k"]


def test_a_name_of_nothing_that_can_be_printed(make_fcs):
    with pytest.raises(FCSReadError, match="P1N holds no printable character"):
        read_fcs(make_fcs(channels=["\x01\x02", "B"]))


def test_spillover(make_fcs):
    channels = ["FSC-A", "PE/Cy7-A", "B"]
    value = "2,PE/Cy7-A,B,1,0.1,0.2,1"
    path = make_fcs(
        events=[[1, 2, 3]], channels=channels, delimiter="|", keywords={"$SPILLOVER": value}
    )
    spillover = read_fcs(path).uns["fcs"]["cells"]["spillover"]
    assert list(spillover.index) == ["PE/Cy7-A", "B"]
    assert list(spillover.columns) == ["PE_Cy7-A", "B"]
    np.testing.assert_array_equal(spillover, [[1, 0.1], [0.2, 1]])
    numbered = make_fcs(
        "n.fcs", [[1, 2, 3]], channels, delimiter="|", keywords={"SPILL": "2,2,3,1,0,0,1"}
    )
    spillover = read_fcs(numbered).uns["fcs"]["n"]["spillover"]
    assert list(spillover.index) == ["PE/Cy7-A", "B"]


@pytest.mark.parametrize(
    "value", ["x,A,B,1,0,0,1", "2,A,B,1,0,0", "2,A,C,1,0,0,1", "2,A,A,1,0,0,1", "2,A,B,1,0,x,1"]
)
def test_spillover_that_cannot_be_read(make_fcs, value):
    with pytest.warns(FCSRepairWarning, match="spillover matrix was left out"):
        adata = read_fcs(make_fcs(keywords={"$SPILLOVER": value}))
    assert "spillover" not in adata.uns["fcs"]["cells"]
    np.testing.assert_array_equal(adata.X, EVENTS)


def test_h5ad_round_trip(make_fcs, tmp_path):
    keywords = {"$SPILLOVER": "2,A/x,B,1,0,0,1", "a/b": "c", ".": "dot", "NUL": "x\0y"}
    panel = {"channels": ["A/x", "B"], "markers": ["LIVE/DEAD", "CD3"], "delimiter": "|"}
    path = make_fcs(keywords=keywords, **panel)
    late = make_fcs("b.fcs", late=1, **panel)
    with pytest.warns(FCSRepairWarning):
        adata = read_fcs([path, late])
    adata.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(back.X, adata.X)
    assert list(back.var_names) == ["LIVE/DEAD", "CD3"]
    record = back.uns["fcs"]["cells"]
    keywords = record["keywords"]["value"]
    assert keywords["a/b"] == "c"
    assert keywords["."] == "dot"
    assert keywords["nul"] == "xy"
    assert dict(keywords) == fcs_keywords(adata.uns["fcs"]["cells"])
    assert list(record["repairs"]) == []
    assert list(record["spillover"].index) == ["A/x", "B"]
    assert len(back.uns["fcs"]["b"]["repairs"]) == 1


def test_folder_pattern_and_list(make_fcs, tmp_path):
    for name in ("w10.fcs", "w2.FCS", "w1.lmd", "notes.txt", ".w3.fcs"):
        make_fcs(f"plate/{name}")
    plate = tmp_path / "plate"
    adata = read_fcs(plate)
    assert list(adata.obs["sample"].cat.categories) == ["w1", "w2", "w10"]
    assert adata.n_obs == 9
    assert list(read_fcs(f"{plate}/w*0.fcs").obs["sample"].unique()) == ["w10"]
    listed = read_fcs([str(plate / "w10.fcs"), plate / "w1.lmd"])
    assert list(listed.obs["sample"].cat.categories) == ["w10", "w1"]


def test_equal_stems_take_the_name_of_the_folder(make_fcs):
    paths = [make_fcs("p1/a.fcs"), make_fcs("p2/a.fcs"), make_fcs("p2/a.lmd"), make_fcs("b.fcs")]
    adata = read_fcs(paths)
    assert list(adata.obs["sample"].cat.categories) == ["p1_a", "p2_a.fcs", "p2_a.lmd", "b"]
    assert adata.obs_names.is_unique


def test_nothing_to_read(tmp_path):
    with pytest.raises(FCSReadError, match=r"no file ending in '\.fcs' or '\.lmd'"):
        read_fcs(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_fcs(tmp_path / "nowhere.fcs")
    with pytest.raises(FileNotFoundError, match="matches the pattern"):
        read_fcs(str(tmp_path / "*.fcs"))
    with pytest.raises(ValueError, match="empty"):
        read_fcs([])


def test_arguments(make_fcs):
    path = make_fcs()
    with pytest.raises(ValueError, match="more than once"):
        read_fcs([path, path])
    with pytest.raises(TypeError, match="`path`"):
        read_fcs(3)
    with pytest.raises(TypeError, match="name of a file"):
        read_fcs([3])
    with pytest.raises(ValueError, match="`join`"):
        read_fcs(path, join="left")
    for dataset in (-1, "every", True):
        with pytest.raises(ValueError, match="`dataset`"):
            read_fcs(path, dataset=dataset)
    for name in ("by", "offsets"):
        with pytest.raises(ValueError, match=f"`{name}` is '.*, not 'x'"):
            read_fcs(path, **{name: "x"})
    with pytest.raises(ValueError, match="`dtype`"):
        read_fcs(path, dtype="int8")


def test_panels_that_do_not_match(make_fcs):
    a = make_fcs("a.fcs", markers=["CD3", "CD4"])
    b = make_fcs("b.fcs", markers=["CD3", "CD8"])
    with pytest.raises(FCSReadError, match=r'a\.fcs.*CD8.*CD4.*join="inner"') as caught:
        read_fcs([a, b], join="exact")
    assert caught.value.path == b
    with pytest.warns(UserWarning, match="dropped.*a.fcs: CD4; .*b.fcs: CD8"):
        adata = read_fcs([a, b])
    assert list(adata.var_names) == ["CD3"]
    np.testing.assert_array_equal(adata.X[:, 0], [1, 3, 5, 1, 3, 5])
    c = make_fcs("c.fcs", markers=["CD19", "CD20"])
    with pytest.raises(FCSReadError, match="no marker is shared"):
        read_fcs([a, c])


def test_same_marker_on_another_channel_is_another_panel(make_fcs):
    a = make_fcs("a.fcs", markers=["CD3", "CD4"])
    b = make_fcs("b.fcs", channels=["A", "C"], markers=["CD3", "CD4"])
    with pytest.raises(FCSReadError, match=r"CD4 \[channel C\]"):
        read_fcs([a, b], join="exact")
    with pytest.warns(UserWarning, match=r"different channels: CD4 on B in .*a\.fcs, C in"):
        np.testing.assert_array_equal(read_fcs([a, b]).X[3:], EVENTS)


def test_channels_in_another_order_are_matched_by_name(make_fcs):
    a = make_fcs("a.fcs")
    b = make_fcs("b.fcs", channels=["B", "A"])
    adata = read_fcs([a, b])
    np.testing.assert_array_equal(adata.X, np.vstack([EVENTS, EVENTS[:, ::-1]]))


def test_progress_bar(make_fcs, capfd):
    path = make_fcs()
    read_fcs(path)
    assert capfd.readouterr().err == ""
    read_fcs(path, progress=True)
    assert "FCS files" in capfd.readouterr().err


def test_error_survives_pickling(tmp_path):
    import pickle

    error = pickle.loads(pickle.dumps(FCSReadError(tmp_path, "why")))
    assert (error.path, error.reason) == (tmp_path, "why")


def test_agrees_with_readfcs(make_fcs):
    readfcs = pytest.importorskip("readfcs")
    rng = np.random.default_rng(0)
    path = make_fcs(events=rng.normal(0, 50, (40, 2)), markers=["CD3", "CD4"], order=">")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = readfcs.read(str(path))
    ours = read_fcs(path)
    np.testing.assert_array_equal(ours.X, theirs.X)
    assert list(ours.var_names) == list(theirs.var_names)


def test_reads_what_flowio_writes(tmp_path):
    path = tmp_path / "x.fcs"
    with path.open("wb") as handle:
        flowio.create_fcs(handle, [1.0, 2.0, 3.0, 4.0], ["A", "B"], ["CD3", "CD4"])
    np.testing.assert_array_equal(read_fcs(path).X, [[1, 2], [3, 4]])
