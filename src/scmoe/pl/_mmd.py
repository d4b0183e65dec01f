"""Heat map of the distances between groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._figure import finish
from ._heatmap import heatmap

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def mmd(
    table: pd.DataFrame,
    *,
    cmap: str = "viridis",
    label: str | None = None,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Heat map of the MMD between groups, with the numbers in the fields.

    Colours begin at 0: estimates below 0, which alike groups have by chance, look like 0.

    Parameters
    ----------
    table
        What :func:`scmoe.metrics.mmd_table` returns, or any table of numbers.
    cmap
        Colour map.
    label
        What stands at the colour bar; by default what the table says that it holds.
    title
        Title of the figure.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    ax
        Axes to draw in.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the axes.

    Raises
    ------
    ValueError
        If it is no table of numbers, or none of them is finite.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> table = scmoe.metrics.mmd_table(adata.X, adata.obs["scmoe"])
    >>> scmoe.pl.mmd(table)
    """
    if not isinstance(table, pd.DataFrame) or not all(
        pd.api.types.is_numeric_dtype(column) for column in table.dtypes
    ):
        raise ValueError(
            "pl.mmd draws a table of numbers; make one with scmoe.metrics.mmd_table(x, labels)."
        )
    values = table.to_numpy(dtype=np.float64)
    if not np.isfinite(values).any():
        raise ValueError("There is nothing to draw: the table has no finite number.")
    largest = float(np.nanmax(values))
    if label is None:
        scaled = table.attrs.get("statistic") == "scaled"
        label = "scaled MMD statistic" if scaled else "squared MMD"
    fig, ax = heatmap(
        table,
        [[_text(value, largest) for value in row] for row in values],
        label=label,
        cmap=cmap,
        vmin=0,
        vmax=largest if largest > 0 else 1,
        title=title,
        ax=ax,
    )
    return finish("mmd", fig, ax, show=show, save=save, return_fig=return_fig)


def _text(value: float, largest: float) -> str:
    if np.isnan(value):
        return "–"
    digits = 0 if largest >= 100 else 2
    # adding 0 turns "-0.00", which would look like a difference, into "0.00"
    return f"{round(value, digits) + 0.0:.{digits}f}"
