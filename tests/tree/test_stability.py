"""Memberships near the valleys of a tree, and the support of its splits."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.tree import Tree, grow, memberships, support
from scmoe.tree._stability import cluster_shares


def two(gap: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4000, 3)).astype(np.float32)
    x[:1000, 0] += gap
    return x


def test_shares_of_clusters_by_hand():
    found, cluster = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1])
    expected = [[0.75, 0.25]] * 4 + [[0, 1]]
    np.testing.assert_allclose(cluster_shares(found, cluster, 2), expected)


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


@pytest.fixture
def tree():
    """All cells are cut by A, the high ones by B."""
    return Tree(
        markers=np.array(["A", "B"]),
        region=np.array([0, 2], np.int32),
        weights=np.eye(2, dtype=np.float32),
        threshold=np.zeros(2),
        significance=np.array([9.0, 5.0]),
        depth=np.array([0.1, 0.3]),
        sizes=np.array([[10, 20], [10, 10]]),
        cluster=np.array([-1, 2, -1, 0, 1], np.int32),
    )


LEAF = np.repeat([1, 3, 4], 10)
SAME = np.repeat([2, 0, 1], 10)
"""Under other numbers."""
MERGED = np.repeat([0, 1, 1], 10)
FINER = np.repeat(np.arange(6), 5)
MOVED = np.where(np.arange(30) == 19, 1, SAME)
"""One cell in ten changes sides: 9 of 10 and 10 of 11 of the sides agree."""
FAR = np.where((np.arange(30) >= 16) & (np.arange(30) < 20), 1, SAME)
"""Four in ten do: 6 of 10 and 10 of 14."""
UNKNOWN = np.where(np.arange(30) % 2, SAME, -1)
ELSEWHERE = np.where(np.arange(30) >= 20, -1, SAME)
"""No cell of the last leaf was drawn."""


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([SAME], [1, 1]),
        ([MERGED], [1, 0]),
        ([FINER], [1, 1]),
        ([MOVED], [1, 1]),
        ([FAR], [1, 0]),
        ([UNKNOWN], [1, 1]),
        ([ELSEWHERE], [1, 0]),
        ([np.zeros(30, int)], [0, 0]),
        ([SAME, MERGED, FAR, SAME], [1, 0.5]),
    ],
)
def test_by_hand(tree, others, expected):
    found = support(tree, LEAF, others)
    assert found.dtype == np.float32
    assert found.tolist() == expected


def test_one_leaf(tree):
    alone = tree.merge(np.zeros(3, int))
    assert support(alone, np.zeros(30, int), [SAME]).shape == (0,)
