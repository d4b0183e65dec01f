"""Images as rows of values: shapes, affine maps and oriented gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

MIN_INK = 1e-6
"""Least mass and least variance of an image, so that an empty image divides by no 0."""

BLUR = 0.7
"""Standard deviation, in pixels, of the Gaussian blur before the gradients."""


class ImageShape(NamedTuple):
    """Height, width and number of channels of an image."""

    height: int
    width: int
    n_channels: int

    @property
    def size(self) -> int:
        """Return the number of values of an image, the length of its row."""
        return self.height * self.width * self.n_channels


def read_shape(image_shape: tuple[int, ...], divisor: int = 1) -> ImageShape:
    """Check the shape of an image.

    Parameters
    ----------
    image_shape
        ``(height, width)``, for one channel, or ``(height, width, n_channels)``.
    divisor
        Number that must divide height and width.

    Raises
    ------
    ValueError
        Anything but two or three positive whole numbers, or a height or width that ``divisor``
        does not divide.
    """
    sizes = tuple(image_shape)
    if len(sizes) not in (2, 3) or any(int(s) != s or s < 1 for s in sizes):
        raise ValueError(
            f"`image_shape` is {sizes}; it must be (height, width) or "
            "(height, width, n_channels), all whole numbers above 0."
        )
    shape = ImageShape(*(int(s) for s in (*sizes, 1)[:3]))
    if shape.height % divisor or shape.width % divisor:
        raise ValueError(
            f"`image_shape` is {sizes}; height and width must be multiples of {divisor}, "
            "since every pooling halves them. Pad or crop the images."
        )
    return shape


def unflatten(x: torch.Tensor, shape: ImageShape) -> torch.Tensor:
    """Reshape rows ``(n, height * width * n_channels)`` to ``(n, n_channels, height, width)``.

    The values of a row are in the order of numpy's ``reshape``: row by row, channels last.

    Raises
    ------
    ValueError
        Rows of another length.
    """
    if x.ndim != 2 or x.shape[1] != shape.size:
        raise ValueError(
            f"Images of {shape.height} x {shape.width} pixels and {shape.n_channels} channel(s) "
            f"are rows of {shape.size} values, got an array of shape {tuple(x.shape)}."
        )
    return x.reshape(-1, *shape).permute(0, 3, 1, 2)


def flatten(images: torch.Tensor) -> torch.Tensor:
    """Reshape images to rows, the inverse of :func:`unflatten`."""
    return images.permute(0, 2, 3, 1).flatten(1)


def affine_images(
    x: torch.Tensor, image_shape: tuple[int, ...], matrix: torch.Tensor
) -> torch.Tensor:
    """Transform images by affine maps of their pixels.

    Positions are ``(right, down)`` in pixels from the centre of the image, so that a rotation
    does not distort images whose height and width differ. Values between pixels are interpolated
    bilinearly, values outside of the image are 0; no value leaves the range of the image and 0.

    Parameters
    ----------
    x
        Images as rows, ``(n, height * width * n_channels)``, in the order of numpy's
        ``reshape``: row by row, channels last.
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``.
    matrix
        ``[A | b]``, of each image ``(n, 2, 3)`` or of all ``(2, 3)``. The result has at position
        ``p`` the value of the input at ``A p + b``.

    Returns
    -------
    ``(n, height * width * n_channels)``.

    Raises
    ------
    ValueError
        An invalid ``image_shape``, rows of another length, matrices of another shape.
    """
    shape = read_shape(image_shape)
    images = unflatten(x, shape)
    if matrix.shape not in ((2, 3), (len(x), 2, 3)):
        raise ValueError(
            f"`matrix` must have the shape (2, 3) or ({len(x)}, 2, 3), one for each image; "
            f"got {tuple(matrix.shape)}."
        )
    if not len(x):  # torch makes no grid for zero images
        return x.clone()
    # torch measures positions in halves of the image
    half = matrix.new_tensor([shape.width / 2, shape.height / 2])
    units = torch.cat([half, half.new_ones(1)]) / half.unsqueeze(1)
    grid = F.affine_grid(
        (matrix * units).expand(len(x), 2, 3), list(images.shape), align_corners=False
    )
    drawn = flatten(F.grid_sample(images, grid, align_corners=False))
    # the weights of the four neighbours sum to 1 but for rounding
    return drawn.clamp(
        min=x.amin(1, keepdim=True).clamp(max=0), max=x.amax(1, keepdim=True).clamp(min=0)
    )


def straighten(x: torch.Tensor, image_shape: tuple[int, ...]) -> torch.Tensor:
    """Move the centre of mass of images to the middle and remove their slant.

    The slant is the slope of the line through the centre that the ink follows from top to
    bottom, from the second moments of the image.

    Parameters
    ----------
    x
        Images as rows, ``(n, height * width * n_channels)``, with values from 0 (no ink) up.
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``.

    Returns
    -------
    ``(n, height * width * n_channels)``.
    """
    shape = read_shape(image_shape)
    ink = unflatten(x, shape).mean(1)
    down, right = torch.meshgrid(
        torch.arange(shape.height, dtype=x.dtype, device=x.device) - (shape.height - 1) / 2,
        torch.arange(shape.width, dtype=x.dtype, device=x.device) - (shape.width - 1) / 2,
        indexing="ij",
    )
    mass = ink.sum((1, 2)).clamp_min(MIN_INK)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (ink * values).sum((1, 2)) / mass

    middle = torch.stack([mean(right), mean(down)], 1)
    d_right, d_down = right - middle[:, 0, None, None], down - middle[:, 1, None, None]
    slant = mean(d_right * d_down) / mean(d_down.square()).clamp_min(MIN_INK)
    matrix = torch.eye(2, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
    matrix[:, 0, 1] = slant
    return affine_images(x, image_shape, torch.cat([matrix, middle.unsqueeze(2)], 2))


def oriented_gradients(
    x: torch.Tensor, image_shape: tuple[int, ...], *, n_directions: int = 8, cell: int = 4
) -> torch.Tensor:
    """Compute histograms of oriented gradients (HOG) of images, with soft bins.

    A gradient counts for the two directions next to its own, and for the grid points around it
    by a Gaussian of half a cell, so that a small shift of a stroke changes the features little.
    The features of an image have length 1.

    Parameters
    ----------
    x
        Images as rows, ``(n, height * width * n_channels)``.
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``; channels are averaged.
    n_directions
        Number of directions between 0 and 360 degrees.
    cell
        Distance between grid points, in pixels.

    Returns
    -------
    ``(n, n_directions * n_points)``, no value below 0.

    References
    ----------
    Dalal & Triggs 2005 (histograms of oriented gradients); the square root and the length of 1
    as in Arandjelovic & Zisserman 2012 (RootSIFT).
    """
    image = unflatten(x, read_shape(image_shape)).mean(1, keepdim=True)
    image = _smooth(image, BLUR)
    step = F.pad(image, (1, 1, 1, 1))
    d_right = (step[:, :, 1:-1, 2:] - step[:, :, 1:-1, :-2]) / 2
    d_down = (step[:, :, 2:, 1:-1] - step[:, :, :-2, 1:-1]) / 2
    strength = torch.hypot(d_right, d_down)
    turn = torch.atan2(d_down, d_right) * (n_directions / (2 * math.pi)) % n_directions
    direction = torch.arange(n_directions, device=x.device).view(1, -1, 1, 1)
    away = (turn - direction).abs()
    share = (1 - torch.minimum(away, n_directions - away)).clamp_min(0)
    pooled = _smooth(strength * share, cell / 2)[:, :, cell // 2 :: cell, cell // 2 :: cell]
    return F.normalize(pooled.clamp_min(0).sqrt().flatten(1), dim=1)


def _smooth(images: torch.Tensor, spread: float) -> torch.Tensor:
    """Blur ``(n, channels, height, width)`` by a Gaussian, channel by channel."""
    reach = math.ceil(3 * spread)
    offset = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weight = (-0.5 * (offset / spread).square()).exp()
    weight = weight / weight.sum()
    flat = images.flatten(0, 1).unsqueeze(1)
    flat = F.conv2d(flat, weight.view(1, 1, -1, 1), padding=(reach, 0))
    return F.conv2d(flat, weight.view(1, 1, 1, -1), padding=(0, reach)).view_as(images)
