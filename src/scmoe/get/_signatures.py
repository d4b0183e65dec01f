"""The markers by which clusters differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from scmoe._core.cells import check_in_memory, clustering_record, layer_values, obs_columns
from scmoe._core.keys import Key
from scmoe._core.rows import Rows
from scmoe._core.text import apart, listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

UNASSIGNED = "not assigned"
"""What cells without a cluster are called."""

STANDS_OUT = 0.5
"""Standard deviations between the mean of a cluster and that of all other cells."""

MOST_NAMED = 5

AT_ONCE = 4
"""Markers of all cells that are looked at at a time."""


@dataclass(frozen=True)
class Signature:
    """Markers by which a cluster differs from all other cells, strongest first."""

    high: list[str]
    low: list[str]


def signatures(
    adata: AnnData,
    key: str = Key.DEFAULT,
    *,
    markers: Sequence[str] | None = None,
    layer: str | None = None,
) -> pd.DataFrame:
    """The markers by which each cluster differs from all other cells.

    The effect of a marker is the mean of the cluster less that of all other cells, in standard
    deviations over all cells. It is high or low in a cluster from 0.5 on; at most five of each
    are named, strongest first.

    Parameters
    ----------
    adata
        Cells.
    key
        Column of ``.obs`` with clusters: of :func:`scmoe.tl.cluster`, or of anybody else.
    markers
        Names of the markers to look at; by default those that were clustered by, or all that are
        no technical channels.
    layer
        Layer to use; by default that which was clustered, else ``.X``.

    Returns
    -------
    Clusters x (``n_cells``, ``high`` and ``low``, names joined by commas, and then the effect of
    each marker, float64; a marker that is called like one of the first columns is ``"high
    (marker)"``). Cells without a cluster count among the others, and have no row.

    Raises
    ------
    KeyError
        An unknown clustering, marker or layer.
    ValueError
        No markers, or no cell with a cluster.

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


def cluster_effects(
    adata: AnnData, key: str, markers: Sequence[str] | None, layer: str | None
) -> tuple[pd.DataFrame, pd.Series]:
    """What :func:`effects` says of all clusters, checked, and their numbers of cells.

    In the order of the categories.
    """
    record = clustering_record(adata, key)
    if key not in adata.obs:
        raise KeyError(
            f"Did not find the clustering {key!r} in `.obs`, which has {obs_columns(adata)}. Run "
            f"`scmoe.tl.cluster(adata, key_added={key!r})` first, or name another column as `key`."
        )
    if layer is None and "markers" in record:
        layer = record.get("params", {}).get("layer")
    markers = _chosen_markers(adata, markers, record)
    labels = labels_of(adata, key)
    sizes = labels.value_counts(sort=False)
    sizes.index = sizes.index.astype(str)
    effect = effects(adata, key, markers, layer)
    if adata.obs[key].isna().any():
        sizes = sizes.drop(UNASSIGNED)
    if not len(sizes):
        raise ValueError(f"`.obs[{key!r}]` has no cluster: it is missing for all cells.")
    return effect.loc[sizes.index], sizes


def _chosen_markers(adata: AnnData, markers: Sequence[str] | None, record: Mapping) -> list[str]:
    if markers is None:
        used = [str(name) for name in record.get("markers", [])]
        if used and set(used) <= set(adata.var_names):
            return used
        # clustered by a representation, or by somebody else
        found = measured_markers(adata, [])
    else:
        found = [markers] if isinstance(markers, str) else [str(name) for name in markers]
        unknown = [name for name in found if name not in adata.var_names]
        if unknown:
            raise KeyError(f"Did not find {listing(unknown)} in `.var_names`.")
    if not found or len(set(found)) < len(found):
        raise ValueError("There are no markers to look at, or one is named twice.")
    return found


def labels_of(adata: AnnData, key: str) -> pd.Series:
    """The cluster of each cell as text, :data:`UNASSIGNED` where there is none; categorical."""
    labels = adata.obs[key]
    if not isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.astype("category")
    labels = labels.cat.remove_unused_categories()
    if labels.isna().any():
        labels = labels.cat.add_categories(UNASSIGNED).fillna(UNASSIGNED)
    return labels


def measured_markers(adata: AnnData, used: list[str]) -> list[str]:
    """The markers that were clustered by, then the others that are no technical channels."""
    others = adata.var_names
    if Key.var.KIND in adata.var:
        others = others[~adata.var[Key.var.KIND].astype(str).isin(Key.var.TECHNICAL_KINDS)]
    return used + [name for name in others if name not in set(used)]


def marker_values(adata: AnnData, names: list[str], layer: str | None) -> pd.DataFrame:
    """Cells x markers, dense; the index is that of positions. They may be in an array of zarr."""
    check_in_memory(adata)
    x = layer_values(adata, layer, in_memory=False)
    x = Rows(x, adata.var_names.get_indexer(names)).stored()
    return pd.DataFrame(x.toarray() if issparse(x) else np.asarray(x), columns=names)


def medians(
    adata: AnnData, labels: pd.Series, names: list[str], layer: str | None = None
) -> pd.DataFrame:
    """Median of each marker in the cells of each label, labels as text x markers.

    Labels are categorical, those without cells have no row. A few markers of all cells are in
    memory at a time.
    """
    codes = labels.cat.codes.to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes, np.arange(len(labels.cat.categories) + 1), sorter=order)
    there = np.flatnonzero(np.diff(ends))
    found = {}
    for first in range(0, len(names), AT_ONCE):
        values = marker_values(adata, names[first : first + AT_ONCE], layer)
        for name in values:
            column = values[name].to_numpy()
            own = [column[order[ends[i] : ends[i + 1]]] for i in there]
            found[name] = [_median(part) for part in own]
    index = labels.cat.categories[there].astype(str)
    return pd.DataFrame(found, index=index, columns=names)


