"""Populations as gates, against gates by hand."""

from __future__ import annotations

import numpy as np
import pytest
from trees import POPULATIONS, make_stump, make_tree

from scmoe.tree import Gate, Tree, count_labels, find_gates, format_weights, split_weights
from scmoe.tree._gates import best_threshold, choose_gates, merge_gates

X = np.repeat(
    np.array([values for _, values in POPULATIONS.values()], dtype=np.float32),
    [n for n, _ in POPULATIONS.values()],
    axis=0,
)
LABELS = np.repeat([0, 1, 2, 2, 3], [n for n, _ in POPULATIONS.values()])


def written(found):
    return [", ".join(map(str, gates)) for gates, _ in found]


def test_gates_as_text():
    assert str(Gate({"CD3": 1.0}, low=0.5512)) == "CD3+ (> 0.551)"
    assert str(Gate({"CD3": 1.0}, high=-0.25)) == "CD3- (< -0.25)"
    assert str(Gate({"CD3": 1.0}, low=0.4, high=1.02)) == "CD3 (0.4 to 1.02)"
    assert str(Gate({"CD4": 0.8, "CD8": -0.6}, low=0.3)) == "0.8 CD4 - 0.6 CD8 > 0.3"
    assert [Gate({"a": 1.0}, *bounds).sign for bounds in ((1,), (-np.inf, 1), (0, 1))] == [
        1,
        -1,
        0,
    ]
    assert Gate({"a": 0.8, "b": 0.6}, low=1).sign == 0


def test_sums_as_text():
    assert format_weights(split_weights(make_tree(), 0)) == "CD3"
    assert format_weights(split_weights(make_tree(), 3)) == "0.8 CD19 - 0.6 CD4"
    # what is light is not written
    assert format_weights({"a": 0.9, "b": -0.4, "c": 0.19}) == "0.9 a - 0.4 b + ..."


def test_labels_are_counted():
    labels = np.where(X[:, 3] > 0, -1, LABELS)
    assert count_labels(make_tree(), X, labels, 4).tolist() == [
        [40, 0, 0, 0],
        [0, 30, 0, 0],
        [0, 0, 25, 0],
        [0, 0, 0, 0],
    ]


def test_simplest_sufficient_gates():
    """One marker is enough but for the rest, whose leaves are on both sides of CD3."""
    found = find_gates(make_tree(), X, LABELS, np.diag([40, 30, 25, 5]))
    # in place of 0.8 CD19 - 0.6 CD4 > 1 there is CD19 alone, cut midway between its two values
    assert written(found) == [
        "CD4+ (> 2)",
        "CD8+ (> 3)",
        "CD4- (< 2), CD8- (< 3), CD19- (< 1)",
        "CD19+ (> 1)",
    ]
    assert [score for _, score in found] == [1, 1, 1, 1]


def test_a_label_of_several_clusters_and_one_of_none():
    """The T cells are one label, and cells of them have another one by chance."""
    labels = np.where(LABELS < 2, 0, LABELS - 1)
    labels[:4] = 3
    counts = count_labels(make_tree(), X, labels, 4)
    found = find_gates(make_tree(), X, labels, counts)
    # CD3 alone: CD4 and CD8 cut through the label
    assert written(found)[0] == "CD3+ (> 1)"
    assert found[0][1] == pytest.approx(2 * 66 / (66 + 80))
    # those of the cluster that has most of its cells
    assert written(found)[3] == "CD4+ (> 2)"
    assert found[3][1] == pytest.approx(2 * 4 / (4 + 40))


def test_a_few_cells_may_be_beyond_a_gate():
    """One in 11 cells of the label is CD3-; CD3+ is a gate nevertheless."""
    x = np.array([[1.0]] * 30 + [[0.0]] * 60 + [[0.0]] * 3, dtype=np.float32)
    labels = np.array([0] * 30 + [1] * 60 + [0] * 3)
    tree = Tree(
        markers=np.array(["CD3"]),
        region=np.array([0]),
        weights=np.ones((1, 1), np.float32),
        threshold=np.array([0.5]),
        significance=np.ones(1),
        depth=np.zeros(1),
        sizes=np.array([[63, 30]]),
        cluster=np.array([-1, 0, 1]),
    )
    found = find_gates(tree, x, labels, count_labels(tree, x, labels, 2))
    assert written(found) == ["CD3+ (> 0.5)", "CD3- (< 0.5)"]
    assert found[0][1] == pytest.approx(2 * 30 / (30 + 33))
    # with both leaves of one label a split cuts through it
    found = find_gates(tree, x, labels, np.array([[9, 0], [9, 0]]))
    assert written(found)[0] == "CD3+ (> 0.5)"
    labels[30:60] = 0
    assert written(find_gates(tree, x, labels, np.array([[9, 0], [9, 0]])))[0] == ""


