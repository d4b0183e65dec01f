"""The tree that a clustering follows, with the medians and the sizes of its leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from scmoe._core.cells import check_in_memory
from scmoe._core.keys import Key
from scmoe._core.text import listing
from scmoe.get import gate_cells, label_names, relabelled_tree, tree_values
from scmoe.tree import split_weights

from ._figure import colors_of, fill_docs, finish, set_colors, share_colors, short
from ._heatmaps import draw_heatmap, draw_sizes
from ._markers import scale_medians

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scmoe.tree import Tree

# inches
_ROW, _COLUMN, _LEVEL = 0.28, 0.24, 0.42
_LETTER, _SMALL_LETTER = 0.075, 0.068
_LEAST_ROWS = 4
_BARS, _ABOVE = 1.25, 0.62
_HIGH, _LOW = "0.15", "0.62"
"""Colours of branches above and below a threshold."""
_NAMED = 2
"""Markers of a sum that are written on a split."""
_STRENGTH = (3.5, 28.0)
"""Significance of the thinnest and of the thickest branch."""


@fill_docs
def tree(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    markers: Sequence[str] | None = None,
    cmap: str = "viridis",
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Draw the tree of a clustering: its splits, and the medians and the sizes of its leaves.

    The branch above a threshold goes up and is dark, the branch below it goes down and is light;
    between them stands the marker that is split, or the two markers with the largest weights of
    a sum. Thicker branches belong to more significant splits. Each leaf has the colour and the
    name of its cluster, the medians of the markers in its cells, scaled to 0 to 1 over the leaves,
    and the number of its cells. Of more than a million cells, a million evenly spaced ones are
    used. A cluster may have several leaves; a leaf without a cluster of its own has the cluster of
    most of its cells.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster` with
        :class:`scmoe.similarity.DensityTree`, its default, with the values that were clustered.
    {key}
    markers
        The markers to show at the leaves; by default those that are written on a split.
    cmap
        Colour map of the medians.
    {title}
    {show_save}

    Returns
    -------
    {returns} the axes of the tree, of the medians and of the sizes.

    As in scanpy, the colours are kept in ``.uns[key + "_colors"]``.

    Raises
    ------
    KeyError
        If there is no such clustering, it follows no tree, or its values or a marker are missing.
    ValueError
        If the record is damaged, there is no marker to show, or the cells are in a file.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.pl.tree(adata)
    """
    check_in_memory(adata)
    if adata.is_view:
        adata = adata.copy()
    found, counts = relabelled_tree(adata, key)
    x = tree_values(adata, key, found, gate_cells(adata.n_obs))
    rows = _rows(found)
    leaf = pd.Categorical(found.find_leaves(x), categories=rows)
    medians = _shown(found, x, markers).groupby(leaf, observed=False).median()
    sizes = pd.Series(
        np.bincount(leaf.codes, minlength=len(rows)),
        index=label_names(counts)[found.cluster[rows]],
    )
    colors = _colors(adata, key)

    height = max(len(rows), _LEAST_ROWS) * _ROW
    width = _width(found)
    longest = max(len(short(name)) for name in sizes.index)
    names, columns = 0.3 + _LETTER * longest, len(medians.columns) * _COLUMN
    below = 0.2 + _LETTER * max(len(short(name)) for name in medians.columns)
    above = _ABOVE + (0.3 if title else 0)
    size = np.array([0.3 + width + names + columns + 0.1 + _BARS, below + height + above])
    fig = plt.figure(figsize=size)

    def place(left: float, wide: float) -> Axes:
        return fig.add_axes((left / size[0], below / size[1], wide / size[0], height / size[1]))

    left = 0.15 + width + names
    axes = [place(0.15, width), place(left, columns), place(left + columns + 0.1, _BARS)]
    _draw_tree(axes[0], found, rows, width, [colors.get(name, "0.5") for name in sizes.index])
    draw_heatmap(
        axes[1],
        scale_medians(medians, "var"),
        list(map(short, sizes.index)),
        list(map(short, medians.columns)),
        size=(columns, height),
        label="median, 0 to 1 per marker",
        cmap=cmap,
        vmin=0,
        vmax=1,
    )
    axes[1].tick_params("x", rotation=90)
    draw_sizes(axes[2], sizes, colors)
    axes[2].set_ylim(len(rows), 0)
    return finish("tree", fig, axes, title=title, show=show, save=save, return_fig=return_fig)


def _rows(tree: Tree) -> list[int]:
    """Return the leaves from top to bottom: the side above a threshold goes first."""
    split_of = {int(region): split for split, region in enumerate(tree.region)}
    waiting, rows = [0], []
    while waiting:
        region = waiting.pop()
        if region in split_of:
            split = split_of[region]
            waiting += [2 * split + 1, 2 * split + 2]
        else:
            rows.append(region)
    return rows


