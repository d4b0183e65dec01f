"""Affine changes of images."""

from __future__ import annotations

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
