"""Augmentation: random changes of cells and images that preserve their type."""

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
"""Rounding error of a whole number in float32 after log1p and expm1."""


def check_factor(name: str, factor: float) -> None:
    """Raise ValueError unless a factor is a finite number of at least 0."""
    if not (is_number(factor) and 0 <= factor < math.inf):
        raise ValueError(f"`{name}` is {factor!r}; it must be a number of at least 0.")


def _check_share(name: str, share: float) -> None:
    """Raise ValueError unless a share is a number from 0 to 1."""
    if not (is_number(share) and 0 <= share <= 1):
        raise ValueError(f"`{name}` is {share!r}; it must be from 0 to 1.")


def _check_neighbors(x: torch.Tensor, neighbors: torch.Tensor) -> None:
    """Raise ValueError unless ``neighbors`` are positions of cells, one row for each cell."""
    if neighbors.ndim != 2 or len(neighbors) != len(x) or not neighbors.shape[1]:
        raise ValueError(
            f"`neighbors` must have a row for each of the {len(x)} cells and at least one "
            f"column; its shape is {tuple(neighbors.shape)}."
        )
    if neighbors.is_floating_point() or neighbors.dtype == torch.bool:
        raise ValueError(f"`neighbors` must be whole numbers; they are {neighbors.dtype}.")
    if len(x) and not 0 <= neighbors.min() <= neighbors.max() < len(x):
        raise ValueError(
            f"`neighbors` must be positions from 0 to {len(x) - 1}; they range from "
            f"{int(neighbors.min())} to {int(neighbors.max())}."
        )


class ImageAugment:
    """Rotate, zoom, shift and flip images at random.

    The defaults are those of Santos. Each amount is drawn uniformly for each image; pixels from
    outside of the image are 0, see :func:`affine_images`.

    Parameters
    ----------
    image_shape
        ``(height, width)`` or ``(height, width, n_channels)``.
    rotation
        Largest angle, in degrees, to either side.
    zoom
        Largest relative change of size: 0.1 draws factors from 0.9 to 1.1.
    shift
        Largest shift along each axis, as a share of the width or height of the image.
    flip
        Whether to mirror left and right, with probability 1/2.

    Raises
    ------
    ValueError
        An invalid ``image_shape``, an amount below 0, or a zoom of 1 or more.
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
        for name, amount in {"rotation": rotation, "zoom": zoom, "shift": shift}.items():
            check_factor(name, amount)
        if zoom >= 1:
            raise ValueError(f"`zoom` is {zoom}; it is a share and must be less than 1.")
        read_shape(image_shape)
        self.image_shape = tuple(image_shape)
        self.amounts = {"rotation": rotation, "zoom": zoom, "shift": shift, "flip": flip}

    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Augment the images of a batch.

        Parameters
        ----------
        x
            Images as rows, ``(n, height * width * n_channels)``.
        index
            Not used: the change of an image does not depend on others.

        Returns
        -------
        ``(n, height * width * n_channels)``, drawn from torch's global generator.

        Raises
        ------
        ValueError
            Rows of another length.
        """
        shape = read_shape(self.image_shape)
        rotation, zoom, shift, flip = self.amounts.values()
        # all amounts are drawn, so that switching one off leaves the others as they are
        draws = torch.rand(5, len(x), device=x.device).to(x)
        angle, size, right, down = 2 * draws[:4] - 1
        angle, size = math.radians(rotation) * angle, 1 + zoom * size
        mirror = 1 - 2 * (draws[4] < 0.5).to(x) if flip else torch.ones_like(size)
        # from the result back to the input: shift, rotate, zoom, flip
        cos, sin = angle.cos() / size, angle.sin() / size
        linear = torch.stack(
            [torch.stack([mirror * cos, mirror * sin], -1), torch.stack([-sin, cos], -1)], -2
        )
        offset = -shift * torch.stack([shape.width * right, shape.height * down], -1)
        matrix = torch.cat([linear, linear @ offset.unsqueeze(-1)], -1)
        return affine_images(x, self.image_shape, matrix)


class NeighborAugment:
    """Move each cell towards one of its neighbours, which preserves its type.

    The neighbour is drawn evenly among those of the cell, and the share of the way to it
    uniformly from 0 to ``share``, both anew for each cell and call.

    Parameters
    ----------
    x
        All cells, ``(n_obs, d)``; kept, not copied.
    neighbors
        Positions of the neighbours of each cell in ``x``, ``(n_obs, k)`` int64. A cell with
        fewer than k neighbours may repeat one of them, or itself.
    share
        Largest share of the way, from 0 to 1.

    Raises
    ------
    ValueError
        A share outside of 0 to 1, or invalid neighbours.
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
            Positions of the cells among all cells, ``(n,)`` int64.

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
    """Thin the counts of each cell, as if it had been sequenced less deeply.

    Each molecule is kept with the same probability, so counts are drawn from binomials. The share
    of the counts that a cell loses is drawn uniformly from 0 to ``share``, anew for each cell and
    call: the type of a cell does not depend on its sequencing depth.

    Parameters
    ----------
    share
        Largest share of the counts that a cell loses, from 0 to 1; a cell loses half of it on
        average.
    logged
        Whether input and output are log1p of the counts.

    Raises
    ------
    ValueError
        A share outside of 0 to 1.
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
            Counts ``(n, d)``, or log1p of them. Expected counts, such as those of mixed cells,
            are rounded at random, so that their mean stays the same.
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
    """Replace features of each cell at random, independently of each other.

    The replacement must not suggest another type. Genes and pixels become 0, as a gene that was
    not captured or a pixel without ink. A marker at 0 would suggest another type (a helper T cell
    without CD4), so markers take the value of a neighbour, drawn for each marker.

    Parameters
    ----------
    x
        All cells, ``(n_obs, d)``; kept, not copied. None to replace features by 0.
    neighbors
        As in :class:`NeighborAugment`; None if ``x`` is None.
    rate
        Probability that a feature is replaced, from 0 to 1.

    Raises
    ------
    ValueError
        A rate outside of 0 to 1, or invalid neighbours.
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
        """Replace features of a batch; parameters and result as of :class:`NeighborAugment`."""
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
    """Draw a copy of each cell from its posterior in a trained VAE.

    A code is drawn from :math:`q(z | x)` and decoded, and the noise that the VAE leaves
    unexplained is drawn, too: two copies of a cell share the content of the code alone. The
    type-preserving augmentation of cpl-mixVAE also adds noise to codes; its generator is trained
    against a discriminator, which the posterior does not need.

    Parameters
    ----------
    network
        A trained VAE with one expert, on the scale of the cells.
    x
        All cells, ``(n_obs, d)``: copies stay in the range of each feature.
    variance
        Factor on the variance of the posterior.
    noise
        Factor on the standard deviation of the noise; a Bernoulli likelihood has no noise. With
        both factors 0 the copies are reconstructions.

    Raises
    ------
    ValueError
        A factor below 0.
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
        """Draw copies of the cells of a batch.

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
    """Apply several augmentations, one after the other.

    Parameters
    ----------
    augments
        The augmentations, in the order in which they are applied.
    """

    def __init__(self, augments: Sequence[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]):
        self.augments = tuple(augments)

    def __call__(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Augment cells ``(n, d)`` whose positions among all cells are ``index`` (n,)."""
        for augment in self.augments:
            x = augment(x, index)
        return x
