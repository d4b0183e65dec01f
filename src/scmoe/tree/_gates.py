"""Populations as gates: sides of thresholds that together single a population out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scmoe.tree._tree import Tree

SUFFICIENT = 0.01
"""How far the F1 of gates may be below the best that can be reached."""

ASTRAY = 0.1
"""Share of a population that may lie beyond one of its gates."""

TELLS = 0.5
"""Youden's index by which a marker alone must tell the sides of a sum apart to stand for it."""

MOST_CELLS = 50_000
"""Cells that gates are chosen on."""

LIGHT = 0.2
"""Markers of a sum with a smaller weight are not written."""


@dataclass(frozen=True)
class Gate:
    """Cells between two thresholds of a marker, or of a weighted sum of markers.

    Parameters
    ----------
    weights
        Weight of each marker, the heaviest first and above 0; a single one has weight 1.
    low, high
        The thresholds, in the units of the values; one of them may be infinite.
    """

    weights: dict[str, float]
    low: float = -np.inf
    high: float = np.inf

    @property
    def sign(self) -> int:
        """1 or -1 where a single marker is high or low, else 0."""
        if len(self.weights) > 1 or np.isfinite([self.low, self.high]).all():
            return 0
        return 1 if np.isfinite(self.low) else -1

    @property
    def marker(self) -> str:
        """The heaviest marker."""
        return next(iter(self.weights))

    def holds(self, x: np.ndarray, markers: np.ndarray) -> np.ndarray:
        """Which cells ``(n, d)`` of some markers are within it, ``(n,)`` bool."""
        columns = [int(np.flatnonzero(markers == name)[0]) for name in self.weights]
        total = x[:, columns] @ np.array(list(self.weights.values()), dtype=x.dtype)
        return (total > self.low) & (total <= self.high)

    def __str__(self) -> str:
        name = weighted(self.weights)
        if np.isfinite([self.low, self.high]).all():
            return f"{name} ({self.low:.3g} to {self.high:.3g})"
        bound = f"> {self.low:.3g}" if np.isfinite(self.low) else f"< {self.high:.3g}"
        return (
            f"{name}{'+' if self.sign > 0 else '-'} ({bound})" if self.sign else f"{name} {bound}"
        )


def weighted(weights: dict[str, float]) -> str:
    """Write a sum of markers, ``0.8 CD4 - 0.6 CD8``, or the name of a single one.

    Dots stand for markers with a weight below 0.2.
    """
    if len(weights) == 1:
        return next(iter(weights))
    heavy = {name: w for name, w in weights.items() if abs(w) >= LIGHT}
    parts = [f"{'-' if w < 0 else '+'} {abs(w):.2g} {name}" for name, w in heavy.items()]
    return " ".join(parts).removeprefix("+ ") + (" + ..." if len(heavy) < len(weights) else "")


def split_weights(tree: Tree, split: int) -> dict[str, float]:
    """Weights of the markers of a split, the heaviest first; a single one has weight 1."""
    used = np.flatnonzero(tree.weights[split])
    used = used[np.argsort(-np.abs(tree.weights[split, used]), kind="stable")]
    if len(used) == 1:
        return {str(tree.markers[used[0]]): 1.0}
    return {str(tree.markers[j]): float(tree.weights[split, j]) for j in used}


