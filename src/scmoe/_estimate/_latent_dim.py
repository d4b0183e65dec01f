"""Latent sizes: the number of principal components that explain the variance of VAE codes.

Santos (section III.B) trains a VAE with a large latent space and counts the components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA

from scmoe._core.random import seeded
from scmoe._core.settings import as_whole, check_whole, is_number
from scmoe.nn import Autoencoders
from scmoe.train import check_device, check_rate, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from scmoe.train import Augment


CLUSTERING, RECONSTRUCTION = 0.90, 0.95
"""Shares of the variance that Santos keeps for clustering and reconstruction (section III.B)."""

LARGE = 100
"""Initial latent size, before the number of dimensions is known (Santos, section III.B)."""

LARGE_STEPS = {"batch_size": 1024, "lr": 3e-3, "n_steps": 800, "cycle": True}
"""Training schedule for markers; images and components need more and smaller steps."""

MAX_EPOCHS = 1000
"""Largest number of epochs without ``max_epochs`` (Santos)."""

ENCODE_BATCH = 4096
"""Number of cells that are encoded or decoded at a time."""

FLAT = 1e-6
"""Standard deviation of codes below which they are constant."""

LEARNED = 0.2
"""Variance that codes of a trained autoencoder exceed along at least one dimension.

The prior has variance 1. A factor shared by two markers with a correlation of 0.3, or by twelve
with one of 0.03, has more than 0.2; independent markers had 0.005 to 0.15, increasing with the
length of the training.
"""


def large_latent(n_input: int) -> int:
    """Return the initial latent size: 100 dimensions (Santos), or the number of features if fewer.

    More dimensions cannot be needed, and a latent space that is far too large is harmful: for
    ten markers 100 dimensions gave a worse bound on the likelihood than ten, and used fewer
    dimensions.
    """
    return min(LARGE, n_input)


@dataclass(frozen=True)
class Architecture:
    """Architecture of one or several VAEs; see ``scmoe.nn.Autoencoders``."""

    n_input: int
    image_shape: tuple[int, ...] | None = None
    n_hidden: int = 128
    n_layers: int = 2
    width: int | None = 8
    activation: Literal["elu", "relu"] = "elu"
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    kl: Literal["elbo", "normalized"] = "elbo"
    isotropic: bool = False

    def __post_init__(self):
        check_whole("n_input", self.n_input, 1)
        check_whole("n_hidden", self.n_hidden, 1)
        check_whole("n_layers", self.n_layers, 0)

    def build(self, n_latents: list[int]) -> Autoencoders:
        """Build the networks with random weights."""
        return Autoencoders(n_latents=n_latents, **vars(self))


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a training.

    Without ``max_epochs`` a training takes about ``n_steps``, and at most 1000 epochs (Santos).
    With ``cycle`` the learning rate rises to ``lr`` and falls again.
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
        # a batch of a single cell has no variance
        check_whole("batch_size", self.batch_size, 2)
        check_rate("lr", self.lr)
        check_device(self.accelerator)

    def epochs(self, n: int) -> int:
        """Return the number of epochs for ``n`` cells."""
        if self.max_epochs is not None:
            return as_whole(self.max_epochs)  # Lightning rejects integers of numpy
        return min(math.ceil(self.n_steps / math.ceil(n / self.batch_size)), MAX_EPOCHS)


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
    """Train a VAE on all cells.

    Parameters
    ----------
    scaled
        Scaled cells, ``(n, n_input)`` float32, nearly all between 0 and 1.
    n_latent
        Latent size.
    architecture, schedule
        Networks, and the length and learning rate of the training.
    augment
        Random changes of cells, see ``scmoe.nn.ImageAugment``.
    seed
        Seed of weights, batches, codes and augmentation.
    progress, description
        Whether to show a progress bar, and its text.

    Returns
    -------
    The VAE in evaluation mode on the CPU, and the mean losses of each epoch.

    Raises
    ------
    ValueError
        Settings that the networks reject.
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
    """Encode scaled cells by one expert, to the means of their codes, ``(n, d_k)`` float32."""
    codes = _in_batches(network, lambda x, k: network.encode(x, k)[0], scaled, expert)
    return codes[:, : network.n_latents[expert]]


@torch.inference_mode()
def decode(network: Autoencoders, codes: np.ndarray) -> np.ndarray:
    """Decode the codes of a plain VAE, to scaled features ``(n, n_input)`` float32."""
    return _in_batches(network, network.decode, codes, 0)


