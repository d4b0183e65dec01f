"""What the strokes of an image are like, whatever their slant and exact place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from scmoe.nn._affine import affine_images
from scmoe.nn._images import read_shape, unflatten

EPS = 1e-6
"""Stands for the mass and the spread of an image without ink."""

FINE = 0.7
"""Spread in pixels of the smoothing before gradients are taken."""


def straighten(x: torch.Tensor, image_shape: tuple[int, ...]) -> torch.Tensor:
    """Move the centre of mass to the middle and take the slant out.

    The slant is the slope of the line through the centre that the ink follows from top to
    bottom, from the second moments of the image.

    Parameters
    ----------
    x
        Flat images with values from 0 (nothing) up, ``(n, height * width * n_channels)``.
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
    mass = ink.sum((1, 2)).clamp_min(EPS)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (ink * values).sum((1, 2)) / mass

    middle = torch.stack([mean(right), mean(down)], 1)
    d_right, d_down = right - middle[:, 0, None, None], down - middle[:, 1, None, None]
    slant = mean(d_right * d_down) / mean(d_down.square()).clamp_min(EPS)
    matrix = torch.eye(2, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
    matrix[:, 0, 1] = slant
    return affine_images(x, image_shape, torch.cat([matrix, middle.unsqueeze(2)], 2))


def oriented_gradients(
    x: torch.Tensor, image_shape: tuple[int, ...], *, n_directions: int = 8, cell: int = 4
) -> torch.Tensor:
    """How much of an image changes in which direction, around each point of a grid.

    A histogram of oriented gradients with soft edges: a gradient counts for the two directions
    next to its own, and for the points around it by a Gaussian of half a cell, so that a stroke
    that moves a little changes the result a little. The features of an image have length 1.

    Parameters
    ----------
    x
        Flat images, ``(n, height * width * n_channels)``.
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``; channels are averaged.
    n_directions
        Directions between 0 and 360 degrees.
    cell
        Distance of the grid's points, in pixels.

    Returns
    -------
    ``(n, n_directions * n_points)``, 0 and above.

    References
    ----------
    Dalal & Triggs 2005 (histograms of oriented gradients); the square root and the length of 1
    as in Arandjelovic & Zisserman 2012 (RootSIFT).
    """
    image = unflatten(x, read_shape(image_shape)).mean(1, keepdim=True)
    image = _smooth(image, FINE)
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
