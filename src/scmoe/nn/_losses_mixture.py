r"""Loss terms of mixtures of autoencoders, one function per equation.

Equation numbers are those of Santos' mixture of VAEs. Its loss is eq. 6,
:math:`L = R + \alpha S + \beta B`, of :func:`weighted_distance`, :func:`sample_entropy` and
:func:`batch_entropy`. Two related methods are here for comparison: DAMIC (Chazan et al. 2019)
and the weights of MIXAE (Zhang et al. 2017).
"""

from __future__ import annotations

import torch

MIN_ENTROPY = 1e-3
"""Floor of entropies, in nats, where they are divisors."""


def gaussian_kl(
    loc: torch.Tensor, log_var: torch.Tensor, n_latents: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Compute the divergence of the posterior of each code from the standard normal.

    .. math:: KL\left(N(m_i, v_i)\,\|\,N(0, I)\right)
              = \frac12\sum_j \left(m_{ij}^2 + v_{ij} - 1 - \log v_{ij}\right)

    The normalised KL of eq. 3 is its mean over dimensions: experts have different latent sizes,
    and the competition must not favour small ones. Columns that are 0 in both inputs add nothing,
    so shorter codes may be padded with zeros.

    Parameters
    ----------
    loc
        Means of the codes, ``(n, d)``.
    log_var
        Logarithms of the variances of the codes, ``(n, d)``.
    n_latents
        Latent size of each row, ``(n,)``, for the mean over its dimensions; None for the sum.

    Returns
    -------
    One value per row, ``(n,)``.
    """
    total = 0.5 * (loc.square() + torch.expm1(log_var) - log_var).sum(1)
    return total if n_latents is None else total / n_latents


def weighted_distance(proba: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    r"""Compute the distances from the reconstructions, weighted by responsibility, eq. 3.

    .. math:: R = \frac{1}{n}\sum_i\sum_k p_{ik}\, d_{ik}

    Parameters
    ----------
    proba
        Assignment probabilities, ``(n, K)``.
    distance
        Distance of each cell from its reconstruction by each expert, ``(n, K)``.

    Returns
    -------
    Scalar.
    """
    return (proba * distance).sum(1).mean()


def sample_entropy(logits: torch.Tensor) -> torch.Tensor:
    r"""Compute the mean entropy of the assignments of single cells, eq. 4.

    .. math:: S = -\frac{1}{n}\sum_i\sum_k p_{ik}\log p_{ik}

    Parameters
    ----------
    logits
        Output of the manager before the softmax, ``(n, K)``.

    Returns
    -------
    Scalar, from 0 for one-hot assignments to log K for uniform ones.
    """
    log_proba = logits.log_softmax(1)
    return -(log_proba.exp() * log_proba).sum(1).mean()


def batch_entropy(proba: torch.Tensor, prior: torch.Tensor | None = None) -> torch.Tensor:
    r"""Compute the negative entropy of the mean assignments of the batch, eq. 5.

    .. math:: B = \sum_k \bar p_k\log \bar p_k, \qquad \bar p_k = \frac{1}{n}\sum_i p_{ik}

    Equation 5 assumes clusters of equal size. With a prior it is the divergence
    :math:`\sum_k \bar p_k\log(\bar p_k / q_k)` instead, which is least where the shares of
    the batch equal the prior; for the uniform prior it is eq. 5 plus the constant log K.

    Parameters
    ----------
    proba
        Assignment probabilities, ``(n, K)``.
    prior
        Shares of the clusters, ``(K,)``, all above 0, with a sum of 1.

    Returns
    -------
    Scalar: from -log K for equal shares to 0 for a batch in one cluster; with a prior, at least
    0.
    """
    mean = proba.mean(0)
    # an empty cluster adds 0, and its gradient must stay finite
    log_ratio = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
    if prior is not None:
        log_ratio = log_ratio - prior.log()
    return (mean * log_ratio).sum()


def damic(log_proba: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    r"""Compute the likelihood of the mixture in place of eq. 6 (DAMIC, Chazan et al. 2019).

    .. math:: L = -\frac{1}{n}\sum_i\log\sum_k p_{ik}\exp(-d_{ik})

    The gradient of an expert is weighted by its posterior responsibility, given its
    reconstruction of the cell, not by the assignment of the manager alone.

    Parameters
    ----------
    log_proba
        Logarithms of the assignment probabilities, ``(n, K)``.
    distance
        Distance of each cell from its reconstruction by each expert, ``(n, K)``.

    Returns
    -------
    Scalar, never above :func:`weighted_distance`.
    """
    return -torch.logsumexp(log_proba - distance, 1).mean()


def mixae_weights(
    distance_term: torch.Tensor, sample_term: torch.Tensor, batch_term: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Compute the weights of eq. 6 that make its terms equally large in a batch.

    .. math:: \alpha = |R| / S, \qquad \beta = (|R| + \alpha S) / |B|

    This follows a public implementation of MIXAE (Zhang et al. 2017), which also divides
    :math:`\alpha` by the number of experts. Entropies have the floor ``MIN_ENTROPY``, so that
    both weights stay finite. R may be negative, as the negative logarithm of a density; the
    weights are not.

    Parameters
    ----------
    distance_term, sample_term, batch_term
        R, S and B, scalars.

    Returns
    -------
    :math:`\alpha` and :math:`\beta`, scalars without gradient.
    """
    distance_term, sample_term = distance_term.detach().abs(), sample_term.detach()
    alpha = distance_term / sample_term.clamp_min(MIN_ENTROPY)
    total = distance_term + alpha * sample_term
    return alpha, total / batch_term.detach().abs().clamp_min(MIN_ENTROPY)
