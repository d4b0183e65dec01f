"""What Santos' mixture learns before it is built: latent sizes, clusters, and a manager."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from scmoe._core.random import seeded
from scmoe._estimate import (
    check_learned,
    decode,
    encode,
    find_clusters,
    find_group_dims,
    find_latent_dim,
    large_latent,
    mixture_clusters,
    train_autoencoder,
    tree_clusters,
)
from scmoe.train import fit

if TYPE_CHECKING:
    from scmoe._estimate import Architecture, Found, LatentDim, Schedule
    from scmoe.model._moevae_module import MoEVAEModule
    from scmoe.nn import Autoencoders
    from scmoe.train import Augment

logger = logging.getLogger("scmoe")

SPACES = ("values", "decoded", "codes")
"""What clusters are sought in."""

LEAST_LATENT = 2
"""Latent size of the smallest expert: one dimension draws no more than a line."""


@dataclass(frozen=True, eq=False)
class Pretraining:
    """What is known before the mixture is built.

    Parameters
    ----------
    shared
        The VAE of all cells, with the latent size that was found.
    codes
        Its codes, ``(n, n_shared)`` float32.
    clusters
        The clusters that were found, and their UMAP.
    n_latents
        Latent size of each expert.
    latent, of_clusters
        The curves behind the latent sizes, of all cells and of each cluster; None where the
        sizes were given.
    """

    shared: Autoencoders
    codes: np.ndarray
    clusters: Found
    n_latents: tuple[int, ...]
    latent: LatentDim | None
    of_clusters: list[LatentDim] | None

    @property
    def evidence(self) -> dict[str, Any]:
        """The record of both estimates, as plain values that h5ad can hold."""
        evidence = {"n_clusters": self.clusters.evidence}
        size = np.bincount(self.clusters.labels[self.clusters.labels >= 0])
        experts = {"n_cells": size, "n_latent": self.n_latents}
        if self.latent is not None:
            evidence["n_latent"] = self.latent.evidence
        if self.of_clusters is not None:
            experts["needed"] = [found.n_latent for found in self.of_clusters]
        evidence["experts"] = pd.DataFrame(experts, index=[str(k) for k in range(len(size))])
        return evidence


def pretrain(
    values: np.ndarray,
    scaled: np.ndarray,
    architecture: Architecture,
    schedule: Schedule,
    *,
    n_experts: int | None,
    n_latents: list[int] | None,
    threshold: float,
    space: str,
    method: str,
    settings: dict[str, Any],
    augment: Augment | None,
    seed: int,
    progress: bool,
) -> Pretraining:
    """Run steps 1 to 5 and 7 of Santos' pretraining (section III.B).

    Parameters
    ----------
    values, scaled
        Cells x features float32, as they are and as the VAEs see them.
    architecture, schedule
        Of both VAEs.
    n_experts
        Number of clusters if it is known: the tree is cut there, or where there is none, or it
        has fewer, a Gaussian mixture on a UMAP.
    n_latents
        Latent sizes if they are known: one, or one for each expert.
    threshold
        Share of the variance that the latent dimension finder keeps.
    space
        Clusters are sought among the ``"values"`` themselves, the ``"codes"``, or what the VAE
        makes of them, ``"decoded"``.
    method, settings
        How the number of clusters is estimated, see :func:`scmoe.tl.n_clusters`.
    augment
        Random changes of cells in the training of the VAEs.
    seed
        Of all that is drawn.
    progress
        Show progress bars.
    """
    latent = large = None
    if n_latents is None:
        n_large = large_latent(scaled.shape[1])
        logger.info("Step 1 of 9: a VAE with %d latent dimensions.", n_large)
        network, _ = train_autoencoder(
            scaled,
            n_large,
            architecture,
            schedule,
            augment=augment,
            seed=seed,
            progress=progress,
            description=f"1/9 VAE, {n_large} dimensions",
        )
        large = encode(network, scaled)
        check_learned(large)
        latent = find_latent_dim(large, threshold)
        logger.info("Step 2 of 9: %d latent dimensions are needed.", latent.n_latent)
    n_shared = latent.n_latent if n_latents is None else max(n_latents)
    logger.info("Step 3 of 9: a VAE with %d latent dimensions.", n_shared)
    shared, _ = train_autoencoder(
        scaled,
        n_shared,
        architecture,
        schedule,
        augment=augment,
        seed=seed,
        progress=progress,
        description=f"3/9 VAE, {n_shared} dimensions",
    )
    codes = encode(shared, scaled)
    logger.info("Steps 4 and 5 of 9: clusters.")
    if space == "decoded":
        points = decode(shared, codes)
    else:
        points = codes if space == "codes" else values
    if n_experts is None:
        clusters = find_clusters(points, method=method, seed=seed, progress=progress, **settings)
    else:
        clusters = known_clusters(points, n_experts, method, seed, progress, settings)
    n_found = clusters.n_clusters
    if n_latents is None:
        logger.info("Step 7 of 9: latent dimensions of %d clusters.", n_found)
        labels = np.where(clusters.labels < 0, None, clusters.labels.astype(object))
        dims = find_group_dims(large, labels, threshold)
        # a cluster of a single cell, or of cells that are all the same, has none of its own
        of_clusters = [dims[k] or latent for k in range(n_found)]
        n_latents = [min(max(found.n_latent, LEAST_LATENT), n_shared) for found in of_clusters]
    else:
        of_clusters = None
        if len(n_latents) not in (1, n_found):
            raise ValueError(
                f"`n_latent` names {len(n_latents)} latent sizes, but there are only {n_found} "
                "clusters with cells; ask for fewer, or give one size for all."
            )
        n_latents = list(n_latents) * n_found if len(n_latents) == 1 else list(n_latents)
    return Pretraining(shared, codes, clusters, tuple(n_latents), latent, of_clusters)


def known_clusters(
    points: np.ndarray,
    n: int,
    method: str,
    seed: int,
    progress: bool,
    settings: dict[str, Any],
) -> Found:
    """Clusters whose number is known; see :func:`pretrain`."""
    if method == "tree":
        found = tree_clusters(points, n, seed=seed, progress=progress, **settings)
        if found.n_clusters == n:
            return found
        logger.warning(
            "The density tree finds no more than %d populations, not %d: the clusters are those "
            "of a Gaussian mixture.",
            found.n_clusters,
            n,
        )
    return mixture_clusters(points, n, seed=seed)


def teach_manager(
    module: MoEVAEModule,
    scaled: np.ndarray,
    clusters: Found,
    schedule: Schedule,
    *,
    augment: Augment | None,
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    """Step 6: the manager learns the soft labels of all cells that are no noise.

    Parameters
    ----------
    module
        Whose manager is trained, in place.
    scaled
        Cells x features float32.
    clusters
        The clusters that it shall learn.
    schedule
        How it is trained.
    augment
        Random changes of cells.
    seed, progress
        As in :func:`pretrain`.

    Returns
    -------
    The history.
    """
    logger.info("Step 6 of 9: the manager learns the clusters.")
    clear = clusters.labels >= 0
    data = {
        "index": torch.from_numpy(np.flatnonzero(clear)),
        "x": torch.from_numpy(np.ascontiguousarray(scaled[clear], dtype=np.float32)),
        "target": torch.from_numpy(clusters.proba[clear]),
    }
    with seeded(seed):
        return fit(
            _Pupil(module),
            data,
            max_epochs=schedule.epochs(len(data["x"])),
            batch_size=schedule.batch_size,
            lr=schedule.lr,
            rate="manager_lr",
            cycle=schedule.cycle,
            augment=augment,
            description="6/9 Manager",
            progress=progress,
            accelerator=schedule.accelerator,
        )


class _Pupil(nn.Module):
    """A manager that learns soft labels: the Kullback-Leibler divergence from them."""

    def __init__(self, module: MoEVAEModule):
        super().__init__()
        self.module = module

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Mean over the batch."""
        log_proba = self.module.manage(batch["x"]).log_softmax(1)
        divergence = nn.functional.kl_div(log_proba, batch["target"], reduction="batchmean")
        return {"loss": divergence}
