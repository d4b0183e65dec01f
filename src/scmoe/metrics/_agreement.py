"""Agreement of several clusterings of the same cells, per cluster and per cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

STABLE = 0.75
"""Least mean Jaccard index of a stable cluster (Hennig 2007)."""

INTERVAL = (0.025, 0.975)
"""Quantiles over the runs that bound the interval of a Jaccard index."""


def shared_cells(labels: np.ndarray, other: np.ndarray) -> sparse.csr_matrix:
    """Count the cells that clusters of two clusterings share, ``(n_clusters, n_other)``."""
    ones = np.ones(len(labels))
    return sparse.csr_matrix((ones, (labels, other)), shape=(labels.max() + 1, other.max() + 1))


def best_jaccard(labels: np.ndarray, other: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return the largest Jaccard index of each cluster with a cluster of another clustering.

    Parameters
    ----------
    labels, other
        Two clusterings of the same cells, ``(n,)`` integers.
    n_clusters
        Number of clusters of the first one.

    Returns
    -------
    ``(n_clusters,)``; NaN for clusters without cells.
    """
    both = shared_cells(labels, other).tocoo()
    union = np.bincount(labels)[both.row] + np.bincount(other)[both.col] - both.data
    best = np.full(n_clusters, -np.inf)
    np.maximum.at(best, both.row, both.data / union)
    best[np.isinf(best)] = np.nan
    return best


@dataclass(frozen=True)
class Agreement:
    """Agreement of the runs of a clustering with a reference.

    The reference has K clusters; there are R runs and n cells.
    """

    reference: np.ndarray
    """``(n,)`` int64: reference cluster of each cell, -1 for none."""
    reference_run: int | None
    """Number of the run that is the reference; None where a reference was given."""
    jaccard: np.ndarray
    """``(K, R)`` float64: best Jaccard index of each cluster with a cluster of each run.

    NaN where a run has no cell of a cluster, and for the reference with itself.
    """
    aligned: np.ndarray
    """``(n, R)`` int64: the runs, with their clusters numbered as in the reference.

    Each cluster of a run has the number of the reference cluster with which it shares most
    cells; -1 for cells that a run leaves out, or whose cluster shares no cell with the reference.
    """
    adjusted_rand: np.ndarray
    """``(R,)`` float64: adjusted Rand index with the reference, over the cells of both."""
    n_clusters: np.ndarray
    """``(R,)`` int64: number of clusters of each run."""
    consensus: np.ndarray
    """``(n,)`` int64: majority vote of the runs on each cell; -1 for cells in no run."""
    ambiguity: np.ndarray
    """``(n,)`` float32: share of the runs of a cell that disagree with the majority.

    NaN for cells in no run.
    """

    @property
    def mean_jaccard(self) -> np.ndarray:
        """Mean Jaccard index over the runs with cells of a cluster, ``(K,)``; NaN without such."""
        seen = ~np.isnan(self.jaccard)
        total = np.where(seen, self.jaccard, 0).sum(1)
        return np.divide(total, seen.sum(1), out=np.full(len(total), np.nan), where=seen.any(1))

    @property
    def interval(self) -> np.ndarray:
        """Quantiles 0.025 and 0.975 of the Jaccard index over runs, ``(K, 2)``; NaN as above."""
        bounds = np.full((len(self.jaccard), 2), np.nan)
        for bound, row in zip(bounds, self.jaccard, strict=True):
            row = row[~np.isnan(row)]
            if len(row):
                bound[:] = np.quantile(row, INTERVAL)
        return bounds

    @property
    def found(self) -> np.ndarray:
        """Share of the runs with a Jaccard index of at least 0.75, ``(K,)``; NaN as above."""
        seen = (~np.isnan(self.jaccard)).sum(1)
        # a comparison with NaN is false
        hits = (self.jaccard >= STABLE).sum(1)
        return np.divide(hits, seen, out=np.full(len(seen), np.nan), where=seen > 0)

    @property
    def stable(self) -> np.ndarray:
        """Whether the mean Jaccard index is at least 0.75, ``(K,)`` bool."""
        return self.mean_jaccard >= STABLE


