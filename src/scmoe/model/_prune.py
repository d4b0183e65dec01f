"""Categories that arms disagree on are pruned, and what is left is trained on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scmoe._core.settings import check_whole, is_number
from scmoe.metrics import category_consensus

if TYPE_CHECKING:
    from collections.abc import Callable

    from scmoe.model._cplmixvae_module import CplMixVAEModule

logger = logging.getLogger("scmoe")

THRESHOLD = 0.75
"""Consensus that every category must have."""


def check_pruning(prune: Any, epochs: int | None, threshold: Any, n_arms: int) -> None:
    """Raise ValueError for settings of a pruning that make no sense."""
    if not isinstance(prune, bool):
        raise ValueError(f"`prune` must be True, False or None, got {prune!r}.")
    if prune and n_arms == 1:
        raise ValueError(
            "Pruning looks at how far arms agree, and there is one: use more arms, or give the "
            "number of clusters (`n_clusters`, of the model `n_categories`) without `prune`."
        )
    if epochs is not None:
        check_whole("prune_epochs", epochs, 1)
    if not (is_number(threshold) and 0 < threshold <= 1):
        raise ValueError(f"`threshold` must be above 0 and at most 1, got {threshold!r}.")


def prune(
    module: CplMixVAEModule,
    votes: Callable[[], np.ndarray],
    loss: Callable[[], float],
    fit: Callable[[], None],
    threshold: float,
) -> tuple[pd.DataFrame, torch.Tensor, dict[str, torch.Tensor]]:
    """Remove the category with the lowest consensus until the arms agree on all.

    Categories without a cell in any arm go together, before the others are looked at.

    Parameters
    ----------
    module
        The trained module; its ``live`` is changed.
    votes
        The category of each cell in each arm, ``(A, n)``.
    loss
        The loss that the last training ended with.
    fit
        Trains on.
    threshold
        Consensus that every category must have.

    Returns
    -------
    The curve, a row for each number of categories (``n_categories``, ``consensus``, the mean,
    ``lowest``, ``loss``); the categories of the first row that is good enough, or of the best,
    ``(n,)`` int64; and the weights then.

    Raises
    ------
    ValueError
        Where fewer than two categories have cells.
    """
    rows, best = [], None
    while True:
        said = votes()
        scores = category_consensus(said, module.n_experts)
        used = np.isin(np.arange(module.n_experts), said)
        n_left = int(used.sum())
        if n_left < 2:
            if best is not None:
                break
            raise ValueError(
                "All cells came to one category, and nothing is left to prune: train longer, "
                "with a smaller `coupling_weight`, or on markers that tell types apart."
            )
        module.live.copy_(torch.from_numpy(used))
        mean, lowest = float(scores[used].mean()), float(scores[used].min())
        rows.append({"n_categories": n_left, "consensus": mean, "lowest": lowest, "loss": loss()})
        logger.info("%d categories, consensus %.3f, lowest %.3f.", n_left, mean, lowest)
        if best is None or lowest > best[0]:
            weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            best = lowest, torch.from_numpy(np.flatnonzero(used)), weights
        if lowest >= threshold or n_left == 2:
            break
        module.live[int(np.where(used, scores, np.inf).argmin())] = False
        fit()
    _, keep, weights = best
    return pd.DataFrame(rows), keep.to(module.live.device), weights
