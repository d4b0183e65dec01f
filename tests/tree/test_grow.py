"""Trees of made-up cells: one population is one leaf, and what differs is cut."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scmoe.tree import align, align_groups, grow


def grown(x: np.ndarray, **how):
    return grow(x, np.arange(x.shape[1]), **how)


def blobs(sizes: list[int], n_markers: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Populations that have three high markers each, every one others than those before."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(scale=0.6, size=(len(truth), n_markers))
    for k in range(len(sizes)):
        x[truth == k] += 4 * np.isin(np.arange(n_markers), [k, k + 1, k + 3])
    return x.astype(np.float32), truth


def log_normalised(counts: np.ndarray) -> np.ndarray:
    return np.log1p(1e4 * counts / np.maximum(counts.sum(1, keepdims=True), 1))


NULLS = {
    "Gaussian": lambda g, n, d: g.normal(size=(n, d)),
    "correlated": lambda g, n, d: g.normal(size=(n, d)) @ g.normal(size=(d, d)),
    "heavy tails": lambda g, n, d: g.standard_t(2, (n, d)),
    "skewed": lambda g, n, d: g.gamma(2, 1, (n, d)),
    "uniform": lambda g, n, d: g.uniform(size=(n, d)),
    "rounded": lambda g, n, d: g.normal(size=(n, d)).round(1),
    "arcsinh of counts": lambda g, n, d: np.arcsinh(g.poisson(g.gamma(2, 2, (n, d))) / 5),
    "few counts": lambda g, n, d: g.poisson(0.3, (n, d)),
    "clipped at zero": lambda g, n, d: np.maximum(g.normal(size=(n, d)) + 0.3, 0),
    "half zeros": lambda g, n, d: g.normal(size=(n, d)) * (g.random((n, d)) < 0.5),
    "log of counts over size factors": lambda g, n, d: log_normalised(
        g.poisson(2 * g.lognormal(0, 0.3, (n, 1)) * np.ones((1, d)))
    ),
    "copies": lambda g, n, d: np.repeat(g.normal(size=(n // 5, d)), 5, axis=0),
}


@pytest.mark.parametrize("null", NULLS)
def test_one_population_is_one_leaf(null):
    """At two sizes, three times."""
    for n, d in ((1500, 8), (3000, 20)):
        found = [
            grown(NULLS[null](np.random.default_rng(seed), n, d)).n_clusters for seed in range(3)
        ]
        assert found == [1, 1, 1]


def test_populations_of_all_sizes():
    x, truth = blobs([3000, 1000, 500, 100, 40])
    tree = grown(x)
    assert tree.n_clusters == 5
    assert adjusted_rand_score(truth, tree.predict(x)) > 0.999
    np.testing.assert_allclose(np.bincount(tree.predict(x)), [3000, 1000, 500, 100, 40], atol=3)
    assert tree.sizes[0].sum() == len(x)


def test_order_and_seed():
    """The order of the cells changes nothing; nor does the seed where nothing is drawn."""
    x, _ = blobs([2000, 700, 300, 60], seed=1)
    x += np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    first = grown(x)
    order = np.random.default_rng(3).permutation(len(x))
    again = grown(x[order])
    np.testing.assert_array_equal(first.predict(x)[order], again.predict(x[order]))
    assert adjusted_rand_score(first.predict(x), grown(x, seed=9).predict(x)) > 0.97


@pytest.mark.parametrize(
    "levels", [lambda g: g.random(1000) < 0.3, lambda g: g.integers(0, 3, 1000)]
)
def test_a_marker_of_few_levels_splits(levels):
    rng = np.random.default_rng(0)
    x = np.column_stack([levels(rng), rng.normal(size=(1000, 4))])
    tree = grown(x)
    assert tree.n_clusters == len(np.unique(x[:, 0]))
    assert adjusted_rand_score(x[:, 0], tree.predict(x.astype(np.float32))) == 1


def test_a_region_is_cut_by_the_marker_that_a_person_would_take():
    rng = np.random.default_rng(0)
    x = rng.normal(scale=0.4, size=(2000, 3))
    x[:600, 1] += 3
    tree = grow(x, ["CD3", "CD4", "CD8"])
    assert tree.n_splits == 1
    assert np.abs(tree.weights[0]).argmax() == 1
    assert np.abs(tree.weights[0, 1]) > 0.9
    assert 1 < tree.threshold[0] < 2
    np.testing.assert_allclose(sorted(tree.sizes[0]), [600, 1400], atol=2)
    assert tree.significance[0] > 10
    assert tree.depth[0] < 0.05


@pytest.mark.parametrize(
    ("how", "n_clusters"), [({}, 2), ({"significance": 12}, 1), ({"min_cells": 80}, 1)]
)
def test_what_a_valley_must_have(how, n_clusters):
    x, _ = blobs([1000, 60])
    assert grown(x, **how).n_clusters == n_clusters


def test_a_shallow_valley_is_none():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 20_000), rng.normal(2.9, 1, 20_000)])[:, None]
    assert grown(x, depth=0.9).n_clusters == 2
    assert grown(x, depth=0.3).n_clusters == 1


@pytest.mark.parametrize("n_markers", [1, 2, 300])
def test_few_and_many_markers(n_markers):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, n_markers))
    x[:300, 0] += 8
    tree = grown(x)
    np.testing.assert_array_equal(np.bincount(tree.predict(x.astype(np.float32))), [500, 300])


def test_cells_that_hardly_are_any():
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) + 9])
    assert grown(two[::399]).n_clusters == 1
    assert grown(np.ones((50, 3))).n_clusters == 1
    assert grown(np.column_stack([two, np.ones(400)])).n_clusters == 2
    assert grown(np.column_stack([two, np.eye(400)[0]])).n_clusters == 2
    two[0, 0] = 1e12
    assert grown(two).n_clusters == 2


def test_a_sketch_keeps_rare_populations(monkeypatch):
    """Of more cells the tree is grown on some, and does not find ever more."""
    monkeypatch.setattr("scmoe.tree._grow.MAX_CELLS", 20_000)
    x, truth = blobs([30_000, 15_000, 5_000, 100])
    tree = grown(x)
    assert tree.n_clusters == 4
    assert adjusted_rand_score(truth, tree.predict(x)) > 0.99


def test_batches_are_brought_together():
    """Whatever the shares of the populations in each batch."""
    rng = np.random.default_rng(0)
    x, truth = blobs([3000, 2000, 1000, 500], seed=2)
    batch = rng.integers(0, 3, len(x))
    kept = (
        rng.random(len(x))
        < np.array([[1, 1, 1, 1], [0.1, 1, 0.5, 1], [1, 0.2, 1, 0]])[batch, truth]
    )
    x, truth, batch = x[kept], truth[kept], batch[kept]
    shift = rng.normal(size=(3, x.shape[1]))
    moved = (x + shift[batch]).astype(np.float32)
    assert grown(moved).n_clusters > 4
    first = align(moved, batch)
    for name in range(3):
        np.testing.assert_allclose(first[batch == name].mean(0), moved.mean(0), atol=1e-2)
    group = grown(first, batch=batch).predict(first)
    second = align_groups(moved, batch, group, 12)
    tree = grown(second, batch=batch)
    assert adjusted_rand_score(truth, tree.predict(second)) > 0.98
    # differences between batches are undone: those of shifts alone are left
    undone = np.stack([(moved - second)[batch == name][0] for name in range(3)])
    left = undone - shift
    assert np.abs(left - left.mean(0)).max() < 0.2
