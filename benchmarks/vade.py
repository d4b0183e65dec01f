r"""VaDE (Jiang et al. 2017), the baseline that clusters and generates with one decoder.

A code z is drawn from a mixture of Gaussians, an image from the code:

.. math:: c \sim Cat(\pi), \quad z | c \sim N(u_c, diag(\lambda_c)), \quad x | z \sim Ber(f(z)).

Written anew from the paper. Without a pretrained autoencoder and a start from a Gaussian mixture
all images end in one cluster; both are part of :meth:`VaDE.fit`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn import functional as F

from benchmarks.autoencoder import HIDDEN, PREDICT_BATCH, Autoencoder, batches, silent
from scmoe._core.random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOG_VARIANCE_START = -2.0
"""Of the codes, before VaDE is trained: the codes of a plain autoencoder are points."""

LEAST_VARIANCE = 1e-3
"""Of the components at the start; a unit of the code that is always 0 has none."""

PROPOSALS = 8192
"""Codes that are proposed at a time."""


def log_responsibilities(
    z: torch.Tensor, logits: torch.Tensor, means: torch.Tensor, log_variances: torch.Tensor
) -> torch.Tensor:
    r"""Return the logarithm of :math:`\gamma_c = p(c | z) \propto \pi_c N(z; u_c, \lambda_c)`.

    Parameters
    ----------
    z
        Codes, ``(n, d)``.
    logits
        Of the weights of the components, ``(K,)``.
    means, log_variances
        Of the components, ``(K, d)``.

    Returns
    -------
    ``(n, K)``. A log-softmax, which does not underflow far from all components.
    """
    squared = (z[:, None] - means).square() / log_variances.exp()
    # log 2 pi is the same for all components
    return F.log_softmax(F.log_softmax(logits, 0) - 0.5 * (squared + log_variances).sum(2), 1)


def prior_divergence(
    mean: torch.Tensor,
    log_variance: torch.Tensor,
    log_gamma: torch.Tensor,
    logits: torch.Tensor,
    means: torch.Tensor,
    log_variances: torch.Tensor,
) -> torch.Tensor:
    r"""Return the KL of :math:`q(z, c | x) = N(z; m, v)\, \gamma_c` to the prior :math:`p(z, c)`.

    .. math::
        \frac12 \sum_c \gamma_c \sum_j \left[\log \lambda_{cj}
            + \frac{v_j + (m_j - u_{cj})^2}{\lambda_{cj}}\right]
        - \frac12 \sum_j (1 + \log v_j)
        - \sum_c \gamma_c \log \pi_c + \sum_c \gamma_c \log \gamma_c

    Parameters
    ----------
    mean, log_variance
        m and log v, ``(n, d)``.
    log_gamma
        ``(n, K)``.
    logits, means, log_variances
        As in :func:`log_responsibilities`.

    Returns
    -------
    ``(n,)``.
    """
    squared = log_variance.exp()[:, None] + (mean[:, None] - means).square()
    component = 0.5 * (log_variances + squared / log_variances.exp()).sum(2)
    gamma = log_gamma.exp()
    weight = log_gamma - F.log_softmax(logits, 0)
    return (gamma * (component + weight)).sum(1) - 0.5 * (1 + log_variance).sum(1)


class VaDE(nn.Module):
    """Variational deep embedding.

    Parameters
    ----------
    n_features
        Pixels of an image, D.
    n_clusters
        Components, K.
    n_latent
        Units of the code, d.
    hidden
        Units of the hidden layers of the encoder; the decoder is its mirror.

    Attributes
    ----------
    decoder_calls
        Images that the decoder has drawn in :meth:`sample`.
    """

    def __init__(
        self,
        n_features: int,
        n_clusters: int = 10,
        n_latent: int = 10,
        hidden: Sequence[int] = HIDDEN,
    ):
        super().__init__()
        # the autoencoder's code becomes the mean, and its decoder is VaDE's
        self.autoencoder = Autoencoder(n_features, n_latent, hidden, binary=True)
        self.log_variance = nn.Linear(hidden[-1], n_latent)
        self.logits = nn.Parameter(torch.zeros(n_clusters))
        self.means = nn.Parameter(torch.randn(n_clusters, n_latent))
        self.log_variances = nn.Parameter(torch.zeros(n_clusters, n_latent))
        self.decoder_calls = 0

    @property
    def prior(self) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
        """Return the logits of the weights, means and log-variances of the components."""
        return self.logits, self.means, self.log_variances

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.logits.device

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of the codes, ``(n, d)`` each."""
        encoder = self.autoencoder.encoder
        h = encoder[:-1](x)
        return encoder[-1](h), self.log_variance(h)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Return the negative ELBO of each image, ``(n,)``, with one sample of the code."""
        mean, log_variance = self.encode(x)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        output = self.autoencoder.decoder(z)
        reconstruction = F.binary_cross_entropy_with_logits(output, x, reduction="none").sum(1)
        log_gamma = log_responsibilities(z, *self.prior)
        return reconstruction + prior_divergence(mean, log_variance, log_gamma, *self.prior)

    def fit(
        self,
        x: np.ndarray,
        seed: int,
        pretrain_epochs: int = 50,
        epochs: int = 300,
        *,
        batch_size: int = 100,
        lr: float = 2e-3,
        lr_prior: float = 2e-3,
        decay: float = 0.9,
        decay_epochs: int = 10,
        least_lr: float = 2e-4,
        restarts: int = 10,
        say: Callable[[str], None] = silent,
    ) -> None:
        """Pretrain the autoencoder, start the mixture from its codes, train all.

        Parameters
        ----------
        x
            ``(n, n_features)`` float32 between 0 and 1.
        seed
            Of weights, batches and noise.
        pretrain_epochs, epochs
            Of the autoencoder and of VaDE; the authors train VaDE for 3,000.
        lr, lr_prior
            Learning rates of the networks and of the mixture; both are multiplied by ``decay``
            every ``decay_epochs`` epochs, not below ``least_lr``.
        restarts
            Of the Gaussian mixture that the components start from; the likeliest is taken.

        Raises
        ------
        ValueError
            Values that are not between 0 and 1.
        """
        x = np.asarray(x, dtype=np.float32)
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError("VaDE's images are values between 0 and 1; divide by 255?")
        with seeded(seed):
            for layer in self.autoencoder.modules():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
            nn.init.zeros_(self.log_variance.weight)
            nn.init.constant_(self.log_variance.bias, LOG_VARIANCE_START)
        self.autoencoder.fit(x, seed, pretrain_epochs, say=say)
        self._start(self.autoencoder.encode(x), seed, restarts)
        rates = [lr, lr_prior]
        networks = [*self.autoencoder.parameters(), *self.log_variance.parameters()]
        optimizer = torch.optim.Adam(
            [{"params": networks}, {"params": list(self.prior)}], eps=1e-4
        )
        data = torch.as_tensor(x, device=self.device)
        with seeded(seed):
            for epoch in range(epochs):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = max(rate * decay ** (epoch // decay_epochs), least_lr)
                total, steps = 0.0, 0
                for index in batches(len(data), batch_size, self.device):
                    loss = self.loss(data[index]).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total, steps = total + loss.item(), steps + 1
                say(f"VaDE, epoch {epoch + 1}: {total / steps:.3f}")

    @torch.no_grad()
    def _start(self, codes: np.ndarray, seed: int, restarts: int) -> None:
        """Start from the diagonal Gaussian mixture of the codes of the autoencoder."""
        mixture = GaussianMixture(
            len(self.logits),
            covariance_type="diag",
            n_init=restarts,
            reg_covar=LEAST_VARIANCE,
            max_iter=200,
            random_state=seed,
        ).fit(np.asarray(codes, dtype=np.float64))
        self.logits.copy_(torch.from_numpy(np.log(mixture.weights_)))
        self.means.copy_(torch.from_numpy(mixture.means_))
        self.log_variances.copy_(torch.from_numpy(np.log(mixture.covariances_)))

    @torch.inference_mode()
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the most probable component of the mean code of each image, ``(n,)`` int64."""
        parts = torch.as_tensor(np.asarray(x, dtype=np.float32)).split(PREDICT_BATCH)
        codes = (self.encode(part.to(self.device))[0] for part in parts)
        found = [log_responsibilities(z, *self.prior).argmax(1).cpu() for z in codes]
        return torch.cat(found).numpy()

    @torch.inference_mode()
    def sample(
        self,
        component: int,
        n: int,
        threshold: float = 0.0,
        *,
        seed: int = 0,
        max_proposals: int = 10_000_000,
    ) -> tuple[np.ndarray, int]:
        """Draw images of a component from codes with a high probability of it.

        Codes are proposed from the component and accepted where p(c | z) is above the threshold.
        Only accepted codes are decoded: a rejected one costs no call of the decoder.

        Parameters
        ----------
        component
            Its index.
        n
            Images.
        threshold
            The paper's phi, 0 to accept every code.
        seed
            Of the proposals.
        max_proposals
            Give up after so many.

        Returns
        -------
        Images ``(m, n_features)`` float32, m = n, or fewer where the proposals ran out; and the
        number of proposals up to the last image, all of them where they ran out.

        Raises
        ------
        ValueError
            No such component, or a threshold that is not in [0, 1).
        """
        if not 0 <= component < len(self.logits):
            raise ValueError(f"There is no component {component}; there are {len(self.logits)}.")
        if not 0 <= threshold < 1:
            raise ValueError(f"`threshold` must be in [0, 1), got {threshold}.")
        scale = (0.5 * self.log_variances[component]).exp()
        generator = torch.Generator().manual_seed(seed)
        accepted, n_accepted, n_proposals = [], 0, 0
        while n_accepted < n and n_proposals < max_proposals:
            size = min(PROPOSALS, max_proposals - n_proposals)
            noise = torch.randn(size, len(scale), generator=generator).to(self.device)
            z = self.means[component] + scale * noise
            log_gamma = log_responsibilities(z, *self.prior)[:, component]
            good = (log_gamma > (math.log(threshold) if threshold > 0 else -math.inf)).nonzero()
            good = good[: n - n_accepted, 0]
            accepted.append(z[good])
            n_accepted += len(good)
            n_proposals += int(good[-1]) + 1 if n_accepted == n else size
        self.decoder_calls += n_accepted
        codes = torch.cat(accepted) if accepted else self.means[:0]
        images = [self.autoencoder.decoder(z).sigmoid().cpu() for z in codes.split(PREDICT_BATCH)]
        return torch.cat(images).numpy(), n_proposals
