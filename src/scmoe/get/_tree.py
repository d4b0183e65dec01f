"""The tree of a clustering: its splits and the gates of its clusters, as tables."""

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

MAX_GATE_CELLS = 1_000_000
"""Cells at most from which gates and their F1 are computed."""

TREE_LABELS = "labels"
"""Entry of the record of a tree: cells of each cluster of the tree by label."""


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
    A row for each split, in the order in which the tree was grown; no row for a tree with one
    population. Columns:

    ``markers``
        The marker that is split, or a weighted sum of markers, ``"0.8 CD4 - 0.6 CD8"``.
    ``threshold``
        Threshold in the units of the values: cells above it are on the high side.
    ``significance``
        Difference between the numbers of cells at the valley and at the lower of its two peaks,
        in standard deviations.
    ``depth``
        Density at the valley as a share of the lower peak; 0 is a gap.
    ``n_low``, ``n_high``
        Cells on either side.
    ``parent``, ``side``
        The split, and its side (``"low"`` or ``"high"``), whose cells are split here; -1 and
        ``""`` for the first split, which has all cells.
    ``low``, ``high``
        Clusters on either side, joined by commas. A cluster may be on both sides.
    ``support``
        After :func:`scmoe.tl.stability`: the share of runs whose tree separates the two sides.

    Raises
    ------
    KeyError
        If there is no such clustering, or it follows no tree.
    ValueError
        If the record is damaged.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.get.tree(adata)
    """
    from scmoe.tree import format_weights, split_weights

    found, counts = relabelled_tree(adata, key)
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
    """Describe each cluster by a line of gates, with their F1.

    Gates are sides of the splits of the tree that the clustering follows. A gate on a sum of
    markers is replaced by a gate on one of these markers, at the threshold that separates the
    sides of the split best, if that is accurate enough. Only the necessary gates are kept: they
    are added one by one, the most telling first, until the F1 of the cells within the gates is
    within 0.01 of the best that can be reached. A split that cuts through a cluster, with more
    than a tenth of its cells on either side, is no gate of this cluster.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster` with
        :class:`scmoe.similarity.DensityTree`, its default, with the values that were clustered.
    key
        The ``key_added`` of the clustering.

    Returns
    -------
    A row for each cluster. Of more than a million cells, a million evenly spaced ones are used.
    Columns:

    ``gates``
        The gates, joined by commas, the most telling first: ``"CD3+ (> 0.55), CD4- (< 1.02)"``,
        a marker between two thresholds ``"CD4 (0.4 to 1.02)"``, a sum of markers
        ``"0.8 CD4 - 0.6 CD8 > 0.3"``, or ``"all cells"``. Thresholds are in the units of the
        values.
    ``f1``
        F1 of the cells within the gates against the cells of the cluster: 1 if they are the
        same. A low F1 means that gates cannot describe the cluster, or that the model departs
        from the tree.
    ``n_cells``
        Cells of the cluster.

    Raises
    ------
    KeyError
        If there is no such clustering, it follows no tree, or its layer, representation or
        markers are missing.
    ValueError
        If the record is damaged or the values are not numbers.

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
    """Return the gates of each cluster with cells, and their F1."""
    from scmoe.tree import find_gates

    found, counts = relabelled_tree(adata, key)
    labels = _labels(adata, key)
    some = gate_cells(adata.n_obs)
    codes = labels.set_categories(list(counts.columns)).codes[some]
    gates = find_gates(found, tree_values(adata, key, found, some), codes, counts.to_numpy())
    by_label = dict(zip(counts.columns, gates, strict=True))
    return {name: by_label[name] for name in labels.categories}


def gate_signs(adata: AnnData, key: str) -> dict[str, dict[str, int]]:
    """Return the sign of each marker in the gates of each cluster, the most telling gate first.

    The result is empty if there is no tree, or if the tree splits components or markers that are
    no longer there.
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


def relabelled_tree(adata: AnnData, key: str) -> tuple[Tree, pd.DataFrame]:
    """Return the tree of a clustering and its cells by the labels that ``.obs[key]`` has now.

    Renamed clusters are counted again; otherwise the counts are those of :func:`recorded_tree`.
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
    """Read and check the tree of a clustering, and the cells of its clusters (rows) by label."""
    from scmoe.tree import Tree

    record = clustering_record(adata, key)
    if "tree" not in record:
        raise KeyError(_no_tree(record, key))
    where = f"`adata.uns[{key!r}]['tree']`"
    found, counts = Tree.from_record(record["tree"]), record["tree"].get(TREE_LABELS)
    if not (
        isinstance(counts, pd.DataFrame)
        and counts.shape[0] == found.n_clusters
        and counts.shape[1] > 0
        and counts.columns.is_unique
        and all(isinstance(name, str) for name in counts.columns)
        and all(dtype.kind in "iu" for dtype in counts.dtypes)
    ):
        raise ValueError(f"{where} is damaged: {TREE_LABELS!r} is not a table of cells by label.")
    return found, counts


def _labels(adata: AnnData, key: str) -> pd.Categorical:
    """Return the label of each cell as text, without categories that have no cell."""
    labels = pd.Categorical(adata.obs[key]).remove_unused_categories()
    return labels.rename_categories([str(name) for name in labels.categories])


def _no_tree(record: Mapping, key: str) -> str:
    """Explain why there is no tree, and what to do."""
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
    """Count the cells of each cluster of a tree (rows) by label (columns), int64."""
    from scmoe.tree import count_labels

    counts = count_labels(tree, x, labels.codes, len(labels.categories))
    return pd.DataFrame(
        counts,
        index=[str(k) for k in range(tree.n_clusters)],
        columns=list(labels.categories),
    )


def label_names(counts: pd.DataFrame) -> np.ndarray:
    """Return the most frequent label in each cluster of a tree; "" for a cluster without cells."""
    names = counts.columns.to_numpy(dtype=object)[counts.to_numpy().argmax(1)]
    return np.where(counts.to_numpy().any(1), names, "")


def gate_cells(n_obs: int) -> np.ndarray:
    """Return the positions of evenly spaced cells, at most :data:`MAX_GATE_CELLS`."""
    return np.linspace(0, n_obs - 1, min(n_obs, MAX_GATE_CELLS)).astype(np.int64)


def tree_values(
    adata: AnnData, key: str, tree: Tree, some: np.ndarray | None = None
) -> np.ndarray:
    """Return the values that a tree splits, cells x markers, float32, batches aligned.

    ``some`` are the positions of the cells to read, in increasing order; None reads all cells.
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
            raise ValueError(f"{where} does not have the {len(tree.markers)} columns of the tree.")
        x = x if every else x[some]
    else:
        missing = [str(name) for name in tree.markers if name not in adata.var_names]
        if missing:
            raise KeyError(
                f"Did not find {listing(missing)} in `.var_names`: the tree splits by it."
            )
        check_in_memory(adata)
        x = layer_values(adata, layer, in_memory=False)
        x = Rows(x, adata.var_names.get_indexer(tree.markers))
        x = x.stored() if every else x.take(some)
        where = "`adata.X`" if layer is None else f"`adata.layers[{layer!r}]`"
    check_matrix(x, tree.markers, where)
    obs = adata.obs if every else adata.obs.iloc[some]
    return align_batches(np.ascontiguousarray(dense(x)), obs, params.get("similarity", {}))


def align_batches(x: np.ndarray, obs: pd.DataFrame, similarity: Mapping) -> np.ndarray:
    """Align the values of batches as the similarity of the tree does."""
    from scmoe.similarity import DensityTree, Similarity

    found = Similarity.from_dict(similarity) if similarity else None
    if not isinstance(found, DensityTree) or found.batch_key is None:
        return x
    if found.batch_key not in obs:
        raise KeyError(f"Did not find {found.batch_key!r} in `.obs`: the tree aligns its batches.")
    return found.aligned(AnnData(obs=obs[[found.batch_key]].set_axis(obs.index.astype(str))), x)[0]


def _listed(tree: Tree, names: np.ndarray, region: int) -> str:
    """Join the labels of the clusters within a region by commas."""
    clusters = tree.cluster[tree.leaves_within(region)]
    return ", ".join(natsorted({names[k] for k in clusters} - {""}))
