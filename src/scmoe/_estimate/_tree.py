"""The number of clusters as the number of leaves of a density tree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmoe._core.progress import bar
from scmoe._core.settings import is_number
from scmoe._estimate._clusters import Found, by_size, check_codes, check_size
from scmoe._estimate._stability import stability_row
from scmoe.tree import DEPTH, MIN_CELLS, SIGNIFICANCE, SUBSAMPLE, Cells, grow, memberships

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scmoe.tree import Tree

N_TREES = 5
"""Number of trees of random subsets, which measure stability."""

STEP = math.sqrt(2)
"""Factor from one significance of the evidence to the next."""


def tree_clusters(
    codes: np.ndarray,
    n_clusters: int | None = None,
    *,
    significance: float = SIGNIFICANCE,
    depth: float = DEPTH,
    min_cluster_size: int | None = None,
    evidence: Sequence[float] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Found:
    """Find populations separated by valleys of the density: the leaves of a density tree.

    The cells are split where their density along some direction has the clearest valley, then
    each half again, until no half has a significant valley
    (:class:`scmoe.similarity.DensityTree`). One population gives one cluster.

    Parameters
    ----------
    codes
        ``(n, d)`` values, each of which is meaningful by itself: markers rather than principal
        components.
    n_clusters
        Cut the tree at this number of clusters and keep its clearest valleys; it may have fewer.
        None for all leaves.
    significance
        Least difference between the numbers of cells at a valley and at its lower peak, in
        standard deviations. Smaller values give more clusters.
    depth
        Largest density of a valley, as a share of its lower peak.
    min_cluster_size
        Least number of cells on either side of a valley. None for 12.
    evidence
        Higher significances at which the same tree is cut for the evidence. None for steps of
        the square root of 2, up to the first that leaves one cluster.
    seed
        Seed of all random draws. The clusters do not depend on the order of the cells.
    progress
        Show a progress bar.

    Returns
    -------
    The clusters; no cell is noise. ``proba`` is uncertain near the valleys, whose position
    differs between subsamples of the cells. The table has ``significance``, ``n_clusters``,
    ``stable`` (number of clusters with a mean Jaccard index of at least 0.75 in the trees of 5
    random subsets), ``stability`` (mean index over the clusters), ``spread`` (its standard
    deviation over the subsets), ``ari`` (mean adjusted Rand index between all cells and the
    subsets) and ``chosen``.

    Raises
    ------
    ValueError
        NaN or infinite values, fewer than 10 cells, the same values in all cells, settings out
        of range.
    """
    codes = check_codes(codes)
    n, n_markers = codes.shape
    if not (is_number(significance) and significance >= 0):
        raise ValueError(f"`significance` must be 0 or more, got {significance!r}.")
    if not (is_number(depth) and 0 < depth <= 1):
        raise ValueError(f"`depth` must be above 0 and at most 1, got {depth!r}.")
    if min_cluster_size is not None:
        check_size("min_cluster_size", min_cluster_size, 1, n)
    min_cells = MIN_CELLS if min_cluster_size is None else min_cluster_size
    levels = None if evidence is None else _check_levels(evidence, significance)

    markers = np.arange(n_markers).astype(str)
    how = {"significance": float(significance), "depth": float(depth), "min_cells": int(min_cells)}

    def grown(x: np.ndarray, **kwargs) -> Tree:
        tree = grow(x, markers, **how, **kwargs)
        if n_clusters is None or n_clusters >= tree.n_clusters:
            return tree
        return tree.merge(tree.cut(n_clusters=n_clusters))

    own = {"seed": seed, "cells": Cells.of(codes, seed)}
    tree = grown(codes, **own)
    labels = tree.predict(codes)
    rng = np.random.default_rng(seed)
    again = []
    for _ in bar(range(N_TREES), "density trees", progress=progress):
        cells = rng.permutation(n)[: int(SUBSAMPLE * n)]
        other = grown(codes[cells], seed=int(rng.integers(2**31)))
        found = other.predict(codes)
        again.append((cells, other, found[cells]))

    rows = []
    for level in levels or _levels(tree, significance):
        # the same valley is less significant in a subset of the cells
        less = max(significance, level * math.sqrt(SUBSAMPLE))
        parts = [(cells, cut(other, found, less)) for cells, other, found in again]
        rows.append({"significance": level, **stability_row(cut(tree, labels, level), parts, 1)})
    table = pd.DataFrame(rows)
    table["chosen"] = table["significance"] == significance
    table.index = table.index.astype(str)
    proba = memberships(tree, codes, **own, **how)
    labels, kept = by_size(labels)
    return Found(
        method="tree",
        labels=labels,
        proba=proba[:, kept],
        table=table,
        settings={
            "significance": float(significance),
            "depth": float(depth),
            "min_cluster_size": int(min_cells),
        },
    )


def grown_clusters(tree: Tree, proba: np.ndarray, significance: float) -> Found:
    """Return the clusters of an existing tree.

    Parameters
    ----------
    tree
        The tree.
    proba
        Memberships in its clusters, ``(n, n_clusters)`` float32.
    significance
        Significance at which it was grown.

    Returns
    -------
    As :func:`tree_clusters`; the table has only ``significance``, ``n_clusters`` and ``chosen``.
    """
    levels = _levels(tree, significance)
    n_clusters = [int(tree.cut(significance=level).max()) + 1 for level in levels]
    table = pd.DataFrame({"significance": levels, "n_clusters": n_clusters})
    table["chosen"] = table["significance"] == significance
    table.index = table.index.astype(str)
    return Found(
        method="tree",
        labels=proba.argmax(axis=1).astype(np.int64),
        proba=proba,
        table=table,
        settings={"significance": float(significance)},
    )


def cut(tree: Tree, labels: np.ndarray, significance: float) -> np.ndarray:
    """Return the clusters ``(n,)`` of a tree that is cut at a higher significance."""
    return tree.cut(significance=significance)[labels]


def _levels(tree: Tree, significance: float) -> list[float]:
    """Return the significance, and higher ones up to the first that leaves one cluster."""
    levels = [float(significance)]
    top = tree.significance.max(initial=0.0)
    while levels[-1] <= top:
        step = max(levels[-1], 1.0) * STEP
        levels.append(float(f"{step:.3g}"))
    return levels


def _check_levels(evidence: Sequence[float], significance: float) -> list[float]:
    """Sort the significance and higher ones; ValueError for values below it."""
    if not all(is_number(level) and level >= significance for level in evidence):
        raise ValueError(
            f"`evidence` must be numbers of at least {significance:g}, the `significance`: a tree "
            f"can be cut coarser, not finer. Got {evidence!r}."
        )
    return sorted({float(significance), *map(float, evidence)})
