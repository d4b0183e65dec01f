"""Loss terms of MoE-Sim-VAE, one function per equation.

Equation numbers are those of Kopf et al. 2021 (PLoS Comput Biol 17(6): e1009086). Where the
printed formula has no sensible minimum, the docstring says what is computed instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from scmoe.nn._layers import choose

if TYPE_CHECKING:
    from scmoe.nn._likelihood import Likelihood

Total = Callable[[torch.Tensor], torch.Tensor]
"""Maps a sum over the cells of one device to the sum over all devices."""


def of_one_device(total: torch.Tensor) -> torch.Tensor:
    """Return the sum over the cells of a batch as it is, where one device has all of them."""
    return total


EPS = 1e-7
"""Least distance of probabilities from 0 and 1 before a logarithm."""

MIN_VARIANCE = 1e-6
"""Floor of the variance of a cluster: the logarithm of the KL term diverges at 0."""

MIN_MEMBERS = 2
"""Clusters with fewer cells in the batch have no variance, and no KL term."""


def _bernoulli(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none")


def _gaussian(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (logits - x).square()


LIKELIHOODS = {"bernoulli": _bernoulli, "gaussian": _gaussian}
"""Negative log-likelihood of each value, up to a constant, by name."""


def reconstruction(
    logits: torch.Tensor, x: torch.Tensor, likelihood: Likelihood = "bernoulli"
) -> torch.Tensor:
    """Compute the reconstruction loss of each cell, eq. 4, as the mean over features.

    Equation 4 is the binary cross-entropy, printed with the positive term alone, which
    an output of ones minimises. It is computed with both terms, as in the code of the authors.

    Parameters
    ----------
    logits
        Output of the experts, ``(n, d)``.
    x
        Input, ``(n, d)``; scaled to [0, 1] for ``"bernoulli"``.
    likelihood
        ``"bernoulli"``: cross-entropy with the sigmoid of the output. ``"gaussian"``: half
        the squared difference from the output itself, a Gaussian of unit variance.

    Returns
    -------
    One value per cell, ``(n,)``.

    Raises
    ------
    ValueError
        An unknown likelihood.
    """
    return choose(LIKELIHOODS, likelihood, "likelihood")(logits, x).mean(1)


def cluster_means(
    z: torch.Tensor, proba: torch.Tensor, total: Total = of_one_device
) -> torch.Tensor:
    """Compute the means of the clusters from codes and soft assignments, eq. 6.

    The paper divides the soft sum by a hard count, which pulls uncertain clusters towards 0;
    here both are soft. The mean of a cluster without any weight is 0.

    Parameters
    ----------
    z
        Codes, ``(n, d)``.
    proba
        Assignment probabilities, ``(n, K)``.
    total
        Sums over all devices.

    Returns
    -------
    ``(K, d)``.
    """
    weight = total(proba.sum(0))
    return total(proba.T @ z) / weight.clamp_min(EPS).unsqueeze(1)


def _kl_to_unit(variance: torch.Tensor) -> torch.Tensor:
    return 0.5 * (variance - 1 - variance.log())


def _kl_from_unit(variance: torch.Tensor) -> torch.Tensor:
    return 0.5 * (1 / variance - 1 + variance.log())


DIRECTIONS = {"released": _kl_to_unit, "paper": _kl_from_unit}
"""Divergence between the Gaussians of a variance and of variance 1, by direction."""


def cluster_kl(
    z: torch.Tensor,
    expert: torch.Tensor,
    means: torch.Tensor,
    direction: Literal["released", "paper"] = "released",
    total: Total = of_one_device,
) -> torch.Tensor:
    r"""Compute the divergence of each cluster from a Gaussian of unit variance, eqs. 2 and 3.

    With :math:`v_{kj}` the second moment of the codes of cluster k about its mean,

    .. math:: \frac{1}{K}\sum_k \frac12\sum_j \left(v_{kj} - 1 - \log v_{kj}\right)
              = \frac{1}{K}\sum_k KL\left(N(\mu_k, v_k)\,\|\,N(\mu_k, I)\right),

    the direction of the code of the authors. The printed direction is the opposite,

    .. math:: \frac{1}{K}\sum_k \frac12\sum_j \left(\frac{1}{v_{kj}} - 1 + \log v_{kj}\right)
              = \frac{1}{K}\sum_k KL\left(N(\mu_k, I)\,\|\,N(\mu_k, v_k)\right),

    which penalises narrow clusters many times more. Clusters with fewer than two cells in the
    batch count 0.

    Parameters
    ----------
    z
        Codes, ``(n, d)``.
    expert
        Hard assignment of each cell, ``(n,)`` int64.
    means
        Means of the clusters, ``(K, d)``.
    direction
        ``"released"`` or ``"paper"``.
    total
        Sums over all devices.

    Returns
    -------
    Scalar, the sum over dimensions and the mean over all K clusters.

    Raises
    ------
    ValueError
        An unknown direction.
    """
    divergence = choose(DIRECTIONS, direction, "direction")
    count = total(z.new_zeros(len(means)).index_add_(0, expert, z.new_ones(len(z))))
    squared = (z - means.index_select(0, expert)).square()
    squared = total(torch.zeros_like(means).index_add(0, expert, squared))
    spread = (squared / count.clamp_min(1).unsqueeze(1)).clamp_min(MIN_VARIANCE)
    return torch.where(count >= MIN_MEMBERS, divergence(spread).sum(1), 0.0).mean()


def posterior_kl(
    loc: torch.Tensor, log_scale: torch.Tensor, expert: torch.Tensor, means: torch.Tensor
) -> torch.Tensor:
    r"""Compute the divergence of the posterior of each cell from its cluster (learned noise).

    .. math:: \frac{1}{n}\sum_i KL\left(N(m_i, s_i^2)\,\|\,N(\mu_{k_i}, I)\right)
              = \frac{1}{n}\sum_i \frac12\sum_j
              \left(s_{ij}^2 + (m_{ij} - \mu_{k_i j})^2 - 1 - 2\log s_{ij}\right)

    It is neither in the paper nor in the code of the authors, where the noise of a code is fixed:
    it is eqs. 2 and 3 for a single cell. It is 0 where the code is the mean of its cluster and
    the noise has unit variance.

    Parameters
    ----------
    loc
        Means of the codes, ``(n, d)``.
    log_scale
        Logarithms of the standard deviations of the codes, ``(n, d)``.
    expert
        Hard assignment of each cell, ``(n,)`` int64.
    means
        Means of the clusters, ``(K, d)``.

    Returns
    -------
    Scalar, the sum over dimensions and the mean over cells.
    """
    distance = (loc - means.index_select(0, expert)).square()
    return (0.5 * (distance + torch.expm1(2 * log_scale)) - log_scale).sum(1).mean()


def pair_similarity(proba: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy between similarity and agreement of pairs of cells, eq. 7.

    The agreement of cells i and j is :math:`(PP^T)_{ij}`. The paper prints the positive term
    alone, which a single cluster minimises; here both terms are computed, over all pairs of two
    different rows (a cell is always similar to itself and teaches nothing).

    Parameters
    ----------
    proba
        Assignment probabilities, ``(..., n, K)``.
    similarity
        Target in [0, 1], ``(..., n, n)``, NaN for unknown pairs; the diagonal is ignored.

    Returns
    -------
    Scalar, the mean over known pairs; 0 if there is none.
    """
    known = ~similarity.isnan()
    known.diagonal(dim1=-2, dim2=-1).fill_(False)
    agreement = (proba @ proba.mT).clamp(EPS, 1 - EPS)
    return _known_mean(agreement, similarity, known, known.to(proba.dtype))


