"""How many cells are where in the tree that a model follows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe.get._tree import LABELS

if TYPE_CHECKING:
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
        self.batch = None
        if similarity.batch_key is not None:
            moved, number = similarity.aligned(cells, cells.X)
            _, first = np.unique(number, return_index=True)
            # each batch was moved as a whole
            self.shift = cells.X[first] - moved[first]
            self.batch = np.unique(obs[similarity.batch_key].astype(str), return_inverse=True)[1]

    def add(self, place: slice, x: np.ndarray, expert: np.ndarray) -> None:
        """Count the cells of a block, ``(n, n_markers)``, with their experts, ``(n,)``."""
        if self.batch is not None:
            x = x - self.shift[self.batch[place]]
        pairs = self.tree.find_leaves(x) * np.int64(self.counts.shape[1]) + expert
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

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
        return {**tree.to_record(), LABELS: pd.DataFrame(labels, index=rows, columns=categories)}
