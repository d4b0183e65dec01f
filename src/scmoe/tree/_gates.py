"""Describe populations by gates: thresholds of markers that together select a population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scmoe.tree._tree import Tree

F1_TOLERANCE = 0.01
"""Largest difference between the F1 of the chosen gates and the best F1 reached."""

MAX_OUTSIDE = 0.1
"""Largest share of a population that may lie outside one of its gates."""

MIN_YOUDEN = 0.5
"""Youden's index from which a single marker may replace a weighted sum of markers."""

MAX_GATED_CELLS = 50_000
"""Largest number of cells that gates are chosen on."""

MIN_WRITTEN_WEIGHT = 0.2
"""Markers of a sum with a smaller weight are written as dots."""


@dataclass(frozen=True)
class Gate:
    """Cells between two thresholds of a marker, or of a weighted sum of markers.

    Parameters
    ----------
    weights
        Weight of each marker, the largest first and above 0; a single marker has weight 1.
    low, high
        The thresholds, in the units of the values; one of them may be infinite.
    """

    weights: dict[str, float]
    low: float = -np.inf
    high: float = np.inf

    @property
    def sign(self) -> int:
        """1 or -1 if a single marker is high or low, else 0."""
        if len(self.weights) > 1 or np.isfinite([self.low, self.high]).all():
            return 0
        return 1 if np.isfinite(self.low) else -1

    @property
    def marker(self) -> str:
        """The marker with the largest weight."""
        return next(iter(self.weights))

    def holds(self, x: np.ndarray, markers: np.ndarray) -> np.ndarray:
        """Return which cells ``(n, d)`` are within the gate, ``(n,)`` bool.

        ``markers`` are the names of the ``d`` columns.
        """
        columns = [int(np.flatnonzero(markers == name)[0]) for name in self.weights]
        total = x[:, columns] @ np.array(list(self.weights.values()), dtype=x.dtype)
        return (total > self.low) & (total <= self.high)

    def __str__(self) -> str:
        name = format_weights(self.weights)
        if np.isfinite([self.low, self.high]).all():
            return f"{name} ({self.low:.3g} to {self.high:.3g})"
        bound = f"> {self.low:.3g}" if np.isfinite(self.low) else f"< {self.high:.3g}"
        return (
            f"{name}{'+' if self.sign > 0 else '-'} ({bound})" if self.sign else f"{name} {bound}"
        )


def format_weights(weights: dict[str, float]) -> str:
    """Format a weighted sum of markers, ``0.8 CD4 - 0.6 CD8``, or the name of a single marker.

    Dots stand for markers with a weight below 0.2.
    """
    if len(weights) == 1:
        return next(iter(weights))
    heavy = {name: w for name, w in weights.items() if abs(w) >= MIN_WRITTEN_WEIGHT}
    parts = [f"{'-' if w < 0 else '+'} {abs(w):.2g} {name}" for name, w in heavy.items()]
    return " ".join(parts).removeprefix("+ ") + (" + ..." if len(heavy) < len(weights) else "")


def split_weights(tree: Tree, split: int) -> dict[str, float]:
    """Return the marker weights of a split, the largest first; a single marker has weight 1."""
    used = np.flatnonzero(tree.weights[split])
    used = used[np.argsort(-np.abs(tree.weights[split, used]), kind="stable")]
    if len(used) == 1:
        return {str(tree.markers[used[0]]): 1.0}
    return {str(tree.markers[j]): float(tree.weights[split, j]) for j in used}


def count_labels(tree: Tree, x: np.ndarray, labels: np.ndarray, n_labels: int) -> np.ndarray:
    """Count the cells of each cluster of a tree that have each label.

    Parameters
    ----------
    tree
        The tree.
    x
        Cells, ``(n, d)`` float32.
    labels
        Label of each cell, ``(n,)`` from 0; negative for no label.
    n_labels
        Number of labels.

    Returns
    -------
    ``(n_clusters, n_labels)`` int64.
    """
    some = labels >= 0
    pairs = tree.predict(x[some]).astype(np.int64) * n_labels + labels[some]
    return np.bincount(pairs, minlength=tree.n_clusters * n_labels).reshape(-1, n_labels)


