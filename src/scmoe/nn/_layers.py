"""Layers that the networks share: activations, batch normalisation and dense layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping


T = TypeVar("T")


def choose(choices: Mapping[str, T], name: str, parameter: str) -> T:
    """The choice called ``name``; ValueError that lists all choices for an unknown one."""
    if name not in choices:
        names = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{parameter}` is {name!r}; it must be one of {names}.")
    return choices[name]


class _Lone:
    """In training, a batch without spread is normalised as outside of training.

    One cell has no variance, and torch refuses it. Its batch takes the running statistics
    and leaves them as they are.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each feature or channel of ``(n, ...)``."""
        if self.training and len(x) < 2:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class BatchNorm1d(_Lone, nn.BatchNorm1d):
    """Normalises the features of cells, ``(n, d)``."""


class BatchNorm2d(_Lone, nn.BatchNorm2d):
    """Normalises the channels of images, ``(n, channels, height, width)``."""


ACTIVATIONS = {"elu": F.elu, "relu": F.relu}
"""Activations that the papers use, by name."""


class MLP(nn.Module):
    """Dense layers with an activation and dropout between them; the last layer is linear.

    Parameters
    ----------
    n_in, n_hidden, n_out
        Sizes of the input, of every hidden layer and of the output.
    n_layers
        Number of hidden layers; 0 makes a linear map.
    dropout
        Share of hidden units dropped. It acts only where :meth:`forward` is told so:
        DEPICT compares a clean pass and a noisy pass of one network in one step, so the
        module's ``training`` flag cannot decide.
    activation
        One of ``"elu"``, ``"relu"``.
    batch_norm
        Normalise every hidden layer over the batch, before the activation. A batch of one
        cell is normalised by the running statistics, in training too.

    Raises
    ------
    ValueError
        For an unknown activation.
    """

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_out: int,
        *,
        n_layers: int,
        dropout: float = 0.0,
        activation: str = "elu",
        batch_norm: bool = False,
    ):
        super().__init__()
        sizes = [n_in, *[n_hidden] * n_layers]
        self.hidden = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.norms = nn.ModuleList(
            BatchNorm1d(n_hidden) if batch_norm else nn.Identity() for _ in range(n_layers)
        )
        self.out = nn.Linear(sizes[-1], n_out)
        self.dropout = dropout
        self.activation = choose(ACTIVATIONS, activation, "activation")

    def forward(self, x: torch.Tensor, *, noisy: bool = False) -> torch.Tensor:
        """Map ``(n, n_in)`` to ``(n, n_out)``; ``noisy`` switches dropout on."""
        return self.out(self.features(x, noisy=noisy))

    def features(self, x: torch.Tensor, *, noisy: bool = False) -> torch.Tensor:
        """Map ``(n, n_in)`` to what the last layer sees, ``(n, n_hidden)``."""
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = F.dropout(self.activation(norm(layer(x))), self.dropout, training=noisy)
        return x

    def clean_and_noisy(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What :meth:`forward` gives without dropout and with it, not after ``batch_norm``.

        Layers are small, so two passes would cost twice as much as one of twice the rows.
        """
        if not self.dropout or not self.hidden:
            out = self(x)
            return out, out
        first, *others = self.hidden
        clean = noisy = self.activation(first(x))
        for layer in others:
            both = torch.cat([clean, F.dropout(noisy, self.dropout)])
            clean, noisy = self.activation(layer(both)).chunk(2)
        return self.out(torch.cat([clean, F.dropout(noisy, self.dropout)])).chunk(2)
