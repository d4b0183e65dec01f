from __future__ import annotations

import _thread
import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scmoe.pp import arcsinh, inverse_arcsinh

RAW = np.array([[0, 5, 100], [10, -5, 7], [50, 0, 9]], dtype=np.float32)


@pytest.fixture
def adata():
    var = pd.DataFrame({"kind": ["mass", "mass", "time"]}, index=["CD3", "CD4", "Time"])
    obs = pd.DataFrame(index=["a", "b", "c"])
    return ad.AnnData(RAW.copy(), obs=obs, var=var, layers={"raw": RAW.copy()})


def expected(cofactor=(5, 5)):
    values = RAW.astype(np.float64)
    values[:, :2] = np.arcsinh(values[:, :2] / cofactor)
    return values


def test_in_place(adata, tmp_path):
    assert arcsinh(adata) is None
    assert adata.X.dtype == np.float32
    np.testing.assert_allclose(adata.X, expected(), rtol=1e-6)
    record = adata.uns["arcsinh"]["X"]
    assert list(record["channels"]) == ["CD3", "CD4"]
    assert list(record["cofactor"]) == [5, 5]
    adata.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(ValueError, match=r"\.X holds arcsinh values already"):
        arcsinh(ad.read_h5ad(tmp_path / "x.h5ad"))


def test_in_place_where_nothing_else_refers_to_the_values():
    raw = np.tile(RAW, (1000, 100))
    adata = ad.AnnData(raw.copy())
    before = adata.X.ctypes.data
    tracemalloc.start()
    arcsinh(adata)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert adata.X.ctypes.data == before
    assert peak < raw.nbytes
    np.testing.assert_array_equal(adata.X, np.arcsinh(raw / np.float32(5)))


def test_what_others_refer_to_stays():
    mine = RAW.copy()
    adata = ad.AnnData(mine)
    arcsinh(adata)
    np.testing.assert_array_equal(mine, RAW)
    adata = ad.AnnData(RAW.copy())
    adata.layers["raw"] = adata.X
    arcsinh(adata)
    np.testing.assert_array_equal(adata.layers["raw"], RAW)
    whole = np.concatenate([RAW, RAW])
    arcsinh(ad.AnnData(whole[:3]))
    np.testing.assert_array_equal(whole[:3], RAW)