def in_blocks(values: torch.Tensor, size: int) -> torch.Tensor:
    """Divide rows ``(n, ...)`` into blocks ``(m, size, ...)``; first rows pad the last block."""
    missing = -len(values) % size
    if missing:
        values = torch.cat([values, values[:missing]])
    return values.unflatten(0, (-1, size))


def listed_similarity(
    proba: torch.Tensor, pairs: torch.Tensor, similarity: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Compute :func:`pair_similarity` for listed pairs, in batches too large to compare all.

    Parameters
    ----------
    proba
        Assignment probabilities, ``(n, K)``.
    pairs
        Rows of ``proba``, ``(2, m)`` int64.
    similarity
        Target in [0, 1] of each pair, ``(m,)``, NaN for unknown pairs.
    weight
        Number of pairs that each listed pair represents, ``(m,)``.

    Returns
    -------
    Scalar, the weighted mean over the known pairs; 0 if there is none.
    """
    left, right = proba.index_select(0, pairs[0]), proba.index_select(0, pairs[1])
    agreement = (left * right).sum(1).clamp(EPS, 1 - EPS)
    known = ~similarity.isnan()
    return _known_mean(agreement, similarity, known, torch.where(known, weight, 0))


def class_similarity(proba: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy between known classes and assignments, the class mode of eq. 7.

    It is not in the paper: the code of the authors runs it for the mouse organs, with marker
    genes as the classes. Class c is expert c, so the clusters carry the names of the classes.

    Parameters
    ----------
    proba
        Assignment probabilities, ``(n, K)``.
    classes
        Target in [0, 1], ``(n, C)`` with C at most K. A row with a NaN is a cell of unknown
        class. The experts beyond C have the target 0.

    Returns
    -------
    Scalar, the mean over known cells and all K experts; 0 if no cell is known.

    Raises
    ------
    ValueError
        If there are more classes than experts.
    """
    n_classes, n_experts = classes.shape[1], proba.shape[1]
    if n_classes > n_experts:
        raise ValueError(
            f"There are more classes ({n_classes}) than experts ({n_experts}); each class needs "
            "an expert of its own: raise the number of experts."
        )
    target = F.pad(classes, (0, n_experts - n_classes))
    known = ~target.isnan().any(1, keepdim=True).expand_as(target)
    return _known_mean(proba.clamp(EPS, 1 - EPS), target, known, known.to(proba.dtype))


def _known_mean(
    proba: torch.Tensor, target: torch.Tensor, known: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Return the weighted mean cross-entropy over known values; a zero with a graph for none."""
    # a NaN must not enter even with weight 0, whose gradient would be NaN
    target = torch.where(known, target, 0.0)
    # torch raises an error for probabilities of NaN; other terms of the loss are NaN then
    proba = proba.nan_to_num()
    total = F.binary_cross_entropy(proba, target, weight=weight, reduction="sum")
    amount = weight.sum()
    return total / torch.where(amount > 0, amount, 1)


def _paper_target(proba: torch.Tensor, total: Total) -> torch.Tensor:
    return _released_target(proba.detach(), total)


def _released_target(proba: torch.Tensor, total: Total) -> torch.Tensor:
    return proba / total(proba.sum(0)).clamp_min(EPS).sqrt()


def _dec_target(proba: torch.Tensor, total: Total) -> torch.Tensor:
    proba = proba.detach()
    return proba.square() / total(proba.sum(0)).clamp_min(EPS)


TARGETS = {"paper": _paper_target, "released": _released_target, "dec": _dec_target}
"""Targets of DEPICT before the rows are normalised, by name."""


def depict_target(
    proba: torch.Tensor,
    kind: Literal["paper", "released", "dec"] = "paper",
    total: Total = of_one_device,
) -> torch.Tensor:
    r"""Compute the target of DEPICT, eq. 9: assignments divided by the root of cluster size.

    With :math:`f_k = \sum_i p_{ik}`, the effect of the term alone on the assignments depends on
    the kind:

    ========== ================================ ======== ================================
    kind       :math:`q_{ik} \propto`           gradient effect
    ========== ================================ ======== ================================
    "paper"    :math:`p_{ik} / \sqrt{f_k}`      stops    clusters of equal size, as soft
                                                         as before
    "released" the same                         flows    sharp assignments, sizes kept
    "dec"      :math:`p_{ik}^2 / f_k`           stops    sharp assignments, sizes mostly
                                                         kept
    ========== ================================ ======== ================================

    The second is that of the code of the authors, the third the target of deep embedded
    clustering (DEC) and of the code of DEPICT.

    Parameters
    ----------
    proba
        Assignment probabilities of the clean pass, ``(n, K)``.
    kind
        ``"paper"``, ``"released"`` or ``"dec"``.
    total
        Sums over all devices.

    Returns
    -------
    ``(n, K)``, rows sum to 1.

    Raises
    ------
    ValueError
        An unknown kind.
    """
    scaled = choose(TARGETS, kind, "kind")(proba, total)
    return scaled / scaled.sum(1, keepdim=True)


def depict(target: torch.Tensor, noisy_logits: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy of the noisy assignments against the clean target, eq. 8.

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
