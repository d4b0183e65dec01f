"""Augmentations by name: random changes of cells or images in a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import torch

from scmoe._core.neighbors import N_NEIGHBORS, nearest
from scmoe._core.settings import check_whole
from scmoe._estimate._latent_dim import (
    Architecture,
    Schedule,
    check_learned,
    encode,
    large_latent,
    train_autoencoder,
)
from scmoe.nn import (
    Augments,
    DropoutAugment,
    ImageAugment,
    NeighborAugment,
    PosteriorAugment,
    ThinAugment,
    check_factor,
)

if TYPE_CHECKING:
    import numpy as np

    from scmoe.nn import Autoencoders
    from scmoe.train import Augment

AUGMENTATIONS = {
    "cells": ("neighbors", "dropout", "posterior"),
    "counts": ("neighbors", "thinning", "dropout", "posterior"),
    "images": ("affine", "dropout", "posterior"),
}
"""Augmentations of each kind of data; the first is the default."""

N_STEPS = 2000
"""Optimiser steps of the VAE of ``"posterior"``."""

BATCH_SIZE = 256
"""Batch size of that VAE."""

MAX_EPOCHS = 1000
"""Largest number of epochs of that VAE."""

NAMES = {name for names in AUGMENTATIONS.values() for name in names}
"""Names of all augmentations."""


def augmentation(
    augment: bool | str | Sequence[str] | Mapping[str, Any],
    scaled: np.ndarray,
    image_shape: tuple[int, ...] | None,
    seed: int,
    *,
    values: np.ndarray | None = None,
    counts: bool = False,
    isotropic: bool = False,
    accelerator: str = "auto",
    progress: bool = True,
) -> Augment | None:
    """Make the augmentation of a training.

    Parameters
    ----------
    augment
        True for the default, False for none, one name or several for augmentations that are
        applied one after the other, a dict of names and their amounts, or a dict of amounts of
        the default. The names are those of ``AUGMENTATIONS``, the amounts the keyword arguments
        of the methods of ``Builder``.
    scaled
        Scaled cells, ``(n, n_input)`` float32, as the autoencoder sees them, for the search of
        neighbours.
    image_shape
        Shape of an image; None for cells.
    seed
        Seed of the VAE of ``"posterior"``.
    values
        The same cells on the scale of the batches to augment; None for ``scaled``.
    counts
        Whether ``values`` are log1p of counts.
    isotropic
        Whether the variances of features are their importance, as for principal components.
    accelerator, progress
        Of the training of that VAE.

    Returns
    -------
    The augmentation; None for none.

    Raises
    ------
    ValueError
        Unknown names or amounts, or amounts out of range.
    """
    kind = "counts" if counts else "cells" if image_shape is None else "images"
    asked = _read(augment, kind)
    if not asked:
        return None
    builder = Builder(
        scaled,
        scaled if values is None else values,
        image_shape,
        counts,
        {"seed": seed, "accelerator": accelerator, "progress": progress},
        isotropic,
    )
    made = [getattr(builder, name)(**amounts) for name, amounts in asked]
    return made[0] if len(made) == 1 else Augments(made)


def _read(augment: Any, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the names and amounts of the augmentations, in order."""
    names = AUGMENTATIONS[kind]
    if isinstance(augment, bool):
        return [(names[0], {})] if augment else []
    if isinstance(augment, Mapping) and not NAMES & set(augment):
        _check_amounts(augment, names[0], f"`augment` has no {{}}; for {kind} it has {{}}.")
        return [(names[0], dict(augment))]
    if isinstance(augment, str):
        asked = [(augment, {})]
    elif isinstance(augment, Mapping):
        asked = augment.items()
    elif isinstance(augment, Sequence) and augment:
        asked = [(name, {}) for name in augment]
    else:
        asked = [(augment, {})]
    for name, amounts in asked:
        if name not in names:
            raise ValueError(
                f"`augment` must be True, False, one or more of {_listed(names)} (the "
                f"augmentations of {kind}), or a dict of these and their amounts; got {name!r}."
            )
        if not isinstance(amounts, Mapping):
            raise ValueError(f"`augment[{name!r}]` must be a dict of amounts, got {amounts!r}.")
        _check_amounts(amounts, name, f"`augment[{name!r}]` has no {{}}; it has {{}}.")
    return [(name, dict(amounts)) for name, amounts in asked]


