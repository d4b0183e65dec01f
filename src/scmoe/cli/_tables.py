"""The clusters in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from scmoe._checks import layer_values
from scmoe._keys import Key

if TYPE_CHECKING:
    from anndata import AnnData

UNASSIGNED = "not assigned"
"""What cells without a cluster are called."""

STANDS_OUT = 0.5
"""Standard deviations between the mean of a cluster and that of all other cells."""

MOST_NAMED = 5

_TECHNICAL = ("time", "scatter", "other")


def labels_of(adata: AnnData, key: str) -> pd.Series:
    """The cluster of each cell as text, :data:`UNASSIGNED` where there is none; categorical."""
    labels = adata.obs[key].cat.remove_unused_categories()
    if labels.isna().any():
        labels = labels.cat.add_categories(UNASSIGNED).fillna(UNASSIGNED)
    return labels


def measured_markers(adata: AnnData, used: list[str]) -> list[str]:
    """The markers that were clustered by, then the others that are no technical channels."""
    others = adata.var_names
    if Key.var.KIND in adata.var:
        others = others[~adata.var[Key.var.KIND].astype(str).isin(_TECHNICAL)]
    return used + [name for name in others if name not in set(used)]


def cluster_table(
    adata: AnnData, key: str, used: list[str], layer: str | None = None
) -> pd.DataFrame:
    """Clusters x (cells, share, median of the highest probability, median of each marker)."""
    labels = labels_of(adata, key)
    sizes = labels.value_counts(sort=False)
    certain = highest_probability(adata, key).groupby(labels, observed=True).median()
    table = pd.DataFrame(
        {"cells": sizes, "share": sizes / len(labels), "median_probability": certain}
    )
    names = measured_markers(adata, used)
    medians = _frame(adata, names, layer).groupby(labels.to_numpy(), observed=True).median()
    table = pd.concat([table, medians.reindex(table.index)], axis=1)
    table.index = table.index.astype(str)
    return table.rename_axis("cluster")


def highest_probability(adata: AnnData, key: str) -> pd.Series:
    """Of each cell, over the clusters."""
    return adata.obsm[Key.obsm.proba(key)].max(axis=1)


def _frame(adata: AnnData, names: list[str], layer: str | None) -> pd.DataFrame:
    x = layer_values(adata, layer)[:, adata.var_names.get_indexer(names)]
    return pd.DataFrame(x.toarray() if issparse(x) else np.asarray(x), columns=names)


@dataclass(frozen=True)
class Signature:
    """Markers by which a cluster differs from all other cells, strongest first."""

    high: list[str]
    low: list[str]


def effects(
    adata: AnnData, key: str, markers: list[str], layer: str | None = None
) -> pd.DataFrame:
    """How each cluster differs from all other cells, clusters x markers.

    The mean of the cluster less that of all other cells, in standard deviations over all
    cells; 0 where there is nothing to compare. Values that were not measured do not count.
    """
    values = _frame(adata, markers, layer).astype(np.float64)
    groups = values.groupby(labels_of(adata, key).to_numpy(), observed=True)
    sums, counts = groups.sum(), groups.count()
    means = sums / counts
    of_others = (sums.sum() - sums) / (counts.sum() - counts)
    effect = (means - of_others) / values.std(ddof=0).replace(0, 1)
    effect.index = effect.index.astype(str)
    return effect.fillna(0.0)


def signatures(effect: pd.DataFrame) -> dict[str, Signature]:
    """Which markers stand out in each cluster, by what :func:`effects` says."""
    found = {}
    for name, row in effect.iterrows():
        row = row.sort_values(kind="stable")
        low = row.index[row <= -STANDS_OUT]
        high = row.index[row >= STANDS_OUT][::-1]
        found[str(name)] = Signature(list(high[:MOST_NAMED]), list(low[:MOST_NAMED]))
    return found


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
