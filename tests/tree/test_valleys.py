"""Valleys along directions, against counts that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.tree._valleys import find_valleys

ROOT = np.sqrt(2)


def two_places(n_low: int, n_high: int) -> np.ndarray:
    """Cells at 0 and at 10."""
    return np.repeat([0.0, 10.0], [n_low, n_high])[None].astype(np.float32)


def test_counts_at_peak_and_valley():
    """n cells in one place count as n times the root of 2: a flat window of the same variance."""
    found = find_valleys(two_places(300, 100), np.ones(1), 12)
    assert found.peak[0] == pytest.approx(100 * ROOT + 0.5, rel=0.02)
    assert found.valley[0] < 1
    assert 0 < found.threshold[0] < 10
    expected = ROOT * (np.sqrt(100 * ROOT + 0.5) - np.sqrt(found.valley[0]))
    assert found.significance[0] == pytest.approx(expected, rel=0.02)
    bound = np.log(found.peak / found.valley) - 1.64 * np.sqrt(1 / found.peak + 1 / found.valley)
    assert found.bound[0] == pytest.approx(bound[0])


def test_half_filled_valley():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 4000), rng.normal(4, 1, 4000), rng.uniform(0, 4, 2000)])
    found = find_valleys(x[None].astype(np.float32), np.ones(1), 12)
    # densities at 2: 2 x .054 x 4000 + 500, at the peak .399 x 4000 + 500
    expected = (2 * 0.054 * 4000 + 500) / (0.399 * 4000 + 500)
    assert found.depth[0] == pytest.approx(expected, abs=0.05)
    assert found.threshold[0] == pytest.approx(2, abs=0.3)


def test_one_population_has_no_valley():
    rng = np.random.default_rng(0)
    found = find_valleys(rng.normal(size=(50, 3000)).astype(np.float32), np.ones(50), 12)
    assert found.significance.max() < 3.5


def test_too_few_cells_on_a_side():
    assert find_valleys(two_places(300, 11), np.ones(1), 12).bound[0] < 0
    assert find_valleys(two_places(300, 12), np.ones(1), 12).bound[0] > 0
    assert find_valleys(two_places(5, 6), np.ones(1), 12).bound[0] == -np.inf


@pytest.mark.parametrize("side", [1, -1])
def test_too_few_cells_nearby_on_a_side(side):
    # nearer than the margin of the bins, so that the few cells are within them
    near = np.repeat([0.0, side], [300, 11])[None].astype(np.float32)
    assert find_valleys(near, np.ones(1), 12).bound[0] < 0
    near = np.repeat([0.0, side], [300, 12])[None].astype(np.float32)
    assert find_valleys(near, np.ones(1), 12).bound[0] > 0


def test_values_far_out_do_not_widen_the_bins():
    near = np.concatenate([two_places(300, 100), [[1e6, -1e15]]], axis=1).astype(np.float32)
    found = find_valleys(near, np.ones(1), 12)
    assert found.peak[0] == pytest.approx(100 * ROOT + 0.5, rel=0.02)
    assert 0 < found.threshold[0] < 10


def test_what_only_sets_batches_apart_is_no_valley():
    x = two_places(300, 300)
    apart = np.repeat([0, 1], 300)
    mixed = np.arange(600) % 2
    assert find_valleys(x, np.ones(1), 12, batch=apart).significance[0] < 0.1
    both = find_valleys(x, np.ones(1), 12, batch=mixed)
    assert both.significance[0] == pytest.approx(
        find_valleys(x, np.ones(1), 12).significance[0], rel=0.01
    )


def test_rows_are_looked_at_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 500)).astype(np.float32)
    whole = find_valleys(x, np.ones(7), 12)
    monkeypatch.setattr("scmoe.tree._valleys.VALUES_AT_A_TIME", 1000)
    parts = find_valleys(x, np.ones(7), 12)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b)
