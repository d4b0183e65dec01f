"""Layers that the networks share: activations, batch normalisation and dense layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

Activation = Literal["elu", "relu"]

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"elu": F.elu, "relu": F.relu}
"""Activation functions of the papers, by name."""


def choose(choices: Mapping[str, T], name: str, parameter: str) -> T:
    """Return the choice called ``name``; an unknown name raises ValueError with all choices."""
    if name not in choices:
        names = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{parameter}` is {name!r}; it must be one of {names}.")
    return choices[name]


def choose_word(words: object, word: str, parameter: str) -> str:
    """Return ``word`` if it is one of a ``Literal`` type; else raise ValueError."""
    return choose({choice: choice for choice in get_args(words)}, word, parameter)


class _SingleCellNorm:
    """Batch normalisation that accepts a batch of one cell in training.

    A single cell has no variance, and torch refuses it. Here it is normalised by the running
    statistics, which stay as they are.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each feature or channel of ``(n, ...)``."""
        if self.training and len(x) < 2:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class BatchNorm1d(_SingleCellNorm, nn.BatchNorm1d):
    """Batch normalisation of features, ``(n, d)``."""


class BatchNorm2d(_SingleCellNorm, nn.BatchNorm2d):
    """Batch normalisation of image channels, ``(n, channels, height, width)``."""


class MLP(nn.Module):
    """Multilayer perceptron: dense layers with activation and dropout; the last is linear.

    Parameters
    ----------
    n_in, n_hidden, n_out
        Sizes of the input, of each hidden layer and of the output.
    n_layers
        Number of hidden layers; 0 makes a linear map.
    dropout
        Share of hidden units dropped. Dropout acts only where :meth:`forward` is called with
        ``noisy=True``: DEPICT compares a clean and a noisy pass of one network in one step, so
        the ``training`` flag of the module cannot decide.
    activation
        ``"elu"`` or ``"relu"``.
    batch_norm
        Normalise each hidden layer over the batch, before the activation. A batch of one cell is
        normalised by the running statistics, in training too.

    Raises
    ------
    ValueError
        An unknown activation.
    """

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_out: int,
        *,
        n_layers: int,
        dropout: float = 0.0,
        activation: Activation = "elu",
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
        """Map ``(n, n_in)`` to the input of the last layer, ``(n, n_hidden)``."""
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = F.dropout(self.activation(norm(layer(x))), self.dropout, training=noisy)
        return x

    def clean_and_noisy(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs without and with dropout; not for networks with ``batch_norm``.

        The layers are small, so two passes would cost twice as much as one of twice the rows.
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
