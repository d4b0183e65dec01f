"""Likelihoods of cells: Gaussian markers, Bernoulli pixels and negative binomial counts."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from scmoe.nn._layers import choose_word

Likelihood = Literal["gaussian", "bernoulli"]

ArmLikelihood = Literal["gaussian", "bernoulli", "nb", "zinb"]

COUNTS = ("nb", "zinb")
"""Likelihoods of counts."""

MEMORY = 1000
"""Number of cells over which the squared errors of an expert or arm are averaged."""

MIN_NOISE = 1e-3
"""Floor of the variance left by an expert or arm, in units of the variance of the data."""

DISPERSIONS = (1e-1, 1e2)
"""Range of the initial inverse dispersions."""

MAX_DROPOUT_LOGIT = 5.0
"""Largest log-odds that a count is zero-inflated."""

START_DROPOUT_LOGIT = -2.0
"""Initial log-odds that a count is zero-inflated."""

RARE = 1e-2
"""Least initial mean of a pixel, and least initial share of a gene relative to equal shares."""


def gaussian_loss(squares: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of each value, given squared errors and variances."""
    return 0.5 * (squares / variance + variance.log() + math.log(2 * math.pi))


class Standardised(nn.Module):
    """A module that sees features with mean 0 and standard deviation 1.

    Parameters
    ----------
    n_input
        Number of features.
    likelihood
        Of the features.
    isotropic
        Whether all features share one mean and one standard deviation.
    """

    noise: torch.Tensor
    """Variance that each expert or arm leaves of each feature, ``(K, n_input)``."""

    def __init__(self, n_input: int, *, likelihood: str, isotropic: bool):
        super().__init__()
        self.likelihood, self.isotropic = likelihood, isotropic
        self.register_buffer("centre", torch.zeros(n_input))
        self.register_buffer("spread", torch.ones(n_input))

    @torch.no_grad()
    def look_at(self, scaled: torch.Tensor, *, together: bool) -> None:
        """Store the mean and standard deviation of the training cells.

        Parameters
        ----------
        scaled
            Training cells, ``(n, n_input)``.
        together
            Take one mean and standard deviation for all features, as for the pixels of images.
        """
        axis = None if together or self.isotropic else 0
        spread = scaled.std(axis, correction=0)
        self.centre.copy_(scaled.mean(axis))
        self.spread.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def standard(self, scaled: torch.Tensor) -> torch.Tensor:
        """Standardise scaled features ``(..., n_input)``."""
        return (scaled - self.centre) / self.spread

    def expected(self, output: torch.Tensor) -> torch.Tensor:
        """Map decoder outputs ``(..., n_input)`` to scaled features; not for counts."""
        if self.likelihood == "bernoulli":
            return output.sigmoid()
        return self.centre + self.spread * output

    def _update_noise(self, total: torch.Tensor, count: torch.Tensor | int) -> None:
        """Move the variances towards the squared errors of a batch.

        Parameters
        ----------
        total
            Sum of the squared errors, ``(K, n_input)``.
        count
            Number of cells in the sum, for all experts or for each, ``(K, 1)``.
        """
        self.noise.copy_(((MEMORY * self.noise + total) / (MEMORY + count)).clamp_min(MIN_NOISE))


