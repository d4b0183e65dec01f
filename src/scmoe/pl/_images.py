"""Grids of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from natsort import natsorted
from scipy.sparse import issparse

from scmoe._core.cells import check_is_adata, layer_values, obs_columns
from scmoe._core.keys import Key
from scmoe._core.random import as_seed

from ._figure import choose_groups, fill_docs, finish

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

IMAGE = 0.5
"""Height of an image in inches."""
_MARGIN = 0.08
"""Space between images as a share of the height of an image."""
_TOLERANCE = 1e-3
"""Share of the limits by which values may lie outside of them, because of rounding."""


@fill_docs
def images(
    adata: AnnData,
    *,
    groupby: str | None = None,
    groups: Sequence[str] | None = None,
    n: int = 10,
    image_shape: Sequence[int] | None = None,
    layer: str | None = None,
    cmap: str = "gray_r",
    vmin: float = 0.0,
    vmax: float = 1.0,
    random_state: int | np.random.Generator = 0,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Draw a grid of images, real or generated, with a row for each group.

    Parameters
    ----------
    adata
        Images x pixels, row by row, colours last.
    groupby
        Column of ``.obs``, such as the clusters: one row for each group, in natural order. By
        default a square grid of random images.
    groups
        The groups to show, in this order; by default all.
    n
        Number of images in a row, chosen at random from each group.
    image_shape
        Height and width, or height, width and number of colours (1, 3 or 4). By default
        ``.uns["image_shape"]``.
    layer
        The layer to read; by default ``.X``.
    cmap
        Colour map of images with one colour.
    vmin, vmax
        Values of the first and the last colour.
    random_state
        Seed of the random choice, or a generator.
    {title}
    {show_save_ax}

    Returns
    -------
    {returns} the axes.

    Raises
    ------
    KeyError
        If the column, a group or the layer does not exist.
    ValueError
        If the shape is missing or does not match the number of pixels, there is no image to
        show, or values are outside of ``vmin`` to ``vmax``.

    Examples
    --------
    >>> images = scmoe.io.from_array(np.random.default_rng(0).random((50, 8, 8)))
    >>> scmoe.pl.images(images, n=5)
    """
    check_is_adata(adata)
    if n < 1:
        raise ValueError(f"n must be 1 or more, got {n}.")
    if not vmin < vmax:
        raise ValueError(f"vmin must be below vmax, got {vmin} and {vmax}.")
    shape = image_shape_of(adata, image_shape)
    x = layer_values(adata, layer)
    rng = np.random.default_rng(as_seed(random_state))
    rows = _rows(adata, groupby, groups, n, rng)
    canvas = make_canvas(x, rows, shape, n, (vmin, vmax))

    n_rows, side = len(rows), _step(shape[1])
    if ax is None:
        longest = max(len(name) for name in rows)
        width = n * IMAGE * shape[1] / shape[0] + 0.2 + 0.09 * longest
        height = n_rows * IMAGE + 0.2 + (0.3 if title else 0)
        fig, ax = plt.subplots(figsize=(max(width, 1.5), height), layout="constrained")
    else:
        fig = ax.figure
    names = [] if groupby is None else list(rows)
    draw_canvas(ax, canvas, shape, names, cmap=cmap, vmin=vmin, vmax=vmax)
    ax.set_xlim(-0.5, n * side - 0.5)
    ax.set_ylabel(groupby or "")
    return finish("images", fig, ax, title=title, show=show, save=save, return_fig=return_fig)


def image_shape_of(adata: AnnData, wanted: Sequence[int] | None) -> tuple[int, int, int]:
    """Return and check the height, width and number of colours of the images."""
    if wanted is None:
        if Key.uns.IMAGE_SHAPE not in adata.uns:
            raise ValueError(
                f"There is no shape of the images in .uns[{Key.uns.IMAGE_SHAPE!r}]: give "
                "image_shape=(height, width)."
            )
        wanted = adata.uns[Key.uns.IMAGE_SHAPE]
    given = tuple(int(size) for size in wanted)
    shape = given if len(given) == 3 else (*given, 1)
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in (1, 3, 4):
        raise ValueError(
            "image_shape must be (height, width), or (height, width, colours) with 1, 3 or 4 "
            f"colours, got {given}."
        )
    if np.prod(shape) != adata.n_vars:
        product = " x ".join(map(str, given))
        raise ValueError(
            f"Images of {product} have {np.prod(shape)} pixels, but adata has {adata.n_vars} "
            "variables."
        )
    return shape


