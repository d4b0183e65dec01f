"""Cells -> FCS files: without an original, and with one that the tests build."""

from __future__ import annotations

import gzip
import json

import anndata as ad
import flowio
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scmoe._core import atomic
from scmoe._core.values import fcs_keywords
from scmoe.io import _write_events, _write_text, read_fcs, write_fcs
from scmoe.io._dataset import open_dataset
from scmoe.pp import arcsinh, compensate

EVENTS = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)


def clustered(adata, labels=("0", "1", None)):
    """Add a clustering."""
    adata.obs["scmoe"] = pd.Categorical(list(labels), categories=["0", "1"])
    adata.obsm["scmoe_proba"] = pd.DataFrame(
        [[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]], index=adata.obs_names, columns=["0", "1"]
    )
    adata.obs["scmoe_outlier"] = np.array([0.5, 0.0, 1.0], dtype=np.float32)
    return adata


ADDED = np.array([[0, 0.75, 0.5], [1, 0.5, 0], [2, 0.875, 1]])


@pytest.fixture
def adata():
    """Cells that no FCS file knows."""
    obs = pd.DataFrame(index=["a", "b", "c"])
    var = pd.DataFrame({"channel": ["FL1", "FL2"]}, index=["CD3", "CD4"])
    return clustered(ad.AnnData(EVENTS.copy(), obs=obs, var=var))


def keywords(path):
    (record,) = read_fcs(path).uns["fcs"].values()
    return fcs_keywords(record)


def codes(path, name="scmoe"):
    return json.loads(keywords(path)[f"scmoe_codes_{name}"])


# without an original


def test_cells_from_elsewhere(adata, tmp_path):
    path = tmp_path / "x.fcs"
    assert write_fcs(adata, path) == [path]
    back = read_fcs(path)
    np.testing.assert_array_equal(back.X, np.hstack([EVENTS, ADDED]))
    assert list(back.var["channel"]) == ["FL1", "FL2", "scmoe", "scmoe_proba", "scmoe_outlier"]
    assert list(back.var_names[:2]) == ["CD3", "CD4"]
    assert list(back.var["kind"]) == ["fluor", "fluor", "other", "other", "other"]
    # one above the largest value
    assert list(back.var["PnR"]) == [6, 7, 3, 1, 2]
    record = back.uns["fcs"]["x"]
    assert record["repairs"] == []
    assert keywords(path)["scmoe_events"] == "X"
    assert keywords(path)["scmoe_version"]
    assert codes(path) == {"0": "0", "1": "1", "2": None}
    assert path.read_bytes()[-8:] == b"00000000"
    theirs = flowio.FlowData(path)
    np.testing.assert_array_equal(theirs.as_array(), np.hstack([EVENTS, ADDED]))


def test_a_folder_with_a_file_for_each_sample(adata, tmp_path):
    adata.obs["sample"] = pd.Categorical(["t/2", "1", "t/2"], categories=["1", "none", "t/2"])
    paths = write_fcs(adata, tmp_path / "new" / "folder")
    assert paths == [tmp_path / "new/folder/1.fcs", tmp_path / "new/folder/t_2.fcs"]
    np.testing.assert_array_equal(read_fcs(paths[1]).X[:, :2], EVENTS[[0, 2]])
    # codes are those of all cells
    assert codes(paths[0]) == codes(paths[1])


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint8", "float32"])
@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix])
def test_types_of_values(adata, tmp_path, dtype, make):
    values = EVENTS.astype(dtype)
    if dtype in ("float64", "int64"):
        values[0, 0] = 2**24 + 1
    adata.X = make(values)
    write_fcs(adata, tmp_path / "x.fcs")
    back = read_fcs(tmp_path / "x.fcs", dtype="float64")
    np.testing.assert_array_equal(back.X[:, :2], values.astype(np.float64))
    assert set(back.var["PnB"]) == {64 if dtype in ("float64", "int64") else 32}


@pytest.mark.filterwarnings("ignore:.*values are not finite")
def test_layer_and_values_that_are_not_finite(adata, tmp_path):
    adata.layers["odd"] = np.array([[np.nan, -1], [np.inf, -2], [7, -3]], dtype=np.float32)
    write_fcs(adata, tmp_path / "x.fcs", layer="odd")
    back = read_fcs(tmp_path / "x.fcs")
    np.testing.assert_array_equal(back.X[:, :2], adata.layers["odd"])
    assert list(back.var["PnR"][:2]) == [8, 1]
    assert keywords(tmp_path / "x.fcs")["scmoe_events"] == "odd"


