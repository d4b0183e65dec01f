"""A heat map with a number in each field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# inches
_ROW, _LETTER = 0.3, 0.075
_COLOUR_BAR, _COLOUR_BAR_WIDTH, _GAP = 0.12, 1.8, 0.12
_LEAST_WIDTH, _LEAST_ROWS = 2.2, 4
_DARK = 0.5
"""Luminance below which a field is written on in white."""


def heatmap(
    values: pd.DataFrame,
    texts: Sequence[Sequence[str]],
    *,
    label: str,
    cmap: str,
    vmin: float | None,
    vmax: float | None,
    title: str | None,
    ax: Axes | None,
) -> tuple[Figure, Axes]:
    """Draw fields with their texts, names of rows and columns, and a colour bar above."""
    n_rows, n_columns = values.shape
    longest = max(len(text) for row in texts for text in row)
    width = max(n_columns * max(0.32, _LETTER * longest + 0.1), _LEAST_WIDTH)
    height = max(n_rows, _LEAST_ROWS) * _ROW
    if ax is None:
        names = _LETTER * max(len(str(name)) for name in values.index)
        below = _LETTER * max(len(str(name)) for name in values.columns)
        size = (width + names + 0.8, height + below + 1.2)
        fig, ax = plt.subplots(figsize=size, layout="constrained")
    else:
        fig = ax.figure
        # the colour bar keeps its size in inches, whatever that of the axes
        box = ax.get_window_extent().transformed(fig.dpi_scale_trans.inverted())
        width, height = box.width, box.height
    image = ax.imshow(
        np.ma.masked_invalid(values.to_numpy(dtype=np.float64)),
        aspect="auto",
        interpolation="nearest",
        cmap=cmap,
        vmin=vmin,
        vmax=vmax,
    )
    turned = max(len(str(name)) for name in values.columns) > 3
    ax.set_xticks(
        range(n_columns), values.columns.astype(str), rotation=90 * turned, fontsize="small"
    )
    ax.set_yticks(range(n_rows), values.index.astype(str), fontsize="small")
    ax.tick_params(length=0)
    ax.set_xticks(np.arange(1, n_columns) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, n_rows) - 0.5, minor=True)
    ax.grid(visible=False, which="major")
    ax.grid(visible=True, which="minor", color="white", linewidth=0.6)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            value = values.iloc[i, j]
            colour = "0.4" if np.isnan(value) else _readable(image.cmap(image.norm(value)))
            ax.text(j, i, text, ha="center", va="center", fontsize="x-small", color=colour)
    bar = ax.inset_axes(
        (0, 1 + _GAP / height, min(_COLOUR_BAR_WIDTH / width, 1.0), _COLOUR_BAR / height)
    )
    fig.colorbar(image, cax=bar, orientation="horizontal", ticklocation="top")
    bar.tick_params(labelsize="x-small", length=2)
    bar.set_xlabel(label, fontsize="small", loc="left")
    bar.xaxis.set_label_position("top")
    if title is not None:
        fig.suptitle(title)
    return fig, ax


def _readable(colour: Sequence[float]) -> str:
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return "white" if luminance < _DARK else "black"
