"""Encoder, gate and experts of MoE-Sim-VAE started from groups of cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR

from scmoe.model._moesimvae_module import LEARNED
from scmoe.nn import (
    Experts,
    Layer,
    constant,
    discriminants,
    group_moments,
    inverse_root,
    newton_step,
    principal_axes,
    ridge,
    shrunk,
)
from scmoe.train import one_cycle

if TYPE_CHECKING:
    from scmoe.model._moesimvae_module import MoESimVAEModule

SPARE = 2
"""Experts beside those of the groups, for populations that the groups have missed."""

N_STEPS = 200
"""Optimiser steps of all parts together after a start."""

BATCH_SIZE = 512
"""Cells of their batches, and of those of the gate."""

LR = 2e-3
"""Largest learning rate of these steps ..."""

LR_OF_COMPONENTS = 5e-4
"""... and where features vary little beside the first, whose solved layers are large."""

GATE_STEPS = 300
"""Steps in which the gate alone learns the groups in the end."""

GATE_LR = 3e-3
"""Their largest learning rate."""

FLOP_OF_A_GPU_START = 1e11
"""Floating-point operations that a core does in about the time that a GPU takes to start."""

MOST = 3_000
"""Cells of a group that are looked at."""

RARE = 1e-3
"""Share of the cells that each spare expert expects."""

NOISE = 0.3
"""Standard deviation of codes whose noise is learned, to start with."""


@dataclass(frozen=True)
class Cells:
    """Cells that a model starts from.

    Parameters
    ----------
    scaled
        Scaled markers, ``(n, n_input)``.
    batch
        Batch of each cell, ``(n, 1)``.
    membership
        Share of each group, ``(n, n_groups)``; rows sum to 1.
    weight
        How many cells each of these stands for, ``(n,)``.
    """

    scaled: torch.Tensor
    batch: torch.Tensor
    membership: torch.Tensor
    weight: torch.Tensor

    def to(self, device: torch.device) -> Cells:
        """Copy the cells to another device."""
        parts = (self.scaled, self.batch, self.membership, self.weight)
        return Cells(*(part.to(device) for part in parts))


def choose_cells(membership: np.ndarray, cells: np.ndarray, rng: np.random.Generator):
    """Return at most ``MOST`` of the cells of each group, and what each of them stands for.

    Parameters
    ----------
    membership
        Share of each group, ``(n_obs, n_groups)``.
    cells
        Indices that may be chosen.
    rng
        Draws them.

    Returns
    -------
    Sorted indices, and their weights; these sum to the number of cells.
    """
    group = membership[cells].argmax(1)
    chosen, weight = [], []
    for k in np.unique(group):
        own = cells[group == k]
        some = own if len(own) <= MOST else rng.choice(own, MOST, replace=False)
        chosen.append(some)
        weight.append(np.full(len(some), len(own) / len(some)))
    chosen, weight = np.concatenate(chosen), np.concatenate(weight)
    order = chosen.argsort()
    return chosen[order], weight[order]


@torch.no_grad()
def start(module: MoESimVAEModule, cells: Cells, rng: np.random.Generator) -> None:
    """Start all parts from groups.

    Parameters
    ----------
    module
        The networks, whose hidden layers are random and stay so; changed in place.
    cells
        With as many groups as there are experts, or fewer.
    rng
        Draws the noise of codes.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    cells = cells.to(module.low.device)
    start_encoder(module, cells, generator)
    codes = module.encode(cells.scaled, cells.batch)
    noise = NOISE if module.code_noise == LEARNED else module.code_noise
    codes = codes + noise * draw(codes, generator)
    start_gate(module, codes, cells)
    start_experts(module, codes, cells)


