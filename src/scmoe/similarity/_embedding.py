"""The paper's two similarities: neighbours within the batch, and a distance threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix, identity

from scmoe._core.compat import rep_key
from scmoe.similarity._base import Pairs, Similarity, Target, edges_at, from_edges

if TYPE_CHECKING:
    from anndata import AnnData


def embedding_of(adata: AnnData, profile: np.ndarray, use_rep: str) -> np.ndarray:
    """The values to measure distances in, checked, ``(n_obs, d)`` float32."""
    if use_rep == "X":
        return profile
    key = rep_key(adata, use_rep)
    if key not in adata.obsm:
        raise KeyError(
            f"Did not find {use_rep!r} in `.obsm`, which holds {list(adata.obsm)}; "
            "`scmoe.similarity.umap(adata)` makes a UMAP."
        )
    embedding = np.asarray(adata.obsm[key], dtype=np.float32)
    if not np.isfinite(embedding).all():
        raise ValueError(f"`.obsm[{key!r}]` holds NaN or infinite values.")
    return embedding


@dataclass(frozen=True, kw_only=True)
class Knn(Similarity):
    """Cells are alike when one is among the nearest neighbours of the other in the batch.

    The similarity of the paper's image experiments (10 neighbours in a batch of 128). A
    population with fewer cells in a batch than neighbours is joined to others: rare cells
    need a larger batch, or another similarity.

    Parameters
    ----------
    use_rep
        Embedding in ``.obsm``, or ``"X"``.
    n_neighbors
        Neighbours within the batch.
    """

    use_rep: str = "X_umap"
    n_neighbors: int = 10

    def __post_init__(self):
        if self.n_neighbors < 1:
            raise ValueError(f"`n_neighbors` must be at least 1, got {self.n_neighbors}.")

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> KnnTarget:
        """Look the embedding up; KeyError where it is missing."""
        return KnnTarget(embedding_of(adata, profile, self.use_rep), self.n_neighbors)


class KnnTarget(Target):
    """Nearest neighbours of an embedding ``(n_obs, d)`` within the batch."""

    def __init__(self, embedding: np.ndarray, n_neighbors: int):
        self.embedding = embedding
        self.n_neighbors = n_neighbors

    def _graph(self, cells: np.ndarray) -> csr_matrix:
        from sklearn.neighbors import kneighbors_graph

        # a batch that was drawn with replacement has copies, which are no neighbours
        unique, number = np.unique(cells, return_inverse=True)
        k = min(self.n_neighbors, len(unique) - 1)
        graph = identity(len(unique), dtype=np.float32, format="csr")
        if k > 0:
            graph = graph.maximum(kneighbors_graph(self.embedding[unique], k))
        graph = graph.maximum(graph.T).tocsr()[number][:, number]
        graph.setdiag(0)
        graph.eliminate_zeros()
        return csr_matrix(graph, dtype=np.float32)

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """1 where one cell is a neighbour of the other, and on the diagonal."""
        similarity = self._graph(cells).toarray()
        np.fill_diagonal(similarity, 1.0)
        return similarity

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """1 for pairs of neighbours, and for a position with itself."""
        return edges_at(self._graph(cells), pairs)

    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Every pair of neighbours, and random pairs for the others."""
        return from_edges(self._graph(cells), rng)


@dataclass(frozen=True, kw_only=True)
class Threshold(Similarity):
    """Cells are alike when they are nearer than a distance in an embedding.

    The similarity of the paper's synthetic and CyTOF experiments (distance 2 on a UMAP).

    Parameters
    ----------
    use_rep
        Embedding in ``.obsm``, or ``"X"``.
    distance
        Euclidean distance below which two cells are alike.
    """

    use_rep: str = "X_umap"
    distance: float = 2.0

    def __post_init__(self):
        if not self.distance > 0:
            raise ValueError(f"`distance` must be positive, got {self.distance}.")

    def bind(
        self, adata: AnnData, profile: np.ndarray, *, progress: bool = False
    ) -> ThresholdTarget:
        """Look the embedding up; KeyError where it is missing."""
        return ThresholdTarget(embedding_of(adata, profile, self.use_rep), self.distance)


class ThresholdTarget(Target):
    """Pairs of an embedding ``(n_obs, d)`` that are nearer than a distance."""

    def __init__(self, embedding: np.ndarray, distance: float):
        self.embedding = embedding
        self.distance = distance

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """1 where two cells are nearer than the distance."""
        from sklearn.metrics import pairwise_distances

        near = pairwise_distances(self.embedding[cells]) < self.distance
        return near.astype(np.float32)

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """1 for the pairs that are nearer than the distance."""
        points = self.embedding[cells]
        near = np.linalg.norm(points[pairs[0]] - points[pairs[1]], axis=1) < self.distance
        return near.astype(np.float32)
