"""Values that repeat: what is spread, how far, and what may still split."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.tree._prepare import (
    are_categories,
    spread_counts,
    spread_discrete,
    unit_of,
    without_copies,
)


def test_continuous_values_stay():
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    np.testing.assert_array_equal(spread_discrete(x, np.random.default_rng(1)), x)


def test_whole_numbers_move_by_half_a_step():
    rng = np.random.default_rng(0)
    x = rng.poisson(20, (3000, 2)).astype(np.float32)
    spread = spread_discrete(x, np.random.default_rng(1))
    common = np.abs(x - 20) < 10
    assert np.abs(spread - x)[common].max() <= 0.5 + 1e-5
    assert len(np.unique(spread[:, 0])) > 2500


def test_a_wide_gap_stays_open():
    x = np.repeat([0.0, 1.0, 2.0, 30.0, 31.0, 32.0], 50)[:, None].astype(np.float32)
    spread = spread_discrete(x, np.random.default_rng(0))
    # 2 and 30 move by the smaller of their gaps at most
    assert spread[x == 2].max() <= 3 + 1e-5
    assert spread[x == 30].min() >= 29 - 1e-5


@pytest.mark.parametrize(
    ("count", "are"),
    [
        ([700, 300], True),  # a level behind would have 300^2 x 1 / (700 x 2) = 64 cells
        ([980, 20], False),  # .2 cells: rare counts
        ([400, 300, 300], True),  # 300^2 x 2 / (300 x 3) = 200
        ([741, 222, 33], False),  # Poisson of .3: 33^2 x 2 / (222 x 3) = 3.3
        ([5, 995], False),
        ([100] * 4, False),
    ],
)
def test_categories(count, are):
    assert are_categories(np.array(count)) is are


def test_unit_of_a_cell():
    values = np.array(
        [[0.5, 1.0, 0.0, 1.5], [0.6, 0.9, 0.0, 0.0], [2.0, 0, 0, 0], [1, 1.234, 0, 0]]
    )
    unit, told = unit_of(values)
    np.testing.assert_allclose(unit[:2], [0.5, 0.3])
    assert np.isnan(unit[2:]).all()
    np.testing.assert_array_equal(told, [True, True, False, True])


@pytest.mark.parametrize("is_log", [False, True])
def test_counts_over_a_factor_of_the_cell(is_log):
    rng = np.random.default_rng(0)
    counts = rng.poisson(3, (500, 12))
    factor = rng.lognormal(0, 0.3, (500, 1))
    x = counts / factor
    x = (np.log1p(x) if is_log else x).astype(np.float32)
    spread = spread_counts(x, np.random.default_rng(1))
    back = (np.expm1(spread) if is_log else spread) * factor
    assert np.abs(np.abs(back) - counts).max() <= 0.5 + 1e-3
    assert spread_counts(counts.astype(np.float32), np.random.default_rng(1)) is None


def test_copies_of_cells():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3)).astype(np.float32)
    np.testing.assert_array_equal(without_copies(x), np.arange(100))
    twice = np.concatenate([x, x])
    kept = without_copies(twice)
    assert len(kept) == 100
    assert len(np.unique(twice[kept], axis=0)) == 100
    # few counts are alike honestly
    few = rng.poisson(1, (500, 2)).astype(np.float32)
    assert len(without_copies(few)) == 500
