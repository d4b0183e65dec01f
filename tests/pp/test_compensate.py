from __future__ import annotations

import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scmoe.io import read_fcs
from scmoe.pp import arcsinh, compensate

DATA = Path(os.environ.get("SCMOE_DATA_DIR", "nowhere"))
real = pytest.mark.skipif(
    not DATA.is_dir(), reason="real files are looked for in the folder that SCMOE_DATA_DIR names"
)

CHANNELS = ["FITC-A", "PE-A", "Time"]
# 10 % of FITC is seen by PE, 50 % of PE by FITC; determinant 1 - 0.05 = 0.95
MATRIX = pd.DataFrame([[1, 0.1], [0.5, 1]], index=CHANNELS[:2], columns=CHANNELS[:2])
SIGNAL = np.array([[100, 0, 1], [0, 200, 2], [100, 200, 3], [-10, 40, 4]], dtype=np.float32)
# (100, 0) is measured as (100, 10), (0, 200) as (100, 200), (-10, 40) as (10, 39)
MEASURED = np.array([[100, 10, 1], [100, 200, 2], [200, 210, 3], [10, 39, 4]], dtype=np.float32)


@pytest.fixture
def adata():
    return ad.AnnData(
        MEASURED.copy(),
        obs=pd.DataFrame({"sample": pd.Categorical(["a", "a", "b", "b"])}, index=list("wxyz")),
        var=pd.DataFrame(
            {"channel": CHANNELS, "marker": ["CD3", "CD4", ""]}, index=["CD3", "CD4", "Time"]
        ),
        uns={"fcs": {"a": {"spillover": MATRIX}, "b": {"spillover": MATRIX}}},
        layers={"raw": MEASURED.copy()},
    )


def unchanged(adata):
    np.testing.assert_array_equal(adata.X, MEASURED)
    np.testing.assert_array_equal(adata.layers["raw"], MEASURED)
    assert "compensated" not in adata.uns