def test_two_sides_of_a_marker():
    tree = Tree(
        markers=np.array(["CD4"]),
        region=np.array([0, 2]),
        weights=np.ones((2, 1), np.float32),
        threshold=np.array([1.0, 3.0]),
        significance=np.ones(2),
        depth=np.zeros(2),
        sizes=np.array([[10, 20], [10, 10]]),
        cluster=np.array([-1, 0, -1, 1, 2]),
    )
    x = np.repeat(np.array([[0], [2], [4]], np.float32), 10, axis=0)
    found = find_gates(tree, x, np.arange(3).repeat(10), np.eye(3, dtype=int))
    assert written(found) == ["CD4- (< 1)", "CD4 (1 to 3)", "CD4+ (> 3)"]


def test_one_population():
    assert find_gates(make_stump(), X, np.zeros(len(X), int), np.array([[100]])) == [([], 1.0)]


def test_choose():
    own = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    loose = np.array([1, 1, 1, 1, 1, 1, 0, 0], bool)
    other = np.array([1, 1, 1, 1, 0, 0, 1, 1], bool)
    exact = own.copy()
    # one sum of markers would do, but two markers do as well
    assert choose_gates([exact, loose, other], own, [3, 1, 1], [0]) == [1, 2]
    # not where they don't
    assert choose_gates([exact, loose], own, [3, 1], [0]) == [0]
    # a first one that is needless in the end
    assert choose_gates([loose, exact], own, [1, 1], [0, 1]) == [1]
    assert choose_gates([], own, [], []) == []
    # one that is nearly right, and can't be mended
    tempting = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    assert choose_gates([tempting, loose, other], own, [1, 1, 1], [1, 2]) == [1, 2]
    # one that makes it worse
    assert choose_gates([~own], own, [1], [0]) == []


def test_best_threshold():
    high = np.array([0, 0, 0, 1, 1, 1], bool)
    assert best_threshold(np.array([0.0, 1, 2, 4, 5, 6]), high) == (3.0, 1.0)
    assert best_threshold(np.array([6.0, 5, 4, 2, 1, 0]), high) == (3.0, 1.0)
    # one of three is on the wrong side; equal values are not set apart
    cut, tells = best_threshold(np.array([0.0, 0, 4, 4, 4, 6]), high)
    assert (cut, tells) == (2.0, pytest.approx(2 / 3))
    assert best_threshold(np.zeros(6), high)[1] == 0
    assert best_threshold(np.arange(3.0), np.ones(3, bool))[1] == 0


def test_merged():
    a, b, c = Gate({"a": 1.0}, low=1), Gate({"b": 1.0}, low=1), Gate({"a": 1.0}, high=2)
    assert merge_gates([a, b, c]) == [Gate({"a": 1.0}, 1, 2), b]
    assert merge_gates([a, Gate({"a": 1.0}, low=3)]) == [Gate({"a": 1.0}, low=3)]
    total = Gate({"a": 0.8, "b": 0.6}, low=1)
    assert merge_gates([total, Gate({"a": 0.8, "b": 0.6}, low=2)])[0] == total


def test_cells_within_a_gate():
    x = np.array([[1, 0], [2, 1], [3, 5]], dtype=np.float32)
    markers = np.array(["a", "b"])
    assert Gate({"a": 1.0}, low=1, high=2).holds(x, markers).tolist() == [False, True, False]
    total = Gate({"b": 0.8, "a": -0.6}, low=0)
    assert total.holds(x, markers).tolist() == [False, False, True]


def test_a_sample_of_many_cells(monkeypatch):
    """Gates are chosen on some of the cells, their F1 is that of all."""
    monkeypatch.setattr("scmoe.tree._gates.MAX_GATED_CELLS", 50)
    found = find_gates(make_tree(), X, LABELS, np.diag([40, 30, 25, 5]))
    assert written(found)[:2] == ["CD4+ (> 2)", "CD8+ (> 3)"]
    labels = np.where(np.arange(100) < 4, -1, LABELS)
    found = find_gates(make_tree(), X, labels, np.diag([40, 30, 25, 5]))
    assert found[0][1] == pytest.approx(2 * 36 / (36 + 40))
