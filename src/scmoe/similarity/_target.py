"""Targets: similarities that are bound to cells, and the pairs and batches drawn from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from scipy.sparse import csr_matrix

MAX_DENSE = 1024
"""Largest batch of which all pairs are compared; in larger ones only listed pairs are."""

PARTNERS = 16
"""Number of partners that each cell of a large batch is compared with."""

SIZE_POWER = 0.5
"""A cell is drawn with the size of its group to minus this power as its weight."""


class Pairs(NamedTuple):
    """The similarity of listed pairs of a batch."""

    rows: np.ndarray
    """Positions in the batch, ``(2, m)`` int64."""
    similarity: np.ndarray
    """Similarity of each pair in [0, 1], ``(m,)`` float32."""
    weight: np.ndarray
    """Number of pairs of the batch that each listed pair represents, ``(m,)`` float32."""


class Target(ABC):
    """A similarity bound to the cells of one AnnData.

    A target gives the similarity of each pair of cells in a batch, and NaN for pairs on which it
    has no opinion. Some targets also know the class of each cell.
    """

    class_share: float = 0.0
    """Weight of the class term in the similarity loss.

    0 for pairs only, 1 for classes only (pairs are never requested then). Between these, the loss
    is ``class_share`` times the class term plus ``1 - class_share`` times the pair term.
    """
    class_names: Sequence[str] = ()
    """Names of the classes.

    Class ``c`` belongs to expert ``c``; further experts are free for populations that are not
    listed.
    """
    cells: np.ndarray | None = None
    """Sorted indices of the cells that the model trains on, ``(m,)`` int64; None for all.

    The model predicts all cells in either case.
    """
    membership: np.ndarray | None = None
    """Share of each group in each cell, ``(n_obs, n_groups)`` float32, rows sum to 1.

    None for a target without groups. A model may start from the groups.
    """

    def merged(self, n_groups: int, profile: np.ndarray) -> Target | None:
        """Merge the closest groups until ``n_groups`` are left.

        Parameters
        ----------
        n_groups
            Number of groups to keep.
        profile
            The values that the similarity was bound with.

        Returns
        -------
        The target with merged groups, or None for a target that cannot tell which of its groups
        are close.
        """
        return None

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @abstractmethod
    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Return the similarity of all pairs of ``cells``, indices ``(B,)``.

        ``(B, B)`` float32 in [0, 1], symmetric; NaN for no opinion. The diagonal is 1.
        """

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return the similarity of some pairs; NaN for no opinion.

        Parameters
        ----------
        cells
            Cell indices of the batch, ``(B,)``.
        pairs
            Positions in the batch, ``(2, m)``.

        Returns
        -------
        ``(m,)`` float32, equal to the entries of :meth:`dense` at these pairs.
        """
        return self.dense(cells)[pairs[0], pairs[1]]

    def listed(self, cells: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Return the similarity of some pairs, with weights that make up for the pairs left out.

        Pairs without an opinion are not listed. By default the pairs are drawn at random.
        """
        pairs = random_partners(len(cells), rng)
        similarity = self.at(cells, pairs)
        weight = np.full(len(similarity), (len(cells) - 1) / PARTNERS, np.float32)
        return known_pairs(Pairs(pairs, similarity, weight))

    def classes(self, cells: np.ndarray) -> np.ndarray | None:
        """Return the share of each class in ``cells``, indices ``(B,)``; None without classes.

        ``(B, C)`` float32 in [0, 1]; the row of a cell of unknown class is NaN.
        """
        return None

    def positive(self, cells: np.ndarray) -> np.ndarray | None:
        """Return the evidence for each class, ``(B, C)`` float32, also where it is not certain."""
        return self.classes(cells)

    def __call__(self, cells: np.ndarray, rng: np.random.Generator) -> np.ndarray | Pairs:
        """Return all pairs of a small batch, listed pairs of a large one."""
        return self.dense(cells) if len(cells) <= MAX_DENSE else self.listed(cells, rng)

    def batches(
        self, cells: np.ndarray, batch_size: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray] | None:
        """Draw the batches of one epoch as positions in ``cells``.

        None for batches of random cells. By default the cells are drawn with replacement, with
        the weights of :meth:`draw_weights`.
        """
        weight = self.draw_weights(cells)
        return None if weight is None else weighted_batches(weight, batch_size, rng)

    def draw_weights(self, cells: np.ndarray) -> np.ndarray | None:
        """Return how often each cell is drawn, ``(n,)`` up to a factor; None for equally often.

        By default one over the root of the size of the group that the cell belongs to.
        """
        if self.membership is None:
            return None
        group = self.membership[cells].argmax(1)
        return np.bincount(group)[group] ** -SIZE_POWER


