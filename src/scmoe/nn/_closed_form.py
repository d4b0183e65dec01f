"""Layers in closed form: principal axes, ridge regression, discriminants, a Newton step.

Each function solves for the last layer of a network whose hidden features are given. Weights are
``(n_features, n_out)`` with a bias ``(n_out,)``; the output is ``features @ weights + bias``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from scmoe.nn._likelihood import Likelihood

RIDGE = 1e-3
"""Penalty of a ridge regression, as a share of the mean variance of the features."""

SHRINKAGE = 1e-2
"""Share of a covariance that is replaced by a sphere of the same trace."""

MIN_MEAN = 1e-3
"""Least distance of a mean from 0 and 1 before its logit."""

STEPS = (1.0, 0.5, 0.25)
"""Shares of a Newton step that are tried."""

CHUNK = 2048
"""Number of cells whose outer products of features are in memory at a time."""

MANY_OUTPUTS = 128
"""Number of outputs above which all share one matrix of mean curvature, at lower cost."""


class Layer(NamedTuple):
    """Weights and bias of a dense layer."""

    weights: torch.Tensor
    """``(n_features, n_out)``."""
    bias: torch.Tensor
    """``(n_out,)``."""


def moments(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted mean ``(d,)`` and covariance ``(d, d)`` of rows ``(n, d)``."""
    share = weight / weight.sum()
    mean = share @ x
    rest = x - mean
    return mean, (rest * share[:, None]).T @ rest