def find_gates(
    tree: Tree, x: np.ndarray, labels: np.ndarray, counts: np.ndarray
) -> list[tuple[list[Gate], float]]:
    """Find the simplest sufficient gates of each label, and the F1 of the cells within them.

    Candidates are the sides of the splits on the paths to the clusters of a label. A split along
    a weighted sum adds a candidate for each of its markers alone, cut where the marker separates
    the two sides best. Candidates are added one by one, always the one that raises the F1 most,
    until the F1 is within 0.01 of the best that is reached; single markers are tried before
    sums. A side that lacks more than a tenth of the cells of a label is no candidate.

    Parameters
    ----------
    tree
        The tree.
    x
        Cells, ``(n, d)`` float32.
    labels
        Label of each cell, ``(n,)`` from 0; negative for no label.
    counts
        Result of :func:`count_labels` for these or other cells: which clusters of the tree have
        which label.

    Returns
    -------
    For each label its gates, the one that raises the F1 most first, and their F1. An empty list
    of gates stands for all cells.
    """
    every, every_label = x, labels
    some = np.linspace(0, len(x) - 1, min(len(x), MAX_GATED_CELLS)).astype(np.int64)
    x, labels = x[some], labels[some]
    leaf = tree.find_leaves(x)
    cluster = tree.cluster[leaf]
    cuts = [_candidate_cuts(tree, x, leaf, split) for split in range(tree.n_splits)]
    found = []
    for k in range(counts.shape[1]):
        clusters = clusters_of(counts, k)
        leaves = tree.leaves[np.isin(tree.cluster[tree.leaves], clusters)]
        path = sorted({split for region in leaves for split, _ in tree.path(int(region))})
        own = labels == k
        inside = own & np.isin(cluster, clusters)
        gates, conditions, of_tree = [], [], []
        for place, (weights, threshold, high) in (
            numbered for split in path for numbered in enumerate(cuts[split])
        ):
            share = high[inside].mean() if inside.any() else 0.5
            if MAX_OUTSIDE < share < 1 - MAX_OUTSIDE:
                continue
            if place == 0:
                of_tree.append(len(gates))
            gates.append(Gate(weights, **{"low" if share > 0.5 else "high": threshold}))
            conditions.append(high if share > 0.5 else ~high)
        chosen = choose_gates(conditions, own, [len(gate.weights) for gate in gates], of_tree)
        line = merge_gates([gates[i] for i in chosen])
        within = [gate.holds(every, tree.markers) for gate in line]
        everything = np.ones(len(every), dtype=bool)
        score = f1(np.logical_and.reduce([everything, *within]), every_label == k)
        found.append((line, score))
    return found


def _candidate_cuts(
    tree: Tree, x: np.ndarray, leaf: np.ndarray, split: int
) -> list[tuple[dict[str, float], float, np.ndarray]]:
    """Return the cuts that can stand for a split: the split itself, and its markers alone.

    Each cut has weights, a threshold, and which cells are above it, ``(n,)`` bool.
    """
    weights = split_weights(tree, split)
    high = tree.project(x, split) > tree.threshold[split]
    found = [(weights, float(tree.threshold[split]), high)]
    if len(weights) > 1:
        cells = np.isin(leaf, tree.leaves_within(int(tree.region[split])))
        for name in weights:
            values = x[:, np.flatnonzero(tree.markers == name)[0]]
            threshold, youden = best_threshold(values[cells], high[cells])
            if youden >= MIN_YOUDEN:
                found.append(({name: 1.0}, threshold, values > threshold))
    return found


