"""The latent size: how many principal components carry the variance of a VAE's codes (Santos)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from scmoe._core.random import seeded
from scmoe._core.settings import as_whole, check_whole, is_number
from scmoe.nn import Autoencoders
from scmoe.train import check_device, check_rate, fit

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    """Decode the codes of a plain VAE to scaled features, ``(n, n_input)`` float32."""
    network.eval()
    device = network.centre.device
    parts = []
    for part in torch.from_numpy(np.ascontiguousarray(codes, np.float32)).split(ENCODE_BATCH):
        which = torch.zeros(len(part), dtype=torch.int64, device=device)
        parts.append(network.decode(part.to(device), which).cpu())
    return torch.cat(parts).numpy()


CLUSTERING, RECONSTRUCTION = 0.90, 0.95
"""Shares of the variance that Santos keeps (section III.B)."""

FLAT = 1e-6
"""Standard deviation below which codes say nothing."""

LEARNED = 0.2
"""Variance of codes along one dimension that an autoencoder has if it has learned anything.

The prior has 1. A factor that two markers share with a correlation of 0.3, or twelve with one of
0.03, has more; independent markers gave 0.005 to 0.15, the more the longer the training.
"""


@dataclass(frozen=True)
class LatentDim:
    """Dimensions that codes need."""

    n_latent: int
    """The smallest number of principal components that reach the threshold."""
    explained: np.ndarray
    """Share of the variance that each principal component explains, ``(d,)`` float64, falling."""
    threshold: float
    """Share that was asked for."""
    n_cells: int

    @property
    def evidence(self) -> dict[str, Any]:
        """The record of the estimate, as plain values that h5ad can hold."""
        return dict(vars(self))


def check_threshold(threshold: float) -> None:
    """Raise ValueError for a share that is not above 0 and at most 1."""
    if not is_number(threshold):
        raise ValueError(f"`threshold` must be a number, got {threshold!r}.")
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be above 0 and at most 1, got {threshold}.")


def count_dims(explained: np.ndarray, threshold: float) -> int:
    """The smallest number of components whose shares sum to the threshold."""
    # the last sum may miss 1 by rounding
    reached = np.cumsum(explained) >= threshold - 1e-12
    return int(reached.argmax()) + 1 if reached.any() else len(explained)


def find_latent_dim(codes: np.ndarray, threshold: float = CLUSTERING) -> LatentDim:
    """How many principal components of codes explain a share of their variance.

    The codes must be means of posteriors. Samples add unit variance to every dimension that the
    autoencoder does not use, and nearly all dimensions seem needed.

    Parameters
    ----------
    codes
        ``(n, d)``.
    threshold
        Share of the variance to keep: 0.90 for clustering, 0.95 for reconstruction.

    Raises
    ------
    ValueError
        Fewer than 2 cells, NaN or infinite codes, codes that are all the same, and a threshold
        out of range.
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
    """:func:`find_latent_dim` of the cells of each group.

    Parameters
    ----------
    codes
        ``(n, d)``, of one autoencoder for all groups.
    labels
        Group of each cell, ``(n,)``; None for none.
    threshold
        As there.

    Returns
    -------
    By group, in the order of their first cells. None for groups that have no dimensions: of a
    single cell, or of cells with the same codes.

    Raises
    ------
    ValueError
        NaN or infinite codes, and a threshold out of range.
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
    """Raise ValueError for codes of an autoencoder that has learned nothing.

    The dimensions that it does not use vary a little too, and a share of that little says
    nothing: independent noise would seem to have many dimensions.
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
