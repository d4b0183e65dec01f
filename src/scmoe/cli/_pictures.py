"""Pictures of the report, as ``data:`` addresses."""

from __future__ import annotations

import base64
import io
import warnings
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData

from scmoe import pl
from scmoe._core.signatures import labels_of
from scmoe.pl import colors_of, short

from ._tables import highest_probability

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MOST_COLUMNS = 40
"""Largest number of markers in the heat map."""

MOST_MAPS = 16
"""Largest number of maps by marker."""

MOST_SAMPLES = 30
"""Largest number of samples that have different colours."""

_DPI = 110

_LARGEST_POINT = 90.0

STYLE = {
    # no formulas in names of markers and files
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.facecolor": "white",
}


def map_by(shown: AnnData, basis: str, values: pd.Series, *, on_map: bool | None = None) -> str:
    """Draw the map, coloured by cluster or by sample."""
    column = str(values.name)
    # drawn in the order of the files, the last sample would lie above the others
    order = np.random.default_rng(0).permutation(shown.n_obs)
    colours = f"{column}_colors"
    cells = AnnData(
        obs=values.to_frame(column).iloc[order],
        obsm={basis: shown.obsm[basis][order]},
        uns={colours: shown.uns[colours]} if colours in shown.uns else {},
    )
    return _draw(
        lambda: pl.clusters(
            cells,
            basis=basis,
            color=column,
            title="",
            on_map=on_map,
            size=_size(cells),
            return_fig=True,
        )
    )


def map_by_marker(shown: AnnData, basis: str, marker: str, layer: str | None) -> str:
    """Draw the map, coloured by a marker from its 1st to its 99th percentile."""
    return _draw(
        lambda: pl.clusters(
            shown,
            basis=basis,
            color=marker,
            title="",
            layer=layer,
            size=_size(shown),
            return_fig=True,
            vmin="p1",
            vmax="p99",
        ),
        dpi=60,
    )


def heat_map(adata: AnnData, key: str, markers: list[str], layer: str | None) -> str:
    """Draw the medians of the markers in the clusters."""
    return _draw(lambda: pl.markers(adata, key=key, markers=markers, layer=layer, return_fig=True))


def tree(adata: AnnData, key: str) -> str:
    """Draw the tree that the clusters follow."""
    return _draw(lambda: pl.tree(adata, key=key, return_fig=True))


def loss(history: pd.DataFrame) -> str:
    """Draw the terms of the loss over the epochs."""
    return _draw(lambda: pl.history(history, return_fig=True), dpi=90)


def confidence(adata: AnnData, key: str) -> str:
    """Draw the histogram of the highest probability of each cell."""
    return _draw(lambda: _histogram(highest_probability(adata, key)))


def confidence_by_cluster(adata: AnnData, key: str) -> str:
    """Draw median and quartiles of the highest probability, by cluster."""
    colors = colors_of(adata, key) or {}
    return _draw(
        lambda: _quartiles(highest_probability(adata, key), labels_of(adata, key), colors)
    )


def _histogram(values: pd.Series) -> Figure:
    fig, ax = plt.subplots(figsize=(4.4, 3.0), layout="constrained")
    # on a linear scale the last bar of a good clustering would hide the others
    ax.hist(values, bins=np.linspace(0, 1, 41), color="#4477aa", log=True)
    ax.set(xlabel="highest probability", ylabel="cells (logarithmic)", xlim=(0, 1))
    # powers of ten would be formulas
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_minor_formatter("")
    return fig


def _quartiles(values: pd.Series, labels: pd.Series, colors: dict[str, str]) -> Figure:
    names = [short(name) for name in labels.cat.categories]
    own = [colors.get(str(name), "0.5") for name in labels.cat.categories]
    groups = [values[(labels == name).to_numpy()] for name in labels.cat.categories]
    low, middle, high = np.array([np.quantile(g, [0.25, 0.5, 0.75]) for g in groups]).T
    rows = np.arange(len(names))
    height = max(3.0, 0.2 * len(names) + 0.8)
    fig, ax = plt.subplots(figsize=(4.4, height), layout="constrained")
    ax.hlines(rows, low, high, color=own, linewidth=4, alpha=0.6)
    ax.scatter(middle, rows, s=20, c=own, edgecolors="#223355", zorder=3)
    ax.set_yticks(rows, names, fontsize="small")
    ax.set(xlabel="highest probability", ylabel="cluster", xlim=(0, 1.01))
    ax.invert_yaxis()
    return fig


def _size(cells: AnnData) -> float:
    """Return the size of a point: that of scanpy, but not too large for few cells."""
    return min(120_000 / cells.n_obs, _LARGEST_POINT)


def _draw(figure, *, dpi: int = _DPI) -> str:
    """Return a figure as PNG, in a ``data:`` address."""
    with plt.rc_context(STYLE), warnings.catch_warnings():
        # matplotlib warns of fonts and margins, which does not help the reader of the page
        warnings.simplefilter("ignore")
        fig = figure()
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
        plt.close(fig)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