def test_transformed_values_need_a_word(adata, tmp_path):
    adata.layers["raw"] = adata.X.copy()
    arcsinh(adata)
    with pytest.raises(ValueError, match=r"\.uns\['arcsinh'\].*`source=`.*`layer=`.*inverse"):
        write_fcs(adata, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    write_fcs(adata, tmp_path / "out", layer="raw")
    np.testing.assert_array_equal(read_fcs(tmp_path / "out").X[:, :2], EVENTS)


# columns of .obs


def written(adata, tmp_path, name):
    path = tmp_path / "x.fcs"
    write_fcs(adata, path, obs=name, overwrite=True)
    return read_fcs(path).X[:, 2:]


@pytest.mark.parametrize(
    ("column", "values", "table"),
    [
        (["b10", "b9", "b10"], [2, 1, 2], {"1": "b9", "2": "b10"}),
        (["5", "12", "5"], [5, 12, 5], {"5": "5", "12": "12"}),
        (["5", "12", None], [5, 12, 13], {"5": "5", "12": "12", "13": None}),
        (["05", "5", "5"], [1, 2, 2], {"1": "05", "2": "5"}),
        (["x", "1", "1"], [2, 1, 1], {"1": "1", "2": "x"}),
        (["16777216", "0", "0"], [2, 1, 1], {"1": "0", "2": "16777216"}),
        ([True, False, True], [1, 0, 1], {"0": "False", "1": "True"}),
        (pd.array([True, None, False]), [1, 2, 0], {"0": "False", "1": "True", "2": None}),
        (pd.Categorical([3, 7, 3]), [3, 7, 3], {"3": "3", "7": "7"}),
        (pd.Categorical(["z", "a", None], ["z", "a"]), [1, 2, 3], {"1": "z", "2": "a", "3": None}),
        (pd.Categorical([None] * 3, []), [1, 1, 1], {"1": None}),
        (['a/b"\\\x0c,µ', "T", "T"], [2, 1, 1], {"1": "T", "2": 'a/b"\\\x0c,µ'}),
    ],
)
def test_labels_become_codes(adata, tmp_path, column, values, table):
    adata.obs["label"] = column
    assert written(adata, tmp_path, "label")[:, 0].tolist() == values
    assert codes(tmp_path / "x.fcs", "label") == table
    assert flowio.FlowData(tmp_path / "x.fcs").text["scmoe_codes_label"].isascii()


@pytest.mark.filterwarnings("ignore:.*values are not finite")
@pytest.mark.parametrize(
    "column",
    [[0.5, np.nan, -3.0], [7, 8, 9], pd.array([1, None, 3]), np.array([1, 2, 3], np.uint8)],
)
def test_numbers_stay_numbers(adata, tmp_path, column):
    adata.obs["number"] = column
    expected = pd.Series(column).to_numpy(np.float64, na_value=np.nan)
    np.testing.assert_array_equal(written(adata, tmp_path, "number")[:, 0], expected)
    assert "scmoe_codes_number" not in keywords(tmp_path / "x.fcs")


def test_several_columns_none_twice(adata, tmp_path):
    adata.obs["batch"] = ["x", "y", "x"]
    names = ["scmoe", "batch", "scmoe_outlier"]
    found = written(adata, tmp_path, names)
    np.testing.assert_array_equal(found, np.hstack([ADDED, [[1], [2], [1]]]))
    assert written(adata, tmp_path, []).shape == (3, 0)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("a,b", [1, 2, 3], "comma"),
        (" ", [1, 2, 3], "blank"),
        ("a\nb", [1, 2, 3], "control character"),
        ("when", pd.to_datetime(["2020", "2021", "2022"]), "datetime64.*neither labels nor"),
        ("big", [2**24 + 1, 0, 0], r"above 2\^24"),
        ("huge", [1e300, 0, 0], "too large for 32 bits"),
        ("FL1", [1, 2, 3], "'FL1', and there are channels called so"),
    ],
)
def test_columns_that_cannot_be_written(adata, tmp_path, name, column, message):
    adata.obs[name] = column
    with pytest.raises(ValueError, match=message):
        write_fcs(adata, tmp_path / "x.fcs", obs=name)
    with pytest.raises(KeyError, match=r"'nothing'.*'scmoe'"):
        write_fcs(adata, tmp_path / "x.fcs", obs=["scmoe", "nothing"])
    adata.obs["SCMOE"] = "x"
    with pytest.raises(ValueError, match="differ in case only: 'scmoe', 'SCMOE'"):
        write_fcs(adata, tmp_path / "x.fcs", obs=["scmoe", "SCMOE"])
    assert list(tmp_path.iterdir()) == []


