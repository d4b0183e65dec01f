"""Trends of values along a state: rank correlations with intervals, and explained variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence level of the intervals."""

MIN_CELLS = 3
"""Least number of cells of a correlation."""

ROUNDING = 1e-12
"""Rounding error of a perfect correlation."""


@dataclass(frozen=True)
class Trends:
    """Correlations of values with each dimension of a state, all ``(n_state, n_values)``.

    NaN where either is constant.
    """

    effect: np.ndarray
    """Spearman's rank correlation; ties have their mean rank."""
    lower: np.ndarray
    upper: np.ndarray
    """Bounds of the 95 % confidence interval."""
    pvalue: np.ndarray
    """Two-sided p-value; the null hypothesis is independence."""


def trends(states: np.ndarray, values: np.ndarray) -> Trends:
    r"""Compute Spearman's rank correlation of values with each dimension of a state.

    The 95 % interval is symmetric on Fisher's scale, :math:`z = \operatorname{artanh}(r)`, with
    the standard error :math:`\sqrt{(1 + r^2/2) / (n - 3)}` of Bonett and Wright. The p-value is
    that of :func:`scipy.stats.spearmanr`, whose null hypothesis is independence.

    Parameters
    ----------
    states
        ``(n, n_state)``.
    values
        ``(n, n_values)``.

    Raises
    ------
    ValueError
        If the arrays are not tables of the same cells, hold NaN or infinite values, or have
        fewer than 3 cells.

    References
    ----------
    Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations", Psychometrika 65, 23-28 (2000).
    """
    states, values = _checked(states, values)
    n = len(states)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = _standard_ranks(states).T @ _standard_ranks(values) / n
        perfect = np.abs(effect) > 1 - ROUNDING
        effect[perfect] = np.sign(effect[perfect])
        error = np.sqrt((1 + np.square(effect) / 2) / (n - 3))
        width = stats.norm.ppf((1 + LEVEL) / 2) * error
        lower, upper = (np.tanh(np.arctanh(effect) + sign * width) for sign in (-1, 1))
        t = np.abs(effect) * np.sqrt((n - 2) / (1 - np.square(effect)))
    # a perfect correlation has no width
    lower, upper = np.where(perfect, effect, lower), np.where(perfect, effect, upper)
    return Trends(effect, lower, upper, 2 * stats.t.sf(t, n - 2))


def _standard_ranks(x: np.ndarray) -> np.ndarray:
    """Rank each column and standardise the ranks; NaN for a constant column."""
    ranks = stats.rankdata(x, axis=0) - (len(x) + 1) / 2
    return ranks / ranks.std(axis=0)


def _checked(states: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both arrays as float64; ValueError where correlations are not defined."""
    states, values = np.asarray(states, dtype=float), np.asarray(values, dtype=float)
    if states.ndim != 2 or values.ndim != 2 or len(states) != len(values):
        raise ValueError(
            "`states` and `values` must be tables of the same cells, got the shapes "
            f"{states.shape} and {values.shape}."
        )
    if len(states) < MIN_CELLS:
        raise ValueError(f"Correlations need {MIN_CELLS} cells, got {len(states)}.")
    if not (np.isfinite(states).all() and np.isfinite(values).all()):
        raise ValueError("`states` or `values` hold NaN or infinite values.")
    return states, values


def variance_explained(
    states: np.ndarray, values: np.ndarray, uncertainty: np.ndarray | None = None
) -> np.ndarray:
    """Compute the share of the variance of values that is linear in a state (adjusted R²).

    It is invariant to invertible linear maps of the state, and adjusted for the number of
    dimensions, so that it is 0 on average without dependence.

    Parameters
    ----------
    states
        ``(n, n_state)``.
    values
        ``(n, n_values)``.
    uncertainty
        Posterior variance of the state of each cell, ``(n, n_state)``: a decoder sees states with
        this noise, so the explained variance shrinks, to 0 in dimensions of noise alone.

    Returns
    -------
    ``(n_values,)``, at most 1; NaN for constant values, or too few cells.

    Raises
    ------
    ValueError
        As in :func:`trends`.
    """
    states, values = _checked(states, values)
    n = len(states)
    states, values = states - states.mean(0), values - values.mean(0)
    signal = states.T @ states / (n - 1)
    total = signal if uncertainty is None else signal + np.diag(uncertainty.mean(0))
    precision = np.linalg.pinv(total, hermitian=True)
    shared = states.T @ values / (n - 1)
    constant = np.ptp(values, axis=0) == 0
    variance = np.where(constant, np.nan, np.square(values).sum(0) / (n - 1))
    share = (shared * (precision @ shared)).sum(0) / variance
    # effective degrees of freedom, as in a ridge regression
    left = n - 1 - np.trace(precision @ signal)
    return 1 - (1 - share) * (n - 1) / left if left > 0 else np.full_like(share, np.nan)
