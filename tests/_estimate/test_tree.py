"""Populations between the valleys of the density."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from scmoe._estimate import find_n_clusters, grown_clusters, tree_clusters
from scmoe.tree import grow

CENTRES = np.array([[0, 0, 0], [5, 0, 0], [0, 9, 9]])
SIZES = (500, 300, 200)


@pytest.fixture(scope="module")
def cells():
    """Three populations, two of which touch; and which is whose."""
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], SIZES)
    return (CENTRES[truth] + rng.normal(size=(1000, 3))).astype(np.float32), truth


@pytest.fixture(scope="module")
def found(cells):
    return tree_clusters(cells[0])


def test_clusters(cells, found):
    x, truth = cells
    assert found.method == "tree"
    assert found.n_clusters == 3
    assert found.noise == 0
    assert adjusted_rand_score(truth, found.labels) > 0.97
    assert (np.diff(np.bincount(found.labels)) < 0).all()
    assert found.proba.dtype == np.float32
    np.testing.assert_allclose(found.proba.sum(axis=1), 1, atol=1e-6)
    assert (found.proba.argmax(axis=1) == found.labels).mean() > 0.99
    # half-way between the first two populations nobody knows
    inside = np.abs(x[:, 0] - 2.5) < 0.3
    assert inside.any()
    assert found.proba[inside & (truth < 2)].max(axis=1).mean() < 0.95
    assert found.proba[truth == 2].max(axis=1).mean() > 0.99
    assert found.settings == {"significance": 3.5, "depth": 0.5, "min_cluster_size": 12}


def test_evidence_is_the_tree_cut_coarser(cells, found):
    table = found.table
    assert list(table.columns) == [
        *("significance", "n_clusters", "stable", "stability", "spread", "ari", "chosen"),
    ]
    assert table["chosen"].tolist() == [True, *[False] * (len(table) - 1)]
    assert table["significance"].iloc[:3].tolist() == [3.5, 4.95, 7.0]
    assert table["n_clusters"].iloc[0] == table["stable"].iloc[0] == 3
    assert table["n_clusters"].is_monotonic_decreasing
    assert table["n_clusters"].iloc[-1] == 1
    tree = grow(cells[0], np.arange(3).astype(str), seed=0)
    weak, strong = sorted(tree.significance)
    by_hand = [1 + (weak >= level) + (strong >= level) for level in table["significance"]]
    assert table["n_clusters"].tolist() == by_hand
    chosen = tree_clusters(cells[0], evidence=[50, 6]).table
    assert chosen["significance"].tolist() == [3.5, 6, 50]


def test_the_order_of_the_cells_does_not_matter(cells, found):
    order = np.random.default_rng(1).permutation(1000)
    again = tree_clusters(cells[0][order], evidence=())
    np.testing.assert_array_equal(again.labels, found.labels[order])


def test_stricter_and_larger(cells):
    x, truth = cells
    assert tree_clusters(x, significance=1e3).n_clusters == 1
    assert tree_clusters(x, min_cluster_size=250).n_clusters == 2
    two = tree_clusters(x, 2)
    assert two.n_clusters == 2
    assert two.proba.shape == (1000, 2)
    # the clearest valley is kept
    assert adjusted_rand_score(truth == 2, two.labels) == 1
    assert tree_clusters(x, 9).n_clusters == 3


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(size=(2000, 6)),
        lambda rng: rng.standard_t(3, size=(2000, 6)),
        lambda rng: np.arcsinh(rng.poisson(4, size=(2000, 6)) / 5),
    ],
    ids=["normal", "heavy tails", "counts"],
)
def test_one_population_is_one(draw):
    assert tree_clusters(draw(np.random.default_rng(0)), evidence=()).n_clusters == 1


def test_a_tree_that_is_grown_already(cells):
    x, _ = cells
    tree = grow(x, np.arange(3).astype(str))
    proba = np.eye(3, dtype=np.float32)[tree.predict(x)]
    known = grown_clusters(tree, proba, 3.5)
    own = tree_clusters(x)
    assert known.n_clusters == 3
    np.testing.assert_array_equal(known.labels, own.labels)
    assert known.table.equals(own.table[["significance", "n_clusters", "chosen"]])


def test_little(cells):
    x, _ = cells
    assert tree_clusters(x[:10]).n_clusters == 1
    assert tree_clusters(x[:, :1]).n_clusters == 2
    beside = np.concatenate([x, np.ones((1000, 1))], axis=1)
    assert tree_clusters(beside, evidence=()).n_clusters == 3


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"significance": -1}, "`significance` must be 0 or more, got -1"),
        ({"significance": np.nan}, "`significance` must be"),
        ({"significance": "high"}, "`significance` must be"),
        ({"depth": 0}, "`depth` must be above 0 and at most 1, got 0"),
        ({"depth": 1.5}, "`depth` must be"),
        ({"min_cluster_size": 0}, "`min_cluster_size` must be"),
        ({"min_cluster_size": 1001}, "`min_cluster_size` is 1001, but there are only 1000 cells"),
        ({"evidence": [2]}, "`evidence` must be numbers of at least 3.5"),
        ({"n_samples": 3}, "`method='tree'` has no 'n_samples'; it has depth, evidence, min"),
        ({"n_clusters": 3}, "has no 'n_clusters'"),
    ],
)
def test_settings(cells, settings, match):
    with pytest.raises(ValueError, match=match):
        find_n_clusters(cells[0], settings=settings, method="tree")


def test_values_that_say_nothing():
    with pytest.raises(ValueError, match="9 cells"):
        tree_clusters(np.eye(9))
    with pytest.raises(ValueError, match="NaN"):
        tree_clusters(np.full((20, 2), np.nan))
    with pytest.raises(ValueError, match="same for all cells"):
        tree_clusters(np.ones((20, 2)))
