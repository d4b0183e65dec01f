"""Cells with everything that a similarity may look at."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.neighbors import kneighbors_graph


@pytest.fixture
def linked(blobs):
    """Blobs with a neighbour graph of random weights, and an embedding."""
    graph = kneighbors_graph(blobs.X, 10)
    graph.data = np.random.default_rng(1).uniform(0.1, 1, graph.nnz)
    blobs.obsp["connectivities"] = sparse.csr_matrix(graph.maximum(graph.T), dtype=np.float32)
    blobs.obsm["X_umap"] = blobs.X[:, :2].copy()
    return blobs
