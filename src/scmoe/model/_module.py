"""What the modules of all models have in common: scaled markers, and clusters to draw from."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from scvi.module.base import BaseModuleClass

from scmoe.model._outliers import Outliers

if TYPE_CHECKING:
    import numpy as np

    from scmoe.model._settings import ModelSettings

PANEL = 128
"""Up to this many markers the clusters' residual covariances and quantiles are kept."""

COUNTS = ("nb", "zinb")
"""Likelihoods of counts: such cells are drawn whole, with nothing to add to them."""

N_QUANTILES = 65
"""Quantiles of each marker and cluster that are kept."""


class DescribedModule(BaseModuleClass):
    """A module with one decoder for each cluster, and a description of the trained clusters.

    Parameters
    ----------
    settings
        Hyper-parameters; a ``"bernoulli"`` likelihood keeps scaled markers within 0 and 1.
    n_experts
        Clusters, K.
    n_latent
        Columns of the codes that experts decode.
    n_batch
        Batches of cells; 1 where there are none.
    """

    settings_class: type[ModelSettings]
    """Hyper-parameters that a module of this class is made of."""

    one_space = True
    """Whether codes of different experts can be compared."""

    def __init__(
        self, settings: ModelSettings, n_experts: int, n_latent: int, *, n_batch: int = 1
    ):
        super().__init__()
        n_input = settings.n_input
        self.settings = settings
        self.n_experts = n_experts
        self.likelihood = settings.likelihood
        self.register_buffer("low", torch.zeros(n_input))
        self.register_buffer("high", torch.ones(n_input))
        self.register_buffer("live", torch.ones(n_experts, dtype=torch.bool))
        # what the trained clusters look like; experts are drawn from it
        self.register_buffer("size", torch.zeros(n_experts, dtype=torch.long))
        self.register_buffer("batches", torch.zeros(n_experts, n_batch, dtype=torch.long))
        self.register_buffer("means", torch.zeros(n_experts, n_latent))
        # where the codes of each batch lie, from the mean of their cluster
        self.register_buffer("offsets", torch.zeros(n_experts, n_batch, n_latent))
        self.register_buffer("covariances", torch.zeros(n_experts, n_latent, n_latent))
        panel = n_input if n_input <= PANEL and not self.takes_counts else 0
        self.register_buffer("spread", torch.zeros(n_experts, n_input))
        self.register_buffer("residuals", torch.zeros(n_experts, panel, panel))
        self.register_buffer("quantiles", torch.zeros(2, n_experts, N_QUANTILES, panel))
        self.outliers = Outliers(n_input)

    @property
    def takes_counts(self) -> bool:
        """Whether the values are counts."""
        return self.likelihood in COUNTS

    def position(self, x: torch.Tensor) -> torch.Tensor:
        """Markers on the scale on which nearly all training cells lie from 0 to 1."""
        return (x - self.low) / (self.high - self.low)

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """Scale markers to the range 0 to 1, clipped unless the likelihood is Gaussian."""
        return self._clip(self.position(x))

    def unscale(self, scaled: torch.Tensor) -> torch.Tensor:
        """Map scaled values back to the input scale (inverse of :meth:`scale`)."""
        return self.low + (self.high - self.low) * self._clip(scaled)

    def in_units(self, scaled: torch.Tensor) -> torch.Tensor:
        """Map expected values back to the input scale; those of counts are not rounded."""
        return self.unscale(scaled)

    def _clip(self, scaled: torch.Tensor) -> torch.Tensor:
        return scaled.clamp(0, 1) if self.likelihood == "bernoulli" else scaled

    @abstractmethod
    def decode(
        self, z: torch.Tensor, expert: torch.Tensor, batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode codes in their experts to scaled markers, ``(n, n_input)``."""

    def place(self, scaled: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Where cells lie in the latent space of all: the codes that their experts decode."""
        return z

    def own_columns(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Codes with 0 in the columns that their experts have not."""
        return z

    @abstractmethod
    def gate_of(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Return the gate's logits of drawn codes, ``(n, n_experts)``."""

    @property
    @abstractmethod
    def prior_means(self) -> torch.Tensor | None:
        """Centres of the unit Gaussians that codes were taught to follow, None if they were not.

        ``(n_experts, n_latent)``.
        """

    @torch.inference_mode()
    def draw(
        self,
        cluster: np.ndarray,
        batch: np.ndarray,
        rng: np.random.Generator,
        *,
        gate: str = "requested",
        prior: str = "fitted",
        noise: bool = True,
    ) -> dict[str, torch.Tensor]:
        """Draw new cells of a trained module; see :func:`scmoe.tl.generate`.

        Parameters
        ----------
        cluster
            The expert that each cell is asked of, ``(n,)`` int64.
        batch
            The batch that each cell shall look as if it came from, ``(n,)`` int64.
        rng
            Source of randomness.

        Returns
        -------
        ``z`` (n, n_latent), ``expert`` (n,), ``scaled`` (n, n_input).
        """
        n, device = len(cluster), self.means.device
        asked, batches = (torch.from_numpy(i).to(device) for i in (cluster, batch))
        z = torch.from_numpy(draw_normal(rng, (n, self.means.shape[1]))).to(device)
        if prior == "fitted":
            z = _correlate(z, self.covariances, asked) + self.offsets[asked, batches]
            z = self.means[asked] + z
        else:
            z = self.prior_means[asked] + z
        z = self.own_columns(z, asked)
        expert = asked
        if gate == "network":
            owning = self.live & (self.size > 0)
            expert = self.gate_of(z, asked).masked_fill(~owning, -torch.inf).argmax(1)
        scaled = self.decode(z, expert, batches)
        if noise:
            error = torch.from_numpy(draw_normal(rng, scaled.shape)).to(device)
            if self.residuals.numel():
                scaled = scaled + _correlate(error, self.residuals, expert)
            else:
                scaled = scaled + self.spread[expert] * error
        return {"z": z, "expert": expert, "scaled": scaled}

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        for tensor in [
            self.live,
            self.size,
            self.batches,
            self.means,
            self.offsets,
            self.covariances,
            self.spread,
            self.residuals,
            self.quantiles[0],
            self.quantiles[1],
        ]:
            tensor.copy_(tensor[order])


def draw_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw standard normal numbers, float32."""
    return rng.standard_normal(tuple(shape), "float32")


def _correlate(
    white: torch.Tensor, covariances: torch.Tensor, which: torch.Tensor
) -> torch.Tensor:
    """Give white noise ``(n, d)`` the covariance of each row's cluster, ``(K, d, d)``."""
    drawn = torch.empty_like(white)
    for k in which.unique():
        # not Cholesky's root: a covariance of fewer cells than markers has none
        size, axes = torch.linalg.eigh(covariances[k].double())
        root = (axes * size.clamp_min(0).sqrt()) @ axes.T
        own = which == k
        drawn[own] = white[own] @ root.to(white)
    return drawn
