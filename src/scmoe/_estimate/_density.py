"""Clusters on a UMAP: dense regions found by HDBSCAN, or a Gaussian mixture of a given size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.mixture import GaussianMixture

from scmoe._core.compat import same_threads
from scmoe._core.progress import bar, stage
from scmoe._core.settings import check_whole, is_number
from scmoe._estimate._clusters import Found, by_size, check_codes, check_size

if TYPE_CHECKING:
    from collections.abc import Sequence


N_NEIGHBORS = 30
"""Default number of neighbours of the UMAP."""

MIN_SIZE = 5
"""Least number of cells of a cluster in any data; the default of HDBSCAN."""

EVIDENCE_SHARES = (1000, 500, 200, 100, 50, 20)
"""Values of ``min_cluster_size`` for the evidence: one cell in this many."""

N_STARTS = 5
"""Number of random starts of the mixture; the most likely one is kept."""


def density_clusters(
    codes: np.ndarray,
    *,
    min_cluster_size: int | None = None,
    n_neighbors: int | None = None,
    n_components: int = 2,
    min_dist: float = 0.0,
    evidence: Sequence[int] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Found:
    """Find the dense regions of a UMAP by HDBSCAN.

    Parameters
    ----------
    codes
        ``(n, d)`` values in which distances mean something: codes of a VAE, principal
        components, markers.
    min_cluster_size
        Least number of cells of a cluster; smaller groups are noise. None for one cell in 500,
        and at least 30, the number of neighbours of the UMAP (for fewer than 600 cells, one cell
        in 20, and at least 5).
    n_neighbors, n_components, min_dist
        Settings of the UMAP. None for 30 neighbours, or all other cells if there are fewer.
    evidence
        Values of ``min_cluster_size`` to try for the evidence; None for six between one cell in
        1000 and one in 20.
    seed
        Seed of the UMAP; HDBSCAN is not random.
    progress
        Show a progress bar.

    Returns
    -------
    The clusters, with the UMAP as ``embedding``. The table has ``min_cluster_size``,
    ``n_clusters``, ``noise`` (share of the cells) and ``chosen``. With the membership strength p
    of HDBSCAN, ``proba`` of a cell is p + (1 - p) / K in its cluster and (1 - p) / K in all
    others. For noise, ``proba`` is proportional to the inverse distance on the UMAP to the
    nearest of the strongest cells of each cluster.

    Raises
    ------
    ValueError
        NaN or infinite values, fewer than 10 cells, the same values in all cells, settings out
        of range.

    Notes
    -----
    Santos takes max(N / 300, 100) neighbours (eq. 10) and the defaults of UMAP (``min_dist``
    0.1) and HDBSCAN (5 cells): :func:`find_n_clusters` with ``method="santos"``.

    References
    ----------
    Santos, *A mixture-of-experts approach to deep image clustering*; McInnes et al. 2018 (UMAP);
    Campello et al. 2013 (HDBSCAN).
    """
    codes = check_codes(codes)
    n = len(codes)
    size = _default_size(n) if min_cluster_size is None else min_cluster_size
    check_size("min_cluster_size", size, 2, n)
    n_neighbors = N_NEIGHBORS if n_neighbors is None else n_neighbors
    check_whole("n_neighbors", n_neighbors, 2)
    check_whole("n_components", n_components, 1)
    if not (is_number(min_dist) and 0 <= min_dist <= 1):
        raise ValueError(f"`min_dist` must be from 0 to 1, got {min_dist!r}.")
    if evidence is None:
        evidence = [max(n // share, MIN_SIZE) for share in EVIDENCE_SHARES]
    for other in evidence:
        check_size("evidence", other, 2, n)
    sizes = sorted({*evidence, size})
    n_neighbors = min(n_neighbors, n - 1)

    with stage("UMAP", progress=progress):
        embedding = embed(codes, n_neighbors, n_components, min_dist, seed)
    rows = []
    for other in bar(sizes, "HDBSCAN", progress=progress):
        labels, strength = _hdbscan(embedding, other)
        rows.append((other, labels.max() + 1, np.mean(labels < 0), other == size))
        if other == size:
            chosen = labels, strength
    table = pd.DataFrame(rows, columns=["min_cluster_size", "n_clusters", "noise", "chosen"])
    table.index = table.index.astype(str)
    labels, _ = by_size(chosen[0])
    return Found(
        method="density",
        labels=labels,
        proba=_memberships(embedding, labels, chosen[1]),
        table=table,
        settings={
            "min_cluster_size": int(size),
            "n_neighbors": int(n_neighbors),
            "n_components": int(n_components),
            "min_dist": float(min_dist),
        },
        embedding=embedding,
    )


def _default_size(n_cells: int) -> int:
    # a UMAP does not resolve groups smaller than its neighbourhoods
    return max(n_cells // 500, min(N_NEIGHBORS, n_cells // 20), MIN_SIZE)


def embed(
    codes: np.ndarray, n_neighbors: int, n_components: int, min_dist: float, seed: int
) -> np.ndarray:
    """Compute a UMAP, ``(n, n_components)`` float32."""
    from umap import UMAP

    n_components = min(n_components, codes.shape[1])
    model = UMAP(
        n_neighbors=n_neighbors,
        n_components=n_components,
        min_dist=min_dist,
        # the eigenvectors of a very small graph are no useful start
        init="random" if len(codes) < 50 else "spectral",
        random_state=seed,
        n_jobs=1,
    )
    with same_threads():
        embedding = model.fit_transform(codes)
    return np.asarray(embedding, dtype=np.float32)


def _hdbscan(embedding: np.ndarray, min_cluster_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and membership strengths of HDBSCAN."""
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(min_cluster_size=int(min_cluster_size), copy=True).fit(embedding)
    return model.labels_, model.probabilities_


