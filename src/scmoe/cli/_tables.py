"""The clusters in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmoe._keys import Key
from scmoe.get._signatures import labels_of, marker_values, measured_markers

if TYPE_CHECKING:
    from anndata import AnnData


CONSENSUS = "consensus"
"""Column of how far coupled arms agree on a cluster."""


def cluster_table(
    adata: AnnData, key: str, used: list[str], layer: str | None = None
) -> pd.DataFrame:
    """Clusters x (cells, share, median of the highest probability, median of each marker).

    Of coupled arms also their consensus on each cluster; NaN for cells without a cluster.
    """
    labels = labels_of(adata, key)
    sizes = labels.value_counts(sort=False)
    certain = highest_probability(adata, key).groupby(labels, observed=True).median()
    table = pd.DataFrame(
        {"cells": sizes, "share": sizes / len(labels), "median_probability": certain}
    )
    agreed = _consensus(adata, key)
    if agreed is not None:
        table[CONSENSUS] = agreed.reindex(table.index.astype(str)).to_numpy()
    names = measured_markers(adata, used)
    medians = marker_values(adata, names, layer).groupby(labels.to_numpy(), observed=True).median()
    table = pd.concat([table, medians.reindex(table.index)], axis=1)
    table.index = table.index.astype(str)
    return table.rename_axis("cluster")


def _consensus(adata: AnnData, key: str) -> pd.Series | None:
    """How far the arms agree on each cluster; None where there are no arms to agree."""
    record = adata.uns.get(key, {}).get("categories", {})
    consensus = np.asarray(record.get("consensus", []), dtype=float)
    if not len(consensus) or np.isnan(consensus).all():
        return None
    names = adata.obsm[Key.obsm.proba(key)].columns
    return pd.Series(consensus, index=names.astype(str))


def highest_probability(adata: AnnData, key: str) -> pd.Series:
    """Of each cell, over the clusters."""
    return adata.obsm[Key.obsm.proba(key)].max(axis=1)


def most_telling(effect: pd.DataFrame, most: int) -> list[str]:
    """The markers that tell some cluster best from the others, in their own order."""
    names = list(effect.columns)
    if len(names) <= most:
        return names
    strength = effect.abs().max(axis=0).to_numpy()
    best = np.sort(np.argsort(-strength, kind="stable")[:most])
    return [names[i] for i in best]


def composition(adata: AnnData, key: str) -> pd.DataFrame | None:
    """Samples x clusters, shares; None where there are no samples to compare."""
    column = next((c for c in (Key.obs.SAMPLE, Key.obs.FILE) if c in adata.obs), None)
    if column is None:
        return None
    samples = adata.obs[column].astype("category")
    shares = pd.crosstab(samples, labels_of(adata, key), normalize="index")
    shares.index = shares.index.astype(str)
    shares.columns = shares.columns.astype(str)
    return shares if len(shares) > 1 else None