def test_an_interruption_waits(adata, monkeypatch):
    from scmoe.pp import _arcsinh

    def interrupted(*args, make=_arcsinh.record_of):
        _thread.interrupt_main()
        return make(*args)

    monkeypatch.setattr(_arcsinh, "record_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        arcsinh(adata)
    np.testing.assert_allclose(adata.X, expected(), rtol=1e-6)
    assert list(adata.uns["arcsinh"]) == ["X"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_dask_stays_lazy(adata, dtype):
    da = pytest.importorskip("dask.array")
    adata.X = np.abs(adata.X).astype(dtype)
    lazy = ad.AnnData(da.from_array(adata.X, chunks=(2, 3)), obs=adata.obs, var=adata.var)
    arcsinh(adata, {"CD3": 5, "CD4": 150})
    arcsinh(lazy, {"CD3": 5, "CD4": 150})
    assert isinstance(lazy.X, da.Array)
    assert lazy.X.dtype == adata.X.dtype
    np.testing.assert_array_equal(lazy.X.compute(), adata.X)
    split = ad.AnnData(da.from_array(RAW, chunks=(2, 2)), obs=adata.obs, var=adata.var)
    with pytest.raises(ValueError, match="rechunk"):
        arcsinh(split)


def test_cells_in_a_file(adata, tmp_path):
    adata.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(ValueError, match=r"to_memory.*read_lazy"):
        arcsinh(ad.read_h5ad(tmp_path / "x.h5ad", backed="r"))


def test_copy_leaves_the_original(adata):
    copied = arcsinh(adata, copy=True)
    np.testing.assert_allclose(copied.X, expected(), rtol=1e-6)
    np.testing.assert_array_equal(adata.X, RAW)
    assert "arcsinh" not in adata.uns


def test_layers(adata):
    arcsinh(adata, key_added="asinh")
    np.testing.assert_array_equal(adata.X, RAW)
    np.testing.assert_allclose(adata.layers["asinh"], expected(), rtol=1e-6)
    with pytest.raises(ValueError, match="'asinh'"):
        arcsinh(adata, key_added="asinh")
    with pytest.raises(ValueError, match="'asinh'"):
        arcsinh(adata, layer="asinh")
    arcsinh(adata, layer="raw")
    np.testing.assert_allclose(adata.layers["raw"], expected(), rtol=1e-6)
    assert set(adata.uns["arcsinh"]) == {"asinh", "raw"}
    assert adata.uns["arcsinh"]["asinh"]["source"] == "X"


@pytest.mark.parametrize("make", [dict, pd.Series])
def test_cofactor_for_each_marker(adata, make):
    arcsinh(adata, make({"CD3": 5, "CD4": 150}))
    np.testing.assert_allclose(adata.X, expected((5, 150)), rtol=1e-6)


def test_channels(adata):
    arcsinh(adata, channels=["Time"])
    np.testing.assert_array_equal(adata.X[:, :2], RAW[:, :2])
    np.testing.assert_allclose(adata.X[:, 2], np.arcsinh(RAW[:, 2] / 5), rtol=1e-6)


def test_without_kinds_all_channels_are_transformed(adata):
    del adata.var["kind"]
    arcsinh(adata)
    np.testing.assert_allclose(adata.X, np.arcsinh(RAW / 5), rtol=1e-6)


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_sparse_stays_sparse(adata, make):
    adata.X = make(RAW)
    arcsinh(adata)
    assert sparse.issparse(adata.X)
    assert adata.X.format == make(RAW).format
    np.testing.assert_allclose(adata.X.toarray(), expected(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_integers_become_float32(adata, dtype):
    adata.X = np.abs(RAW).astype(dtype)
    arcsinh(adata)
    assert adata.X.dtype == np.float32
    np.testing.assert_allclose(adata.X[:, 0], expected()[:, 0], rtol=1e-6)


def test_float64_stays(adata):
    adata.X = RAW.astype(np.float64)
    arcsinh(adata)
    np.testing.assert_allclose(adata.X, expected(), rtol=1e-15)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"cofactor": 0}, ValueError, "positive"),
        ({"cofactor": -5}, ValueError, "positive"),
        ({"cofactor": np.nan}, ValueError, "positive"),
        ({"cofactor": np.inf}, ValueError, "positive"),
        ({"cofactor": "5"}, ValueError, "positive"),
        ({"cofactor": True}, ValueError, "positive"),
        ({"cofactor": [5, 5]}, ValueError, "mapping or Series"),
        ({"cofactor": {"CD3": 5}}, ValueError, "no value for: CD4"),
        ({"cofactor": {"CD3": 5, "CD4": 0}}, ValueError, "CD4"),
        ({"cofactor": {"CD3": 5, "CD4": 5, "CD8": 5}}, KeyError, "CD8"),
        ({"layer": "counts"}, KeyError, "counts"),
        ({"channels": ["CD8"]}, KeyError, "CD8"),
        ({"channels": ["CD3", "CD3"]}, ValueError, "twice"),
        ({"channels": []}, ValueError, "no channel"),
    ],
)
def test_errors_leave_the_data_alone(adata, kwargs, error, message):
    with pytest.raises(error, match=message):
        arcsinh(adata, **kwargs)
    np.testing.assert_array_equal(adata.X, RAW)
    assert set(adata.layers) - {None} == {"raw"}  # anndata 0.13 lists X as the layer None
    assert "arcsinh" not in adata.uns


def test_what_cannot_be_transformed(adata):
    with pytest.raises(ValueError, match=r"view.*\.copy\(\)"):
        arcsinh(adata[:2])
    with pytest.raises(ValueError, match=r"`adata\.X` is empty"):
        arcsinh(ad.AnnData(obs=adata.obs, var=adata.var))
    adata.var_names = ["CD3", "CD3", "Time"]
    with pytest.raises(ValueError, match="not unique"):
        arcsinh(adata)


def test_inverse_by_hand(adata):
    # 5 sinh(1) = 5.876006, 150 sinh(1) = 176.280179
    adata.X = np.ones((3, 3), dtype=np.float32)
    adata.uns["arcsinh"] = {"X": {"channels": ["CD3", "CD4"], "cofactor": [5, 150]}}
    assert inverse_arcsinh(adata) is None
    np.testing.assert_allclose(adata.X, [[5.876006, 176.280179, 1]] * 3, rtol=1e-6)


