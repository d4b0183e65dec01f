"""The cells of a clustering: checked values, the sketch to learn from, and predictions for all."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe._core.cells import table
from scmoe._core.rows import Rows
from scmoe._core.values import check_image_shape, check_training, check_values, dense, holds_images
from scmoe.get import TREE_LABELS
from scmoe.tl._cluster_models import BUILDERS
from scmoe.tl._results import DataHash, block_hash, data_hash
from scmoe.tl._values import check_scale, values_of, with_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from scmoe.model import ExpertModel
    from scmoe.similarity import DensityTree
    from scmoe.tl._cluster_models import Builder
    from scmoe.tl._cluster_request import ClusterRequest
    from scmoe.train import Processes
    from scmoe.tree import Tree

logger = logging.getLogger("scmoe")

SKETCH = 100_000
"""Largest number of cells that are learned from; about 50 are of a population of 0.05 %."""

BATCH_SKETCH = 100
"""Least number of cells of each batch that are learned from, if it has so many."""


@dataclass(frozen=True)
class ClusterCells:
    """The cells of a clustering.

    Parameters
    ----------
    learned
        Cells that are learned from, with dense values in memory: all or a sketch.
    rows
        Values of all cells.
    obs
        ``.obs`` of all cells.
    data
        Hash of the values of all cells.
    """

    learned: AnnData
    rows: Rows
    obs: pd.DataFrame
    data: str

    @property
    def is_sketch(self) -> bool:
        """Whether not all cells are learned from."""
        return self.learned.n_obs < len(self.rows)


def prepare(adata: AnnData, request: ClusterRequest) -> tuple[Builder, ClusterCells]:
    """Return the builder of the model and the cells of a request, both checked."""
    builder = BUILDERS[request.model](request)
    layer, use_rep = request.layer, request.use_rep
    rows, names, where = values_of(adata, request.markers, layer, use_rep, in_memory=False)
    rows.client = request.client or rows.client
    counts = {"counts": builder.counts, "if_counts": builder.if_counts}
    if len(rows) > SKETCH:
        n_obs, batch = len(rows), _batch_of(adata, request.batch_key)

        def survey_once() -> tuple[str, np.ndarray, np.ndarray]:
            seen = survey(rows.checked(names, where, **counts), names, request.random_state)
            return seen.data, seen.limits, draw_sketch(seen.key, request.random_state, batch)

        data, limits, chosen = processes_of(builder).of_first(survey_once)
        cells = with_values(adata, rows.take(np.arange(0)), names, layer, use_rep, np.arange(0))
    else:
        stored = rows.stored()
        check_values(stored, names, where, **counts)
        x = np.ascontiguousarray(dense(stored))
        data, limits, n_obs, rows = data_hash(x, names), x, None, Rows(x, client=request.client)
        cells = with_values(adata, x, names, layer, use_rep)
    if builder.request.model_kwargs.get("network") == "conv":
        check_image_shape(cells)
    # margins of images are constant, and genes may have no counts
    constant = holds_images(cells) or builder.counts
    check_training(limits, names, builder.request.least_clusters, constant=constant, n_obs=n_obs)
    builder.prepare(adata, cells)
    if len(rows) > SKETCH:
        if builder.needs_all_cells:
            chosen = None
        else:
            logger.info("Learning from a random sketch of %d of %d cells.", len(chosen), n_obs)
        x = rows.take(np.arange(n_obs) if chosen is None else chosen)
        cells = with_values(adata, x, names, layer, use_rep, chosen)
    if not builder.counts:
        more = builder.if_counts
        check_scale(adata, cells, request.markers, use_rep, more=more, stacklevel=4)
    return builder, ClusterCells(cells, rows, table(adata.obs), data)


def processes_of(builder: Builder) -> Processes:
    """Return the processes that train the model."""
    from scmoe.train import find_processes

    given = builder.request.train_kwargs
    return find_processes(given.get("accelerator", "auto"), given.get("devices", "auto"), given)


def _batch_of(adata: AnnData, batch_key: str | None) -> np.ndarray | None:
    """Return the batch of each cell as a number, ``(n_obs,)``."""
    if batch_key is None:
        return None
    return np.unique(table(adata.obs)[batch_key].astype(str), return_inverse=True)[1]


@dataclass(frozen=True)
class Survey:
    """Results of one pass over the values of all cells.

    Parameters
    ----------
    data
        SHA-256 of the values, see :func:`scmoe.tl._results.data_hash`.
    limits
        Least and largest value of each marker, ``(2, n_markers)`` float32.
    key
        Number of each cell, ``(n,)``, by which a sketch does not depend on the order of cells.
    """

    data: str
    limits: np.ndarray
    key: np.ndarray


def survey(rows: Rows, names: pd.Index, seed: int) -> Survey:
    """Pass over the values of all cells once, block by block; ``seed`` is that of the sketch."""
    weights = np.random.default_rng(seed).normal(size=len(names))
    digest = DataHash(rows.shape, names)
    low, high = np.full((2, len(names)), [[np.inf], [-np.inf]], dtype=np.float32)
    key = np.empty(len(rows))
    for place, (of_block, least, largest, keys) in rows.map(partial(_survey_block, weights)):
        digest.add(of_block)
        low, high = np.minimum(low, least), np.maximum(high, largest)
        key[place] = keys
    return Survey(digest.hex(), np.stack([low, high]), key)


def _survey_block(
    weights: np.ndarray, block: np.ndarray
) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
    """Return the hash, the least and largest values, and the keys of a block of cells."""
    key = np.einsum("ij,j->i", block, weights)
    return block_hash(block), block.min(0), block.max(0), key


def draw_sketch(key: np.ndarray, seed: int, batch: np.ndarray | None = None) -> np.ndarray:
    """Draw the positions of a sketch, sorted: the same cells in whatever order they come.

    Parameters
    ----------
    key
        Keys of :func:`survey`.
    seed
        Seed of the draw.
    batch
        Batch of each cell, ``(n,)`` integers from 0: a sketch has cells of all batches.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(key, kind="stable")
    drawn = np.zeros(len(key), dtype=bool)
    drawn[order[rng.choice(len(key), SKETCH, replace=False)]] = True
    if batch is not None:
        size = np.bincount(batch)
        least, has = np.minimum(size, BATCH_SKETCH), np.bincount(batch[drawn], minlength=len(size))
        for number in np.flatnonzero(has < least):
            own = order[batch[order] == number]
            drawn[rng.choice(own, least[number], replace=False)] = True
    return np.flatnonzero(drawn)


