"""Tables of a clustering: probabilities, signatures and state genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key
from scmoe._core.signatures import cluster_effects, standing_out
from scmoe._core.text import apart, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def cluster_proba(adata: AnnData, *, key: str = Key.DEFAULT) -> pd.DataFrame:
    """Return the cluster probabilities of each cell, for the clusters that own cells.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster`.
    key
        The ``key_added`` of the clustering.

    Returns
    -------
    Cells x clusters, float32, columns in the order of the categories of ``.obs[key]``. Rows
    sum to at most 1: experts without cells are left out.

    Raises
    ------
    KeyError
        If there is no such clustering.
    """
    clustering_record(adata, key)
    slot = Key.obsm.proba(key)
    if slot not in adata.obsm or key not in adata.obs:
        raise KeyError(
            f"Did not find {slot!r} in `.obsm`: run `scmoe.tl.cluster(adata, key_added={key!r})`."
        )
    return adata.obsm[slot][list(adata.obs[key].cat.categories)]


def signatures(
    adata: AnnData,
    key: str = Key.DEFAULT,
    *,
    markers: Sequence[str] | None = None,
    layer: str | None = None,
) -> pd.DataFrame:
    """List the markers by which each cluster differs from all other cells.

    The effect of a marker is the difference between its mean in the cluster and its mean in all
    other cells, in standard deviations over all cells. A marker is high or low in a cluster if
    its effect is at least 0.5 or at most -0.5; at most five of each are listed, strongest first.

    Parameters
    ----------
    adata
        Cells.
    key
        Column of ``.obs`` with clusters, from :func:`scmoe.tl.cluster` or any other method.
    markers
        Names of the markers to compare; by default those that were used for clustering, or all
        that are not technical channels.
    layer
        Layer to read; by default the layer that was clustered, otherwise ``.X``.

    Returns
    -------
    Clusters x (``n_cells``; ``high`` and ``low``, marker names joined by commas; the effect of
    each marker, float64). A marker with the name of one of the first columns becomes ``"high
    (marker)"``. Cells without a cluster count as other cells and have no row.

    Raises
    ------
    KeyError
        If the clustering, a marker or the layer does not exist.
    ValueError
        If there is no marker, or no cell with a cluster.

    Examples
    --------
    >>> scmoe.get.signatures(adata)[["high", "low"]]
    """
    effect, sizes = cluster_effects(adata, key, markers, layer)
    found = standing_out(effect)
    table = pd.DataFrame(
        {
            "n_cells": sizes,
            "high": [", ".join(found[name].high) for name in effect.index],
            "low": [", ".join(found[name].low) for name in effect.index],
        },
        index=effect.index,
    )
    effect.columns = apart(list(effect), table.columns)
    return pd.concat([table, effect], axis=1).rename_axis("cluster")


def state_genes(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    cluster: str | None = None,
    dimension: int | None = None,
) -> pd.DataFrame:
    """Return the table of state genes within clusters that :func:`scmoe.tl.state_genes` wrote.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.state_genes`.
    key
        The ``key_added`` of :func:`scmoe.tl.state_genes`.
    cluster
        Cluster to return; by default all.
    dimension
        Dimension of the state to return; by default all.

    Returns
    -------
    A row for each cluster, marker and dimension, sorted in this order, markers by rank.
    :func:`scmoe.tl.state_genes` explains the columns.

    Raises
    ------
    KeyError
        If there is no such table, cluster or dimension.

    Examples
    --------
    >>> scmoe.get.state_genes(adata, cluster="3").query("dimension == 0").head()
    """
    clustering_record(adata, key)
    slot = Key.uns.state_genes(key)
    record = adata.uns.get(slot)
    if not isinstance(record, Mapping) or "table" not in record:
        raise KeyError(
            f"Did not find `.uns[{slot!r}]`: run `scmoe.tl.state_genes(adata)` first, or name its "
            "`key_added` as `key`."
        )
    table = record["table"]
    wanted = {"cluster": None if cluster is None else str(cluster), "dimension": dimension}
    for column, value in wanted.items():
        if value is None:
            continue
        there = list(record["table"][column].unique())
        if value not in there:
            raise KeyError(
                f"`.uns[{slot!r}]` has no {column} {value!r}; there are {listing(there)}."
            )
        table = table[table[column] == value]
    return table.reset_index(drop=True)
