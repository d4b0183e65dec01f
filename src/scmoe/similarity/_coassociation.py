"""Similarity = how many partitions of the graph put two cells together."""

from __future__ import annotations

import logging
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.sparse import coo_matrix
from scipy.spatial.distance import pdist, squareform

from scmoe._core.neighbors import partition
from scmoe._core.progress import bar
from scmoe._core.settings import is_whole
from scmoe.similarity._base import (
    SMALL_FIRST,
    MembershipTarget,
    Similarity,
    Target,
    sum_groups,
)
from scmoe.similarity._graph import neighbour_graph
from scmoe.similarity._metaclusters import metaclusters

if TYPE_CHECKING:
    import torch
    from anndata import AnnData
    from scipy.sparse import csr_matrix

logger = logging.getLogger("scmoe")

FINER = 2
"""How many votes all metaclusters have together, for each of all coarse partitions."""

LEAST_VOTE = 1e-6
"""How much the distance of groups counts beside the share of votes."""

LEAST_SIZE = 10
"""Cells of the smallest group."""


@dataclass(frozen=True, kw_only=True)
class CoAssociation(Similarity):
    """Cells are alike when most partitions of the neighbour graph put them together.

    Two kinds of partitions vote, because they fail in different ways:

    - communities of the graph (Louvain) at several coarse resolutions. They follow the
      shape of big populations, but merge small ones with their neighbours. Together they have
      half as many votes as the others;
    - metaclusters: small communities of the graph, merged by average linkage until in every
      pair some marker differs by ``separation`` standard deviations. A small population whose
      markers differ stays apart, however few cells it has, and a single population is one
      metacluster.

    The target is dense in any random mini-batch, and cheap: rows of an ``(n_obs, n_votes)``
    matrix of small integers are compared. It hangs on the cells and their graph alone, not on
    the order in which they come.

    Parameters
    ----------
    neighbors_key
        As in scanpy; None takes ``.obsp["connectivities"]``.
    resolutions
        Resolutions of the coarse partitions; larger gives more communities.
    fine_resolutions
        Resolutions of the communities that are merged to metaclusters, one vote each. ``()`` for
        images, whose kinds differ in no single pixel.
    separation
        Where merging stops: the difference of two communities in their most separated marker,
        in standard deviations within communities. Smaller gives more metaclusters.
    majority
        True: the similarity is 1 where more than half of the votes agree, else 0. False: it is
        the share of votes.
    random_state
        Of the order in which Louvain looks at cells, 0 to 2**32 - 1.
    spread
        No longer used; taken from records of earlier versions, and a log line says so.

    References
    ----------
    Fred & Jain 2005 (evidence accumulation); Blondel et al. 2008 (Louvain); Van Gassen et
    al. 2015 (metaclustering).
    """

    needs_graph: ClassVar[bool] = True

    neighbors_key: str | None = None
    resolutions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    fine_resolutions: tuple[float, ...] = (4.0, 5.0, 6.0, 8.0, 10.0)
    separation: float = 3.5
    majority: bool = True
    random_state: int = 0
    spread: InitVar[float | None] = None

    def __post_init__(self, spread: float | None):
        if not self.resolutions and not self.fine_resolutions:
            raise ValueError("CoAssociation needs at least one resolution.")
        for name in ("resolutions", "fine_resolutions"):
            if any(r <= 0 for r in getattr(self, name)):
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if not self.separation > 0:
            raise ValueError(f"`separation` must be positive, got {self.separation}.")
        if not is_whole(self.random_state) or not 0 <= self.random_state < 2**32:
            raise ValueError(
                f"`random_state` must be a whole number in [0, 2**32), got {self.random_state!r}."
            )
        if spread is not None:
            logger.warning(
                "`spread` of CoAssociation is ignored: communities are merged by their most "
                "separated marker now. See `separation`."
            )

    def bind(
        self, adata: AnnData, profile: np.ndarray, *, progress: bool = False
    ) -> CoAssociationTarget:
        """Partition the graph; raises as ``neighbour_graph`` does."""
        graph = neighbour_graph(adata, self.neighbors_key)
        order = canonical_order(graph, profile, self.random_state)
        graph = graph[order][:, order].sorted_indices()
        place = order.argsort()
        resolutions = self.resolutions + self.fine_resolutions
        found = [
            partition(graph, resolution, self.random_state)[place]
            for resolution in bar(resolutions, "partitioning the graph", progress=progress)
        ]
        coarse = found[: len(self.resolutions)]
        fine = [metaclusters(profile, c, self.separation) for c in found[len(coarse) :]]
        # whole numbers, so that a tie is exactly a tie
        weights = [len(fine) or 1] * len(coarse) + [FINER * len(coarse) or 1] * len(fine)
        target = CoAssociationTarget(np.stack(coarse + fine, axis=1), weights, self.majority)
        logger.info(
            "Co-association: %s communities, %s metaclusters, %d groups.",
            [int(p.max()) + 1 for p in coarse],
            [int(p.max()) + 1 for p in fine],
            target.n_groups,
        )
        return target


