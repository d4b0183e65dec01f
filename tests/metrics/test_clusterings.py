"""Scores of clusterings against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe import metrics

SCORES = [metrics.weighted_f, metrics.mean_f1, metrics.accuracy]

# populations a: 6 cells, b: 3, c: 1; clusters 0: 5, 1: 4, 2: 1
#        0  1  2
#   a    5  1  0      F1  10/11  2/10  0
#   b    0  3  0          0      6/7   0
#   c    0  0  1          0      0     1
TRUE = list("aaaaaabbbc")
PRED = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2]


def test_f1_table():
    table = metrics.f1_table(TRUE, PRED)
    assert list(table.index) == ["a", "b", "c"]
    assert list(table.columns) == [0, 1, 2]
    np.testing.assert_allclose(
        table.to_numpy(), [[10 / 11, 2 / 10, 0], [0, 6 / 7, 0], [0, 0, 1]], rtol=1e-12
    )


def test_by_hand():
    assert metrics.weighted_f(TRUE, PRED) == pytest.approx((6 * 10 / 11 + 3 * 6 / 7 + 1) / 10)
    assert metrics.weighted_f(TRUE, PRED, direction="clusters") == pytest.approx(
        (5 * 10 / 11 + 4 * 6 / 7 + 1) / 10
    )
    assert metrics.mean_f1(TRUE, PRED) == pytest.approx((10 / 11 + 6 / 7 + 1) / 3)
    assert metrics.accuracy(TRUE, PRED) == pytest.approx(0.9)


@pytest.mark.parametrize("score", SCORES)
def test_perfect_whatever_the_names(score):
    assert score(TRUE, [{"a": "9", "b": "x", "c": "a"}[label] for label in TRUE]) == 1.0


def test_all_in_one_cluster():
    pred = [0] * 10
    # F1 of a: 2*6/16, of b: 2*3/13, of c: 2*1/11; only a finds a partner one to one
    assert metrics.weighted_f(TRUE, pred) == pytest.approx(
        (6 * 12 / 16 + 3 * 6 / 13 + 2 / 11) / 10
    )
    assert metrics.weighted_f(TRUE, pred, direction="clusters") == pytest.approx(12 / 16)
    assert metrics.mean_f1(TRUE, pred) == pytest.approx(12 / 16 / 3)
    assert metrics.accuracy(TRUE, pred) == pytest.approx(0.6)


def test_every_cell_alone():
    pred = np.arange(10)
    # best F1 of a: 2/7, of b: 2/4, of c: 1
    assert metrics.weighted_f(TRUE, pred) == pytest.approx((6 * 2 / 7 + 3 * 2 / 4 + 1) / 10)
    assert metrics.mean_f1(TRUE, pred) == pytest.approx((2 / 7 + 2 / 4 + 1) / 3)
    assert metrics.accuracy(TRUE, pred) == pytest.approx(0.3)


def test_split_population_costs_populations_more_than_clusters():
    true = ["a"] * 8 + ["b"] * 2
    pred = [0] * 4 + [1] * 4 + [2] * 2
    assert metrics.weighted_f(true, pred) == pytest.approx((8 * 8 / 12 + 2) / 10)
    assert metrics.mean_f1(true, pred) == pytest.approx((8 / 12 + 1) / 2)
    assert metrics.accuracy(true, pred) == pytest.approx(0.6)


def test_many_to_one_against_one_to_one():
    # two populations of equal size in one cluster: both may take it, or only one
    true = ["a"] * 5 + ["b"] * 5
    pred = [0] * 10
    assert metrics.weighted_f(true, pred) == pytest.approx(10 / 15)
    assert metrics.mean_f1(true, pred) == pytest.approx(10 / 15 / 2)
    best = metrics.match_table(true, pred, matching="best")
    one = metrics.match_table(true, pred)
    assert list(best["cluster"]) == [0, 0]
    assert one["cluster"].isna().sum() == 1


def test_matching_is_not_greedy():
    # the largest F1 is a-0, but then b has no partner: a-1 and b-0 are better together
    true = ["a"] * 16 + ["b"] * 6
    pred = [0] * 10 + [1] * 6 + [0] * 6
    np.testing.assert_allclose(
        metrics.f1_table(true, pred), [[20 / 32, 12 / 22], [12 / 22, 0]], rtol=1e-12
    )
    assert metrics.mean_f1(true, pred) == pytest.approx(12 / 22)
    assert metrics.match_table(true, pred)["cluster"].to_dict() == {"a": 1, "b": 0}
    assert metrics.match_table(true, pred, matching="best")["cluster"].to_dict() == {
        "a": 0,
        "b": 0,
    }


def test_match_table():
    table = metrics.match_table(TRUE, PRED)
    assert list(table.index) == ["a", "b", "c"]
    assert table.index.name == "population"
    a = table.loc["a"]
    assert (a["n_cells"], a["cluster"], a["n_cluster"], a["n_shared"]) == (6, 0, 5, 5)
    assert a["precision"] == 1.0
    assert a["recall"] == pytest.approx(5 / 6)
    assert a["f1"] == pytest.approx(10 / 11)
    assert table["f1"].mean() == pytest.approx(metrics.mean_f1(TRUE, PRED))
    best = metrics.match_table(TRUE, PRED, matching="best")
    assert np.average(best["f1"], weights=best["n_cells"]) == pytest.approx(
        metrics.weighted_f(TRUE, PRED)
    )


def test_a_pair_without_a_common_cell_is_no_match():
    table = metrics.match_table(["a", "a", "b"], [0, 1, 0])
    # one to one: a-1 or a-0, b-0
    assert table.loc["b", "cluster"] == 0
    table = metrics.match_table(["a", "b", "b"], [0, 0, 0])
    assert table.loc["a", "cluster"] is None
    assert table.loc["a", "f1"] == table.loc["a", "precision"] == table.loc["a", "recall"] == 0


@pytest.mark.parametrize("score", SCORES)
def test_cells_without_a_population_are_left_out(score):
    true = [*TRUE, None, np.nan, None]
    pred = [*PRED, 0, 1, 7]
    assert score(true, pred) == pytest.approx(score(TRUE, PRED))


@pytest.mark.parametrize("ignore", ["none", {"none", "not there"}])
def test_ignored_labels_are_left_out(ignore):
    score = metrics.weighted_f
    true = [*TRUE, "none", "none", "none"]
    pred = [*PRED, 0, 1, 7]
    assert score(true, pred) != pytest.approx(score(TRUE, PRED))
    assert score(true, pred, ignore=ignore) == pytest.approx(score(TRUE, PRED))


@pytest.mark.parametrize("score", SCORES)
def test_min_size_leaves_out_small_populations(score):
    assert score(TRUE, PRED, min_size=3) == pytest.approx(score(TRUE[:9], PRED[:9]))
    assert score(TRUE, PRED, min_size=2) == pytest.approx(score(TRUE[:9], PRED[:9]))
    assert score(TRUE, PRED, min_size=1) == pytest.approx(score(TRUE, PRED))


def test_cells_without_a_cluster_are_misses():
    pred = [0, 0, 0, None, None, None, 1, 1, 1, 2]
    assert metrics.weighted_f(TRUE, pred) == pytest.approx((6 * 6 / 9 + 3 + 1) / 10)
    assert metrics.accuracy(TRUE, pred) == pytest.approx(0.7)
    for score in SCORES:
        assert score(TRUE, [None] * 10) == 0.0
    assert metrics.weighted_f(TRUE, [None] * 10, direction="clusters") == 0.0
    assert metrics.f1_table(TRUE, [None] * 10).shape == (3, 0)
    assert metrics.match_table(TRUE, [None] * 10)["f1"].eq(0).all()


def test_directions_are_each_other_transposed():
    rng = np.random.default_rng(1)
    true, pred = rng.integers(0, 6, 300), rng.integers(0, 9, 300)
    assert metrics.weighted_f(true, pred) == pytest.approx(
        metrics.weighted_f(pred, true, direction="clusters")
    )


@pytest.mark.parametrize("score", SCORES)
def test_invariant_to_names_and_order(score):
    rng = np.random.default_rng(2)
    true = rng.integers(0, 6, 500)
    pred = np.where(rng.random(500) < 0.7, true, rng.integers(0, 9, 500))
    expected = score(true, pred)
    order = rng.permutation(500)
    assert score(true[order], pred[order]) == pytest.approx(expected)
    renamed = np.array(list("qwertyuio"))[rng.permutation(9)[pred]]
    assert score(true, renamed) == pytest.approx(expected)
    assert score(rng.permutation(6)[true].astype(str), renamed) == pytest.approx(expected)


@pytest.mark.parametrize("score", SCORES)
def test_bounds(score):
    rng = np.random.default_rng(3)
    for _ in range(20):
        value = score(rng.integers(0, 5, 40), rng.integers(0, 8, 40))
        assert 0.0 <= value <= 1.0


def test_mean_f1_against_all_matchings():
    from itertools import permutations

    rng = np.random.default_rng(4)
    for _ in range(10):
        true, pred = rng.integers(0, 4, 50), rng.integers(0, 5, 50)
        f1 = metrics.f1_table(true, pred).to_numpy()
        best = max(
            sum(f1[c, k] for c, k in enumerate(choice)) for choice in permutations(range(5), 4)
        )
        assert metrics.mean_f1(true, pred) == pytest.approx(best / 4)


@pytest.mark.parametrize(
    "kind", [list, np.array, pd.Categorical, lambda x: pd.Series(x, dtype="category")]
)
def test_kinds_of_input(kind):
    pred = [str(label) for label in PRED]
    assert metrics.weighted_f(kind(TRUE), kind(pred)) == metrics.weighted_f(TRUE, PRED)


def test_series_are_compared_by_position():
    true = pd.Series(TRUE)
    pred = pd.Series(PRED, index=range(9, -1, -1))
    assert metrics.accuracy(true, pred) == pytest.approx(0.9)


def test_unused_categories_do_not_count():
    true = pd.Categorical(TRUE, categories=["z", "c", "b", "a"])
    assert list(metrics.f1_table(true, PRED).index) == ["a", "b", "c"]


def test_natural_order():
    labels = ["10", "9", "2", "1"]
    assert list(metrics.f1_table(labels, labels).columns) == ["1", "2", "9", "10"]


def test_errors():
    score = metrics.f1_table
    with pytest.raises(ValueError, match=r"labels_true has 2 cells and labels_pred has 3"):
        score(["a", "b"], [1, 2, 3])
    with pytest.raises(ValueError, match="empty"):
        score([], [])
    with pytest.raises(ValueError, match="nothing to score"):
        score([None, np.nan], [0, 1])
    with pytest.raises(ValueError, match="nothing to score"):
        score(["x", "x"], [0, 1], ignore="x")
    with pytest.raises(ValueError, match="min_size=5"):
        score(["x", "x"], [0, 1], min_size=5)
    with pytest.raises(ValueError, match="min_size must be"):
        score(["x", "x"], [0, 1], min_size=-1)
    with pytest.raises(ValueError, match="one-dimensional"):
        score(np.zeros((2, 2)), [0, 1])
    with pytest.raises(ValueError, match="one-dimensional"):
        score(["a"], "a")


def test_unknown_options():
    with pytest.raises(ValueError, match="direction"):
        metrics.weighted_f(TRUE, PRED, direction="both")
    with pytest.raises(ValueError, match="matching"):
        metrics.match_table(TRUE, PRED, matching="greedy")


def test_two_labelings_by_hand():
    labels = np.array([[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]])
    # both say 0 twice, of at most 3 cells; 1 twice, of at most 4; 2 never together
    np.testing.assert_allclose(metrics.category_consensus(labels, 4), [2 / 3, 2 / 4, 0, 0])


def test_which_categories_are_the_same():
    labels = np.array([[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]])
    # the first has 3, 2, 1, 0 cells and the second 2, 4, 0, 0
    expected = [[2 / 3, 1 / 4, 0, 0], [0, 2 / 4, 0, 0], [0, 1 / 4, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(metrics.category_agreement(labels, 4), expected)
    np.testing.assert_allclose(metrics.category_agreement(labels[::-1], 4), np.transpose(expected))


def test_of_three_labelings_both_directions_count():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
    # of two pairs one cell is in 0 here and in 1 there, which has 3 cells
    between = (1 / 3 + 1 / 3) / 6
    diagonal = metrics.category_consensus(labels, 2)
    expected = np.diag(diagonal) + between * (1 - np.eye(2))
    np.testing.assert_allclose(metrics.category_agreement(labels, 2), expected)


def test_mean_over_pairs():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
    # pairs (0, 1): 1 and 1; (0, 2) and (1, 2): 1/2 and 2/3
    np.testing.assert_allclose(
        metrics.category_consensus(labels, 2), [(1 + 1) / 3, (1 + 4 / 3) / 3]
    )


def test_order_of_labelings_does_not_matter():
    labels = np.random.default_rng(0).integers(0, 3, (3, 40))
    np.testing.assert_allclose(
        metrics.category_consensus(labels, 3), metrics.category_consensus(labels[::-1], 3)
    )


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([[0, 1]], "two labellings or more"),
        ([0, 1], "two labellings or more"),
        (np.zeros((2, 0), int), "one cell or more"),
        ([[0, 1], [0, 2]], "from 0 to 1"),
        ([[0, -1], [0, 1]], "from 0 to 1"),
        ([[0.0, 1.0], [0.0, 1.0]], "whole numbers"),
    ],
)
def test_labels_that_are_none_are_named(labels, match):
    with pytest.raises(ValueError, match=match):
        metrics.category_consensus(labels, 2)
