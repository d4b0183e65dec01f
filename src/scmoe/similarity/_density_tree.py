"""Similarity = whether two cells are on the same sides of the valleys of their density."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scmoe._core.cells import check_batches
from scmoe._core.settings import NOTHING, POSITIVE, TEXT, number, whole
from scmoe.similarity._base import MembershipTarget, Similarity, sum_groups
from scmoe.tree import (
    DEPTH,
    LEAST,
    SIGNIFICANCE,
    Cells,
    align,
    align_groups,
    grow,
    memberships,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.tree import Tree

logger = logging.getLogger("scmoe")


@dataclass(frozen=True, kw_only=True)
class DensityTree(Similarity):
    """Cells are alike where no valley of the density lies between them.

    The cells are cut in two where their density along some direction (a marker, or a few
    markers with weights) has the clearest valley, then each half again, until no half has a
    valley that the numbers of cells support. What is left are the populations; where there is
    one population, there is one. No neighbour graph is needed, and each cut is a gate that a
    person can read.

    Parameters
    ----------
    significance
        Standard deviations between the numbers of cells at a valley and at the lower one of its
        peaks. Smaller gives more populations.
    depth
        Density of a valley, at most, as a share of the lower peak.
    min_cells
        Cells on either side of a valley.
    n_clusters
        Cut the tree at this many populations: its clearest valleys are kept. None for all.
    batch_key
        Column of ``.obs`` with the batch of each cell: what sets batches apart, and no cells of
        one batch, is no valley, and the markers of batches are brought to one place: first by
        their means and spreads, then by the groups of a tree of those. None for that of
        :func:`scmoe.tl.cluster`, if it has one.
    random_state
        Seed of what is drawn at random. :func:`scmoe.tl.cluster` gives the tree that it takes
        by default its own seed.

    Raises
    ------
    ValueError
        A parameter out of range; cells without a batch.
    KeyError
        No such column.
    """

    significance: float = SIGNIFICANCE
    depth: float = DEPTH
    min_cells: int = LEAST
    n_clusters: int | None = None
    batch_key: str | None = None
    random_state: int = 0

    def __post_init__(self):
        number().check("significance", self.significance)
        POSITIVE.check("depth", self.depth)
        if self.depth > 1:
            raise ValueError(f"`depth` is a share of the peak, at most 1; got {self.depth}.")
        whole(1).check("min_cells", self.min_cells)
        (whole(1) | NOTHING).check("n_clusters", self.n_clusters)
        (TEXT | NOTHING).check("batch_key", self.batch_key)
        whole(0).check("random_state", self.random_state)

    @property
    def _how(self) -> dict[str, float]:
        """How trees are grown."""
        return {
            "significance": self.significance,
            "depth": self.depth,
            "least": self.min_cells,
            "seed": self.random_state,
        }

    def aligned(self, adata: AnnData, profile: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The values that the tree cuts, ``(n_obs, d)`` float32, and the batch of each cell.

        Without ``batch_key`` they are the values as they are, and None.
        """
        x = np.asarray(profile, dtype=np.float32)
        if self.batch_key is None:
            return x, None
        check_batches(adata, self.batch_key)
        batch = np.unique(adata.obs[self.batch_key].astype(str), return_inverse=True)[1]
        first = align(x, batch)
        tree = grow(first, np.arange(x.shape[1]), batch=batch, **self._how)
        return align_groups(x, batch, tree.predict(first), self.min_cells), batch

    def bind(
        self, adata: AnnData, profile: np.ndarray, *, progress: bool = False
    ) -> DensityTreeTarget:
        """Grow the tree of the cells."""
        x, batch = self.aligned(adata, profile)
        how = {**self._how, "batch": batch, "cells": Cells.of(x, self.random_state, batch)}
        tree = grow(x, adata.var_names.to_numpy(dtype=str), **how)
        if self.n_clusters is not None and self.n_clusters < tree.n_clusters:
            tree = tree.merge(tree.cut(n_clusters=self.n_clusters))
        logger.info("Density tree: %d populations.", tree.n_clusters)
        if self.n_clusters is not None and self.n_clusters > tree.n_clusters:
            logger.warning(
                "The tree finds no more than %d populations, not %d: the other experts may end "
                "without cells. A smaller `significance` gives more.",
                tree.n_clusters,
                self.n_clusters,
            )
        return DensityTreeTarget(tree, memberships(tree, x, **how))


class DensityTreeTarget(MembershipTarget):
    """Memberships in the populations of a tree.

    Parameters
    ----------
    tree
        The tree.
    membership
        Share of each population for each cell, ``(n_obs, n_clusters)`` float32.
    """

    def __init__(self, tree: Tree, membership: np.ndarray):
        super().__init__(membership)
        self.tree = tree

    def merged(self, n_groups: int, profile: np.ndarray) -> DensityTreeTarget:
        """Cut the tree: its clearest valleys are kept."""
        into = self.tree.cut(n_clusters=n_groups)
        return DensityTreeTarget(self.tree.merge(into), sum_groups(self.membership, into))
