"""Random changes of cells and images that preserve their type."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from scmoe._core.settings import is_number
from scmoe.nn._images import affine_images, read_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scmoe.nn._autoencoders import Autoencoders

ROUNDING = 1e-4
"""What float32 may make of a whole number on the way to its logarithm and back."""


def _check_amounts(*, rotation: float, zoom: float, shift: float) -> None:
    """Raise ValueError for amounts that are no amounts."""
    for name, amount in {"rotation": rotation, "zoom": zoom, "shift": shift}.items():
        if not (is_number(amount) and 0 <= amount < math.inf):
            raise ValueError(f"`{name}` is {amount!r}; it must be 0 or more.")
    if zoom >= 1:
        raise ValueError(f"`zoom` is {zoom}; it is a share and must be less than 1.")


def check_factor(name: str, factor: float) -> None:
    """Raise ValueError unless a factor is a finite number from 0."""
    if not (is_number(factor) and 0 <= factor < math.inf):
        raise ValueError(f"`{name}` is {factor!r}; it must be a number from 0 on.")


def _check_share(name: str, share: float) -> None:
    """Raise ValueError for what is not from 0 to 1."""
    if not (is_number(share) and 0 <= share <= 1):
        raise ValueError(f"`{name}` is {share!r}; it must be from 0 to 1.")


def _check_neighbors(x: torch.Tensor, neighbors: torch.Tensor) -> None:
    """Raise ValueError for neighbours that do not fit the cells."""
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
        _check_share("share", share)
        _check_neighbors(x, neighbors)
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


class ThinAugment:
    """Draws fewer counts of every cell, as if it had been sequenced less deeply.

    Each molecule is kept with the same chance, so a count becomes a binomial one. The share of
    the counts that a cell loses is drawn uniformly from 0 to ``share``, anew for each cell and
    call: what type a cell has does not hang on how many of its molecules were read.

    Parameters
    ----------
    share
        Largest share of the counts that a cell loses, from 0 to 1; half of it on average.
    logged
        Whether cells come as log1p of their counts, and go as such.

    Raises
    ------
    ValueError
        For a share outside of 0 to 1.
    """

    def __init__(self, *, share: float = 0.5, logged: bool = False):
        _check_share("share", share)
        self.share = share
        self.logged = logged

    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Thin the cells of a batch.

        Parameters
        ----------
        x
            Counts ``(n, d)``, or log1p of them. Expected counts, as of cells that were mixed,
            are rounded at random, so that they stay right on average.
        index
            Not used.

        Returns
        -------
        ``(n, d)``, drawn from torch's global generator.
        """
        kept = 1 - self.share * torch.rand(len(x), 1, device=x.device).to(x)
        some = x > 0
        counts = x[some].expm1() if self.logged else x[some]
        near = counts.round()
        counts = torch.where(
            torch.isclose(counts, near, rtol=ROUNDING, atol=ROUNDING),
            near,
            (counts + torch.rand_like(counts)).floor(),
        )
        counts = torch.binomial(counts, kept.expand_as(x)[some])
        thinned = torch.zeros_like(x)
        thinned[some] = counts.log1p() if self.logged else counts
        return thinned


class DropoutAugment:
    """Hides features of every cell at random, each for itself.

    What stands in their place must not speak of another type. A gene that was not caught counts
    0, and so does a pixel without ink. For markers 0 would be an answer: a helper T cell without
    CD4 is another cell. So a hidden marker has the value of a neighbour, each marker that of one
    of its own: the marker says what is usual for the type, and nothing of this cell.

    Parameters
    ----------
    x
        All cells, ``(n_obs, d)``; kept, not copied. None for 0 in place of hidden features.
    neighbors
        As in :class:`NeighborAugment`; None together with ``x``.
    rate
        Chance of a feature to be hidden, from 0 to 1.

    Raises
    ------
    ValueError
        For a rate outside of 0 to 1, and for neighbours that do not fit the cells.
    """

    def __init__(
        self,
        x: torch.Tensor | None = None,
        neighbors: torch.Tensor | None = None,
        *,
        rate: float = 0.1,
    ):
        _check_share("rate", rate)
        if x is not None:
            _check_neighbors(x, neighbors)
        self.x = x
        self.neighbors = neighbors
        self.rate = rate

    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Hide features of a batch; parameters and result as of :class:`NeighborAugment`."""
        hidden = torch.rand_like(x) < self.rate
        if self.x is None:
            return x.masked_fill(hidden, 0)
        home = self.neighbors.device
        row, feature = hidden.nonzero(as_tuple=True)
        column = torch.randint(self.neighbors.shape[1], (len(row),), device=home)
        neighbor = self.neighbors[index[row].to(home), column]
        away = self.x.device
        changed = x.clone()
        changed[row, feature] = self.x[neighbor.to(away), feature.to(away)].to(x)
        return changed


class PosteriorAugment:
    """Draw each cell anew from its posterior in a trained VAE.

    A code is drawn from :math:`q(z | x)` and decoded, and so is the noise that the VAE leaves
    unexplained: two copies of a cell share what the code says, and nothing else. The
    type-preserving augmentation of cpl-mixVAE adds noise to codes, too; its generator is trained
    against a discriminator, which the posterior does without.

    Parameters
    ----------
    network
        A trained VAE of one expert, on the scale of the cells.
    x
        All cells, ``(n_obs, d)``: copies stay in the range of each feature.
    variance
        Factor on the variance of the posterior.
    noise
        Factor on the standard deviation of the noise; a Bernoulli likelihood has none. With both
        0 copies are reconstructions.

    Raises
    ------
    ValueError
        For factors below 0.
    """

    def __init__(
        self, network: Autoencoders, x: torch.Tensor, *, variance: float = 1.0, noise: float = 1.0
    ):
        check_factor("variance", variance)
        check_factor("noise", noise)
        self.network = network.requires_grad_(False).eval()
        self.variance, self.noise = variance, noise
        self.low, self.high = x.min(0).values, x.max(0).values

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Draw the cells of a batch.

        Parameters
        ----------
        x
            Cells, ``(n, d)``, on any device.
        index
            Not used.

        Returns
        -------
        ``(n, d)``, drawn from torch's global generator.
        """
        if self.low.device != x.device:
            self.network.to(x.device)
            self.low, self.high = self.low.to(x.device), self.high.to(x.device)
        expert = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        loc, log_var = self.network.encode(x, expert)
        deviation = (log_var / 2).exp()
        z = loc + math.sqrt(self.variance) * deviation * torch.randn_like(loc)
        copies = self.network.decode(z, expert)
        if self.network.likelihood != "bernoulli" and self.noise:
            left = self.network.noise[0].sqrt() * self.network.spread
            copies = copies + self.noise * left * torch.randn_like(copies)
        return copies.clamp(self.low, self.high)


class Augments:
    """Several changes, one after the other.

    Parameters
    ----------
    augments
        In their order.
    """

    def __init__(self, augments: Sequence[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]):
        self.augments = tuple(augments)

    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Change cells ``(n, d)`` whose positions among all are ``index`` (n,)."""
        for augment in self.augments:
            x = augment(x, index)
        return x
