"""Convolutional VAEs whose depth grows with the image (Santos' mixture of VAEs, section III.C).

Each block halves the side of the image, eqs. 7 to 9. For images of ``D x D`` pixels, D a power
of two, there are

- ``log2(D) - 1`` blocks, which leave a bottleneck of 2 x 2 pixels,
- half of them, rounded up, *general*: two convolutions of 3 x 3, with the receptive field of one
  of 5 x 5 at less cost, for the overall structure,
- the others *specific*: one convolution of 3 x 3, for details.

The summary of the paper names the general blocks first, and so they come first here, next to the
pixels, where there are few filters; the decoder is the mirror image. Block ``i`` has
``width * 2**i`` filters; the width of the paper is D. Each convolution is followed by batch
normalisation, then the activation.

The last convolution of a block has stride 2. The paper does not say how images are halved; on a
CPU a stride costs half as much as a pooling, since the pixels that a pooling discards are never
computed. The mirror of a stride is a transposed convolution; the second convolutions of the
general blocks smooth its artefacts. (Upsampling and a convolution learned MNIST equally well in
equal time.)

Other images are padded with zeros on all sides, to the smallest square of such a size, and
reconstructions are cropped: images keep their proportions, and rows keep their
``height * width * n_channels`` values. See :func:`padded_side`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from scmoe.nn._experts import check_latent_sizes, piecewise
from scmoe.nn._images import ImageShape, flatten, read_shape, unflatten
from scmoe.nn._layers import ACTIVATIONS, Activation, BatchNorm2d, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

BOTTLENECK = 2
"""Side of the image at the bottleneck, in pixels."""


def padded_side(image_shape: tuple[int, ...]) -> int:
    """Return the side of the square that the networks pad an image to, in pixels.

    Parameters
    ----------
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``.

    Returns
    -------
    The smallest power of two that neither height nor width exceeds; at least 4.

    Raises
    ------
    ValueError
        An invalid ``image_shape``, or images of at most 2 x 2 pixels.
    """
    shape = read_shape(image_shape)
    longer = max(shape.height, shape.width)
    if longer <= BOTTLENECK:
        raise ValueError(
            f"`image_shape` is {tuple(image_shape)}; images of at most 2 x 2 pixels are as small "
            "as the bottleneck of a convolutional network. Use dense networks for them."
        )
    return 2 ** (longer - 1).bit_length()


class Block(NamedTuple):
    """A block of the encoder and its mirror image in the decoder."""

    outer: int
    """Number of channels on the side of the image."""
    inner: int
    """Number of channels on the side of the code."""
    general: bool
    """Whether the block has two convolutions."""


def plan_blocks(image_shape: tuple[int, ...], width: int | None) -> list[Block]:
    """Return the blocks of the encoder in their order, eqs. 7 to 9.

    Raises
    ------
    ValueError
        An invalid ``image_shape`` or ``width``.
    """
    side = padded_side(image_shape)
    if width is None:
        width = side
    elif int(width) != width or width < 1:
        raise ValueError(f"`width` is {width}; it must be a whole number above 0.")
    n_blocks = side.bit_length() - 2
    n_general = (n_blocks + 1) // 2
    channels = [read_shape(image_shape).n_channels, *(int(width) * 2**i for i in range(n_blocks))]
    return [Block(channels[i], channels[i + 1], i < n_general) for i in range(n_blocks)]


def _margins(shape: ImageShape, side: int) -> tuple[int, int, int, int]:
    """Return the padding that makes an image a square: left, right, top, bottom."""
    right, down = side - shape.width, side - shape.height
    return right // 2, right - right // 2, down // 2, down - down // 2


class DynamicEncoder(nn.Module):
    """Encoder of images: blocks of convolutions and a linear layer.

    It serves as the encoder of a VAE and as the manager of a mixture of VAEs. The top of this
    module describes the blocks (Santos, section III.C).

    Parameters
    ----------
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``.
    n_out
        Size of the output.
    width
        Filters of the first block; each block has twice as many as the one before. None for
        the side of the padded image, as in the paper, which is slow on a CPU.
    activation
        ``"elu"`` or ``"relu"``.

    Raises
    ------
    ValueError
        An invalid ``image_shape`` or ``width``, or an unknown activation.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        n_out: int,
        *,
        width: int | None = None,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.image_shape = read_shape(image_shape)
        self.margins = _margins(self.image_shape, padded_side(image_shape))
        self.activation = choose(ACTIVATIONS, activation, "activation")
        self.convolutions = nn.ModuleList()
        blocks = plan_blocks(image_shape, width)
        for outer, inner, general in blocks:
            # no biases: the normalisation has biases
            if general:
                self.convolutions.append(nn.Conv2d(outer, inner, 3, padding=1, bias=False))
            self.convolutions.append(
                nn.Conv2d(inner if general else outer, inner, 3, stride=2, padding=1, bias=False)
            )
        self.norms = nn.ModuleList(BatchNorm2d(c.out_channels) for c in self.convolutions)
        self.out = nn.Linear(blocks[-1].inner * BOTTLENECK**2, n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(n, height * width * n_channels)`` to ``(n, n_out)``.

        Pixels are in the order of numpy's ``reshape``: row by row, channels last.

        Raises
        ------
        ValueError
            Rows of another length.
        """
        # convolutions are faster in this memory format, on a CPU too
        h = F.pad(unflatten(x, self.image_shape), self.margins)
        h = h.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = self.activation(norm(convolution(h)))
        return self.out(h.flatten(1))


class DynamicDecoder(nn.Module):
    """Decoder of images, the mirror image of :class:`DynamicEncoder`.

    Parameters
    ----------
    n_in
        Size of the code.
    image_shape, width, activation
        As in :class:`DynamicEncoder`.

    Raises
    ------
    ValueError
        As in :class:`DynamicEncoder`.
    """

    def __init__(
        self,
        n_in: int,
        image_shape: tuple[int, ...],
        *,
        width: int | None = None,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.image_shape = read_shape(image_shape)
        self.margins = _margins(self.image_shape, padded_side(image_shape))
        self.activation = choose(ACTIVATIONS, activation, "activation")
        blocks = plan_blocks(image_shape, width)[::-1]
        self.n_small = blocks[0].inner
        self.dense = nn.Linear(n_in, self.n_small * BOTTLENECK**2)
        layers: list[nn.Module] = []
        for outer, inner, general in blocks:
            layers.append(
                nn.ConvTranspose2d(
                    inner,
                    inner if general else outer,
                    3,
                    stride=2,
                    padding=1,
                    output_padding=1,
                    bias=False,
                )
            )
            if general:
                layers.append(nn.Conv2d(inner, outer, 3, padding=1, bias=False))
        # the first block is general, so an ordinary convolution makes the image
        last = blocks[-1]
        layers[-1] = nn.Conv2d(last.inner, last.outer, 3, padding=1)
        self.convolutions = nn.ModuleList(layers)
        self.norms = nn.ModuleList(
            BatchNorm2d(c) for c in (self.n_small, *(c.out_channels for c in layers[:-1]))
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map codes ``(n, n_in)`` to logits ``(n, height * width * n_channels)``.

        Pixels are in the order of numpy's ``reshape``: row by row, channels last.
        """
        h = self.dense(z).view(-1, self.n_small, BOTTLENECK, BOTTLENECK)
        h = h.contiguous(memory_format=torch.channels_last)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(self.activation(norm(h)))
        left, _, top, _ = self.margins
        height, width, _ = self.image_shape
        return flatten(h[:, :, top : top + height, left : left + width])


class ConvVAEs(nn.Module):
    """K convolutional VAEs, each with a latent size of its own.

    Each image passes through the networks of its own expert alone, together with the other
    images of that expert. In training they are normalised over these images, so experts with few
    images in a batch see noisy statistics; outside of training the result of an image does not
    depend on the others.

    Parameters
    ----------
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``.
    n_latents
        Latent size of each expert; K is their number.
    width, activation
        As in :class:`DynamicEncoder`.

    Raises
    ------
    ValueError
        An invalid ``image_shape``, ``n_latents`` or ``width``, or an unknown activation.

    Attributes
    ----------
    n_experts
        K.
    n_latents
        Latent sizes.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        n_latents: Sequence[int],
        *,
        width: int | None = None,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.n_latents = check_latent_sizes(n_latents)
        self.n_experts = len(self.n_latents)
        self.image_shape = read_shape(image_shape)
        options = {"width": width, "activation": activation}
        self.encoders = nn.ModuleList(
            DynamicEncoder(image_shape, 2 * d, **options) for d in self.n_latents
        )
        self.decoders = nn.ModuleList(
            DynamicDecoder(d, image_shape, **options) for d in self.n_latents
        )

    def encode(self, x: torch.Tensor, expert: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode each image by its expert.

        Parameters
        ----------
        x
            Images as rows, ``(n, height * width * n_channels)``.
        expert
            Expert of each image, ``(n,)`` int64.

        Returns
        -------
        Means and log-variances of the codes, both ``(n, max(n_latents))``. Columns beyond the
        latent size of the expert are 0 in both.

        Raises
        ------
        ValueError
            Rows of another length.
        """
        unflatten(x[:1], self.image_shape)
        n_wide = max(self.n_latents)

        def through(k: int, piece: torch.Tensor) -> torch.Tensor:
            halves = self.encoders[k](piece).view(len(piece), 2, -1)
            return F.pad(halves, (0, n_wide - self.n_latents[k]))

        codes = piecewise(through, x, expert, self.n_experts, (2, n_wide))
        return codes[:, 0], codes[:, 1]

    def decode(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Decode each code by its expert.

        Parameters
        ----------
        z
            Codes, ``(n, max(n_latents))``; each expert reads as many columns as its latent size.
        expert
            Expert of each code, ``(n,)`` int64.

        Returns
        -------
        Logits ``(n, height * width * n_channels)``.
        """

        def through(k: int, piece: torch.Tensor) -> torch.Tensor:
            return self.decoders[k](piece[:, : self.n_latents[k]])

        return piecewise(through, z, expert, self.n_experts, (self.image_shape.size,))

    def reorder(self, order: torch.Tensor) -> None:
        """Renumber the experts: the expert ``order[i]`` becomes expert ``i``."""
        order = order.tolist()
        self.n_latents = tuple(self.n_latents[k] for k in order)
        self.encoders = nn.ModuleList(self.encoders[k] for k in order)
        self.decoders = nn.ModuleList(self.decoders[k] for k in order)
