"""The range of each marker that becomes 0 to 1."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe._core.scaling import rescaled, value_range


def test_quantiles_pass_over_extremes():
    x = np.linspace(0, 1, 10_001)[:, None] * [1.0, 5.0] + [0.0, 2.0]
    x[0] = -1000
    low, high = value_range(x, "quantile")
    np.testing.assert_allclose(low, [0.001, 2.005], atol=1e-3)
    np.testing.assert_allclose(high, [0.999, 6.995], atol=1e-3)


def test_a_marker_of_few_cells_keeps_its_full_range():
    x = np.zeros((10_000, 2))
    x[:3, 0], x[:, 1] = 7, np.arange(10_000)
    low, high = value_range(x, "quantile")
    assert (low[0], high[0]) == (0, 7)


def test_a_common_range_is_that_of_the_widest_feature():
    x = np.linspace(-1, 1, 10_001)[:, None] * [2.0, 5.0]
    x[0] = 1000
    low, high = value_range(x, "common")
    np.testing.assert_allclose([low, high], [[-4.99, -4.99], [4.99, 4.99]], atol=1e-2)


@pytest.mark.parametrize("scaling", ["quantile", "minmax", "common", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_are_of_the_type_of_the_cells(scaling, dtype):
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(dtype)
    low, high = value_range(x, scaling)
    assert low.dtype == high.dtype == dtype


def test_a_range_that_is_lost_by_rounding_is_none():
    """Nothing is divided by 0: the quantiles differ by less than single precision can tell."""
    x = np.ones((2000, 1), np.float32)
    x[:2] = [[np.nextafter(np.float32(1), np.float32(2))], [7.0]]
    low, high = value_range(x, "quantile")
    assert (low.item(), high.item()) == (1, 7)


def test_rescaled_cells_keep_their_type_and_are_not_clipped():
    x = np.array([[1.0, -1.0], [4.0, 3.0]], dtype=np.float32)
    scaled = rescaled(x, "common")
    low, high = value_range(x, "common")
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, (x - low) / (high - low))
    assert rescaled(x, "minmax").tolist() == [[0, 0], [1, 1]]
    assert rescaled(x, "none").tolist() == x.tolist()


def test_others():
    x = np.array([[1.0, -1.0], [4.0, 3.0]])
    np.testing.assert_array_equal(value_range(x, "minmax"), [[1, -1], [4, 3]])
    np.testing.assert_array_equal(value_range(x, "none"), [[0, 0], [1, 1]])
