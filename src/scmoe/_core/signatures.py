"""Markers by which clusters differ: medians, effects and signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from scmoe._core.cells import check_in_memory, clustering_record, layer_values, obs_columns
from scmoe._core.keys import Key
from scmoe._core.markers import has_kind
from scmoe._core.rows import Rows
from scmoe._core.text import listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

UNASSIGNED = "not assigned"
"""Label of cells without a cluster."""

STANDS_OUT = 0.5
"""Effect from which a marker is part of a signature, in standard deviations."""

MOST_NAMED = 5

AT_ONCE = 4
"""Markers of all cells that are in memory at a time."""


@dataclass(frozen=True)
class Signature:
    """Markers by which a cluster differs from all other cells, strongest first."""

    high: list[str]
    low: list[str]


def cluster_effects(
    adata: AnnData, key: str, markers: Sequence[str] | None, layer: str | None
) -> tuple[pd.DataFrame, pd.Series]:
    """Check the arguments and return :func:`effects` and the number of cells of each cluster.

    Both are in the order of the categories; cells without a cluster have no row.
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
        # clustered by a representation, or by another method
        found = measured_markers(adata, [])
    else:
        found = [markers] if isinstance(markers, str) else [str(name) for name in markers]
        unknown = [name for name in found if name not in adata.var_names]
        if unknown:
            raise KeyError(f"Did not find {listing(unknown)} in `.var_names`.")
    if not found or len(set(found)) < len(found):
        raise ValueError("There are no markers to compare, or one is named twice.")
    return found


def labels_of(adata: AnnData, key: str) -> pd.Series:
    """Return the cluster of each cell, categorical; :data:`UNASSIGNED` for cells without one."""
    labels = adata.obs[key]
    if not isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.astype("category")
    labels = labels.cat.remove_unused_categories()
    if labels.isna().any():
        labels = labels.cat.add_categories(UNASSIGNED).fillna(UNASSIGNED)
    return labels


def measured_markers(adata: AnnData, used: list[str]) -> list[str]:
    """Return the markers used for clustering, then the others that are not technical channels."""
    others = adata.var_names[~has_kind(adata, Key.var.TECHNICAL_KINDS)]
    return used + [name for name in others if name not in set(used)]


def marker_values(adata: AnnData, names: list[str], layer: str | None) -> pd.DataFrame:
    """Return the values of markers, cells x markers, dense; also from an array in zarr."""
    check_in_memory(adata)
    x = layer_values(adata, layer, in_memory=False)
    x = Rows(x, adata.var_names.get_indexer(names)).stored()
    return pd.DataFrame(x.toarray() if issparse(x) else np.asarray(x), columns=names)


def medians(
    adata: AnnData, labels: pd.Series, names: list[str], layer: str | None = None
) -> pd.DataFrame:
    """Return the median of each marker in the cells of each label, labels x markers.

    ``labels`` is categorical; labels without cells have no row. A few markers of all cells are
    in memory at a time.
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
    """Return the median of the values that are not NaN; NaN if there is none."""
    values = values[~np.isnan(values)]
    return np.median(values) if len(values) else values.dtype.type(np.nan)


def effects(
    adata: AnnData, key: str, markers: list[str], layer: str | None = None
) -> pd.DataFrame:
    """Return the effect of each marker in each cluster, clusters x markers.

    The effect is the mean of the cluster minus the mean of all other cells, in standard
    deviations over all cells; 0 if there is nothing to compare. NaN values are ignored.
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
            # centred values keep their digits when squared
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
    """Select the markers of each cluster whose :func:`effects` are large."""
    found = {}
    for name, row in effect.iterrows():
        row = row.sort_values(kind="stable")
        low = row.index[row <= -STANDS_OUT]
        high = row.index[row >= STANDS_OUT][::-1]
        found[str(name)] = Signature(list(high[:MOST_NAMED]), list(low[:MOST_NAMED]))
    return found
