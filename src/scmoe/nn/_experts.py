"""One layer of experts with stacked weights: each cell passes through its own expert only."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from scmoe.nn._choices import choose
from scmoe.nn._mlp import ACTIVATIONS


class Routing(NamedTuple):
    """Where each cell sits when the cells are laid out in tiles of one expert each."""

    tile_expert: torch.Tensor
    """Expert of each tile, ``(n_tiles,)`` int64."""
    slot: torch.Tensor
    """Place of each cell in the flattened tiles, ``(n_cells,)`` int64."""


def route(expert: torch.Tensor, n_experts: int, tile: int) -> Routing:
    """Lay cells out in tiles so that no tile mixes experts.

    There are at most ``n_cells / tile + n_live`` tiles, where ``n_live`` is the number of
    experts that own a cell: an expert without cells costs nothing, and a popular expert
    does not force padding on the others.

    Parameters
    ----------
    expert
        Expert of each cell, ``(n_cells,)`` int64.
    n_experts
        Number of experts.
    tile
        Number of cells in a tile.
    """
    count = torch.bincount(expert, minlength=n_experts)
    n_tiles = (count + tile - 1) // tile
    tile_expert = torch.repeat_interleave(n_tiles)
    first_slot = (n_tiles.cumsum(0) - n_tiles) * tile
    first_cell = count.cumsum(0) - count
    order = expert.argsort(stable=True)
    owner = expert[order]
    rank = torch.arange(len(expert), device=expert.device) - first_cell[owner]
    slot = torch.empty_like(order)
    slot[order] = first_slot[owner] + rank
    return Routing(tile_expert, slot)


class Experts(nn.Module):
    """K decoders as one module (MoE-Sim-VAE's mixture-of-experts decoder).

    The weights of layer ``l`` of all experts are one tensor ``(K, in, out)``. A batch is cut
    into tiles of cells with the same expert, so one batched matrix product per layer serves
    every expert, and the cost of a cell does not depend on K.

    Parameters
    ----------
    n_experts
        K.
    n_in, n_hidden, n_out
        Sizes of the code, of the hidden layers and of the output.
    n_layers
        Number of hidden layers; 0 makes every expert a linear map.
    activation
        One of ``"elu"``, ``"relu"``. The last layer is linear: the ELU that the paper's
        supplement prints cannot reach the dark end of a sigmoid.
    tile
        Cells in a tile.

    Raises
    ------
    ValueError
        For an unknown activation.
    """

    def __init__(
        self,
        n_experts: int,
        n_in: int,
        n_hidden: int,
        n_out: int,
        *,
        n_layers: int,
        activation: str = "elu",
        tile: int = 16,
    ):
        super().__init__()
        sizes = [n_in, *[n_hidden] * n_layers, n_out]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            # the initialisation of torch.nn.Linear, expert by expert
            bound = 1 / math.sqrt(a)
            self.weights.append(torch.empty(n_experts, a, b).uniform_(-bound, bound))
            self.biases.append(torch.empty(n_experts, 1, b).uniform_(-bound, bound))
        self.n_experts = n_experts
        self.activation = choose(ACTIVATIONS, activation, "activation")
        self.tile = tile

    def forward(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Decode each code by its expert.

        Parameters
        ----------
        z
            Codes, ``(n_cells, n_in)``.
        expert
            Expert of each cell, ``(n_cells,)`` int64.

        Returns
        -------
        ``(n_cells, n_out)``, in the order of the input.
        """
        routing = route(expert, self.n_experts, self.tile)
        h = z.new_zeros(len(routing.tile_expert) * self.tile, z.shape[1])
        h = h.index_copy(0, routing.slot, z).view(-1, self.tile, z.shape[1])
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(
                bias.index_select(0, routing.tile_expert),
                h,
                weight.index_select(0, routing.tile_expert),
            )
            if i < last:
                h = self.activation(h)
        return h.flatten(0, 1).index_select(0, routing.slot)
