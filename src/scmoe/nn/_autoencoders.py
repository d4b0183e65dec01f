"""K variational autoencoders (VAEs) and the distance of each cell from its reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn

from scmoe.nn._conv_vaes import ConvVAEs
from scmoe.nn._experts import Experts, check_latent_sizes
from scmoe.nn._layers import choose_word
from scmoe.nn._likelihood import Likelihood, Standardised, gaussian_loss
from scmoe.nn._losses_mixture import gaussian_kl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scmoe.nn._layers import Activation

KLScale = Literal["elbo", "normalized"]

LOG_VARIANCES = (-12.0, 8.0)
"""Range of the log-variances of codes: an exponential beyond it would end a training."""


def own_dimensions(n_latents: Sequence[int]) -> torch.Tensor:
    """Return which of ``max(n_latents)`` columns belong to each expert, ``(K, max d_k)`` bool."""
    return torch.arange(max(n_latents)) < torch.tensor(n_latents).unsqueeze(1)


class DenseVAEs(nn.Module):
    """K dense VAEs as one module (the experts of Santos, section III.A).

    The weights of a layer of all experts are one tensor, and each cell passes through its own
    expert only; see :class:`Experts`. Experts with small latent spaces leave the last columns of
    a code empty.

    Parameters
    ----------
    n_input
        Number of features.
    n_latents
        Latent size of each expert, d_k; K is their number.
    n_hidden, n_layers
        Units and number of the hidden layers of each encoder, and of each decoder.
    activation
        ``"elu"`` or ``"relu"``.

    Raises
    ------
    ValueError
        An unknown activation, or a latent size below 1.
    """

    def __init__(
        self,
        n_input: int,
        n_latents: Sequence[int],
        *,
        n_hidden: int,
        n_layers: int,
        activation: Activation = "elu",
    ):
        super().__init__()
        self.n_latents = check_latent_sizes(n_latents)
        self.n_experts, widest = len(self.n_latents), max(self.n_latents)
        shape = {"n_layers": n_layers, "activation": activation}
        self.encoders = Experts(self.n_experts, n_input, n_hidden, 2 * widest, **shape)
        self.decoders = Experts(self.n_experts, widest, n_hidden, n_input, **shape)
        self.register_buffer("own", own_dimensions(self.n_latents), persistent=False)

    def encode(self, x: torch.Tensor, expert: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode each cell ``(n, n_input)`` by its expert.

        Returns
        -------
        Means and log-variances of the codes, both ``(n, max d_k)``; 0 in the columns beyond the
        latent size of the expert.
        """
        loc, log_var = self.encoders(x, expert).chunk(2, dim=1)
        own = self.own[expert]
        return loc.masked_fill(~own, 0), log_var.masked_fill(~own, 0)

    def decode(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Decode each code ``(n, max d_k)`` by its expert, to ``(n, n_input)``."""
        return self.decoders(z.masked_fill(~self.own[expert], 0), expert)

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: expert ``order[i]`` becomes expert ``i``."""
        self.n_latents = tuple(self.n_latents[k] for k in order.tolist())
        for experts in (self.encoders, self.decoders):
            for tensor in (*experts.weights, *experts.biases):
                tensor.copy_(tensor[order])
        self.own.copy_(self.own[order])


class Autoencoders(Standardised):
    r"""K variational autoencoders and the distance :math:`d(x, \hat x_k)` of Santos' eq. 3.

    With one expert it is a plain VAE.

    Parameters
    ----------
    n_input
        Number of features, on a scale where nearly all values lie between 0 and 1.
    n_latents
        Latent size of each expert, d_k.
    image_shape
        Shape of an image for convolutional networks; None for dense networks.
    n_hidden, n_layers, activation
        Of the dense layers, see :class:`DenseVAEs`.
    width
        Filters of the first block of convolutions, see :class:`ConvVAEs`.
    likelihood
        ``"bernoulli"``, cross-entropy, or ``"gaussian"``. The variance of the Gaussian is that of
        the recent errors of the expert in each feature (Rybkin et al. 2021, the calibrated
        decoder): a fixed variance would decide how many dimensions are worth their KL.
    kl
        ``"elbo"``: log-likelihood and KL are summed and divided by the number of features, so
        the distance is a bound on a likelihood and experts of different d_k are comparable.
        ``"normalized"``, as in the text of Santos: the mean of the KL over the d_k dimensions,
        which weighs features / d_k times as much and switches many dimensions off.
    isotropic
        One variance, mean and standard deviation for all features: principal components are
        independent, and their variances say which of them carry information.

    Raises
    ------
    ValueError
        Unknown words, or a latent size below 1.
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
        activation: Activation,
        likelihood: Likelihood,
        kl: KLScale = "elbo",
        isotropic: bool = False,
    ):
        likelihood = choose_word(Likelihood, likelihood, "likelihood")
        super().__init__(n_input, likelihood=likelihood, isotropic=isotropic)
        if image_shape is None:
            self.vaes = DenseVAEs(
                n_input, n_latents, n_hidden=n_hidden, n_layers=n_layers, activation=activation
            )
        else:
            self.vaes = ConvVAEs(image_shape, n_latents, width=width, activation=activation)
        self.n_input = n_input
        self.n_experts = self.vaes.n_experts
        self.kl = choose_word(KLScale, kl, "kl")
        self.register_buffer("sizes", torch.tensor(self.vaes.n_latents), persistent=False)
        self.register_buffer("noise", torch.ones(self.n_experts, n_input))

    @property
    def n_latents(self) -> tuple[int, ...]:
        """Return the latent size of each expert."""
        return self.vaes.n_latents

    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: expert ``order[i]`` becomes expert ``i``."""
        self.vaes.reorder(order)
        for tensor in (self.sizes, self.noise):
            tensor.copy_(tensor[order])

    def encode(
        self, scaled: torch.Tensor, expert: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode each scaled cell ``(n, n_input)`` by its expert.

        Returns
        -------
        Means and log-variances of the codes, both ``(n, max d_k)``; 0 in the columns beyond the
        latent size of the expert.
        """
        loc, log_var = self.vaes.encode(self.standard(scaled), expert)
        return loc, log_var.clamp(*LOG_VARIANCES)

    def decode(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Decode each code ``(n, max d_k)`` by its expert, to scaled features ``(n, n_input)``."""
        return self.expected(self.vaes.decode(z, expert))

    def distance(
        self,
        scaled: torch.Tensor,
        expert: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the distance of each cell from its reconstruction, and the parts of it.

        In training, codes are drawn from their posteriors; otherwise they are the means.

        Parameters
        ----------
        scaled
            Scaled cells, ``(n, n_input)``.
        expert
            Expert of each cell, ``(n,)`` int64.
        weight
            Weight of each cell in the variance that the expert leaves; 1 if None.

        Returns
        -------
        ``distance`` (n,), its parts ``reconstruction`` (n,), the mean over features, and ``kl``
        (n,), and ``loc`` (n, max d_k), the means of the codes.
        """
        loc, log_var = self.encode(scaled, expert)
        # columns beyond the latent size of an expert are drawn too, and its decoder ignores them
        z = loc + torch.randn_like(loc) * (log_var / 2).exp() if self.training else loc
        output = self.vaes.decode(z, expert)
        if self.likelihood == "bernoulli":
            missed = F.binary_cross_entropy_with_logits(output, scaled, reduction="none")
        else:
            squares = (self.standard(scaled) - output).square()
            if self.training:
                left = squares.detach()
                if self.isotropic:
                    left = left.mean(1, keepdim=True).expand_as(left)
                self._remember(left, expert, weight)
            missed = gaussian_loss(squares, self.noise[expert])
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
        self._update_noise(total, count)

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the loss of the plain VAE, with one expert for all cells, and its terms."""
        expert = torch.zeros(len(batch["x"]), dtype=torch.int64, device=batch["x"].device)
        parts = self.distance(batch["x"], expert)
        return {
            "loss": parts["distance"].mean(),
            "reconstruction": parts["reconstruction"].mean(),
            "kl": parts["kl"].mean(),
        }
