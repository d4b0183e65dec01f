"""``scmoe.tl.cut``: a coarser clustering, by merging clusters along their tree."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmoe._core.cells import check_adata
from scmoe._core.keys import Key
from scmoe._core.plain import for_h5ad
from scmoe._core.settings import NOTHING, number, whole
from scmoe.get import TREE_LABELS, recorded_tree
from scmoe.tl._reference import SLOTS
from scmoe.tl._results import CLUSTERING_RECORD, check_key, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

logger = logging.getLogger("scmoe")

RECORD = CLUSTERING_RECORD | {"experts"}
"""Entries of the record of a cut."""

KEPT = ("markers", "history", "model", "manifest")
"""Entries that are copied from the record of the clustering."""


def cut(
    adata: AnnData,
    *,
    significance: float | None = None,
    n_clusters: int | None = None,
    key: str = Key.DEFAULT,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Merge clusters along the tree that they follow, without training.

    Clusters that are separated only by undone splits become one, with the sum of their
    probabilities. Each cell gets the cluster that is then most probable, so an ambiguous cell
    may leave the cluster that contains its earlier cluster.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster` with
        :class:`scmoe.similarity.DensityTree`, its default.
    significance
        Undo the splits below this significance, and all splits within them; see
        :func:`scmoe.get.tree`.
    n_clusters
        Undo the latest splits until this many populations of the tree are left. There are fewer
        clusters if the model has no separate cluster for some populations.
    key
        The ``key_added`` of the clustering, or of an earlier cut.
    key_added
        Names the slots that are written; by default ``key + "_cut"``.
    copy
        Return an annotated copy and leave ``adata`` alone.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added]``
        Cluster of each cell, categorical; ``"0"`` is the largest.
    ``.obsm[key_added + "_proba"]``
        Probability of each cluster, DataFrame ``(n_obs, n_clusters)`` float32; rows sum to 1.
    ``.uns[key_added]``
        ``params``, ``n_clusters``, the merged ``tree``, ``experts`` (cluster of each expert of
        the model, ``""`` for those without cells), ``version``, and ``model``, ``markers``,
        ``history`` and ``manifest`` of the clustering: the functions that take the ``key`` of a
        clustering take ``key_added``, :func:`scmoe.tl.generate` and :func:`scmoe.tl.assign`
        among them. :func:`scmoe.tl.stability` does not, as a cut is no training. Codes and
        outlier scores are those of the clustering.
    ``.uns[key_added + "_colors"]``
        The colours of the largest parts, where the clusters have colours.

    Raises
    ------
    KeyError
        No such clustering, or one that follows no tree; its probabilities are missing.
    ValueError
        Both or neither of ``significance`` and ``n_clusters``; a significance below 0; more
        clusters than the tree has; a view; a ``key_added`` whose slots are taken, by the
        clustering itself for instance; a record that is damaged.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.tl.cut(adata, n_clusters=3)
    >>> adata.obs["scmoe_cut"].value_counts()
    """
    check_adata(adata)
    (number() | NOTHING).check("significance", significance)
    (whole(1) | NOTHING).check("n_clusters", n_clusters)
    tree, counts = recorded_tree(adata, key)
    into = tree.cut(significance=significance, n_clusters=n_clusters)
    key_added = Key.uns.cut(key) if key_added is None else key_added
    check_key(adata, key_added, RECORD)
    if key_added == key:
        raise ValueError(f"`key_added={key!r}` is what is cut; choose another name.")
    record, proba = adata.uns[key], _proba(adata, key, counts)

    group = into[counts.to_numpy().argmax(0)]
    proba = summed(proba, dict(zip(counts.columns, map(str, group), strict=True)))
    size = proba.idxmax(axis=1).value_counts().reindex(proba.columns, fill_value=0)
    order = size.sort_values(ascending=False, kind="stable").index
    names = {old: str(k) for k, old in enumerate(order)}
    proba = proba[order].set_axis(list(names.values()), axis=1)
    labels = pd.Categorical(
        proba.idxmax(axis=1), categories=list(proba)
    ).remove_unused_categories()
    of = {label: names[str(k)] for label, k in zip(counts.columns, group, strict=True)}
    merged = counts.groupby(into).sum()
    merged = merged.T.groupby([of[label] for label in merged.columns], sort=False).sum().T
    merged.index = merged.index.astype(str)
    params = record.get("params", {})
    result = {
        **{name: record[name] for name in KEPT if name in record},
        "params": {
            "key": key,
            "significance": significance,
            "n_clusters": n_clusters,
            **{slot: params[slot] for slot in (*SLOTS, "similarity") if slot in params},
        },
        "n_clusters": len(labels.categories),
        "tree": {**tree.merge(into).to_record(), TREE_LABELS: merged},
        "experts": _experts(record, of),
        "version": version("scmoe"),
    }
    if n_clusters is not None and len(labels.categories) < n_clusters:
        logger.warning(
            "There are %d clusters, not %d: the tree has %d populations, the model %d clusters.",
            len(labels.categories),
            n_clusters,
            tree.n_clusters,
            counts.shape[1],
        )
    colors = _colors(adata, key, key_added, of, list(labels.categories))
    adata = adata.copy() if copy else adata
    write(
        (adata.obs, Key.obs.labels(key_added), labels),
        (adata.obsm, Key.obsm.proba(key_added), proba),
        (adata.uns, Key.uns.result(key_added), for_h5ad(result)),
        (adata.uns, f"{key_added}_colors", colors),
    )
    return adata if copy else None


