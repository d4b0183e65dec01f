"""K complete VAEs of dense layers, each with a latent size of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from scmoe.nn._experts import Experts


def check_latent_sizes(n_latents: Sequence[int]) -> tuple[int, ...]:
    """The latent size of each expert; ValueError unless there are some, all whole and above 0."""
    sizes = tuple(n_latents)
    if not sizes or any(int(size) != size or size < 1 for size in sizes):
        raise ValueError(
            f"`n_latents` is {sizes}; it must be one whole number above 0 for each expert."
        )
    return tuple(int(size) for size in sizes)


def own_dimensions(n_latents: Sequence[int]) -> torch.Tensor:
    """Which of the ``max(n_latents)`` columns are an expert's own, ``(K, max d_k)`` bool."""
    return torch.arange(max(n_latents)) < torch.tensor(n_latents).unsqueeze(1)


class DenseVAEs(nn.Module):
    """K encoders and decoders as one module (the experts of Santos, section III.A).

    The weights of a layer of all experts are one tensor, and each cell passes through its own
    expert only; see :class:`Experts`. Experts with small latent spaces leave the last columns of
    a code empty.

    Parameters
    ----------
    n_input
        Features.
    n_latents
        Latent size of each expert, d_k; K is their number.
    n_hidden, n_layers
        Units and number of the hidden layers of each encoder, and of each decoder.
    activation
        One of ``"elu"``, ``"relu"``.

    Raises
    ------
    ValueError
        For an unknown activation, and unless every latent size is at least 1.
    """

    def __init__(
        self,
        n_input: int,
        n_latents: Sequence[int],
        *,
        n_hidden: int,
        n_layers: int,
        activation: str = "elu",
    ):
        super().__init__()
        self.n_latents = check_latent_sizes(n_latents)
        self.n_experts, widest = len(self.n_latents), max(self.n_latents)
        shape = {"n_layers": n_layers, "activation": activation}
        self.encoders = Experts(self.n_experts, n_input, n_hidden, 2 * widest, **shape)
        self.decoders = Experts(self.n_experts, widest, n_hidden, n_input, **shape)
        self.register_buffer("own", own_dimensions(self.n_latents), persistent=False)

    def encode(self, x: torch.Tensor, expert: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of the code of each cell ``(n, n_input)`` in its expert.

        Both ``(n, max d_k)``; 0 in the columns that the expert has not.
        """
        loc, log_var = self.encoders(x, expert).chunk(2, dim=1)
        own = self.own[expert]
        return loc.masked_fill(~own, 0), log_var.masked_fill(~own, 0)

    def decode(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Codes ``(n, max d_k)`` through their experts, ``(n, n_input)``."""
        return self.decoders(z.masked_fill(~self.own[expert], 0), expert)

    @torch.no_grad()
    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        self.n_latents = tuple(self.n_latents[k] for k in order.tolist())
        for experts in (self.encoders, self.decoders):
            for tensor in (*experts.weights, *experts.biases):
                tensor.copy_(tensor[order])
        self.own.copy_(self.own[order])
