"""Votes of partitions."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from scmoe.similarity import CoAssociation
from scmoe.similarity import _coassociation as module
from scmoe.similarity._coassociation import CoAssociationTarget, communities, metaclusters

PARTITIONS = np.array(
    [
        # a coarse vote of weight 2, two fine ones of weight 1
        [0, 0, 0],
        [0, 1, 1],
        [1, 0, 0],
        [0, 0, 5],
    ]
)
WEIGHTS = [2, 1, 1]
SHARES = np.array(
    [
        [1.0, 0.5, 0.5, 0.75],
        [0.5, 1.0, 0.0, 0.5],
        [0.5, 0.0, 1.0, 0.25],
        [0.75, 0.5, 0.25, 1.0],
    ]
)


def cliques(*sizes, bridge=None):
    """Cells in cliques, optionally with one weak edge between the first two."""
    blocks = [np.ones((s, s)) - np.eye(s) for s in sizes]
    graph = sparse.block_diag(blocks, format="lil")
    if bridge:
        graph[0, sizes[0]] = graph[sizes[0], 0] = bridge
    return sparse.csr_matrix(graph, dtype=np.float32)


def cells_with(graph, X):
    adata = AnnData(np.asarray(X, dtype=np.float32))
    adata.obsp["connectivities"] = graph
    return adata


def test_shares_by_hand():
    target = CoAssociationTarget(PARTITIONS, WEIGHTS, majority=False)
    np.testing.assert_array_equal(target.dense(np.arange(4)), SHARES.astype(np.float32))


def test_majority_by_hand_and_a_tie_is_no():
    target = CoAssociationTarget(PARTITIONS, WEIGHTS, majority=True)
    np.testing.assert_array_equal(target.dense(np.arange(4)), SHARES > 0.5)


@pytest.mark.parametrize("majority", [False, True])
def test_listed_votes_are_the_dense_ones(majority):
    target = CoAssociationTarget(PARTITIONS, WEIGHTS, majority)
    cells = np.array([3, 1, 0])
    rows, similarity, weight = target.listed(cells, np.random.default_rng(0))
    np.testing.assert_array_equal(similarity, target.dense(cells)[rows[0], rows[1]])
    assert len(np.unique(weight)) == 1


@pytest.mark.parametrize(("n_coarse", "n_fine"), [(5, 5), (3, 7), (2, 0), (0, 4)])
def test_both_kinds_have_the_same_say(linked, n_coarse, n_fine):
    similarity = CoAssociation(resolutions=(0.5,) * n_coarse, fine_resolutions=(5.0,) * n_fine)
    target = similarity.bind(linked, linked.X)
    assert target.partitions.shape == (n_coarse + n_fine, 600)
    coarse, fine = target.weights[:n_coarse].sum(), target.weights[n_coarse:].sum()
    if n_coarse and n_fine:
        assert coarse == fine
    assert (target.weights > 0).all()


def test_similar_cells_are_of_one_population(linked):
    s = CoAssociation().bind(linked, linked.X).dense(np.arange(600))
    population = linked.obs["population"].cat.codes.to_numpy()
    same = population[:, None] == population[None]
    assert s[~same].mean() < 0.01
    assert s[same].mean() > 0.5


def test_same_graph_same_answer(linked):
    first, second = (CoAssociation().bind(linked, linked.X) for _ in range(2))
    np.testing.assert_array_equal(first.partitions, second.partitions)


def test_global_generator_of_numpy_neither_decides_nor_changes(linked):
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(1)  # noqa: NPY002
        first = CoAssociation().bind(linked, linked.X)
        np.random.seed(2)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        second = CoAssociation().bind(linked, linked.X)
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    finally:
        np.random.set_state(state)  # noqa: NPY002
    np.testing.assert_array_equal(first.partitions, second.partitions)


def test_small_groups_are_drawn_more_often():
    # weights of one over the root of the size: 900 / 30 against 100 / 10
    group = np.repeat([0, 1], [900, 100])
    target = CoAssociationTarget(np.stack([group, 1 - group], axis=1), [1, 1], majority=True)
    rng = np.random.default_rng(0)
    batches = [b for _ in range(20) for b in target.batches(np.arange(1000), 100, rng)]
    assert len(batches) == 20 * 10
    assert {len(b) for b in batches} == {100}
    drawn = np.concatenate(batches)
    assert (drawn >= 900).mean() == pytest.approx(0.25, abs=0.02)
    # within a group everybody is as likely
    count = np.bincount(drawn[drawn < 900], minlength=900)
    assert count.max() < 3 * count.mean()


def test_batches_are_positions_in_the_cells_that_train():
    group = np.repeat([0, 1], [900, 100])
    target = CoAssociationTarget(group[:, None], [1], majority=True)
    cells = np.r_[950:1000, 0:50]  # half and half: nobody is drawn more often
    batches = list(target.batches(cells, 30, np.random.default_rng(0)))
    assert [len(b) for b in batches] == [30] * 4
    drawn = np.concatenate(batches)
    assert drawn.min() >= 0
    assert drawn.max() < 100
    assert (drawn < 50).mean() == pytest.approx(0.5, abs=0.15)


def test_batch_that_is_larger_than_the_data():
    target = CoAssociationTarget(np.zeros((7, 1), int), [1], majority=True)
    assert [b.shape for b in target.batches(np.arange(7), 256, np.random.default_rng(0))] == [(7,)]


def test_communities_of_cliques():
    label = communities(cliques(4, 6, 5, bridge=0.1), 1.0)
    assert label.min() == 0
    assert len(set(label[:4])) == len(set(label[4:10])) == len(set(label[10:])) == 1
    assert len({label[0], label[4], label[10]}) == 3


def test_finer_resolution_gives_more_communities(linked):
    graph = linked.obsp["connectivities"]
    assert communities(graph, 5.0).max() > communities(graph, 0.2).max()


def test_metaclusters_by_hand():
    # four communities on a line at 0, 1, 10, 11; the larger share of cells at 0 and 11
    community = np.repeat([0, 1, 2, 3], [4, 2, 2, 4])
    profile = np.repeat([0.0, 1.0, 10.0, 11.0], [4, 2, 2, 4])[:, None]
    scale = np.sqrt(((profile - profile.mean()) ** 2).mean())
    # 1 merges the neighbours, 10 is the mean distance of the two pairs
    for distance, groups in [
        (0.9, [{0}, {1}, {2}, {3}]),
        (1.1, [{0, 1}, {2, 3}]),
        (9.9, [{0, 1}, {2, 3}]),
        (10.1, [{0, 1, 2, 3}]),
    ]:
        merged = metaclusters(profile, community, distance / scale)
        assert merged.min() == 0
        found = [set(community[merged == m]) for m in np.unique(merged)]
        assert sorted(found, key=min) == groups


def test_metaclusters_do_not_depend_on_the_unit():
    rng = np.random.default_rng(0)
    community = rng.permutation(np.arange(200) % 12)
    profile = rng.normal(size=(200, 3)) + 3 * rng.normal(size=(12, 3))[community]
    a = metaclusters(profile, community, 0.7)
    b = metaclusters(1000 * profile + 5, community, 0.7)
    np.testing.assert_array_equal(a, b)
    assert 1 < len(np.unique(a)) < 12


def test_metaclusters_of_one_community():
    community = np.zeros(5, dtype=int)
    np.testing.assert_array_equal(metaclusters(np.eye(5), community, 0.7), community)


def test_too_many_communities(monkeypatch):
    monkeypatch.setattr(module, "MAX_COMMUNITIES", 3)
    adata = cells_with(cliques(3, 3, 3, 3), np.random.default_rng(0).normal(size=(12, 2)))
    with pytest.raises(ValueError, match=r"falls apart into 4 communities.*more neighbours"):
        CoAssociation().bind(adata, adata.X)


def test_disconnected_graph():
    # the two halves look alike, but no path links them: the coarse votes say no
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    adata = cells_with(cliques(20, 20), X)
    s = CoAssociation().bind(adata, adata.X).dense(np.arange(40))
    half = np.repeat([0, 1], 20)
    assert s[half[:, None] != half[None]].max() == 0


def test_cells_without_edges():
    graph = cliques(10, 10)
    graph.resize(23, 23)
    adata = cells_with(graph, np.random.default_rng(0).normal(size=(23, 2)))
    s = CoAssociation().bind(adata, adata.X).dense(np.arange(23))
    np.testing.assert_array_equal(s.diagonal(), 1)
    assert np.isfinite(s).all()


def test_what_it_found_is_logged(linked, caplog):
    CoAssociation(resolutions=(0.1,), fine_resolutions=(8.0,)).bind(linked, linked.X)
    assert [r.name for r in caplog.records] == ["scmoe"]
    assert "communities" in caplog.text


def test_errors_of_the_graph(blobs):
    with pytest.raises(KeyError, match=r"sc\.pp\.neighbors"):
        CoAssociation().bind(blobs, blobs.X)
    with pytest.raises(KeyError, match=r"'mine'.*sc\.pp\.neighbors"):
        CoAssociation(neighbors_key="mine").bind(blobs, blobs.X)
    blobs.obsp["connectivities"] = sparse.csr_matrix((600, 600))
    with pytest.raises(ValueError, match="no edge"):
        CoAssociation().bind(blobs, blobs.X)
