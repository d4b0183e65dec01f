"""A tree that was made by hand, and cells that it was made for."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from scmoe.tree import Tree, count_labels

MARKERS = ["CD3", "CD4", "CD8", "CD19"]

POPULATIONS = {
    # leaf 4 is cluster 0, leaf 6 is 1, leaves 5 and 7 are 2, and leaf 8 is 3
    "T4": (40, [2, 3, 0, 0]),
    "T8": (30, [2, 0, 4, 0]),
    "rest": (10, [2, 0, 0, 0]),
    "rest ": (15, [0, 0, 0, 0]),
    "B": (5, [0, 0, 0, 2]),
}
"""Cells of each, and their values; both that are called the rest are one."""


def make_tree() -> Tree:
    """CD3, then CD4 and CD8 where it is high, and a sum of markers where it is low."""
    return Tree(
        markers=np.array(MARKERS),
        region=np.array([0, 2, 3, 1], dtype=np.int32),
        weights=np.array(
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, -0.6, 0, 0.8]], dtype=np.float32
        ),
        threshold=np.array([1.0, 2.0, 3.0, 1.0]),
        significance=np.array([9.0, 8.0, 4.0, 5.0]),
        depth=np.array([0.1, 0.2, 0.5, 0.3]),
        sizes=np.array([[20, 80], [40, 40], [10, 30], [15, 5]]),
        cluster=np.array([-1, -1, -1, -1, 0, 2, 1, 2, 3], dtype=np.int32),
    )


def make_stump() -> Tree:
    """A tree without splits: one population."""
    return Tree(
        markers=np.array(MARKERS),
        region=np.zeros(0, dtype=np.int32),
        weights=np.zeros((0, 4), dtype=np.float32),
        threshold=np.zeros(0),
        significance=np.zeros(0),
        depth=np.zeros(0),
        sizes=np.zeros((0, 2), dtype=np.int64),
        cluster=np.zeros(1, dtype=np.int32),
    )


def make_clustered(tree: Tree | None = None) -> AnnData:
    """Cells of the populations with the record of a clustering that follows the tree.

    Labels are the names of the populations. There is no model.
    """
    tree = make_tree() if tree is None else tree
    x = np.repeat(
        np.array([values for _, values in POPULATIONS.values()], dtype=np.float32),
        [n for n, _ in POPULATIONS.values()],
        axis=0,
    )
    names = [name.strip() for name, (n, _) in POPULATIONS.items() for _ in range(n)]
    labels = pd.Categorical(names if tree.n_splits else ["all"] * len(names))
    counts = count_labels(tree, x, labels.codes, len(labels.categories))
    adata = AnnData(
        x,
        obs=pd.DataFrame({"scmoe": labels}, index=[f"cell_{i}" for i in range(len(x))]),
        var=pd.DataFrame(index=MARKERS),
    )
    adata.uns["scmoe"] = {
        "params": {"model": "moe-sim-vae", "similarity": {"name": "DensityTree"}},
        "markers": np.array(MARKERS),
        "version": "0.1.0",
        "tree": {
            **tree.to_record(),
            "labels": pd.DataFrame(
                counts,
                index=[str(k) for k in range(tree.n_clusters)],
                columns=list(labels.categories),
            ),
        },
    }
    return adata
