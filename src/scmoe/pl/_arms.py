"""Which categories the arms of coupled mixture VAEs agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key
from scmoe.metrics import category_agreement

from ._figure import finish, short

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# inches
_FIELD, _BARS, _BAR = 0.3, 1.5, 0.12
_LEAST = 6
"""Rows that there is room for at least."""
_LETTER = 0.08


def arms(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    cmap: str = "Blues",
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    return_fig: bool = False,
) -> Figure | list[Axes] | None:
    """Which categories the arms of ``"cpl-mixvae"`` agree on.

    A field says how many of the cells that one arm puts into the category of its row are those
    that another puts into the category of its column, as a share of the larger of the two
    (:func:`scmoe.metrics.category_agreement`): with two arms the first is in the rows, with more
    it is the mean over all pairs. The diagonal is the consensus of each category, which the bars
    show again, with the number of its cells. Dark fields off the diagonal are categories that
    the arms mix up.

    Parameters
    ----------
    adata
        Cells that :func:`scmoe.tl.cluster` clustered.
    key
        The ``key_added`` of the clustering.
    cmap
        Colour map.
    title
        Title of the figure; by default the mean consensus.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
        ``scanpy.settings.figdir``; a :class:`~pathlib.Path` is written to as it is.
    return_fig
        Return the figure and show nothing unless ``show=True``.

    Returns
    -------
    The figure with ``return_fig=True``; None if it is shown; else the axes of the matrix and of
    the bars.

    Raises
    ------
    KeyError
        There are no votes of arms: no such clustering, one by another model, or with one arm.

    Examples
    --------
    >>> scmoe.tl.cluster(adata, model="cpl-mixvae")
    >>> scmoe.pl.arms(adata)
    """
    clustering_record(adata, key)
    slot = Key.obsm.votes(key)
    if slot not in adata.obsm or Key.obsm.proba(key) not in adata.obsm:
        raise KeyError(
            f"Did not find the votes of the arms, `.obsm[{slot!r}]`, and the probabilities: run "
            '`scmoe.tl.cluster(adata, model="cpl-mixvae")` with two arms or more, or name its '
            "`key_added` as `key`."
        )
    votes, proba = np.asarray(adata.obsm[slot]), adata.obsm[Key.obsm.proba(key)]
    names = [str(name) for name in proba.columns]
    agreement = category_agreement(votes.T, len(names))
    own = np.bincount(proba.to_numpy().argmax(1), minlength=len(names))
    # those of no arm have nothing to show
    there = np.unique(votes)
    agreement, own = agreement[np.ix_(there, there)], own[there]
    names = [short(names[k]) for k in there]

    n = len(names)
    side = max(n, _LEAST) * _FIELD
    room = _LETTER * max(map(len, names))
    fig, (ax, bars) = plt.subplots(
        1,
        2,
        figsize=(side + _BARS + room + 1.0, side + room + 1.3),
        width_ratios=(side, _BARS),
        sharey=True,
        layout="constrained",
    )
    _matrix(ax, agreement, names, cmap, side)
    pair = votes.shape[1] == 2
    ax.set_ylabel("first arm" if pair else "one arm", fontsize="small")
    ax.set_xlabel("second arm" if pair else "another arm", fontsize="small")
    _consensus(bars, agreement.diagonal(), own)
    if title is None:
        mean = agreement.diagonal()[own > 0].mean()
        title = f"mean consensus {mean:.2f} of {(own > 0).sum()} categories"
    fig.suptitle(title, fontsize="medium")
    return finish("arms", fig, [ax, bars], show=show, save=save, return_fig=return_fig)


def _matrix(ax: Axes, agreement: np.ndarray, names: list[str], cmap: str, side: float) -> None:
    n = len(names)
    image = ax.imshow(agreement, cmap=cmap, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    turned = 90 * (max(map(len, names)) > 2)
    ax.set_xticks(range(n), names, rotation=turned, fontsize="small")
    ax.set_yticks(range(n), names, fontsize="small")
    ax.set_xticks(np.arange(1, n) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, n) - 0.5, minor=True)
    ax.grid(visible=False, which="major")
    ax.grid(visible=True, which="minor", color="0.9", linewidth=0.6)
    ax.tick_params(which="both", length=0)
    bar = ax.inset_axes((0, 1 + _BAR / side, min(1.8 / side, 1), _BAR / side))
    ax.figure.colorbar(image, cax=bar, orientation="horizontal", ticklocation="top")
    bar.tick_params(labelsize="x-small", length=2)
    bar.grid(visible=False)
    bar.set_xlabel("share of the cells", fontsize="small", loc="left")
    bar.xaxis.set_label_position("top")


def _consensus(ax: Axes, consensus: np.ndarray, n_cells: np.ndarray) -> None:
    ax.barh(range(len(consensus)), consensus, height=0.7, color="0.8")
    for y, (value, n) in enumerate(zip(consensus, n_cells, strict=True)):
        ax.annotate(
            f"{value:.2f} ({n:,})",
            (0, y),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
        )
    ax.set_xlim(0, 1)
    ax.set_title("consensus (cells)", fontsize="small", loc="left", pad=4)
    ax.set_xticks([])
    ax.tick_params(left=False, labelleft=False, which="both")
    ax.grid(visible=False, which="both")
    ax.spines[:].set_visible(False)
