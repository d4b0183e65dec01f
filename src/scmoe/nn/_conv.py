"""Convolutional encoder and experts for images (Kopf et al. 2020, supplement, section B.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from scmoe.nn._experts import stacked
from scmoe.nn._images import flatten, read_shape, unflatten
from scmoe.nn._layers import ACTIVATIONS, Activation, BatchNorm2d, choose

REDUCTION = 4
"""Factor by which the encoder shrinks an image: two poolings of 2 x 2."""

POOLED = (False, True, True, False, False)
"""Whether a pooling follows each convolution of the encoder."""

UPSAMPLED = (True, True, False)
"""Whether an upsampling follows each hidden convolution of an expert."""


def _check_channels(channels: tuple[int, ...], n: int) -> None:
    """Raise ValueError unless there are ``n`` numbers of channels, all above 0."""
    if len(channels) != n or min(channels) < 1:
        raise ValueError(f"`channels` is {tuple(channels)}; it must be {n} numbers above 0.")


class ConvEncoder(nn.Module):
    """Encoder of images: five convolutions of 3 x 3, two poolings, one dense layer.

    As in the paper: each convolution and its activation, then batch normalisation; a pooling of
    2 x 2 after the second and the third, each with a normalisation of its own; a linear
    dense layer.

    Parameters
    ----------
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``; height and width are
        multiples of 4.
    n_out
        Size of the code.
    channels
        Output channels of the five convolutions. The default is that of the paper; fewer
        channels make training on a CPU practical.
    activation
        ``"elu"`` or ``"relu"``.
    batch_norm
        Whether to normalise over the batch. A batch of one image is normalised by the
        running statistics, in training too.

    Raises
    ------
    ValueError
        An invalid ``image_shape`` or ``channels``, or an unknown activation.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        n_out: int,
        *,
        channels: tuple[int, ...] = (64, 128, 128, 64, 8),
        activation: Activation = "elu",
        batch_norm: bool = True,
    ):
        super().__init__()
        self.image_shape = read_shape(image_shape, REDUCTION)
        _check_channels(channels, len(POOLED))
        sizes = [self.image_shape.n_channels, *channels]
        norm = BatchNorm2d if batch_norm else nn.Identity
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.norms = nn.ModuleList(norm(c) for c in channels)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), norm(c)) if pooled else nn.Identity()
            for c, pooled in zip(channels, POOLED, strict=True)
        )
        height, width, _ = self.image_shape
        self.out = nn.Linear(height // REDUCTION * (width // REDUCTION) * channels[-1], n_out)
        self.activation = choose(ACTIVATIONS, activation, "activation")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(n, height * width * n_channels)`` to codes ``(n, n_out)``.

        Pixels are in the order of numpy's ``reshape``: row by row, channels last.

        Raises
        ------
        ValueError
            Rows of another length.
        """
        return self.out(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to the input of the last layer, ``(n, n_features)``."""
        x = unflatten(x, self.image_shape)
        for convolution, norm, pool in zip(self.convolutions, self.norms, self.pools, strict=True):
            x = pool(norm(self.activation(convolution(x))))
        return x.flatten(1)


class ConvExperts(nn.Module):
    """K image decoders as one module, the counterpart of :class:`Experts`.

    As in the paper: a dense layer to images a quarter as wide and high, three convolutions of
    3 x 3 with an activation, the first two followed by an upsampling of 2 x 2, and a last
    convolution to the channels of the image. The last one is linear: the ELU of the paper
    cannot reach the lower end of a sigmoid.

    The weights of layer ``l`` of all experts are one tensor with the expert as first axis.
    The images of each expert are decoded together, one expert after the other: twice as fast on
    a CPU as one grouped convolution for all. An expert without images costs nothing.

    Parameters
    ----------
    n_experts
        K.
    n_in
        Size of the code.
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``; height and width are
        multiples of 4.
    channels
        Channels after the dense layer and after the three hidden convolutions. The default is
        that of the paper; fewer channels make training on a CPU practical.
    activation
        ``"elu"`` or ``"relu"``.

    Raises
    ------
    ValueError
        An invalid ``image_shape`` or ``channels``, or an unknown activation.
    """

    def __init__(
        self,
        n_experts: int,
        n_in: int,
        image_shape: tuple[int, ...],
        *,
        channels: tuple[int, ...] = (8, 128, 64, 32),
        activation: Activation = "elu",
    ):
        super().__init__()
        self.image_shape = read_shape(image_shape, REDUCTION)
        _check_channels(channels, len(UPSAMPLED) + 1)
        height, width, n_channels = self.image_shape
        self.small = (channels[0], height // REDUCTION, width // REDUCTION)
        n_small = math.prod(self.small)
        # the initialisation of torch.nn.Linear and torch.nn.Conv2d, expert by expert
        bound = 1 / math.sqrt(n_in)
        self.weights = nn.ParameterList(
            [torch.empty(n_experts, n_in, n_small).uniform_(-bound, bound)]
        )
        self.biases = nn.ParameterList([torch.empty(n_experts, n_small).uniform_(-bound, bound)])
        for a, b in zip(channels, [*channels[1:], n_channels], strict=True):
            bound = 1 / math.sqrt(a * 3 * 3)
            self.weights.append(torch.empty(n_experts, b, a, 3, 3).uniform_(-bound, bound))
            self.biases.append(torch.empty(n_experts, b).uniform_(-bound, bound))
        self.n_experts = n_experts
        self.activation = choose(ACTIVATIONS, activation, "activation")

    def forward(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Decode each code by its expert.

        Parameters
        ----------
        z
            Codes, ``(n, n_in)``.
        expert
            Expert of each image, ``(n,)`` int64.

        Returns
        -------
        Logits ``(n, height * width * n_channels)``, images in the order of the input, pixels
        in the order of numpy's ``reshape``: row by row, channels last.
        """
        shape = (self.image_shape.size,)
        return stacked(self._decode, self.weights, self.biases, z, expert, shape)

    def _decode(
        self, z: torch.Tensor, weights: tuple[torch.Tensor, ...], biases: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Decode codes by the weights and biases of one expert."""
        x = torch.addmm(biases[0], z, weights[0]).view(-1, *self.small)
        for weight, bias, upsampled in zip(weights[1:-1], biases[1:-1], UPSAMPLED, strict=True):
            x = self.activation(F.conv2d(x, weight, bias, padding=1))
            if upsampled:
                x = F.interpolate(x, scale_factor=2)
        return flatten(F.conv2d(x, weights[-1], biases[-1], padding=1))