def _in_batches(
    network: Autoencoders,
    apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    rows: np.ndarray,
    expert: int,
) -> np.ndarray:
    """Apply a function of rows and their experts to batches of rows of one expert."""
    network.eval()
    device = network.centre.device
    parts = []
    for part in torch.from_numpy(np.ascontiguousarray(rows, np.float32)).split(ENCODE_BATCH):
        experts = torch.full((len(part),), expert, device=device)
        parts.append(apply(part.to(device), experts).cpu())
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class LatentDim:
    """Number of latent dimensions that codes need."""

    n_latent: int
    """The smallest number of principal components that reach the threshold."""
    explained: np.ndarray
    """Share of variance explained by each principal component, ``(d,)`` float64, decreasing."""
    threshold: float
    """Share of the variance to explain."""
    n_cells: int
    """Number of cells."""

    @property
    def evidence(self) -> dict[str, Any]:
        """Record of the estimate, as plain values that h5ad can hold."""
        return dict(vars(self))


def check_threshold(threshold: float) -> None:
    """Raise ValueError unless a threshold is above 0 and at most 1."""
    if not is_number(threshold):
        raise ValueError(f"`threshold` must be a number, got {threshold!r}.")
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be above 0 and at most 1, got {threshold}.")


def count_dims(explained: np.ndarray, threshold: float) -> int:
    """Return the smallest number of components whose shares sum to the threshold."""
    # the last sum may be below 1 by rounding
    reached = np.cumsum(explained) >= threshold - 1e-12
    return int(reached.argmax()) + 1 if reached.any() else len(explained)


def find_latent_dim(codes: np.ndarray, threshold: float = CLUSTERING) -> LatentDim:
    """Find the number of principal components that explain a share of the variance of codes.

    The codes must be posterior means. Samples have unit variance in each dimension that the
    autoencoder does not use, so nearly all dimensions would seem needed.

    Parameters
    ----------
    codes
        ``(n, d)``.
    threshold
        Share of the variance to explain: 0.90 for clustering, 0.95 for reconstruction.

    Raises
    ------
    ValueError
        Fewer than 2 cells, NaN or infinite codes, constant codes, a threshold out of range.
    """
    check_threshold(threshold)
    codes = np.asarray(codes, dtype=np.float64)
    if len(codes) < 2:
        raise ValueError(f"Latent dimensions need at least 2 cells, got {len(codes)}.")
    if not np.isfinite(codes).all():
        raise ValueError("The codes hold NaN or infinite values.")
    if codes.std(0).max() < FLAT:
        raise ValueError("The codes of all cells are the same: they have no dimensions.")
    explained = PCA(svd_solver="full").fit(codes).explained_variance_ratio_
    return LatentDim(count_dims(explained, threshold), explained, float(threshold), len(codes))


def find_group_dims(
    codes: np.ndarray, labels: Iterable[str | None], threshold: float = CLUSTERING
) -> dict[str, LatentDim | None]:
    """Find the latent size of each group of cells, see :func:`find_latent_dim`.

    Parameters
    ----------
    codes
        Codes of one autoencoder for all groups, ``(n, d)``.
    labels
        Group of each cell, ``(n,)``; None for none.
    threshold
        Share of the variance to explain.

    Returns
    -------
    The latent size of each group, in the order of their first cells; None for a group of a single
    cell, or of cells with constant codes.

    Raises
    ------
    ValueError
        NaN or infinite codes, a threshold out of range.
    """
    check_threshold(threshold)
    labels = np.asarray(labels, dtype=object)
    found: dict[str, LatentDim | None] = {}
    for name in dict.fromkeys(label for label in labels if label is not None):
        own = codes[labels == name]
        flat = len(own) < 2 or own.std(0).max() < FLAT
        found[name] = None if flat else find_latent_dim(own, threshold)
    return found


def check_learned(codes: np.ndarray) -> None:
    """Raise ValueError for the codes of an autoencoder that has learned nothing.

    Unused dimensions vary a little, and a share of that variance is meaningless: independent
    noise would seem to have many dimensions.
    """
    variance = np.var(codes, axis=0, dtype=np.float64).max()
    if not variance > LEARNED:
        raise ValueError(
            "The autoencoder has found nothing that markers have in common: the variance of its "
            f"codes is at most {variance:.2g} in any dimension, and more than {LEARNED} where "
            "there is something. Either markers vary independently of each other (principal "
            "components do: give them as `use_rep`), or it was trained too little (raise "
            "`max_epochs`), or its likelihood hides it (a Bernoulli one, where values are no "
            "probabilities)."
        )
