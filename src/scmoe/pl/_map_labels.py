"""Positions of labels on a map of cells, such that they hide few cells and no other label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree

from ._figure import categories, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

RARE = 0.01
"""Share of the cells below which a group is rare."""
_COMMON = 0.4
"""Cost of hiding a whole cluster that is not rare; hiding a rare one costs 1."""
_RINGS = 8
"""Rings of positions around the middle of the cells that are tried."""
_SEARCHED = 2000
"""Cells at most among which the middle of a cluster is searched."""
_CROWD = 10
"""Number of cells beyond which a moved label costs no more."""


def write_labels(
    ax: Axes,
    adata: AnnData,
    points: NDArray[np.floating],
    column: str,
    groups: str | Sequence[str] | None = None,
) -> None:
    """Write the labels of groups on their cells, or beside cells that they would hide.

    Parameters
    ----------
    ax
        Axes with the map, whose layout is final.
    adata, column
        The groups.
    points
        Positions of the cells on the map, ``(n_cells, 2)``.
    groups
        Groups to label; by default all.
    """
    labels = categories(adata.obs[column])
    points = ax.transData.transform(points)
    codes = pd.Categorical(adata.obs[column].astype(str), categories=labels).codes
    there = (codes >= 0) & np.isfinite(points).all(axis=1)
    points, codes = points[there], codes[there]
    sizes = np.bincount(codes, minlength=len(labels))
    taken = np.empty((0, 4))
    for k in np.argsort(-sizes, kind="stable"):
        if not sizes[k] or labels[k] not in shown_groups(labels, groups):
            continue
        own = points[codes == k]
        text = ax.text(
            0,
            0,
            short(labels[k]),
            ha="center",
            va="center",
            fontsize="small",
            fontweight="bold",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        box = text.get_window_extent()
        middle = _middle(own, radius=1.5 * box.height)
        place, box = _place(middle, (box.width, box.height), points, codes, sizes, taken, ax.bbox)
        taken = np.vstack([taken, box])
        x, y = ax.transData.inverted().transform(place)
        text.set_position((x, y))
        if not (place == middle).all():
            x0, y0 = ax.transData.inverted().transform(middle)
            ax.plot(
                [x0, x],
                [y0, y],
                color="0.4",
                linewidth=0.8,
                # the line must not hide the cells it points at
                zorder=0.5,
                scalex=False,
                scaley=False,
            )


def _middle(own: NDArray[np.floating], radius: float) -> NDArray[np.floating]:
    """Find the cell nearest to the median that has many neighbours of its cluster.

    The median itself may be outside of the cluster, between two parts or within a crescent.
    """
    own = own[:: -(-len(own) // _SEARCHED)]
    neighbors = cKDTree(own).query_ball_point(own, radius, return_length=True)
    own = own[neighbors >= neighbors.max() / 2]
    return own[((own - np.median(own, axis=0)) ** 2).sum(axis=1).argmin()]


def _place(
    middle: NDArray[np.floating],
    size: tuple[float, float],
    points: NDArray[np.floating],
    codes: NDArray[np.integer],
    sizes: NDArray[np.integer],
    taken: NDArray[np.floating],
    axes: Bbox,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Find the position of a label near the middle of its cells that hides least.

    Hidden cells count by their share of their cluster, so that rare clusters stay visible.

    Returns
    -------
    The position in pixels, and the box of the label.
    """
    half = np.array(size) / 2 + 2
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    around = np.column_stack([np.cos(turns), np.sin(turns)])
    rings = [around * (half + size[1] * (0.4 + 0.6 * ring)) for ring in range(_RINGS)]
    places = middle + np.vstack([np.zeros((1, 2)), *rings])
    near = (np.abs(points - middle) <= np.abs(places - middle).max(axis=0) + half).all(axis=1)
    weights = np.where(sizes < RARE * len(codes), 1, _COMMON) / np.maximum(sizes, 1)
    points, weights = points[near], weights[codes[near]]
    best, least = 0, np.inf
    for i, place in enumerate(places):
        box = np.concatenate([place - half, place + half])
        under = (np.abs(points - place) <= half).all(axis=1)
        cost = 4 * weights[under].sum()
        if i:
            # a moved label should be on few cells, and near
            cost += 0.8 + 0.05 * ((i - 1) // len(turns)) + 0.5 * min(under.sum() / _CROWD, 1)
        apart = (box[:2] >= taken[:, 2:]).any(axis=1) | (box[2:] <= taken[:, :2]).any(axis=1)
        cost += 3 * (~apart).sum()
        cost += 10 * ((box[:2] < axes.min) | (box[2:] > axes.max)).any()
        if cost < least:
            best, least = i, cost
    place = places[best]
    return place, np.concatenate([place - half, place + half])


def shown_groups(labels: list[str], groups: str | Sequence[str] | None) -> list[str]:
    """Return the labels of the groups to show, by default all."""
    wanted = labels if groups is None else [groups] if isinstance(groups, str) else groups
    return [label for label in labels if label in set(wanted)]
