"""Pictures as text that a page can hold."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc

from scmoe import pl
from scmoe._keys import Key

from ._tables import highest_probability, labels_of, measured_markers

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.figure import Figure

MOST_COLUMNS = 60
"""Markers in the heat map."""

MOST_MAPS = 12
"""Markers that get a map of their own."""

MOST_SAMPLES = 30
"""Samples that can be told apart by colour."""

_DPI = 110

STYLE = {
    # names of markers and files are no formulas
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.facecolor": "white",
}


def set_colours(adata: AnnData, key: str) -> None:
    """Give the clusters the colours that scanpy would, so that page and notebooks agree."""
    palettes = sc.pl.palettes
    n = len(adata.obs[key].cat.categories)
    several = (palettes.default_20, palettes.default_28, palettes.default_102)
    palette = next((p for p in several if n <= len(p)), ["#808080"] * n)
    adata.uns[f"{key}_colors"] = list(palette[:n])


def map_of_clusters(shown: AnnData, key: str) -> str:
    """The map by cluster and, where there are several, by sample."""
    colors = [key]
    column = Key.obs.SAMPLE
    if column in shown.obs and 1 < shown.obs[column].nunique() <= MOST_SAMPLES:
        colors.append(column)
    titles = ["clusters", "samples"][: len(colors)]
    return _draw(lambda: pl.clusters(shown, key=key, color=colors, title=titles, return_fig=True))


def maps_of_markers(shown: AnnData, markers: list[str], layer: str | None) -> str:
    """The map by each of the markers."""
    return _draw(
        lambda: pl.clusters(
            shown,
            color=markers,
            layer=layer,
            ncols=4,
            return_fig=True,
            cmap="viridis",
            vmin="p1",
            vmax="p99",
        ),
        dpi=60,
    )


def heat_map(adata: AnnData, key: str, markers: list[str], layer: str | None) -> str:
    """Medians of the markers in the clusters."""
    return _draw(lambda: pl.markers(adata, key=key, markers=markers, layer=layer, return_fig=True))


def loss(history: pd.DataFrame) -> str:
    """The terms of the loss over the epochs."""
    return _draw(lambda: pl.history(history, return_fig=True), dpi=90)


def confidence(adata: AnnData, key: str) -> str:
    """Highest probabilities of all cells, and their quartiles by cluster."""
    return _draw(lambda: _confidence(adata, key))


def marked(adata: AnnData, table: pd.DataFrame, used: list[str], most: int) -> list[str]:
    """The markers whose medians differ most between the clusters, in their own order."""
    names = measured_markers(adata, used)
    if len(names) <= most:
        return names
    medians = table[names]
    # outside the few that are compared, the scale of a marker says nothing
    spread = medians.std(axis=0) / medians.abs().max(axis=0).replace(0, 1)
    best = set(spread.nlargest(most).index)
    return [name for name in names if name in best]


def _confidence(adata: AnnData, key: str) -> Figure:
    values, labels = highest_probability(adata, key), labels_of(adata, key)
    names = [str(name) for name in labels.cat.categories]
    height = max(2.6, 0.2 * len(names) + 0.9)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, height), layout="constrained")
    left.hist(values, bins=np.linspace(0, 1, 41), color="#4477aa")
    left.set(xlabel="highest probability", ylabel="cells", xlim=(0, 1), title="all cells")
    groups = [values[(labels == name).to_numpy()] for name in labels.cat.categories]
    low, middle, high = np.array([np.quantile(g, [0.25, 0.5, 0.75]) for g in groups]).T
    rows = np.arange(len(names))
    right.hlines(rows, low, high, color="#4477aa", linewidth=4, alpha=0.5)
    right.plot(middle, rows, "o", color="#223355", markersize=4)
    right.set_yticks(rows, names, fontsize="small")
    right.set(xlabel="median and quartiles", xlim=(0, 1.01), title="by cluster")
    right.invert_yaxis()
    return fig


def _draw(figure, *, dpi: int = _DPI) -> str:
    """A PNG as ``data:`` address."""
    with plt.rc_context(STYLE):
        fig = figure()
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
        plt.close(fig)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
