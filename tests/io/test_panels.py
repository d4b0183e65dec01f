"""Several files: panels, memory, samples, records."""

from __future__ import annotations

import hashlib
import tracemalloc

import anndata as ad
import numpy as np
import pytest

from scmoe.io import FCSReadError, FCSRepairWarning, read_fcs

EVENTS = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)


def test_outer_keeps_all(make_fcs, tmp_path):
    a = make_fcs("a.fcs", markers=["CD3", "CD4"])
    b = make_fcs("b.fcs", channels=["C", "A"], markers=["CD8", "CD3"])
    with pytest.warns(UserWarning, match=r"NaN.*measured.*a\.fcs: CD8; .*b\.fcs: CD4"):
        adata = read_fcs([a, b], join="outer")
    assert list(adata.var_names) == ["CD3", "CD4", "CD8"]
    nan = np.nan
    expected = [[1, 2, nan], [3, 4, nan], [5, 6, nan], [2, nan, 1], [4, nan, 3], [6, nan, 5]]
    np.testing.assert_array_equal(adata.X, expected)
    np.testing.assert_array_equal(adata.layers["measured"], ~np.isnan(expected))
    assert list(adata.var["channel"]) == ["A", "B", "C"]
    assert adata.uns["fcs"]["b"]["repairs"] == []
    adata.write_h5ad(tmp_path / "x.h5ad")
    # where nothing is missing there is no such layer
    assert "measured" not in read_fcs([a], join="outer").layers


def test_outer_does_not_take_missing_values_for_faults(make_fcs):
    a = make_fcs("a.fcs", events=[[1, np.nan]], markers=["CD3", "CD4"])
    b = make_fcs("b.fcs", markers=["CD3", "CD8"])
    with pytest.warns(UserWarning, match="not finite|are NaN") as caught:
        adata = read_fcs([a, b], join="outer")
    assert {warning.category for warning in caught} == {UserWarning, FCSRepairWarning}
    assert adata.uns["fcs"]["a"]["repairs"] == ["1 values are not finite and were kept, in: CD4"]
    np.testing.assert_array_equal(adata.layers["measured"][0], [True, True, False])


