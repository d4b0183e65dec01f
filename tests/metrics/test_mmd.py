"""MMD against sums written out, and against what a test must do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe.metrics import mmd, mmd_table


def naive(x, y, width):
    """The definition, pair by pair."""

    def k(a, b):
        return np.exp(-np.sum((a - b) ** 2) / width)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_by_hand():
    # distances within: 1 and 1; across: 4, 9, 1, 4 (0, 1 against 2, 3), with w = 2
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    k = lambda squared: np.exp(-squared / 2)  # noqa: E731
    expected = k(1) + k(1) - 2 * (k(4) + k(9) + k(1) + k(4)) / 4
    result = mmd(x, y, bandwidth=2.0, n_permutations=0)
    assert result.mmd2 == pytest.approx(expected, rel=1e-12)
    assert result.statistic == pytest.approx(2 * 2 / 4 * expected)
    assert (result.n_x, result.n_y, result.bandwidth) == (2, 2, 2.0)
    assert np.isnan(result.p_value)


def test_naive(rng):
    x, y = rng.normal(size=(13, 4)), rng.normal(0.5, 2.0, size=(9, 4))
    result = mmd(x, y)
    squared = [np.sum((a - b) ** 2) for i, a in enumerate(np.r_[x, y]) for b in np.r_[x, y][:i]]
    assert result.bandwidth == pytest.approx(np.median(squared))
    assert result.mmd2 == pytest.approx(naive(x, y, np.median(squared)), rel=1e-10)
    assert result.statistic == pytest.approx(13 * 9 / 22 * result.mmd2)


def test_permutations_are_exact():
    # of the 6 deals of 2 + 2 cells, the observed and its mirror image are the most extreme
    x, y = np.array([[0.0], [0.1]]), np.array([[5.0], [5.1]])
    assert mmd(x, y, n_permutations=6000).p_value == pytest.approx(1 / 3, abs=0.03)


def test_same_distribution_has_uniform_p_values(rng):
    p = [
        mmd(*rng.normal(size=(2, 60, 3)), n_permutations=199, random_state=i).p_value
        for i in range(60)
    ]
    assert 0.35 < np.mean(p) < 0.65
    assert np.mean(np.array(p) <= 0.1) <= 0.25


def test_unbiased(rng):
    values = [
        mmd(*rng.normal(size=(2, 20, 3)), bandwidth=4.0, n_permutations=0).mmd2 for _ in range(300)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)


def test_different_distributions(rng):
    x, y = rng.normal(size=(100, 3)), rng.normal(1.0, size=(80, 3))
    assert mmd(x, y, n_permutations=499).p_value == pytest.approx(1 / 500)
    # same means, other spread
    assert mmd(x, 2 * x[::-1], n_permutations=99).p_value == pytest.approx(1 / 100)


def test_scale_and_place_do_not_matter(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(0.4, size=(50, 3))
    a, b = mmd(x, y), mmd(100 * x + 1000, 100 * y + 1000)
    assert a.mmd2 == pytest.approx(b.mmd2, rel=1e-6)
    assert a.p_value == b.p_value


def test_cells_are_drawn(rng):
    x = rng.normal(size=(500, 2)).astype(np.float32)
    result = mmd(x, x[:30] + 1, max_cells=100, n_permutations=0)
    assert (result.n_x, result.n_y) == (100, 30)
    again = mmd(x, x[:30] + 1, max_cells=100, n_permutations=0)
    other = mmd(x, x[:30] + 1, max_cells=100, n_permutations=0, random_state=1)
    assert result == pytest.approx(again, nan_ok=True)
    assert result.mmd2 != other.mmd2


@pytest.mark.parametrize(
    ("x", "y", "kwargs", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 3)), {}, "x has 2 markers and y has 3"),
        (np.ones(3), np.ones((3, 3)), {}, "x must be cells x markers"),
        (np.ones((3, 2)), np.array([[np.nan, 1.0], [0.0, 1.0]]), {}, "y holds NaN .* marker '0'"),
        (np.ones((1, 2)), np.ones((3, 2)), {}, "x has 1 cell;"),
        (np.ones((3, 2)), np.ones((0, 2)), {}, "y is empty"),
        (np.ones((3, 2)), np.array([["a", "b"]]), {}, "y must hold real numbers"),
        (np.ones((3, 2)), np.ones((3, 2)), {}, "give a bandwidth"),
        (np.ones((3, 2)), np.ones((3, 2)), {"bandwidth": 0.0}, "positive number"),
        (np.ones((3, 2)), np.ones((3, 2)), {"n_permutations": -1}, "n_permutations"),
        (np.ones((3, 2)), np.ones((3, 2)), {"max_cells": 1}, "max_cells"),
        (np.ones((3, 2)), np.ones((3, 2)), {"random_state": None}, "random_state"),
    ],
)
def test_mistakes(x, y, kwargs, message):
    with pytest.raises(ValueError, match=message):
        mmd(x, y, **kwargs)


class TestTable:
    def test_entries_are_those_of_mmd(self, rng):
        x = rng.normal(size=(60, 3)) + np.repeat([0, 1, 3], 20)[:, None]
        labels = np.repeat(["10", "9", "a"], 20)
        table = mmd_table(x, labels)
        assert list(table.index) == list(table.columns) == ["9", "10", "a"]
        width = table.attrs["bandwidth"]
        expected = naive(x[:20], x[40:], width)
        assert table.loc["10", "a"] == table.loc["a", "10"] == pytest.approx(expected, rel=1e-9)
        scaled = mmd_table(x, labels, statistic="scaled")
        assert scaled.loc["10", "a"] == pytest.approx(10 * expected, rel=1e-9)
        # halves of one group
        assert table.to_numpy().diagonal().max() < 0.3 < table.loc["9", "a"]
        assert scaled.loc["9", "9"] == pytest.approx(5 * table.loc["9", "9"])

    def test_real_against_generated(self, rng):
        x, y = rng.normal(size=(30, 2)), rng.normal(1, size=(20, 2))
        table = mmd_table(x, ["a"] * 10 + ["b"] * 20, y=y, y_labels=["c"] * 20, bandwidth=2.0)
        assert table.shape == (2, 1)
        assert table.loc["b", "c"] == pytest.approx(naive(x[10:], y, 2.0), rel=1e-9)

    def test_small_groups_and_missing_labels(self, rng):
        labels = pd.Series(["a"] * 10 + ["b"] * 2 + ["c"] + [None] * 3)
        table = mmd_table(rng.normal(size=(16, 2)), labels)
        assert list(table.index) == ["a", "b", "c"]
        assert np.isfinite(table.loc["a", "b"])
        assert np.isnan(table.loc["b", "b"])
        assert table["c"].isna().all()

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"labels": ["a"] * 3}, "3 labels for 4 cells"),
            ({"labels": [None] * 4}, "no cell a group"),
            ({"y": np.ones((4, 2))}, "belong together"),
            ({"y": np.ones((4, 3)), "y_labels": list("aabb")}, "x has 2 markers and y has 3"),
            ({"statistic": "t"}, "'mmd2' or 'scaled'"),
        ],
    )
    def test_mistakes(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            mmd_table(**{"x": np.arange(8.0).reshape(4, 2), "labels": list("aabb"), **kwargs})


def test_digits(data_dir):
    digits = np.load(data_dir / "mnist.npz")
    x, y = digits["x_test"].reshape(-1, 784)[:2000] / np.float32(255), digits["y_test"][:2000]
    table = mmd_table(x, y)
    diagonal = table.to_numpy().diagonal()
    assert np.abs(diagonal).max() < 0.01
    # a 4 looks like a 9, and a 0 like no 1
    assert table[4].drop(4).idxmin() == 9
    assert table.loc[0, 1] == table.to_numpy().max()
