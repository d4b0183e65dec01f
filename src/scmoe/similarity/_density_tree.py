"""The default similarity: populations are separated by valleys of the density."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scmoe._core.cells import check_batches
from scmoe._core.settings import NOTHING, TEXT, Kind, is_number, number, setting, whole
from scmoe.similarity._base import Similarity
from scmoe.similarity._target import MembershipTarget, sum_groups
from scmoe.tree import (
    DEPTH,
    MIN_CELLS,
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


SHARE_OF_PEAK = Kind("a number above 0 and at most 1", lambda v: is_number(v) and 0 < v <= 1)


@dataclass(frozen=True, kw_only=True)
class DensityTree(Similarity):
    """Two cells are alike if no valley of the density lies between them.

    The cells are cut in two at the clearest valley of their density along some direction (a
    marker, or a weighted sum of a few markers). Each half is cut again in the same way, until no
    half has a valley that the numbers of cells support. The parts that remain are the
    populations; a single population is not cut. No neighbour graph is needed, and each cut is a
    gate that a person can read.

    Parameters
    ----------
    significance
        Smallest difference between the numbers of cells at a valley and at the lower of its two
        peaks, in standard deviations. A smaller value gives more populations.
    depth
        Largest density of a valley, as a share of the density of the lower peak.
    min_cells
        Smallest number of cells on either side of a valley.
    n_clusters
        Cut the tree at this number of populations, which keeps its clearest valleys. None keeps
        all.
    batch_key
        Column of ``.obs`` with the batch of each cell. Differences between batches, and cells
        that only one batch has, are then no valley. The markers of the batches are aligned
        before: first by their means and spreads, then by the groups of a tree of the aligned
        values. None for the ``batch_key`` of :func:`scmoe.tl.cluster`, if there is one.
    random_state
        Random seed. :func:`scmoe.tl.cluster` passes its own seed to its default tree.

    Raises
    ------
    ValueError
        A parameter out of range; cells without a batch.
    KeyError
        No such column.
    """

    significance: float = setting(number(), SIGNIFICANCE)
    depth: float = setting(SHARE_OF_PEAK, DEPTH)
    min_cells: int = setting(whole(1), MIN_CELLS)
    n_clusters: int | None = setting(whole(1) | NOTHING, None)
    batch_key: str | None = setting(TEXT | NOTHING, None)
    random_state: int = setting(whole(0), 0)

    @property
    def _growth(self) -> dict[str, float]:
        """Arguments of :func:`scmoe.tree.grow`."""
        return {
            "significance": self.significance,
            "depth": self.depth,
            "min_cells": self.min_cells,
            "seed": self.random_state,
        }

    def aligned(self, adata: AnnData, profile: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Align the batches.

        Returns
        -------
        The values that the tree cuts, ``(n_obs, d)`` float32, and the batch of each cell; without
        ``batch_key`` the values of ``profile`` and None.
        """
        x = np.asarray(profile, dtype=np.float32)
        if self.batch_key is None:
            return x, None
        check_batches(adata, self.batch_key)
        batch = np.unique(adata.obs[self.batch_key].astype(str), return_inverse=True)[1]
        first = align(x, batch)
        tree = grow(first, np.arange(x.shape[1]), batch=batch, **self._growth)
        return align_groups(x, batch, tree.predict(first), self.min_cells), batch

    def bind(
        self, adata: AnnData, profile: np.ndarray, *, progress: bool = False
    ) -> DensityTreeTarget:
        """Grow the tree of the cells."""
        x, batch = self.aligned(adata, profile)
        growth = {**self._growth, "batch": batch, "cells": Cells.of(x, self.random_state, batch)}
        tree = grow(x, adata.var_names.to_numpy(dtype=str), **growth)
        if self.n_clusters is not None and self.n_clusters < tree.n_clusters:
            tree = tree.merge(tree.cut(n_clusters=self.n_clusters))
        logger.info("Density tree: %d populations.", tree.n_clusters)
        if self.n_clusters is not None and self.n_clusters > tree.n_clusters:
            logger.warning(
                "The tree finds no more than %d populations, not %d: the other experts may end up "
                "without cells. A smaller `significance` gives more populations.",
                tree.n_clusters,
                self.n_clusters,
            )
        return DensityTreeTarget(tree, memberships(tree, x, **growth))


class DensityTreeTarget(MembershipTarget):
    """The populations of a density tree, and the membership of each cell in them.

    Parameters
    ----------
    tree
        The tree.
    membership
        Share of each population in each cell, ``(n_obs, n_clusters)`` float32.
    """

    def __init__(self, tree: Tree, membership: np.ndarray):
        super().__init__(membership)
        self.tree = tree

    def merged(self, n_groups: int, profile: np.ndarray) -> DensityTreeTarget:
        """Cut the tree at ``n_groups`` populations, which keeps its clearest valleys."""
        into = self.tree.cut(n_clusters=n_groups)
        return DensityTreeTarget(self.tree.merge(into), sum_groups(self.membership, into))
