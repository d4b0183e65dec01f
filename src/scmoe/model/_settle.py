"""What becomes of the experts when a training is done."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from scmoe._core.text import listing
from scmoe.model._classes import owners
from scmoe.model._describe import Description

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scmoe.model._described import DescribedModule
    from scmoe.model._module import MoESimVAEModule
    from scmoe.similarity import Target

SPLINTER = 10
"""Cells that an expert must own to live, where there are enough cells."""


def name_classes(
    module: MoESimVAEModule,
    target: Target,
    outputs: Callable[[], Iterable[dict[str, torch.Tensor]]],
    n_obs: int,
) -> list[str]:
    """Put the experts of listed classes first, and name them; no names without such classes.

    Parameters
    ----------
    module
        The trained module; its experts are reordered.
    target
        The similarity that it was taught.
    outputs, n_obs
        As in :func:`settle`.
    """
    names = list(target.class_names)
    if not 0 < target.class_share < 1:
        return names
    n_experts = module.n_experts
    owner = torch.cat([batch["expert"] for batch in outputs()]).numpy(force=True)
    own = owners(target.positive(np.arange(n_obs)), owner, n_experts)
    lost = [name for name, k in zip(names, own, strict=True) if k < 0]
    if lost:
        warnings.warn(
            f"No cluster stands for {listing(lost)}, and no expert is left for it. Ask for "
            "more clusters, or check the markers.",
            UserWarning,
            stacklevel=4,
        )
    names = [name for name, k in zip(names, own, strict=True) if k >= 0]
    own = own[own >= 0]
    free = np.setdiff1d(np.arange(n_experts), own)
    module.reorder(torch.from_numpy(np.concatenate([own, free])))
    return names


def settle(
    module: DescribedModule,
    names: list[str],
    outputs: Callable[[], Iterable[dict[str, torch.Tensor]]],
    n_obs: int,
    min_cells: int | None,
) -> list[str]:
    """Order the experts, retire splinters, describe what is left (eq. 6).

    The clusters that have names come first, the others are numbered by size.

    Parameters
    ----------
    module
        The trained module; its experts are reordered and its buffers filled.
    names
        Names of the first experts.
    outputs
        Gives what the module says of all training cells, batch by batch.
    n_obs
        Number of training cells.
    min_cells
        Experts with fewer are retired; None for 10, or as many as there are for an expert.

    Returns
    -------
    Names of the clusters, in the order of the experts.
    """
    n_experts = module.n_experts

    def owner() -> torch.Tensor:
        return torch.cat([batch["expert"] for batch in outputs()])

    size = torch.bincount(owner(), minlength=n_experts)
    listed = torch.arange(n_experts, device=size.device) < len(names)
    least = min(SPLINTER, n_obs // n_experts) if min_cells is None else min_cells
    module.live.copy_((size >= least) | (size == size.max()) | listed)
    if not module.live.all():
        # retired experts give their cells away; classes keep the experts that carry their names
        size = torch.bincount(owner(), minlength=n_experts)
    rank = size.masked_fill(listed, 2 * n_obs)
    module.reorder(rank.argsort(descending=True, stable=True))
    numbers = (str(k) for k in range(n_experts) if str(k) not in names)
    description = Description(module)
    for batch in outputs():
        description.add(batch)
    description.write()
    return names + [next(numbers) for _ in range(n_experts - len(names))]
