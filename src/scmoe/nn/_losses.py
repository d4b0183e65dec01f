"""The loss terms of MoE-Sim-VAE, one function an equation.

Equation numbers are those of Kopf et al. 2021 (PLoS Comput Biol 17(6): e1009086). Where the
printed formula cannot be minimised sensibly, the docstring says what is computed instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

EPS = 1e-7
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""

MIN_VARIANCE = 1e-6
"""Floor of a cluster's variance: the logarithm of the KL term diverges at 0."""

MIN_MEMBERS = 2
"""Clusters with fewer cells in the batch have no spread, and no KL term."""


def reconstruction(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy between input and reconstruction, eq. 4.

    Printed with the positive term alone, which all-ones output minimises; computed with both
    terms, as the authors' code does, as the mean over features.

    Parameters
    ----------
    logits
        Output of the experts before the sigmoid, ``(n, d)``.
    x
        Input scaled to [0, 1], ``(n, d)``.

    Returns
    -------
    One value per cell, ``(n,)``.
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").mean(1)


def cluster_means(z: torch.Tensor, proba: torch.Tensor) -> torch.Tensor:
    """Means of the clusters from codes and soft assignments, eq. 6.

    The paper divides the soft sum by a hard count, which pulls uncertain clusters towards 0;
    here both are soft. A cluster without any weight gets 0.

    Parameters
    ----------
    z
        Codes, ``(n, d)``.
    proba
        Assignment probabilities, ``(n, K)``.

    Returns
    -------
    ``(K, d)``.
    """
    weight = proba.sum(0)
    return proba.T @ z / weight.clamp_min(EPS).unsqueeze(1)


def cluster_kl(z: torch.Tensor, expert: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    r"""Divergence of every cluster's spread from the unit Gaussian, eqs. 2 and 3.

    With :math:`v_{kj}` the second moment of the codes of cluster k about its mean,

    .. math:: \frac{1}{K}\sum_k \frac12\sum_j \left(v_{kj} - 1 - \log v_{kj}\right)
              = \frac{1}{K}\sum_k KL\left(N(\mu_k, v_k)\,\|\,N(\mu_k, I)\right),

    the direction of the authors' code (the print has the other one). Clusters with fewer
    than two cells in the batch count 0.

    Parameters
    ----------
    z
        Codes, ``(n, d)``.
    expert
        Hard assignment of each cell, ``(n,)`` int64.
    means
        Means of the clusters, ``(K, d)``.

    Returns
    -------
    Scalar, the mean over all K clusters.
    """
    count = torch.bincount(expert, minlength=len(means)).to(z.dtype)
    squared = (z - means.index_select(0, expert)).square()
    total = torch.zeros_like(means).index_add(0, expert, squared)
    spread = (total / count.clamp_min(1).unsqueeze(1)).clamp_min(MIN_VARIANCE)
    divergence = 0.5 * (spread - 1 - spread.log()).sum(1)
    return torch.where(count >= MIN_MEMBERS, divergence, 0.0).mean()


def pair_similarity(proba: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between the user's similarity and the agreement of two cells, eq. 7.

    The agreement of cells i and j is :math:`(PP^T)_{ij}`. Printed with the positive term
    alone, which one single cluster minimises; computed with both terms, over all pairs of
    two different rows (a cell is always similar to itself and teaches nothing).

    Parameters
    ----------
    proba
        Assignment probabilities, ``(n, K)``.
    similarity
        Target in [0, 1], ``(n, n)``; the diagonal is not looked at.

    Returns
    -------
    Scalar, the mean over pairs.
    """
    n = len(proba)
    agreement = (proba @ proba.T).clamp(EPS, 1 - EPS)
    loss = F.binary_cross_entropy(agreement, similarity, reduction="none")
    return (loss.sum() - loss.diagonal().sum()) / max(n * (n - 1), 1)


def listed_similarity(
    proba: torch.Tensor, pairs: torch.Tensor, similarity: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """:func:`pair_similarity` for listed pairs, for batches too large to compare all.

    Parameters
    ----------
    proba
        Assignment probabilities, ``(n, K)``.
    pairs
        Rows of ``proba``, ``(2, m)`` int64.
    similarity
        Target in [0, 1] of each pair, ``(m,)``.
    weight
        How many pairs each listed one stands for, ``(m,)``.

    Returns
    -------
    Scalar, the weighted mean over the listed pairs.
    """
    left, right = proba.index_select(0, pairs[0]), proba.index_select(0, pairs[1])
    agreement = (left * right).sum(1).clamp(EPS, 1 - EPS)
    loss = F.binary_cross_entropy(agreement, similarity, reduction="none")
    return (weight * loss).sum() / weight.sum()


def depict_target(proba: torch.Tensor) -> torch.Tensor:
    """Auxiliary distribution of DEPICT, eq. 9: assignments divided by the root of cluster size.

    It is a target: no gradient flows through it.

    Parameters
    ----------
    proba
        Assignment probabilities of the clean pass, ``(n, K)``.

    Returns
    -------
    ``(n, K)``, rows sum to 1.
    """
    proba = proba.detach()
    scaled = proba / proba.sum(0).clamp_min(EPS).sqrt()
    return scaled / scaled.sum(1, keepdim=True)


def depict(target: torch.Tensor, noisy_logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the noisy assignments against the clean target, eq. 8.

    Parameters
    ----------
    target
        :func:`depict_target` of the clean pass, ``(n, K)``.
    noisy_logits
        Logits of the pass with dropout, ``(n, K)``.

    Returns
    -------
    Scalar, the mean over cells.
    """
    return F.cross_entropy(noisy_logits, target)