class TensorTarget(Target):
    """A target that compares cells on the training device.

    The training keeps :attr:`traits` on its device and calls :meth:`alike` there, instead of
    asking for numpy indices batch by batch. A TensorTarget has an opinion on every pair.
    """

    traits: np.ndarray
    """Values that :meth:`alike` compares cells by, ``(n_obs, f)``."""

    @abstractmethod
    def alike(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the similarity of cells with these traits, as :meth:`at` does for indices.

        Parameters
        ----------
        left, right
            Traits, ``(..., f)``, on any device; broadcast against each other. The result for a
            cell and itself is not used.

        Returns
        -------
        ``(...)`` float32.
        """


class MembershipTarget(TensorTarget):
    """A target whose similarity is the agreement of two cells about their groups.

    Parameters
    ----------
    membership
        Share of each group in each cell, ``(n_obs, n_groups)`` float32, rows sum to 1.
    """

    def __init__(self, membership: np.ndarray):
        self.membership = self.traits = membership

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Return the agreement of all pairs; 1 for a cell with itself."""
        membership = self.membership[cells]
        similarity = membership @ membership.T
        similarity[cells[:, None] == cells[None]] = 1
        return similarity.clip(0, 1)

    def at(self, cells: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return the agreement of some pairs."""
        left, right = cells[pairs]
        similarity = np.einsum("ij,ij->i", self.membership[left], self.membership[right])
        return np.where(left == right, np.float32(1), similarity.clip(0, 1))

    def alike(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the agreement of memberships."""
        return (left * right).sum(-1).clamp(0, 1)


def sum_groups(membership: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Sum the shares of groups that are merged.

    Parameters
    ----------
    membership
        ``(n_obs, n_groups)`` float32.
    into
        New group of each group, ``(n_groups,)`` integers from 0.

    Returns
    -------
    ``(n_obs, n_new)`` float32.
    """
    return membership @ np.eye(into.max() + 1, dtype=np.float32)[into]


# pairs ----------------------------------------------------------------------------------------


def random_partners(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``(2, n * PARTNERS)`` pairs of different positions, every pair equally likely."""
    left = np.repeat(np.arange(n), PARTNERS)
    right = (left + rng.integers(1, n, left.size)) % n
    return np.stack([left, right])


def known_pairs(pairs: Pairs) -> Pairs:
    """Remove the pairs without an opinion."""
    known = ~np.isnan(pairs.similarity)
    if known.all():
        return pairs
    return Pairs(pairs.rows[:, known], pairs.similarity[known], pairs.weight[known])


def pairs_of_edges(block: csr_matrix, rng: np.random.Generator) -> Pairs:
    """List every edge of a batch once, and random pairs that represent the pairs without an edge.

    Parameters
    ----------
    block
        Nonzero similarities among the cells of the batch, ``(B, B)``, empty diagonal.
    rng
        Draws the pairs without an edge.
    """
    edges = block.tocoo()
    others = random_partners(block.shape[0], rng)
    others = others[:, np.asarray(block[others[0], others[1]]).ravel() == 0]
    n_edges, n_others = edges.nnz, others.shape[1]
    left_out = block.shape[0] * (block.shape[0] - 1) - n_edges
    return Pairs(
        np.concatenate([[edges.row, edges.col], others], axis=1).astype(np.int64),
        np.concatenate([edges.data, np.zeros(n_others)]).astype(np.float32),
        np.repeat([1, left_out / max(n_others, 1)], [n_edges, n_others]).astype(np.float32),
    )


def edges_at(block: csr_matrix, pairs: np.ndarray) -> np.ndarray:
    """Return the edge weights of some pairs ``(2, m)``; 1 for a position with itself."""
    similarity = np.asarray(block[pairs[0], pairs[1]], dtype=np.float32).ravel()
    similarity[pairs[0] == pairs[1]] = 1
    return similarity


# batches --------------------------------------------------------------------------------------


def weighted_batches(
    weight: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Draw the batches of one epoch with replacement, in proportion to a weight ``(n,)``."""
    n = len(weight)
    batch_size = min(batch_size, n)
    yield from rng.choice(n, (-(-n // batch_size), batch_size), p=weight / weight.sum())


def half_known_batches(
    known: np.ndarray, cells: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray] | None:
    """Draw batches of which half are known cells, where random batches would hold fewer.

    Parameters
    ----------
    known
        Whether each cell of the data is known, ``(n_obs,)`` bool.
    cells
        Indices of the cells that the model trains on.
    batch_size
        Number of cells in a batch.
    rng
        Draws the cells, without replacement within a batch.

    Returns
    -------
    Positions in ``cells``, batch by batch; with fewer known cells than half a batch, each batch
    holds all of them. None if at least half of ``cells`` are known, or no cell is.
    """
    is_known = known[cells]
    n_known = np.count_nonzero(is_known)
    if n_known == 0 or 2 * n_known >= len(cells):
        return None
    return _half_known(np.flatnonzero(is_known), np.flatnonzero(~is_known), batch_size, rng)


def _half_known(
    known: np.ndarray, unknown: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    n = len(known) + len(unknown)
    batch_size = min(batch_size, n)
    n_known = min(-(-batch_size // 2), len(known))
    for _ in range(-(-n // batch_size)):
        yield np.concatenate(
            [
                rng.choice(known, n_known, replace=False),
                rng.choice(unknown, batch_size - n_known, replace=False),
            ]
        )
