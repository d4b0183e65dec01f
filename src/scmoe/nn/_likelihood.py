"""What arms say of a cell, and how badly: likelihoods of markers, pixels and counts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from scmoe.nn._autoencoders import LEAST_NOISE, MEMORY
from scmoe.nn._layers import choose

COUNTS = ("nb", "zinb")
"""Likelihoods of counts."""

DISPERSIONS = (1e-1, 1e2)
"""Range in which inverse dispersions start."""

MOST_DROPPED = 5.0
"""Largest log-odds that a count is dropped."""

FEW_DROPPED = -2.0
"""Log-odds of that to start with."""

RARE = 1e-2
"""Least mean of a pixel, and share of a gene among all alike, to start with."""

LIKELIHOODS = ("gaussian", "bernoulli", *COUNTS)


class Observed(nn.Module):
    """The cells as A arms see them and say them.

    Parameters
    ----------
    n_arms
        A.
    n_input
        Features.
    likelihood
        ``"gaussian"``, with the variance that an arm leaves of each feature, averaged over its
        last cells (Rybkin et al. 2021); ``"bernoulli"``, cross-entropy; ``"nb"`` and ``"zinb"``,
        (zero-inflated) negative binomials of counts with scVI's means: shares of the features
        by a softmax, times the total of the cell, and one inverse dispersion for each feature.
        These are means after the zero inflation here, so that the total of a cell is kept.
    isotropic
        One mean, spread and variance for all features.

    Raises
    ------
    ValueError
        For an unknown likelihood.
    """

    def __init__(self, n_arms: int, n_input: int, *, likelihood: str, isotropic: bool = False):
        super().__init__()
        self.likelihood = choose({word: word for word in LIKELIHOODS}, likelihood, "likelihood")
        self.isotropic = isotropic
        self.n_output = 2 * n_input if likelihood == "zinb" else n_input
        self.register_buffer("centre", torch.zeros(n_input))
        self.register_buffer("spread", torch.ones(n_input))
        if likelihood == "gaussian":
            self.register_buffer("noise", torch.ones(n_arms, n_input))
        elif likelihood in COUNTS:
            self.log_dispersion = nn.Parameter(torch.zeros(n_arms, n_input))

    @torch.no_grad()
    def look_at(
        self, scaled: torch.Tensor, *, together: bool, counts: torch.Tensor | None = None
    ) -> None:
        """Take mean and spread of the training cells, by which the arms see standard values.

        Parameters
        ----------
        scaled
            Training cells, ``(n, n_input)``.
        together
            One mean and spread for all features, as for the pixels of images.
        counts
            Their counts; dispersions start where the moments of all cells together have them.
        """
        axis = None if together or self.isotropic else 0
        spread = scaled.std(axis, correction=0)
        self.centre.copy_(scaled.mean(axis))
        self.spread.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))
        if counts is not None:
            variance, mean = torch.var_mean(counts, 0, correction=0)
            theta = mean.square() / (variance - mean).clamp_min(1e-8)
            self.log_dispersion.copy_(
                theta.clamp(*DISPERSIONS).log().expand_as(self.log_dispersion)
            )

    @torch.no_grad()
    def typical(self, scaled: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """What a decoder says of all cells alike at best, ``(n_output,)``, to start with.

        Parameters as of :meth:`look_at`.
        """
        if self.likelihood == "gaussian":
            return scaled.new_zeros(self.n_output)
        if self.likelihood == "bernoulli":
            return scaled.mean(0).clamp(RARE, 1 - RARE).logit()
        share = counts.mean(0) / counts.mean(0).sum().clamp_min(1e-8)
        logits = share.clamp_min(RARE / len(share)).log()
        return torch.cat([logits, torch.full_like(logits, FEW_DROPPED)])[: self.n_output]

    def standard(self, scaled: torch.Tensor) -> torch.Tensor:
        """Scaled cells ``(..., n_input)`` with mean 0 and spread 1."""
        return (scaled - self.centre) / self.spread

    def missed(
        self, output: torch.Tensor, scaled: torch.Tensor, counts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Negative log-likelihood of every cell in every arm, summed over features.

        Parameters
        ----------
        output
            Of the decoders, ``(A, n, n_output)``.
        scaled
            The cells, ``(n, n_input)``.
        counts
            Their counts, for the likelihoods of counts.

        Returns
        -------
        ``(A, n)``.
        """
        if self.likelihood == "gaussian":
            squares = (self.standard(scaled) - output).square()
            if self.training:
                self._remember(squares.detach())
            noise = self.noise[:, None]
            return 0.5 * (squares / noise + noise.log() + math.log(2 * math.pi)).sum(-1)
        if self.likelihood == "bernoulli":
            target = scaled.expand_as(output)
            return F.binary_cross_entropy_with_logits(output, target, reduction="none").sum(-1)
        return -self.distribution(output, counts.sum(-1, keepdim=True)).log_prob(counts).sum(-1)

    def distribution(self, output: torch.Tensor, total: torch.Tensor, arm: int | None = None):
        """Distribution of the counts of cells.

        Parameters
        ----------
        output
            Of the decoders, ``(A, n, n_output)``, or of one arm, ``(n, n_output)``.
        total
            Counts of each cell, ``(n, 1)``.
        arm
            Which arm, where it is one.
        """
        from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

        theta = self.log_dispersion.exp()
        theta = theta[:, None] if arm is None else theta[arm]
        if self.likelihood == "nb":
            mean = total * output.softmax(-1)
            return NegativeBinomial(mu=mean, theta=theta, validate_args=False)
        logits, dropped = output.chunk(2, -1)
        dropped = dropped.clamp_max(MOST_DROPPED)
        # what is left after the dropout adds up to the total
        mu = total * logits.softmax(-1) / (-dropped).sigmoid()
        return ZeroInflatedNegativeBinomial(
            mu=mu, theta=theta, zi_logits=dropped, validate_args=False
        )

    def expected(self, output: torch.Tensor) -> torch.Tensor:
        """The scaled features ``(..., n_input)`` that outputs stand for; not of counts."""
        if self.likelihood == "bernoulli":
            return output.sigmoid()
        return self.centre + self.spread * output

    @torch.no_grad()
    def _remember(self, squares: torch.Tensor) -> None:
        """Move the variance of each arm towards its squared errors."""
        n = squares.shape[1]
        left = squares.sum(1)
        if self.isotropic:
            left = left.mean(1, keepdim=True).expand_as(left)
        self.noise.copy_(((MEMORY * self.noise + left) / (MEMORY + n)).clamp_min(LEAST_NOISE))
