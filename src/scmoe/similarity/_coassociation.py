"""Similarity = how many partitions of the graph put two cells together."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from scmoe._progress import bar
from scmoe.similarity._base import SMALL_FIRST, Similarity, Target
from scmoe.similarity._graph import neighbour_graph

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

logger = logging.getLogger("scmoe")

MAX_COMMUNITIES = 5000
"""A graph that falls apart into more communities than this says nothing about clusters."""


@dataclass(frozen=True, kw_only=True)
class CoAssociation(Similarity):
    """Cells are alike when most partitions of the neighbour graph put them together.

    Two kinds of partitions vote with equal weight, because they fail in different ways:

    - communities of the graph (Louvain) at several coarse resolutions. They follow the
      shape of big populations, but merge small ones with their neighbours;
    - metaclusters: small communities of the graph, merged by average linkage of their mean
      profiles until the next merge is wider than ``spread`` times the spread of the data, as
      FlowSOM merges its nodes. A small population whose markers differ stays apart, however
      few cells it has.

    The target is dense in any random mini-batch, and cheap: rows of an ``(n_obs, n_votes)``
    matrix of small integers are compared.

    Parameters
    ----------
    neighbors_key
        As in scanpy; None takes ``.obsp["connectivities"]``.
    resolutions
        Resolutions of the coarse partitions; larger gives more communities.
    fine_resolutions
        Resolutions of the communities that are merged to metaclusters, one vote each.
    spread
        Where merging stops, as a multiple of the root mean square distance of the cells
        from their mean. Smaller gives more metaclusters.
    majority
        True: the similarity is 1 where more than half of the votes agree, else 0. False: it is
        the share of votes.

    References
    ----------
    Fred & Jain 2005 (evidence accumulation); Blondel et al. 2008 (Louvain); Van Gassen et
    al. 2015 (metaclustering).
    """

    needs_graph: ClassVar[bool] = True

    neighbors_key: str | None = None
    resolutions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    fine_resolutions: tuple[float, ...] = (4.0, 5.0, 6.0, 8.0, 10.0)
    spread: float = 0.7
    majority: bool = True

    def __post_init__(self):
        if not self.resolutions and not self.fine_resolutions:
            raise ValueError("CoAssociation needs at least one resolution.")
        for name in ("resolutions", "fine_resolutions"):
            if any(r <= 0 for r in getattr(self, name)):
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.spread <= 0:
            raise ValueError(f"`spread` must be positive, got {self.spread}.")

    def bind(
        self, adata: AnnData, profile: np.ndarray, *, progress: bool = False
    ) -> CoAssociationTarget:
        """Partition the graph; raises as ``neighbour_graph`` does."""
        graph = neighbour_graph(adata, self.neighbors_key)
        resolutions = self.resolutions + self.fine_resolutions
        found = [
            communities(graph, resolution)
            for resolution in bar(resolutions, "partitioning the graph", progress=progress)
        ]
        coarse = found[: len(self.resolutions)]
        fine = [metaclusters(profile, c, self.spread) for c in found[len(self.resolutions) :]]
        logger.info(
            "Co-association: %s communities, %s metaclusters.",
            [int(p.max()) + 1 for p in coarse],
            [int(p.max()) + 1 for p in fine],
        )
        # whole numbers that give both kinds the same total, so that a tie is exactly a tie
        weights = [len(fine) or 1] * len(coarse) + [len(coarse) or 1] * len(fine)
        return CoAssociationTarget(np.stack(coarse + fine, axis=1), weights, self.majority)


def communities(graph: csr_matrix, resolution: float) -> np.ndarray:
    """Louvain communities, ``(n_obs,)`` integers from 0; the same graph gives the same answer."""
    from sknetwork.clustering import Louvain

    return Louvain(resolution=resolution).fit_predict(graph)


def metaclusters(profile: np.ndarray, community: np.ndarray, spread: float) -> np.ndarray:
    """Merge communities whose mean profiles are near.

    Parameters
    ----------
    profile
        ``(n_obs, n_features)``.
    community
        Community of each cell, ``(n_obs,)`` integers from 0.
    spread
        Merging stops at this multiple of the root mean square distance from the mean.

    Returns
    -------
    Metacluster of each cell, ``(n_obs,)`` integers from 0.
    """
    count = np.bincount(community)
    if len(count) == 1:
        return community
    if len(count) > MAX_COMMUNITIES:
        raise ValueError(
            f"The neighbour graph falls apart into {len(count):,} communities; build it with "
            "more neighbours."
        )
    means = np.stack(
        [np.bincount(community, weights=column) / count for column in profile.T], axis=1
    )
    scale = np.sqrt(((profile - profile.mean(0)) ** 2).sum(1).mean())
    merged = fcluster(linkage(means, "average"), spread * scale, "distance") - 1
    return merged[community]


class CoAssociationTarget(Target):
    """Votes on which cells belong together.

    Parameters
    ----------
    partitions
        ``(n_obs, n_votes)`` integers: the group of each cell in each partition.
    weights
        Whole number of votes that each partition has.
    majority
        See :class:`CoAssociation`.
    """

    def __init__(self, partitions: np.ndarray, weights: list[int], majority: bool):
        self.partitions = np.ascontiguousarray(partitions.T, dtype=np.int32)
        self.weights = np.asarray(weights, dtype=np.int16)
        self.majority = majority

    def _vote(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Similarity of cells ``left`` and ``right``, broadcast against each other."""
        agree = 0
        for partition, weight in zip(self.partitions, self.weights, strict=True):
            agree = agree + weight * (partition[left] == partition[right])
        total = self.weights.sum()
        return (2 * agree > total if self.majority else agree / total).astype(np.float32)

    def draw_weights(self, cells: np.ndarray) -> np.ndarray:
        """Cells of small groups are drawn more often.

        A population of a thousandth of the cells has no pair in most random batches. A cell is
        drawn, with replacement, with a weight of one over the root of the size of its group,
        averaged over the partitions.
        """
        weight = np.zeros(len(cells))
        for partition in self.partitions[:, cells]:
            weight += np.bincount(partition)[partition] ** -SMALL_FIRST
        return weight

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Votes of all pairs."""
        return self._vote(cells[:, None], cells[None])

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Votes of some pairs."""
        return self._vote(cells[pairs[0]], cells[pairs[1]])
