"""Plot of the markers that correlate with the state within clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from scmoe._core.keys import Key
from scmoe._core.settings import check_whole
from scmoe.get import state_genes as get_state_genes

from ._figure import choose_groups, fill_docs, finish, make_panels, open_frame, short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.22
"""Height of a row in inches."""
_PANEL = 2.4
"""Width of a panel in inches, without names."""
_LETTER = 0.085
_LONGEST, _TITLE = 24, 34
"""Letters of a marker and of a cluster that are shown."""
_UNUSED, _FAINT = 0.1, 0.25
"""Reliability below which a dimension is unused, and the opacity of its points."""
_COLOURS = 10


@fill_docs
def state_genes(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    groups: Sequence[str] | str | None = None,
    n_markers: int = 8,
    ncols: int = 4,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw the markers that correlate most with the state, a panel for each cluster.

    Rows are markers, the first in rank on top. Points are rank correlations with the dimensions
    of the state, with their 95 % intervals; the points of a dimension that is hardly used are
    faint. Beside each row is the share of the variance of the marker that the state explains, in
    the arm where this share is smallest.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.state_genes`.
    key
        The ``key_added`` of :func:`scmoe.tl.state_genes`.
    groups
        The clusters to show, in this order; by default all.
    n_markers
        Number of markers of each cluster.
    ncols
        Number of panels in a row.
    {title}
    {show_save}

    Returns
    -------
    {returns} the axes of the panels.

    Raises
    ------
    KeyError
        If there is no such table, or a cluster is not in it.
    ValueError
        If there is no cluster to show, or ``n_markers`` or ``ncols`` is below 1.

    Examples
    --------
    >>> scmoe.tl.cluster(adata, model="cpl-mixvae")
    >>> scmoe.tl.state_genes(adata)
    >>> scmoe.pl.state_genes(adata)
    """
    check_whole("n_markers", n_markers, 1)
    check_whole("ncols", ncols, 1)
    table = get_state_genes(adata, key=key)
    there = [str(name) for name in table["cluster"].unique()]
    names = choose_groups(there, groups, f"`.uns[{Key.uns.state_genes(key)!r}]`")
    table = table[table["rank"] <= n_markers]
    parts = {name: table[table["cluster"] == name] for name in names}

    n_rows = max(part["rank"].nunique() for part in parts.values())
    longest = max(len(short(name, _LONGEST)) for part in parts.values() for name in part["marker"])
    ncols = min(ncols, len(parts))
    nrows = -(-len(parts) // ncols)
    size = (ncols * (_PANEL + _LETTER * longest), nrows * (_ROW * n_rows + 0.85) + 0.4)
    fig, axes = make_panels(len(parts), ncols, size)
    for ax, (name, part) in zip(axes, parts.items(), strict=True):
        _panel(ax, part, n_rows)
        title_of = f"{short(name, _TITLE)}\n{part['n_cells'].iloc[0]:,} cells"
        ax.set_title(title_of, fontsize="small")
    # once, because the labels of neighbouring panels would overlap
    fig.supxlabel("rank correlation with the state", fontsize="small")
    dims = table["dimension"].unique()
    if len(dims) > 1:
        handles = [
            Line2D([], [], color=_colour(d), marker="o", linestyle="", label=f"{d}") for d in dims
        ]
        fig.legend(
            handles=handles,
            title="dimension",
            loc="outside right upper",
            frameon=False,
            fontsize="small",
        )
    return finish(
        "state_genes", fig, axes, title=title, show=show, save=save, return_fig=return_fig
    )


def _colour(dimension: int) -> str:
    return f"C{dimension % _COLOURS}"


def _panel(ax: Axes, part: pd.DataFrame, n_rows: int) -> None:
    ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    dims = part["dimension"].unique()
    # dimensions are drawn one below the other, so that equal ones are visible
    offsets = np.linspace(-0.2, 0.2, len(dims)) if len(dims) > 1 else [0.0]
    for dimension, offset in zip(dims, offsets, strict=True):
        rows = part[part["dimension"] == dimension]
        y = rows["rank"].to_numpy() - 1 + offset
        alpha = 1 if rows["reliability"].iloc[0] >= _UNUSED else _FAINT
        how = {"color": _colour(dimension), "alpha": alpha}
        ax.hlines(y, rows["lower"], rows["upper"], linewidth=1.4, **how)
        ax.scatter(rows["effect"], y, s=14, linewidths=0, zorder=3, **how)
    once = part[part["dimension"] == dims[0]]
    ax.set_yticks(
        range(len(once)), [short(name, _LONGEST) for name in once["marker"]], fontsize="small"
    )
    shares = ["" if np.isnan(share) else f"{max(share, 0):.0%}" for share in once["r2_min"]]
    for y, text in enumerate([f"R² {shares[0]}" if shares[0] else "", *shares[1:]]):
        ax.annotate(
            text,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
            color="0.4",
        )
    ax.set_xlim(-1.05, 1.05)
    ax.set_ylim(n_rows - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize="small")
    open_frame(ax)
