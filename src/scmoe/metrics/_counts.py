"""Contingency table of populations and clusters, from which scores are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from natsort import natsorted

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Counts:
    """Number of scored cells in each population and cluster."""

    populations: list[Any]
    """Labels of the populations in natural order."""
    clusters: list[Any]
    """Labels of the clusters with scored cells, in natural order."""
    table: NDArray[np.int64]
    """Shape ``(n_populations, n_clusters)``."""
    sizes: NDArray[np.int64]
    """Cells of each population, including cells without a cluster, which no row counts."""

    @property
    def n_cells(self) -> int:
        """Number of scored cells, including cells without a cluster."""
        return int(self.sizes.sum())

    @property
    def cluster_sizes(self) -> NDArray[np.int64]:
        """Number of scored cells in each cluster."""
        return self.table.sum(axis=0)

    def f1(self) -> NDArray[np.float64]:
        """Compute the F1 of every population with every cluster, ``2 n_ck / (n_c + n_k)``."""
        return 2.0 * self.table / (self.sizes[:, None] + self.cluster_sizes[None, :])

    @classmethod
    def of(
        cls,
        labels_true: ArrayLike,
        labels_pred: ArrayLike,
        ignore: Any = None,
        min_size: int = 0,
    ) -> Counts:
        """Count the cells; see :func:`scmoe.metrics.f1_table` for arguments and errors."""
        true, populations = _factorize(labels_true, "labels_true")
        pred, clusters = _factorize(labels_pred, "labels_pred")
        if len(true) != len(pred):
            raise ValueError(
                f"labels_true has {len(true)} cells and labels_pred has {len(pred)}: "
                "both must name the same cells in the same order."
            )
        if len(true) == 0:
            raise ValueError("There is nothing to score: labels_true and labels_pred are empty.")
        if min_size < 0:
            raise ValueError(f"min_size must be 0 or more, got {min_size}.")

        ignored = _as_collection(ignore)
        sizes = np.bincount(true[true >= 0], minlength=len(populations))
        kept = np.array(
            [
                label not in ignored and size >= min_size
                for label, size in zip(populations, sizes, strict=True)
            ],
            dtype=bool,
        )
        if not kept.any():
            raise ValueError(
                "There is nothing to score: every cell of labels_true is without a label, "
                f"has an ignored label ({sorted(map(str, ignored))}), or belongs to a "
                f"population of fewer than min_size={min_size} cells."
            )

        # the extra last entry keeps the code -1
        new_code = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
        true = new_code[true]
        scored = true >= 0
        true, pred = true[scored], pred[scored]
        n_populations = int(kept.sum())
        sizes = np.bincount(true, minlength=n_populations)

        placed = pred >= 0
        flat = true[placed] * len(clusters) + pred[placed]
        table = np.bincount(flat, minlength=n_populations * len(clusters)).reshape(
            n_populations, len(clusters)
        )
        occupied = table.sum(axis=0) > 0
        return cls(
            populations=[label for label, keep in zip(populations, kept, strict=True) if keep],
            clusters=[label for label, keep in zip(clusters, occupied, strict=True) if keep],
            table=table[:, occupied].astype(np.int64),
            sizes=sizes.astype(np.int64),
        )


def _factorize(labels: ArrayLike, name: str) -> tuple[NDArray[np.intp], list[Any]]:
    """Return codes of the naturally ordered labels, -1 for a cell without a label."""
    if not isinstance(labels, pd.Series | pd.Index | pd.Categorical | np.ndarray):
        labels = pd.Series(list(labels), dtype=object) if not np.isscalar(labels) else labels
    if getattr(labels, "ndim", 0) != 1:
        raise ValueError(f"{name} must be one-dimensional: one label for each cell.")
    codes, found = pd.factorize(labels)
    found = list(found)
    ordered = natsorted(range(len(found)), key=lambda i: str(found[i]))
    rank = np.empty(len(found) + 1, dtype=np.intp)
    rank[ordered] = np.arange(len(found))
    rank[-1] = -1
    return rank[codes], [found[i] for i in ordered]


def _as_collection(ignore: Any) -> Collection[Any]:
    if ignore is None:
        return []
    if isinstance(ignore, str) or np.isscalar(ignore):
        return [ignore]
    return list(ignore)
