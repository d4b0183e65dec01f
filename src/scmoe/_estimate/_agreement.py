"""How well several clusterings of the same cells agree, cluster by cluster and cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import adjusted_rand_score

from scmoe._estimate._stability import STABLE, _jaccard, _overlap

INTERVAL = (0.025, 0.975)
"""Quantiles over the runs that bound the interval of a Jaccard index."""


@dataclass(frozen=True)
class Agreement:
    """What runs of a clustering have in common with a reference.

    K clusters of the reference, R runs, n cells.
    """

    reference: np.ndarray
    """``(n,)`` int64: number of the reference cluster of each cell, -1 for none."""
    reference_run: int | None
    """The run that is the reference; None where a reference was given."""
    jaccard: np.ndarray
    """``(K, R)`` float64: best Jaccard index of each cluster with one of a run's.

    NaN where a run has none of the cells of a cluster, and for the reference with itself.
    """
    aligned: np.ndarray
    """``(n, R)`` int64: the runs in the numbers of the reference.

    Each cluster of a run has the number of the reference cluster with which it shares most
    cells; -1 for cells that a run leaves out, or that share no cell with the reference.
    """
    adjusted_rand: np.ndarray
    """``(R,)`` float64: adjusted Rand index with the reference, over the cells of both."""
    n_clusters: np.ndarray
    """``(R,)`` int64: how many clusters each run has."""
    consensus: np.ndarray
    """``(n,)`` int64: what most runs say of each cell; -1 where no run says anything."""
    ambiguity: np.ndarray
    """``(n,)`` float32: share of the runs of a cell that put it elsewhere than most do.

    NaN where no run says anything.
    """

    @property
    def mean_jaccard(self) -> np.ndarray:
        """``(K,)``: mean over the runs that have cells of a cluster; NaN if none has."""
        seen = ~np.isnan(self.jaccard)
        total = np.where(seen, self.jaccard, 0).sum(1)
        return np.divide(total, seen.sum(1), out=np.full(len(total), np.nan), where=seen.any(1))

    @property
    def interval(self) -> np.ndarray:
        """``(K, 2)``: the quantiles 0.025 and 0.975 over the runs; NaN like the mean."""
        bounds = np.full((len(self.jaccard), 2), np.nan)
        for bound, row in zip(bounds, self.jaccard, strict=True):
            row = row[~np.isnan(row)]
            if len(row):
                bound[:] = np.quantile(row, INTERVAL)
        return bounds

    @property
    def found(self) -> np.ndarray:
        """``(K,)``: share of the runs with a Jaccard index of at least 0.75; NaN like the mean."""
        seen = (~np.isnan(self.jaccard)).sum(1)
        # NaN is not above anything
        hits = (self.jaccard >= STABLE).sum(1)
        return np.divide(hits, seen, out=np.full(len(seen), np.nan), where=seen > 0)

    @property
    def stable(self) -> np.ndarray:
        """``(K,)`` bool: whether the mean Jaccard index is at least 0.75."""
        return self.mean_jaccard >= STABLE


def agreement(runs: np.ndarray, reference: np.ndarray | None = None) -> Agreement:
    """Compare runs of a clustering with a reference, and let them vote on each cell.

    The stability of a cluster is its largest Jaccard index with one of a run's clusters,
    restricted to the cells of the run, averaged over the runs that have some of its cells
    (Hennig 2007). For the vote each cluster of a run stands for the reference cluster with
    which it has most cells in common; a tie of votes is for the reference, else for the lowest
    number.

    Parameters
    ----------
    runs
        ``(n, R)`` integers: the clusters of each run, numbered from 0 in each; -1 for cells that
        a run leaves out.
    reference
        ``(n,)`` integers, -1 for cells without a cluster. None for the run with the largest
        mean adjusted Rand index with the others, the first of equals; it is then not compared
        with itself.

    Returns
    -------
    The comparison.

    Raises
    ------
    ValueError
        Fewer than 2 runs, other shapes or no integers, a run or a reference without any
        cluster, runs that share no cell with the reference.

    References
    ----------
    Hennig 2007 (cluster-wise stability), Hubert & Arabie 1985 (adjusted Rand index).
    """
    runs = _whole(runs, "runs", 2)
    if runs.shape[1] < 2:
        raise ValueError(f"Agreement needs at least 2 runs, got {runs.shape[1]}.")
    empty = np.flatnonzero((runs < 0).all(0))
    if len(empty):
        raise ValueError(f"Run {empty[0]} has no cluster.")
    chosen = None
    if reference is None:
        chosen = _central(runs)
        reference = runs[:, chosen]
    reference = _whole(reference, "reference", 1)
    if len(reference) != len(runs):
        raise ValueError(f"The reference has {len(reference)} cells, the runs have {len(runs)}.")
    if (reference < 0).all():
        raise ValueError("The reference has no cluster.")

    n_found = reference.max() + 1
    jaccard = np.full((n_found, runs.shape[1]), np.nan)
    aligned = np.full(runs.shape, -1, dtype=np.int64)
    rand = np.empty(runs.shape[1])
    for r, run in enumerate(runs.T):
        both = (reference >= 0) & (run >= 0)
        if not both.any():
            raise ValueError(f"Run {r} shares no cell with the reference.")
        rand[r] = adjusted_rand_score(reference[both], run[both])
        aligned[:, r] = _aligned(reference, run, both)
        if r != chosen:
            jaccard[:, r] = _jaccard(reference[both], run[both], n_found)
    consensus, ambiguity = _vote(aligned, (runs >= 0).sum(1), reference, n_found)
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


def _whole(labels: np.ndarray, name: str, ndim: int) -> np.ndarray:
    """Labels as int64, all that is negative as -1."""
    labels = np.asarray(labels)
    if labels.ndim != ndim or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` must be {ndim}-dimensional integers, got {labels.ndim}-dimensional "
            f"{labels.dtype}."
        )
    return np.maximum(labels.astype(np.int64), -1)


def _central(runs: np.ndarray) -> int:
    """The run that agrees best with all others."""
    n_runs = runs.shape[1]
    rand = np.zeros((n_runs, n_runs))
    for i in range(n_runs):
        for j in range(i):
            both = (runs[:, i] >= 0) & (runs[:, j] >= 0)
            if both.any():
                rand[i, j] = rand[j, i] = adjusted_rand_score(runs[both, i], runs[both, j])
    return int(rand.sum(0).argmax())


def _aligned(reference: np.ndarray, run: np.ndarray, both: np.ndarray) -> np.ndarray:
    """A run in the numbers of the reference."""
    shared = _overlap(reference[both], run[both])
    stands_for = np.full(run.max() + 1, -1, dtype=np.int64)
    best = np.asarray(shared.argmax(axis=0)).ravel()
    known = np.unique(run[both])
    stands_for[known] = best[known]
    return np.where(run >= 0, stands_for[run], -1)


def _vote(
    aligned: np.ndarray, n_runs: np.ndarray, reference: np.ndarray, n_found: int
) -> tuple[np.ndarray, np.ndarray]:
    """The majority of each cell, and the share of its runs that say something else."""
    votes = np.zeros((len(aligned), n_found), dtype=np.float32)
    for run in aligned.T:
        said = np.flatnonzero(run >= 0)
        votes[said, run[said]] += 1
    known = np.flatnonzero(reference >= 0)
    # less than a vote
    tied = votes.copy()
    tied[known, reference[known]] += 0.5
    silent = ~votes.any(1)
    consensus = np.where(silent, -1, tied.argmax(1))
    agree = votes[np.arange(len(votes)), consensus]
    share = np.divide(agree, n_runs, out=np.zeros_like(agree), where=n_runs > 0)
    return consensus, np.where(silent, np.nan, 1 - share).astype(np.float32)
