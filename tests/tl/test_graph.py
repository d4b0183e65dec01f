"""The graph that is built where there is none."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from scmoe.tl._graph import add_graph


@pytest.fixture
def plates(blobs):
    """Two plates; all markers of the second are brighter and wider."""
    second = np.arange(600) % 2 == 1
    blobs.X[second] = blobs.X[second] * 1.3 + 2
    blobs.obs["plate"] = np.where(second, "p2", "p1")
    return blobs


def across(adata, of="plate"):
    """Share of the weight that joins different plates, or populations."""
    edges = adata.obsp["connectivities"].tocoo()
    codes = adata.obs[of].astype("category").cat.codes.to_numpy()
    return edges.data[codes[edges.row] != codes[edges.col]].sum() / edges.data.sum()


def test_without_batches_plates_stay_apart(plates):
    add_graph(plates)
    assert across(plates) < 0.01


def test_with_batches_populations_are_joined(plates):
    add_graph(plates, batch_key="plate")
    assert across(plates) == pytest.approx(0.5, abs=0.05)
    assert across(plates, "population") < 0.02
    graph = plates.obsp["connectivities"]
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().max() == 0
    assert plates.uns["neighbors"]["params"]["batch_key"] == "plate"


def test_as_many_neighbours_from_each_batch(plates):
    """A batch with a tenth of the cells has its share of the neighbours all the same."""
    few = plates[(plates.obs["plate"] == "p1") | (np.arange(600) % 20 == 1)].copy()
    add_graph(few, batch_key="plate")
    rows = few.obsp["connectivities"][(few.obs["plate"] == "p1").to_numpy()]
    other = rows[:, (few.obs["plate"] == "p2").to_numpy()]
    assert (other.getnnz(1) >= 1).all()


def test_many_features(plates):
    rng = np.random.default_rng(0)
    wide = np.hstack([plates.X, rng.normal(size=(600, 60), scale=0.1).astype(np.float32)])
    adata = ad.AnnData(wide, obs=plates.obs)
    add_graph(adata, batch_key="plate")
    assert adata.obsm["X_pca"].shape == (600, 50)
    assert across(adata) > 0.4
    assert across(adata, "population") < 0.05


def test_a_marker_that_is_constant_in_a_batch(plates):
    plates.X[(plates.obs["plate"] == "p1").to_numpy(), 0] = 1
    add_graph(plates, batch_key="plate")
    assert np.isfinite(plates.obsp["connectivities"].data).all()


def test_small_batches(plates):
    few = plates[np.r_[0, 2, 4, 6, 8, 10, 1, 3]].copy()
    add_graph(few, batch_key="plate")
    assert few.obsp["connectivities"].shape == (8, 8)