# what is refused, and what is left behind


def test_places_that_cannot_be_written(adata, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_fcs(adata, tmp_path / "none" / "x.fcs")
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match="neither a folder nor a file name"):
        write_fcs(adata, tmp_path / "x.txt")
    adata.obs["sample"] = ["A", "a", "a"]
    with pytest.raises(ValueError, match=r"2 samples .'A', 'a'.*one file"):
        write_fcs(adata, tmp_path / "x.fcs")
    with pytest.raises(ValueError, match="same file: 'A', 'a'"):
        write_fcs(adata, tmp_path)
    adata.obs["sample"] = ["A", "b", None]
    with pytest.raises(ValueError, match="no sample for 1 cells"):
        write_fcs(adata, tmp_path)
    with pytest.raises(ValueError, match="no cells"):
        write_fcs(adata[:0], tmp_path)
    with pytest.raises(ValueError, match="exclude each other"):
        write_fcs(adata, tmp_path, source=tmp_path, layer="x")
    with pytest.raises(KeyError, match="nothing"):
        write_fcs(adata[:2], tmp_path, layer="nothing")
    adata.var["channel"] = ["a,b", "c"]
    with pytest.raises(ValueError, match=r"comma.*'a,b'\. Rename"):
        write_fcs(adata[:2], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_cells_on_disk(adata, tmp_path):
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"to_memory\(\)"):
        write_fcs(backed, tmp_path / "out")
    backed.file.close()


def test_files_that_are_there_are_kept(adata, tmp_path):
    adata.obs["sample"] = ["a", "b", "b"]
    (tmp_path / "b.fcs").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"b\.fcs; pass `overwrite=True`"):
        write_fcs(adata, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.fcs"]
    write_fcs(adata, tmp_path, overwrite=True)
    np.testing.assert_array_equal(read_fcs(tmp_path / "b.fcs").X[:, :2], EVENTS[1:])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fcs", "b.fcs"]


@pytest.mark.parametrize("fails", ["first", "second", "fsync", "rename"])
def test_an_interrupted_write_leaves_nothing(adata, tmp_path, monkeypatch, fails):
    adata.obs["sample"] = ["a", "b", "b"]
    calls = []

    def stop(original, when):
        def stopped(*args, **kwargs):
            calls.append(args)
            if len(calls) == when:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return stopped

    if fails == "fsync":
        monkeypatch.setattr(atomic.os, "fsync", stop(atomic.os.fsync, 2))
    elif fails == "rename":
        monkeypatch.setattr(atomic.os, "replace", stop(atomic.os.replace, 2))
    else:
        when = 1 if fails == "first" else 2
        encode = stop(_write_events.encode_values, when)
        monkeypatch.setattr(_write_events, "encode_values", encode)
    with pytest.raises(KeyboardInterrupt):
        write_fcs(adata, tmp_path / "x" / "y")
    assert list(tmp_path.iterdir()) == []
    calls.clear()
    (tmp_path / "x").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_fcs(adata, tmp_path / "x")
    assert list((tmp_path / "x").iterdir()) == []


# with an original


def test_the_original_is_copied(make_fcs, tmp_path):
    """Transformed, reordered, without a channel, through h5ad: the file is as it was."""
    path = make_fcs(
        markers=["CD3", ""],
        keywords={"$CYT": "LSRII", "FOO bar": "Ünï", "$ORIGINALITY": "Original"},
    )
    adata = clustered(read_fcs(path))
    arcsinh(adata)
    adata = adata[[2, 0], ["CD3"]].copy()
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    (new,) = write_fcs(adata, tmp_path / "out")
    assert new == tmp_path / "out" / "cells.fcs"
    back = read_fcs(new)
    expected = np.hstack([EVENTS, ADDED])[[2, 0]]
    # AnnData forgot category 1, so a missing label is the code behind 0
    expected[0, 2] = 1
    np.testing.assert_array_equal(back.X, expected)
    assert list(back.var["channel"]) == ["A", "B", "scmoe", "scmoe_proba", "scmoe_outlier"]
    before, after = keywords(path), keywords(new)
    changed = {key for key in before if before[key].strip() != after[key].strip()}
    assert changed == {"par", "tot", "begindata", "enddata", "originality"}
    assert after["originality"] == "Appended"
    spelt = [[key for key, _ in open_dataset(p).text.pairs] for p in (path, new)]
    assert spelt[1][: len(spelt[0])] == spelt[0]
    assert after["scmoe_events"] == "original"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("datatype", "bits"), [("F", [32, 32]), ("D", [64, 64])])
