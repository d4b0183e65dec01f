r"""How arms are made to agree on the category of a cell, one function an equation.

The published text of cpl-mixVAE ends before its method; these are the terms of the authors'
MMIDAS code, in a form that stays finite. All of them take logarithms of probabilities, and sums
over pairs of arms are means here, so that nothing depends on the number of arms.
"""

from __future__ import annotations

import torch

FLOOR = 1e-3
"""Probabilities count as this much more: what is less likely is no matter of dispute.

With next to nothing, as released, arms that are sure of a category are far apart for what they
say of all the others, and stay unsure of everything.
"""

MAX_INVERSE_DEVIATION = 5.0
"""Largest weight of a category, that of one with a share of 0.04 of which the arms are sure.

Of one that is never used, or always, the deviation is 0.
"""


def log_categories(
    logits: torch.Tensor, live: torch.Tensor, sharpness: float | None = None
) -> torch.Tensor:
    r"""Log-probabilities of the categories.

    Parameters
    ----------
    logits
        ``(..., K)``.
    live
        Categories that are in use, ``(K,)`` bool.
    sharpness
        None for the softmax. A number :math:`\tau` for that of the released code,
        :math:`\mathrm{softmax}(\mathrm{softmax}(l)/\tau)`, which bounds how sure an arm can
        be: the odds of two categories are :math:`e^{1/\tau}` at most.

    Returns
    -------
    ``(..., K)``; -inf for categories that are not in use.
    """
    logits = logits.masked_fill(~live, -torch.inf)
    if sharpness is not None:
        logits = (logits.softmax(-1) / sharpness).masked_fill(~live, -torch.inf)
    return logits.log_softmax(-1)


def category_entropy(log_proba: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
    """Entropy of every cell's categories in nats, ``(...)``.

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
    log_proba: torch.Tensor, live: torch.Tensor, distance: str = "scaled"
) -> torch.Tensor:
    r"""Coordinates in which the distance of two arms is Euclidean.

    ``"scaled"``: :math:`\log q_{ik} / \sigma_k`, where :math:`\sigma_k` is the deviation of
    :math:`q_k` over the batch, so that a category that hardly ever changes must be agreed upon
    all the more. The gradient passes through it. ``"aitchison"``: the centred log-ratio
    :math:`\log q_{ik} - \frac1K\sum_j \log q_{ij}`, whose distance is the Aitchison distance.

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
    r"""Mean squared distance of two arms.

    .. math:: \frac{2}{A(A-1)}\sum_{a<b}\frac1n\sum_i \|u_{ai} - u_{bi}\|^2

    Parameters
    ----------
    coordinates
        ``(..., A, n, K)``, A above 1; the mean is taken over what stands before.

    Returns
    -------
    Scalar.
    """
    n_arms, n = coordinates.shape[-3:-1]
    # the sum over pairs is A times the sum of squares about the mean
    spread = (coordinates - coordinates.mean(-3, keepdim=True)).square().sum((-3, -2, -1))
    return 2 * spread.mean() / ((n_arms - 1) * n)