def test_by_hand(adata):
    assert compensate(adata) is None
    assert adata.X.dtype == np.float32
    np.testing.assert_allclose(adata.X, SIGNAL, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(adata.layers["raw"], MEASURED)
    record = adata.uns["compensated"]["X"]
    assert list(record["samples"]) == ["a", "b"]
    assert list(record["matrix"]) == [0, 0]
    assert list(record["matrices"]["0"]["channels"]) == CHANNELS[:2]
    np.testing.assert_array_equal(record["matrices"]["0"]["spillover"], MATRIX)


def test_layer_copy_and_float64(adata):
    adata.layers["raw"] = MEASURED.astype(np.float64)
    copied = compensate(adata, layer="raw", copy=True)
    unchanged(adata)
    assert copied.layers["raw"].dtype == np.float64
    np.testing.assert_allclose(copied.layers["raw"], SIGNAL, rtol=1e-14, atol=1e-13)
    np.testing.assert_array_equal(copied.X, MEASURED)
    assert list(copied.uns["compensated"]) == ["raw"]


@pytest.mark.parametrize("index", [True, False])
def test_csv(adata, tmp_path, index):
    del adata.uns["fcs"], adata.obs["sample"]
    MATRIX.to_csv(tmp_path / "m.csv", index=index)
    compensate(adata, spillover=tmp_path / "m.csv")
    np.testing.assert_allclose(adata.X, SIGNAL, rtol=1e-5, atol=1e-5)
    assert list(adata.uns["compensated"]["X"]["samples"]) == [""]


def test_names_and_order(adata):
    by_marker = MATRIX.set_axis(["CD3", "CD4"]).set_axis(["CD3", "CD4"], axis=1)
    shuffled = by_marker.loc[["CD4", "CD3"], ["CD3", "CD4"]]
    compensate(adata, spillover=shuffled)
    np.testing.assert_allclose(adata.X, SIGNAL, rtol=1e-5, atol=1e-5)
    # the same matrix, whoever names it and in whatever order
    with pytest.warns(UserWarning, match=r"\.X was compensated with the same .*nothing was done"):
        compensate(adata)


def test_a_matrix_for_each_sample(adata):
    identity = pd.DataFrame(np.eye(2), index=CHANNELS[:2], columns=CHANNELS[:2])
    compensate(adata, spillover={"a": identity, "b": MATRIX, "not here": None})
    np.testing.assert_array_equal(adata.X[:2], MEASURED[:2])
    np.testing.assert_allclose(adata.X[2:], SIGNAL[2:], rtol=1e-5, atol=1e-5)


def test_names_with_a_slash_as_the_reader_writes_them(adata):
    adata.var["channel"] = ["LIVE/DEAD", "PE-A", "Time"]
    matrix = MATRIX.set_axis(["LIVE/DEAD", "PE-A"]).set_axis(["LIVE_DEAD", "PE-A"], axis=1)
    compensate(adata, spillover=matrix)
    np.testing.assert_allclose(adata.X, SIGNAL, rtol=1e-5, atol=1e-5)


def test_twice_changes_nothing_also_from_disk(adata, tmp_path):
    compensate(adata)
    once = adata.X.copy()
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad")
    with pytest.warns(UserWarning, match="nothing was done"):
        assert compensate(adata) is None
    with pytest.warns(UserWarning, match="nothing was done"):
        copied = compensate(adata[["z", "w"]].copy(), copy=True)
    np.testing.assert_array_equal(adata.X, once)
    np.testing.assert_array_equal(copied.X, once[[3, 0]])
    with pytest.raises(ValueError, match=r"\.X was compensated with another .*Sample 'a' cannot"):
        compensate(adata, spillover=changed(value=0.2))
    adata.obs["sample"] = ["a", "a", "b", "c"]
    with pytest.raises(ValueError, match=r"without this sample.*'c'"):
        compensate(adata, spillover=MATRIX)
    np.testing.assert_array_equal(adata.X, once)


def test_not_after_arcsinh(adata):
    arcsinh(adata, layer="raw")
    with pytest.raises(ValueError, match=r"layers\['raw'\] holds arcsinh values.*inverse_arcsinh"):
        compensate(adata, layer="raw")
    compensate(adata)
    np.testing.assert_allclose(adata.X, SIGNAL, rtol=1e-5, atol=1e-5)


def test_channels_that_are_missing(adata):
    wide = pd.DataFrame(np.eye(4), index=[*CHANNELS[:2], "APC-A", "BV421-A"])
    wide.columns = wide.index
    wide.iloc[:2, :2] = MATRIX
    wide.loc["PE-A", "APC-A"] = 0.01
    with pytest.raises(ValueError, match=r"do not have: 'APC-A'\. Compensate before"):
        compensate(adata, spillover=wide)
    unchanged(adata)
    wide.loc["PE-A", "APC-A"] = 0
    compensate(adata, spillover=wide)
    np.testing.assert_allclose(adata.X, SIGNAL, rtol=1e-5, atol=1e-5)
    # a channel may go afterwards: what was done stays known
    with pytest.warns(UserWarning, match="nothing was done"):
        compensate(adata[:, ["CD3", "Time"]].copy(), spillover=wide)


def changed(row=0, column=1, value=0.0):
    matrix = MATRIX.copy()
    matrix.iloc[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("spillover", "message"),
    [
        (MATRIX.iloc[:1], "not square: 1 rows, 2 columns"),
        (MATRIX.iloc[:0, :0], "not square: 0 rows"),
        (MATRIX.set_axis(["PE-A", "PE-A"]), "channel twice: 'PE-A'"),
        (MATRIX.set_axis(["FITC-A", "X"]), "other names in rows than in columns: 'PE-A', 'X'"),
        (MATRIX.astype(str) + "x", "not numbers"),
        (changed(value=np.nan), "NaN or infinite values in the rows of 'FITC-A'"),
        (changed(0, 0), "0 on the diagonal.* for 'FITC-A'"),
        (MATRIX * 100, "percent"),
        (changed(value=2), "singular.*condition number"),
        # singular values: their squares add up to 6.25, their product is the determinant 5e-6
        (changed(value=1.99999), r"condition number is 1\.25e\+06, more than 10000"),
        (MATRIX.rename(str.lower).rename(columns=str.lower), "names no channel of the cells"),
        (MATRIX.to_numpy(), "is a ndarray; it must be a DataFrame"),
        ({"a": MATRIX}, "For sample 'b' `spillover` has no matrix; it has: 'a'"),
        ({"a": MATRIX, "b": changed(0, 0)}, "of sample 'b' has 0 on the diagonal"),
    ],
)
def test_matrices_that_cannot_be_used(adata, spillover, message):
    with pytest.raises(ValueError, match=message):
        compensate(adata, spillover=spillover)
    unchanged(adata)


def test_a_file_that_is_no_matrix(adata, tmp_path):
    with pytest.raises(FileNotFoundError):
        compensate(adata, spillover="nowhere.csv")
    MATRIX.iloc[:1].to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match="1 lines of 2 values"):
        compensate(adata, spillover=tmp_path / "m.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="No columns"):
        compensate(adata, spillover=tmp_path / "empty.csv")
    unchanged(adata)


def test_cells_that_cannot_be_compensated(adata):
    del adata.uns["fcs"]["b"]["spillover"]
    with pytest.raises(ValueError, match=r"For sample 'b' \.uns\['fcs'\] has no spillover"):
        compensate(adata)
    with pytest.raises(KeyError, match="layer 'nothing'"):
        compensate(adata, spillover=MATRIX, layer="nothing")
    with pytest.raises(ValueError, match="view"):
        compensate(adata[:2], spillover=MATRIX)
    unchanged(adata)
    for values, message in [
        (MEASURED.astype(int), "int64.*astype"),
        (sparse.csr_matrix(MEASURED), "sparse"),
        (np.where(MEASURED == 200, np.nan, MEASURED), "NaN or infinite.*in: 'CD3', 'CD4'"),
    ]:
        adata.X = values
        with pytest.raises(ValueError, match=message):
            compensate(adata, spillover=MATRIX)
    adata.X = MEASURED
    adata.obs["sample"] = ["a", "a", None, "a"]
    with pytest.raises(ValueError, match="has no sample for 1 cells"):
        compensate(adata, spillover=MATRIX)
    adata.var["channel"] = ["PE-A", "PE-A", "FITC-A"]
    del adata.obs["sample"]
    with pytest.raises(ValueError, match="'PE-A', as several variables"):
        compensate(adata, spillover=MATRIX)
    with pytest.raises(KeyError, match="A matrix per sample needs"):
        compensate(adata)
    unchanged(adata)


def test_values_that_are_not_finite_matter_only_in_the_matrix(adata):
    adata.X[1, 2] = np.nan
    compensate(adata)
    np.testing.assert_allclose(adata.X[:, :2], SIGNAL[:, :2], rtol=1e-5, atol=1e-5)


@real
@pytest.mark.parametrize(
    "name", ["flowkit/test_comp_example.fcs", "gigasom/test-compensation.fcs"]
)
def test_agrees_with_flowkit(name):
    flowkit = pytest.importorskip("flowkit")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = flowkit.Sample(DATA / "fcs" / name, ignore_offset_error=True)
        adata = read_fcs(DATA / "fcs" / name, dtype="float64")
    matrix = adata.uns["fcs"][adata.obs["sample"].iloc[0]]["spillover"]
    if (matrix.to_numpy() == np.eye(len(matrix))).all():
        matrix += np.random.default_rng(0).uniform(0, 0.2, matrix.shape) * (matrix == 0)
    sample.apply_compensation(flowkit.Matrix(matrix.to_numpy(), list(matrix.index)))
    compensate(adata)
    assert (sample.get_events("raw") != adata.X).mean() > 0.5
    np.testing.assert_allclose(adata.X, sample.get_events("comp"), rtol=1e-9, atol=1e-6)
