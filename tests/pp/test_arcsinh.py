from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scmoe.pp import arcsinh

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
    assert list(adata.layers) == ["raw"]
    assert "arcsinh" not in adata.uns


def test_what_cannot_be_transformed(adata):
    with pytest.raises(ValueError, match=r"view.*\.copy\(\)"):
        arcsinh(adata[:2])
    with pytest.raises(ValueError, match=r"no \.X"):
        arcsinh(ad.AnnData(obs=adata.obs, var=adata.var))
    adata.var_names = ["CD3", "CD3", "Time"]
    with pytest.raises(ValueError, match="not unique"):
        arcsinh(adata)