def _median(values: np.ndarray) -> np.floating:
    """Median of what was measured; NaN of nothing."""
    values = values[~np.isnan(values)]
    return np.median(values) if len(values) else values.dtype.type(np.nan)


def effects(
    adata: AnnData, key: str, markers: list[str], layer: str | None = None
) -> pd.DataFrame:
    """How each cluster differs from all other cells, clusters x markers.

    The mean of the cluster less that of all other cells, in standard deviations over all
    cells; 0 where there is nothing to compare. Values that were not measured do not count.
    """
    check_in_memory(adata)
    labels = labels_of(adata, key)
    rows = Rows(layer_values(adata, layer, in_memory=False), adata.var_names.get_indexer(markers))
    codes = labels.cat.codes.to_numpy()
    n, d = len(labels.cat.categories), len(markers)
    counts, sums, squares, centre = np.zeros((n, d)), np.zeros((n, d)), np.zeros(d), None
    for place, block in rows.raw_blocks():
        x = np.asarray(block.toarray() if issparse(block) else block, dtype=np.float64)
        known = ~np.isnan(x)
        if centre is None:
            # squares of small numbers lose no digits
            centre = x.sum(axis=0, where=known) / np.maximum(known.sum(axis=0), 1)
        x = np.where(known, x - centre, 0.0)
        own = (codes[place] == np.arange(n)[:, None]).astype(np.float64)
        counts += own @ known
        sums += own @ x
        squares += (x**2).sum(axis=0)
    total, of_all = counts.sum(axis=0), sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(np.maximum(squares / total - (of_all / total) ** 2, 0))
        difference = sums / counts - (of_all - sums) / (total - counts)
        effect = difference / np.where(spread > 0, spread, 1)
    index = labels.cat.categories.astype(str)
    return pd.DataFrame(effect, index=index, columns=markers).fillna(0.0)


def standing_out(effect: pd.DataFrame) -> dict[str, Signature]:
    """Which markers stand out in each cluster, by what :func:`effects` says."""
    found = {}
    for name, row in effect.iterrows():
        row = row.sort_values(kind="stable")
        low = row.index[row <= -STANDS_OUT]
        high = row.index[row >= STANDS_OUT][::-1]
        found[str(name)] = Signature(list(high[:MOST_NAMED]), list(low[:MOST_NAMED]))
    return found
