"""Communities that are found again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from scmoe._core.neighbors import neighbor_graph, partition
from scmoe._estimate import stable_clusters
from scmoe._estimate._stability import _majority, _subsets, stability_row
from scmoe.metrics._agreement import best_jaccard


def groups(sizes, seed=0, n_features=8):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    centres = 6 * rng.normal(size=(len(sizes), n_features))
    codes = centres[group] + rng.normal(size=(len(group), n_features))
    order = rng.permutation(len(group))
    return codes[order].astype(np.float32), group[order]


@pytest.fixture(scope="module")
def found():
    codes, group = groups([200, 120, 80, 40])
    return stable_clusters(neighbor_graph(codes), n_samples=4), group


def test_groups(found):
    found, group = found
    assert found.n_clusters == 4
    assert adjusted_rand_score(group, found.labels) == 1
    assert np.bincount(found.labels).tolist() == [200, 120, 80, 40]
    assert found.labels.dtype == np.int64
    assert found.noise == 0
    assert found.embedding is None


def test_memberships(found):
    proba = found[0].proba
    assert proba.shape == (440, 4)
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(proba.argmax(axis=1), found[0].labels)


def test_evidence(found):
    table = found[0].table
    chosen = table[table["chosen"]]
    assert len(chosen) == 1
    assert chosen["n_clusters"].item() == chosen["stable"].item() == 4
    assert chosen["resolution"].item() == found[0].settings["resolution"]
    assert table["stability"].between(0, 1).all()
    assert table["resolution"].is_monotonic_increasing


@pytest.mark.parametrize("seed", range(3))
def test_many_clusters_are_not_split(seed):
    codes, _ = groups([60] * 20, seed)
    found = stable_clusters(neighbor_graph(codes), n_samples=4, seed=seed)
    assert found.n_clusters == 20


def test_one_cloud_is_one_cluster():
    codes = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    found = stable_clusters(neighbor_graph(codes), n_samples=4)
    assert found.n_clusters == 1
    assert not found.table["chosen"].any()
    np.testing.assert_array_equal(found.proba, np.ones((600, 1)))
    np.testing.assert_array_equal(found.labels, 0)


def test_same_seed_same_answer():
    graph = neighbor_graph(groups([60, 50, 40])[0])
    first, second = (stable_clusters(graph, n_samples=3, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.proba, second.proba)
    assert first.table.equals(second.table)


def test_subsets_and_the_order_of_cells_follow_the_seed():
    graph = sparse.random(60, 60, 0.1, "csr", random_state=0)
    graph = (graph + graph.T).tocsr()
    (cells, part), (other, _) = _subsets(graph, 2, 0.5, 0)
    assert len(cells) == 30
    assert (np.diff(cells) > 0).all()
    np.testing.assert_array_equal(part.toarray(), graph.toarray()[np.ix_(cells, cells)])
    again, another = (_subsets(graph, 1, 0.5, seed)[0][0] for seed in (0, 1))
    np.testing.assert_array_equal(again, cells)
    assert not np.array_equal(other, cells)
    assert not np.array_equal(another, cells)
    # where there are no communities, what is found hangs on who is looked at first
    first, second = (partition(graph, 1.0, seed) for seed in (0, 0))
    np.testing.assert_array_equal(first, second)
    ari = [adjusted_rand_score(first, partition(graph, 1.0, seed)) for seed in (1, 2, 3)]
    assert min(ari) < 0.9


def test_lonely_cells_are_noise():
    codes, _ = groups([60, 50])
    graph = sparse.lil_matrix((115, 115), dtype=np.float32)
    graph[:110, :110] = neighbor_graph(codes)
    found = stable_clusters(graph.tocsr(), n_samples=3, resolutions=[0.1, 0.2])
    assert found.n_clusters == 2
    np.testing.assert_array_equal(found.labels[110:], -1)
    np.testing.assert_allclose(found.proba.sum(axis=1), 1, atol=1e-6)
    assert found.noise == pytest.approx(5 / 115)


def test_subsets_without_edges():
    graph = sparse.csr_matrix(([1.0, 1.0], ([0, 1], [1, 0])), shape=(12, 12))
    found = stable_clusters(graph, n_samples=8, share=0.2, resolutions=[1.0])
    assert found.n_clusters == 1


def test_jaccard_by_hand():
    found = np.array([0, 0, 0, 1, 1, 1])
    other = np.array([0, 0, 1, 1, 1, 1])
    # {0,1,2} with {0,1}: 2 of 3; {3,4,5} with {2,3,4,5}: 3 of 4; no cell of the third
    np.testing.assert_allclose(best_jaccard(found, other, 3), [2 / 3, 3 / 4, np.nan])


def test_row_by_hand():
    found = np.array([0, 0, 0, 1, 1, 1])
    everybody = np.arange(6)
    again = [(everybody, found), (everybody, np.array([0, 0, 1, 1, 1, 1]))]
    row = stability_row(found, again, 3)
    # stabilities (1 + 2/3) / 2 and (1 + 3/4) / 2
    assert row["n_clusters"] == row["stable"] == 2
    assert row["stability"] == pytest.approx((5 / 6 + 7 / 8) / 2)
    assert row["spread"] == pytest.approx((1 - (2 / 3 + 3 / 4) / 2) / 2)
    assert stability_row(found, again, 4)["n_clusters"] == 0


def test_majority_by_hand():
    found = np.array([0, 0, 0, 1, 1, 1, 1])
    everybody = np.arange(7)
    merged = np.zeros(7, dtype=int)
    moved = np.array([0, 0, 1, 1, 1, 1, 1])
    labels, proba = _majority(found, [(everybody, moved), (everybody, moved)], 1)
    # the third cell is outvoted; the larger cluster is number 0
    assert labels.tolist() == [1, 1, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(proba[2], [2 / 3, 1 / 3], atol=1e-3)
    # a community of a subset that holds both stands for the larger
    labels, proba = _majority(found, [(everybody, merged)], 1)
    assert labels.tolist() == [1, 1, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(proba[0], [0.5, 0.5], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"resolutions": []}, "`resolutions`"),
        ({"resolutions": [0.0, 1.0]}, "`resolutions`"),
        ({"resolutions": [1.0, float("nan")]}, "`resolutions`"),
        ({"resolutions": ["a"]}, "`resolutions`"),
        ({"resolutions": 1.0}, "`resolutions`"),
        ({"share": "a"}, "`share`"),
        ({"n_samples": 1}, "`n_samples`"),
        ({"share": 1.0}, "`share`"),
        ({"min_cluster_size": 0}, "`min_cluster_size`"),
        ({"min_cluster_size": 111}, "only 110 cells"),
    ],
)
def test_settings_out_of_range(settings, match):
    graph = neighbor_graph(groups([60, 50])[0])
    with pytest.raises(ValueError, match=match):
        stable_clusters(graph, **settings)


def test_no_graph():
    with pytest.raises(ValueError, match="no edge"):
        stable_clusters(sparse.csr_matrix((20, 20)))
    with pytest.raises(ValueError, match="9 cells"):
        stable_clusters(sparse.csr_matrix((9, 9)))
