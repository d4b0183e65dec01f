"""What trained clusters look like: all that new cells are drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from scmoe.model._described import DescribedModule

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