def _text(tree: Tree, split: int) -> str:
    """Write the marker of a split and its threshold."""
    weights = split_weights(tree, split)
    named = list(weights)[:_NAMED]
    parts = [f"{'−' if weights[name] < 0 else '+'} {short(name)}" for name in named]
    text = " ".join(parts).removeprefix("+ ")
    at = f"{tree.threshold[split]:.2g}".replace("-", "−")
    return f"{text}{' …' if len(weights) > _NAMED else ''} > {at}"


def _shown(tree: Tree, x: np.ndarray, markers: Sequence[str] | None) -> pd.DataFrame:
    """Return the values of the markers to show, cells x markers."""
    values = pd.DataFrame(x, columns=tree.markers)
    if markers is None:
        written = {
            name for i in range(tree.n_splits) for name in list(split_weights(tree, i))[:_NAMED]
        }
        return values[[name for name in values.columns if name in written or not written]]
    names = [markers] if isinstance(markers, str) else list(markers)
    unknown = [name for name in names if name not in values.columns]
    if unknown:
        raise KeyError(
            f"The tree has no marker {listing(unknown)}: it was grown on other markers."
        )
    if not names or len(set(names)) < len(names):
        raise ValueError("There are no markers to show, or one is named twice.")
    return values[names]


def _colors(adata: AnnData, key: str) -> dict[str, str]:
    """Return the colours of the clusters; scanpy's default colours if they have none."""
    adata.obs[key] = adata.obs[key].astype("category")
    share_colors(adata, key)
    if colors_of(adata, key) is None:
        set_colors(adata, key)
    return colors_of(adata, key)


def _left(tree: Tree, split: int) -> float:
    """Return the x position of a split in inches."""
    return 0.1 + _LEVEL * len(tree.path(int(tree.region[split])))


def _width(tree: Tree) -> float:
    """Return the width of the tree with its texts, in inches."""
    splits = range(tree.n_splits)
    texts = [_left(tree, i) + 0.15 + _SMALL_LETTER * len(_text(tree, i)) for i in splits]
    return max([_left(tree, i) + _LEVEL for i in splits] + texts, default=_LEVEL)


def _draw_tree(ax: Axes, tree: Tree, rows: list[int], width: float, colors: list[str]) -> None:
    """Draw splits from left to right, and the leaves at the right end.

    The text of a split stands between the last leaf above and the first leaf below it. Texts do
    not overlap, because each pair of neighbouring leaves is separated by its own split.
    """
    y = {region: float(row) for row, region in enumerate(rows)}
    for split in range(tree.n_splits - 1, -1, -1):
        y[int(tree.region[split])] = (y[2 * split + 1] + y[2 * split + 2]) / 2
    split_of = {int(region): split for split, region in enumerate(tree.region)}
    for split, region in enumerate(map(int, tree.region)):
        left = _left(tree, split)
        for child, color in ((2 * split + 1, _LOW), (2 * split + 2, _HIGH)):
            right = _left(tree, split_of[child]) if child in split_of else width
            ax.plot(
                [left, left, right],
                [y[region], y[child], y[child]],
                color=color,
                linewidth=_thickness(tree.significance[split]),
                solid_capstyle="butt",
                solid_joinstyle="miter",
                zorder=1,
            )
        last = max(rows.index(leaf) for leaf in tree.leaves_within(2 * split + 2))
        ax.text(left + 0.07, last + 0.5, _text(tree, split), va="center", fontsize="x-small")
    if tree.n_splits:
        ax.legend(
            [Line2D([], [], color=color, linewidth=2) for color in (_HIGH, _LOW)],
            ["above", "below"],
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2,
            frameon=False,
            fontsize="small",
            handlelength=1.2,
            columnspacing=1,
            borderaxespad=0.2,
        )
    else:
        ax.plot([0.1, width], [0, 0], color=_HIGH, linewidth=1, zorder=1)
    ax.scatter(
        [width] * len(rows),
        range(len(rows)),
        s=38,
        c=colors,
        edgecolors="0.3",
        linewidths=0.4,
        zorder=4,
        clip_on=False,
    )
    ax.set(xlim=(0, width), ylim=(len(rows) - 0.5, -0.5))
    ax.axis("off")


def _thickness(significance: float) -> float:
    """Return the line width of the branches of a split, in points."""
    low, high = _STRENGTH
    return float(np.interp(np.log(max(significance, low)), np.log([low, high]), [0.8, 3]))