class Observed(Standardised):
    """The inputs of A arms, and the likelihood of the cells given the outputs of their decoders.

    Parameters
    ----------
    n_arms
        A.
    n_input
        Number of features.
    likelihood
        ``"gaussian"``: each arm and feature has the variance of its recent errors (Rybkin et al.
        2021). ``"bernoulli"``: cross-entropy. ``"nb"`` and ``"zinb"``: (zero-inflated) negative
        binomials of counts with the means of scVI, that is, shares of the features by a softmax,
        times the total count of the cell, and one inverse dispersion per feature. Here these are
        means after zero inflation, so that the total of a cell is kept.
    isotropic
        Whether all features share one mean, standard deviation and variance.

    Raises
    ------
    ValueError
        An unknown likelihood.
    """

    def __init__(
        self,
        n_arms: int,
        n_input: int,
        *,
        likelihood: ArmLikelihood,
        isotropic: bool = False,
    ):
        likelihood = choose_word(ArmLikelihood, likelihood, "likelihood")
        super().__init__(n_input, likelihood=likelihood, isotropic=isotropic)
        self.n_output = 2 * n_input if likelihood == "zinb" else n_input
        if likelihood == "gaussian":
            self.register_buffer("noise", torch.ones(n_arms, n_input))
        elif likelihood in COUNTS:
            self.log_dispersion = nn.Parameter(torch.zeros(n_arms, n_input))

    @torch.no_grad()
    def look_at(
        self, scaled: torch.Tensor, *, together: bool, counts: torch.Tensor | None = None
    ) -> None:
        """Store the mean and standard deviation of the training cells.

        Parameters
        ----------
        scaled
            Training cells, ``(n, n_input)``.
        together
            Take one mean and standard deviation for all features, as for the pixels of images.
        counts
            Counts of the training cells; the inverse dispersions start at their moments.
        """
        super().look_at(scaled, together=together)
        if counts is not None:
            variance, mean = torch.var_mean(counts, 0, correction=0)
            theta = mean.square() / (variance - mean).clamp_min(1e-8)
            self.log_dispersion.copy_(
                theta.clamp(*DISPERSIONS).log().expand_as(self.log_dispersion)
            )

    @torch.no_grad()
    def typical(self, scaled: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """Return the best constant decoder output for all cells, ``(n_output,)``.

        Parameters as in :meth:`look_at`.
        """
        if self.likelihood == "gaussian":
            return scaled.new_zeros(self.n_output)
        if self.likelihood == "bernoulli":
            return scaled.mean(0).clamp(RARE, 1 - RARE).logit()
        share = counts.mean(0) / counts.mean(0).sum().clamp_min(1e-8)
        logits = share.clamp_min(RARE / len(share)).log()
        dropout = torch.full_like(logits, START_DROPOUT_LOGIT)
        return torch.cat([logits, dropout])[: self.n_output]

    def missed(
        self, output: torch.Tensor, scaled: torch.Tensor, counts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the negative log-likelihood of each cell in each arm, summed over features.

        Parameters
        ----------
        output
            Outputs of the decoders, ``(A, n, n_output)``.
        scaled
            Scaled cells, ``(n, n_input)``.
        counts
            Counts of the cells, for the likelihoods of counts.

        Returns
        -------
        ``(A, n)``.
        """
        if self.likelihood == "gaussian":
            squares = (self.standard(scaled) - output).square()
            if self.training:
                self._remember(squares.detach())
            return gaussian_loss(squares, self.noise[:, None]).sum(-1)
        if self.likelihood == "bernoulli":
            target = scaled.expand_as(output)
            return F.binary_cross_entropy_with_logits(output, target, reduction="none").sum(-1)
        return -self.distribution(output, counts.sum(-1, keepdim=True)).log_prob(counts).sum(-1)

    def distribution(self, output: torch.Tensor, total: torch.Tensor, arm: int | None = None):
        """Return the distribution of the counts of cells.

        Parameters
        ----------
        output
            Outputs of the decoders, ``(A, n, n_output)``, or of one arm, ``(n, n_output)``.
        total
            Total count of each cell, ``(n, 1)``.
        arm
            Number of the arm, for the outputs of one arm.
        """
        from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

        theta = self.log_dispersion.exp()
        theta = theta[:, None] if arm is None else theta[arm]
        if self.likelihood == "nb":
            mean = total * output.softmax(-1)
            return NegativeBinomial(mu=mean, theta=theta, validate_args=False)
        logits, dropped = output.chunk(2, -1)
        dropped = dropped.clamp_max(MAX_DROPOUT_LOGIT)
        # the means after zero inflation sum to the total count
        mu = total * logits.softmax(-1) / (-dropped).sigmoid()
        return ZeroInflatedNegativeBinomial(
            mu=mu, theta=theta, zi_logits=dropped, validate_args=False
        )

    @torch.no_grad()
    def _remember(self, squares: torch.Tensor) -> None:
        """Move the variance of each arm towards its squared errors, ``(A, n, n_input)``."""
        n = squares.shape[1]
        total = squares.sum(1)
        if self.isotropic:
            total = total.mean(1, keepdim=True).expand_as(total)
        self._update_noise(total, n)
