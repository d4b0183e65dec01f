"""Nearest neighbours and the graph of them, beside scanpy's and umap-learn's."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from umap.umap_ import fuzzy_simplicial_set

from scmoe._core import neighbors
from scmoe._core.neighbors import (
    _by_faiss,
    components,
    connectivities,
    nearest,
    neighbor_graph,
    with_itself,
)


def groups(n=150, d=6):
    """A dense and a sparse population, and a few cells far from both."""
    rng = np.random.default_rng(0)
    x = np.vstack([rng.normal(size=(n, d)), 8 + 3 * rng.normal(size=(n, d)), [[40] * d, [41] * d]])
    return x.astype(np.float32)


def copies():
    """Cells of which many are at the same place, more than there are neighbours."""
    x = groups()
    x[:40] = x[0]
    x[40:43] = x[40]
    return x


def by_hand(x, k, among):
    return ((x[:, None] - among) ** 2).sum(2).argsort(axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("x", [groups(), copies()], ids=["groups", "copies"])
def test_weights_are_those_of_umap(x):
    positions, distances = with_itself(*nearest(x, 14))
    theirs, *_ = fuzzy_simplicial_set(
        x, 15, np.random.RandomState(0), "euclidean", knn_indices=positions, knn_dists=distances
    )
    ours = connectivities(positions, distances)
    np.testing.assert_allclose(ours.toarray(), theirs.toarray(), atol=1e-4)
    assert ours.dtype == np.float32
    assert ours.diagonal().max() == 0


def test_graph_is_that_of_scanpy():
    cells = ad.AnnData(groups())
    sc.pp.neighbors(cells, use_rep="X", transformer="sklearn")
    ours = neighbor_graph(cells.X).toarray()
    np.testing.assert_allclose(ours, cells.obsp["connectivities"].toarray(), atol=1e-4)


@pytest.mark.parametrize("n", [2, 8, 15])
def test_of_few_cells_all_are_neighbours(n):
    graph = neighbor_graph(groups()[:n])
    assert graph.nnz == n * (n - 1)
    assert np.isfinite(graph.data).all()


def test_components_are_those_of_scanpy():
    x = np.random.default_rng(0).normal(size=(80, 60)).astype(np.float32)
    ours, theirs = components(x, 0), sc.pp.pca(x, n_comps=50)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-3)


def test_cells_among_others():
    x = groups()
    positions, distances = nearest(x, 4, among=x[:30])
    np.testing.assert_array_equal(positions, by_hand(x, 4, x[:30]))
    np.testing.assert_allclose(
        distances, np.linalg.norm(x[:, None] - x[positions], axis=2), atol=1e-4
    )


def test_no_cell_is_a_neighbour_of_its_own():
    x = copies()
    positions, distances = nearest(x, 5)
    assert (positions != np.arange(len(x))[:, None]).all()
    assert (distances[:40] == 0).all()


def test_faiss_finds_the_same():
    pytest.importorskip("faiss")
    x = groups()
    for among in (None, x[:30]):
        ours = _by_faiss(x, 5, among)
        np.testing.assert_allclose(ours[1], nearest(x, 5, among)[1], atol=1e-5)
    positions, distances = _by_faiss(copies(), 5, None)
    assert (positions != np.arange(len(x))[:, None]).all()
    assert (distances[:43, 0] == 0).all()


def test_many_cells_are_announced(monkeypatch, caplog):
    monkeypatch.setattr(neighbors, "MANY", 100)
    with caplog.at_level(logging.WARNING, "scmoe"):
        nearest(groups()[:100], 3)
        assert not caplog.records
        nearest(groups(), 3)
    assert "302 cells among 302" in caplog.text
