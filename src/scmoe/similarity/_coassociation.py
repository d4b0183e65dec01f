"""Co-association: partitions of the neighbour graph vote on which cells belong together."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.cluster.hierarchy import cut_tree, fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.spatial.distance import pdist, squareform

from scmoe._core.neighbors import partition
from scmoe._core.progress import bar
from scmoe._core.settings import (
    NOTHING,
    POSITIVE,
    TEXT,
    Kind,
    is_whole,
    many,
    setting,
)
from scmoe.similarity._base import Similarity
from scmoe.similarity._graph import stored_graph
from scmoe.similarity._target import SIZE_POWER, MembershipTarget, TensorTarget, sum_groups

if TYPE_CHECKING:
    import torch
    from anndata import AnnData
    from scipy.sparse import csr_matrix

logger = logging.getLogger("scmoe")

FINE_VOTES = 2
"""Votes of all metaclusters together, for each vote of all coarse partitions."""

DISTANCE_VOTE = 1e-6
"""Weight of the distance between groups, relative to the share of votes, when groups merge."""

MIN_GROUP_SIZE = 10
"""Smallest number of cells of a group."""

MAX_COMMUNITIES = 5000
"""A graph that falls apart into more communities than this cannot be clustered."""

LEAST_NOISE = 1e-3
"""Smallest standard deviation within communities, as a share of that of all cells."""

LOUVAIN_SEED = Kind("a whole number in [0, 2**32)", lambda v: is_whole(v) and 0 <= v < 2**32)


@dataclass(frozen=True, kw_only=True)
class CoAssociation(Similarity):
    """Two cells are alike if most partitions of the neighbour graph put them together.

    Two kinds of partitions vote, because they fail in different ways:

    - communities of the graph (Louvain) at several coarse resolutions. They follow the
      shape of large populations, but merge small ones with their neighbours. Together they have
      half as many votes as the metaclusters;
    - metaclusters: small communities of the graph, merged by average linkage until every pair
      differs in some marker by ``separation`` standard deviations. A small population whose
      markers differ stays separate, however few cells it has, and a single population is one
      metacluster.

    Any random mini-batch holds an opinion on every pair, and the computation is cheap: rows of an
    ``(n_obs, n_votes)`` matrix of small integers are compared. The result depends on the cells
    and their graph alone, not on the order of the cells.

    Parameters
    ----------
    neighbors_key
        As in scanpy; None reads ``.obsp["connectivities"]``.
    resolutions
        Resolutions of the coarse partitions; a larger value gives more communities.
    fine_resolutions
        Resolutions of the communities that are merged into metaclusters, one vote each. ``()``
        for images, whose classes do not differ in any single pixel.
    separation
        Merging stops when any two communities differ by this many standard deviations (within
        communities) in their most separated marker. A smaller value gives more metaclusters.
    majority
        True: the similarity is 1 if more than half of the votes agree, else 0. False: it is
        the share of votes that agree.
    random_state
        Seed of the order in which Louvain visits the cells, 0 to 2**32 - 1.

    References
    ----------
    Fred & Jain 2005 (evidence accumulation); Blondel et al. 2008 (Louvain); Van Gassen et
    al. 2015 (metaclustering).
    """

    needs_graph: ClassVar[bool] = True
    retired: ClassVar[dict[str, str]] = {
        "spread": "communities are now merged by their most separated marker, see `separation`."
    }

    neighbors_key: str | None = setting(TEXT | NOTHING, None)
    resolutions: tuple[float, ...] = setting(many(POSITIVE), (0.05, 0.1, 0.2, 0.3, 0.5, 1.0))
    fine_resolutions: tuple[float, ...] = setting(many(POSITIVE), (4.0, 5.0, 6.0, 8.0, 10.0))
    separation: float = setting(POSITIVE, 3.5)
    majority: bool = setting(default=True)
    random_state: int = setting(LOUVAIN_SEED, 0)

    def __post_init__(self):
        super().__post_init__()
        if not self.resolutions and not self.fine_resolutions:
            raise ValueError("CoAssociation needs at least one resolution.")

    def bind(
        self, adata: AnnData, profile: np.ndarray, *, progress: bool = False
    ) -> CoAssociationTarget:
        """Partition the graph.

        Raises
        ------
        KeyError
            No such graph.
        ValueError
            Not a graph of neighbours over these cells, or one of too many communities.
        """
        graph = stored_graph(adata, self.neighbors_key)
        order = canonical_order(graph, profile, self.random_state)
        graph = graph[order][:, order].sorted_indices()
        rank = order.argsort()
        resolutions = self.resolutions + self.fine_resolutions
        communities = [
            partition(graph, resolution, self.random_state)[rank]
            for resolution in bar(resolutions, "partitioning the graph", progress=progress)
        ]
        n_coarse = len(self.resolutions)
        coarse = communities[:n_coarse]
        fine = [metaclusters(profile, c, self.separation) for c in communities[n_coarse:]]
        # whole numbers, so that a tie is exactly a tie
        weights = [len(fine) or 1] * len(coarse) + [FINE_VOTES * len(coarse) or 1] * len(fine)
        target = CoAssociationTarget(np.stack(coarse + fine, axis=1), weights, self.majority)
        logger.info(
            "Co-association: %s communities, %s metaclusters, %d groups.",
            [int(p.max()) + 1 for p in coarse],
            [int(p.max()) + 1 for p in fine],
            target.n_groups,
        )
        return target


def canonical_order(graph: csr_matrix, profile: np.ndarray, seed: int) -> np.ndarray:
    """Sort the cells along a random direction; equal cells by their edge weights, ascending.

    Returns
    -------
    ``(n_obs,)`` indices. The same cells are in the same order, however they were ordered before.
    """
    direction = np.random.default_rng(seed).normal(size=profile.shape[1])
    along = np.zeros(len(profile))
    # column by column: a product of matrices rounds by the position of the row
    for values, weight in zip(profile.T, direction, strict=True):
        along += weight * values
    return np.lexsort((np.asarray(graph.sum(1)).ravel(), along))


class CoAssociationTarget(TensorTarget):
    """The votes of partitions on which cells belong together.

    Parameters
    ----------
    partitions
        ``(n_obs, n_votes)`` integers: the group of each cell in each partition.
    weights
        Number of votes of each partition, whole numbers.
    majority
        See :class:`CoAssociation`.
    """

    def __init__(self, partitions: np.ndarray, weights: list[int], majority: bool):
        self.partitions = np.ascontiguousarray(partitions.T, dtype=np.int32)
        self.votes = np.asarray(weights, dtype=np.int16)
        self.majority = majority

    @cached_property
    def groups(self) -> np.ndarray:
        """Group of each cell, ``(n_obs,)`` int64 from 0.

        Combinations of votes are taken from the most to the least common. Each one joins the
        group whose first combination agrees with it in most votes, if these are a majority, and
        else starts a new group. Groups of fewer than 10 cells are joined to the group that agrees
        with them most.
        """
        rows, cell, count = np.unique(
            self.partitions.T, axis=0, return_inverse=True, return_counts=True
        )
        weights = self.votes.astype(np.int64)
        starts, size = np.empty_like(rows), np.zeros(len(rows), dtype=np.int64)
        group, n = np.empty(len(rows), dtype=np.int64), 0
        for row in np.argsort(-count, kind="stable"):
            agree = (starts[:n] == rows[row]) @ weights
            if n == 0 or 2 * agree.max() <= weights.sum():
                starts[n] = rows[row]
                group[row], n = n, n + 1
            else:
                group[row] = agree.argmax()
            size[group[row]] += count[row]
        large = np.flatnonzero(size[:n] >= min(MIN_GROUP_SIZE, size.max()))
        for row in np.flatnonzero(size[group] < size[large].min()):
            group[row] = large[((starts[large] == rows[row]) @ weights).argmax()]
        return np.searchsorted(large, group)[cell.ravel()]

    @property
    def n_groups(self) -> int:
        """Number of groups, and so of experts that a model needs for them."""
        return int(self.groups.max()) + 1

    @cached_property
    def membership(self) -> np.ndarray:
        """1 for the group of each cell, else 0: ``(n_obs, n_groups)`` float32."""
        return np.eye(self.n_groups, dtype=np.float32)[self.groups]

    def merged(self, n_groups: int, profile: np.ndarray) -> MembershipTarget:
        """Merge groups by average linkage, first the groups whose cells agree in most votes.

        Among groups that agree in equally many votes, those with the closest means merge first.
        """
        size = np.bincount(self.groups)
        agree = np.zeros((self.n_groups, self.n_groups))
        for votes, weight in zip(self.partitions, self.votes, strict=True):
            share = coo_matrix((np.ones(len(votes)), (self.groups, votes))).tocsr()
            agree += weight * (share @ share.T).toarray()
        apart = 1 - agree / np.outer(size, size) / self.votes.sum()
        means = self.membership.T @ profile / size[:, None]
        distance = pdist(means)
        # means may coincide
        distance = distance / max(distance.max(), np.finfo(float).tiny)
        apart = squareform(apart, checks=False) + DISTANCE_VOTE * distance
        into = cut_tree(linkage(apart, "average"), n_clusters=n_groups)[:, 0]
        return MembershipTarget(sum_groups(self.membership, into))

    def _vote(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the similarity of cells ``left`` and ``right``, broadcast against each other."""
        agree = 0
        for group, weight in zip(self.partitions, self.votes, strict=True):
            agree = agree + weight * (group[left] == group[right])
        total = self.votes.sum()
        return (2 * agree > total if self.majority else agree / total).astype(np.float32)

    def draw_weights(self, cells: np.ndarray) -> np.ndarray:
        """Return how often each cell is drawn: more often in small groups.

        A population of a thousandth of the cells has no pair in most random batches. A cell is
        drawn, with replacement, with one over the root of the size of its group as its weight,
        averaged over the partitions.
        """
        weight = np.zeros(len(cells))
        for votes in self.partitions[:, cells]:
            weight += np.bincount(votes)[votes] ** -SIZE_POWER
        return weight

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Return the votes for all pairs."""
        return self._vote(cells[:, None], cells[None])

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return the votes for some pairs."""
        return self._vote(cells[pairs[0]], cells[pairs[1]])

    @property
    def traits(self) -> np.ndarray:
        """The group of each cell in each partition, ``(n_obs, n_votes)`` int32."""
        return self.partitions.T

    def alike(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the votes for cells that are in these groups."""
        agree, total = 0, int(self.votes.sum())
        for i, weight in enumerate(self.votes.tolist()):
            agree = agree + weight * (left[..., i] == right[..., i])
        return (2 * agree > total if self.majority else agree / total).float()


def metaclusters(profile: np.ndarray, community: np.ndarray, separation: float) -> np.ndarray:
    """Merge communities of a graph that no marker separates.

    Parameters
    ----------
    profile
        ``(n_obs, n_features)``.
    community
        Community of each cell, ``(n_obs,)`` integers from 0, none of them empty.
    separation
        Merging (average linkage) stops at this value of :func:`separations`.

    Returns
    -------
    Metacluster of each cell, ``(n_obs,)`` integers from 0.

    Raises
    ------
    ValueError
        More than 5,000 communities.
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
    """Measure how far apart any two communities are in their most separated marker.

    The difference of the means in standard deviations within communities (pooled over all of
    them), for the marker in which it is largest. The standard error of a mean counts as noise
    too: otherwise a gene that a single cell expresses would separate its community.

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
