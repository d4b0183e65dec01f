"""Whether probabilities of clusters mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from scmoe._core.cells import check_is_adata, obs_columns
from scmoe._core.keys import Key
from scmoe.metrics import calibration as measure

from ._figure import finish

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RIGHT, _GAP, _LINE = "tab:blue", "tab:orange", "0.45"


def calibration(
    adata: AnnData,
    truth: str,
    *,
    key: str = Key.DEFAULT,
    n_bins: int = 15,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Reliability diagram: how often cells are right, by the probability of their cluster.

    Bars that end on the diagonal are probabilities that mean what they say; below it the model is
    surer than it should be, above it less sure. Underneath, how many cells each bar is of.

    Parameters
    ----------
    adata
        Cells with probabilities, best such that the model was not trained on
        (:func:`scmoe.tl.assign`).
    truth
        Column of ``.obs`` with the population of each cell; NaN is unknown.
    key
        The ``key_added`` of the clustering; ``.obsm[key + "_proba"]`` is read.
    n_bins
        Number of bars.
    title
        Title of the figure; by default the expected calibration error
        (:func:`scmoe.metrics.calibration`).
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the two axes.

    Raises
    ------
    KeyError
        No such column, or no probabilities.
    ValueError
        As :func:`scmoe.metrics.calibration`.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.pl.calibration(adata, "population")
    """
    check_is_adata(adata)
    slot = Key.obsm.proba(key)
    if slot not in adata.obsm:
        raise KeyError(
            f"Did not find {slot!r} in `.obsm`: run `scmoe.tl.cluster` or `scmoe.tl.assign` with "
            f"`key_added={key!r}`."
        )
    if truth not in adata.obs:
        raise KeyError(f"Did not find {truth!r} in `.obs`, which holds {obs_columns(adata)}.")
    found = measure(adata.obsm[slot], adata.obs[truth], n_bins=n_bins)
    table = found.table
    filled = table["n_cells"] > 0
    middle, width = (table["low"] + table["high"]) / 2, 1 / n_bins
    sure, right = table["probability"], table["accuracy"]
    fig, axes = plt.subplots(
        2,
        1,
        figsize=(4.2, 5),
        height_ratios=(3, 1),
        sharex=True,
        layout="constrained",
    )
    upper, lower = axes
    bars = {"width": 0.94 * width, "zorder": 2}
    upper.bar(middle[filled], right[filled], color=_RIGHT, alpha=0.8, label="accuracy", **bars)
    upper.bar(
        middle[filled],
        (sure - right)[filled],
        bottom=right[filled],
        color="none",
        edgecolor=_GAP,
        hatch="////",
        linewidth=0.8,
        label="gap to the probability",
        **bars,
    )
    upper.plot([0, 1], [0, 1], color=_LINE, linestyle="--", linewidth=1, zorder=3)
    upper.set_ylim(0, 1.03)
    upper.set_ylabel("cells that are right")
    upper.legend(frameon=False, loc="upper left", fontsize="small")
    lower.bar(middle, table["n_cells"], color=_LINE, **bars)
    lower.set_yscale("symlog", linthresh=1)
    lower.set_ylim(0, None)
    top = int(np.ceil(np.log10(max(table["n_cells"].max(), 10))))
    lower.set_yticks([0, *(10**i for i in range(0, top + 1, max(top // 2, 1)))])
    lower.set_ylabel("cells")
    lower.set_xlabel("probability of the cluster")
    # no cell is less sure than one over the number of clusters
    least = table.loc[filled, "low"].min()
    upper.set_xlim(max(least - width, 0), 1)
    for ax in axes:
        ax.grid(visible=False)
        ax.spines[["top", "right"]].set_visible(False)
    told = f"expected calibration error {found.error:.3f}, {found.n_cells:,} cells"
    fig.suptitle(told if title is None else title, fontsize="medium")
    return finish("calibration", fig, list(axes), show=show, save=save, return_fig=return_fig)