def summed(proba: pd.DataFrame, of: Mapping[str, str]) -> pd.DataFrame:
    """Sum the probabilities of experts by cluster; experts of no cluster are left out.

    Parameters
    ----------
    proba
        Cells x experts.
    of
        Cluster of each expert, by the name of its column; "" or nothing for none.
    """
    clusters = np.array([of.get(name, "") for name in proba.columns], dtype=object)
    names = [name for name in dict.fromkeys(clusters) if name]
    parts = {name: proba.loc[:, clusters == name].sum(axis=1) for name in names}
    return pd.DataFrame(parts, index=proba.index).astype(np.float32)


def _proba(adata: AnnData, key: str, counts: pd.DataFrame) -> pd.DataFrame:
    """Return the probabilities of a clustering, with a column for each of its clusters."""
    slot = Key.obsm.proba(key)
    proba = adata.obsm.get(slot)
    if not isinstance(proba, pd.DataFrame) or not set(counts.columns) <= set(proba.columns):
        raise KeyError(
            f"Did not find the probabilities of the clusters of {key!r} in `.obsm[{slot!r}]`: run "
            f"`scmoe.tl.cluster(adata, key_added={key!r})` again."
        )
    return proba


def _experts(record: Mapping, of: Mapping[str, str]) -> np.ndarray:
    """Return the cluster of each expert, "" for experts without a cluster."""
    before = record.get("experts", record["model"]["clusters"] if "model" in record else [])
    return np.array([of.get(str(name), "") for name in before], dtype=str)


def _colors(
    adata: AnnData, key: str, key_added: str, of: Mapping[str, str], names: list[str]
) -> list[str] | None:
    """Return the colours of the largest parts of the clusters."""
    parts = adata.obs[key].astype("category").cat.categories.astype(str)
    colors = adata.uns.get(f"{key}_colors", ())
    if len(colors) != len(parts) or not set(parts) <= set(of):
        return adata.uns.get(f"{key_added}_colors")
    size = adata.obs[key].astype(str).value_counts()
    # the last one is the largest
    ranked = sorted(
        zip(parts, map(str, colors), strict=True), key=lambda pair: size.get(pair[0], 0)
    )
    found = {of[part]: color for part, color in ranked}
    return [found.get(name, "#808080") for name in names]