def test_floats(make_fcs, tmp_path, order, datatype, bits):
    path = make_fcs(order=order, datatype=datatype, bits=bits)
    (new,) = write_fcs(clustered(read_fcs(path)), tmp_path / "out")
    np.testing.assert_array_equal(read_fcs(new).X, np.hstack([EVENTS, ADDED]))
    np.testing.assert_array_equal(flowio.FlowData(new).as_array(), np.hstack([EVENTS, ADDED]))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [[8, 8], [16, 16], [8, 24], [32, 64]])
def test_integers_get_integers(make_fcs, tmp_path, order, bits):
    path = make_fcs(order=order, datatype="I", bits=bits)
    adata = clustered(read_fcs(path))
    adata.obs["depth"] = [0.0, 1234.5, 1e6]
    (new,) = write_fcs(adata, tmp_path / "out", obs=["scmoe", "depth"])
    back = read_fcs(new, dtype="float64")
    np.testing.assert_array_equal(back.X[:, :2], EVENTS)
    np.testing.assert_allclose(back.X[:, 2:5], ADDED, atol=5e-7)
    np.testing.assert_array_equal(back.X[:, 5], adata.obs["depth"])
    assert list(back.var["PnB"]) == [*bits, 32, 32, 32, 32]
    # 10^6 times a gain of 10^3 is below 2^32
    assert list(back.var["PnG"]) == [1, 1, 1, 10**6, 10**6, 10**3]
    # codes 0 to 2, and 10^6 as the largest whole number behind a probability
    assert list(back.var["PnR"][2:4]) == [4, 2**20]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([0.5, np.nan, 1], "NaN or infinite for 1 cells"),
        ([0.5, -0.5, 1], "negative"),
        ([0.5, 1e10, 1], r"1e\+10, too large for integers of 32 bits"),
    ],
)
def test_numbers_that_integers_cannot_hold(make_fcs, tmp_path, column, message):
    adata = read_fcs(make_fcs(datatype="I", bits=[16, 16]))
    adata.obs["odd"] = column
    with pytest.raises(ValueError, match=rf"\.obs\['odd'\].*{message}"):
        write_fcs(adata, tmp_path / "out", obs="odd")
    assert not (tmp_path / "out").exists()


def test_delimiters_that_occur_in_keywords(make_fcs, tmp_path):
    path = make_fcs(
        keywords={"$COM": "a/b", "$SRC": ""}, delimiter="/", channels=["A", "B"], drop=["$SRC"]
    )
    adata = read_fcs(path)
    assert keywords(path)["com"] == "a/b"
    adata.obs["x/y"] = ["p/q", "/", "p/q"]
    (new,) = write_fcs(adata, tmp_path / "out", obs="x/y")
    back = read_fcs(new)
    assert back.uns["fcs"]["cells"]["repairs"] == []
    assert back.var["channel"].iloc[2] == "x/y"
    assert keywords(new)["com"] == "a/b"
    assert flowio.FlowData(new).text["com"] == "a/b"


def test_flaws_of_the_original_are_not_copied(make_fcs, tmp_path):
    with pytest.warns(UserWarning, match="empty values"):
        adata = read_fcs(make_fcs(keywords={"$COM": "", "$SRC": "", "$CYT": "x"}, late=1))
    (new,) = write_fcs(clustered(adata), tmp_path / "out")
    assert read_fcs(new).uns["fcs"]["cells"]["repairs"] == []
    assert keywords(new)["com"].strip() == ""


def test_names_that_are_not_ascii(make_fcs, tmp_path, caplog):
    adata = read_fcs(make_fcs(version="FCS3.0"))
    adata.obs["größe"] = [1, 2, 3]
    (new,) = write_fcs(adata, tmp_path / "out", obs="größe")
    back = read_fcs(new)
    assert back.var["channel"].iloc[2] == "größe"
    assert back.uns["fcs"]["cells"]["version"] == "FCS3.1"
    assert keywords(new)["scmoe_original_version"] == "FCS3.0"
    assert "FCS3.0 cannot hold names that are not ASCII" in caplog.text


