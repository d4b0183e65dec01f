"""How far samples have moved from a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from natsort import natsort_keygen

from scmoe._core.cells import check_is_adata
from scmoe._core.keys import Key
from scmoe.tl import DRIFT, SHIFT

from ._figure import finish

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEXT = {
    "va": "center",
    "size": 8,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},
}
_ALARM, _CALM = "tab:red", "tab:blue"


def drift(
    query: AnnData,
    *,
    key: str = Key.DEFAULT,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Bars of the drift of each sample, with what was rejected and what has moved.

    Red are samples that :func:`scmoe.tl.assign` warns of: by their cells (the bar is beyond the
    dashed line) or by a marker that has moved.

    Parameters
    ----------
    query
        Cells that :func:`scmoe.tl.assign` assigned.
    key
        Their ``key_added``.
    title
        Title of the figure.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_plate.pdf"``) writes to
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
    KeyError
        There is no table of drift: the cells were not assigned.

    Examples
    --------
    >>> scmoe.tl.cluster(reference)
    >>> scmoe.tl.assign(query, reference)
    >>> scmoe.pl.drift(query)
    """
    check_is_adata(query, "query")
    record = query.uns.get(Key.uns.result(key), {})
    if "drift" not in record:
        raise KeyError(
            f"Did not find a table of drift in `.uns[{key!r}]`: run "
            "`scmoe.tl.assign(query, reference)` first, or name its `key_added` as `key`."
        )
    table = record["drift"].sort_index(key=natsort_keygen(), ascending=False)
    if ax is None:
        fig, ax = plt.subplots(
            figsize=(7, 1.2 + 0.32 * len(table)), layout="constrained", squeeze=True
        )
    else:
        fig = ax.figure
    colors = [_ALARM if alarm else _CALM for alarm in table["alarm"]]
    ax.barh(range(len(table)), table["drift"], color=colors, height=0.7)
    ax.axvline(DRIFT, color="0.4", linestyle="--", linewidth=1)
    for y, row in enumerate(table.itertuples()):
        moved = f", {row.marker} moved {row.shift:.2f}" if row.shift > SHIFT else ""
        ax.text(row.drift + 0.01, y, f"{row.rejected:.1%} rejected{moved}", **_TEXT)
    ax.set_yticks(range(len(table)), [str(name) for name in table.index])
    ax.set_xlim(0, 1.45)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    ax.set_xlabel("drift: excess of cells that are strange to the reference")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(False)  # scanpy's settings may have lines across the text
    if title is not None:
        ax.set_title(title)
    return finish("drift", fig, ax, show=show, save=save, return_fig=return_fig)
