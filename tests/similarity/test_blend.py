"""Two similarities at once, against hand-computed means."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.similarity import (
    Blend,
    CoAssociation,
    Custom,
    Differ,
    Graph,
    Knn,
    Labels,
    Prior,
    Target,
)
from scmoe.similarity._blend import BlendTarget

N = np.nan
FIRST = np.array([[1, 0.5, N, N], [0.5, 1, 0, N], [N, 0, 1, 1], [N, N, 1, 1]], np.float32)
SECOND = np.array([[1, 1, 0.25, N], [1, 1, 1, 0], [0.25, 1, 1, N], [N, 0, N, 1]], np.float32)


class Given(Target):
    """Answers that are given."""

    def __init__(self, s=FIRST, share=0.0, cells=None, batches=None):
        self.s, self.class_share, self.cells, self.drawn = s, share, cells, batches
        self.class_names = ["a", "b"] if share else ()

    def dense(self, cells):
        return self.s[np.ix_(cells, cells)]

    def classes(self, cells):
        return np.full((len(cells), 2), 0.5, np.float32) if self.class_share else None

    def batches(self, cells, batch_size, rng):
        return self.drawn


def test_mean_where_both_have_an_opinion_else_that_of_one():
    target = BlendTarget(Given(FIRST), Given(SECOND), 0.2)
    expected = [[1, 0.9, 0.25, N], [0.9, 1, 0.8, 0], [0.25, 0.8, 1, 1], [N, 0, 1, 1]]
    s = target.dense(np.arange(4))
    np.testing.assert_allclose(s, expected, rtol=1e-6)
    assert s.dtype == np.float32
    cells = np.array([3, 1, 1])
    np.testing.assert_array_equal(target.dense(cells), s[np.ix_(cells, cells)])


def test_listed_pairs_count_once():
    """Pairs that one part knows keep their weight, those of both are halved."""
    cells = np.arange(4)
    target = BlendTarget(Given(FIRST), Given(SECOND), 0.2)
    dense = target.dense(cells)
    total, n_draws = np.zeros((4, 4)), 2000
    rng = np.random.default_rng(0)
    for _ in range(n_draws):
        rows, s, weight = target.listed(cells, rng)
        np.testing.assert_array_equal(s, dense[rows[0], rows[1]])
        np.add.at(total, tuple(rows), weight)
    expected = np.where(np.isnan(dense) | np.eye(4, dtype=bool), 0, 1)
    np.testing.assert_allclose(total / n_draws, expected, atol=0.05)


def test_edges_of_both_parts_are_listed(linked):
    target = Blend(Graph(), Knn(n_neighbors=3)).bind(linked, linked.X)
    cells = np.random.default_rng(0).permutation(600)[:200]
    rows, s, _ = target.listed(cells, np.random.default_rng(0))
    dense = target.dense(cells)
    np.fill_diagonal(dense, 0)
    assert len(np.unique(rows[:, s > 0], axis=1).T) == np.count_nonzero(dense)


@pytest.mark.parametrize("weight", [0.3, 0.5])
@pytest.mark.parametrize("class_first", [True, False])
def test_one_part_teaches_classes(class_first, weight):
    """Its weight is the share of the classes; all pairs come from the other."""
    parts = [Given(FIRST, share=1.0), Given(SECOND)]
    target = BlendTarget(*(parts if class_first else parts[::-1]), weight)
    assert target.class_share == pytest.approx(weight if class_first else 1 - weight)
    assert target.n_classes == 2
    assert target.classes(np.arange(3)).shape == (3, 2)
    cells = np.arange(4)
    np.testing.assert_array_equal(target.dense(cells), SECOND)
    pairs = np.array([[0, 1], [1, 2]])
    np.testing.assert_array_equal(target.at(cells, pairs), [1, 1])
    rows, s, _ = target.listed(cells, np.random.default_rng(0))
    np.testing.assert_array_equal(s, SECOND[rows[0], rows[1]])


def test_blend_of_a_blend_is_linear():
    """0.6 (0.5 C + 0.5 P1) + 0.4 P2 = 0.3 C + 0.7 (3/7 P1 + 4/7 P2)."""
    inner = BlendTarget(Given(share=1.0), Given(np.zeros((2, 2), np.float32)), 0.5)
    target = BlendTarget(inner, Given(np.ones((2, 2), np.float32)), 0.6)
    assert target.class_share == pytest.approx(0.3)
    np.testing.assert_allclose(target.dense(np.arange(2)), 4 / 7, rtol=1e-6)
    assert target.n_classes == 2


def test_only_one_part_may_teach_classes(linked):
    with pytest.raises(ValueError, match=r'Both parts.*Prior\(mode="pairs"\)'):
        Blend(Prior(), Prior()).bind(linked, linked.X)
    Blend(Prior(), Prior(mode="pairs")).bind(linked, linked.X)


def test_cells():
    some, others = np.array([1, 3]), np.array([0, 3])

    def cells(first, second):
        return BlendTarget(first, second, 0.5).cells

    np.testing.assert_array_equal(cells(Given(cells=some), Given(cells=others)), [0, 1, 3])
    assert cells(Given(cells=some), Given()) is None
    assert cells(Given(), Given(cells=some)) is None
    assert cells(Given(cells=some, share=1.0), Given(cells=others)) is None


def test_a_prior_in_a_blend_lets_all_cells_train(linked):
    assert Prior().bind(linked, linked.X).cells is not None
    assert Blend(Prior(), Graph()).bind(linked, linked.X).cells is None
    assert Blend(Graph(), Prior()).bind(linked, linked.X).cells is None


def test_batches_of_the_first_that_draws():
    a, b = iter(()), iter(())
    for first, second, expected in [(a, b, a), (None, b, b), (a, None, a), (None, None, None)]:
        target = BlendTarget(Given(batches=first), Given(batches=second), 0.5)
        assert target.batches(np.arange(4), 2, np.random.default_rng(0)) is expected


@pytest.mark.parametrize(
    ("first", "second", "needs_graph", "key"),
    [
        (Graph(), CoAssociation(), True, None),
        (Graph(neighbors_key="g"), CoAssociation(neighbors_key="g"), True, "g"),
        (Labels("l"), Graph(neighbors_key="g"), True, "g"),
        (Graph(neighbors_key="g"), Labels("l"), True, "g"),
        (Graph(obsp="a"), Graph(neighbors_key="g"), True, "g"),
        (Graph(obsp="a"), Graph(obsp="b"), False, None),
        (Labels("l"), Knn(), False, None),
        (Labels("l"), Blend(Knn(), Graph(neighbors_key="g")), True, "g"),
    ],
)
def test_graph(first, second, needs_graph, key):
    blend = Blend(first, second)
    assert blend.needs_graph == needs_graph
    assert blend.neighbors_key == key


def test_two_graphs_of_scanpy():
    inner = Blend(Graph(neighbors_key="g"), Labels("l"))
    with pytest.raises(ValueError, match=r"'g' and 'h'.*Graph\(obsp"):
        Blend(inner, CoAssociation(neighbors_key="h"))
    with pytest.raises(ValueError, match=r"'g' and None"):
        Blend(inner, Graph())


def test_samples_that_differ_halve_the_edges_between_them(linked):
    target = Blend(Differ("sample"), Graph(obsp="mine"), weight=0.5).bind(linked, linked.X)
    cells = np.arange(100)
    graph = Graph(obsp="mine").bind(linked, linked.X).dense(cells)
    sample = linked.obs["sample"].to_numpy()[cells]
    across = sample[:, None] != sample
    np.testing.assert_allclose(target.dense(cells), np.where(across, graph / 2, graph))


def test_parts_know_where_they_fail(linked):
    del linked.obs["labels"]
    with pytest.raises(KeyError, match="'labels'"):
        Blend(Custom(lambda c: c), Labels("labels")).bind(linked, linked.X)
