"""Communities of a neighbour graph."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scmoe._core.neighbors import communities, neighbor_graph


def cloud(sizes, seed=0):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    x = 20 * rng.normal(size=(len(sizes), 5))[group] + rng.normal(size=(len(group), 5))
    return x.astype(np.float32), group


def test_groups_are_communities_the_largest_first():
    x, group = cloud([30, 80, 50])
    found = communities(neighbor_graph(x), 3, 10, 0)
    np.testing.assert_array_equal(found, np.array([2, 0, 1])[group])


@pytest.mark.parametrize("n", [3, 6, 9])
def test_as_many_as_asked(n):
    x, group = cloud([120, 80, 100])
    found = communities(neighbor_graph(x), n, 5, 0)
    assert set(np.unique(found)) - {-1} == set(range(n))
    # finer than the groups, but none across two of them
    assert all(len(set(group[found == k])) == 1 for k in range(n))
    size = np.bincount(found[found >= 0])
    assert (np.diff(size) <= 0).all()
    assert size.min() >= 5


def test_small_communities_stand_for_nothing():
    x, group = cloud([60, 50, 8])
    found = communities(neighbor_graph(x), 2, 10, 0)
    assert (found[group == 2] == -1).all()
    assert (found[group < 2] >= 0).all()


def test_cells_without_neighbors():
    found = communities(sparse.csr_matrix((12, 12), dtype=np.float32), 3, 10, 0)
    np.testing.assert_array_equal(found, -1)


def test_cells_that_are_alike():
    x = np.repeat(np.random.default_rng(0).normal(size=(15, 4)), 20, 0).astype(np.float32)
    graph = neighbor_graph(x)
    assert graph.shape == (300, 300)
    found = communities(graph, 15, 10, 0)
    assert all(len(set(found[i : i + 20])) == 1 for i in range(0, 300, 20))
