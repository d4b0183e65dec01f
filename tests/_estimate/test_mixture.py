"""Clusters whose number is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scmoe._estimate import _density, mixture_clusters


@pytest.fixture(autouse=True)
def seeds(monkeypatch):
    """No UMAP: the first two columns are the map. Gives the seeds that it was asked with."""
    asked = []

    def embed(codes, n_neighbors, n_components, min_dist, seed):
        assert n_neighbors < len(codes)
        asked.append(seed)
        return codes[:, :n_components]

    monkeypatch.setattr(_density, "embed", embed)
    return asked


def groups(sizes=(20, 60, 40)):
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (9 * np.eye(3)[group] + rng.normal(size=(len(group), 3))).astype(np.float32), group


def test_groups(seeds):
    codes, group = groups()
    found = mixture_clusters(codes, 3, seed=5)
    assert seeds == [5]
    assert found.n_clusters == 3
    assert adjusted_rand_score(group, found.labels) > 0.95
    assert found.labels.dtype == np.int64
    # 0 is the largest
    assert (np.diff(np.bincount(found.labels)) < 0).all()
    np.testing.assert_array_equal(found.proba.argmax(1), found.labels)
    np.testing.assert_allclose(found.proba.sum(1), 1, atol=1e-6)
    assert found.proba.dtype == np.float32
    assert found.noise == 0
    np.testing.assert_array_equal(found.embedding, codes[:, :2])
    again = mixture_clusters(codes, 3, seed=5)
    np.testing.assert_array_equal(again.proba, found.proba)


def test_components_without_cells_are_left_out(monkeypatch):
    proba = np.zeros((12, 3))
    proba[:, 1] = 0.4
    proba[:8, 2], proba[:8, 0] = 0.6, 0.0
    proba[8:, 2], proba[8:, 0] = 0.1, 0.5

    class Fixed:
        def __init__(self, n_components, **kwargs):
            self.seed = kwargs["random_state"]

        def fit(self, x):
            assert self.seed == 3

        def predict_proba(self, x):
            return proba

    monkeypatch.setattr(_density, "GaussianMixture", Fixed)
    found = mixture_clusters(groups()[0][:12], 3, seed=3)
    assert found.n_clusters == 2
    assert found.labels.tolist() == [0] * 8 + [1] * 4
    np.testing.assert_allclose(found.proba[:8], [[1, 0]] * 8)
    np.testing.assert_allclose(found.proba[8:], [[1 / 6, 5 / 6]] * 4, rtol=1e-6)
    assert found.settings == {"n_clusters": 3}


@pytest.mark.parametrize(
    ("n_clusters", "match"), [(0, "from 1 on"), (2.5, "whole number"), (121, "only 120 cells")]
)
def test_numbers_that_cannot_be(n_clusters, match):
    with pytest.raises(ValueError, match=match):
        mixture_clusters(groups()[0], n_clusters)
