"""The paper's two similarities, which compare cells by an embedding, and embeddings for them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix, identity

from scmoe._core.cells import check_adata, layer_values
from scmoe._core.compat import rep_key, same_threads
from scmoe._core.progress import stage
from scmoe._core.random import as_seed
from scmoe._core.settings import POSITIVE, TEXT, setting, whole
from scmoe._core.text import listing
from scmoe._core.values import check_image_shape, check_matrix
from scmoe.similarity._base import Similarity
from scmoe.similarity._target import Pairs, Target, edges_at, pairs_of_edges

if TYPE_CHECKING:
    from anndata import AnnData

IMAGES_AT_A_TIME = 4096
"""Number of images whose gradients are computed together."""


def embedding_of(adata: AnnData, profile: np.ndarray, use_rep: str) -> np.ndarray:
    """Return the embedding that distances are measured in, checked, ``(n_obs, d)`` float32."""
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
    """Two cells are alike if one is among the nearest neighbours of the other in the batch.

    The similarity of the paper's image experiments (10 neighbours in a batch of 128). A
    population with fewer cells in a batch than ``n_neighbors`` is joined to others: rare cells
    need a larger batch, or another similarity.

    Parameters
    ----------
    use_rep
        Key of the embedding in ``.obsm``, or ``"X"`` for the values of the model.
    n_neighbors
        Number of neighbours within the batch.
    """

    use_rep: str = setting(TEXT, "X_umap")
    n_neighbors: int = setting(whole(1), 10)

    def bind(self, adata: AnnData, profile: np.ndarray, *, progress: bool = False) -> KnnTarget:
        """Read the embedding; raise KeyError if it is missing."""
        return KnnTarget(embedding_of(adata, profile, self.use_rep), self.n_neighbors)


class KnnTarget(Target):
    """Nearest neighbours in an embedding ``(n_obs, d)``, within the batch."""

    def __init__(self, embedding: np.ndarray, n_neighbors: int):
        self.embedding = embedding
        self.n_neighbors = n_neighbors

    def _graph(self, cells: np.ndarray) -> csr_matrix:
        from sklearn.neighbors import kneighbors_graph

        # a batch that was drawn with replacement has copies of cells, which are not neighbours
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
        """Return 1 where one cell is a neighbour of the other, and on the diagonal; else 0."""
        similarity = self._graph(cells).toarray()
        np.fill_diagonal(similarity, 1.0)
        return similarity

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return 1 for pairs of neighbours, and for a position with itself; else 0."""
        return edges_at(self._graph(cells), pairs)

    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Return every pair of neighbours, and random pairs for the other pairs."""
        return pairs_of_edges(self._graph(cells), rng)


@dataclass(frozen=True, kw_only=True)
class Threshold(Similarity):
    """Two cells are alike if they are closer than a distance in an embedding.

    The similarity of the paper's synthetic and CyTOF experiments (distance 2 on a UMAP).

    Parameters
    ----------
    use_rep
        Key of the embedding in ``.obsm``, or ``"X"`` for the values of the model.
    distance
        Euclidean distance below which two cells are alike, in units of the embedding.
    """

    use_rep: str = setting(TEXT, "X_umap")
    distance: float = setting(POSITIVE, 2.0)

    def bind(
        self, adata: AnnData, profile: np.ndarray, *, progress: bool = False
    ) -> ThresholdTarget:
        """Read the embedding; raise KeyError if it is missing."""
        return ThresholdTarget(embedding_of(adata, profile, self.use_rep), self.distance)


class ThresholdTarget(Target):
    """Pairs that are closer than a distance in an embedding ``(n_obs, d)``."""

    def __init__(self, embedding: np.ndarray, distance: float):
        self.embedding = embedding
        self.distance = distance

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Return 1 where two cells are closer than the distance, else 0."""
        from sklearn.metrics import pairwise_distances

        near = pairwise_distances(self.embedding[cells]) < self.distance
        return near.astype(np.float32)

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return 1 for the pairs that are closer than the distance, else 0."""
        points = self.embedding[cells]
        near = np.linalg.norm(points[pairs[0]] - points[pairs[1]], axis=1) < self.distance
        return near.astype(np.float32)


def umap(
    adata: AnnData,
    *,
    metric: str = "canberra",
    use_rep: str = "X",
    n_components: int = 2,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    key_added: str = "X_umap",
    random_state: int | np.random.Generator = 0,
    progress: bool = True,
) -> None:
    """Compute a UMAP with any metric, for the similarities of the paper.

    Parameters
    ----------
    adata
        The cells. With ``use_rep="X"`` all variables are used: subset to markers first.
    metric
        Any metric of umap-learn. The paper uses Canberra and correlation for CyTOF.
    use_rep
        ``"X"`` or a key of ``.obsm``.
    n_components, n_neighbors, min_dist
        As in umap-learn, with its defaults.
    key_added
        Key of the result in ``.obsm``.
    random_state
        Random seed; the same seed gives the same embedding.
    progress
        Show that UMAP is running.

    Returns
    -------
    None. Writes ``.obsm[key_added]``, ``(n_obs, n_components)`` float32.

    Raises
    ------
    KeyError
        ``use_rep`` is not in ``.obsm``.
    ValueError
        A metric that umap-learn does not have; NaN or infinite values; fewer than 3 cells; a
        view, or backed cells.
    """
    from umap import UMAP
    from umap.distances import named_distances

    check_adata(adata)
    if not callable(metric) and metric not in named_distances:
        meant = get_close_matches(str(metric), named_distances) or sorted(named_distances)
        raise ValueError(
            f"`metric` must be a metric of umap-learn, such as {listing(meant)}; got {metric!r}."
        )
    key = rep_key(adata, use_rep)
    if use_rep != "X" and key not in adata.obsm:
        raise KeyError(f"Did not find {use_rep!r} in `.obsm`, which holds {list(adata.obsm)}.")
    x = layer_values(adata, None) if use_rep == "X" else np.asarray(adata.obsm[key])
    values = x.data if hasattr(x, "tocsr") else x
    if not np.isfinite(values).all():
        raise ValueError(f"{use_rep!r} holds NaN or infinite values.")
    if adata.n_obs < 3:
        raise ValueError(f"UMAP needs at least 3 cells, got {adata.n_obs}.")
    model = UMAP(
        metric=metric,
        n_components=n_components,
        n_neighbors=min(n_neighbors, adata.n_obs - 1),
        min_dist=min_dist,
        random_state=as_seed(random_state),
        n_jobs=1,
    )
    with same_threads(), stage("UMAP", progress=progress):
        embedding = model.fit_transform(x)
    adata.obsm[key_added] = np.asarray(embedding, dtype=np.float32)


def image_gradients(
    adata: AnnData,
    *,
    straighten: bool = True,
    n_components: int = 64,
    key_added: str = "X_gradients",
    random_state: int | np.random.Generator = 0,
) -> None:
    """Describe images by the directions of their edges instead of by their pixels.

    The pixels of two images of the same digit differ if one digit leans or is shifted by a pixel.
    So the images are straightened, the directions of their edges are counted around the points of
    a grid (histograms of oriented gradients), and the principal components of the counts are the
    embedding. Labels are not used.

    Parameters
    ----------
    adata
        Images, as from :func:`scmoe.io.from_array`.
    straighten
        Remove the slant of the images. Useful for handwriting, harmful for objects.
    n_components
        Number of principal components.
    key_added
        Key of the result in ``.obsm``.
    random_state
        Seed of the principal components.

    Returns
    -------
    None. Writes ``.obsm[key_added]``, ``(n_obs, n_components)`` float32.

    Raises
    ------
    KeyError
        ``.uns["image_shape"]`` is missing.
    ValueError
        The shape does not fit the variables; NaN or infinite values; fewer images than
        components; a view, or backed cells.

    Examples
    --------
    >>> adata = scmoe.datasets.mnist()
    >>> scmoe.similarity.image_gradients(adata)
    >>> sc.pp.neighbors(adata, use_rep="X_gradients")
    >>> scmoe.tl.cluster(adata, n_clusters=15)
    """
    import torch
    from sklearn.decomposition import PCA

    from scmoe import nn

    check_adata(adata)
    shape = check_image_shape(adata)
    x = layer_values(adata, None)
    check_matrix(x, adata.var_names, "`adata.X`")
    if adata.n_obs < n_components:
        raise ValueError(
            f"{n_components} components need as many images, got {adata.n_obs}; lower "
            "`n_components`."
        )
    parts = []
    for start in range(0, adata.n_obs, IMAGES_AT_A_TIME):
        images = torch.from_numpy(
            np.asarray(x[start : start + IMAGES_AT_A_TIME], dtype=np.float32)
        )
        images = nn.straighten(images, shape) if straighten else images
        parts.append(nn.oriented_gradients(images, shape).numpy())
    gradients = np.concatenate(parts)
    pca = PCA(min(n_components, gradients.shape[1]), random_state=as_seed(random_state))
    adata.obsm[key_added] = pca.fit_transform(gradients).astype(np.float32)
