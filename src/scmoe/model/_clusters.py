"""Order, retire and describe the clusters when a training is done."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from scmoe._core.text import listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scmoe.model._module import DescribedModule
    from scmoe.model._moesimvae_module import MoESimVAEModule
    from scmoe.similarity import Target


N_DRAWS = 4096
"""Cells that are drawn of each cluster to see how their markers are distributed."""


class Description:
    """Moments of codes and of what the experts miss, gathered batch by batch.

    Parameters
    ----------
    module
        The trained module, whose buffers :meth:`write` fills.
    """

    def __init__(self, module: DescribedModule):
        n_experts, d = module.means.shape
        n_panel = module.residuals.shape[1]
        self.module = module
        self.size = np.zeros(n_experts, dtype=int)
        self.weight = np.zeros(n_experts)
        self.weighted = np.zeros((n_experts, d))
        self.sum = np.zeros((n_experts, d))
        self.outer = np.zeros((n_experts, d, d))
        self.missed = np.zeros(module.spread.shape)
        self.missed_outer = np.zeros((n_experts, n_panel, n_panel))
        self.values: list[list[np.ndarray]] = [[] for _ in range(n_experts)]
        self.batches = np.zeros(module.batches.shape, dtype=int)
        self.sum_of_batch = np.zeros(module.offsets.shape)
        self.positions: list[np.ndarray] = []
        self.experts: list[np.ndarray] = []

    def add(self, outputs: dict[str, torch.Tensor]) -> None:
        """Look at a batch: outputs of the module's ``inference``."""
        module = self.module
        decoded = module.decode(**{name: outputs[name] for name in ("z", "expert", "batch")})
        missed = (outputs["scaled"] - decoded).numpy(force=True).astype(float)
        z, proba = (outputs[name].numpy(force=True).astype(float) for name in ("z", "proba"))
        expert = outputs["expert"].numpy(force=True)
        # a code in the space of its own expert says nothing of the others
        share = proba if module.one_space else np.eye(len(self.size))[expert]
        self.weight += share.sum(0)
        self.weighted += share.T @ z
        scaled = outputs["scaled"].numpy(force=True)
        batch = outputs["batch"].numpy(force=True).astype(int).ravel()
        np.add.at(self.batches, (expert, batch), 1)
        np.add.at(self.sum_of_batch, (expert, batch), z)
        self.experts.append(expert)
        self.positions.append(outputs["position"].numpy(force=True))
        for k in np.unique(expert):
            own = expert == k
            self.size[k] += own.sum()
            self.sum[k] += z[own].sum(0)
            self.outer[k] += z[own].T @ z[own]
            self.missed[k] += np.square(missed[own]).sum(0)
            if self.missed_outer.size:
                self.missed_outer[k] += missed[own].T @ missed[own]
                self.values[k].append(scaled[own])

    def write(self) -> None:
        """Fill sizes, means (eq. 6), covariances, residuals, quantiles and landmarks.

        Where each expert has a space of its own, the means are those of its own cells.

        A cluster of few cells borrows from the spread that clusters have on average: as much as
        if it had one more cell for each dimension.
        """
        size = self.size[:, None, None]
        means = self.weighted / np.maximum(self.weight, np.finfo(float).tiny)[:, None]
        cross = self.sum[:, :, None] * means[:, None]
        scatter = self.outer - cross - cross.transpose(0, 2, 1)
        scatter += size * means[:, :, None] * means[:, None]
        offsets = self._offsets()
        scatter -= np.einsum("kb,kbi,kbj->kij", self.batches, offsets, offsets)
        for name, value in {
            "size": self.size,
            "offsets": offsets,
            "batches": self.batches,
            "means": means,
            "covariances": _borrow(scatter, self.size),
            "spread": np.sqrt(self.missed / np.maximum(self.size, 1)[:, None]),
            "residuals": _borrow(self.missed_outer, self.size),
        }.items():
            buffer = getattr(self.module, name)
            buffer.copy_(torch.from_numpy(value))
        if self.missed_outer.size:
            self._write_quantiles()
        self.module.outliers.fit(np.concatenate(self.positions), np.concatenate(self.experts))

    def _offsets(self) -> np.ndarray:
        """From the mean of the codes of a cluster to those of its batches; 0 without cells."""
        mean = self.sum / np.maximum(self.size, 1)[:, None]
        of_batch = self.sum_of_batch / np.maximum(self.batches, 1)[:, :, None]
        return np.where(self.batches[:, :, None] > 0, of_batch - mean[:, None], 0.0)

    def _write_quantiles(self) -> None:
        """How markers are distributed among the cells of a cluster, and among cells drawn."""
        rng = np.random.default_rng(0)
        buffer = self.module.quantiles
        levels = np.linspace(0, 1, buffer.shape[2])
        for k in np.flatnonzero(self.size):
            batch = draw_batches(self.batches[np.full(N_DRAWS, k)], rng)
            drawn = self.module.draw(np.full(N_DRAWS, k), batch, rng)["scaled"].numpy(force=True)
            cells = np.concatenate(self.values[k])
            for i, values in enumerate((drawn, cells)):
                buffer[i, k] = torch.from_numpy(np.quantile(values, levels, axis=0))


def draw_batches(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One batch for each row of counts ``(n, n_batch)``, in proportion to them, ``(n,)``."""
    if counts.shape[1] == 1:  # no number is drawn where there is nothing to choose
        return np.zeros(len(counts), dtype=int)
    share = counts.cumsum(1) / counts.sum(1, keepdims=True)
    return (rng.random((len(counts), 1)) > share).sum(1)


def _borrow(scatter: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Covariances ``(K, d, d)`` from sums of squares, shrunk to the pooled one."""
    d = scatter.shape[1]
    pooled = scatter.sum(0) / size.sum()
    return (scatter + d * pooled) / (size + d)[:, None, None]


EMPTY_FIRST = 1e-6
"""Weight of an expert's size where F1 does not decide."""


def owners(positive: np.ndarray, expert: np.ndarray, n_experts: int) -> np.ndarray:
    """Return the expert of each class: the one whose cells are positive for the class.

    The loss teaches class c to expert c. Where another similarity has a say too, a population that
    nobody listed can come first to that expert, by the few of its cells that are positive by
    chance, and the class then settles elsewhere; its name must follow it. Cells that are positive
    for several classes teach nothing, but they count here.

    Parameters
    ----------
    positive
        What speaks for each class, ``(n, C)`` in [0, 1].
    expert
        Expert of each cell, ``(n,)`` int64.
    n_experts
        K, at least C.

    Returns
    -------
    ``(C,)`` int64, different experts, such that the sum of the F1 of positive cells and clusters
    is largest. Clusters that are positive for a class no more often than all cells are do not
    stand for it. A class without a cluster gets an expert without cells, -1 if none is left.
    """
    size = np.bincount(expert, minlength=n_experts)
    hits = np.stack([np.bincount(expert, p, n_experts) for p in positive.T])
    n_positive = positive.sum(0)[:, None]
    enriched = hits * len(expert) > n_positive * size
    f1 = np.divide(2 * hits, n_positive + size, out=np.zeros_like(hits), where=enriched)
    own = linear_sum_assignment(f1 - EMPTY_FIRST * size / len(expert), maximize=True)[1]
    classes = np.arange(len(own))
    return np.where((f1[classes, own] > 0) | (size[own] == 0), own, -1)


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
        As in :func:`finish_clusters`.
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


def finish_clusters(
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
