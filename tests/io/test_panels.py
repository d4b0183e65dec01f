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
    monkeypatch.setattr("scmoe.io._fcs.read_values", lambda *_: pytest.fail("values were read"))
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
