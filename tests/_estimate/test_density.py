"""Dense places in a UMAP."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from scmoe._estimate import density_clusters
from scmoe._estimate._density import _default_size, _memberships, embed


@pytest.fixture(scope="module")
def codes():
    """200 codes in 3 groups of 100, 60 and 40."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [100, 60, 40])
    centres = np.array([[0, 0, 0, 0], [9, 0, 0, 0], [0, 9, 0, 9]])
    return centres[group] + rng.normal(size=(200, 4)), group


@pytest.fixture(scope="module")
def found(codes):
    return density_clusters(codes[0], min_cluster_size=10, n_neighbors=12, evidence=[5, 20])


def test_groups(found, codes):
    assert found.n_clusters == 3
    assert found.labels.dtype == np.int64
    inside = found.labels >= 0
    assert adjusted_rand_score(codes[1][inside], found.labels[inside]) == 1
    # 0 is the largest
    assert (np.diff(np.bincount(found.labels[inside])) <= 0).all()


def test_memberships_sum_to_one_and_agree_with_the_labels(found):
    assert found.proba.shape == (200, 3)
    assert found.proba.dtype == np.float32
    np.testing.assert_allclose(found.proba.sum(axis=1), 1, atol=1e-6)
    inside = found.labels >= 0
    np.testing.assert_array_equal(found.proba.argmax(axis=1)[inside], found.labels[inside])


def test_torch_computes_on_as_many_threads_as_before(codes):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        density_clusters(codes[0], min_cluster_size=10, evidence=[])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_evidence(found):
    assert list(found.table.columns) == ["min_cluster_size", "n_clusters", "noise", "chosen"]
    assert list(found.table["min_cluster_size"]) == [5, 10, 20]
    assert list(found.table["chosen"]) == [False, True, False]
    chosen = found.table[found.table["chosen"]].iloc[0]
    assert chosen["n_clusters"] == 3
    assert chosen["noise"] == found.noise == np.mean(found.labels < 0)
    assert found.embedding.shape == (200, 2)
    assert found.settings["n_neighbors"] == 12


def test_same_seed_same_answer(codes, found):
    again = density_clusters(codes[0], min_cluster_size=10, n_neighbors=12, evidence=[])
    np.testing.assert_array_equal(again.labels, found.labels)
    np.testing.assert_array_equal(again.embedding, found.embedding)
    pd.testing.assert_series_equal(again.table["chosen"], pd.Series([True], ["0"], name="chosen"))


def test_all_settings_of_the_map_count(codes):
    x = codes[0][:80].astype(np.float32)
    settings = {"n_neighbors": 8, "n_components": 2, "min_dist": 0.0, "seed": 0}
    first = embed(x, **settings)
    for change in ({"n_neighbors": 30}, {"min_dist": 0.9}, {"seed": 1}):
        assert not np.allclose(embed(x, **{**settings, **change}), first), change
    assert embed(x, **{**settings, "n_components": 3}).shape == (80, 3)


def test_more_neighbours_than_cells(codes):
    found = density_clusters(codes[0][:40], n_neighbors=100, min_cluster_size=5, evidence=[])
    assert found.settings["n_neighbors"] == 39


def test_one_feature_has_a_map_of_one_dimension():
    codes = np.r_[np.linspace(0, 1, 60), np.linspace(20, 21, 60)][:, None]
    found = density_clusters(codes, n_components=2, min_cluster_size=30, evidence=[])
    assert found.embedding.shape == (120, 1)
    assert found.n_clusters == 2


@pytest.mark.parametrize(("n", "size"), [(12, 5), (200, 10), (5_000, 30), (100_000, 200)])
def test_default_size(n, size):
    assert _default_size(n) == size


def test_memberships_by_hand():
    embedding = np.array([[0.0], [1.0], [5.0], [2.0]], np.float32)
    labels = np.array([0, 0, 1, -1])
    strength = np.array([1.0, 0.5, 1.0, 0.0])
    # noise at 2 from the strongest of cluster 0 and at 3 from that of 1: 1/2 to 1/3
    expected = [[1, 0], [0.75, 0.25], [0, 1], [0.6, 0.4]]
    np.testing.assert_allclose(_memberships(embedding, labels, strength), expected, atol=1e-6)


def test_noise_on_top_of_a_strongest_cell():
    embedding = np.array([[0.0], [5.0], [0.0]], np.float32)
    proba = _memberships(embedding, np.array([0, 1, -1]), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(proba[2], [1, 0], atol=1e-6)


def test_nothing_but_noise():
    proba = _memberships(np.zeros((4, 2), np.float32), np.full(4, -1), np.zeros(4))
    assert proba.shape == (4, 0)


@pytest.mark.parametrize(
    ("codes", "match"),
    [
        (np.zeros((9, 2)), "9 cells"),
        (np.ones((20, 2)), "same for all cells"),
        (np.zeros((20, 0)), "same for all cells"),
        (np.full((20, 2), np.nan), "NaN"),
        (np.r_[np.eye(20)[:19], np.full((1, 20), np.inf)], "infinite"),
        (np.zeros(20), "cells x features"),
        (1e20 * np.eye(20), r"up to 1e\+20 are too large for distances"),
    ],
)
def test_codes_that_say_nothing(codes, match):
    with pytest.raises(ValueError, match=match):
        density_clusters(codes)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"min_cluster_size": 1}, "`min_cluster_size`"),
        ({"min_cluster_size": 201}, "only 200 cells"),
        ({"min_cluster_size": 2.5}, "whole number"),
        ({"n_neighbors": 1}, "`n_neighbors`"),
        ({"n_components": 0}, "`n_components`"),
        ({"min_dist": -1.0}, "`min_dist`"),
        ({"min_dist": "0.1"}, "`min_dist` must be from 0 to 1, got '0.1'"),
        ({"evidence": [1]}, "`evidence`"),
    ],
)
def test_settings_out_of_range(codes, settings, match):
    with pytest.raises(ValueError, match=match):
        density_clusters(codes[0], **settings)
