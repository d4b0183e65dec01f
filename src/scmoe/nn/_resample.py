"""Copies of cells out of a trained VAE: drawn from its posterior, or by a step that is learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from scmoe._core.settings import is_number
from scmoe.nn._mlp import MLP

if TYPE_CHECKING:
    from scmoe.nn._autoencoders import Autoencoders

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Of the kernels by which copies are compared with cells, in mean squared distances."""

SAMPLE = 10_000
"""Cells by which the distance of two random ones is measured."""

TINY = 1e-8
"""Cells that are all the same are 0 apart."""


def _check_amount(name: str, amount: float) -> None:
    """Raise ValueError for what is no finite number from 0 on."""
    if not (is_number(amount) and 0 <= amount < math.inf):
        raise ValueError(f"`{name}` is {amount!r}; it must be a number from 0 on.")


class _Decoded(nn.Module):
    """A plain VAE that is trained already, and what makes cells of its codes.

    Parameters
    ----------
    network
        One expert; it is not trained any further.
    x
        The cells, ``(n_obs, d)``: copies stay in the range of each feature.
    noise
        Share of the deviation that the VAE leaves of a feature which is drawn anew.
    """

    def __init__(self, network: Autoencoders, x: torch.Tensor, *, noise: float):
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.noise = noise
        self.register_buffer("low", x.min(0).values)
        self.register_buffer("high", x.max(0).values)

    def train(self, mode: bool = True) -> _Decoded:
        """Only what is here learns: the VAE stays as it is."""
        super().train(mode)
        self.network.eval()
        return self

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and deviations of the codes of cells."""
        loc, log_var = self.network.encode(x, self._expert(x))
        return loc, (log_var / 2).exp()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """What codes stand for, without noise."""
        return self.network.decode(z, self._expert(z))

    def add_noise(self, decoded: torch.Tensor) -> torch.Tensor:
        """Draw what the VAE leaves unexplained; images get none, it would be grain."""
        if self.network.likelihood == "bernoulli" or not self.noise:
            return decoded
        left = self.network.noise[0].sqrt() * self.network.spread
        return decoded + self.noise * left * torch.randn_like(decoded)

    def _expert(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(rows), dtype=torch.int64, device=rows.device)

    def _come(self, x: torch.Tensor) -> None:
        """Move to where the cells are."""
        if self.low.device != x.device:
            self.to(x.device)


class PosteriorAugment(_Decoded):
    """Draws every cell anew, from what a VAE believes of it.

    A code is drawn from :math:`q(z | x)` and decoded, and what the VAE could not explain is
    drawn too. Such noise has no memory of the cell: two copies share what the code says, and
    nothing else.

    Parameters
    ----------
    network
        A trained VAE of one expert, on the scale of the cells.
    x
        All cells, ``(n_obs, d)``: copies stay in the range of each feature.
    variance
        Factor on the variance of the posterior.
    noise
        Factor on the deviation of the noise; nothing to add under a Bernoulli likelihood. With
        both 0 copies are reconstructions.

    Raises
    ------
    ValueError
        For factors below 0.
    """

    def __init__(
        self, network: Autoencoders, x: torch.Tensor, *, variance: float = 1.0, noise: float = 1.0
    ):
        self.check(variance=variance, noise=noise)
        super().__init__(network, x, noise=noise)
        self.variance = variance

    @staticmethod
    def check(*, variance: float, noise: float) -> None:
        """Raise ValueError for factors below 0, also before there is a network."""
        _check_amount("variance", variance)
        _check_amount("noise", noise)

    @torch.no_grad()
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Draw the cells of a batch.

        Parameters
        ----------
        x
            Cells, ``(n, d)``, on any device.
        index
            Not used.

        Returns
        -------
        ``(n, d)``, drawn from torch's global generator.
        """
        self._come(x)
        loc, deviation = self.encode(x)
        z = loc + math.sqrt(self.variance) * deviation * torch.randn_like(loc)
        return self.add_noise(self.decode(z)).clamp(self.low, self.high)


