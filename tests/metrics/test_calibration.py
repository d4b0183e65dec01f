"""Calibration of probabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe.metrics import calibration

# the first two clusters are of T cells, whose probabilities are .9 and .9, .6
PROBA = pd.DataFrame(
    [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.4, 0.6, 0.0], [0.1, 0.1, 0.8], [0.0, 0.2, 0.8]],
    columns=["0", "1", "2"],
)
TRUTH = ["T", "T", "T", "B", "T"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_by_hand():
    # cluster 2 ties between B and T, and stands for the first in order: the last cell is wrong
    found = calibration(PROBA, TRUTH, n_bins=10)
    table = found.table.set_index("low")
    assert found.n_cells == 5
    assert table["n_cells"].tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 2, 2]
    np.testing.assert_allclose(table["probability"].dropna(), [0.6, 0.8, 0.9])
    np.testing.assert_allclose(table["accuracy"].dropna(), [1, 0.5, 1])
    assert found.error == pytest.approx((0.4 + 2 * 0.3 + 2 * 0.1) / 5)


def test_cells_without_a_population_do_not_count():
    more = pd.concat([PROBA, PROBA.iloc[:2]])
    found = calibration(more, [*TRUTH, None, np.nan], n_bins=10)
    assert found.n_cells == 5
    pd.testing.assert_frame_equal(found.table, calibration(PROBA, TRUTH, n_bins=10).table)


def test_certain_and_right():
    found = calibration(pd.DataFrame(np.eye(3)), ["a", "b", "c"])
    assert found.error == 0
    assert found.table["n_cells"].iloc[-1] == 3


def test_draws_from_the_probabilities_are_calibrated(rng):
    proba = rng.dirichlet([0.3, 0.3, 0.3], 20_000)
    label = (rng.random((20_000, 1)) > proba.cumsum(1)).sum(1)
    assert calibration(pd.DataFrame(proba), label).error < 0.01
    sharp = proba**3 / (proba**3).sum(1, keepdims=True)
    assert calibration(pd.DataFrame(sharp), label).error > 0.05


@pytest.mark.parametrize(
    ("proba", "truth", "bins", "message"),
    [
        (PROBA * 2, TRUTH, 15, "from 0 to 1"),
        (PROBA["0"], TRUTH, 15, "cells x clusters"),
        (PROBA * np.nan, TRUTH, 15, "from 0 to 1"),
        (PROBA, TRUTH[:3], 15, "same cells"),
        (PROBA, [None] * 5, 15, "nothing to score"),
        (PROBA, TRUTH, 0, "n_bins"),
    ],
)
def test_bad_input(proba, truth, bins, message):
    with pytest.raises(ValueError, match=message):
        calibration(proba, truth, n_bins=bins)
