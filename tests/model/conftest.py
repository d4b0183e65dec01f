"""Cells with a neighbour graph, and training without a progress bar."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.neighbors import kneighbors_graph


@pytest.fixture
def linked(blobs):
    """Blobs with a neighbour graph."""
    graph = kneighbors_graph(blobs.X, 10)
    blobs.obsp["connectivities"] = sparse.csr_matrix(graph.maximum(graph.T), dtype=np.float32)
    return blobs
