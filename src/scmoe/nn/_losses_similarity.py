"""The loss terms of MoE-Sim-VAE, one function an equation.

Equation numbers are those of Kopf et al. 2021 (PLoS Comput Biol 17(6): e1009086). Where the
printed formula cannot be minimised sensibly, the docstring says what is computed instead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from scmoe.nn._layers import choose

Total = Callable[[torch.Tensor], torch.Tensor]
"""From a sum over the cells of one device to the sum over those of all devices."""


def of_one_device(total: torch.Tensor) -> torch.Tensor:
    """The sum over all cells of a batch where one device has all of them."""
    return total


EPS = 1e-7
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""

MIN_VARIANCE = 1e-6
"""Floor of a cluster's variance: the logarithm of the KL term diverges at 0."""

MIN_MEMBERS = 2
"""Clusters with fewer cells in the batch have no spread, and no KL term."""


def _bernoulli(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none")


def _gaussian(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (logits - x).square()


LIKELIHOODS = {"bernoulli": _bernoulli, "gaussian": _gaussian}
"""Negative log-likelihood of each value, up to a constant, by name."""


def reconstruction(
    logits: torch.Tensor, x: torch.Tensor, likelihood: str = "bernoulli"
) -> torch.Tensor:
    """How badly the reconstruction fits the input, eq. 4, as the mean over features.

    Equation 4 is the binary cross-entropy, printed with the positive term alone, which
    all-ones output minimises. It is computed with both terms, as in the authors' code.

    Parameters
    ----------
    logits
        Output of the experts, ``(n, d)``.
    x
        Input, ``(n, d)``; scaled to [0, 1] for ``"bernoulli"``.
    likelihood
        ``"bernoulli"``: cross-entropy with the sigmoid of the output. ``"gaussian"``: half
        the squared difference from the output itself, a Gaussian of unit spread.

    Returns
    -------
    One value per cell, ``(n,)``.

    Raises
    ------
    ValueError
        For an unknown likelihood.
    """
    return choose(LIKELIHOODS, likelihood, "likelihood")(logits, x).mean(1)


def cluster_means(
    z: torch.Tensor, proba: torch.Tensor, total: Total = of_one_device
) -> torch.Tensor:
    """Means of the clusters from codes and soft assignments, eq. 6.

    The paper divides the soft sum by a hard count, which pulls uncertain clusters towards 0;
    here both are soft. A cluster without any weight gets 0.

    Parameters
    ----------
    z
        Codes, ``(n, d)``.
    proba
        Assignment probabilities, ``(n, K)``.
    total
        Sums over devices.

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
"""Divergence between a variance and 1, in either direction, by name."""


def cluster_kl(
    z: torch.Tensor,
    expert: torch.Tensor,
    means: torch.Tensor,
    direction: str = "released",
    total: Total = of_one_device,
) -> torch.Tensor:
    r"""Divergence of every cluster's spread from the unit Gaussian, eqs. 2 and 3.

    With :math:`v_{kj}` the second moment of the codes of cluster k about its mean,

    .. math:: \frac{1}{K}\sum_k \frac12\sum_j \left(v_{kj} - 1 - \log v_{kj}\right)
              = \frac{1}{K}\sum_k KL\left(N(\mu_k, v_k)\,\|\,N(\mu_k, I)\right),

    the direction of the authors' code. The printed one is the opposite,

    .. math:: \frac{1}{K}\sum_k \frac12\sum_j \left(\frac{1}{v_{kj}} - 1 + \log v_{kj}\right)
              = \frac{1}{K}\sum_k KL\left(N(\mu_k, I)\,\|\,N(\mu_k, v_k)\right),

    which punishes narrow clusters many times harder. Clusters with fewer than two cells in
    the batch count 0.

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
        Sums over devices.

    Returns
    -------
    Scalar, the sum over dimensions and the mean over all K clusters.

    Raises
    ------
    ValueError
        For an unknown direction.
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
    r"""Divergence of every cell's code distribution from its cluster, for a learned noise.

    .. math:: \frac{1}{n}\sum_i KL\left(N(m_i, s_i^2)\,\|\,N(\mu_{k_i}, I)\right)
              = \frac{1}{n}\sum_i \frac12\sum_j
              \left(s_{ij}^2 + (m_{ij} - \mu_{k_i j})^2 - 1 - 2\log s_{ij}\right)

    Neither in the paper nor in the authors' code, where the noise of a code is fixed: it is
    what eqs. 2 and 3 become for a single cell. It is 0 where the code is its cluster's mean
    and the noise has unit spread.

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
    """Cross-entropy between the user's similarity and the agreement of two cells, eq. 7.

    The agreement of cells i and j is :math:`(PP^T)_{ij}`. Printed with the positive term
    alone, which one single cluster minimises; computed with both terms, over all pairs of
    two different rows (a cell is always similar to itself and teaches nothing).

    Parameters
    ----------
    proba
        Assignment probabilities, ``(..., n, K)``.
    similarity
        Target in [0, 1], ``(..., n, n)``, NaN for pairs that nothing is known of; the diagonal
        is not looked at.

    Returns
    -------
    Scalar, the mean over known pairs; 0 if there is none.
    """
    known = ~similarity.isnan()
    known.diagonal(dim1=-2, dim2=-1).fill_(False)
    agreement = (proba @ proba.mT).clamp(EPS, 1 - EPS)
    return _known_mean(agreement, similarity, known, known.to(proba.dtype))


def in_blocks(values: torch.Tensor, size: int) -> torch.Tensor:
    """Rows ``(n, ...)`` in blocks ``(m, size, ...)``; the first rows fill up the last block."""
    missing = -len(values) % size
    if missing:
        values = torch.cat([values, values[:missing]])
    return values.unflatten(0, (-1, size))


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
        Target in [0, 1] of each pair, ``(m,)``, NaN for pairs that nothing is known of.
    weight
        How many pairs each listed one stands for, ``(m,)``.

    Returns
    -------
    Scalar, the weighted mean over the known ones among the listed pairs; 0 if there is none.
    """
    left, right = proba.index_select(0, pairs[0]), proba.index_select(0, pairs[1])
    agreement = (left * right).sum(1).clamp(EPS, 1 - EPS)
    known = ~similarity.isnan()
    return _known_mean(agreement, similarity, known, torch.where(known, weight, 0))


def class_similarity(proba: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between known classes and the assignments, the class mode of eq. 7.

    Not printed: it is what the authors' code runs for the mouse organs, with marker genes as
    the classes. Class c is expert c, so the clusters carry the names of the classes.

    Parameters
    ----------
    proba
        Assignment probabilities, ``(n, K)``.
    classes
        Target in [0, 1], ``(n, C)`` with C at most K. A row with a NaN is a cell that nothing
        is known of. The experts beyond C have the target 0.

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
    """Weighted mean of the cross-entropy over what is known; 0, with a graph, for nothing."""
    # a NaN must not enter even with weight 0, whose gradient would be NaN
    target = torch.where(known, target, 0.0)
    # probabilities of NaN make the other terms NaN, where torch would stop here
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
"""Targets of DEPICT before the rows are made to sum to 1, by name."""


def depict_target(
    proba: torch.Tensor, kind: str = "paper", total: Total = of_one_device
) -> torch.Tensor:
    r"""Auxiliary distribution of DEPICT, eq. 9: assignments divided by the root of cluster size.

    With :math:`f_k = \sum_i p_{ik}`, what the term does if nothing else acts on the
    assignments depends on the kind:

    ========== ================================ ======== ================================
    kind       :math:`q_{ik} \propto`           gradient what it leads to
    ========== ================================ ======== ================================
    "paper"    :math:`p_{ik} / \sqrt{f_k}`      stops    clusters of equal size, as soft
                                                         as they were
    "released" the same                         flows    sharp assignments, sizes kept
    "dec"      :math:`p_{ik}^2 / f_k`           stops    sharp assignments, sizes mostly
                                                         kept
    ========== ================================ ======== ================================

    The second is what the authors' code does, the third is the target of deep embedded
    clustering and of DEPICT's own code.

    Parameters
    ----------
    proba
        Assignment probabilities of the clean pass, ``(n, K)``.
    kind
        ``"paper"``, ``"released"`` or ``"dec"``.
    total
        Sums over devices.

    Returns
    -------
    ``(n, K)``, rows sum to 1.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    scaled = choose(TARGETS, kind, "kind")(proba, total)
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
