"""The tree of a clustering as tables: its splits, and the gates of its clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from natsort import natsorted

from scmoe._core.cells import check_in_memory, clustering_record, layer_values
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe._core.rows import Rows
from scmoe._core.text import listing
from scmoe._core.values import check_matrix, dense

if TYPE_CHECKING:
    from scmoe.tree import Gate, Tree

MOST_CELLS = 1_000_000
"""Cells by which gates are found, and the F1 of the cells within them."""

LABELS = "labels"
"""Entry of the record of a tree: cells of each of its clusters by their label."""


def tree(adata: AnnData, key: str = Key.DEFAULT) -> pd.DataFrame:
    """List the splits of the tree that a clustering follows.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster` with
        :class:`scmoe.similarity.DensityTree`, its default.
    key
        The ``key_added`` of the clustering.

    Returns
    -------
    A row for each split, in the order in which they were made; no row where there is one
    population. Columns:

    ``markers``
        The marker that is cut, or a sum of markers with their weights, ``"0.8 CD4 - 0.6 CD8"``.
    ``threshold``
        Where it is cut, in the units of the values: cells above it are on the high side.
    ``significance``
        Standard deviations between the numbers of cells at the valley and at the lower one of
        its peaks.
    ``depth``
        Density at the valley as a share of the lower peak; 0 is a gap.
    ``n_low``, ``n_high``
        Cells on either side.
    ``parent``, ``side``
        The split, and its side (``"low"`` or ``"high"``), whose cells this one cuts; -1 and
        ``""`` for the first, which cuts all cells.
    ``low``, ``high``
        Clusters on either side, joined by commas. A cluster may be on both.
    ``support``
        After :func:`scmoe.tl.stability`: the share of its runs whose tree sets the two sides
        apart.

    Raises
    ------
    KeyError
        No such clustering, or one that follows no tree.
    ValueError
        A record that is damaged.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.get.tree(adata)
    """
    from scmoe.tree import format_weights, split_weights

    found, counts = read_tree(adata, key)
    names = label_names(counts)
    markers = [format_weights(split_weights(found, split)) for split in range(found.n_splits)]
    parent = found.parent[found.region]
    sides = [
        [_listed(found, names, 2 * split + side) for split in range(found.n_splits)]
        for side in (1, 2)
    ]
    support = adata.uns[key]["tree"].get("support")
    return pd.DataFrame(
        {
            "markers": np.array(markers, dtype=object),
            "threshold": found.threshold,
            "significance": found.significance,
            "depth": found.depth,
            "n_low": found.sizes[:, 0],
            "n_high": found.sizes[:, 1],
            "parent": parent,
            "side": np.select([found.region == 0, found.region % 2 == 1], ["", "low"], "high"),
            "low": np.array(sides[0], dtype=object),
            "high": np.array(sides[1], dtype=object),
            **({"support": support} if np.shape(support) == (found.n_splits,) else {}),
        },
        index=pd.RangeIndex(found.n_splits, name="split"),
    )


def gates(adata: AnnData, key: str = Key.DEFAULT) -> pd.DataFrame:
    """Write each cluster as a line of gates, with how well they fit it.

    Gates are sides of the splits of the tree that the clustering follows; in place of a sum of
    markers there is one of them, cut where it tells the sides of the split apart best, where that
    is enough. Only those gates are kept that are needed: they are added one by one, the most
    telling first, until the F1 of the cells within them is within 0.01 of the best that can be
    reached. A split that cuts through a cluster, with more than a tenth of its cells on either
    side, is none of its gates.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster` with
        :class:`scmoe.similarity.DensityTree`, its default, with the values that were clustered.
    key
        The ``key_added`` of the clustering.

    Returns
    -------
    A row for each cluster; of more than a million cells, a million in equal steps are looked at:

    ``gates``
        The gates, joined by commas, the most telling first: ``"CD3+ (> 0.55), CD4- (< 1.02)"``,
        a marker between two thresholds ``"CD4 (0.4 to 1.02)"``, a sum of markers
        ``"0.8 CD4 - 0.6 CD8 > 0.3"``, or ``"all cells"``. Thresholds are in the units of the
        values.
    ``f1``
        F1 of the cells within the gates for those of the cluster: 1 if they are the same. It is
        low where the cluster has no such shape, or where the model departs from the tree.
    ``n_cells``
        Cells of the cluster.

    Raises
    ------
    KeyError
        No such clustering, or one that follows no tree; its layer, representation or markers
        are missing.
    ValueError
        A record that is damaged; values that are not numbers.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.get.gates(adata)["gates"]
    """
    found = cluster_gates(adata, key)
    return pd.DataFrame(
        {
            "gates": [", ".join(map(str, gates)) or "all cells" for gates, _ in found.values()],
            "f1": [score for _, score in found.values()],
            "n_cells": _labels(adata, key).value_counts().to_numpy(),
        },
        index=pd.Index(found, name="cluster", dtype=object),
    )


def cluster_gates(adata: AnnData, key: str) -> dict[str, tuple[list[Gate], float]]:
    """What :func:`scmoe.tree.find_gates` says of each cluster with cells."""
    from scmoe.tree import find_gates

    found, counts = read_tree(adata, key)
    labels = _labels(adata, key)
    some = looked_at(adata.n_obs)
    codes = labels.set_categories(list(counts.columns)).codes[some]
    gates = find_gates(found, tree_values(adata, key, found, some), codes, counts.to_numpy())
    by_label = dict(zip(counts.columns, gates, strict=True))
    return {name: by_label[name] for name in labels.categories}


def gate_signs(adata: AnnData, key: str) -> dict[str, dict[str, int]]:
    """The sign of each marker among the gates of a cluster, the most telling first.

    Nothing where there is no tree, or one of components or of markers that are gone.
    """
    record = clustering_record(adata, key)
    if "tree" not in record or record.get("params", {}).get("use_rep", "X") != "X":
        return {}
    if not set(recorded_tree(adata, key)[0].markers) <= set(adata.var_names):
        return {}
    return {
        name: {gate.marker: gate.sign for gate in found if gate.sign}
        for name, (found, _) in cluster_gates(adata, key).items()
    }


def read_tree(adata: AnnData, key: str) -> tuple[Tree, pd.DataFrame]:
    """What :func:`recorded_tree` says, with the labels that are in ``.obs[key]`` now.

    Where they were renamed, the cells are counted again.
    """
    found, counts = recorded_tree(adata, key)
    if key not in adata.obs:
        raise KeyError(
            f"Did not find the clusters {key!r} in `.obs`: run "
            f"`scmoe.tl.cluster(adata, key_added={key!r})` again."
        )
    labels = _labels(adata, key)
    if not set(labels.categories) <= set(counts.columns):
        counts = label_counts(found, tree_values(adata, key, found), labels)
    return found, counts


def recorded_tree(adata: AnnData, key: str) -> tuple[Tree, pd.DataFrame]:
    """The tree of a clustering, checked, and the cells of its clusters (rows) by their label."""
    from scmoe.tree import Tree

    record = clustering_record(adata, key)
    if "tree" not in record:
        raise KeyError(_no_tree(record, key))
    where = f"`adata.uns[{key!r}]['tree']`"
    found, counts = Tree.from_record(record["tree"]), record["tree"].get(LABELS)
    if not (
        isinstance(counts, pd.DataFrame)
        and counts.shape[0] == found.n_clusters
        and counts.shape[1] > 0
        and counts.columns.is_unique
        and all(isinstance(name, str) for name in counts.columns)
        and all(dtype.kind in "iu" for dtype in counts.dtypes)
    ):
        raise ValueError(f"{where} is damaged: {LABELS!r} is no table of cells by label.")
    return found, counts


def _labels(adata: AnnData, key: str) -> pd.Categorical:
    """The label of each cell, of those with cells, as text."""
    labels = pd.Categorical(adata.obs[key]).remove_unused_categories()
    return labels.rename_categories([str(name) for name in labels.categories])


def _no_tree(record: Mapping, key: str) -> str:
    """Say why there is no tree, and what to do."""
    if not record:
        return (
            f"Did not find a clustering in `.uns[{key!r}]`: run `scmoe.tl.cluster(adata)` first, "
            "or name its `key_added` as `key`."
        )
    similarity = record.get("params", {}).get("similarity", {})
    followed = f" by {similarity['name']}" if "name" in similarity else ""
    return (
        f"The clustering {key!r}{followed} follows no tree. Cluster with "
        "`scmoe.tl.cluster(adata, similarity=scmoe.similarity.DensityTree(), key_added=...)`."
    )


def label_counts(tree: Tree, x: np.ndarray, labels: pd.Categorical) -> pd.DataFrame:
    """Cells of each cluster of a tree (rows) by their label (columns), int64."""
    from scmoe.tree import count_labels

    counts = count_labels(tree, x, labels.codes, len(labels.categories))
    return pd.DataFrame(
        counts,
        index=[str(k) for k in range(tree.n_clusters)],
        columns=list(labels.categories),
    )


def label_names(counts: pd.DataFrame) -> np.ndarray:
    """The label of most cells of each cluster of a tree; "" for a cluster without cells."""
    names = counts.columns.to_numpy(dtype=object)[counts.to_numpy().argmax(1)]
    return np.where(counts.to_numpy().any(1), names, "")


def looked_at(n_obs: int) -> np.ndarray:
    """Positions of the cells that tell of the gates of all, :data:`MOST_CELLS` at most."""
    return np.linspace(0, n_obs - 1, min(n_obs, MOST_CELLS)).astype(np.int64)


def tree_values(
    adata: AnnData, key: str, tree: Tree, some: np.ndarray | None = None
) -> np.ndarray:
    """The values that a tree cuts, cells x markers, float32; batches are aligned as for it.

    ``some``: positions of the cells to look at, in rising order.
    """
    every = some is None or len(some) == adata.n_obs
    params = adata.uns[key].get("params", {})
    layer, use_rep = params.get("layer"), params.get("use_rep")
    if use_rep not in (None, "X"):
        slot = rep_key(adata, use_rep)
        if slot not in adata.obsm:
            raise KeyError(f"Did not find {use_rep!r}, which was clustered, in `.obsm`.")
        x = adata.obsm[slot]
        x = x.to_numpy() if isinstance(x, pd.DataFrame) else x
        where = f"`adata.obsm[{slot!r}]`"
        if x.shape[1] != len(tree.markers):
            raise ValueError(f"{where} has not the {len(tree.markers)} columns of the tree.")
        x = x if every else x[some]
    else:
        missing = [str(name) for name in tree.markers if name not in adata.var_names]
        if missing:
            raise KeyError(
                f"Did not find {listing(missing)} in `.var_names`: the tree cuts by it."
            )
        check_in_memory(adata)
        x = layer_values(adata, layer, in_memory=False)
        x = Rows(x, adata.var_names.get_indexer(tree.markers))
        x = x.stored() if every else x.take(some)
        where = "`adata.X`" if layer is None else f"`adata.layers[{layer!r}]`"
    check_matrix(x, tree.markers, where)
    obs = adata.obs if every else adata.obs.iloc[some]
    return in_batches(np.ascontiguousarray(dense(x)), obs, params.get("similarity", {}))


def in_batches(x: np.ndarray, obs: pd.DataFrame, similarity: Mapping) -> np.ndarray:
    """Values as the tree of a similarity looks at them: those of batches are aligned."""
    from scmoe.similarity import DensityTree, Similarity

    found = Similarity.from_dict(similarity) if similarity else None
    if not isinstance(found, DensityTree) or found.batch_key is None:
        return x
    if found.batch_key not in obs:
        raise KeyError(f"Did not find {found.batch_key!r} in `.obs`: the tree aligns its batches.")
    return found.aligned(AnnData(obs=obs[[found.batch_key]].set_axis(obs.index.astype(str))), x)[0]


def _listed(tree: Tree, names: np.ndarray, region: int) -> str:
    """Labels of the clusters within a region, joined by commas."""
    clusters = tree.cluster[tree.leaves_within(region)]
    return ", ".join(natsorted({names[k] for k in clusters} - {""}))
