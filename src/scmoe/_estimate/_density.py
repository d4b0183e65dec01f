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
"""Neighbours of the UMAP."""

LEAST_SIZE = 5
"""Cells of the smallest cluster, however few cells there are; the default of HDBSCAN."""

EVIDENCE_SHARES = (1000, 500, 200, 100, 50, 20)
"""Smallest clusters that are tried for the evidence, as one cell in this many."""


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
    """Dense places of a UMAP, found by HDBSCAN.

    Parameters
    ----------
    codes
        ``(n, d)`` values in which distances mean something: codes of a VAE, principal
        components, markers.
    min_cluster_size
        Cells of the smallest cluster; of less HDBSCAN makes noise. None for one cell in 500,
        and at least 30, as many as the neighbours of the UMAP (one cell in 20 of fewer than
        600, and at least 5).
    n_neighbors, n_components, min_dist
        Of the UMAP. None for 30 neighbours; never more than there are other cells.
    evidence
        Values of ``min_cluster_size`` to try for the evidence; None for six between one cell in
        1000 and one in 20.
    seed
        Of the UMAP; HDBSCAN draws nothing.
    progress
        Show a progress bar.

    Returns
    -------
    Clusters, with the UMAP as ``embedding``. The table has ``min_cluster_size``,
    ``n_clusters``, ``noise`` (share of the cells) and ``chosen``. ``proba`` of a cell in a
    cluster is its strength in it as HDBSCAN measures it, p, and what is left of 1 in equal
    parts: p + (1 - p) / K of its own cluster and (1 - p) / K of every other. That of a cell of
    no cluster goes by the distance on the UMAP to the nearest of the strongest cells of each
    cluster, in inverse proportion.

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
        evidence = [max(n // share, LEAST_SIZE) for share in EVIDENCE_SHARES]
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
    # a UMAP says nothing of groups smaller than its neighbourhoods
    return max(n_cells // 500, min(N_NEIGHBORS, n_cells // 20), LEAST_SIZE)


def embed(
    codes: np.ndarray, n_neighbors: int, n_components: int, min_dist: float, seed: int
) -> np.ndarray:
    """A UMAP, ``(n, n_components)`` float32."""
    from umap import UMAP

    n_components = min(n_components, codes.shape[1])
    model = UMAP(
        n_neighbors=n_neighbors,
        n_components=n_components,
        min_dist=min_dist,
        # eigenvectors of so small a graph are no start
        init="random" if len(codes) < 50 else "spectral",
        random_state=seed,
        n_jobs=1,
    )
    with same_threads():
        embedding = model.fit_transform(codes)
    return np.asarray(embedding, dtype=np.float32)


def _hdbscan(embedding: np.ndarray, min_cluster_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and the strength with which each cell belongs to its cluster."""
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(min_cluster_size=int(min_cluster_size), copy=True).fit(embedding)
    return model.labels_, model.probabilities_


def _memberships(embedding: np.ndarray, labels: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """See :func:`density_clusters`; ``(n, K)`` float32."""
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


N_STARTS = 5
"""Times that the mixture is begun anew; the most likely one is kept."""


def mixture_clusters(codes: np.ndarray, n_clusters: int, *, seed: int = 0) -> Found:
    """Components of a Gaussian mixture on a UMAP, as in N2D (McConville et al. 2021).

    Parameters
    ----------
    codes
        ``(n, d)`` values in which distances mean something.
    n_clusters
        Their number.
    seed
        Of the UMAP and of the mixture.

    Returns
    -------
    Clusters with the UMAP as ``embedding``; ``proba`` are the posteriors of the mixture, and no
    cell is noise. Components without cells are left out.

    Raises
    ------
    ValueError
        NaN or infinite values, fewer than 10 cells or than clusters, the same values in all
        cells.
    """
    codes = check_codes(codes)
    check_size("n_clusters", n_clusters, 1, len(codes))
    embedding = embed(codes, min(N_NEIGHBORS, len(codes) - 1), 2, 0.0, seed)
    # in float64, where the covariances of tight clusters stay positive
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
