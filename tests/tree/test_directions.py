"""Directions between groups of cells, against solutions by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

from scmoe.tree._directions import (
    branches,
    candidates,
    find_nodes,
    fisher,
    fisher_of_sides,
    measure_noise,
    nearest,
    pooled_noise,
    principal_direction,
)


def test_fisher_solves_the_clear_markers_only():
    noise = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 4.0]])
    # 100 cells each: standard errors sqrt(.02) = .141, .141 and .283; t = 7.1, 0, 1.8
    found = fisher(np.array([[1.0, 0.0, 0.5]]), np.array([0.02]), noise)
    np.testing.assert_allclose(found, [[1, 0, 0]])
    # t = 7.1, 7.1: the inverse of the block is [[4/3, -2/3], [-2/3, 4/3]]
    found = fisher(np.array([[1.0, -1.0, 0.5]]), np.array([0.02]), noise)
    np.testing.assert_allclose(found, np.array([[2, -2, 0]]) / np.sqrt(8), atol=1e-12)
    assert fisher(np.array([[0.1, 0.1, 0.1]]), np.array([0.02]), noise).shape == (0, 3)


def test_fisher_of_many_markers_takes_those_that_differ_most(monkeypatch):
    monkeypatch.setattr("scmoe.tree._directions.MAX_MARKERS", 2)
    found = fisher(np.array([[1.0, 3.0, 2.0]]), np.array([0.01]), np.eye(3))
    np.testing.assert_allclose(found, np.array([[0, 3, 2]]) / np.sqrt(13))
    rng = np.random.default_rng(0)
    high, low = rng.normal(size=(2, 200, 3)) + np.array([[[1, 3, 2]], [[0, 0, 0]]])
    direction = fisher_of_sides(high, low, np.eye(3))
    assert direction[0] == 0
    assert direction[1] > direction[2] > 0
    assert fisher_of_sides(high[:0], low, np.eye(3)) is None


def test_noise_of_a_pair_is_shrunk_to_that_of_all():
    rng = np.random.default_rng(0)
    a, b = 2 * rng.normal(size=(50, 2)), 3 * rng.normal(size=(1000, 2))
    expected = (50 * np.cov(a.T) + 500 * np.cov(b.T) + 4 * np.eye(2)) / (50 + 500 + 4)
    np.testing.assert_allclose(pooled_noise(a, b, np.eye(2)), expected)
    np.testing.assert_allclose(pooled_noise(a[:1], b[:1], np.eye(2)), np.eye(2))


def test_branches_of_a_linkage():
    links = linkage(np.array([[0.0], [1.0], [10.0], [12.0]]), "average")
    two, three = branches(links, (2, 3))[::-1]
    assert sorted(map(sorted, two)) == [[0, 1], [2, 3]]
    assert sorted(map(sorted, three)) == [[0, 1], [2], [3]]


def test_candidates_hold_the_direction_of_two_clouds():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 4)).astype(np.float32)
    x[:300, :2] += 5
    centres = find_nodes(x)
    found = candidates(x, nearest(x, centres), measure_noise(x, centres), 12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    np.testing.assert_array_equal(found[:4], np.eye(4))
    assert np.abs(found @ np.array([1, 1, 0, 0]) / np.sqrt(2)).max() > 0.98


def test_nodes_hang_on_the_cells_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)).astype(np.float32)
    centres = find_nodes(x)
    assert centres.shape == (50, 3)
    order = rng.permutation(500)
    again = find_nodes(x[order])
    key = np.lexsort(centres.T), np.lexsort(again.T)
    np.testing.assert_allclose(centres[key[0]], again[key[1]], atol=1e-5)


def test_principal_direction_of_many_markers(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)) * np.array([1, 4, 1, 1, 1, 1])
    x -= x.mean(0)
    exact = principal_direction(x)
    monkeypatch.setattr("scmoe.tree._directions.MAX_MARKERS", 3)
    assert abs(principal_direction(x) @ exact) == pytest.approx(1, abs=1e-6)
    assert np.isfinite(principal_direction(np.zeros((4, 6)))).all()


def test_noise_is_that_within_groups():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2)).astype(np.float32) * np.array([1, 0.5], np.float32)
    x[:2000, 0] += 20
    noise = measure_noise(x, find_nodes(x))
    # 10 groups tile each cloud in part, so that less than the whole spread is left
    assert 0.1 < noise[0, 0] < 1.02
    assert noise[0, 0] < 2 < x[:, 0].var()
    assert np.linalg.eigvalsh(noise).min() > 0
