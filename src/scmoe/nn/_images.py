"""Images as rows: what a flat image is, for all that must unfold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class ImageShape(NamedTuple):
    """Sizes of an image."""

    height: int
    width: int
    n_channels: int

    @property
    def size(self) -> int:
        """Values of an image, the length of its row."""
        return self.height * self.width * self.n_channels


def read_shape(image_shape: tuple[int, ...], divisor: int = 1) -> ImageShape:
    """The shape of an image, checked.

    Parameters
    ----------
    image_shape
        ``(height, width)``, for one channel, or ``(height, width, n_channels)``.
    divisor
        What height and width must be multiples of.

    Raises
    ------
    ValueError
        For other than two or three positive whole numbers, and for sizes that ``divisor``
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
    """Rows to images, ``(n, height * width * n_channels)`` to ``(n, n_channels, height, width)``.

    A row is in the order of numpy's ``reshape``: row by row, channels last.

    Raises
    ------
    ValueError
        For rows of another length.
    """
    if x.ndim != 2 or x.shape[1] != shape.size:
        raise ValueError(
            f"Images of {shape.height} x {shape.width} pixels and {shape.n_channels} channel(s) "
            f"are rows of {shape.size} values, got an array of shape {tuple(x.shape)}."
        )
    return x.reshape(-1, *shape).permute(0, 3, 1, 2)


def flatten(images: torch.Tensor) -> torch.Tensor:
    """Images to rows: the reverse of :func:`unflatten`."""
    return images.permute(0, 2, 3, 1).flatten(1)
