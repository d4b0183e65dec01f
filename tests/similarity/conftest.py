"""Cells with everything that a similarity may look at."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def linked(linked):
    """The shared blobs, with random weights in the graph and an embedding."""
    graph = linked.obsp["connectivities"]
    graph.data = np.random.default_rng(1).uniform(0.1, 1, graph.nnz).astype(np.float32)
    linked.obsp["connectivities"] = graph.maximum(graph.T).tocsr()
    linked.obsm["X_umap"] = linked.X[:, :2].copy()
    return linked
