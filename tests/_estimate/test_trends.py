"""What moves with a state, against scipy, the bootstrap, and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scmoe._estimate import trends, variance_explained


def made(n=200, seed=0):
    """Two dimensions; values that follow one of them, none, or have many ties."""
    rng = np.random.default_rng(seed)
    s = rng.normal(size=(n, 2))
    x = np.stack(
        [
            s[:, 0] + rng.normal(size=n),
            rng.normal(size=n),
            np.maximum(s[:, 1] + rng.normal(size=n), 0.5).round(1),
            rng.random(n) < 0.1 + 0.2 * (s[:, 0] > 0),
        ],
        axis=1,
    ).astype(float)
    return s, x


def test_by_hand():
    # ranks 1 2 3 4 against 1 3 2 4: squared differences 0 1 1 0
    found = trends(np.array([[0.1], [0.2], [0.5], [9]]), np.array([[1.0], [3], [2], [7]]))
    np.testing.assert_allclose(found.effect, 1 - 6 * 2 / (4 * 15))


def test_ties_have_their_mean_rank():
    # ranks 1 2 3 4 against 1.5 1.5 3.5 3.5: products about the mean 1.5 0.5 0.5 1.5, sum 4
    found = trends(np.arange(4.0)[:, None], np.array([[0.0], [0], [5], [5]]))
    np.testing.assert_allclose(found.effect, 4 / np.sqrt(5 * 4))


def test_as_scipy_has_it():
    s, x = made()
    found = trends(s, x)
    for i in range(2):
        for j in range(4):
            expected = stats.spearmanr(s[:, i], x[:, j])
            np.testing.assert_allclose(found.effect[i, j], expected.statistic)
            np.testing.assert_allclose(found.pvalue[i, j], expected.pvalue)


def test_interval_by_hand():
    # the ranks of 10 cells, of which neighbours are exchanged: r = 1 - 6 * 10 / 990
    x = np.arange(10.0).reshape(5, 2)[:, ::-1].reshape(-1, 1)
    found = trends(np.arange(10.0)[:, None], x)
    r = 1 - 60 / 990
    half = 1.959964 * np.sqrt((1 + r**2 / 2) / 7)
    np.testing.assert_allclose(found.effect, r)
    np.testing.assert_allclose(found.lower, np.tanh(np.arctanh(r) - half), rtol=1e-6)
    np.testing.assert_allclose(found.upper, np.tanh(np.arctanh(r) + half), rtol=1e-6)


def test_intervals_are_about_those_of_the_bootstrap():
    s, x = made(150)
    found = trends(s, x)
    rng = np.random.default_rng(1)
    drawn = [trends(s[i], x[i]).effect for i in rng.integers(0, 150, (600, 150))]
    half = (np.arctanh(found.upper) - np.arctanh(found.lower)) / 2
    np.testing.assert_allclose(half / stats.norm.ppf(0.975), np.arctanh(drawn).std(0), rtol=0.25)


def test_three_cells_have_no_bounds():
    found = trends(np.arange(3.0)[:, None], np.array([[1.0], [3], [2]]))
    assert (found.lower, found.upper) == (-1, 1)


def test_order_scale_and_sign():
    s, x = made()
    found, other = trends(s, x), trends(-(s[::-1] ** 3), np.exp(x[::-1]))
    np.testing.assert_allclose(other.effect, -found.effect)
    np.testing.assert_allclose(other.lower, -found.upper)
    np.testing.assert_allclose(other.pvalue, found.pvalue)


def test_constant_values_have_no_trend():
    s, x = made(50)
    x[:, 1] = 3
    found = trends(s, x)
    for part in (found.effect, found.lower, found.upper, found.pvalue):
        np.testing.assert_array_equal(np.isnan(part), [[False, True, False, False]] * 2)
    s[:, 0] = 1
    assert np.isnan(trends(s, x).effect[0]).all()


def test_perfect_trend():
    s, _ = made(30)
    found = trends(s[:, :1], np.stack([np.exp(s[:, 0]), -s[:, 0]], 1))
    for part in (found.effect, found.lower, found.upper):
        np.testing.assert_array_equal(part, [[1, -1]])
    np.testing.assert_array_equal(found.pvalue, [[0, 0]])


def test_known_share_of_variance():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(20_000, 2))
    noise = rng.normal(size=20_000)
    # 9 of 10 parts, none, and 1 + 4 of 6 parts
    x = np.stack([3 * s[:, 0] + noise, noise, s[:, 0] - 2 * s[:, 1] + noise], 1)
    np.testing.assert_allclose(variance_explained(s, x), [0.9, 0, 5 / 6], atol=0.01)


def test_share_is_adjusted_as_in_textbooks():
    s, x = made(25)
    design = np.column_stack([np.ones(25), s])
    left = np.linalg.lstsq(design, x[:, 0], rcond=None)[1][0]
    expected = 1 - (left / 22) / x[:, 0].var(ddof=1)
    np.testing.assert_allclose(variance_explained(s, x)[0], expected)


def test_turned_states_explain_as_much():
    s, x = made()
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    alike = np.full((200, 2), 0.3)
    for uncertainty in (None, alike):
        expected = variance_explained(s, x, uncertainty)
        np.testing.assert_allclose(variance_explained(s @ turn, x, uncertainty), expected)
        np.testing.assert_allclose(variance_explained(s * [1, -1], x, uncertainty), expected)
    # stretched, with the uncertainty
    stretched = variance_explained(s * [1, 5], x, alike * [1, 25])
    np.testing.assert_allclose(stretched, variance_explained(s, x, alike))


def test_what_is_uncertain_explains_less():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(50_000, 1))
    x = s + rng.normal(size=s.shape)
    # of the state that a decoder gets, half is noise
    half = variance_explained(s, x, np.ones_like(s))
    np.testing.assert_allclose(half, 0.25, atol=0.01)
    # a state that hardly moves is no state, although it is in perfect order
    np.testing.assert_allclose(variance_explained(s / 100, s, np.ones_like(s)), 0, atol=1e-3)
    np.testing.assert_allclose(trends(s / 100, s).effect, 1)


@pytest.mark.parametrize("constant", ["value", "state"])
def test_constants_explain_nothing(constant):
    s, x = made(50)
    if constant == "value":
        x[:, 1] = 2
        assert np.isnan(variance_explained(s, x)).tolist() == [False, True, False, False]
    else:
        s[:, 1] = 2
        np.testing.assert_allclose(variance_explained(s, x), variance_explained(s[:, :1], x))


def test_too_few_cells_for_the_dimensions():
    s, x = made(4)
    assert np.isnan(variance_explained(np.c_[s, s**2][:4], x[:4])).all()


@pytest.mark.parametrize("function", [trends, variance_explained])
@pytest.mark.parametrize(
    ("states", "values", "match"),
    [
        (np.ones((5, 2)), np.ones((4, 2)), "same cells"),
        (np.ones(5), np.ones((5, 2)), "same cells"),
        (np.ones((2, 2)), np.ones((2, 1)), "need 3 cells, got 2"),
        (np.ones((5, 2)), np.full((5, 1), np.nan), "NaN or infinite"),
    ],
)
def test_tables_that_are_none_are_named(function, states, values, match):
    with pytest.raises(ValueError, match=match):
        function(states, values)
