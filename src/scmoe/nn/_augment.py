"""Random changes of the data that leave its clusters as they are."""

from __future__ import annotations

import math

import torch

from scmoe._numbers import is_number
from scmoe.nn._affine import affine_images
from scmoe.nn._images import read_shape


def _check_amounts(*, rotation: float, zoom: float, shift: float) -> None:
    """Raise ValueError for amounts that are no amounts."""
    for name, amount in {"rotation": rotation, "zoom": zoom, "shift": shift}.items():
        if not (is_number(amount) and 0 <= amount < math.inf):
            raise ValueError(f"`{name}` is {amount!r}; it must be 0 or more.")
    if zoom >= 1:
        raise ValueError(f"`zoom` is {zoom}; it is a share and must be less than 1.")


def augment_images(
    x: torch.Tensor,
    image_shape: tuple[int, ...],
    generator: torch.Generator | None = None,
    *,
    rotation: float = 10.0,
    zoom: float = 0.1,
    shift: float = 0.1,
    flip: bool = False,
) -> torch.Tensor:
    """Turn, scale, move and mirror every image at random.

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
    _check_amounts(rotation=rotation, zoom=zoom, shift=shift)
    shape = read_shape(image_shape)
    # all are drawn whatever is used, so that switching one off leaves the others as they are
    draws = torch.rand(
        5, len(x), generator=generator, device=generator.device if generator else x.device
    ).to(x)
    angle, size, right, down = 2 * draws[:4] - 1
    angle, size = math.radians(rotation) * angle, 1 + zoom * size
    mirror = 1 - 2 * (draws[4] < 0.5).to(x) if flip else torch.ones_like(size)
    # from the result back to the input: move, turn, scale, mirror
    cos, sin = angle.cos() / size, angle.sin() / size
    linear = torch.stack(
        [torch.stack([mirror * cos, mirror * sin], -1), torch.stack([-sin, cos], -1)], -2
    )
    way = -shift * torch.stack([shape.width * right, shape.height * down], -1)
    return affine_images(x, image_shape, torch.cat([linear, linear @ way.unsqueeze(-1)], -1))


class ImageAugment:
    """:func:`augment_images` with its amounts settled, for a training loop.

    Parameters
    ----------
    image_shape, rotation, zoom, shift, flip
        As there.

    Raises
    ------
    ValueError
        As there.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        *,
        rotation: float = 10.0,
        zoom: float = 0.1,
        shift: float = 0.1,
        flip: bool = False,
    ):
        _check_amounts(rotation=rotation, zoom=zoom, shift=shift)
        read_shape(image_shape)
        self.image_shape = tuple(image_shape)
        self.amounts = {"rotation": rotation, "zoom": zoom, "shift": shift, "flip": flip}

    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Change every image of a batch.

        Parameters
        ----------
        x
            Flat images, ``(n, height * width * n_channels)``.
        index
            Not used: an image is changed by itself.

        Returns
        -------
        ``(n, height * width * n_channels)``, drawn from torch's global generator.

        Raises
        ------
        ValueError
            For rows of another length.
        """
        return augment_images(x, self.image_shape, **self.amounts)


class NeighborAugment:
    """Moves every cell towards one of its neighbours, which keeps it within its type.

    What the turning of an image is to a picture, a step to a similar cell is to a cell: the
    neighbour is drawn evenly among the cell's own, and the share of the way uniformly from
    0 to ``share``, both anew for each cell and call.

    Parameters
    ----------
    x
        All cells, ``(n_obs, d)``. It is kept, not copied.
    neighbors
        Positions of the neighbours of each cell in ``x``, ``(n_obs, k)`` int64. A cell with
        fewer than k neighbours may name one repeatedly, or itself.
    share
        Largest share of the way, from 0 to 1.

    Raises
    ------
    ValueError
        For a share outside of 0 to 1, and for neighbours that do not fit the cells.
    """

    def __init__(self, x: torch.Tensor, neighbors: torch.Tensor, *, share: float = 0.5):
        if not (is_number(share) and 0 <= share <= 1):
            raise ValueError(f"`share` is {share!r}; it must be from 0 to 1.")
        if neighbors.ndim != 2 or len(neighbors) != len(x) or not neighbors.shape[1]:
            raise ValueError(
                f"`neighbors` must have a row for each of the {len(x)} cells and at least one "
                f"column; its shape is {tuple(neighbors.shape)}."
            )
        if neighbors.is_floating_point() or neighbors.dtype == torch.bool:
            raise ValueError(f"`neighbors` must be whole numbers; they are {neighbors.dtype}.")
        if len(x) and not 0 <= neighbors.min() <= neighbors.max() < len(x):
            raise ValueError(
                f"`neighbors` must be positions from 0 to {len(x) - 1}; they go from "
                f"{int(neighbors.min())} to {int(neighbors.max())}."
            )
        self.x = x
        self.neighbors = neighbors
        self.share = share

    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Move the cells of a batch.

        Parameters
        ----------
        x
            Cells, ``(n, d)``, on any device.
        index
            Their positions among all cells, ``(n,)`` int64.

        Returns
        -------
        ``(n, d)``, drawn from torch's global generator.
        """
        home = self.neighbors.device
        column = torch.randint(self.neighbors.shape[1], (len(x),), device=home)
        neighbor = self.neighbors[index.to(home), column]
        towards = self.x.index_select(0, neighbor.to(self.x.device)).to(x)
        return torch.lerp(x, towards, self.share * torch.rand(len(x), 1).to(x))
