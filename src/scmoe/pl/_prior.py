"""Classes of a prior against the clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from natsort import natsorted
from scipy.sparse import issparse

from scmoe._core.cells import check_is_adata, check_sparse
from scmoe._core.keys import Key

from ._figure import finish
from ._heatmap import heatmap

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AMBIGUOUS, _NONE = "ambiguous", "no class"
_TOLERANCE = 1e-3


def prior(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    prior: str = Key.obsm.PRIOR,
    cmap: str = "viridis",
    title: str | None = None,
    show: bool | None = None,
    save: bool | str | Path | None = None,
    ax: Axes | None = None,
    return_fig: bool = False,
) -> Figure | Axes | None:
    """Heat map that shows in which clusters the cells of each class of a prior are.

    The colour is the share of the cells of a row in each cluster, the number in a field how
    many they are. Rows are the classes, in natural order, with the cells that belong to one
    class for certain; two more rows have the cells with several classes (``ambiguous``) and
    with none (``no class``). Cells without a cluster are left out.

    Parameters
    ----------
    adata
        Clustered cells with a prior.
    key
        Column of ``.obs`` with the clusters, the ``key_added`` of :func:`scmoe.tl.cluster`.
        Any other categorical column does too.
    prior
        Name of the prior in ``.obsm``, cells x classes, such as ``scmoe.pp.marker_prior``
        writes it: a data frame, or an array, whose classes are then numbered. A cell belongs
        to a class for certain if its row sums to 1 and one value is above 0.5.
    cmap
        Colour map.
    title
        Title of the figure.
    show
        Whether to show the figure; None follows ``scanpy.settings.autoshow``.
    save
        True or an ending for the name of the file (``"_well.pdf"``) writes to
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
        If the clusters or the prior are not there.
    ValueError
        If no cell has a cluster, or the prior holds NaN or negative values.

    Examples
    --------
    >>> scmoe.pp.marker_prior(adata, {"T": "CD3", "B": "CD19", "NK": ["CD56", "CD3-"]})
    >>> scmoe.tl.cluster(adata, similarity=scmoe.similarity.Prior(), n_clusters=3)
    >>> scmoe.pl.prior(adata)
    """
    check_is_adata(adata)
    counts = _counts(_classes(adata, prior), _labels(adata, key))
    sizes = counts.sum(axis=1)
    named = counts.set_axis([f"{name} ({sizes[name]:,})" for name in counts.index])
    fig, ax = heatmap(
        named.div(np.maximum(sizes.to_numpy(), 1), axis=0),
        [[f"{n:,}" if n else "" for n in row] for row in counts.to_numpy()],
        label="share of the cells of a class",
        cmap=cmap,
        vmin=0,
        vmax=1,
        title=title,
        ax=ax,
    )
    ax.set_xlabel(key)
    ax.set_ylabel(prior)
    n_classes = sum(name not in (_AMBIGUOUS, _NONE) for name in counts.index)
    if n_classes < len(counts):
        ax.axhline(n_classes - 0.5, color="white", linewidth=4)
    return finish("prior", fig, ax, show=show, save=save, return_fig=return_fig)


def _labels(adata: AnnData, key: str) -> pd.Series:
    if key not in adata.obs:
        raise KeyError(
            f"There is no clustering {key!r} in .obs: run scmoe.tl.cluster(adata, "
            f"key_added={key!r}) first, or name the clustering with key=."
        )
    labels = adata.obs[key]
    if labels.isna().all():
        raise ValueError(f"There is no cluster to show: .obs[{key!r}] has no value.")
    return labels


def _classes(adata: AnnData, prior: str) -> pd.Series:
    """What the prior says of each cell: a class, ``ambiguous`` or ``no class``."""
    if prior not in adata.obsm:
        there = ", ".join(map(str, adata.obsm)) or "nothing"
        raise KeyError(
            f"There is no prior {prior!r} in .obsm (there is {there}): run "
            "scmoe.pp.marker_prior first, or name the prior with prior=."
        )
    table = adata.obsm[prior]
    check_sparse(table, f".obsm[{prior!r}]")
    if issparse(table):
        table = table.toarray()
    names = table.columns.astype(str) if isinstance(table, pd.DataFrame) else None
    values = np.asarray(table, dtype=np.float64)
    if np.isnan(values).any() or (values < 0).any():
        raise ValueError(f".obsm[{prior!r}] holds NaN or negative values; a prior is 0 to 1.")
    names = [str(i) for i in range(values.shape[1])] if names is None else list(names)
    total = values.sum(axis=1)
    certain = (np.abs(total - 1) <= _TOLERANCE) & (values.max(axis=1) > 0.5)
    said = np.array(names, dtype=object)[values.argmax(axis=1)]
    said[~certain] = _AMBIGUOUS
    said[total == 0] = _NONE
    rows = [*natsorted(names), *(row for row in (_AMBIGUOUS, _NONE) if (said == row).any())]
    return pd.Series(pd.Categorical(said, categories=rows), index=adata.obs_names)


def _counts(classes: pd.Series, labels: pd.Series) -> pd.DataFrame:
    """Classes x clusters, both in natural order; classes without a cell stay."""
    counts = pd.crosstab(classes.to_numpy(), labels.astype(str).where(labels.notna()).to_numpy())
    return counts.reindex(classes.cat.categories, fill_value=0)[natsorted(counts.columns)]
