"""Stages of the training of coupled mixtures: a start from groups of cells, and pruning."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA

from scmoe._core.neighbors import communities
from scmoe._core.settings import check_whole, is_number
from scmoe.metrics import category_consensus
from scmoe.tree import SIGNIFICANCE, grow

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix

    from scmoe.tree import Tree

    Find: TypeAlias = Callable[[np.ndarray, int], np.ndarray]
    """From indices of cells and a seed to the group of each of them, ``(n,)`` int64."""

    from scmoe.model._cplmixvae_module import CplMixVAEModule

logger = logging.getLogger("scmoe")


MAX_EPOCHS = 500
"""A default training sees every cell at most so often."""


class Recipe(NamedTuple):
    """Optimiser steps of each stage of a default training, cells of a batch, learning rate."""

    start: int
    main: int
    prune: int
    batch_size: int
    lr: float


FROM_GRAPH = Recipe(500, 3000, 300, 500, 1e-3)
"""Where arms start from communities of the neighbour graph."""

FROM_TREE = Recipe(300, 600, 150, 1000, 2e-3)
"""Where they start from leaves of a density tree, which longer trainings lose again."""


class Stages(NamedTuple):
    """Epochs of each stage."""

    start: int
    """In which groups are learned."""
    main: int
    prune: int
    """After each round of pruning."""


def stage_epochs(
    n_batches: int, main: int | None, start: int | None, prune: int | None, recipe: Recipe
) -> Stages:
    """Return the epochs of each stage; None uses the number of optimiser steps of the recipe."""
    if main is None:
        main = min(math.ceil(recipe.main / n_batches), MAX_EPOCHS)
    if start is None:
        start = min(math.ceil(recipe.start / n_batches), main)
    if prune is None:
        most = MAX_EPOCHS * recipe.prune // recipe.main
        prune = min(math.ceil(recipe.prune / n_batches), most)
    return Stages(start, main, prune)


N_COMPONENTS = 50
"""Principal components of wide data; up to so many features are taken as they are (scanpy)."""


def places(counts: np.ndarray | None, scaled: np.ndarray, seed: int) -> np.ndarray:
    """Coordinates in which neighbours are sought, ``(n, <= 50)`` float32.

    Parameters
    ----------
    counts
        ``(n, n_input)``; their logarithms at one total for all cells are looked at. None where
        the values are no counts.
    scaled
        The cells as the networks see them, ``(n, n_input)``.
    seed
        Of the approximate decomposition.
    """
    x = scaled
    if counts is not None:
        total = np.maximum(counts.sum(1, keepdims=True), 1)
        x = np.log1p(counts / total * np.median(total))
    if x.shape[1] <= N_COMPONENTS:
        return np.ascontiguousarray(x, dtype=np.float32)
    n = min(N_COMPONENTS, len(x))
    solver = "randomized" if n < min(x.shape) else "full"
    return PCA(n, svd_solver=solver, random_state=seed).fit_transform(x).astype(np.float32)


LEAST_SIZE = 10
"""Cells of the smallest community that is learned."""

SHARE = 0.5
"""Of the cells, in which the groups of an arm are sought."""


def check_start(start: Any, epochs: int | None) -> None:
    """Raise ValueError for settings of the start that make no sense."""
    if not isinstance(start, bool):
        raise ValueError(f"`start` must be True, False or None, got {start!r}.")
    if epochs is not None:
        check_whole("start_epochs", epochs, 1)


def leaves(values: np.ndarray, n_categories: int | None, seed: int) -> Tree | None:
    """Grow the density tree that arms start from, cut at a number that is known.

    Parameters
    ----------
    values
        Markers as they are, ``(n, n_input)``.
    n_categories
        None for as many as there are.
    seed
        Of the tree.

    Returns
    -------
    The tree, with ``n_categories`` clusters, or two or more; None where it has fewer.
    """
    tree = grow(values, np.arange(values.shape[1]).astype(str), seed=seed)
    if tree.n_clusters < (n_categories or 2):
        logger.info(
            "The density tree has no more than %d leaves: the arms start from communities of the "
            "neighbour graph.",
            tree.n_clusters,
        )
        return None
    if n_categories is None or tree.n_clusters == n_categories:
        return tree
    return tree.merge(tree.cut(n_clusters=n_categories))


def of_tree(values: np.ndarray, whole: Tree) -> Find:
    """Find the leaves of a density tree of some cells, at most as many as the tree of all has.

    Of fewer cells the same valley is less significant.
    """

    def find(cells: np.ndarray, seed: int) -> np.ndarray:
        tree, n = whole, whole.n_clusters
        if len(cells) < len(values):
            less = SIGNIFICANCE * math.sqrt(len(cells) / len(values))
            tree = grow(values[cells], whole.markers, significance=less, seed=seed)
        if tree.n_clusters > n:
            tree = tree.merge(tree.cut(n_clusters=n))
        return tree.predict(values[cells]).astype(np.int64)

    return find


def of_graph(graph: csr_matrix, n_categories: int) -> Find:
    """Find the communities of some cells in a neighbour graph."""

    def find(cells: np.ndarray, seed: int) -> np.ndarray:
        return communities(graph[cells][:, cells], n_categories, LEAST_SIZE, seed)

    return find


def start_categories(
    find: Find, n_cells: int, n_categories: int, n_arms: int, seed: int
) -> np.ndarray:
    """Find the groups that each arm learns first, among cells of its own.

    Arms that learn the same partition would agree on it, right or wrong. So each of several gets
    a random half of the cells, and their groups: what a partition owes to chance the arms
    learn differently. They have the names of those groups of all cells that they have most
    cells in common with (the assignment by which the sum over all is largest). A single arm
    learns those of all cells, and so does one whose half shows less than two, which would be a
    name for everything or for nothing.

    Parameters
    ----------
    find
        From indices of cells and a seed to the group of each, -1 for none.
    n_cells
        n.
    n_categories
        How many groups there are at most.
    n_arms
        A.
    seed
        Of the halves, and of the groups.

    Returns
    -------
    ``(n, A)`` int64, below ``n_categories``; -1 for cells that an arm is taught nothing about.
    """
    whole = find(np.arange(n_cells), seed)
    if n_arms == 1:
        return whole[:, None]
    rng = np.random.default_rng(seed)
    taught = np.full((n_cells, n_arms), -1, dtype=np.int64)
    for arm in range(n_arms):
        cells = np.sort(rng.permutation(n_cells)[: round(SHARE * n_cells)])
        own = find(cells, seed + arm)
        if own.max() < 1:
            taught[:, arm] = whole
        else:
            taught[cells, arm] = _named_like(whole[cells], own, n_categories)
    return taught


def _named_like(known: np.ndarray, found: np.ndarray, n: int) -> np.ndarray:
    """Rename the groups of one partition after those of another with most cells in common."""
    there = found >= 0
    both = there & (known >= 0)
    common = np.zeros((n, n))
    np.add.at(common, (found[both], known[both]), 1)
    name = linear_sum_assignment(common, maximize=True)[1]
    return np.where(there, name[found], -1)


THRESHOLD = 0.75
"""Consensus that every category must have."""


def check_pruning(prune: Any, epochs: int | None, threshold: Any, n_arms: int) -> None:
    """Raise ValueError for settings of a pruning that make no sense."""
    if not isinstance(prune, bool):
        raise ValueError(f"`prune` must be True, False or None, got {prune!r}.")
    if prune and n_arms == 1:
        raise ValueError(
            "Pruning looks at how far arms agree, and there is one: use more arms, or give the "
            "number of clusters (`n_clusters`, of the model `n_categories`) without `prune`."
        )
    if epochs is not None:
        check_whole("prune_epochs", epochs, 1)
    if not (is_number(threshold) and 0 < threshold <= 1):
        raise ValueError(f"`threshold` must be above 0 and at most 1, got {threshold!r}.")


def prune(
    module: CplMixVAEModule,
    votes: Callable[[], np.ndarray],
    loss: Callable[[], float],
    fit: Callable[[], None],
    threshold: float,
) -> tuple[pd.DataFrame, torch.Tensor, dict[str, torch.Tensor]]:
    """Remove the category with the lowest consensus until the arms agree on all.

    Categories without a cell in any arm go together, before the others are looked at.

    Parameters
    ----------
    module
        The trained module; its ``live`` is changed.
    votes
        The category of each cell in each arm, ``(A, n)``.
    loss
        The loss that the last training ended with.
    fit
        Trains on.
    threshold
        Consensus that every category must have.

    Returns
    -------
    The curve, a row for each number of categories (``n_categories``, ``consensus``, the mean,
    ``lowest``, ``loss``); the categories of the first row that is good enough, or of the best,
    ``(n,)`` int64; and the weights then.

    Raises
    ------
    ValueError
        Where fewer than two categories have cells.
    """
    rows, best = [], None
    while True:
        said = votes()
        scores = category_consensus(said, module.n_experts)
        used = np.isin(np.arange(module.n_experts), said)
        n_left = int(used.sum())
        if n_left < 2:
            if best is not None:
                break
            raise ValueError(
                "All cells came to one category, and nothing is left to prune: train longer, "
                "with a smaller `coupling_weight`, or on markers that tell types apart."
            )
        module.live.copy_(torch.from_numpy(used))
        mean, lowest = float(scores[used].mean()), float(scores[used].min())
        rows.append({"n_categories": n_left, "consensus": mean, "lowest": lowest, "loss": loss()})
        logger.info("%d categories, consensus %.3f, lowest %.3f.", n_left, mean, lowest)
        if best is None or lowest > best[0]:
            weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            best = lowest, torch.from_numpy(np.flatnonzero(used)), weights
        if lowest >= threshold or n_left == 2:
            break
        module.live[int(np.where(used, scores, np.inf).argmin())] = False
        fit()
    _, keep, weights = best
    return pd.DataFrame(rows), keep.to(module.live.device), weights