def test_data_behind_what_header_can_say(make_fcs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_write_text, "_MOST_IN_HEADER", 100)
    for version in ("FCS2.0", "FCS3.0"):
        adata = read_fcs(make_fcs(version=version))
        (new,) = write_fcs(clustered(adata), tmp_path / version)
        assert new.read_bytes()[26:42].split() == [b"0", b"0"]
        back = read_fcs(new)
        np.testing.assert_array_equal(back.X, np.hstack([EVENTS, ADDED]))
        assert back.uns["fcs"]["cells"]["version"] == version.replace("2.0", "3.1")
    assert "FCS2.0 cannot hold so many bytes" in caplog.text


def test_many_events(make_fcs, tmp_path, monkeypatch):
    """Chunks end where they should."""
    monkeypatch.setattr(_write_events, "_CHUNK", 7)
    monkeypatch.setattr(_write_events, "_CHUNK", 7)
    events = np.arange(40, dtype=np.float32).reshape(20, 2)
    adata = read_fcs(make_fcs(events=events))
    adata.obs["n"] = np.arange(20)
    rows = np.random.default_rng(0).permutation(20)[:15]
    expected = np.column_stack([events, np.arange(20)])[rows]
    write_fcs(adata[rows], tmp_path / "a.fcs", obs="n")
    np.testing.assert_array_equal(read_fcs(tmp_path / "a.fcs").X, expected)
    adata.layers["x"] = adata.X
    write_fcs(adata[rows], tmp_path / "b.fcs", obs="n", layer="x")
    np.testing.assert_array_equal(read_fcs(tmp_path / "b.fcs").X, expected)


def test_several_files(make_fcs, tmp_path):
    """Concatenated as a plate is; files of one name in two folders go by their samples."""
    one = read_fcs([make_fcs("a/cells.fcs"), make_fcs("b/cells.fcs", events=EVENTS + 10)])
    two = read_fcs(make_fcs("c/more.fcs", events=EVENTS + 20))
    both = ad.concat([two, one], merge="same", uns_merge="unique")
    both.obs["n"] = np.arange(9)
    order = [8, 0, 3, 5]
    paths = write_fcs(both[order], tmp_path / "out", obs="n")
    assert sorted(p.name for p in paths) == ["a_cells.fcs", "b_cells.fcs", "more.fcs"]
    back = {path.stem: read_fcs(path).X for path in paths}
    np.testing.assert_array_equal(back["more"], [[21, 22, 0]])
    np.testing.assert_array_equal(back["a_cells"], [[1, 2, 3], [5, 6, 5]])
    np.testing.assert_array_equal(back["b_cells"], [[15, 16, 8]])


def test_compressed_original(make_fcs, tmp_path):
    plain = make_fcs()
    path = tmp_path / "cells.fcs.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    (new,) = write_fcs(clustered(read_fcs(path)), tmp_path / "out")
    assert new.name == "cells.fcs"
    np.testing.assert_array_equal(read_fcs(new).X, np.hstack([EVENTS, ADDED]))


def test_originals_that_moved_or_changed(make_fcs, tmp_path):
    path = make_fcs("before/cells.fcs", keywords={"$CYT": "LSRII", "$P2V": "400", "GUID": "7"})
    adata = clustered(read_fcs(path))
    (tmp_path / "after").mkdir()
    path = path.rename(tmp_path / "after" / "cells.fcs")
    for source in (path, path.parent):
        (new,) = write_fcs(adata, tmp_path / "out", source=source, overwrite=True)
        assert keywords(new)["scmoe_events"] == "original"
    with pytest.raises(FileNotFoundError, match=r"no cells\.fcs in .*before"):
        write_fcs(adata, tmp_path / "out2", source=tmp_path / "before")
    # gone, but the values are as they were
    (new,) = write_fcs(adata[:, "B"], tmp_path / "out3")
    back = read_fcs(new)
    np.testing.assert_array_equal(back.X, np.hstack([EVENTS[:, 1:], ADDED]))
    kept = keywords(new)
    assert [kept[key] for key in ("cyt", "p1v", "guid", "scmoe_events")] == [
        "LSRII",
        "400",
        "7",
        "X",
    ]
    # gone, and they are not
    arcsinh(adata)
    with pytest.raises(ValueError, match=r"no original file for sample 'cells'.*`source=`"):
        write_fcs(adata, tmp_path / "out4")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="has changed since: its SHA-256 is another"):
        write_fcs(adata, tmp_path / "out4", source=path)
    assert not (tmp_path / "out4").exists()


