"""Random changes of images and of cells, as a user asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pynndescent import NNDescent
from sklearn.neighbors import NearestNeighbors

from scmoe._compat import same_threads
from scmoe._numbers import check_whole
from scmoe.estimate._graph import EXACT_NEIGHBORS, N_NEIGHBORS
from scmoe.nn import ImageAugment, NeighborAugment

if TYPE_CHECKING:
    from scmoe.train import Augment


def nearest(x: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Positions of the k nearest other cells of each cell, ``(n, k)`` int64; fewer if few."""
    k = min(k, len(x) - 1)
    if len(x) <= EXACT_NEIGHBORS:
        return NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False)
    with same_threads():
        found = NNDescent(x, n_neighbors=k + 1, random_state=seed).neighbor_graph[0][:, 1:]
    # where its search found fewer, a cell is a neighbour of its own
    own = np.arange(len(x))[:, None]
    return np.where(found < 0, own, found).astype(np.int64)


def augmentation(
    augment: bool | Mapping[str, Any],
    scaled: np.ndarray,
    image_shape: tuple[int, ...] | None,
    seed: int,
    *,
    values: np.ndarray | None = None,
) -> Augment | None:
    """What changes cells at random in a training.

    Parameters
    ----------
    augment
        True for the defaults, False for nothing, or amounts: of
        ``scmoe.nn.ImageAugment``, or for cells ``n_neighbors`` and ``share`` of
        ``scmoe.nn.NeighborAugment``.
    scaled
        ``(n, n_input)`` float32, as the autoencoder will see it; neighbours are sought here.
    image_shape
        Shape of an image; None for cells.
    seed
        Of approximate searches.
    values
        The same cells on the scale of the batches that will be changed; None for ``scaled``.

    Raises
    ------
    ValueError
        Amounts that there are not, or that are out of range.
    """
    if not isinstance(augment, bool | Mapping):
        raise ValueError(f"`augment` must be True, False or a dict of amounts, got {augment!r}.")
    if augment is False:
        return None
    amounts = {} if augment is True else dict(augment)
    known = {"n_neighbors", "share"}
    if image_shape is not None:
        known = set(signature(ImageAugment).parameters) - {"image_shape"}
    if unknown := set(amounts) - known:
        raise ValueError(
            f"`augment` has no {', '.join(map(repr, sorted(unknown)))}; of "
            f"{'cells' if image_shape is None else 'images'} there is "
            f"{', '.join(map(repr, sorted(known)))}."
        )
    if image_shape is not None:
        return ImageAugment(image_shape, **amounts)
    k = amounts.pop("n_neighbors", N_NEIGHBORS)
    check_whole("n_neighbors", k, 1)
    neighbors = torch.from_numpy(nearest(scaled, k, seed))
    cells = torch.from_numpy(scaled if values is None else values)
    return NeighborAugment(cells, neighbors, **amounts)
