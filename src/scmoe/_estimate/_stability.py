"""The number of clusters as the number of communities that are found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from scmoe._core.neighbors import partition
from scmoe._core.progress import bar
from scmoe._core.settings import check_whole
from scmoe._estimate._clusters import Found, by_size, check_cells, check_size
from scmoe.similarity import check_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

RESOLUTIONS = tuple(np.geomspace(0.05, 5.0, 20).round(3).tolist())
"""Resolutions that are tried, from coarse to fine."""

STABLE = 0.75
"""A community is found again if its mean Jaccard index is at least so much (Hennig 2007)."""

N_SAMPLES = 16
SHARE = 0.8
"""How many random subsets of the cells are partitioned, and the share of the cells in each."""

LEAST_SIZE = 10
"""Cells of the smallest cluster."""

FEW_CELLS = 1000
"""With fewer, a cloud without groups was seen to be cut into some."""

PATIENCE = 3
"""Beyond resolution 1 the search ends after so many partitions that are mostly not found again."""


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
    """Communities of a neighbour graph that random subsets of the cells show again.

    At each resolution the graph is partitioned (Louvain), and so are its restrictions to random
    subsets of the cells. The stability of a community is its largest Jaccard index with one of
    a subset's communities, averaged over the subsets. The resolution is taken where most
    communities are found again: the number of those with a stability of at least 0.75, less
    the number of the others, is largest; of equals the one with the largest mean stability. All
    cells as a single cluster would be found again always, so one is the answer where no
    resolution does better.

    A measure that averages over cells would prefer too coarse a partition or overlook that a
    few of many clusters are cut at random; here each cluster counts alike, small ones too.

    Parameters
    ----------
    graph
        ``(n, n)`` weights of the neighbour graph.
    resolutions
        Resolutions to try; None for 20 between 0.05 and 5. From 1 on the search ends when three
        in a row cut most communities at random.
    n_samples, share
        Random subsets, and the share of the cells in each.
    min_cluster_size
        Smaller communities are no clusters; their cells get the label -1. None for 10.
    seed
        Of the subsets, and of the order in which cells are looked at.
    progress
        Show a progress bar.

    Returns
    -------
    Clusters. ``proba`` is the share of the partitions at the chosen resolution, that of all
    cells and those of the subsets, that put a cell into a cluster; ``labels`` follows the
    majority. The table has ``resolution``, ``n_clusters``, ``stable`` (how many of them are
    found again), ``stability`` (mean over the clusters), ``spread`` (standard deviation over
    the subsets of that mean), ``ari`` (mean adjusted Rand index between all cells and the
    subsets) and ``chosen``.

    Raises
    ------
    ValueError
        No such graph over cells, fewer than 10 cells, settings out of range.

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
    least = LEAST_SIZE if min_cluster_size is None else min_cluster_size
    check_size("min_cluster_size", least, 1, n)

    subsets = _subsets(graph, n_samples, share, seed)
    # a single cluster is found again always
    rows, losses, best, chosen, taken = [], 0, (1, 1.0), None, None
    for resolution in bar(resolutions, "partitioning the graph", progress=progress):
        found = partition(graph, resolution, seed)
        again = [(cells, partition(part, resolution, seed)) for cells, part in subsets]
        row = _row(found, again, least)
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
    """From coarse to fine; ValueError unless all are above 0."""
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
    """Random cells, in order, and the graph among them."""
    rng = np.random.default_rng(seed)
    n = graph.shape[0]
    drawn = [np.sort(rng.permutation(n)[: round(share * n)]) for _ in range(n_samples)]
    return [(cells, graph[cells][:, cells]) for cells in drawn]


def _overlap(found: np.ndarray, other: np.ndarray) -> sparse.csr_matrix:
    """Cells that communities have in common, ``(n_found, n_other)``."""
    ones = np.ones(len(found))
    return sparse.csr_matrix((ones, (found, other)), shape=(found.max() + 1, other.max() + 1))


def _jaccard(found: np.ndarray, other: np.ndarray, n_found: int) -> np.ndarray:
    """Largest Jaccard index of each community with one of another partition of the cells.

    NaN for communities without cells, ``(n_found,)``.
    """
    both = _overlap(found, other).tocoo()
    union = np.bincount(found)[both.row] + np.bincount(other)[both.col] - both.data
    best = np.full(n_found, -np.inf)
    np.maximum.at(best, both.row, both.data / union)
    best[np.isinf(best)] = np.nan
    return best


def _row(found: np.ndarray, again: list[tuple[np.ndarray, np.ndarray]], least: int) -> dict:
    """The evidence of one resolution."""
    size = np.bincount(found)
    jaccard = np.stack([_jaccard(found[cells], other, len(size)) for cells, other in again])
    # a community none of whose cells is in a subset can't be found there
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
    """Labels and the share of votes: see :func:`stable_clusters`.

    A community of a subset votes for the community of all cells with which it has most cells in
    common; those of fewer than ``least`` cells stand together for no cluster.
    """
    n, size = len(found), np.bincount(found)
    kept = np.flatnonzero(size >= least)
    none = len(kept)
    number = np.full(len(size), none)
    number[kept] = np.arange(none)
    found = number[found]
    # a tie is for the community of all cells
    votes = np.zeros((n, none + 1), dtype=np.float32)
    votes[np.arange(n), found] = 1 + 1e-3
    for cells, other in again:
        stands_for = np.asarray(_overlap(found[cells], other).argmax(axis=0)).ravel()
        votes[cells, stands_for[other]] += 1
    labels = votes.argmax(axis=1)
    left = np.bincount(labels, minlength=none + 1) >= least
    left[none] = False
    labels, kept = by_size(np.where(left[labels], labels, -1))
    votes = votes[:, kept]
    total = votes.sum(axis=1, keepdims=True)
    proba = np.divide(votes, total, out=np.full_like(votes, 1 / len(kept)), where=total > 0)
    return labels, proba