def canonical_order(graph: csr_matrix, profile: np.ndarray, seed: int) -> np.ndarray:
    """Cells along a random direction; of equal cells that with weaker edges first.

    The same cells, in whatever order they come, are in one order then, ``(n_obs,)``.
    """
    direction = np.random.default_rng(seed).normal(size=profile.shape[1])
    along = np.zeros(len(profile))
    # column by column: a product of matrices rounds by the place of the row
    for values, weight in zip(profile.T, direction, strict=True):
        along += weight * values
    return np.lexsort((np.asarray(graph.sum(1)).ravel(), along))


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
        self.votes = np.asarray(weights, dtype=np.int16)
        self.majority = majority

    @cached_property
    def groups(self) -> np.ndarray:
        """Group of each cell, ``(n_obs,)`` int64 from 0.

        Combinations of votes are looked at from the most to the least common. Each joins the
        earlier one that starts a group and agrees with it in most votes, if they are a majority,
        else starts a group of its own. Groups of fewer than 10 cells end in the nearest other.
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
        large = np.flatnonzero(size[:n] >= min(LEAST_SIZE, size.max()))
        for row in np.flatnonzero(size[group] < size[large].min()):
            group[row] = large[((starts[large] == rows[row]) @ weights).argmax()]
        return np.searchsorted(large, group)[cell.ravel()]

    @property
    def n_groups(self) -> int:
        """How many groups of cells the votes see: experts that a model needs for them."""
        return int(self.groups.max()) + 1

    @cached_property
    def membership(self) -> np.ndarray:
        """1 for the group of each cell, else 0: ``(n_obs, n_groups)`` float32."""
        return np.eye(self.n_groups, dtype=np.float32)[self.groups]

    def merged(self, n_groups: int, profile: np.ndarray) -> MembershipTarget:
        """Merge groups by average linkage, first those whose cells agree in most votes.

        Of those that agree in as many, the groups with the closest means.
        """
        size = np.bincount(self.groups)
        agree = np.zeros((self.n_groups, self.n_groups))
        for votes, weight in zip(self.partitions, self.votes, strict=True):
            share = coo_matrix((np.ones(len(votes)), (self.groups, votes))).tocsr()
            agree += weight * (share @ share.T).toarray()
        apart = 1 - agree / np.outer(size, size) / self.votes.sum()
        means = self.membership.T @ profile / size[:, None]
        distance = pdist(means)
        apart = squareform(apart, checks=False) + LEAST_VOTE * distance / distance.max()
        into = cut_tree(linkage(apart, "average"), n_clusters=n_groups)[:, 0]
        return MembershipTarget(sum_groups(self.membership, into))

    def _vote(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Similarity of cells ``left`` and ``right``, broadcast against each other."""
        agree = 0
        for group, weight in zip(self.partitions, self.votes, strict=True):
            agree = agree + weight * (group[left] == group[right])
        total = self.votes.sum()
        return (2 * agree > total if self.majority else agree / total).astype(np.float32)

    def draw_weights(self, cells: np.ndarray) -> np.ndarray:
        """Cells of small groups are drawn more often.

        A population of a thousandth of the cells has no pair in most random batches. A cell is
        drawn, with replacement, with a weight of one over the root of the size of its group,
        averaged over the partitions.
        """
        weight = np.zeros(len(cells))
        for votes in self.partitions[:, cells]:
            weight += np.bincount(votes)[votes] ** -SMALL_FIRST
        return weight

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Votes of all pairs."""
        return self._vote(cells[:, None], cells[None])

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Votes of some pairs."""
        return self._vote(cells[pairs[0]], cells[pairs[1]])

    @property
    def traits(self) -> np.ndarray:
        """The group of each cell in each partition, ``(n_obs, n_votes)`` int32."""
        return self.partitions.T

    def alike(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Votes of cells that are in such groups."""
        agree, total = 0, int(self.votes.sum())
        for i, weight in enumerate(self.votes.tolist()):
            agree = agree + weight * (left[..., i] == right[..., i])
        return (2 * agree > total if self.majority else agree / total).float()
