"""An autoencoder, from which VaDE and N2D start, and N2D."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn import functional as F

from scmoe._core.random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HIDDEN = (500, 500, 2000)
"""Units of the encoder, in VaDE and in N2D alike; the decoder is its mirror."""

PREDICT_BATCH = 4096


def silent(line: str) -> None:
    """Print nothing."""


def dense(units: Sequence[int]) -> nn.Sequential:
    """Return linear layers with ReLU in between."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(units[:-1], units[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def batches(n: int, size: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield batches of row indices in random order; a last batch of one row is left out."""
    for index in torch.randperm(n).to(device).split(size):
        if len(index) > 1:
            yield index


class Autoencoder(nn.Module):
    """An autoencoder with the layers D-500-500-2000-d and their mirror.

    Parameters
    ----------
    n_features
        Features of the data, D.
    n_latent
        Units of the code, d.
    hidden
        Units of the hidden layers of the encoder.
    binary
        The decoder puts out logits of values between 0 and 1, for a cross-entropy; else the
        values themselves, for a squared error.
    """

    def __init__(
        self,
        n_features: int,
        n_latent: int = 10,
        hidden: Sequence[int] = HIDDEN,
        *,
        binary: bool = False,
    ):
        super().__init__()
        self.encoder = dense([n_features, *hidden, n_latent])
        self.decoder = dense([n_latent, *reversed(hidden), n_features])
        self.binary = binary

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy or squared error over cells and features."""
        output = self.decoder(self.encoder(x))
        if self.binary:
            return F.binary_cross_entropy_with_logits(output, x)
        return F.mse_loss(output, x)

    def fit(
        self,
        x: np.ndarray,
        seed: int,
        epochs: int = 50,
        *,
        batch_size: int = 100,
        lr: float = 1e-3,
        say: Callable[[str], None] = silent,
    ) -> None:
        """Train with Adam; ``seed`` determines the order of the batches.

        Parameters
        ----------
        x
            ``(n, n_features)`` float32, between 0 and 1 if ``binary``.
        """
        optimizer = torch.optim.Adam(self.parameters(), lr=lr)
        data = torch.as_tensor(x, device=self.device)
        with seeded(seed):
            for epoch in range(epochs):
                total, steps = 0.0, 0
                for index in batches(len(data), batch_size, self.device):
                    loss = self.loss(data[index])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total, steps = total + loss.item(), steps + 1
                say(f"autoencoder, epoch {epoch + 1}: {total / steps:.5f}")

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the codes, ``(n, n_latent)`` float32."""
        parts = torch.as_tensor(x).split(PREDICT_BATCH)
        return torch.cat([self.encoder(part.to(self.device)).cpu() for part in parts]).numpy()


def n2d(
    x: np.ndarray,
    seed: int,
    n_clusters: int = 10,
    *,
    epochs: int = 50,
    hidden: Sequence[int] = HIDDEN,
    device: str = "cpu",
    say: Callable[[str], None] = silent,
) -> np.ndarray:
    """Cluster by N2D (McConville et al. 2021): a Gaussian mixture on a UMAP of the codes.

    The code has as many units as there are clusters, and so has the UMAP (20 neighbours,
    minimal distance 0); the mixture has full covariances. The authors train for 1,000 epochs.

    Parameters
    ----------
    x
        ``(n, D)`` float32.
    seed
        Of all three steps.
    n_clusters
        Components of the mixture.

    Returns
    -------
    Labels, ``(n,)`` str.
    """
    from umap import UMAP

    with seeded(seed):
        model = Autoencoder(x.shape[1], n_clusters, hidden).to(device)
    model.fit(x, seed, epochs, say=say)
    embedding = UMAP(
        n_neighbors=20, n_components=n_clusters, min_dist=0.0, random_state=seed, n_jobs=1
    ).fit_transform(model.encode(x))
    # in float64, where the covariances of tight clusters stay positive
    mixture = GaussianMixture(n_clusters, random_state=seed)
    return mixture.fit_predict(np.asarray(embedding, dtype=np.float64)).astype(str)
