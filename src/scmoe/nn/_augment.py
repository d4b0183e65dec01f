"""Random affine changes of images, as Santos' networks are trained with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from scmoe.nn._images import flatten, read_shape, unflatten


def affine_images(
    x: torch.Tensor, image_shape: tuple[int, ...], matrix: torch.Tensor
) -> torch.Tensor:
    """Draw every image anew through an affine map of its pixels.

    A position is ``(right, down)`` in pixels from the centre of the image, so that a rotation
    stays one where height and width differ. Values between pixels are bilinear, those from
    outside of the image 0; none leaves the range of its image and 0.

    Parameters
    ----------
    x
        Flat images, ``(n, height * width * n_channels)``, in the order of numpy's
        ``reshape``: row by row, channels last.
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``.
    matrix
        ``(n, 2, 3)`` or ``(2, 3)``: for each image ``[A | b]``. The pixel at position ``p`` of
        the result is that at ``A p + b`` of the input.

    Returns
    -------
    ``(n, height * width * n_channels)``.

    Raises
    ------
    ValueError
        For a bad ``image_shape``, rows of another length and matrices of another shape.
    """
    shape = read_shape(image_shape)
    images = unflatten(x, shape)
    if matrix.shape not in ((2, 3), (len(x), 2, 3)):
        raise ValueError(
            f"`matrix` must have the shape (2, 3) or ({len(x)}, 2, 3), one for each image; "
            f"got {tuple(matrix.shape)}."
        )
    if not len(x):  # torch makes no grid for no images
        return x.clone()
    # torch counts positions in halves of the image
    half = matrix.new_tensor([shape.width / 2, shape.height / 2])
    units = torch.cat([half, half.new_ones(1)]) / half.unsqueeze(1)
    grid = F.affine_grid(
        (matrix * units).expand(len(x), 2, 3), list(images.shape), align_corners=False
    )
    drawn = flatten(F.grid_sample(images, grid, align_corners=False))
    # the weights of the four neighbours add up to 1 but for rounding
    return drawn.clamp(
        min=x.amin(1, keepdim=True).clamp(max=0), max=x.amax(1, keepdim=True).clamp(min=0)
    )


def augment_images(
    x: torch.Tensor,
    image_shape: tuple[int, ...],
    generator: torch.Generator | None = None,
    *,
    rotation: float = 10.0,
    zoom: float = 0.1,
    shift: float = 0.1,
    shear: float = 0.0,
    flip: bool = False,
) -> torch.Tensor:
    """Turn, scale, move, slant and mirror every image at random.

    The defaults are Santos'. Each amount is drawn uniformly for each image; see
    :func:`affine_images` for what fills the borders.

    Parameters
    ----------
    x
        Flat images, ``(n, height * width * n_channels)``.
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``.
    generator
        Source of randomness; torch's own if None. A generator on the CPU serves images on
        any device.
    rotation
        Largest angle, in degrees, to either side.
    zoom
        Largest change of size, as a share: 0.1 draws factors from 0.9 to 1.1.
    shift
        Largest way along each axis, as a share of the image's width or height.
    shear
        Largest slant, as a share: pixels to the side for one pixel down.
    flip
        Whether to mirror left and right, with probability 1/2.

    Returns
    -------
    ``(n, height * width * n_channels)``.

    Raises
    ------
    ValueError
        For a bad ``image_shape``, rows of another length, a negative amount, and a zoom of
        1 or more.
    """
    amounts = {"rotation": rotation, "zoom": zoom, "shift": shift, "shear": shear}
    for name, amount in amounts.items():
        if not 0 <= amount < math.inf:
            raise ValueError(f"`{name}` is {amount}; it must be 0 or more.")
    if zoom >= 1:
        raise ValueError(f"`zoom` is {zoom}; it is a share and must be less than 1.")
    shape = read_shape(image_shape)
    # all are drawn whatever is used, so that switching one off leaves the others as they are
    draws = torch.rand(
        6, len(x), generator=generator, device=generator.device if generator else x.device
    ).to(x)
    angle, size, right, down, slant = 2 * draws[:5] - 1
    angle, size, slant = math.radians(rotation) * angle, 1 + zoom * size, shear * slant
    mirror = 1 - 2 * (draws[5] < 0.5).to(x) if flip else torch.ones_like(size)
    # from the result back to the input: move, turn, scale, slant, mirror
    cos, sin = angle.cos() / size, angle.sin() / size
    linear = torch.stack(
        [
            torch.stack([mirror * (cos - slant * sin), mirror * (sin + slant * cos)], -1),
            torch.stack([-sin, cos], -1),
        ],
        -2,
    )
    way = -shift * torch.stack([shape.width * right, shape.height * down], -1)
    return affine_images(x, image_shape, torch.cat([linear, linear @ way.unsqueeze(-1)], -1))
