"""Communities of a graph that no marker tells apart are one population."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

MAX_COMMUNITIES = 5000
"""A graph that falls apart into more communities than this says nothing about clusters."""

LEAST_NOISE = 1e-3
"""Standard deviation within communities, at least this share of that of all cells."""


def metaclusters(profile: np.ndarray, community: np.ndarray, separation: float) -> np.ndarray:
    """Merge communities that no marker separates.

    Parameters
    ----------
    profile
        ``(n_obs, n_features)``.
    community
        Community of each cell, ``(n_obs,)`` integers from 0, none of them empty.
    separation
        Merging (average linkage) stops at this separation: see :func:`separations`.

    Returns
    -------
    Metacluster of each cell, ``(n_obs,)`` integers from 0.

    Raises
    ------
    ValueError
        More communities than any clustering has.
    """
    n_communities = int(community.max()) + 1
    if n_communities == 1:
        return community
    if n_communities > MAX_COMMUNITIES:
        raise ValueError(
            f"The neighbour graph falls apart into {n_communities:,} communities; build it with "
            "more neighbours."
        )
    between = squareform(separations(profile, community), checks=False)
    return fcluster(linkage(between, "average"), separation, "distance")[community] - 1


def separations(profile: np.ndarray, community: np.ndarray) -> np.ndarray:
    """How far apart the most separated marker holds each two communities.

    The difference of the means, in standard deviations within communities (pooled over all of
    them), of the marker in which it is largest. The uncertainty of means of a few cells counts
    as noise, too, lest a gene that one cell expresses tell its community from all others.

    Parameters
    ----------
    profile, community
        As for :func:`metaclusters`.

    Returns
    -------
    ``(n_communities, n_communities)`` float64, symmetric, 0 on the diagonal.
    """
    count = np.bincount(community)
    largest = np.zeros((len(count), len(count)))
    for values in profile.T:
        values = values.astype(np.float64)
        least = (LEAST_NOISE * values.std()) ** 2
        if values.min() == values.max():
            continue
        mean = np.bincount(community, weights=values) / count
        squares = np.bincount(community, weights=(values - mean[community]) ** 2)
        noise = max(squares.sum() / max(len(values) - len(count), 1), least)
        error = squares / np.maximum(count - 1, 1) / count
        variance = noise + error[:, None] + error[None]
        np.maximum(largest, (mean[:, None] - mean) ** 2 / variance, out=largest)
    return np.sqrt(largest)