def predict_all(
    trained: ExpertModel, builder: Builder, cells: ClusterCells
) -> tuple[dict[str, np.ndarray], TreeCounts | None]:
    """Return the outputs of a trained model for all cells, and their counts in its tree."""
    from scmoe.model import PREDICTIONS, fill_block, predict_blocks

    module, request, batch = trained.module, builder.request, None
    if module.encode_batch:
        of_cells = cells.obs[request.batch_key].astype(str)
        batch = pd.Index(trained.batch_names).get_indexer(of_cells)
    tree = getattr(trained, "tree", None)
    if tree is not None:
        tree = TreeCounts(tree, module.n_experts, request.similarity, cells.learned, cells.obs)
    seen: dict[str, np.ndarray] = {}
    counts = (None,) if tree is None else (tree.of_block, tree.batch)
    names = (*PREDICTIONS, *builder.predictions)
    for place, part, counted in predict_blocks(module, cells.rows, names, batch, None, *counts):
        fill_block(seen, len(cells.rows), place, part)
        if tree is not None:
            tree.add(counted)
    return seen, tree


class TreeCounts:
    """Number of cells in each region of a tree by their expert, summed block by block.

    Parameters
    ----------
    tree
        The tree.
    n_experts
        Number of experts.
    similarity
        Similarity that grew the tree.
    cells
        Cells that the tree was grown on.
    obs
        ``.obs`` of all cells.
    """

    def __init__(
        self,
        tree: Tree,
        n_experts: int,
        similarity: DensityTree,
        cells: AnnData,
        obs: pd.DataFrame,
    ):
        self.tree = tree
        self.counts = np.zeros((2 * tree.n_splits + 1, n_experts), dtype=np.int64)
        self.batch, self.shift = None, None
        if similarity.batch_key is not None:
            moved, number = similarity.aligned(cells, cells.X)
            _, first = np.unique(number, return_index=True)
            # each batch was moved as a whole
            self.shift = cells.X[first] - moved[first]
            self.batch = np.unique(obs[similarity.batch_key].astype(str), return_inverse=True)[1]

    @property
    def of_block(self) -> Callable[..., np.ndarray]:
        """Function that counts the cells of a block, see :func:`_count`; can be pickled."""
        return partial(_count, self.tree, self.counts.shape[1], self.shift)

    def add(self, counts: np.ndarray) -> None:
        """Add the counts of a block."""
        self.counts += counts

    def record(self, names: np.ndarray, categories: list[str]) -> dict[str, Any]:
        """Return the record of the tree, with its sizes and labels among all cells.

        Parameters
        ----------
        names
            Label of each expert.
        categories
            Labels in order.
        """
        tree, size = self.tree, self.counts.sum(1)
        for split in range(tree.n_splits - 1, -1, -1):
            size[tree.region[split]] = size[2 * split + 1] + size[2 * split + 2]
        tree = replace(tree, sizes=size[1:].reshape(-1, 2))
        by_label = self.counts[:, [int(np.flatnonzero(names == c)[0]) for c in categories]]
        labels = np.zeros((tree.n_clusters, len(categories)), dtype=np.int64)
        leaves = tree.leaves
        np.add.at(labels, tree.cluster[leaves], by_label[leaves])
        rows = [str(k) for k in range(tree.n_clusters)]
        return {
            **tree.to_record(),
            TREE_LABELS: pd.DataFrame(labels, index=rows, columns=categories),
        }


def _count(
    tree: Tree,
    n_experts: int,
    shift: np.ndarray | None,
    x: np.ndarray,
    found: dict[str, np.ndarray],
    batch: np.ndarray | None,
) -> np.ndarray:
    """Count the cells of each region by their expert, ``(n_regions, n_experts)``.

    Parameters
    ----------
    tree, n_experts
        As in :class:`TreeCounts`.
    shift
        Shift of each batch, ``(n_batches, n_markers)``; None without batches.
    x
        Values of the cells.
    found
        Outputs of the model for the cells.
    batch
        Batch of each cell, ``(n,)``.
    """
    if shift is not None:
        x = x - shift[batch]
    shape = (2 * tree.n_splits + 1, n_experts)
    pairs = tree.find_leaves(x) * np.int64(n_experts) + found["expert"]
    return np.bincount(pairs, minlength=shape[0] * n_experts).reshape(shape)
