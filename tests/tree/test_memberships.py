"""Memberships near the valleys of a tree, by hand and on made-up cells."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.tree import grow, memberships, translated


def two(gap: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4000, 3)).astype(np.float32)
    x[:1000, 0] += gap
    return x


def test_translated_by_hand():
    found, cluster = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1])
    expected = [[0.75, 0.25]] * 4 + [[0, 1]]
    np.testing.assert_allclose(translated(found, cluster, 2), expected)


def test_undecided_near_the_valley_alone():
    x = two(4.5)
    tree = grow(x, np.arange(3))
    shares = memberships(tree, x)
    assert tree.n_clusters == 2
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(shares.argmax(1), tree.predict(x))
    undecided = shares.max(1) < 0.99
    away = np.abs(tree.project(x, 0) - tree.threshold[0])
    assert undecided.any()
    assert away[undecided].max() < 1


def test_a_split_that_hardly_is_one_leaves_all_undecided():
    """Of the same cells, whether its valley comes again in every subsample."""
    x = two(4.5)
    tree = grow(x, np.arange(3))
    unsure = memberships(tree, x, significance=1.2 * float(tree.significance[0]))
    assert np.median(unsure.max(1)) < np.median(memberships(tree, x).max(1))
    assert np.median(memberships(tree, x).max(1)) > 0.999


@pytest.mark.parametrize("order_seed", [1, 2])
def test_order_of_the_cells(order_seed):
    x = two(4.5)
    tree = grow(x, np.arange(3))
    order = np.random.default_rng(order_seed).permutation(len(x))
    np.testing.assert_allclose(memberships(tree, x[order]), memberships(tree, x)[order])


def test_one_cluster_and_no_cells_beside_a_split():
    x = two(9)
    tree = grow(x, np.arange(3))
    assert memberships(tree.merge(np.zeros(2, int)), x).tolist() == [[1.0]] * len(x)
    # all cells on one side: nothing can be looked at again
    assert np.isfinite(memberships(tree, x[1000:1020])).all()
