"""A density tree: splits along directions of markers, leaves, and the clusters of the leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from scmoe._core.settings import shown


@dataclass(frozen=True)
class Tree:
    """A tree of splits: each cell is in one leaf, and each leaf in one cluster.

    Region 0 holds all cells. Split ``i`` cuts the region ``region[i]``: cells with
    ``x @ weights[i] > threshold[i]`` go to region ``2 i + 2``, the others to ``2 i + 1``. A
    region that no split cuts is a leaf. Splits are stored in the order in which they were made,
    so the first few splits are a tree, too.

    Parameters
    ----------
    markers
        Names of the markers, ``(d,)`` str.
    region
        Region that each split cuts, ``(s,)`` int32.
    weights
        Direction of each split, unit vectors ``(s, d)`` float32; the largest weight is positive.
    threshold
        Position of the valley along the direction, ``(s,)`` float64.
    significance
        Difference of the counts at the valley and at the lower peak, in standard deviations,
        ``(s,)``.
    depth
        Density of the valley as a share of that of the lower peak, ``(s,)``.
    sizes
        Number of cells on the low and on the high side, ``(s, 2)`` int64.
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
        """Number of splits."""
        return len(self.region)

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
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
        """Return the splits from all cells to a region, and whether it is on their high side."""
        steps = []
        while region:
            split, high = divmod(region - 1, 2)
            steps.append((split, bool(high)))
            region = int(self.region[split])
        return steps[::-1]

    def leaves_within(self, region: int) -> np.ndarray:
        """Return the leaves within a region; a leaf is within itself."""
        leaves = self.leaves
        return leaves[self.inside()[region, leaves]]

    def project(self, x: np.ndarray, split: int) -> np.ndarray:
        """Project each cell ``(n, d)`` by itself on the direction of a split, ``(n,)``."""
        used = np.flatnonzero(self.weights[split])
        return np.einsum("ij,j->i", x[:, used], self.weights[split, used])

    def find_leaves(self, x: np.ndarray) -> np.ndarray:
        """Return the leaf of each cell ``(n, d)`` by the thresholds, ``(n,)`` int32."""
        leaf = np.zeros(len(x), dtype=np.int32)
        for split, region in enumerate(self.region):
            cells = np.flatnonzero(leaf == region)
            high = self.project(x[cells], split) > self.threshold[split]
            leaf[cells] = 2 * split + 1 + high
        return leaf

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the cluster of each cell ``(n, d)``, ``(n,)`` int32."""
        return self.cluster[self.find_leaves(x)]

    def cut(
        self, *, significance: float | None = None, n_clusters: int | None = None
    ) -> np.ndarray:
        """Return which clusters are merged if the tree is cut at a coarser level.

        Parameters
        ----------
        significance
            Undo the splits below this significance, and all splits within them.
        n_clusters
            Undo the latest splits until this many clusters are left; the first splits have the
            clearest valleys.

        Returns
        -------
        New cluster of each cluster, ``(n_clusters,)`` int32 from 0.

        Raises
        ------
        ValueError
            A negative significance, or a number of clusters below 1 or above that of the tree.
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

    def _undo(self, splits: np.ndarray, n_left: int) -> np.ndarray:
        """Merge the sides of splits, the latest first, until ``n_left`` clusters are left."""
        home = self._homes()
        into = np.arange(self.n_clusters)
        inside = self.inside()
        for split in splits[::-1]:
            if len(np.unique(into)) <= n_left:
                break
            within = np.flatnonzero(inside[self.region[split], home])
            if len(within):
                into[np.isin(into, into[within])] = into[within].min()
        return np.unique(into, return_inverse=True)[1].astype(np.int32)

    def _homes(self) -> np.ndarray:
        """Return the largest leaf of each cluster."""
        size = np.concatenate([[np.inf], self.sizes.ravel()])
        home = np.zeros(self.n_clusters, dtype=np.int64)
        for leaf in sorted(self.leaves, key=lambda leaf: size[leaf]):
            home[self.cluster[leaf]] = leaf
        return home

    def inside(self) -> np.ndarray:
        """Return whether a region (row) contains another (column), bool."""
        inside = np.eye(2 * self.n_splits + 1, dtype=bool)
        for split in range(self.n_splits - 1, -1, -1):
            inside[self.region[split]] |= inside[2 * split + 1] | inside[2 * split + 2]
        return inside

    def merge(self, into: np.ndarray) -> Tree:
        """Merge clusters, and remove the splits that no longer separate any.

        Parameters
        ----------
        into
            New cluster of each cluster, as returned by :meth:`cut`.
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
        """Return the arrays by name, as h5ad stores them, for :meth:`from_record`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Tree:
        """Rebuild a tree from :meth:`to_record`, and check it.

        Raises
        ------
        ValueError
            A damaged record: arrays are missing, their sizes do not agree, or they do not
            describe a tree.
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
            raise ValueError(
                "The record of the tree is damaged: its arrays do not describe a tree."
            )
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
"""Types of the arrays of a record."""


def _array(value: Any, name: str, dtype: type) -> np.ndarray:
    """Convert an array of a record to its type; raise ValueError if its values do not fit."""
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
        # zarr stores text in a type of its own
        return found.astype(object).astype(str)
    with np.errstate(all="ignore"):
        cast = found.astype(dtype)
    if not np.allclose(cast, found, rtol=1e-6, atol=1e-6):
        raise ValueError(f"The record of the tree is damaged: {name!r} is {shown(value)}.")
    return cast
