"""The number of clusters as the number of graph communities that recur in subsets of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from scmoe._core.neighbors import partition
from scmoe._core.progress import bar
from scmoe._core.settings import check_whole
from scmoe._estimate._clusters import Found, by_size, check_cells, check_size
from scmoe.metrics import STABLE, best_jaccard, shared_cells
from scmoe.similarity import check_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy import sparse

RESOLUTIONS = tuple(np.geomspace(0.05, 5.0, 20).round(3).tolist())
"""Default resolutions, from coarse to fine."""

N_SAMPLES = 16
SHARE = 0.8
"""Number of random subsets of the cells, and the share of the cells in each."""

MIN_SIZE = 10
"""Least number of cells of a cluster."""

FEW_CELLS = 1000
"""Number of cells below which a cloud without groups may be divided."""

PATIENCE = 3
"""Number of partitions in a row, mostly of unstable communities, that end the search."""


def stable_clusters(
    graph: sparse.csr_matrix,
    *,
    resolutions: Sequence[float] | None = None,
    n_samples: int = N_SAMPLES,
    share: float = SHARE,
    min_cluster_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Found:
    """Find the communities of a neighbour graph that recur in random subsets of the cells.

    At each resolution the graph is partitioned (Louvain), and so are its restrictions to random
    subsets of the cells. The stability of a community is its largest Jaccard index with a
    community of a subset, averaged over the subsets. The chosen resolution is the one with the
    largest difference between the numbers of stable communities (stability at least 0.75) and of
    others; of equals the one with the largest mean stability. All cells as a single cluster
    would always be stable, so one cluster is the answer where no resolution does better.

    A measure that averages over cells would prefer too coarse a partition, or overlook a few
    unstable clusters among many; here all clusters count alike, small ones too.

    Parameters
    ----------
    graph
        ``(n, n)`` weights of the neighbour graph.
    resolutions
        Resolutions to try; None for 20 between 0.05 and 5. From resolution 1 on, the search ends
        after three resolutions in a row at which most communities are unstable.
    n_samples, share
        Number of random subsets, and the share of the cells in each.
    min_cluster_size
        Least number of cells of a cluster; cells of smaller communities get the label -1. None
        for 10.
    seed
        Seed of the subsets, and of the order in which cells are visited.
    progress
        Show a progress bar.

    Returns
    -------
    The clusters. ``proba`` is the share of the partitions at the chosen resolution (of all cells
    and of the subsets) that assign a cell to a cluster; ``labels`` is the majority. The table has
    ``resolution``, ``n_clusters``, ``stable`` (number of stable clusters), ``stability`` (mean
    over the clusters), ``spread`` (standard deviation of that mean over the subsets), ``ari``
    (mean adjusted Rand index between all cells and the subsets) and ``chosen``.

    Raises
    ------
    ValueError
        An invalid graph, fewer than 10 cells, settings out of range.

    References
    ----------
    Hennig 2007 (cluster-wise stability); Tang et al. 2021 (of single cells); Blondel et al.
    2008 (Louvain).
    """
    n = graph.shape[0]
    check_cells(n)
    graph = check_graph(graph, n, "`graph`")
    resolutions = _check_resolutions(resolutions)
    check_whole("n_samples", n_samples, 2)
    if not isinstance(share, float | np.floating) or not 0 < share < 1:
        raise ValueError(f"`share` must be between 0 and 1, got {share!r}.")
    least = MIN_SIZE if min_cluster_size is None else min_cluster_size
    check_size("min_cluster_size", least, 1, n)

    subsets = _subsets(graph, n_samples, share, seed)
    # a single cluster is always stable
    rows, losses, best, chosen, taken = [], 0, (1, 1.0), None, None
    for resolution in bar(resolutions, "partitioning the graph", progress=progress):
        found = partition(graph, resolution, seed)
        again = [(cells, partition(part, resolution, seed)) for cells, part in subsets]
        row = stability_row(found, again, least)
        rows.append({"resolution": resolution, **row})
        rank = (2 * row["stable"] - row["n_clusters"], row["stability"])
        if rank[0] > 1 and rank >= best:
            best, chosen, taken = rank, len(rows) - 1, (found, again)
        losses = losses + 1 if 2 * row["stable"] < row["n_clusters"] else 0
        if resolution >= 1 and losses >= PATIENCE:
            break
    table = pd.DataFrame(rows)
    table["chosen"] = table.index == chosen
    table.index = table.index.astype(str)
    settings = {"min_cluster_size": int(least), "n_samples": int(n_samples), "share": share}
    if taken is None:
        labels, proba = np.zeros(n, dtype=np.int64), np.ones((n, 1), dtype=np.float32)
    else:
        labels, proba = _majority(*taken, least)
        settings["resolution"] = float(rows[chosen]["resolution"])
    return Found(method="stability", labels=labels, proba=proba, table=table, settings=settings)


def _check_resolutions(resolutions: Sequence[float] | None) -> list[float]:
    """Sort resolutions from coarse to fine; ValueError unless all are above 0."""
    try:
        found = sorted(np.asarray(RESOLUTIONS if resolutions is None else resolutions, float))
        fine = len(found) > 0 and all(0 < one < np.inf for one in found)
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ValueError(f"`resolutions` must be positive numbers, got {resolutions!r}.")
    return [float(one) for one in found]


def _subsets(
    graph: sparse.csr_matrix, n_samples: int, share: float, seed: int
) -> list[tuple[np.ndarray, sparse.csr_matrix]]:
    """Draw random subsets of the cells, with the graph among the cells of each."""
    rng = np.random.default_rng(seed)
    n = graph.shape[0]
    drawn = [np.sort(rng.permutation(n)[: round(share * n)]) for _ in range(n_samples)]
    return [(cells, graph[cells][:, cells]) for cells in drawn]


def stability_row(
    found: np.ndarray, again: list[tuple[np.ndarray, np.ndarray]], least: int
) -> dict:
    """Return the row of a table of evidence for one clustering.

    Parameters
    ----------
    found
        Cluster of each cell, ``(n,)``.
    again
        Cells of each subset, and their clusters when the subset is clustered by itself.
    least
        Least number of cells of a cluster.
    """
    size = np.bincount(found)
    jaccard = np.stack([best_jaccard(found[cells], other, len(size)) for cells, other in again])
    # a community without cells in a subset does not recur there
    jaccard = np.nan_to_num(jaccard[:, size >= least])
    if jaccard.shape[1] == 0:
        return {"n_clusters": 0, "stable": 0, "stability": 0.0, "spread": 0.0, "ari": 0.0}
    return {
        "n_clusters": jaccard.shape[1],
        "stable": int((jaccard.mean(0) >= STABLE).sum()),
        "stability": float(jaccard.mean()),
        "spread": float(jaccard.mean(1).std()),
        "ari": float(np.mean([adjusted_rand_score(found[c], other) for c, other in again])),
    }


def _majority(
    found: np.ndarray, again: list[tuple[np.ndarray, np.ndarray]], least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and shares of votes, see :func:`stable_clusters`.

    A community of a subset votes for the community of all cells with which it shares most cells;
    communities of fewer than ``least`` cells together count as no cluster.
    """
    n, size = len(found), np.bincount(found)
    kept = np.flatnonzero(size >= least)
    none = len(kept)
    number = np.full(len(size), none)
    number[kept] = np.arange(none)
    found = number[found]
    # the partition of all cells decides ties
    votes = np.zeros((n, none + 1), dtype=np.float32)
    votes[np.arange(n), found] = 1 + 1e-3
    for cells, other in again:
        stands_for = np.asarray(shared_cells(found[cells], other).argmax(axis=0)).ravel()
        votes[cells, stands_for[other]] += 1
    labels = votes.argmax(axis=1)
    left = np.bincount(labels, minlength=none + 1) >= least
    left[none] = False
    labels, kept = by_size(np.where(left[labels], labels, -1))
    votes = votes[:, kept]
    total = votes.sum(axis=1, keepdims=True)
    proba = np.divide(votes, total, out=np.full_like(votes, 1 / len(kept)), where=total > 0)
    return labels, proba