@pytest.mark.parametrize("cofactor", [5, {"CD3": 5, "CD4": 150}])
def test_round_trip(adata, cofactor):
    adata.X[0] = [3e5, -0.01, 1e9]
    raw = adata.X.copy()
    arcsinh(adata, cofactor)
    inverse_arcsinh(adata)
    assert adata.X.dtype == np.float32
    # arcsinh(6e4) is 11.7: half a unit in the last place there is 4e-7 of the intensity
    np.testing.assert_allclose(adata.X, raw, rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(adata.X[:, 2], raw[:, 2])
    assert "arcsinh" not in adata.uns
    arcsinh(adata, cofactor)


def test_round_trip_through_a_file(adata, tmp_path):
    arcsinh(adata, channels=["CD4"])
    adata.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad")
    inverse_arcsinh(back)
    np.testing.assert_allclose(back.X, RAW, rtol=1e-6)


def test_round_trip_of_float64(adata):
    adata.X = RAW.astype(np.float64)
    arcsinh(adata)
    inverse_arcsinh(adata)
    np.testing.assert_allclose(adata.X, RAW, rtol=1e-14)


def test_inverse_of_layers(adata):
    arcsinh(adata, key_added="asinh")
    arcsinh(adata, 150, layer="raw")
    inverse_arcsinh(adata, layer="raw")
    np.testing.assert_allclose(adata.layers["raw"], RAW, rtol=1e-6)
    np.testing.assert_allclose(adata.layers["asinh"], expected(), rtol=1e-6)
    assert set(adata.uns["arcsinh"]) == {"asinh"}
    inverse_arcsinh(adata, layer="asinh")
    np.testing.assert_allclose(adata.layers["asinh"], RAW, rtol=1e-6)
    assert "arcsinh" not in adata.uns


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_inverse_of_sparse(adata, make):
    adata.X = make(RAW)
    arcsinh(adata)
    inverse_arcsinh(adata)
    assert adata.X.format == make(RAW).format
    np.testing.assert_allclose(adata.X.toarray(), RAW, rtol=1e-6)


def test_inverse_of_fewer_channels(adata):
    arcsinh(adata, {"CD3": 5, "CD4": 150})
    part = adata[:, ["Time", "CD4"]].copy()
    inverse_arcsinh(part)
    np.testing.assert_allclose(part.X, RAW[:, [2, 1]], rtol=1e-6)
    assert "arcsinh" in adata.uns
    with pytest.raises(ValueError, match=r"none of the channels.*CD3, CD4"):
        inverse_arcsinh(adata[:, ["Time"]].copy())


def test_inverse_of_other_cells(adata):
    arcsinh(adata)
    generated = ad.AnnData(
        np.full((5, 2), 2.0, dtype=np.float32),
        var=pd.DataFrame(index=["CD4", "CD3"]),
        uns=adata.uns,
    )
    inverse_arcsinh(generated)
    np.testing.assert_allclose(generated.X, 5 * np.sinh(2), rtol=1e-6)
    # the record of the cells that it came from stays
    assert set(adata.uns["arcsinh"]) == {"X"}


def test_inverse_of_a_copy(adata):
    arcsinh(adata)
    copied = inverse_arcsinh(adata, copy=True)
    np.testing.assert_allclose(copied.X, RAW, rtol=1e-6)
    assert "arcsinh" not in copied.uns
    np.testing.assert_allclose(adata.X, expected(), rtol=1e-6)
    assert set(adata.uns["arcsinh"]) == {"X"}


def test_what_cannot_be_undone(adata):
    with pytest.raises(ValueError, match=r"no record of an arcsinh of \.X.*tells of nothing"):
        inverse_arcsinh(adata)
    arcsinh(adata, layer="raw")
    with pytest.raises(ValueError, match=r"of \.X.*tells of \.layers\['raw'\]"):
        inverse_arcsinh(adata)
    with pytest.raises(KeyError, match="counts"):
        inverse_arcsinh(adata, layer="counts")
    with pytest.raises(ValueError, match=r"view.*\.copy\(\)"):
        inverse_arcsinh(adata[:2], layer="raw")
    np.testing.assert_array_equal(adata.X, RAW)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_values_too_large_to_be_undone(adata, make):
    arcsinh(adata)
    # sinh(90) is more than float32 holds
    written = np.array([[0, 5, 1000], [90, -5, 7], [50, 0, 9]], dtype=np.float32)
    adata.X = make(written)
    with pytest.raises(ValueError, match=r"\.X holds values that are too large"):
        inverse_arcsinh(adata)
    np.testing.assert_array_equal(
        adata.X.toarray() if make is not np.asarray else adata.X, written
    )
    assert set(adata.uns["arcsinh"]) == {"X"}
