"""The arms of cpl-mixVAE: A autoencoders with stacked weights, one copy of a cell for each."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from scmoe.nn._layers import ACTIVATIONS, Activation, BatchNorm1d, choose


class ArmLinear(nn.Module):
    """One linear layer per arm, as one batched product.

    Parameters
    ----------
    n_arms
        Number of arms, A.
    n_in, n_out
        Sizes of the input and of the output.
    """

    def __init__(self, n_arms: int, n_in: int, n_out: int):
        super().__init__()
        # the initialisation of torch.nn.Linear, arm by arm
        bound = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(n_arms, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_arms, 1, n_out).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(A, n, n_in)`` to ``(A, n, n_out)``."""
        return torch.baddbmm(self.bias, x, self.weight)


class ArmNorm(nn.Module):
    """Batch normalisation without scale and shift, separate for each arm.

    Parameters
    ----------
    n_arms, n_features
        Number of arms, A, and of features.
    """

    def __init__(self, n_arms: int, n_features: int):
        super().__init__()
        self.norm = BatchNorm1d(n_arms * n_features, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(A, n, n_features)``."""
        n_arms, n, n_features = x.shape
        flat = self.norm(x.transpose(0, 1).reshape(n, n_arms * n_features))
        return flat.view(n, n_arms, n_features).transpose(0, 1)


class ArmMLP(nn.Module):
    """Hidden layers of each arm: linear, activation, batch normalisation.

    Parameters
    ----------
    n_arms
        Number of arms, A.
    sizes
        Sizes of the input and of each layer.
    activation
        ``"elu"`` or ``"relu"``.
    """

    def __init__(self, n_arms: int, sizes: list[int], activation: Activation):
        super().__init__()
        self.layers = nn.ModuleList(
            ArmLinear(n_arms, a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.norms = nn.ModuleList(ArmNorm(n_arms, b) for b in sizes[1:])
        self.activation = choose(ACTIVATIONS, activation, "activation")

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map ``(A, n, sizes[0])`` to ``(A, n, sizes[-1])``."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = norm(self.activation(layer(h)))
        return h


class Arms(nn.Module):
    """Networks of the arms of cpl-mixVAE (equations as reconstructed from MMIDAS).

    Each arm has an encoder with a narrow last layer, a head for the category, a head for the
    state given cell and category, and a decoder of category and state.

    Parameters
    ----------
    n_arms
        Number of arms, A.
    n_input, n_output
        Number of input features, and of decoder outputs per cell.
    n_categories
        Number of categories, K.
    n_state
        Dimensions of the state.
    n_hidden, n_layers
        Units and number of the hidden layers of each encoder, and of each decoder.
    n_embed
        Units of the narrow layer.
    activation
        ``"elu"`` or ``"relu"``.
    input_dropout, state_dropout
        Share of the features, and of the states before decoding, that are dropped in training.

    Raises
    ------
    ValueError
        An unknown activation.
    """

    def __init__(
        self,
        n_arms: int,
        n_input: int,
        n_output: int,
        n_categories: int,
        n_state: int,
        *,
        n_hidden: int,
        n_layers: int,
        n_embed: int,
        activation: Activation,
        input_dropout: float,
        state_dropout: float,
    ):
        super().__init__()
        self.n_arms, self.n_categories, self.n_state = n_arms, n_categories, n_state
        self.n_embed = n_embed
        hidden = [n_hidden] * n_layers
        self.encoder = ArmMLP(n_arms, [n_input, *hidden, n_embed], activation)
        self.category = ArmLinear(n_arms, n_embed, n_categories)
        self.state = ArmLinear(n_arms, n_embed + n_categories, 2 * n_state)
        self.decoder = ArmMLP(n_arms, [n_categories + n_state, n_embed, *hidden], activation)
        self.out = ArmLinear(n_arms, n_hidden if n_layers else n_embed, n_output)
        self.input_dropout, self.state_dropout = input_dropout, state_dropout

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embed inputs ``(A, n, n_input)`` in the narrow layer, ``(A, n, n_embed)``."""
        return self.encoder(F.dropout(x, self.input_dropout, self.training))

    def categorize(self, embedded: torch.Tensor) -> torch.Tensor:
        """Return the logits of the categories, ``(A, n, K)``."""
        return self.category(embedded)

    def states(
        self, embedded: torch.Tensor, category: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean and log-variance of the state, ``(A, n, n_state)``, given the category.

        Parameters
        ----------
        embedded
            Output of :meth:`embed`, ``(A, n, n_embed)``.
        category
            Points of the simplex, ``(A, n, K)``.
        """
        loc, log_var = self.state(torch.cat([embedded, category], -1)).chunk(2, -1)
        return loc, log_var

    def decode(self, category: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Decode categories and states of cells, to ``(A, n, n_output)``."""
        state = F.dropout(state, self.state_dropout, self.training)
        return self.out(self.decoder(torch.cat([category, state], -1)))

    @torch.no_grad()
    def say_first(self, output: torch.Tensor) -> None:
        """Set the initial output of all decoders, ``(n_output,)``, which Adam is slow to reach."""
        self.out.bias.copy_(output.expand_as(self.out.bias))

    @torch.no_grad()
    def take(self, other: Arms, categories: torch.Tensor) -> None:
        """Copy the weights of other arms; their category ``categories[i]`` becomes category ``i``.

        Parameters
        ----------
        other
            Arms of the same sizes except for the number of categories.
        categories
            Categories to copy, ``(n_categories,)`` int64.
        """
        state = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        n_before = other.n_categories
        for name in ("category.weight", "category.bias"):
            state[name] = state[name][..., categories]
        embedded = torch.arange(self.n_embed, device=categories.device)
        own_state = n_before + torch.arange(self.n_state, device=categories.device)
        rows = torch.cat([embedded, self.n_embed + categories])
        state["state.weight"] = state["state.weight"][:, rows]
        first = "decoder.layers.0.weight"
        state[first] = state[first][:, torch.cat([categories, own_state])]
        self.load_state_dict(state)
