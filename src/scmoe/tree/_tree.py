"""A density tree: splits along directions of markers, leaves, and the clusters of the leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from scmoe._core.settings import shown


@dataclass(frozen=True)
class Tree:
    """A tree of splits; a cell is in one of its leaves, and a leaf in one of its clusters.

    Region 0 holds all cells. Split ``i`` cuts the region ``region[i]``: cells with
    ``x @ weights[i] > threshold[i]`` go to region ``2 i + 2``, the others to ``2 i + 1``. A
    region that no split cuts is a leaf. Splits stand in the order in which they were made, so
    the first ones are a tree, too.

    Parameters
    ----------
    markers
        Names of the markers, ``(d,)`` str.
    region
        Region that each split cuts, ``(s,)`` int32.
    weights
        Direction of each split, unit vectors ``(s, d)`` float32 whose heaviest weight is above 0.
    threshold
        Where the valley is along it, ``(s,)`` float64.
    significance
        Standard deviations between the counts at the valley and at the lower peak, ``(s,)``.
    depth
        Density of the valley as a share of the lower peak, ``(s,)``.
    sizes
        Cells on the low and on the high side, ``(s, 2)`` int64.
    cluster
        Cluster of each region, ``(2 s + 1,)`` int32 from 0, and -1 for regions that are cut;
        cluster 0 is the largest.
    """

    markers: np.ndarray
    region: np.ndarray
    weights: np.ndarray
    threshold: np.ndarray
    significance: np.ndarray
    depth: np.ndarray
    sizes: np.ndarray
    cluster: np.ndarray

    @property
    def n_splits(self) -> int:
        """How many splits there are."""
        return len(self.region)

    @property
    def n_clusters(self) -> int:
        """How many clusters there are."""
        return int(self.cluster.max()) + 1

    @property
    def leaves(self) -> np.ndarray:
        """The regions that no split cuts."""
        return np.setdiff1d(np.arange(2 * self.n_splits + 1), self.region)

    @property
    def parent(self) -> np.ndarray:
        """The split that made each region, ``(2 s + 1,)`` int32; -1 for region 0."""
        return np.concatenate([[-1], np.repeat(np.arange(self.n_splits), 2)]).astype(np.int32)

    def path(self, region: int) -> list[tuple[int, bool]]:
        """The splits from all cells to a region, and whether it is on their high side."""
        steps = []
        while region:
            split, high = divmod(region - 1, 2)
            steps.append((split, bool(high)))
            region = int(self.region[split])
        return steps[::-1]

    def leaves_within(self, region: int) -> np.ndarray:
        """The leaves of a region; a leaf is its own."""
        leaves = self.leaves
        return leaves[self.inside()[region, leaves]]

    def project(self, x: np.ndarray, split: int) -> np.ndarray:
        """Cells ``(n, d)`` along the direction of a split, ``(n,)``, each one by itself."""
        used = np.flatnonzero(self.weights[split])
        return np.einsum("ij,j->i", x[:, used], self.weights[split, used])

    def find_leaves(self, x: np.ndarray) -> np.ndarray:
        """The leaf of each cell of ``(n, d)``, ``(n,)`` int32, by the thresholds."""
        leaf = np.zeros(len(x), dtype=np.int32)
        for split, region in enumerate(self.region):
            cells = np.flatnonzero(leaf == region)
            high = self.project(x[cells], split) > self.threshold[split]
            leaf[cells] = 2 * split + 1 + high
        return leaf

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The cluster of each cell of ``(n, d)``, ``(n,)`` int32."""
        return self.cluster[self.find_leaves(x)]

    def cut(
        self, *, significance: float | None = None, n_clusters: int | None = None
    ) -> np.ndarray:
        """Which clusters become one where the tree is cut coarser.

        Parameters
        ----------
        significance
            Undo the splits below this significance, and all splits within them.
        n_clusters
            Undo the latest splits until this many clusters are left; the splits that were made
            first are those with the clearest valleys.

        Returns
        -------
        New cluster of each cluster, ``(n_clusters,)`` int32 from 0.

        Raises
        ------
        ValueError
            A negative significance, or fewer than 1 or more clusters than there are.
        """
        if (significance is None) == (n_clusters is None):
            raise ValueError("Give either `significance` or `n_clusters` to cut a tree.")
        if significance is not None:
            if not significance >= 0:
                raise ValueError(f"`significance` must be 0 or more, got {significance}.")
            undone = np.flatnonzero(self.significance < significance)
            return self._undo(undone, 1)
        if not 1 <= n_clusters <= self.n_clusters:
            raise ValueError(
                f"The tree has {self.n_clusters} clusters, so it can't be cut at {n_clusters}."
            )
        return self._undo(np.arange(self.n_splits), n_clusters)

    def _undo(self, splits: np.ndarray, least: int) -> np.ndarray:
        """Merge what the splits set apart, the latest first, until ``least`` clusters are left."""
        home = self._homes()
        into = np.arange(self.n_clusters)
        inside = self.inside()
        for split in splits[::-1]:
            if len(np.unique(into)) <= least:
                break
            within = np.flatnonzero(inside[self.region[split], home])
            if len(within):
                into[np.isin(into, into[within])] = into[within].min()
        return np.unique(into, return_inverse=True)[1].astype(np.int32)

    def _homes(self) -> np.ndarray:
        """The largest leaf of each cluster."""
        size = np.concatenate([[np.inf], self.sizes.ravel()])
        home = np.zeros(self.n_clusters, dtype=np.int64)
        for leaf in sorted(self.leaves, key=lambda leaf: size[leaf]):
            home[self.cluster[leaf]] = leaf
        return home

    def inside(self) -> np.ndarray:
        """Whether a region (row) holds another (column), bool."""
        inside = np.eye(2 * self.n_splits + 1, dtype=bool)
        for split in range(self.n_splits - 1, -1, -1):
            inside[self.region[split]] |= inside[2 * split + 1] | inside[2 * split + 2]
        return inside

    def merge(self, into: np.ndarray) -> Tree:
        """The tree with merged clusters, without the splits that set nothing apart any more.

        Parameters
        ----------
        into
            New cluster of each cluster, as :meth:`cut` gives it.
        """
        cluster = np.where(self.cluster < 0, -1, np.asarray(into)[self.cluster])
        inside, leaves = self.inside(), self.leaves
        alike = {}
        for region in range(2 * self.n_splits + 1):
            found = np.unique(cluster[leaves[inside[region, leaves]]])
            if len(found) == 1:
                alike[region] = found[0]
        kept = [i for i, region in enumerate(self.region) if int(region) not in alike]
        number = {0: 0}
        for new, old in enumerate(kept):
            number[2 * old + 1], number[2 * old + 2] = 2 * new + 1, 2 * new + 2
        merged = np.full(2 * len(kept) + 1, -1, dtype=np.int32)
        for old, new in number.items():
            merged[new] = alike.get(old, -1)
        per_split = ("weights", "threshold", "significance", "depth", "sizes")
        return replace(
            self,
            region=np.array([number[int(self.region[i])] for i in kept], dtype=np.int32),
            cluster=merged,
            **{name: getattr(self, name)[kept] for name in per_split},
        )

    def to_record(self) -> dict[str, np.ndarray]:
        """The arrays by name, as h5ad holds them; :meth:`from_record` is the way back."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Tree:
        """Rebuild a tree, which is checked: a file may be damaged.

        Raises
        ------
        ValueError
            Arrays are missing, their sizes do not agree, or they are no tree.
        """
        if not isinstance(record, Mapping):
            raise ValueError(f"The record of the tree is damaged: it is {shown(record)}.")
        missing = [name for name in DTYPES if name not in record]
        if missing:
            raise ValueError(f"The record of the tree is damaged: it lacks {missing}.")
        arrays = {name: _array(record[name], name, dtype) for name, dtype in DTYPES.items()}
        s, d = arrays["region"].size, arrays["markers"].size
        shapes: dict[str, tuple] = dict.fromkeys(DTYPES, (s,))
        shapes |= {"markers": (d,), "weights": (s, d), "sizes": (s, 2), "cluster": (2 * s + 1,)}
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        if wrong:
            raise ValueError(
                f"The record of the tree is damaged: the sizes of {wrong} do not agree."
            )
        markers, region, cluster = arrays["markers"], arrays["region"], arrays["cluster"]
        cut = np.isin(np.arange(2 * s + 1), region)
        named = np.unique(cluster[~cut])
        weights = arrays["weights"]
        heaviest = weights[np.arange(s), np.abs(weights).argmax(1)] if s else weights
        is_tree = (
            len(np.unique(markers)) == d > 0
            and len(np.unique(region)) == s
            and bool(((region >= 0) & (region <= 2 * np.arange(s))).all())
            and bool((heaviest > 0).all())
            and bool((arrays["sizes"] >= 0).all())
            and bool((cluster[cut] == -1).all())
            and np.array_equal(named, np.arange(len(named)))
        )
        if not is_tree:
            raise ValueError("The record of the tree is damaged: it is no tree.")
        return cls(**arrays)


DTYPES = {
    "markers": str,
    "region": np.int32,
    "weights": np.float32,
    "threshold": np.float64,
    "significance": np.float64,
    "depth": np.float64,
    "sizes": np.int64,
    "cluster": np.int32,
}
"""What the arrays of a record hold."""


def _array(value: Any, name: str, dtype: type) -> np.ndarray:
    """An array of a record; ValueError where it holds something else."""
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"The record of the tree is damaged: {name!r}: {error}") from error
    if dtype is str:
        fits = all(isinstance(v, str) for v in found.flat)
    else:
        fits = found.dtype.kind in "iuf" and bool(np.isfinite(found).all())
    if not fits:
        raise ValueError(f"The record of the tree is damaged: {name!r} is {shown(value)}.")
    if dtype is str:
        # text of zarr has a type of its own
        return found.astype(object).astype(str)
    with np.errstate(all="ignore"):
        cast = found.astype(dtype)
    if not np.allclose(cast, found, rtol=1e-6, atol=1e-6):
        raise ValueError(f"The record of the tree is damaged: {name!r} is {shown(value)}.")
    return cast