def _memberships(embedding: np.ndarray, labels: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return the memberships of :func:`density_clusters`, ``(n, K)`` float32."""
    from sklearn.neighbors import NearestNeighbors

    n, n_clusters = len(labels), labels.max() + 1
    proba = np.zeros((n, n_clusters), dtype=np.float32)
    if n_clusters == 0:
        return proba
    inside = np.flatnonzero(labels >= 0)
    own = strength[inside]
    proba[inside] = ((1 - own) / n_clusters)[:, None]
    proba[inside, labels[inside]] += own
    outside = np.flatnonzero(labels < 0)
    if len(outside) == 0:
        return proba
    near = np.empty((len(outside), n_clusters))
    for k in range(n_clusters):
        members = labels == k
        strongest = embedding[members & (strength >= strength[members].max())]
        search = NearestNeighbors(n_neighbors=1).fit(strongest)
        distance = search.kneighbors(embedding[outside])[0][:, 0]
        near[:, k] = 1 / np.maximum(distance, np.finfo(np.float32).tiny)
    proba[outside] = near / near.sum(axis=1, keepdims=True)
    return proba


def mixture_clusters(codes: np.ndarray, n_clusters: int, *, seed: int = 0) -> Found:
    """Fit a Gaussian mixture to a UMAP, as in N2D (McConville et al. 2021).

    Parameters
    ----------
    codes
        ``(n, d)`` values in which distances mean something.
    n_clusters
        Number of components.
    seed
        Seed of the UMAP and of the mixture.

    Returns
    -------
    The clusters, with the UMAP as ``embedding`` and the posteriors of the mixture as ``proba``;
    no cell is noise. Components without cells are left out.

    Raises
    ------
    ValueError
        NaN or infinite values, fewer than 10 cells or than clusters, the same values in all
        cells.
    """
    codes = check_codes(codes)
    check_size("n_clusters", n_clusters, 1, len(codes))
    embedding = embed(codes, min(N_NEIGHBORS, len(codes) - 1), 2, 0.0, seed)
    # float64 keeps the covariances of tight clusters positive definite
    mixture = GaussianMixture(n_clusters, n_init=N_STARTS, random_state=seed)
    mixture.fit(embedding.astype(np.float64))
    proba = mixture.predict_proba(embedding.astype(np.float64))
    labels, kept = by_size(proba.argmax(axis=1))
    proba = proba[:, kept]
    total = proba.sum(axis=1, keepdims=True)
    return Found(
        method="mixture",
        labels=labels,
        proba=np.divide(
            proba, total, out=np.full_like(proba, 1 / len(kept)), where=total > 0
        ).astype(np.float32),
        table=pd.DataFrame({"n_clusters": [len(kept)], "chosen": [True]}, index=["0"]),
        settings={"n_clusters": int(n_clusters)},
        embedding=embedding,
    )
