"""The plain VAE by which latent sizes and numbers of clusters are estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from scmoe._core.random import seeded
from scmoe._core.settings import as_whole, check_whole
from scmoe.nn import Autoencoders
from scmoe.train import check_device, check_rate, fit

if TYPE_CHECKING:
    import pandas as pd

    from scmoe.train import Augment

LARGE = 100
"""Latent size before it is known how many dimensions are needed (Santos, section III.B)."""


def large_latent(n_input: int) -> int:
    """Santos' 100 dimensions, or as many as there are features if those are fewer.

    More cannot be needed, and a latent space that is far too large is no safe start: for ten
    markers 100 dimensions ended with a worse bound on the likelihood than ten, and with fewer
    dimensions in use.
    """
    return min(LARGE, n_input)


LARGE_STEPS = {"batch_size": 1024, "lr": 3e-3, "n_steps": 800, "cycle": True}
"""The schedule of markers; images and components need more, smaller steps."""

ENCODE_BATCH = 4096
"""Cells at a time where nothing is learned."""


@dataclass(frozen=True)
class Architecture:
    """Networks of a VAE, of one or of many; see ``scmoe.nn.Autoencoders``."""

    n_input: int
    image_shape: tuple[int, ...] | None = None
    n_hidden: int = 128
    n_layers: int = 2
    width: int | None = 8
    activation: str = "elu"
    likelihood: str = "bernoulli"
    kl: str = "elbo"
    isotropic: bool = False

    def __post_init__(self):
        check_whole("n_input", self.n_input, 1)
        check_whole("n_hidden", self.n_hidden, 1)
        check_whole("n_layers", self.n_layers, 0)

    def build(self, n_latents: list[int]) -> Autoencoders:
        """With random weights."""
        return Autoencoders(n_latents=n_latents, **vars(self))


@dataclass(frozen=True)
class Schedule:
    """How long and how fast networks are trained.

    ``max_epochs`` is None for about ``n_steps``, and never more than 1,000 epochs, Santos'
    number. With ``cycle`` the rate rises to ``lr`` and falls again.
    """

    max_epochs: int | None = None
    batch_size: int = 256
    lr: float = 1e-3
    accelerator: str = "auto"
    n_steps: int = 4000
    cycle: bool = False

    def __post_init__(self):
        if self.max_epochs is not None:
            check_whole("max_epochs", self.max_epochs, 1)
        # a batch of a single cell has no spread
        check_whole("batch_size", self.batch_size, 2)
        check_rate("lr", self.lr)
        check_device(self.accelerator)

    def epochs(self, n: int) -> int:
        """Epochs for this many cells."""
        if self.max_epochs is not None:
            return as_whole(self.max_epochs)  # Lightning takes no numbers of numpy
        return min(math.ceil(self.n_steps / math.ceil(n / self.batch_size)), 1000)


def train_autoencoder(
    scaled: np.ndarray,
    n_latent: int,
    architecture: Architecture,
    schedule: Schedule = Schedule(),
    *,
    augment: Augment | None = None,
    seed: int = 0,
    progress: bool = True,
    description: str = "Autoencoder",
) -> tuple[Autoencoders, pd.DataFrame]:
    """A VAE of all cells, and the history of its training.

    Parameters
    ----------
    scaled
        ``(n, n_input)`` float32, nearly all from 0 to 1.
    n_latent
        Latent size.
    architecture, schedule
        Networks, and how they are trained.
    augment
        Random changes of cells, see ``scmoe.nn.ImageAugment``.
    seed
        Of weights, batches, draws and augmentation.
    progress, description
        The progress bar.

    Raises
    ------
    ValueError
        Settings that the networks refuse.
    """
    check_whole("n_latent", n_latent, 1)
    x = torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))
    with seeded(seed):
        network = architecture.build([n_latent])
        network.look_at(x, together=architecture.image_shape is not None)
        history = fit(
            network,
            {"x": x},
            max_epochs=schedule.epochs(len(x)),
            batch_size=schedule.batch_size,
            lr=schedule.lr,
            cycle=schedule.cycle,
            augment=augment,
            description=description,
            progress=progress,
            accelerator=schedule.accelerator,
        )
    return network, history


@torch.inference_mode()
def encode(network: Autoencoders, scaled: np.ndarray, expert: int = 0) -> np.ndarray:
    """Means of the codes of cells in one expert, ``(n, d_k)`` float32."""
    network.eval()
    device = network.centre.device
    parts = []
    for part in torch.from_numpy(np.ascontiguousarray(scaled, np.float32)).split(ENCODE_BATCH):
        which = torch.full((len(part),), expert, device=device)
        parts.append(network.encode(part.to(device), which)[0].cpu())
    return torch.cat(parts).numpy()[:, : network.n_latents[expert]]


@torch.inference_mode()
def decode(network: Autoencoders, codes: np.ndarray) -> np.ndarray:
    """What a plain VAE makes of codes, scaled features ``(n, n_input)`` float32."""
    network.eval()
    device = network.centre.device
    parts = []
    for part in torch.from_numpy(np.ascontiguousarray(codes, np.float32)).split(ENCODE_BATCH):
        which = torch.zeros(len(part), dtype=torch.int64, device=device)
        parts.append(network.decode(part.to(device), which).cpu())
    return torch.cat(parts).numpy()
