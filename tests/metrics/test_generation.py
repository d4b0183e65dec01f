"""The report exposes generators that are bad in one way and good in the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from scmoe import metrics
from scmoe.metrics._generation import NearestCell, correlation_distance

QUICK = {"n_permutations": 99, "max_cells": 300}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def correlated(rng):
    """A function that draws cells of one distribution with correlated markers."""
    covariance = 0.8 * np.ones((4, 4)) + 0.2 * np.eye(4)
    return lambda n: rng.multivariate_normal(np.zeros(4), covariance, size=n)


def test_correlation_distance(rng):
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(40, 3))
    difference = np.corrcoef(x.T) - np.corrcoef(y.T)
    expected = np.sqrt(np.mean(difference[[0, 0, 1], [1, 2, 2]] ** 2))
    assert correlation_distance(x, y) == pytest.approx(expected)
    up, down = np.array([[0.0, 0], [1, 1]]), np.array([[0.0, 1], [1, 0]])
    assert correlation_distance(up, down) == pytest.approx(2)
    # constant on both sides: left out; on one side: correlates with nothing
    flat = np.zeros((2, 1))
    assert correlation_distance(np.c_[up, flat], np.c_[down, flat]) == pytest.approx(2)
    assert correlation_distance(up, np.c_[up[:, :1], flat]) == pytest.approx(1)
    assert np.isnan(correlation_distance(np.c_[up[:, :1], flat], np.c_[up[:, :1], flat]))


def test_nearest_other_cell():
    cells = np.array([[0.0], [1.0], [1.0], [5.0]])
    search = NearestCell(cells)
    np.testing.assert_array_equal(search.distance(cells, np.arange(4)), [1, 0, 0, 4])
    np.testing.assert_array_equal(search.distance(np.array([[5.0], [7.0]])), [0, 2])


class TestGenerators:
    def report(self, real, generated, **kwargs):
        return metrics.generation_report(real, generated, **QUICK, **kwargs).loc["all"]

    def test_perfect(self, correlated):
        row = self.report(correlated(600), correlated(500))
        assert (row["n_real"], row["n_generated"]) == (600, 500)
        assert abs(row["mmd2"]) < 0.01
        assert row["mmd_statistic"] == pytest.approx(150 * row["mmd2"])
        assert row["mmd_p"] > 0.01
        assert abs(row["c2st_auc"] - 0.5) < 4 * row["c2st_auc_se"]
        assert row["marginal_mean"] < 0.15
        assert row["correlation"] < 0.05
        assert row["nearest_training"] == pytest.approx(1, abs=0.25)
        assert row["copies"] < 0.05

    def test_copies(self, correlated):
        real = correlated(600)
        row = self.report(real, real[:400])
        assert row["nearest_training"] == 0
        assert row["copies"] == 1
        assert row["mmd_p"] > 0.01
        assert row["correlation"] < 0.05

    def test_copies_with_a_little_noise(self, correlated, rng):
        real = correlated(600)
        row = self.report(real, real + rng.normal(scale=1e-3, size=real.shape))
        assert row["nearest_training"] < 0.1
        assert row["copies"] > 0.9

    def test_markers_shuffled_one_by_one(self, correlated, rng):
        real = correlated(600)
        shuffled = np.column_stack([rng.permutation(marker) for marker in real.T])
        row = self.report(real, shuffled)
        assert row["marginal_max"] == pytest.approx(0, abs=1e-12)
        assert row["correlation"] > 0.6
        assert row["c2st_auc"] > 0.8
        assert row["mmd_p"] == pytest.approx(0.01)

    def test_far_away(self, correlated):
        row = self.report(correlated(300), correlated(300) + [0, 0, 9, 0])
        assert row["nearest_training"] > 5
        assert row["c2st_accuracy"] > 0.95
        assert row["marginal_worst"] == "2"
        assert row["marginal_max"] == pytest.approx(9, rel=0.15)
        assert row["marginal_mean"] < row["marginal_max"] / 2

    def test_held_out(self, correlated):
        training, held_out = correlated(600), correlated(200)
        copies = self.report(held_out, training[:200], reference=training)
        assert copies["nearest_training"] == 0
        assert self.report(held_out, training[:200])["nearest_training"] > 0.5
        fresh = self.report(held_out, correlated(200), reference=training)
        assert fresh["nearest_training"] == pytest.approx(1, abs=0.3)


class TestAnnData:
    @pytest.mark.slow
    def test_groups(self, blobs):
        real, generated = blobs[:400].copy(), blobs[400:, ::-1].copy()
        generated.obs["cluster"] = generated.obs.pop("population")
        table = metrics.generation_report(
            real, generated, groupby=("population", "cluster"), **QUICK
        )
        assert list(table.index) == ["B", "NK", "T", "mono", "pDC", "all"]
        assert table["n_real"].iloc[:-1].sum() == table.loc["all", "n_real"] == 400
        assert table.loc["T", "n_generated"] == (generated.obs["cluster"] == "T").sum()
        assert table.loc[["T", "all"], "marginal_max"].max() < 0.4
        assert table["marginal_worst"].isin(blobs.var_names).all()
        assert table.dtypes["n_real"] == np.int64
        assert list(table.select_dtypes(object)) == ["marginal_worst"]

    def test_few_cells_are_listed(self, blobs):
        real, generated = blobs[:400].copy(), blobs[400:].copy()
        few = np.flatnonzero(generated.obs["population"] == "pDC")[5:]
        generated = generated[np.setdiff1d(np.arange(200), few)].copy()
        generated.obs["population"] = generated.obs["population"].astype(str).replace("B", "new")
        table = metrics.generation_report(real, generated, groupby="population", **QUICK)
        assert list(table.index) == ["B", "NK", "T", "mono", "new", "pDC", "all"]
        assert table.loc["pDC", "n_generated"] == 5
        assert (table.loc["B", "n_generated"], table.loc["new", "n_real"]) == (0, 0)
        assert (
            table.loc[["B", "new", "pDC"]].drop(columns=["n_real", "n_generated"]).isna().all(None)
        )
        assert table.loc["T"].notna().all()

    @pytest.mark.slow
    def test_cells_without_a_group(self, blobs):
        real = blobs.copy()
        real.obs["population"] = real.obs["population"].cat.remove_categories("T")
        table = metrics.generation_report(real, real.copy(), groupby="population", **QUICK)
        assert "T" not in table.index
        assert table.loc["all", "n_real"] == blobs.n_obs

    def test_layers_and_sparse(self, blobs):
        real, generated = blobs[:300].copy(), blobs[300:].copy()
        expected = metrics.generation_report(real, generated, **QUICK)
        generated.layers["x"] = csr_matrix(generated.X)
        generated.X = np.zeros_like(generated.X)
        table = metrics.generation_report(real, generated, layer=(None, "x"), **QUICK)
        pd.testing.assert_frame_equal(table, expected)

    def test_more_real_markers_than_generated(self, blobs):
        generated = blobs[:300, ["CD8", "CD3"]].copy()
        table = metrics.generation_report(blobs, generated, **QUICK)
        arrays = metrics.generation_report(blobs[:, ["CD8", "CD3"]].X, generated.X, **QUICK)
        pd.testing.assert_frame_equal(
            table.drop(columns="marginal_worst"), arrays.drop(columns="marginal_worst")
        )

    def test_reproducible_and_nothing_is_written(self, blobs):
        real, generated = blobs[:300].copy(), blobs[300:].copy()
        before = real.copy()
        first = metrics.generation_report(real, generated, **QUICK)
        again = metrics.generation_report(real, generated, **QUICK)
        pd.testing.assert_frame_equal(first, again)
        np.testing.assert_array_equal(before.X, real.X)
        pd.testing.assert_frame_equal(before.obs, real.obs)
        assert not real.uns

    def test_constant_markers(self, blobs):
        blobs.X[:, 3] = 0
        table = metrics.generation_report(blobs[:300].copy(), blobs[300:].copy(), **QUICK)
        assert table.notna().all(None)
        blobs.X[:] = 1
        table = metrics.generation_report(blobs[:300].copy(), blobs[300:].copy(), **QUICK)
        assert table.loc["all", ["mmd2", "marginal_mean", "nearest_training"]].isna().all()
        assert table.loc["all", "c2st_auc"] == 0.5

    @pytest.mark.parametrize(
        ("kwargs", "error", "message"),
        [
            ({"groupby": "nothing"}, KeyError, "real has no column 'nothing'"),
            ({"groupby": ("population", "no")}, KeyError, "generated has no column 'no'"),
            ({"groupby": ("population", None)}, ValueError, "both sides"),
            ({"groupby": ["a", "b", "c"]}, ValueError, "pair of names"),
            ({"markers": ["CD3", "CD99"]}, KeyError, "real lacks the marker 'CD99'"),
            ({"markers": []}, ValueError, "no marker"),
            ({"layer": "nothing"}, KeyError, "'nothing'"),
            ({"max_cells": 5}, ValueError, "max_cells"),
            ({"n_permutations": 1.5}, ValueError, "n_permutations"),
            ({"reference": np.ones((9, 8))}, ValueError, "reference and real must both"),
        ],
    )
    def test_mistakes(self, blobs, kwargs, error, message):
        with pytest.raises(error, match=message):
            metrics.generation_report(blobs, blobs.copy(), **kwargs)

    def test_more_mistakes(self, blobs):
        other = blobs.copy()
        other.var_names = [f"x{i}" for i in range(8)]
        with pytest.raises(ValueError, match="share no marker"):
            metrics.generation_report(blobs, other)
        other.var_names = [*blobs.var_names[:6], "x6", "x7"]
        with pytest.raises(KeyError, match="real lacks the marker 'x6', 'x7'"):
            metrics.generation_report(blobs, other)
        with pytest.raises(KeyError, match="reference lacks the marker 'CD123', 'CD45'"):
            metrics.generation_report(blobs, blobs.copy(), reference=other)
        with pytest.raises(ValueError, match="both be AnnData"):
            metrics.generation_report(blobs, blobs.X)
        with pytest.raises(ValueError, match="groupby can be used with AnnData only"):
            metrics.generation_report(blobs.X, blobs.X, groupby="population")
        with pytest.raises(ValueError, match="generated is empty"):
            metrics.generation_report(blobs, blobs[:0].copy())
        blobs.obs["population"] = "all"
        with pytest.raises(ValueError, match="rename it"):
            metrics.generation_report(blobs, blobs.copy(), groupby="population")
        other = AnnData(np.full((20, 8), np.nan), var=blobs.var)
        with pytest.raises(ValueError, match=r"generated holds NaN .* 'CD3'"):
            metrics.generation_report(blobs, other)


@pytest.mark.slow
def test_real_cells_against_real_cells(data_dir):
    from scmoe import datasets, pp

    adata = datasets.bodenmiller("H05")
    pp.arcsinh(adata, cofactor=5)
    adata = adata[adata.obs["population"] == "cd4+", adata.var["surface"]].copy()
    half = np.random.default_rng(0).permutation(adata.n_obs) < adata.n_obs // 2
    row = metrics.generation_report(adata[half].copy(), adata[~half].copy()).loc["all"]
    assert abs(row["c2st_auc"] - 0.5) < 4 * row["c2st_auc_se"]
    assert row["mmd_p"] > 0.01
    assert row["correlation"] < 0.06
    assert row["nearest_training"] == pytest.approx(1, abs=0.1)