def test_files_are_read_into_one_result(make_fcs, tmp_path):
    n, n_files, n_channels = 20_000, 8, 8
    rng = np.random.default_rng(0)
    for k in range(n_files):
        data = rng.normal(size=(n, n_channels)).astype("<f4").tobytes()
        make_fcs(
            f"plate/{k}.fcs",
            events=np.empty((0, 1)),
            channels="ABCDEFGH",
            data=data,
            keywords={"$TOT": str(n)},
        )
    one = 4 * n * n_channels
    read_fcs(tmp_path / "plate" / "0.fcs")
    tracemalloc.start()
    adata = read_fcs(tmp_path / "plate", progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    labels = 150 * adata.n_obs  # names of the cells are Python strings
    tracemalloc.stop()
    assert adata.shape == (n * n_files, n_channels)
    assert peak < one * n_files + 2 * one + labels


def test_a_bad_file_is_named_and_nothing_is_read(make_fcs, tmp_path, monkeypatch):
    make_fcs("plate/a.fcs")
    bad = make_fcs("plate/b.fcs", keywords={"$TOT": "9"})
    monkeypatch.setattr(
        "scmoe.io._read_fcs.read_values", lambda *_: pytest.fail("values were read")
    )
    with pytest.raises(FCSReadError, match="truncated") as caught:
        read_fcs(tmp_path / "plate")
    assert caught.value.path == bad


def test_links_in_a_folder(make_fcs, tmp_path):
    target = make_fcs("elsewhere/a.fcs")
    (tmp_path / "plate").mkdir()
    (tmp_path / "plate" / "b.fcs").symlink_to(target)
    assert list(read_fcs(tmp_path / "plate").obs["sample"].cat.categories) == ["b"]
    (tmp_path / "plate" / "c.fcs").symlink_to(tmp_path / "nothing.fcs")
    with pytest.raises(FCSReadError, match="link to a file that is not there") as caught:
        read_fcs(tmp_path / "plate")
    assert caught.value.path.name == "c.fcs"
    with pytest.raises(FileNotFoundError, match="link"):
        read_fcs(tmp_path / "plate" / "c.fcs")


def test_names_through_the_parent(make_fcs, tmp_path, monkeypatch):
    make_fcs("p/a.fcs")
    make_fcs("q/a.fcs")
    monkeypatch.chdir(tmp_path / "p")
    adata = read_fcs(["../p/a.fcs", "../q/a.fcs"])
    assert list(adata.obs["sample"].cat.categories) == ["p_a", "q_a"]
    assert adata.uns["fcs"]["p_a"]["path"] == str(tmp_path / "p" / "a.fcs")


def test_record_of_a_file(make_fcs, tmp_path):
    path = make_fcs(version="FCS3.1", keywords={"a/b": "c"})
    adata = read_fcs(path)
    record = adata.uns["fcs"]["cells"]
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["path"] == str(path)
    assert (record["dataset"], record["version"]) == (0, "FCS3.1")
    assert list(adata.obs["event"]) == [0, 1, 2]
    assert adata.obs["event"].dtype == np.int64
    adata.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad").uns["fcs"]["cells"]
    assert back["keywords"].loc["a/b", "value"] == "c"
    assert back["sha256"] == record["sha256"]


def test_strict(make_fcs, tmp_path):
    make_fcs("a.fcs")
    make_fcs("b.fcs", late=1)
    with pytest.raises(FCSReadError, match=r"b\.fcs.*one byte late.*strict=True"):
        read_fcs(tmp_path, strict=True)
    assert read_fcs(tmp_path / "a.fcs", strict=True).n_obs == 3


# ---- by channel -------------------------------------------------------------------------


def files(make_fcs, **markers):
    return [make_fcs(f"{name}.fcs", markers=names) for name, names in markers.items()]


def test_by_channel(make_fcs, tmp_path):
    paths = files(make_fcs, a=["CD3", "CD8"], b=["CD3", "CD8a"])
    with pytest.warns(UserWarning, match='CD8a; by="channel" joins them'):
        assert list(read_fcs(paths).var_names) == ["CD3"]
    with pytest.raises(FCSReadError, match='by="channel" joins them'):
        read_fcs(paths, join="exact")
    for join in ("inner", "outer", "exact"):
        with pytest.warns(UserWarning, match=r"CD8 for CD8a on B, .*b\.fcs") as caught:
            adata = read_fcs(paths, by="channel", join=join)
        assert len(caught) == 1
        assert list(adata.var_names) == list(adata.var["marker"]) == ["CD3", "CD8"]
        np.testing.assert_array_equal(adata.X, np.vstack([EVENTS, EVENTS]))
        assert not adata.layers
    adata.write_h5ad(tmp_path / "x.h5ad")
    records = ad.read_h5ad(tmp_path / "x.h5ad").uns["fcs"]
    assert "renamed" not in records["a"]
    assert records["b"]["renamed"].loc["B"].to_dict() == {"marker": "CD8a", "variable": "CD8"}


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_by_channel_without_markers(make_fcs, order):
    paths = dict(zip("ab", files(make_fcs, a=["CD3", "CD8"], b=["", ""]), strict=True))
    paths = [paths[name] for name in order]
    with pytest.raises(FCSReadError, match=r'no marker is shared.*by="channel" joins them'):
        read_fcs(paths)
    with pytest.warns(UserWarning, match="CD3 for A on A"):
        adata = read_fcs(paths, by="channel")
    assert list(adata.var_names) == ["CD3", "CD8"]
    assert list(adata.var["channel"]) == ["A", "B"]


def test_by_channel_keeps_what_one_file_has(make_fcs):
    a = make_fcs("a.fcs", markers=["CD3", "CD8"])
    b = make_fcs("b.fcs", channels=["C", "A"], markers=["CD8", "CD3e"])
    with pytest.warns(UserWarning, match="CD3 for CD3e|CD8 .C. for CD8|NaN"):
        adata = read_fcs([a, b], by="channel", join="outer")
    # CD8 lies on two channels, which stay two
    assert list(adata.var_names) == ["CD3", "CD8", "CD8 (C)"]
    assert list(adata.var["channel"]) == ["A", "B", "C"]
    np.testing.assert_array_equal(adata.X[[0, 3]], [[1, 2, np.nan], [2, np.nan, 1]])


def test_by_channel_mixes_no_markers(make_fcs):
    paths = files(make_fcs, a=["CD3", "CD8"], b=["CD8", "CD3"])
    with pytest.raises(FCSReadError, match="CD3 lies on B here and on A in another file"):
        read_fcs(paths, by="channel")
    # so it is not offered
    with pytest.raises(FCSReadError) as caught:
        read_fcs(paths, join="exact")
    assert "by=" not in str(caught.value)
    twice = make_fcs("c.fcs", channels=["A", "A"])
    with pytest.raises(FCSReadError, match="several channels are called 'A'"):
        read_fcs([paths[0], twice], by="channel")
    # a file by itself has nothing to be joined with
    assert list(read_fcs(twice, by="channel").var_names) == ["A", "A-2"]


# ---- several data sets of one file ----------------------------------------------------------


def test_all_data_sets(make_fcs, make_chain, tmp_path):
    path = make_chain("p/a.fcs", [[1, 2]], [[3, 4], [5, 6]], [[7, 8]])
    make_fcs("p/a_0.fcs", events=[[9, 9]])
    make_fcs("q/a_1.fcs", events=[[10, 10]])
    adata = read_fcs([tmp_path / "p", tmp_path / "q"], dataset="all")
    assert adata.X[:, 0].tolist() == [1, 3, 5, 7, 9, 10]
    names = ["p_a.fcs_0", "p_a_1", "a_2", "p_a_0.fcs", "q_a_1"]
    assert list(adata.obs["sample"].cat.categories) == list(adata.uns["fcs"]) == names
    assert adata.obs_names.is_unique
    assert list(adata.obs["event"]) == [0, 0, 1, 0, 0, 0]
    records = adata.uns["fcs"].values()
    assert [record["dataset"] for record in records] == [0, 1, 2, 0, 0]
    assert all(record["repairs"] == [] for record in records)
    alone = read_fcs(path, dataset="all")
    assert list(alone.uns["fcs"]) == ["a_0", "a_1", "a_2"]
    alone.write_h5ad(tmp_path / "x.h5ad")


def test_all_data_sets_name_the_one_at_fault(make_chain):
    path = make_chain("a.fcs", [[1, 2]], [[3, 4]])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        FCSReadError, match=r"data set 1 \(counted from 0\): the file is truncated"
    ):
        read_fcs(path, dataset="all")
    path = make_chain("a.fcs", [[1, 2]], [[3, 4]], last="9999999")
    with pytest.warns(FCSRepairWarning, match="NEXTDATA is 9999999"):
        assert read_fcs(path, dataset="all").n_obs == 2
    with pytest.raises(FCSReadError, match=r"data set 1.*NEXTDATA.*strict"):
        read_fcs(path, dataset="all", strict=True)


def test_all_data_sets_that_do_not_match(make_chain):
    path = make_chain("a.fcs", [[1, 2]], [[3, 4]], markers=(["CD3", "x"], ["CD3", "y"]))
    with pytest.warns(UserWarning, match=r"\(data set 0\): x; .*\(data set 1\): y"):
        read_fcs(path, dataset="all")
    with pytest.raises(FCSReadError, match="Only in data set 1: y"):
        read_fcs(path, dataset="all", join="exact")


def test_events_that_a_file_holds_twice(make_chain):
    path = make_chain("a.lmd", [[1, 2]], [[3, 4]], versions=("FCS2.0", "FCS3.0"))
    with pytest.warns(UserWarning, match="data sets 0 and 1 have 1 events each, in FCS2.0 and"):
        read_fcs(path, dataset="all")
