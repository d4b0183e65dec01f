"""What moves with a state: rank correlations with their intervals, and shares of variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Of the intervals."""

LEAST_CELLS = 3

ROUNDING = 1e-12
"""A correlation that misses 1 by so little is perfect."""


@dataclass(frozen=True)
class Trends:
    """How values move with each dimension of a state, all ``(n_state, n_values)``.

    NaN for what is constant.
    """

    effect: np.ndarray
    """Spearman's rank correlation, ties have their mean rank."""
    lower: np.ndarray
    upper: np.ndarray
    """Ends of the 95 % interval."""
    pvalue: np.ndarray
    """Of no dependence at all, two-sided."""


def trends(states: np.ndarray, values: np.ndarray) -> Trends:
    r"""Rank correlation of values with each dimension of a state.

    The interval is what a bootstrap over the cells comes to when there are many (the
    infinitesimal jackknife): with :math:`\psi_i` the influence of cell i on the correlation,
    its variance is :math:`\sum_i \psi_i^2 / n(n-1)`, and the interval is symmetric on Fisher's
    scale. A cell has influence by its own ranks and by those that it gives to the others, which
    the second and third term of a product :math:`U V` of ranks are:

    .. math:: U_i V_i - c + (E[k(x_i, X)\, V] - c) + (E[U\, k(y_i, Y)] - c),

    where :math:`k(s, t)` is 1 for s < t, 1/2 for s = t, and c the mean product. The p-value is
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
        Arrays that are no tables of the same cells, values that are NaN or infinite, fewer than
        3 cells.
    """
    states, values = _checked(states, values)
    n = len(states)
    of_states, of_values = _Ranked(states), _Ranked(values)
    effect = np.empty((states.shape[1], values.shape[1]))
    error = np.empty_like(effect)
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in range(states.shape[1]):
            v, u = of_states.ranks[:, [i]], of_values.ranks
            product = (u * v).mean(0)
            spread = of_values.variance, of_states.variance[i]
            scale = np.sqrt(spread[0] * spread[1])
            effect[i] = (product - 0.25) / scale
            perfect = np.abs(effect[i]) > 1 - ROUNDING
            effect[i, perfect] = np.sign(effect[i, perfect])
            influence = u * v + of_values.below(v) + of_states.below(u, i) - 3 * product
            scales = of_values.influence / spread[0] + of_states.influence[:, [i]] / spread[1]
            influence = influence / scale - effect[i] / 2 * scales
            error[i] = np.sqrt(np.square(influence).sum(0) / (n * (n - 1)))
        lower, upper = _interval(effect, error)
        t = np.abs(effect) * np.sqrt((n - 2) / (1 - np.square(effect)))
    return Trends(effect, lower, upper, 2 * stats.t.sf(t, n - 2))


def _checked(states: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    states, values = np.asarray(states, dtype=float), np.asarray(values, dtype=float)
    if states.ndim != 2 or values.ndim != 2 or len(states) != len(values):
        raise ValueError(
            "`states` and `values` must be tables of the same cells, got the shapes "
            f"{states.shape} and {values.shape}."
        )
    if len(states) < LEAST_CELLS:
        raise ValueError(f"Correlations need {LEAST_CELLS} cells, got {len(states)}.")
    if not (np.isfinite(states).all() and np.isfinite(values).all()):
        raise ValueError("`states` or `values` hold NaN or infinite values.")
    return states, values


class _Ranked:
    """Columns by their ranks, divided by the number of cells; their mean is 1/2.

    Constant columns have a variance of NaN.
    """

    def __init__(self, x: np.ndarray):
        self.order = np.argsort(x, axis=0, kind="stable")
        self.first = stats.rankdata(x, "min", axis=0).astype(np.intp)
        self.last = stats.rankdata(x, "max", axis=0).astype(np.intp)
        self.ranks = (self.first + self.last - 1) / (2 * len(x))
        square = np.square(self.ranks).mean(0)
        self.variance = np.where(np.ptp(x, axis=0) > 0, square - 0.25, np.nan)
        self.influence = np.square(self.ranks) + 2 * self.below(self.ranks) - 3 * square

    def below(self, weights: np.ndarray, column: int | None = None) -> np.ndarray:
        """Mean over the cells of k(own value, theirs) times their weights.

        In all columns, or in one for each column of the weights.
        """
        columns = slice(None) if column is None else [column]
        order, first, last = (a[:, columns] for a in (self.order, self.first, self.last))
        weights = np.broadcast_to(weights, np.broadcast_shapes(weights.shape, order.shape))
        ordered = np.take_along_axis(weights, order, 0)
        sums = np.concatenate([np.zeros((1, weights.shape[1])), ordered.cumsum(0)])
        taken = np.take_along_axis(sums, first - 1, 0) + np.take_along_axis(sums, last, 0)
        return (sums[-1] - taken / 2) / len(order)


def _interval(effect: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends on Fisher's scale; a perfect correlation has no width."""
    width = stats.norm.ppf((1 + LEVEL) / 2) * error / (1 - np.square(effect))
    perfect = np.abs(effect) == 1
    lower, upper = (np.tanh(np.arctanh(effect) + sign * width) for sign in (-1, 1))
    return np.where(perfect, effect, lower), np.where(perfect, effect, upper)


def variance_explained(
    states: np.ndarray, values: np.ndarray, uncertainty: np.ndarray | None = None
) -> np.ndarray:
    """Share of the variance of values that a straight line in all dimensions of a state explains.

    It is the same for states that are turned, mirrored or stretched, and adjusted for the number
    of dimensions, so that it is 0 on average where there is nothing.

    Parameters
    ----------
    states
        ``(n, n_state)``.
    values
        ``(n, n_values)``.
    uncertainty
        Variances of each cell's state, ``(n, n_state)``: a decoder sees states with this much
        noise, so what is explained shrinks, to nothing in dimensions that are noise alone.

    Returns
    -------
    ``(n_values,)``, at most 1; NaN for values that are constant, or fewer cells than are needed.

    Raises
    ------
    ValueError
        As :func:`trends`.
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
    # the dimensions that count, as those of a ridge regression do
    left = n - 1 - np.trace(precision @ signal)
    return 1 - (1 - share) * (n - 1) / left if left > 0 else np.full_like(share, np.nan)