def _rows(
    adata: AnnData,
    groupby: str | None,
    wanted: Sequence[str] | None,
    n: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.intp]]:
    """Choose the images of each row, by the name of the row."""
    if adata.n_obs == 0:
        raise ValueError("There is no image to show: adata is empty.")
    if groupby is None:
        if wanted is not None:
            raise ValueError("groups needs groupby: the column that they are found in.")
        chosen = rng.permutation(adata.n_obs)[: n * n]
        return {
            str(i): chosen[start : start + n] for i, start in enumerate(range(0, len(chosen), n))
        }
    if groupby not in adata.obs:
        there = ", ".join(obs_columns(adata)) or "none"
        raise KeyError(f"There is no column {groupby!r} in .obs (there is: {there}).")
    labels = adata.obs[groupby]
    text = labels.astype(str).where(labels.notna()).to_numpy(dtype=object)
    there = natsorted(set(text[~pd.isna(text)]))
    if not there:
        raise ValueError(f"There is no image to show: .obs[{groupby!r}] has no value.")
    names = choose_groups(there, wanted, f".obs[{groupby!r}]")
    return {name: rng.permutation(np.flatnonzero(text == name))[:n] for name in names}


def _step(size: int) -> int:
    """Return the pixels from one image to the next."""
    return size + max(1, round(_MARGIN * size))


def make_canvas(
    x: NDArray,
    rows: dict[str, NDArray[np.intp]],
    shape: tuple[int, int, int],
    n: int,
    limits: tuple[float, float],
) -> NDArray[np.float64]:
    """Assemble images to one image, with NaN between them."""
    height, width, n_colours = shape
    step, side = _step(height), _step(width)
    canvas = np.full((len(rows) * step - (step - height), n * side, n_colours), np.nan)
    for i, chosen in enumerate(rows.values()):
        drawn = x[chosen]
        drawn = np.asarray(drawn.toarray() if issparse(drawn) else drawn, dtype=np.float64)
        _check_values(drawn, limits)
        for j, image in enumerate(drawn.reshape(-1, *shape)):
            canvas[i * step : i * step + height, j * side : j * side + width] = image
    return canvas


def draw_canvas(
    ax: Axes,
    canvas: NDArray[np.float64],
    shape: tuple[int, int, int],
    names: Sequence[str],
    *,
    cmap: str,
    vmin: float,
    vmax: float,
) -> None:
    """Draw an assembled image, with the names of its rows if there are any."""
    if shape[2] == 1:
        # a missing image is white
        shown = np.ma.masked_invalid(canvas[..., 0])
        ax.imshow(shown, cmap=cmap, vmin=vmin, vmax=vmax, interpolation="nearest")
    else:
        shown = np.clip((canvas - vmin) / (vmax - vmin), 0, 1)
        ax.imshow(np.nan_to_num(shown, nan=1.0), interpolation="nearest")
    ax.grid(visible=False, which="both")
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    middles = np.arange(len(names)) * _step(shape[0]) + (shape[0] - 1) / 2
    ax.set_yticks(middles, names, fontsize="small")
    ax.tick_params(length=0)


def _check_values(values: NDArray[np.float64], limits: tuple[float, float]) -> None:
    low, high = limits
    slack = _TOLERANCE * (high - low)
    if not (
        np.isfinite(values).all() and low - slack <= values.min() <= values.max() <= high + slack
    ):
        raise ValueError(
            f"Values go from {values.min():g} to {values.max():g}, but the colours from "
            f"vmin={low:g} to vmax={high:g}: scale the images, or give other limits."
        )
