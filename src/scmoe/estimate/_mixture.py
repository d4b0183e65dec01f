"""Clusters whose number is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.mixture import GaussianMixture

from scmoe.estimate._density import N_NEIGHBORS, embed
from scmoe.estimate._found import Found, by_size, check_codes, check_size

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
