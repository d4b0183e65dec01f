"""A layer of experts with stacked weights: each cell passes through its own expert only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from scmoe.nn._layers import ACTIVATIONS, Activation, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDE = 50_000
"""Number of weights of an expert above which one product per expert is faster than tiles."""


class Routing(NamedTuple):
    """Positions of the cells when they are laid out in tiles of one expert each."""

    tile_expert: torch.Tensor
    """Expert of each tile, ``(n_tiles,)`` int64."""
    slot: torch.Tensor
    """Position of each cell in the flattened tiles, ``(n_cells,)`` int64."""


def route(expert: torch.Tensor, n_experts: int, tile: int) -> Routing:
    """Lay cells out in tiles so that no tile mixes experts.

    There are at most ``n_cells / tile + n_live`` tiles, where ``n_live`` is the number of
    experts with cells: an expert without cells costs nothing, and an expert with many cells
    does not force padding on the others. On a GPU there are ``n_cells / tile + n_experts`` tiles,
    some of them empty: waiting for the exact number would cost more.

    Parameters
    ----------
    expert
        Expert of each cell, ``(n_cells,)`` int64.
    n_experts
        Number of experts.
    tile
        Number of cells in a tile.
    """
    count = expert.new_zeros(n_experts).index_add_(0, expert, torch.ones_like(expert))
    n_tiles = (count + tile - 1) // tile
    end = n_tiles.cumsum(0)
    total = int(end[-1]) if expert.device.type == "cpu" else len(expert) // tile + n_experts
    tiles = torch.arange(total, device=expert.device)
    tile_expert = torch.searchsorted(end, tiles, right=True).clamp_max(n_experts - 1)
    first_slot = (end - n_tiles) * tile
    first_cell = count.cumsum(0) - count
    order = expert.argsort(stable=True)
    owner = expert[order]
    rank = torch.arange(len(expert), device=expert.device) - first_cell[owner]
    slot = torch.empty_like(order)
    slot[order] = first_slot[owner] + rank
    return Routing(tile_expert, slot)


def piecewise(
    through: Callable[[int, torch.Tensor], torch.Tensor],
    rows: torch.Tensor,
    expert: torch.Tensor,
    n_experts: int,
    shape: tuple[int, ...],
) -> torch.Tensor:
    """Pass each row through its own expert, together with the other rows of that expert.

    Parameters
    ----------
    through
        Maps ``k`` and the rows ``(m, ...)`` of expert ``k`` to their results; not called for
        experts without rows.
    rows
        ``(n, ...)``.
    expert
        Expert of each row, ``(n,)`` int64.
    n_experts
        Number of experts.
    shape
        Shape of the result for one row.

    Returns
    -------
    ``(n, *shape)``, in the order of the input.
    """
    order = expert.argsort(stable=True)
    sizes = torch.bincount(expert, minlength=n_experts).tolist()
    pieces = rows.index_select(0, order).split(sizes)
    done = [through(k, piece) for k, piece in enumerate(pieces) if len(piece)]
    # the empty tensor keeps shape and gradient where there are no rows
    done = torch.cat([rows.new_zeros(0, *shape), *done])
    return done.index_select(0, order.argsort())


def stacked(
    decode: Callable[[torch.Tensor, Sequence[torch.Tensor], Sequence[torch.Tensor]], torch.Tensor],
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    rows: torch.Tensor,
    expert: torch.Tensor,
    shape: tuple[int, ...],
) -> torch.Tensor:
    """Decode each row with the weights of its own expert; see :func:`piecewise`.

    Parameters
    ----------
    decode
        Maps rows, and the weights and biases of one expert, to their results.
    weights, biases
        Of each layer, with the expert as the first axis.
    rows, expert, shape
        As in :func:`piecewise`.
    """
    # unbound once: indexing inside the loop would make, for each expert, a gradient as large as
    # all experts together
    n_experts = len(weights[0])
    weights = list(zip(*(weight.unbind() for weight in weights), strict=True))
    biases = list(zip(*(bias.unbind() for bias in biases), strict=True))

    def through(k: int, piece: torch.Tensor) -> torch.Tensor:
        return decode(piece, weights[k], biases[k])

    return piecewise(through, rows, expert, n_experts, shape)


def check_latent_sizes(n_latents: Sequence[int]) -> tuple[int, ...]:
    """Return the latent sizes of the experts; ValueError unless they are whole and above 0."""
    sizes = tuple(n_latents)
    if not sizes or any(int(size) != size or size < 1 for size in sizes):
        raise ValueError(
            f"`n_latents` is {sizes}; it must be one whole number above 0 for each expert."
        )
    return tuple(int(size) for size in sizes)


class Experts(nn.Module):
    """K decoders as one module, the mixture-of-experts decoder of MoE-Sim-VAE.

    The weights of layer ``l`` of all experts are one tensor ``(K, in, out)``. A batch is cut
    into tiles of cells with the same expert, so one batched matrix product per layer serves
    all experts, and the cost of a cell does not depend on K. A tile needs a copy of the weights
    of its expert, so wide experts decode their cells one expert after the other instead.

    Parameters
    ----------
    n_experts
        K.
    n_in, n_hidden, n_out
        Sizes of the code, of the hidden layers and of the output.
    n_layers
        Number of hidden layers; 0 makes every expert a linear map.
    activation
        ``"elu"`` or ``"relu"``. The last layer is linear: the ELU that the supplement of the
        paper prints cannot reach the lower end of a sigmoid.
    tile
        Number of cells in a tile.

    Raises
    ------
    ValueError
        An unknown activation.
    """

    def __init__(
        self,
        n_experts: int,
        n_in: int,
        n_hidden: int,
        n_out: int,
        *,
        n_layers: int,
        activation: Activation = "elu",
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
        if self.n_experts == 1:
            return self._decode(z, [w[0] for w in self.weights], [b[0] for b in self.biases])
        if sum(weight[0].numel() for weight in self.weights) > WIDE:
            shape = (self.weights[-1].shape[2],)
            return stacked(self._decode, self.weights, self.biases, z, expert, shape)
        routing = route(expert, self.n_experts, self.tile)
        h = z.new_zeros(len(routing.tile_expert) * self.tile, z.shape[1])
        h = h.index_copy(0, routing.slot, z).view(-1, self.tile, z.shape[1])
        weights = [weight.index_select(0, routing.tile_expert) for weight in self.weights]
        biases = [bias.index_select(0, routing.tile_expert) for bias in self.biases]
        return self._decode(h, weights, biases).flatten(0, 1).index_select(0, routing.slot)

    def features(self, z: torch.Tensor, k: int) -> torch.Tensor:
        """Return the input of the last layer of expert ``k`` for codes, ``(n, n_hidden)``."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = self.activation(torch.addmm(bias[k], z, weight[k]))
        return z

    def _decode(
        self,
        h: torch.Tensor,
        weights: Sequence[torch.Tensor],
        biases: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Apply the layers of one expert to ``(n, n_in)``, or of one expert to each tile."""
        last, affine = len(weights) - 1, torch.addmm if h.ndim == 2 else torch.baddbmm
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = affine(bias, h, weight)
            if i < last:
                h = self.activation(h)
        return h