class LearnedAugment(_Decoded):
    r"""Takes a step from the code of a cell that a network has learned to take.

    The network sees the code of a cell and a vector of noise, and gives a step in units of the
    posterior's deviation. Its loss has three terms, without any cut to 0 and 1, so that the
    branch of the noise learns with the rest.

    *As far as told*: with :math:`\bar x` the decoded code of a cell and :math:`x', x''` two of
    its copies, :math:`|d(x', \bar x) / m - 1| + [1 - d(x', x'') / 2m]_+`, where d is the mean
    squared distance of features, 1 for the reconstructions of two random cells. Without the
    second part the network would always take the same step; independent ones are 2 m apart.

    *Like cells*: the squared maximum mean discrepancy of copies and cells of a batch.

    *The same cell*: :math:`d_z(x', x) / (d_z(x', x) + d_z(x', y))`, with the squared distance of
    the codes and y another cell of the batch.

    Parameters
    ----------
    network, x, noise
        As in :class:`PosteriorAugment`.
    margin
        m. What a copy differs from the reconstruction of its cell, as a share of what two random
        cells do.
    n_noise
        Size of the vector of noise.
    n_hidden
        Units of the two hidden layers.

    Raises
    ------
    ValueError
        For a margin that is not above 0, and a factor below 0.

    References
    ----------
    That a copy must be further from its cell than the reconstruction is by a margin is what the
    augmenter of cpl-mixVAE (MMIDAS) asks; the other terms are simpler than there.
    """

    def __init__(
        self,
        network: Autoencoders,
        x: torch.Tensor,
        *,
        margin: float = 0.03,
        noise: float = 1.0,
        n_noise: int = 10,
        n_hidden: int = 64,
    ):
        self.check(margin=margin, noise=noise)
        super().__init__(network, x, noise=noise)
        self.margin = margin
        self.n_noise = n_noise
        n_latent = network.n_latents[0]
        self.step = MLP(n_latent + n_noise, n_hidden, n_latent, n_layers=2)
        with torch.no_grad():
            some = x[:: math.ceil(len(x) / SAMPLE)]
            decoded = self._standard(self.decode(self.encode(some)[0]))
        # of two random rows the squared distance is twice the variance, feature by feature
        self.register_buffer("unit", (2 * decoded.var(0).mean()).clamp_min(TINY))

    @staticmethod
    def check(*, margin: float, noise: float) -> None:
        """Raise ValueError for amounts out of range, also before there is a network."""
        if not (is_number(margin) and 0 < margin < math.inf):
            raise ValueError(f"`margin` is {margin!r}; it must be a number above 0.")
        _check_amount("noise", noise)

    def _standard(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.network.centre) / self.network.spread

    def copy(
        self, loc: torch.Tensor, deviation: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """Decoded steps from codes ``(n, n_latent)`` by noise ``(n, n_noise)``."""
        return self.decode(loc + deviation * self.step(torch.cat([loc, noise], 1)))

    def _draw(self, loc: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(len(loc), self.n_noise, device=loc.device)
        return self.copy(loc, deviation, noise.to(loc))

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of rows, two random reconstructions being 1 apart, ``(n,)``."""
        return (self._standard(a) - self._standard(b)).square().mean(1) / self.unit

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Terms of the loss of a batch ``{"x": (n, d)}``, and their sum."""
        x = batch["x"]
        loc, deviation = self.encode(x)
        first, second = (self._draw(loc, deviation) for _ in range(2))
        missed = (self.distance(first, self.decode(loc)) / self.margin - 1).abs()
        alike = (1 - self.distance(first, second) / (2 * self.margin)).relu()
        copies = self.add_noise(first)
        code = self.encode(first)[0]
        own = (code - loc).square().sum(1)
        other = (code - loc.roll(1, 0)).square().sum(1)
        terms = {
            "margin": (missed + alike).mean(),
            "mmd": squared_mmd(self._standard(copies), self._standard(x)),
            "identity": (own / (own + other).clamp_min(TINY)).mean(),
        }
        return {"loss": sum(terms.values()), **terms}

    @torch.no_grad()
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Copy the cells of a batch; parameters and result as of :class:`PosteriorAugment`."""
        self._come(x)
        return self.add_noise(self._draw(*self.encode(x))).clamp(self.low, self.high)


def squared_mmd(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared maximum mean discrepancy of rows that belong to each other.

    A mean over Gaussian kernels of several bandwidths. No row is compared with itself, nor with
    the one that it is a copy of: the estimate of Gretton et al. (2012), lemma 6, equation 4,
    0 on average for rows of one distribution.

    Parameters
    ----------
    x, y
        ``(n, d)`` each, n at least 2.
    """
    n = len(x)
    rows = torch.cat([x, y])
    # not cdist: it would take the root of squares that are 0, which has no gradient
    squares = rows.square().sum(1)
    apart = (squares[:, None] + squares - 2 * rows @ rows.T).clamp_min(0)
    width = apart.detach().mean()
    kernel = torch.stack([(-apart / (b * width)).exp() for b in BANDWIDTHS]).mean(0)
    others = 1 - torch.eye(n, device=x.device, dtype=x.dtype)
    xx, yy, xy = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    return ((xx + yy - 2 * xy) * others).sum() / (n * (n - 1))
