"""The classifier sees what it should see, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.metrics import classifier_two_sample
from scmoe.metrics._two_sample import _auc_error


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def test_same_distribution(rng):
    result = classifier_two_sample(*rng.normal(size=(2, 1000, 5)))
    assert abs(result.accuracy - 0.5) < 0.05
    assert abs(result.auc - 0.5) < 5 * result.auc_se
    assert result.n == 1000


def test_different_distributions(rng):
    x = rng.normal(size=(300, 5))
    result = classifier_two_sample(x, x + 5)
    assert result.accuracy > 0.99
    assert result.auc > 0.99


def test_lost_correlations_are_seen(rng):
    x = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=500)
    shuffled = np.column_stack([rng.permutation(marker) for marker in x.T])
    assert classifier_two_sample(x, shuffled).auc > 0.75


def test_copies_are_below_chance(rng):
    x = rng.normal(size=(1000, 3))
    assert classifier_two_sample(x, x).auc < 0.4


def test_sides_are_balanced(rng):
    x = rng.normal(size=(900, 2))
    result = classifier_two_sample(x, x[:30] + 0.1)
    assert result.n == 30
    assert result.accuracy < 0.8
    assert classifier_two_sample(x, x + 0.1, max_cells=40).n == 40


def test_seed(rng):
    x, y = rng.normal(size=(2, 60, 2))
    assert classifier_two_sample(x, y) == classifier_two_sample(x, y)
    assert classifier_two_sample(x, y) != classifier_two_sample(x, y, random_state=3)


def test_standard_error():
    # at 0.5 the variance is that of the Mann-Whitney U: (2 n + 1) / (12 n^2)
    assert _auc_error(0.5, 40) == pytest.approx(np.sqrt(81 / (12 * 40**2)))
    assert _auc_error(1.0, 40) == 0.0


def test_constant_cells():
    result = classifier_two_sample(np.ones((20, 2)), np.ones((20, 2)))
    assert (result.accuracy, result.auc) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("real", "generated", "kwargs", "message"),
    [
        (np.ones((9, 2)), np.ones((50, 2)), {}, "got 9 real and 50 generated"),
        (np.ones((50, 2)), np.ones((50, 2)), {"max_cells": 5}, "max_cells=5"),
        (np.ones((50, 2)), np.ones((50, 3)), {}, "real has 2 markers and generated has 3"),
        (np.full((50, 2), np.inf), np.ones((50, 2)), {}, "real holds NaN or infinite"),
    ],
)
def test_mistakes(real, generated, kwargs, message):
    with pytest.raises(ValueError, match=message):
        classifier_two_sample(real, generated, **kwargs)
