r"""Loss terms that couple the arms of cpl-mixVAE, one function per equation.

The published text of cpl-mixVAE ends before its method; these are the terms of the MMIDAS code
of the authors, in a form that stays finite. They take logarithms of probabilities, and sums over
pairs of arms are means here, so that no term depends on the number of arms.
"""

from __future__ import annotations

from typing import Literal

import torch

FLOOR = 1e-3
"""Added to probabilities before the logarithm, so that unlikely categories hardly count.

With a value near 0, as in the released code, arms that agree on a category are far apart because
of all other categories, and stay uncertain.
"""

MAX_INVERSE_DEVIATION = 5.0
"""Largest weight of a category: that of a category with share 0.04 and certain assignments.

The standard deviation of a category that is never used, or always, is 0.
"""


def log_categories(
    logits: torch.Tensor, live: torch.Tensor, sharpness: float | None = None
) -> torch.Tensor:
    r"""Compute the log-probabilities of the categories.

    Parameters
    ----------
    logits
        ``(..., K)``.
    live
        Categories that are in use, ``(K,)`` bool.
    sharpness
        None for the softmax. A number :math:`\tau` for the double softmax of the released code,
        :math:`\mathrm{softmax}(\mathrm{softmax}(l)/\tau)`, which bounds the certainty of an
        arm: the odds of two categories are at most :math:`e^{1/\tau}`.

    Returns
    -------
    ``(..., K)``; -inf for categories that are not in use.
    """
    logits = logits.masked_fill(~live, -torch.inf)
    if sharpness is not None:
        logits = (logits.softmax(-1) / sharpness).masked_fill(~live, -torch.inf)
    return logits.log_softmax(-1)


def category_entropy(log_proba: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
    """Compute the entropy of the categories of each cell in nats, ``(...)``.

    Parameters
    ----------
    log_proba
        ``(..., K)``.
    live
        Categories that are in use, ``(K,)`` bool.
    """
    logs = log_proba.masked_fill(~live, 0)
    return -(logs.exp() * logs).sum(-1)


def simplex_coordinates(
    log_proba: torch.Tensor,
    live: torch.Tensor,
    distance: Literal["scaled", "aitchison"] = "scaled",
) -> torch.Tensor:
    r"""Return coordinates of the simplex in which the distance of two arms is Euclidean.

    ``"scaled"``: :math:`\log q_{ik} / \sigma_k`, where :math:`\sigma_k` is the standard
    deviation of :math:`q_k` over the batch, so that disagreement on a category that hardly varies
    weighs more. The gradient passes through :math:`\sigma_k`. ``"aitchison"``: the centred
    log-ratio :math:`\log q_{ik} - \frac1K\sum_j \log q_{ij}`, whose distance is the Aitchison
    distance.

    Parameters
    ----------
    log_proba
        ``(..., n, K)``.
    live
        Categories that are in use, ``(K,)`` bool.
    distance
        ``"scaled"`` or ``"aitchison"``.

    Returns
    -------
    ``(..., n, K)``; 0 for categories that are not in use.
    """
    proba = log_proba.exp()
    logs = (proba + FLOOR).log().masked_fill(~live, 0)
    if distance == "aitchison":
        return (logs - logs.sum(-1, keepdim=True) / live.sum()).masked_fill(~live, 0)
    variance = proba.var(-2, correction=0, keepdim=True)
    return logs * (variance + MAX_INVERSE_DEVIATION**-2).rsqrt()


def coupling(coordinates: torch.Tensor) -> torch.Tensor:
    r"""Compute the mean squared distance of two arms.

    .. math:: \frac{2}{A(A-1)}\sum_{a<b}\frac1n\sum_i \|u_{ai} - u_{bi}\|^2

    Parameters
    ----------
    coordinates
        ``(..., A, n, K)``, A above 1; the mean is taken over all leading axes.

    Returns
    -------
    Scalar.
    """
    n_arms, n = coordinates.shape[-3:-1]
    # the sum over pairs is A times the sum of squares around the mean
    spread = (coordinates - coordinates.mean(-3, keepdim=True)).square().sum((-3, -2, -1))
    return 2 * spread.mean() / ((n_arms - 1) * n)
