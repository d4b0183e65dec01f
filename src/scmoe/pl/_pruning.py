"""Why so many categories were left of coupled mixture VAEs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key

from ._figure import finish

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEAN, _LOWEST, _CHOSEN = "tab:blue", "tab:orange", "0.45"


def pruning(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """How the arms of ``"cpl-mixvae"`` agreed while categories were pruned.

    The mean and the lowest consensus of the categories after each round, with the threshold of
    the lowest, and the loss, over the number of categories that were left; training goes from
    right to left. The dashed line is
    the number that was taken.

    Parameters
    ----------
    adata
        Cells that :func:`scmoe.tl.cluster` clustered with ``n_clusters="auto"``.
    key
        The ``key_added`` of the clustering.
    title
        Title of the figure; by default the number of categories that was taken.
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
        No such clustering, one by another model, or one whose number of clusters was given.

    Examples
    --------
    >>> scmoe.tl.cluster(adata, model="cpl-mixvae")
    >>> scmoe.pl.pruning(adata)
    """
    estimates = clustering_record(adata, key).get("estimates", {})
    curve = estimates.get("n_categories") if isinstance(estimates, Mapping) else None
    if curve is None:
        raise KeyError(
            f"Did not find what pruning saw in `.uns[{key!r}]`: run `scmoe.tl.cluster(adata, "
            'model="cpl-mixvae")` without `n_clusters`, or name its `key_added` as `key`.'
        )
    n, chosen = np.asarray(curve["n_categories"]), int(curve["chosen"])
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    curves = (
        (axes[0], "consensus", _MEAN, "mean"),
        (axes[0], "lowest", _LOWEST, "lowest"),
        (axes[1], "loss", _MEAN, None),
    )
    for ax, name, color, label in curves:
        ax.plot(n, np.asarray(curve[name]), color=color, marker="o", markersize=4, label=label)
    for ax, label in zip(axes, ("consensus", "loss"), strict=True):
        ax.axvline(chosen, color=_CHOSEN, linestyle="--", linewidth=1, zorder=0)
        ax.set_xlabel("categories")
        ax.set_ylabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(visible=False)
    axes[0].axhline(float(curve["threshold"]), color=_CHOSEN, linewidth=1, zorder=0)
    axes[0].set_ylim(0, 1.03)
    axes[0].legend(frameon=False, loc="lower left")
    fig.suptitle(f"{chosen} of {n.max()} categories" if title is None else title)
    return finish("pruning", fig, list(axes), show=show, save=save, return_fig=return_fig)
