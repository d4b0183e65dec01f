"""What a decoder makes of codes along one dimension at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scmoe._core.keys import Key
from scmoe._core.settings import is_whole
from scmoe._core.text import listing
from scmoe._core.values import holds_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scmoe.model._described import DescribedModule
    from scmoe.model._record import Trained


def living(trained: Trained) -> list[str]:
    """Clusters with cells."""
    sizes = trained.module.size.tolist()
    return [name for name, size in zip(trained.clusters, sizes, strict=True) if size]


def expert_of(trained: Trained, cluster: str) -> int:
    """Position of a cluster; KeyError where there is none of that name."""
    if str(cluster) not in trained.clusters:
        raise KeyError(f"There is no cluster {cluster!r}; there are {listing(living(trained))}.")
    return trained.clusters.index(str(cluster))


def check_steps(n: int, name: str) -> None:
    """Raise ValueError for fewer steps than 2."""
    if not is_whole(n) or n < 2:
        raise ValueError(f"`{name}` must be a whole number from 2, got {n!r}.")


@torch.inference_mode()
def walk(
    module: DescribedModule,
    expert: int,
    origin: np.ndarray,
    dims: Sequence[int],
    positions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Expected values along dimensions of an expert.

    Parameters
    ----------
    module
        A trained module.
    expert
        Which decodes.
    origin
        Where the dimensions stay that are not walked along, ``(d,)``.
    dims
        The dimensions to walk along, one after the other.
    positions
        Codes in each of them, ``(n_dims, n_steps)``.

    Returns
    -------
    In the units of the input, and scaled, both ``(n_dims * n_steps, n_input)`` float32.
    """
    n_dims, n_steps = positions.shape
    codes = torch.zeros(n_dims, n_steps, module.means.shape[1])
    codes[..., : len(origin)] = torch.from_numpy(np.asarray(origin, dtype=np.float32))
    for i, dimension in enumerate(dims):
        codes[i, :, dimension] = torch.from_numpy(positions[i].astype(np.float32))
    codes = codes.flatten(0, 1).to(module.means.device)
    module.eval()
    which = torch.full((len(codes),), expert, device=codes.device)
    scaled = module.decode(codes, which)
    return module.in_units(scaled).numpy(force=True), scaled.numpy(force=True)


def steps_as_cells(
    x: np.ndarray,
    cluster: str,
    dims: Sequence[int],
    positions: np.ndarray,
    stem: str,
    template: AnnData,
    layer: str | None,
) -> AnnData:
    """Steps of walks with ``.obs["cluster"]``, ``.obs["dimension"]`` and ``.obs["position"]``."""
    obs = {
        Key.obs.CLUSTER: pd.Categorical([str(cluster)] * len(x)),
        "dimension": np.repeat(dims, positions.shape[1]),
        "position": positions.ravel().astype(np.float32),
    }
    return as_cells(x, obs, stem, template, layer)


def as_cells(
    x: np.ndarray, obs: dict[str, Any], stem: str, template: AnnData, layer: str | None
) -> AnnData:
    """Decoded values with the variables of the training cells, in the layer of those too."""
    made = AnnData(
        x,
        obs=pd.DataFrame(obs, index=[f"{stem}-{i}" for i in range(len(x))]),
        var=template.var.copy(),
        layers={} if layer is None else {layer: x.copy()},
    )
    if holds_images(template):
        made.uns[Key.uns.IMAGE_SHAPE] = template.uns[Key.uns.IMAGE_SHAPE]
    return made