def test_spillover_of_values_that_are_written_anew(make_fcs, tmp_path):
    path = make_fcs(version="FCS3.1", keywords={"$SPILLOVER": "2,A,B,1,0.5,0.25,1"})
    adata = clustered(read_fcs(path))
    matrix = adata.uns["fcs"]["cells"]["spillover"]
    (new,) = write_fcs(adata, tmp_path / "out")
    assert read_fcs(new).uns["fcs"]["cells"]["spillover"].equals(matrix)
    adata.layers["raw"] = adata.X.copy()
    compensate(adata)
    path.unlink()
    with pytest.raises(ValueError, match=r"\.uns\['compensated'\]"):
        write_fcs(adata, tmp_path / "out2")
    (new,) = write_fcs(adata, tmp_path / "out2", layer="raw")
    assert read_fcs(new).uns["fcs"]["cells"]["spillover"].equals(matrix)
    adata.layers["signal"] = adata.X
    adata.uns["compensated"]["signal"] = adata.uns["compensated"]["X"]
    for cells in (adata, adata[:, "A"]):
        (new,) = write_fcs(cells, tmp_path / "out3", layer="signal", overwrite=True)
        assert "spillover" not in read_fcs(new).uns["fcs"]["cells"]


def test_the_original_is_never_replaced(make_fcs, tmp_path):
    path = make_fcs("plate/cells.fcs")
    before = path.read_bytes()
    adata = clustered(read_fcs(path))
    adata.layers["x"] = adata.X
    for kwargs in ({}, {"layer": "x"}):
        with pytest.raises(ValueError, match="is the file that cells were read from"):
            write_fcs(adata, tmp_path / "plate", overwrite=True, **kwargs)
    (tmp_path / "link").symlink_to(tmp_path / "plate")
    with pytest.raises(ValueError, match="is the file that cells were read from"):
        write_fcs(adata, tmp_path / "link" / "cells.fcs", overwrite=True)
    # also where the reader did not find it
    path = path.rename(tmp_path / "cells.fcs")
    with pytest.raises(ValueError, match="is the file that cells were read from"):
        write_fcs(adata, tmp_path, source=tmp_path, overwrite=True)
    path = path.rename(tmp_path / "plate" / "cells.fcs")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["cells.fcs"]


def test_written_again(make_fcs, tmp_path):
    (new,) = write_fcs(clustered(read_fcs(make_fcs())), tmp_path / "out")
    again = clustered(read_fcs(new))
    with pytest.raises(ValueError, match=r"'scmoe', 'scmoe_proba', 'scmoe_outlier', and .* has"):
        write_fcs(again, tmp_path / "out2")
    again.obs["second"] = again.obs["scmoe"]
    (new,) = write_fcs(again, tmp_path / "out2", obs="second")
    np.testing.assert_array_equal(read_fcs(new).X, np.hstack([EVENTS, ADDED, ADDED[:, :1]]))
    assert set(codes(new)) == set(codes(new, "second")) == {"0", "1", "2"}


def kinds(path):
    var = read_fcs(path).var
    return dict(zip(var["channel"], var["kind"], strict=True))


@pytest.mark.parametrize("original", [True, False])
def test_what_was_added_is_no_marker(make_fcs, tmp_path, original):
    path = make_fcs(channels=["FITC-A", "PE-A"], markers=["CD3", "CD4"])
    adata = clustered(read_fcs(path))
    # keys that no word of theirs gives away
    adata.obs["CD3"] = adata.obs["mixture"] = adata.obs["scmoe"]
    adata.obsm["mixture_proba"] = adata.obsm["scmoe_proba"]
    adata.obs["age"] = [1.0, 2.0, 3.0]
    if not original:
        path.unlink()
    (first,) = write_fcs(adata, tmp_path / "out", obs=["CD3", "mixture"])
    assert keywords(first)["scmoe_computed"] == "CD3,mixture,mixture_proba"
    again = read_fcs(first)
    again.obs["age"] = [1.0, 2.0, 3.0]
    if not original:
        first.unlink()
        again = again[:, again.var["channel"] != "mixture"].copy()
    (second,) = write_fcs(again, tmp_path / "second", obs="age")
    expected = dict.fromkeys(["FITC-A", "PE-A"], "fluor") | dict.fromkeys(
        ["CD3", "mixture", "mixture_proba", "age"]
        if original
        else ["CD3", "mixture_proba", "age"],
        "other",
    )
    assert kinds(second) == expected
    assert keywords(second)["scmoe_computed"].split(",") == list(expected)[2:]