def _check_amounts(amounts: Mapping[str, Any], name: str, message: str) -> None:
    """Raise ValueError for amounts that an augmentation does not have."""
    known = [
        parameter.name
        for parameter in signature(getattr(Builder, name)).parameters.values()
        if parameter.kind is Parameter.KEYWORD_ONLY
    ]
    if unknown := [amount for amount in amounts if amount not in known]:
        raise ValueError(message.format(_listed(unknown), _listed(sorted(known))))


def _listed(names: Sequence[Any]) -> str:
    """Join names for a message."""
    return ", ".join(map(repr, names))


@dataclass(frozen=True)
class Builder:
    """Makes augmentations by name; the fields are parameters of :func:`augmentation`.

    The keyword arguments of each method are its amounts, with the defaults of the user.
    """

    scaled: np.ndarray
    values: np.ndarray
    image_shape: tuple[int, ...] | None
    counts: bool
    training: dict[str, Any]
    isotropic: bool

    def neighbors(self, *, n_neighbors: int = N_NEIGHBORS, share: float = 0.5) -> NeighborAugment:
        """Move cells towards one of their neighbours."""
        return NeighborAugment(self._cells, self._nearest(n_neighbors), share=share)

    def thinning(self, *, share: float = 0.5) -> ThinAugment:
        """Thin the counts of cells."""
        return ThinAugment(share=share, logged=True)

    def dropout(self, *, rate: float = 0.1, n_neighbors: int | None = None) -> DropoutAugment:
        """Replace genes and pixels by 0, and markers by those of a neighbour."""
        if not self.counts and self.image_shape is None:
            neighbors = self._nearest(N_NEIGHBORS if n_neighbors is None else n_neighbors)
            return DropoutAugment(self._cells, neighbors, rate=rate)
        if n_neighbors is not None:
            raise ValueError(
                "`n_neighbors` of the dropout is for markers; genes and pixels become 0."
            )
        return DropoutAugment(rate=rate)

    def affine(
        self,
        *,
        rotation: float = 10.0,
        zoom: float = 0.1,
        shift: float = 0.1,
        flip: bool = False,
    ) -> ImageAugment:
        """Rotate, zoom, shift and flip images."""
        return ImageAugment(self.image_shape, rotation=rotation, zoom=zoom, shift=shift, flip=flip)

    def posterior(self, *, variance: float = 1.0, noise: float = 1.0) -> PosteriorAugment:
        """Draw copies of cells from a VAE that is trained on them."""
        check_factor("variance", variance)
        check_factor("noise", noise)
        return PosteriorAugment(self._copier(), self._cells, variance=variance, noise=noise)

    def _copier(self) -> Autoencoders:
        """Train the VAE of the copies, on the scale of the batches."""
        x, images = self.values, self.image_shape is not None
        binary = images and x.min() >= 0 and x.max() <= 1
        architecture = Architecture(
            x.shape[1],
            likelihood="bernoulli" if binary else "gaussian",
            isotropic=self.isotropic or images,
        )
        n_batches = math.ceil(len(x) / BATCH_SIZE)
        epochs = min(math.ceil(N_STEPS / n_batches), MAX_EPOCHS)
        accelerator = self.training["accelerator"]
        network, _ = train_autoencoder(
            x,
            large_latent(x.shape[1]),
            architecture,
            Schedule(epochs, BATCH_SIZE, accelerator=accelerator),
            seed=self.training["seed"],
            progress=self.training["progress"],
            description="Autoencoder of the copies",
        )
        check_learned(encode(network, x))
        return network

    @cached_property
    def _cells(self) -> torch.Tensor:
        """The cells on the scale of the batches."""
        return torch.from_numpy(self.values)

    def _nearest(self, k: int) -> torch.Tensor:
        """Return the positions of the ``k`` nearest neighbours of each cell."""
        check_whole("n_neighbors", k, 1)
        if k not in self._neighbors_of:
            positions, _ = nearest(self.scaled, min(k, len(self.scaled) - 1))
            self._neighbors_of[k] = torch.from_numpy(positions)
        return self._neighbors_of[k]

    @cached_property
    def _neighbors_of(self) -> dict[int, torch.Tensor]:
        """Neighbours by their number, shared by augmentations."""
        return {}