def draw(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return standard normal numbers of the shape of a tensor; the same on any device."""
    return torch.randn(like.shape, generator=generator).to(like)


def start_encoder(module: MoESimVAEModule, cells: Cells, generator: torch.Generator) -> None:
    """Let the codes be principal components, white within the groups.

    A panel may have fewer markers than there are codes. Then the components are turned into the
    space of the codes at random, so that all codes have the same spread and no code is empty.
    """
    x, weight, n_latent = cells.scaled, cells.weight, module.means.shape[1]
    features = module.encoder.features(module.encoder_input(x, cells.batch))
    target = x @ principal_axes(x, weight, n_latent)
    _, _, within = group_moments(target, cells.membership, weight)
    target = target @ inverse_root(shrunk(within))
    n = target.shape[1]
    if n < n_latent:
        turn = torch.linalg.qr(torch.randn(n_latent, n_latent, generator=generator)).Q
        target = math.sqrt(n_latent / n) * target @ turn[:n].to(target)
    layer = ridge(features, target, weight)
    out = module.encoder.out
    out.weight[:n_latent] = layer.weights.T
    out.bias[:n_latent] = layer.bias
    if module.code_noise == LEARNED:
        out.weight[n_latent:] = 0
        out.bias[n_latent:] = float(np.log(NOISE))


def start_gate(module: MoESimVAEModule, codes: torch.Tensor, cells: Cells) -> None:
    """Let the gate be a linear discriminant analysis of the groups in its hidden features.

    A spare expert is a rare group with the mean of all cells.
    """
    n_groups = cells.membership.shape[1]
    features, out = module.gate.features(codes), module.gate.out
    layer = discriminants(features, cells.membership, cells.weight, module.gate.dropout)
    out.weight[:n_groups] = layer.weights.T
    out.bias[:n_groups] = layer.bias
    # logits are relative to those of the mean
    out.weight[n_groups:] = 0
    out.bias[n_groups:] = float(np.log(RARE))


def start_experts(module: MoESimVAEModule, codes: torch.Tensor, cells: Cells) -> None:
    """Let each expert say its group: its mean, and the best line in its hidden features."""
    if not can_start_experts(module):
        return
    codes = module.with_batch(codes, cells.batch)
    n_groups = cells.membership.shape[1]
    # a spare one has the cells of all groups, of which as many will do
    evenly = torch.zeros_like(cells.weight)
    evenly[:: max(1, len(evenly) // MOST)] = 1
    for k in range(module.n_experts):
        weight = cells.weight * (cells.membership[:, k] if k < n_groups else evenly)
        some = weight > 0.01
        if not some.any():
            continue
        weight, target = weight[some], cells.scaled[some]
        features = module.experts.features(codes[some], k)
        layer = constant(target, weight, features.shape[1], module.likelihood)
        set_expert(
            module.experts, k, newton_step(layer, features, target, weight, module.likelihood)
        )


def can_start_experts(module: MoESimVAEModule) -> bool:
    """Whether the experts are dense, and their last layer can be solved for."""
    return isinstance(module.experts, Experts)


def is_quick(module: MoESimVAEModule) -> bool:
    """Whether a core has done the default steps before a GPU is ready.

    A step costs six operations a weight and cell, and a cell sees one expert.
    """
    of_experts = sum(p.numel() for p in module.experts.parameters())
    n_weights = sum(p.numel() for p in module.parameters()) - of_experts
    n_weights += of_experts / module.n_experts
    return 6 * n_weights * N_STEPS * BATCH_SIZE < FLOP_OF_A_GPU_START


def set_expert(experts: Experts, k: int, layer: Layer) -> None:
    """Give an expert its last layer."""
    experts.weights[-1][k] = layer.weights
    experts.biases[-1][k] = layer.bias


def finish(module: MoESimVAEModule, cells: Cells) -> None:
    """Teach the gate alone on codes as they are predicted by, then improve the experts."""
    cells = cells.to(module.low.device)
    module.eval()
    with torch.no_grad():
        codes = module.encode(cells.scaled, cells.batch)
    module.train()
    teach_gate(module, codes, cells)
    module.eval()
    if can_start_experts(module):
        refit_experts(module, codes, cells)


@torch.no_grad()
def refit_experts(module: MoESimVAEModule, codes: torch.Tensor, cells: Cells) -> None:
    """Improve the last layer of each expert by one Newton step on the cells that it owns."""
    owner = module.gate(codes).argmax(1)
    codes = module.with_batch(codes, cells.batch)
    experts = module.experts
    for k in owner.unique().tolist():
        own = owner == k
        layer = Layer(experts.weights[-1][k], experts.biases[-1][k, 0])
        features = experts.features(codes[own], k)
        layer = newton_step(
            layer, features, cells.scaled[own], cells.weight[own], module.likelihood
        )
        set_expert(experts, k, layer)


def teach_gate(module: MoESimVAEModule, codes: torch.Tensor, cells: Cells) -> None:
    """Teach the gate alone the groups, by their cross-entropy on codes ``(n, n_latent)``.

    Small groups are drawn more often.
    """
    n, n_groups = cells.membership.shape
    target = F.pad(cells.membership, (0, module.n_experts - n_groups))
    group = cells.membership.argmax(1)
    size = torch.zeros(n_groups).to(codes).index_add(0, group, cells.weight)
    chance = (cells.weight * size[group] ** -0.5).cpu()
    batch_size = min(BATCH_SIZE, n)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(chance, GATE_STEPS * batch_size, True, generator=generator)
    optimizer = torch.optim.Adam(module.gate.parameters(), lr=GATE_LR, fused=True)
    scheduler = LambdaLR(optimizer, lambda step: one_cycle(step / GATE_STEPS))
    for rows in drawn.view(GATE_STEPS, batch_size).to(codes.device):
        loss = F.cross_entropy(module.gate(codes[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