def group_moments(
    x: torch.Tensor, membership: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return share ``(G,)`` and mean ``(G, d)`` of each group, and the covariance within them.

    Parameters
    ----------
    x
        ``(n, d)``.
    membership
        Share of each group, ``(n, G)``; rows sum to 1.
    weight
        Number of cells that each row represents, ``(n,)``.
    """
    of_group = membership * (weight / weight.sum())[:, None]
    share = of_group.sum(0)
    means = of_group.T @ x / share.clamp_min(1e-12)[:, None]
    centre = share @ means
    _, total = moments(x, weight)
    rest = means - centre
    return share, means, total - (rest * share[:, None]).T @ rest


def shrunk(covariance: torch.Tensor, share: float = SHRINKAGE) -> torch.Tensor:
    """Shrink a covariance towards a sphere, so that it has an inverse."""
    d = len(covariance)
    sphere = (covariance.trace() / d).clamp_min(1e-8) * torch.eye(d).to(covariance)
    return (1 - share) * covariance + share * sphere


def inverse_root(covariance: torch.Tensor) -> torch.Tensor:
    """Return the symmetric inverse square root of a covariance ``(d, d)``."""
    size, axes = torch.linalg.eigh(covariance)
    return (axes / size.clamp_min(1e-12).sqrt()) @ axes.T


def principal_axes(x: torch.Tensor, weight: torch.Tensor, n: int) -> torch.Tensor:
    """Return the leading principal axes of rows ``(n, d)`` as columns ``(d, n)``.

    The largest entry of each is positive, so the same cells give the same axes.
    """
    _, covariance = moments(x, weight)
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :n]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * torch.where(largest < 0, -1.0, 1.0).to(axes)


def ridge(
    features: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, penalty: float = RIDGE
) -> Layer:
    """Solve a weighted ridge regression for a layer.

    Parameters
    ----------
    features
        ``(n, h)``.
    target
        ``(n, d)``.
    weight
        Weight of each row, ``(n,)``.
    penalty
        Penalty on the weights, in units of the mean variance of the features.
    """
    mean, covariance = moments(features, weight)
    share = (weight / weight.sum())[:, None]
    centre = (share * target).sum(0)
    cross = (features - mean).T @ (share * (target - centre))
    size = (covariance.trace() / len(covariance)).clamp_min(1e-12)
    weights = torch.linalg.solve(
        covariance + penalty * size * torch.eye(len(covariance)).to(covariance), cross
    )
    return Layer(weights, centre - mean @ weights)


def discriminants(
    features: torch.Tensor, membership: torch.Tensor, weight: torch.Tensor, dropout: float = 0.0
) -> Layer:
    r"""Return the logits of linear discriminant analysis as a layer.

    .. math:: \log \pi_k + m_k^T S^{-1} f - \tfrac12 m_k^T S^{-1} m_k

    with the share :math:`\pi_k` and the mean :math:`m_k` of group k, and the covariance
    :math:`S` within groups. Parameters as in :func:`group_moments`; the ``dropout`` p that the
    features will have in training adds :math:`p / (1 - p) \, E[f^2]` to their variances.
    """
    share, means, within = group_moments(features, membership, weight)
    square = (weight / weight.sum()) @ features.square()
    within = within + torch.diag(dropout / (1 - dropout) * square)
    centre = share @ means
    weights = torch.linalg.solve(shrunk(within), (means - centre).T)
    middle = (means + centre) / 2
    bias = share.clamp_min(1e-12).log() - (middle * weights.T).sum(1)
    return Layer(weights, bias)


def constant(
    target: torch.Tensor, weight: torch.Tensor, n_features: int, kind: Likelihood
) -> Layer:
    """Return the best layer with constant output: the mean of the target, or its logit."""
    mean = (weight / weight.sum()) @ target
    bias = mean.clamp(MIN_MEAN, 1 - MIN_MEAN).logit() if kind == "bernoulli" else mean
    return Layer(target.new_zeros(n_features, target.shape[1]), bias)


def newton_step(
    layer: Layer,
    features: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    kind: Likelihood,
    penalty: float = 1.0,
) -> Layer:
    """Improve a layer by one Newton step of its likelihood; no output becomes worse.

    Parameters
    ----------
    layer
        The initial layer.
    features
        ``(n, h)``.
    target
        ``(n, d)``, from 0 to 1 for ``"bernoulli"``.
    weight
        Weight of each row, ``(n,)``.
    kind
        ``"bernoulli"``: cross-entropy of the sigmoid. ``"gaussian"``: half the squared error,
        whose minimum one step finds.
    penalty
        Penalty on the squared change of the weights, in numbers of cells with mean squared
        feature and mean curvature: the layer of a group of few cells changes little.

    Returns
    -------
    The layer after the best of the whole step, shares of it and no step, for each output.
    """
    ones = features.new_ones(len(features), 1)
    design = torch.cat([features, ones], 1)
    old = torch.cat([layer.weights, layer.bias[None]])
    logits = design @ old
    if kind == "bernoulli":
        proba = logits.sigmoid()
        curvature = (proba * (1 - proba)).clamp_min(1e-4)
    else:
        proba, curvature = logits, torch.ones_like(logits)
    gradient = design.T @ (weight[:, None] * (target - proba))
    hessian = _hessians(design, curvature * weight[:, None])
    size = hessian.diagonal(dim1=1, dim2=2)[:, :-1].mean(1) / weight.sum() * weight.mean()
    damping = torch.cat([torch.ones(features.shape[1]), torch.full((1,), 1e-3)]).to(features)
    hessian = hessian + torch.diag_embed(penalty * size[:, None] * damping)
    change = torch.linalg.solve(hessian, gradient.T[:, :, None])[:, :, 0].T
    moved = design @ change
    best, losses = old, _loss(logits, target, weight, kind)
    for step in STEPS:
        loss = _loss(logits + step * moved, target, weight, kind)
        better = loss < losses
        best = torch.where(better, old + step * change, best)
        losses = torch.where(better, loss, losses)
    return Layer(best[:-1], best[-1])


def _hessians(design: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """Return the Hessian of each output: weighted products of features, ``(d, h, h)``."""
    h, d = design.shape[1], curvature.shape[1]
    if d > MANY_OUTPUTS:
        share = curvature.mean(1, keepdim=True)
        common = (design * share).T @ design
        level = curvature.sum(0) / share.sum().clamp_min(1e-12)
        return level[:, None, None] * common
    total = design.new_zeros(d, h * h)
    for rows, own in zip(design.split(CHUNK), curvature.split(CHUNK), strict=True):
        total += own.T @ (rows[:, :, None] * rows[:, None]).flatten(1)
    return total.view(d, h, h)


def _loss(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, kind: Likelihood
) -> torch.Tensor:
    """Return the weighted loss of each output, ``(d,)``."""
    if kind == "bernoulli":
        return weight @ F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return weight @ (0.5 * (logits - target).square())
