"""Cells with everything that a similarity may look at."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest


def complete(linked):
    """Add all that a similarity may read, and random weights in the graph.

    ``.obsm["X_umap"]`` is an embedding, ``.obsp["mine"]`` another graph, ``.obs["labels"]``
    the population of two thirds of the cells, ``.obs["sample"]`` one of three samples, and
    ``.obsm["marker_prior"]`` has the same classes as the labels, zeros and twos positives.
    """
    graph = linked.obsp["connectivities"]
    graph.data = np.random.default_rng(1).uniform(0.1, 1, graph.nnz).astype(np.float32)
    linked.obsp["connectivities"] = graph.maximum(graph.T).tocsr()
    linked.obsm["X_umap"] = linked.X[:, :2].copy()
    linked.obsp["mine"] = linked.obsp["connectivities"].power(2)
    rng = np.random.default_rng(5)
    population = linked.obs["population"]
    unknown = rng.permutation(600)[:200]
    labels = population.astype(object)
    labels.iloc[unknown] = np.nan
    linked.obs["labels"] = labels
    linked.obs["sample"] = rng.choice(["healthy", "ill", "other"], 600)
    prior = pd.get_dummies(population).astype(np.float32)
    prior.iloc[unknown[:100]] = 0
    prior.iloc[unknown[100:], :2] = 1
    linked.obsm["marker_prior"] = prior.set_index(linked.obs_names)
    return linked


@pytest.fixture
def linked(linked):
    """The shared blobs, see :func:`complete`."""
    return complete(linked)


@pytest.fixture(scope="module")
def linked_once(linked_once):
    """The shared blobs for the tests that only read them, see :func:`complete`."""
    return complete(linked_once)
