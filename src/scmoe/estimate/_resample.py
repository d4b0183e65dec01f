"""Changes of cells that must be trained before: a VAE, and steps in its codes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from scmoe._core.random import seeded
from scmoe.estimate._autoencoder import (
    Architecture,
    Schedule,
    encode,
    large_latent,
    train_autoencoder,
)
from scmoe.estimate._latent import check_learned
from scmoe.nn import LearnedAugment
from scmoe.train import fit

if TYPE_CHECKING:
    import numpy as np

    from scmoe.nn import Autoencoders

N_STEPS = 2000
"""Of the VAE ..."""

LEARNED_STEPS = 600
"""... and of what learns steps in its codes, of Adam each."""

BATCH_SIZE = 256

MAX_EPOCHS = 1000
"""Few cells are seen at most so often."""


def _epochs(n: int, n_steps: int) -> int:
    """Epochs of so many steps."""
    return min(math.ceil(n_steps / math.ceil(n / BATCH_SIZE)), MAX_EPOCHS)


def train_copier(
    values: np.ndarray,
    *,
    images: bool,
    isotropic: bool,
    seed: int,
    accelerator: str,
    progress: bool,
) -> Autoencoders:
    """A VAE that copies can be drawn from, on the scale of the cells.

    Parameters
    ----------
    values
        ``(n, n_input)`` float32.
    images
        Whether they are images; those in 0 to 1 have a Bernoulli likelihood.
    isotropic
        One spread for all features.
    seed, accelerator, progress
        As in :func:`train_autoencoder`.

    Raises
    ------
    ValueError
        Cells in which there is nothing to learn.
    """
    binary = images and values.min() >= 0 and values.max() <= 1
    network, _ = train_autoencoder(
        values,
        large_latent(values.shape[1]),
        Architecture(
            values.shape[1],
            likelihood="bernoulli" if binary else "gaussian",
            isotropic=isotropic or images,
        ),
        Schedule(_epochs(len(values), N_STEPS), BATCH_SIZE, accelerator=accelerator),
        seed=seed,
        progress=progress,
        description="Autoencoder of the copies",
    )
    check_learned(encode(network, values))
    return network


def train_augment(
    network: Autoencoders,
    values: np.ndarray,
    *,
    margin: float,
    noise: float,
    seed: int,
    accelerator: str,
    progress: bool,
) -> LearnedAugment:
    """A change of cells that has learned; see :class:`scmoe.nn.LearnedAugment`."""
    x = torch.from_numpy(values)
    with seeded(seed):
        augment = LearnedAugment(network, x, margin=margin, noise=noise)
        fit(
            augment,
            {"x": x},
            max_epochs=_epochs(len(x), LEARNED_STEPS),
            batch_size=BATCH_SIZE,
            lr=1e-3,
            description="Copies",
            progress=progress,
            accelerator=accelerator,
        )
    return augment
