"""Random changes of images and of cells, as a user asks for them."""

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

CHANGES = {
    "cells": ("neighbors", "dropout", "posterior"),
    "counts": ("neighbors", "thinning", "dropout", "posterior"),
    "images": ("affine", "dropout", "posterior"),
}
"""What can be done to each kind of data; the first is the default."""

N_STEPS = 2000
"""Optimiser steps of the VAE that copies are drawn from."""

BATCH_SIZE = 256
"""Cells of its batches."""

MAX_EPOCHS = 1000
"""Epochs of few cells, at most."""

WORDS = {word for words in CHANGES.values() for word in words}


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
    """What changes cells at random in a training.

    Parameters
    ----------
    augment
        True for the default, False for nothing, a word or several for changes that follow each
        other, a dict of words and their amounts, or a dict of amounts of the default. The words
        are those of ``CHANGES``, the amounts the keywords of the methods of ``Changes``.
    scaled
        ``(n, n_input)`` float32, as the autoencoder will see it; neighbours are sought here.
    image_shape
        Shape of an image; None for cells.
    seed
        Of the VAE that copies are drawn from.
    values
        The same cells on the scale of the batches that will be changed; None for ``scaled``.
    counts
        Whether ``values`` are log1p of counts.
    isotropic
        Whether the spreads of features say how much they matter, as those of components.
    accelerator, progress
        Of its training.

    Raises
    ------
    ValueError
        Words or amounts that there are not, or amounts out of range.
    """
    kind = "counts" if counts else "cells" if image_shape is None else "images"
    asked = _read(augment, kind)
    if not asked:
        return None
    changes = Changes(
        scaled,
        scaled if values is None else values,
        image_shape,
        counts,
        {"seed": seed, "accelerator": accelerator, "progress": progress},
        isotropic,
    )
    made = [getattr(changes, word)(**amounts) for word, amounts in asked]
    return made[0] if len(made) == 1 else Augments(made)


def _read(augment: Any, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Changes that are meant and their amounts, in order."""
    words = CHANGES[kind]
    if isinstance(augment, bool):
        return [(words[0], {})] if augment else []
    if isinstance(augment, Mapping) and not WORDS & set(augment):
        _check_amounts(augment, words[0], f"`augment` has no {{}}; of {kind} there is {{}}.")
        return [(words[0], dict(augment))]
    if isinstance(augment, str):
        asked = [(augment, {})]
    elif isinstance(augment, Mapping):
        asked = augment.items()
    elif isinstance(augment, Sequence) and augment:
        asked = [(word, {}) for word in augment]
    else:
        asked = [(augment, {})]
    for word, amounts in asked:
        if word not in words:
            raise ValueError(
                f"`augment` must be True, False, one or more of {_listed(words)}, which is what "
                f"there is for {kind}, or a dict of these and their amounts; got {word!r}."
            )
        if not isinstance(amounts, Mapping):
            raise ValueError(f"`augment[{word!r}]` must be a dict of amounts, got {amounts!r}.")
        _check_amounts(amounts, word, f"`augment[{word!r}]` has no {{}}; there is {{}}.")
    return [(word, dict(amounts)) for word, amounts in asked]


def _check_amounts(amounts: Mapping[str, Any], word: str, message: str) -> None:
    known = [
        name
        for name, parameter in signature(getattr(Changes, word)).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    ]
    if unknown := [name for name in amounts if name not in known]:
        raise ValueError(message.format(_listed(unknown), _listed(sorted(known))))


def _listed(words: Sequence[Any]) -> str:
    return ", ".join(map(repr, words))


@dataclass(frozen=True)
class Changes:
    """Makes what changes cells; the fields are parameters of :func:`augmentation`.

    The keywords of each method are its amounts, their defaults those of the user.
    """

    scaled: np.ndarray
    values: np.ndarray
    image_shape: tuple[int, ...] | None
    counts: bool
    training: dict[str, Any]
    isotropic: bool

    def neighbors(self, *, n_neighbors: int = N_NEIGHBORS, share: float = 0.5) -> NeighborAugment:
        """Cells move towards one of their neighbours."""
        return NeighborAugment(self._cells, self._nearest(n_neighbors), share=share)

    def thinning(self, *, share: float = 0.5) -> ThinAugment:
        """Cells lose a share of their counts."""
        return ThinAugment(share=share, logged=True)

    def dropout(self, *, rate: float = 0.1, n_neighbors: int | None = None) -> DropoutAugment:
        """Genes and pixels become 0, markers those of a neighbour."""
        if not self.counts and self.image_shape is None:
            neighbors = self._nearest(N_NEIGHBORS if n_neighbors is None else n_neighbors)
            return DropoutAugment(self._cells, neighbors, rate=rate)
        if n_neighbors is not None:
            raise ValueError(
                "`n_neighbors` of the dropout is for markers; hidden genes and pixels are 0."
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
        """Images are turned, scaled, moved and mirrored."""
        return ImageAugment(self.image_shape, rotation=rotation, zoom=zoom, shift=shift, flip=flip)

    def posterior(self, *, variance: float = 1.0, noise: float = 1.0) -> PosteriorAugment:
        """Draw cells anew from a VAE that is trained on them."""
        check_factor("variance", variance)
        check_factor("noise", noise)
        return PosteriorAugment(self._copier(), self._cells, variance=variance, noise=noise)

    def _copier(self) -> Autoencoders:
        """Train the VAE that copies are drawn from, on the scale of the cells."""
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
        return torch.from_numpy(self.values)

    def _nearest(self, k: int) -> torch.Tensor:
        check_whole("n_neighbors", k, 1)
        if k not in self._found:
            positions, _ = nearest(self.scaled, min(k, len(self.scaled) - 1))
            self._found[k] = torch.from_numpy(positions)
        return self._found[k]

    @cached_property
    def _found(self) -> dict[int, torch.Tensor]:
        """Neighbours by their number, for changes that ask for the same."""
        return {}