def test_what_was_added_is_told_by_name(make_fcs):
    # programs keep keywords, and leave channels out or reorder them
    path = make_fcs(
        events=[[1, 2, 3]],
        channels=["mixture", "PE-A", "FITC-A"],
        markers=["", "", "CD3"],
        keywords={"scmoe_computed": "CD3, mixture ,gone"},
    )
    assert kinds(path) == {"mixture": "other", "PE-A": "fluor", "FITC-A": "fluor"}


def test_events_that_the_file_does_not_have(make_fcs, tmp_path):
    adata = clustered(read_fcs(make_fcs()))
    adata.obs["event"] = [0, 3, 1]
    with pytest.raises(ValueError, match=r"\.obs\['event'\] holds .*3.*events 0 to 2"):
        write_fcs(adata, tmp_path / "out")
    del adata.obs["event"]
    with pytest.raises(ValueError, match=r"\.obs\['event'\] is not there"):
        write_fcs(adata, tmp_path / "out", source=tmp_path)
    adata.obs["event"] = [0, 1, 2]
    adata.uns["fcs"] = {}
    with pytest.raises(ValueError, match=r"\.uns\['fcs'\]\['cells'\] is not there"):
        write_fcs(adata, tmp_path / "out", source=tmp_path)
    with pytest.raises(ValueError, match="uns_merge"):
        write_fcs(adata, tmp_path / "out")
    # nothing speaks of a file: the values are what there is
    del adata.obs["event"]
    (new,) = write_fcs(adata, tmp_path / "out")
    np.testing.assert_array_equal(read_fcs(new).X[:, :2], EVENTS)


def test_originals_that_take_no_channel(make_fcs, tmp_path):
    path = make_fcs(datatype="A", bits=[2, 2], data=b" 1 2 3 4 5 6")
    adata = clustered(read_fcs(path))
    np.testing.assert_array_equal(adata.X, EVENTS)
    (new,) = write_fcs(adata, tmp_path / "out")
    np.testing.assert_array_equal(read_fcs(new).X, np.hstack([EVENTS, ADDED]))
    assert keywords(new)["datatype"] == "F"
    arcsinh(adata)
    with pytest.raises(ValueError, match=r"no original.*\(its values are ASCII\).*arcsinh"):
        write_fcs(adata, tmp_path / "out2")


def test_bytes_in_the_order_of_a_pdp(make_fcs, tmp_path):
    # 0x01020304 is stored as bytes of significance 3, 4, 1, 2
    data = bytes([2, 1, 4, 3]) + bytes([0, 0, 7, 0])
    path = make_fcs(
        events=[[1], [2]], channels="A", datatype="I", data=data, keywords={"$BYTEORD": "3,4,1,2"}
    )
    adata = read_fcs(path, dtype="float64")
    assert adata.X.ravel().tolist() == [0x01020304, 7]
    adata.obs["n"] = [70000, 5]
    (new,) = write_fcs(adata, tmp_path / "out", obs="n")
    back = read_fcs(new, dtype="float64")
    assert back.X.tolist() == [[0x01020304, 70000], [7, 5]]
    # 70000 is 0x00011170
    assert data[:4] + bytes([1, 0, 0x70, 0x11]) + data[4:] in new.read_bytes()


def test_bytes_without_an_order(make_fcs, tmp_path):
    path = make_fcs(datatype="I", bits=[8, 8], keywords={"$BYTEORD": "1"})
    adata = read_fcs(path)
    adata.obs["n"] = [70000, 5, 6]
    (new,) = write_fcs(adata, tmp_path / "out", obs="n")
    assert read_fcs(new).X[:, 2].tolist() == [70000, 5, 6]
    assert keywords(new)["byteord"] == "1,2,3,4"


def test_types_that_differ_between_channels(make_fcs, tmp_path):
    data = b"".join(
        int(a).to_bytes(2, "little") + np.float32(b).tobytes() for a, b in EVENTS + 0.5
    )
    path = make_fcs(
        version="FCS3.2",
        datatype="I",
        bits=[16, 32],
        data=data,
        keywords={"$P2DATATYPE": "F", "$CYT": "x"},
    )
    adata = clustered(read_fcs(path))
    np.testing.assert_array_equal(adata.X, EVENTS + [0, 0.5])
    (new,) = write_fcs(adata, tmp_path / "out")
    expected = np.hstack([EVENTS + [0, 0.5], ADDED])
    np.testing.assert_allclose(read_fcs(new).X, expected, atol=5e-7)


