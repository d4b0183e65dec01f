"""Histograms of generated and real cells for each marker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scmoe.metrics import RealAndGenerated

from ._figure import choose_groups, fill_docs, finish, make_panels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# inches
_PANEL = (1.6, 1.25)
_SMALL = (1.15, 0.6)
_MOST_PANELS = 300
_REAL, _GENERATED = "0.75", "C3"


@fill_docs
def generated(
    real: AnnData,
    generated: AnnData,
    *,
    groupby: str | tuple[str, str] | None = None,
    groups: Sequence[str] | None = None,
    markers: Sequence[str] | None = None,
    layer: str | tuple[str | None, str | None] | None = None,
    bins: int = 50,
    ncols: int = 6,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw histograms of real (grey) and generated (red) cells, one panel for each marker.

    With ``groupby`` there is a row for each group and a column for each marker. Each histogram
    has an area of 1. Real and generated cells have the same bins, from the smallest to the
    largest value of the marker in any cell.

    Parameters
    ----------
    real, generated
        Cells on the same scale; markers are matched by name.
    groupby
        Column of ``.obs`` with the groups, or a pair of columns (of ``real``, of
        ``generated``).
    groups
        The groups to show, in this order; by default all.
    markers
        The markers to show; by default those of ``generated``.
    layer
        The layer to read, or a pair of layers; by default ``.X``.
    bins
        Number of bins at most; ``n`` cells have at most :math:`4 n^{1/3}` bins.
    ncols
        Number of panels in a row, without ``groupby``.
    {title}
    {show_save}

    Returns
    -------
    {returns} the list of axes.

    Raises
    ------
    KeyError
        If a marker, a group, a column or a layer does not exist.
    ValueError
        If there is nothing to show, more than 300 panels would be needed, or values are NaN.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> new = scmoe.tl.generate(adata, 1000)
    >>> scmoe.pl.generated(adata, new)
    >>> scmoe.pl.generated(adata, new, markers=["CD3", "CD19"])
    """
    if bins < 1 or ncols < 1:
        raise ValueError(f"bins and ncols must be 1 or more, got {bins} and {ncols}.")
    cells = RealAndGenerated.of(real, generated, groupby, layer, markers)
    names = _group_names(cells, groupby, groups)
    n_markers = len(cells.markers)
    n_panels = n_markers * max(1, len(names))
    if n_panels > _MOST_PANELS:
        raise ValueError(
            f"{n_markers} markers"
            + (f" in {len(names)} groups" if names else "")
            + f" need {n_panels} panels, and more than {_MOST_PANELS} cannot be read: choose some "
            "with markers= or groups=."
        )
    limits = _limits(cells)
    if names:
        size = _size(len(names), n_markers, _SMALL)
        fig, axes = make_panels(n_panels, n_markers, size, sharex="col")
        grid = np.reshape(axes, (len(names), n_markers))
        for row, name in zip(grid, names, strict=True):
            of_real, of_generated = cells.real_groups == name, cells.generated_groups == name
            for i, panel in enumerate(row):
                _histogram(
                    panel,
                    cells.real[of_real, i],
                    cells.generated[of_generated, i],
                    limits[i],
                    bins,
                )
            row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
        for panel, marker in zip(grid[0], cells.markers, strict=True):
            panel.set_title(marker, fontsize="small")
    else:
        ncols = min(ncols, n_markers)
        fig, axes = make_panels(n_markers, ncols, _size(-(-n_markers // ncols), ncols, _PANEL))
        for i, panel in enumerate(axes):
            _histogram(panel, cells.real[:, i], cells.generated[:, i], limits[i], bins)
            panel.set_title(cells.markers[i], fontsize="small")
    handles = [
        Patch(color=_REAL, label="real"),
        Line2D([], [], color=_GENERATED, label="generated"),
    ]
    fig.legend(
        handles=handles, loc="outside lower right", ncols=2, frameon=False, fontsize="small"
    )
    return finish("generated", fig, axes, title=title, show=show, save=save, return_fig=return_fig)


def _group_names(
    cells: RealAndGenerated,
    groupby: str | tuple[str, str] | None,
    wanted: Sequence[str] | None,
) -> list[str]:
    if groupby is None:
        if wanted is not None:
            raise ValueError("groups needs groupby: the column that they are found in.")
        return []
    there = cells.groups
    if not there:
        raise ValueError(f"There is nothing to show: no cell has a group in {groupby!r}.")
    return choose_groups(there, wanted, repr(groupby))


def _limits(cells: RealAndGenerated) -> list[tuple[float, float]]:
    """Return the smallest and largest value of each marker; a range around them if equal."""
    both = (cells.real, cells.generated)
    low = np.min([x.min(axis=0) for x in both], axis=0)
    high = np.max([x.max(axis=0) for x in both], axis=0)
    middle = low == high
    return list(zip(low - 0.5 * middle, high + 0.5 * middle, strict=True))


def _size(n_rows: int, n_columns: int, panel: tuple[float, float]) -> tuple[float, float]:
    """Return the size of a figure, with room for its legend."""
    return max(n_columns * panel[0] + 0.3, 2.8), n_rows * panel[1] + 0.8


def _histogram(
    ax: Axes,
    real: NDArray,
    generated: NDArray,
    limits: tuple[float, float],
    bins: int,
) -> None:
    # a group may be missing on one side
    sizes = [len(values) for values in (real, generated) if len(values)]
    edges = np.linspace(*limits, min(bins, round(4 * min(sizes) ** (1 / 3))) + 1)
    for values, style in (
        (real, {"fill": True, "color": _REAL}),
        (generated, {"color": _GENERATED, "linewidth": 1.1}),
    ):
        if len(values):
            ax.stairs(np.histogram(values, edges, density=True)[0], edges, **style)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0)
    ax.set_yticks([])
    ax.tick_params(labelsize="x-small", length=2)
    ax.grid(visible=False, which="both")
    ax.spines[["top", "right", "left"]].set_visible(False)