def count_labels(tree: Tree, x: np.ndarray, labels: np.ndarray, n_labels: int) -> np.ndarray:
    """Cells of each cluster of a tree that have each label.

    Parameters
    ----------
    tree
        The tree.
    x
        Cells, ``(n, d)`` float32.
    labels
        Label of each cell, ``(n,)`` from 0; below 0 for none.
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
    """The simplest sufficient gates of each label, and the F1 of the cells within them.

    Candidates are the sides of the splits on the paths to the clusters of a label, and, in place
    of a split along several markers, of each of them alone, cut where it tells the two sides
    apart best. They are added one by one, that which raises the F1 most first, until it is within
    0.01 of the best that can be reached; single markers are tried before sums. A side that more
    than a tenth of the cells of a label are not on is no candidate.

    Parameters
    ----------
    tree
        The tree.
    x
        Cells, ``(n, d)`` float32.
    labels
        Label of each cell, ``(n,)`` from 0; below 0 for none.
    counts
        What :func:`count_labels` says, of these cells or of others; it tells which clusters of
        the tree are of which label.

    Returns
    -------
    For each label its gates, the most telling first, and their F1; no gates are all cells.
    """
    every, every_label = x, labels
    some = np.linspace(0, len(x) - 1, min(len(x), MOST_CELLS)).astype(np.int64)
    x, labels = x[some], labels[some]
    leaf = tree.find_leaves(x)
    cluster = tree.cluster[leaf]
    cuts = [_cuts(tree, x, leaf, split) for split in range(tree.n_splits)]
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
            if ASTRAY < share < 1 - ASTRAY:
                continue
            if place == 0:
                of_tree.append(len(gates))
            gates.append(Gate(weights, **{"low" if share > 0.5 else "high": threshold}))
            conditions.append(high if share > 0.5 else ~high)
        chosen = choose(conditions, own, [len(gate.weights) for gate in gates], of_tree)
        line = merged([gates[i] for i in chosen])
        within = [gate.holds(every, tree.markers) for gate in line]
        everything = np.ones(len(every), dtype=bool)
        score = f1(np.logical_and.reduce([everything, *within]), every_label == k)
        found.append((line, score))
    return found


def _cuts(
    tree: Tree, x: np.ndarray, leaf: np.ndarray, split: int
) -> list[tuple[dict[str, float], float, np.ndarray]]:
    """A split, and each marker of a sum in its place: weights, threshold, and who is above it."""
    weights = split_weights(tree, split)
    high = tree.project(x, split) > tree.threshold[split]
    found = [(weights, float(tree.threshold[split]), high)]
    if len(weights) > 1:
        cells = np.isin(leaf, tree.leaves_within(int(tree.region[split])))
        for name in weights:
            values = x[:, np.flatnonzero(tree.markers == name)[0]]
            threshold, tells = best_threshold(values[cells], high[cells])
            if tells >= TELLS:
                found.append(({name: 1.0}, threshold, values > threshold))
    return found


def best_threshold(values: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Cut a marker such that two groups of cells are on its two sides.

    Parameters
    ----------
    values
        Values of the marker, ``(n,)``.
    high
        Which cells are of the one group, ``(n,)``; either group may be the upper one.

    Returns
    -------
    The threshold, midway between two values, and how well it tells the groups apart: Youden's
    index, 1 if it does completely.
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
    """Clusters of a tree most of whose cells have a label, or else that with most of its cells."""
    own = np.flatnonzero((counts.argmax(1) == label) & (counts[:, label] > 0))
    return own if len(own) else np.array([counts[:, label].argmax()])


def choose(
    conditions: Sequence[np.ndarray],
    own: np.ndarray,
    n_markers: Sequence[int],
    of_tree: Sequence[int],
) -> list[int]:
    """The simplest conditions that together fit a group of cells.

    Parameters
    ----------
    conditions
        Which cells meet each condition, ``(n,)`` bool.
    own
        Which cells are of the group, ``(n,)`` bool.
    n_markers
        Markers of each condition.
    of_tree
        Which of the conditions are sides of splits, and stand for nothing else.
    """

    def score(some: Sequence[int]) -> float:
        return f1(np.logical_and.reduce([np.ones_like(own), *(conditions[i] for i in some)]), own)

    everything = range(len(conditions))
    # what loses some of the cells may fit best at first, and not in the end
    tried = [
        add_greedily(conditions, own, [i for i in everything if n_markers[i] == 1]),
        add_greedily(conditions, own, list(of_tree)),
        add_greedily(conditions, own, list(everything)),
    ]
    scores = [score(some) for some in tried]
    enough = max(scores) - SUFFICIENT
    chosen = next(some for some, value in zip(tried, scores, strict=True) if value >= enough)
    # an early one may have become needless, and a sum one that a marker can stand for
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
    """Conditions in the order in which they raise the F1 most, until none raises it."""
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
    """F1 of a set of cells for another one, both bool; NaN where both are empty."""
    total = np.count_nonzero(found) + np.count_nonzero(own)
    return 2 * np.count_nonzero(found & own) / total if total else np.nan


def merged(gates: Sequence[Gate]) -> list[Gate]:
    """Gates with those of the same single marker as one, at the place of the first."""
    found: dict[str, Gate] = {}
    for gate in gates:
        # of a sum there may be several
        name = gate.marker if len(gate.weights) == 1 else str(gate)
        before = found.get(name, gate)
        found[name] = Gate(gate.weights, max(before.low, gate.low), min(before.high, gate.high))
    return list(found.values())