def best_threshold(values: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Find the threshold of a marker that separates two groups of cells best.

    Parameters
    ----------
    values
        Values of the marker, ``(n,)``.
    high
        Which cells belong to the first group, ``(n,)``; either group may be the upper one.

    Returns
    -------
    The threshold, midway between two values, and Youden's index: 1 if it separates the groups
    completely.
    """
    n_high = np.count_nonzero(high)
    if n_high in (0, len(high)):
        return 0.0, 0.0
    order = np.argsort(values, kind="stable")
    values, high = values[order], high[order]
    below = np.cumsum(high) / n_high - np.cumsum(~high) / (len(high) - n_high)
    index = np.where(values[1:] > values[:-1], np.abs(below[:-1]), 0)
    cut = index.argmax()
    return float(values[cut] + values[cut + 1]) / 2, float(index[cut])


def clusters_of(counts: np.ndarray, label: int) -> np.ndarray:
    """Return the clusters in which a label is the most common one.

    If there is none, the cluster with most cells of the label.
    """
    own = np.flatnonzero((counts.argmax(1) == label) & (counts[:, label] > 0))
    return own if len(own) else np.array([counts[:, label].argmax()])


def choose_gates(
    conditions: Sequence[np.ndarray],
    own: np.ndarray,
    n_markers: Sequence[int],
    of_tree: Sequence[int],
) -> list[int]:
    """Choose the simplest conditions that together select a group of cells.

    Parameters
    ----------
    conditions
        Which cells meet each condition, ``(n,)`` bool.
    own
        Which cells belong to the group, ``(n,)`` bool.
    n_markers
        Number of markers of each condition.
    of_tree
        Indices of the conditions that are sides of splits, and not substitutes of one.

    Returns
    -------
    Indices of the chosen conditions.
    """

    def score(some: Sequence[int]) -> float:
        return f1(np.logical_and.reduce([np.ones_like(own), *(conditions[i] for i in some)]), own)

    everything = range(len(conditions))
    # a condition that loses some of the cells may fit best at first, and not in the end
    tried = [
        add_greedily(conditions, own, [i for i in everything if n_markers[i] == 1]),
        add_greedily(conditions, own, list(of_tree)),
        add_greedily(conditions, own, list(everything)),
    ]
    scores = [score(some) for some in tried]
    enough = max(scores) - F1_TOLERANCE
    chosen = next(some for some, value in zip(tried, scores, strict=True) if value >= enough)
    # an early condition may have become needless, and a marker may replace a sum
    for i in sorted(chosen, key=lambda i: -n_markers[i]):
        before, after = chosen[: chosen.index(i)], chosen[chosen.index(i) + 1 :]
        simpler = [[j] for j in everything if n_markers[j] == 1 < n_markers[i]]
        options = [[*before, *new, *after] for new in ([], *simpler)]
        scores = [score(some) for some in options]
        if scores[0] >= enough:
            chosen = options[0]
        elif max(scores) >= enough:
            chosen = options[int(np.argmax(scores))]
    return chosen


def add_greedily(conditions: Sequence[np.ndarray], own: np.ndarray, left: list[int]) -> list[int]:
    """Add the condition that raises the F1 most, again and again, until none raises it."""
    chosen: list[int] = []
    cells = np.ones_like(own)
    reached = f1(cells, own)
    while left:
        scores = [f1(cells & conditions[i], own) for i in left]
        best = int(np.argmax(scores))
        if not scores[best] > reached:
            break
        reached = scores[best]
        chosen.append(left.pop(best))
        cells = cells & conditions[chosen[-1]]
    return chosen


def f1(found: np.ndarray, own: np.ndarray) -> float:
    """Return the F1 score of two sets of cells, both bool; NaN if both are empty."""
    total = np.count_nonzero(found) + np.count_nonzero(own)
    return 2 * np.count_nonzero(found & own) / total if total else np.nan


def merge_gates(gates: Sequence[Gate]) -> list[Gate]:
    """Merge the gates of the same single marker into one, at the position of the first."""
    found: dict[str, Gate] = {}
    for gate in gates:
        # several gates of the same sum are kept
        name = gate.marker if len(gate.weights) == 1 else str(gate)
        before = found.get(name, gate)
        found[name] = Gate(gate.weights, max(before.low, gate.low), min(before.high, gate.high))
    return list(found.values())