def test_values_bit_after_bit(make_fcs, tmp_path):
    # 12 bits each, most significant first: 0x001, 0x002, 0x003, 0x004, 0x005, 0x006
    data = bytes.fromhex("001002003004005006")
    path = make_fcs(datatype="I", bits=[12, 12], order=">", data=data)
    with pytest.warns(UserWarning, match="bit by bit"):
        adata = clustered(read_fcs(path))
    np.testing.assert_array_equal(adata.X, EVENTS)
    (new,) = write_fcs(adata, tmp_path / "out")
    np.testing.assert_array_equal(read_fcs(new).X, np.hstack([EVENTS, ADDED]))
    assert keywords(new)["scmoe_events"] == "X"


def test_a_data_set_of_several(make_fcs, tmp_path):
    length = len(make_fcs("both.fcs", keywords={"$NEXTDATA": "000"}).read_bytes())
    path = make_fcs("both.fcs", keywords={"$NEXTDATA": f"{length:03}"})
    second = make_fcs("second.fcs", events=EVENTS + 10).read_bytes()
    path.write_bytes(path.read_bytes() + second)
    with pytest.warns(UserWarning, match="2 data sets; number 1"):
        adata = clustered(read_fcs(path, dataset=1))
    np.testing.assert_array_equal(adata.X, EVENTS + 10)
    (new,) = write_fcs(adata, tmp_path / "out")
    back = read_fcs(new)
    np.testing.assert_array_equal(back.X[:, :2], EVENTS + 10)
    assert back.uns["fcs"]["both"]["repairs"] == []


def test_all_data_sets_of_a_file(make_chain, tmp_path):
    path = make_chain("plate.fcs", EVENTS, EVENTS + 10, EVENTS + 20)
    adata = read_fcs(path, dataset="all")
    adata.obs["n"] = np.arange(adata.n_obs)
    written = write_fcs(adata, tmp_path / "out", obs="n")
    assert [file.name for file in written] == ["plate_0.fcs", "plate_1.fcs", "plate_2.fcs"]
    for k, file in enumerate(written):
        back = read_fcs(file)
        np.testing.assert_array_equal(back.X[:, :2], EVENTS + 10 * k)
        np.testing.assert_array_equal(back.X[:, 2], [3 * k, 3 * k + 1, 3 * k + 2])
    one = adata[adata.obs["sample"] == "plate_1"].copy()
    (new,) = write_fcs(one, tmp_path / "one", obs="n")
    assert new.name == "plate_1.fcs"
    np.testing.assert_array_equal(read_fcs(new).X[:, :2], EVENTS + 10)


def test_markers_that_no_file_can_hold(make_fcs, tmp_path):
    adata = clustered(read_fcs(make_fcs()))
    adata.layers["values"] = adata.X
    adata.var["marker"] = ["CD3", "C\x00D\x1b4"]
    with pytest.raises(ValueError, match=r"cannot name markers.*'C\\x00D\\x1b4'"):
        write_fcs(adata, tmp_path / "out", layer="values")
    assert not (tmp_path / "out").exists()


def test_cells_of_two_files_of_one_name(make_fcs, tmp_path):
    plates = [clustered(read_fcs(make_fcs(f"{plate}/A01.fcs"))) for plate in "ab"]
    both = ad.concat(plates, merge="same", uns_merge="first", index_unique="-")
    with pytest.raises(ValueError, match="'A01' has the same event more than once"):
        write_fcs(both, tmp_path / "out", obs="scmoe")
    assert not (tmp_path / "out").exists()


def test_cells_whose_record_was_lost(make_fcs, tmp_path):
    plates = [clustered(read_fcs(make_fcs(f"{plate}.fcs"))) for plate in "ab"]
    both = ad.concat(plates, merge="same", index_unique="-")
    both.layers["values"] = both.X.copy()
    with pytest.raises(ValueError, match=r"has no record of it.*uns_merge"):
        write_fcs(both, tmp_path / "out", obs="scmoe")
    assert len(write_fcs(both, tmp_path / "out", obs="scmoe", layer="values")) == 2