def agreement(runs: np.ndarray, reference: np.ndarray | None = None) -> Agreement:
    """Compare runs of a clustering with a reference, and take a majority vote on each cell.

    The stability of a cluster is its largest Jaccard index with a cluster of a run, restricted
    to the cells of the run, averaged over the runs with some of its cells (Hennig 2007). In the
    vote each cluster of a run counts as the reference cluster with which it shares most cells;
    a tie is decided for the reference, else for the lowest number.

    Parameters
    ----------
    runs
        ``(n, R)`` integers: cluster of each cell in each run, numbered from 0; -1 for cells that
        a run leaves out.
    reference
        ``(n,)`` integers, -1 for cells without a cluster. None for the run with the largest
        mean adjusted Rand index with the others, the first of equals; it is not compared with
        itself.

    Returns
    -------
    The agreement.

    Raises
    ------
    ValueError
        Fewer than 2 runs, arrays of another shape or not of integers, a run or a reference
        without clusters, a run that shares no cell with the reference.

    References
    ----------
    Hennig 2007 (cluster-wise stability), Hubert & Arabie 1985 (adjusted Rand index).
    """
    runs = _as_labels(runs, "runs", 2)
    if runs.shape[1] < 2:
        raise ValueError(f"Agreement needs at least 2 runs, got {runs.shape[1]}.")
    empty = np.flatnonzero((runs < 0).all(0))
    if len(empty):
        raise ValueError(f"Run {empty[0]} has no cluster.")
    chosen = None
    if reference is None:
        chosen = _most_central(runs)
        reference = runs[:, chosen]
    reference = _as_labels(reference, "reference", 1)
    if len(reference) != len(runs):
        raise ValueError(f"The reference has {len(reference)} cells, the runs have {len(runs)}.")
    if (reference < 0).all():
        raise ValueError("The reference has no cluster.")

    n_clusters = reference.max() + 1
    jaccard = np.full((n_clusters, runs.shape[1]), np.nan)
    aligned = np.full(runs.shape, -1, dtype=np.int64)
    rand = np.empty(runs.shape[1])
    for r, run in enumerate(runs.T):
        both = (reference >= 0) & (run >= 0)
        if not both.any():
            raise ValueError(f"Run {r} shares no cell with the reference.")
        rand[r] = adjusted_rand_score(reference[both], run[both])
        aligned[:, r] = _aligned(reference, run, both)
        if r != chosen:
            jaccard[:, r] = best_jaccard(reference[both], run[both], n_clusters)
    consensus, ambiguity = _vote(aligned, (runs >= 0).sum(1), reference, n_clusters)
    return Agreement(
        reference=reference,
        reference_run=chosen,
        jaccard=jaccard,
        aligned=aligned,
        adjusted_rand=rand,
        n_clusters=np.array([len(np.unique(run[run >= 0])) for run in runs.T]),
        consensus=consensus,
        ambiguity=ambiguity,
    )


def _as_labels(labels: np.ndarray, name: str, ndim: int) -> np.ndarray:
    """Return labels as int64, negative ones as -1."""
    labels = np.asarray(labels)
    if labels.ndim != ndim or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` must be {ndim}-dimensional integers, got {labels.ndim}-dimensional "
            f"{labels.dtype}."
        )
    return np.maximum(labels.astype(np.int64), -1)


def _most_central(runs: np.ndarray) -> int:
    """Return the run that agrees best with all others."""
    n_runs = runs.shape[1]
    rand = np.zeros((n_runs, n_runs))
    for i in range(n_runs):
        for j in range(i):
            both = (runs[:, i] >= 0) & (runs[:, j] >= 0)
            if both.any():
                rand[i, j] = rand[j, i] = adjusted_rand_score(runs[both, i], runs[both, j])
    return int(rand.sum(0).argmax())


def _aligned(reference: np.ndarray, run: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Renumber the clusters of a run as in the reference."""
    shared = shared_cells(reference[both], run[both])
    stands_for = np.full(run.max() + 1, -1, dtype=np.int64)
    best = np.asarray(shared.argmax(axis=0)).ravel()
    known = np.unique(run[both])
    stands_for[known] = best[known]
    return np.where(run >= 0, stands_for[run], -1)


def _vote(
    aligned: np.ndarray, n_runs: np.ndarray, reference: np.ndarray, n_clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the majority vote on each cell, and the share of its runs that disagree."""
    votes = np.zeros((len(aligned), n_clusters), dtype=np.float32)
    for run in aligned.T:
        voting = np.flatnonzero(run >= 0)
        votes[voting, run[voting]] += 1
    known = np.flatnonzero(reference >= 0)
    # half a vote for the reference decides ties
    tied = votes.copy()
    tied[known, reference[known]] += 0.5
    silent = ~votes.any(1)
    consensus = np.where(silent, -1, tied.argmax(1))
    agree = votes[np.arange(len(votes)), consensus]
    share = np.divide(agree, n_runs, out=np.zeros_like(agree), where=n_runs > 0)
    return consensus, np.where(silent, np.nan, 1 - share).astype(np.float32)
