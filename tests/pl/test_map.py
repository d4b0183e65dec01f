"""The map that is drawn where there is none."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from scmoe.pl import _map as module
from scmoe.pl._map import tsne, with_map


def record(markers, **params):
    return {"markers": np.array(markers), "params": params}


@pytest.fixture
def clustered(blobs):
    blobs.uns["scmoe"] = record(blobs.var_names)
    return blobs


def purity(embedding, labels, k=10):
    near = NearestNeighbors(n_neighbors=k).fit(embedding).kneighbors(return_distance=False)
    return (labels[near] == labels[:, None]).mean()


@pytest.mark.slow
def test_populations_lie_together(blobs):
    embedding = tsne(blobs.X)
    assert embedding.shape == (600, 2)
    assert embedding.dtype == np.float32
    assert purity(embedding, blobs.obs["population"].to_numpy()) > 0.98
    np.testing.assert_array_equal(embedding, tsne(blobs.X))


@pytest.mark.slow
def test_batches_lie_together(blobs):
    plate = np.where(np.arange(600) % 2, "b", "a")
    x = blobs.X + 3 * (plate == "b").astype(np.float32)[:, None]
    assert purity(tsne(x), plate) > 0.95
    joined = tsne(x, plate)
    assert purity(joined, plate) < 0.7
    assert purity(joined, blobs.obs["population"].to_numpy()) > 0.95


@pytest.mark.parametrize("n", [3, 10])
def test_few_cells(blobs, n):
    assert np.isfinite(tsne(blobs.X[:n])).all()


def test_many_features_and_copies():
    x = np.random.default_rng(0).normal(size=(200, 80)).astype(np.float32)
    x[:150] = x[0]
    assert np.isfinite(tsne(x)).all()


@pytest.mark.slow
def test_some_of_many_cells(clustered, monkeypatch):
    monkeypatch.setattr(module, "MAP_CELLS", 100)
    shown = with_map(clustered, "scmoe")
    assert shown.n_obs == 100
    assert shown.obsm["X_tsne"].shape == (100, 2)
    assert list(shown.obs_names) == [n for n in clustered.obs_names if n in set(shown.obs_names)]
    assert "X_tsne" not in clustered.obsm
    assert (with_map(clustered, "scmoe", seed=1).obs_names != shown.obs_names).any()


def test_of_what_was_clustered(clustered):
    """Of these markers, this layer, this representation; of counts the logarithm of shares."""
    x = clustered.X.copy()
    names = list(clustered.var_names[:3])
    clustered.layers["other"] = x + 1
    clustered.obsm["X_rep"] = x[:, ::-1].copy()
    values = module._values
    np.testing.assert_array_equal(values(clustered, record(names, use_rep=None)), x[:, :3])
    np.testing.assert_array_equal(values(clustered, record(names, layer="other")), x[:, :3] + 1)
    of_rep = record(["0", "1"], use_rep="rep")
    np.testing.assert_array_equal(values(clustered, of_rep), clustered.obsm["X_rep"])
    counts = ad.AnnData(np.array([[1.0, 3], [2, 6], [0, 0]], dtype=np.float32))
    taken = values(counts, record(["0", "1"], model_kwargs={"likelihood": "nb"}))
    np.testing.assert_allclose(taken, np.log1p([[1, 3], [1, 3], [0, 0]]))


@pytest.mark.parametrize("slot", [{"use_rep": "X_pca"}, {"batch_key": "plate"}, {"layer": "raw"}])
def test_what_was_clustered_is_gone(clustered, slot):
    clustered.uns["scmoe"]["params"] = slot
    with pytest.raises(KeyError, match=next(iter(slot.values()))):
        with_map(clustered, "scmoe")
    assert list(clustered.obsm) == []


def test_a_marker_is_gone(clustered):
    with pytest.raises(KeyError, match=clustered.var_names[0]):
        with_map(clustered[:, 1:].copy(), "scmoe")
