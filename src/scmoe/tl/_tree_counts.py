"""How many cells are where in the tree that a model follows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe.get import TREE_LABELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from scmoe.similarity import DensityTree
    from scmoe.tree import Tree


class TreeCounts:
    """Cells of each region of a tree by their expert, gathered block by block.

    Parameters
    ----------
    tree
        The tree.
    n_experts
        Number of experts.
    similarity
        How it was grown.
    cells
        Cells that it was grown on.
    obs
        ``.obs`` of all cells.
    """

    def __init__(
        self,
        tree: Tree,
        n_experts: int,
        similarity: DensityTree,
        cells: AnnData,
        obs: pd.DataFrame,
    ):
        self.tree = tree
        self.counts = np.zeros((2 * tree.n_splits + 1, n_experts), dtype=np.int64)
        self.batch, self.shift = None, None
        if similarity.batch_key is not None:
            moved, number = similarity.aligned(cells, cells.X)
            _, first = np.unique(number, return_index=True)
            # each batch was moved as a whole
            self.shift = cells.X[first] - moved[first]
            self.batch = np.unique(obs[similarity.batch_key].astype(str), return_inverse=True)[1]

    @property
    def of_block(self) -> Callable[..., np.ndarray]:
        """The function that counts the cells of a block, see :func:`_count`; can be pickled."""
        return partial(_count, self.tree, self.counts.shape[1], self.shift)

    def add(self, counts: np.ndarray) -> None:
        """Add the counts of a block."""
        self.counts += counts

    def record(self, names: np.ndarray, categories: list[str]) -> dict[str, Any]:
        """The tree with the sizes of its regions among all cells, and the labels of its clusters.

        Parameters
        ----------
        names
            Label of each expert.
        categories
            Labels in their order.
        """
        tree, size = self.tree, self.counts.sum(1)
        for split in range(tree.n_splits - 1, -1, -1):
            size[tree.region[split]] = size[2 * split + 1] + size[2 * split + 2]
        tree = replace(tree, sizes=size[1:].reshape(-1, 2))
        by_label = self.counts[:, [int(np.flatnonzero(names == c)[0]) for c in categories]]
        labels = np.zeros((tree.n_clusters, len(categories)), dtype=np.int64)
        leaves = tree.leaves
        np.add.at(labels, tree.cluster[leaves], by_label[leaves])
        rows = [str(k) for k in range(tree.n_clusters)]
        return {
            **tree.to_record(),
            TREE_LABELS: pd.DataFrame(labels, index=rows, columns=categories),
        }


def _count(
    tree: Tree,
    n_experts: int,
    shift: np.ndarray | None,
    x: np.ndarray,
    found: dict[str, np.ndarray],
    batch: np.ndarray | None,
) -> np.ndarray:
    """Cells of each region by their expert, ``(n_regions, n_experts)``.

    Parameters
    ----------
    tree, n_experts
        As in :class:`TreeCounts`.
    shift
        How far each batch was moved, ``(n_batches, n_markers)``; None without batches.
    x
        Values of the cells.
    found
        What :func:`scmoe.model._predict.see` says of them.
    batch
        Batch of each, ``(n,)``.
    """
    if shift is not None:
        x = x - shift[batch]
    shape = (2 * tree.n_splits + 1, n_experts)
    pairs = tree.find_leaves(x) * np.int64(n_experts) + found["expert"]
    return np.bincount(pairs, minlength=shape[0] * n_experts).reshape(shape)
