"""``scmoe.tl.name_clusters``: name clusters after their markers."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import pandas as pd
from natsort import natsorted

from scmoe._core.cells import check_adata
from scmoe._core.cluster_names import names_of
from scmoe._core.keys import Key
from scmoe._core.plain import for_h5ad
from scmoe._core.settings import check_whole
from scmoe._core.signatures import cluster_effects
from scmoe.get import gate_signs
from scmoe.tl._results import check_free, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

RECORD = {"clustering", "names", "params"}
"""Entries by which the record of names is known."""


def name_clusters(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    markers: Sequence[str] | None = None,
    max_markers: int = 3,
    layer: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Name clusters after the markers by which they differ, such as ``CD3+ CD4+ CD8-``.

    If the clusters follow a tree, a name starts with the markers of their gates, ``+`` above the
    threshold and ``-`` below it (:func:`scmoe.get.gates`; not gates of sums of markers, or between
    two thresholds). A further marker is ``+`` or ``-`` if the mean of the cluster is above or
    below the mean of all other cells by at least one standard deviation. A name has up to
    ``max_markers`` markers, high ones before low ones; if there is none, the strongest marker
    from 0.4 standard deviations on. Clusters with the same name get further markers, from 0.4
    standard deviations on, if their means differ by at least 0.6 standard deviations, and then
    numbers, ``(1)`` for the largest. Effects that differ by less than 0.1 count as equal; then the
    order of the markers decides. So names do not depend on the numbers of the clusters, and small
    changes of the effects seldom change a name.

    Parameters
    ----------
    adata
        Cells.
    key
        Column of ``.obs`` with clusters: of :func:`scmoe.tl.cluster`, the consensus of
        :func:`scmoe.tl.stability`, or of another method.
    markers
        Names of the markers that may be in a name; their order decides between equal effects. By
        default the markers of the clustering, or all channels that are not technical.
    max_markers
        Largest number of markers in a name, unless more are needed to make it unique.
    layer
        Layer to use; by default the one that was clustered, else ``.X``.
    key_added
        Name of the slots that are written; by default ``key + "_names"``.
    copy
        Return an annotated copy and leave ``adata`` unchanged.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added]``
        Name of the cluster of each cell, categorical in natural order; NaN for cells without a
        cluster. ``"no marker"`` is a cluster in which no marker is high or low.
    ``.uns[key_added]``
        ``names``, a table by cluster of ``name`` and ``n_cells``; ``clustering`` (``key``),
        ``params`` and ``version``.
    ``.uns[key_added + "_colors"]``
        Colours of the clusters, if they have any.

    Raises
    ------
    KeyError
        An unknown clustering, marker or layer.
    ValueError
        A view; names of cells or markers that are not unique; no markers; ``max_markers`` below
        1; no cell with a cluster; a ``key_added`` whose slots are taken.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.tl.name_clusters(adata)
    >>> adata.obs["scmoe_names"].cat.categories
    """
    check_whole("max_markers", max_markers, 1)
    check_adata(adata)
    effect, sizes = cluster_effects(adata, key, markers, layer)
    key_added = Key.obs.names(key) if key_added is None else key_added
    check_free(adata, key_added, RECORD, ("uns", key_added), ("obs", key_added))
    names = names_of(effect, sizes / adata.n_obs, max_markers, gate_signs(adata, key))
    labels = adata.obs[key].astype("object").map(lambda name: names[str(name)], na_action="ignore")
    categories = natsorted(names.values())
    result = {
        "clustering": key,
        "names": pd.DataFrame({"name": names, "n_cells": sizes}, index=list(names)),
        "params": {"markers": list(effect.columns), "max_markers": max_markers, "layer": layer},
        "version": version("scmoe"),
    }
    adata = adata.copy() if copy else adata
    write(
        (adata.obs, key_added, pd.Categorical(labels, categories=categories)),
        (adata.uns, key_added, for_h5ad(result)),
        (adata.uns, f"{key_added}_colors", _colors(adata, key, key_added, names, categories)),
    )
    return adata if copy else None


def _colors(
    adata: AnnData, key: str, key_added: str, names: dict[str, str], categories: list[str]
) -> list[str] | None:
    """Return the colours of the clusters in the order of their names."""
    clusters = adata.obs[key].astype("category").cat.categories.astype(str)
    colors = adata.uns.get(f"{key}_colors", ())
    if len(colors) != len(clusters):
        return adata.uns.get(f"{key_added}_colors")
    of_names = {names.get(k): str(color) for k, color in zip(clusters, colors, strict=True)}
    return [of_names[name] for name in categories]
