"""What the arms of coupled mixtures learn first."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import make_three
from sklearn.metrics import adjusted_rand_score

from scmoe._core.neighbors import communities, neighbor_graph
from scmoe.model._cplmixvae_stages import _named_like, leaves, of_graph, of_tree, start_categories


@pytest.fixture(scope="module")
def graph():
    return neighbor_graph(make_three().X)


def communities_of(graph, n_categories, n_arms, seed):
    find = of_graph(graph, n_categories)
    return start_categories(find, graph.shape[0], n_categories, n_arms, seed)


def test_one_arm_learns_the_communities_of_all_cells(graph):
    taught = communities_of(graph, 3, 1, 0)
    np.testing.assert_array_equal(taught[:, 0], communities(graph, 3, 10, 0))


def test_each_arm_learns_of_a_half_of_its_own(graph):
    taught = communities_of(graph, 3, 4, 0)
    assert taught.shape == (200, 4)
    assert taught.dtype == np.int64
    of_arm = taught >= 0
    assert (of_arm.sum(0) == 100).all()
    assert len({tuple(column) for column in of_arm.T}) == 4
    # types that are plain to see have the same names in all arms
    kind = make_three().obs["kind"].to_numpy()
    several, arms = np.nonzero(of_arm)
    assert adjusted_rand_score(kind[several], taught[several, arms]) == 1


@pytest.mark.parametrize("n", [30, 50])
def test_few_cells_whose_halves_show_too_little(n):
    # communities of 10 cells: three of all, of half of them one or none
    kind = np.arange(n) % 3
    rng = np.random.default_rng(0)
    x = 3 * np.eye(3).repeat(2, 1)[kind] + rng.normal(scale=0.3, size=(n, 6))
    graph = neighbor_graph(x.astype(np.float32))
    taught = communities_of(graph, 3, 2, 0)
    np.testing.assert_array_equal(taught, communities(graph, 3, 10, 0)[:, None].repeat(2, 1))
    assert taught.max() >= 1


def test_what_chance_cuts_is_learned_differently():
    # one cloud, which has no parts
    graph = neighbor_graph(np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32))
    one, other = communities_of(graph, 8, 2, 0).T
    both = (one >= 0) & (other >= 0)
    assert both.sum() > 50
    assert (one[both] == other[both]).mean() < 0.8


def test_seed(graph):
    first, again, other = (communities_of(graph, 6, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_leaves_of_a_half_each():
    cells = make_three((450, 300, 250))
    x, kind = np.asarray(cells.X), cells.obs["kind"].to_numpy()
    tree = leaves(x, None, 0)
    assert tree.n_clusters == 3
    taught = start_categories(of_tree(x, tree), 1000, 3, 2, 0)
    several, arms = np.nonzero(taught >= 0)
    assert len(several) == 1000
    assert adjusted_rand_score(kind[several], taught[several, arms]) > 0.95
    one = start_categories(of_tree(x, tree), 1000, 3, 1, 0)
    np.testing.assert_array_equal(one[:, 0], tree.predict(x))
    # no half knows more of them than all cells
    two = leaves(x, 2, 0)
    assert two.n_clusters == 2
    assert start_categories(of_tree(x, two), 1000, 2, 2, 0).max() == 1


def test_no_leaves_to_start_from(caplog):
    caplog.set_level("INFO", logger="scmoe")
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    assert leaves(x, None, 0) is None
    assert "no more than 1 leaves" in caplog.text
    assert leaves(np.asarray(make_three().X), 4, 0) is None
    assert "no more than 3 leaves" in caplog.text


def test_names_are_those_of_most_common_cells():
    known = np.array([0, 0, 0, 1, 1, 2, 2, -1])
    found = np.array([2, 2, 1, 1, 1, 0, -1, 1])
    assert _named_like(known, found, 3).tolist() == [0, 0, 1, 1, 1, 2, -1, 1]
    # parts without a counterpart get what is left
    assert _named_like(np.zeros(4, int), np.array([0, 0, 0, 1]), 2).tolist() == [0, 0, 0, 1]
