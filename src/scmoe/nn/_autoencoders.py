"""K variational autoencoders (VAEs) and the distance of each cell from its reconstruction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from scmoe.nn._conv_vaes import ConvVAEs
from scmoe.nn._experts import Experts, check_latent_sizes
from scmoe.nn._layers import choose
from scmoe.nn._losses_mixture import gaussian_kl

if TYPE_CHECKING:
    from collections.abc import Sequence


def own_dimensions(n_latents: Sequence[int]) -> torch.Tensor:
    """Which of the ``max(n_latents)`` columns are an expert's own, ``(K, max d_k)`` bool."""
    return torch.arange(max(n_latents)) < torch.tensor(n_latents).unsqueeze(1)


class DenseVAEs(nn.Module):
    """K encoders and decoders as one module (the experts of Santos, section III.A).

    The weights of a layer of all experts are one tensor, and each cell passes through its own
    expert only; see :class:`Experts`. Experts with small latent spaces leave the last columns of
    a code empty.

    Parameters
    ----------
    n_input
        Features.
    n_latents
        Latent size of each expert, d_k; K is their number.
    n_hidden, n_layers
        Units and number of the hidden layers of each encoder, and of each decoder.
    activation
        One of ``"elu"``, ``"relu"``.

    Raises
    ------
    ValueError
        For an unknown activation, and unless every latent size is at least 1.
    """

    def __init__(
        self,
        n_input: int,
        n_latents: Sequence[int],
        *,
        n_hidden: int,
        n_layers: int,
        activation: str = "elu",
    ):
        super().__init__()
        self.n_latents = check_latent_sizes(n_latents)
        self.n_experts, widest = len(self.n_latents), max(self.n_latents)
        shape = {"n_layers": n_layers, "activation": activation}
        self.encoders = Experts(self.n_experts, n_input, n_hidden, 2 * widest, **shape)
        self.decoders = Experts(self.n_experts, widest, n_hidden, n_input, **shape)
        self.register_buffer("own", own_dimensions(self.n_latents), persistent=False)

    def encode(self, x: torch.Tensor, expert: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of the code of each cell ``(n, n_input)`` in its expert.

        Both ``(n, max d_k)``; 0 in the columns that the expert has not.
        """
        loc, log_var = self.encoders(x, expert).chunk(2, dim=1)
        own = self.own[expert]
        return loc.masked_fill(~own, 0), log_var.masked_fill(~own, 0)

    def decode(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Codes ``(n, max d_k)`` through their experts, ``(n, n_input)``."""
        return self.decoders(z.masked_fill(~self.own[expert], 0), expert)

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        self.n_latents = tuple(self.n_latents[k] for k in order.tolist())
        for experts in (self.encoders, self.decoders):
            for tensor in (*experts.weights, *experts.biases):
                tensor.copy_(tensor[order])
        self.own.copy_(self.own[order])


MEMORY = 1000
"""Cells of an expert over which its errors are averaged."""

LEAST_NOISE = 1e-3
"""Floor of the variance that an expert may leave, in units of the variance of the data."""

LOG_VARIANCES = (-12.0, 8.0)
"""Range of the log-variances of codes: an exponential beyond it would end a training."""

KL_SCALES = ("elbo", "normalized")
"""What the KL term of a cell is divided by: features, or dimensions."""

LIKELIHOODS = ("bernoulli", "gaussian")
"""How the error of a feature is measured."""


class Autoencoders(nn.Module):
    r"""K variational autoencoders and the distance :math:`d(x, \hat x_k)` of Santos' eq. 3.

    One expert makes it a plain VAE.

    Parameters
    ----------
    n_input
        Features, on a scale where nearly all values lie from 0 to 1.
    n_latents
        Latent size of each expert, d_k.
    image_shape
        Shape of an image for convolutions, None for dense layers.
    n_hidden, n_layers, activation
        Of the dense layers, see :class:`DenseVAEs`.
    width
        Filters of the first block of convolutions, see :class:`ConvVAEs`.
    likelihood
        ``"bernoulli"``, cross-entropy, or ``"gaussian"``. The variance of the Gaussian is what
        the expert leaves of each feature, averaged over its last cells (Rybkin et al. 2021, the
        calibrated decoder): a fixed one would decide how many dimensions are worth their KL.
    kl
        ``"elbo"``: log-likelihood and KL are summed and divided by the number of features, so
        the distance is a bound on a likelihood and experts of different d_k can be compared.
        ``"normalized"``, as Santos words it: the mean of the KL over the d_k dimensions, which
        counts features / d_k times as much and switches many dimensions off.
    isotropic
        One variance, and one mean and spread, for all features: principal components are
        independent, and it is their spread that says which of them carry anything.

    Raises
    ------
    ValueError
        For unknown words, and latent sizes below 1.
    """

    def __init__(
        self,
        n_input: int,
        n_latents: Sequence[int],
        *,
        image_shape: tuple[int, ...] | None,
        n_hidden: int,
        n_layers: int,
        width: int | None,
        activation: str,
        likelihood: str,
        kl: str = "elbo",
        isotropic: bool = False,
    ):
        super().__init__()
        if image_shape is None:
            self.vaes = DenseVAEs(
                n_input, n_latents, n_hidden=n_hidden, n_layers=n_layers, activation=activation
            )
        else:
            self.vaes = ConvVAEs(image_shape, n_latents, width=width, activation=activation)
        self.n_input = n_input
        self.isotropic = isotropic
        self.n_experts = self.vaes.n_experts
        self.likelihood = choose({word: word for word in LIKELIHOODS}, likelihood, "likelihood")
        self.kl = choose({word: word for word in KL_SCALES}, kl, "kl")
        self.register_buffer("sizes", torch.tensor(self.vaes.n_latents), persistent=False)
        self.register_buffer("centre", torch.zeros(n_input))
        self.register_buffer("spread", torch.ones(n_input))
        self.register_buffer("noise", torch.ones(self.n_experts, n_input))

    @property
    def n_latents(self) -> tuple[int, ...]:
        """Latent size of each expert."""
        return self.vaes.n_latents

    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        self.vaes.reorder(order)
        for tensor in (self.sizes, self.noise):
            tensor.copy_(tensor[order])

    @torch.no_grad()
    def look_at(self, scaled: torch.Tensor, *, together: bool) -> None:
        """Take mean and spread of the training cells, by which the networks see standard values.

        Parameters
        ----------
        scaled
            Training cells, ``(n, n_input)``.
        together
            One mean and spread for all features, as for the pixels of images.
        """
        axis = None if together or self.isotropic else 0
        spread = scaled.std(axis, correction=0)
        self.centre.copy_(scaled.mean(axis))
        self.spread.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def encode(
        self, scaled: torch.Tensor, expert: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of codes, ``(n, max d_k)``; 0 where an expert has no column."""
        loc, log_var = self.vaes.encode((scaled - self.centre) / self.spread, expert)
        return loc, log_var.clamp(*LOG_VARIANCES)

    def decode(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """The scaled features that codes ``(n, max d_k)`` stand for, ``(n, n_input)``."""
        output = self.vaes.decode(z, expert)
        if self.likelihood == "bernoulli":
            return output.sigmoid()
        return self.centre + self.spread * output

    def distance(
        self,
        scaled: torch.Tensor,
        expert: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """How badly an expert explains each cell: its error and the price of the code.

        In training codes are drawn; outside of it they are the means.

        Parameters
        ----------
        scaled
            ``(n, n_input)``.
        expert
            Which expert, ``(n,)`` int64.
        weight
            How much a cell counts for what the expert is known to leave; 1 if None.

        Returns
        -------
        ``distance`` (n,), its parts ``reconstruction`` (n,), the mean over features, and ``kl``
        (n,), and ``loc`` (n, max d_k).
        """
        loc, log_var = self.encode(scaled, expert)
        # columns that an expert has not are drawn too, and ignored by its decoder
        z = loc + torch.randn_like(loc) * (log_var / 2).exp() if self.training else loc
        output = self.vaes.decode(z, expert)
        if self.likelihood == "bernoulli":
            missed = F.binary_cross_entropy_with_logits(output, scaled, reduction="none")
        else:
            squares = ((scaled - self.centre) / self.spread - output).square()
            if self.training:
                left = squares.detach()
                if self.isotropic:
                    left = left.mean(1, keepdim=True).expand_as(left)
                self._remember(left, expert, weight)
            noise = self.noise[expert]
            missed = 0.5 * (squares / noise + noise.log() + math.log(2 * math.pi))
        reconstruction = missed.mean(1)
        if self.kl == "elbo":
            kl = gaussian_kl(loc, log_var) / self.n_input
        else:
            kl = gaussian_kl(loc, log_var, self.sizes[expert])
        return {
            "distance": reconstruction + kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "loc": loc,
        }

    @torch.no_grad()
    def _remember(
        self, squares: torch.Tensor, expert: torch.Tensor, weight: torch.Tensor | None
    ) -> None:
        """Move the variance of each expert towards the squared errors of its cells."""
        weight = squares.new_ones(len(squares)) if weight is None else weight.detach()
        total = torch.zeros_like(self.noise).index_add_(0, expert, weight[:, None] * squares)
        count = self.noise.new_zeros(self.n_experts).index_add_(0, expert, weight)[:, None]
        self.noise.copy_(((MEMORY * self.noise + total) / (MEMORY + count)).clamp_min(LEAST_NOISE))

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Of the plain VAE, one expert for all cells."""
        expert = torch.zeros(len(batch["x"]), dtype=torch.int64, device=batch["x"].device)
        parts = self.distance(batch["x"], expert)
        return {
            "loss": parts["distance"].mean(),
            "reconstruction": parts["reconstruction"].mean(),
            "kl": parts["kl"].mean(),
        }
