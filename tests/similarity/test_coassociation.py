"""Votes of partitions."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from scmoe._core.neighbors import neighbor_graph
from scmoe.similarity import CoAssociation, Similarity
from scmoe.similarity import _coassociation as module
from scmoe.similarity._coassociation import CoAssociationTarget, metaclusters, separations

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
    blocks = [sparse.csr_matrix(np.ones((s, s)) - np.eye(s)) for s in sizes]
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
def test_metaclusters_have_twice_the_say(linked, n_coarse, n_fine):
    similarity = CoAssociation(resolutions=(0.5,) * n_coarse, fine_resolutions=(5.0,) * n_fine)
    target = similarity.bind(linked, linked.X)
    assert target.partitions.shape == (n_coarse + n_fine, 600)
    coarse, fine = target.votes[:n_coarse].sum(), target.votes[n_coarse:].sum()
    if n_coarse and n_fine:
        assert 2 * coarse == fine
    assert (target.votes > 0).all()


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


def test_metaclusters_by_hand():
    # communities at 0, 1, 10 and 11; within each a standard deviation of 1 by the pooled variance
    community = np.repeat([0, 1, 2, 3], 1000)
    inside = np.tile([-1.0, 1.0], 2000)
    profile = np.stack([np.repeat([0.0, 1.0, 10.0, 11.0], 1000) + inside, np.ones(4000)], axis=1)
    for separation, groups in [
        (0.9, [{0}, {1}, {2}, {3}]),
        (1.1, [{0, 1}, {2, 3}]),
        (9.8, [{0, 1}, {2, 3}]),
        (10.1, [{0, 1, 2, 3}]),
    ]:
        merged = metaclusters(profile, community, separation)
        assert merged.min() == 0
        found = [set(community[merged == m]) for m in np.unique(merged)]
        assert sorted(found, key=min) == groups


def test_separation_is_that_of_the_best_marker():
    rng = np.random.default_rng(0)
    community = np.arange(3000) % 3
    profile = rng.normal(size=(3000, 20))
    profile[:, 4] += 5 * (community == 1)
    profile[:, 9] += 2 * (community == 2)
    between = separations(profile, community)
    np.testing.assert_array_equal(between, between.T)
    np.testing.assert_allclose(between[[0, 0, 1], [1, 2, 2]], [5, 2, 5], atol=0.2)
    np.testing.assert_array_equal(between.diagonal(), 0)


def test_metaclusters_do_not_depend_on_units():
    rng = np.random.default_rng(0)
    community = rng.permutation(np.arange(200) % 12)
    profile = rng.normal(size=(200, 3)) + 3 * rng.normal(size=(12, 3))[community]
    a = metaclusters(profile, community, 3.0)
    b = metaclusters(profile * [1000, 1, 1e-3] + 5, community, 3.0)
    np.testing.assert_array_equal(a, b)
    assert 1 < len(np.unique(a)) < 12


def test_a_gene_of_one_cell_separates_nothing():
    community = np.arange(1000) // 20
    profile = np.zeros((1000, 2))
    profile[0, 0] = 3.0
    profile[:, 1] = np.random.default_rng(0).normal(size=1000)
    np.testing.assert_array_equal(metaclusters(profile, community, 3.5), 0)


def test_a_marker_that_is_on_or_off():
    community = np.arange(400) // 100
    profile = np.stack([community >= 2, np.zeros(400)], axis=1).astype(float)
    np.testing.assert_array_equal(
        metaclusters(profile, community, 3.5), metaclusters(profile, community // 2, 3.5)
    )
    assert len(np.unique(metaclusters(profile, community, 3.5))) == 2


def test_metaclusters_of_one_community():
    community = np.zeros(5, dtype=int)
    np.testing.assert_array_equal(metaclusters(np.eye(5), community, 3.0), community)


def test_one_population_is_one_group():
    x = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    adata = cells_with(neighbor_graph(x), x)
    target = CoAssociation().bind(adata, x)
    assert target.n_groups == 1
    assert target.dense(np.arange(2000)).mean() > 0.99


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_cells_does_not_matter(blobs, seed):
    rng = np.random.default_rng(seed)
    # a cloud, too, in which communities hang on who is looked at first
    x = np.concatenate([blobs.X, rng.normal(size=(1000, 8))]).astype(np.float32)
    graph = neighbor_graph(x)
    order = rng.permutation(len(x))
    first = CoAssociation(random_state=seed).bind(cells_with(graph, x), x)
    second = CoAssociation(random_state=seed).bind(
        cells_with(graph[order][:, order], x[order]), x[order]
    )
    for before, after in zip(first.partitions[:, order], second.partitions, strict=True):
        assert adjusted_rand_score(before, after) == 1
    np.testing.assert_array_equal(first.groups[order], second.groups)


def test_another_seed_is_another_order(blobs):
    x = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    adata = cells_with(neighbor_graph(x), x)
    first, second = (CoAssociation(random_state=seed).bind(adata, x) for seed in (0, 1))
    assert adjusted_rand_score(first.partitions[5], second.partitions[5]) < 0.9


def test_groups_by_hand(monkeypatch):
    monkeypatch.setattr(module, "MIN_GROUP_SIZE", 2)
    # most common votes first: (0, 0, 0), then (1, 1, 1); (0, 0, 1) is with the first; the last
    # cell agrees with nobody by a majority and is alone
    votes = [[0, 0, 0]] * 3 + [[1, 1, 1]] * 2 + [[0, 0, 1], [2, 1, 3]]
    target = CoAssociationTarget(np.array(votes), [1, 1, 1], majority=True)
    np.testing.assert_array_equal(target.groups, [0, 0, 0, 1, 1, 0, 1])
    assert target.n_groups == 2
    np.testing.assert_array_equal(target.membership, np.eye(2)[target.groups])
    assert target.membership.dtype == np.float32


def test_merged_groups_by_hand(monkeypatch):
    monkeypatch.setattr(module, "MIN_GROUP_SIZE", 1)
    # three groups; the first two have one vote of three in common, the third none with them
    votes = [[0, 0, 0]] * 3 + [[0, 1, 1]] * 2 + [[2, 2, 2]] * 2
    target = CoAssociationTarget(np.array(votes), [1, 1, 1], majority=True)
    assert target.n_groups == 3
    # values say the contrary: votes come first
    merged = target.merged(2, np.array([[0.0]] * 3 + [[9]] * 2 + [[1]] * 2))
    together = [0, 0, 0, 0, 0, 1, 1]
    assert adjusted_rand_score(merged.membership.argmax(1), together) == 1
    cells = np.arange(7)
    np.testing.assert_array_equal(merged.dense(cells), np.equal.outer(together, together))


def test_of_groups_that_no_vote_joins_the_closest_are_merged():
    group = np.repeat([0, 1, 2], 10)
    target = CoAssociationTarget(group[:, None], [1], majority=True)
    merged = target.merged(2, np.array([0.0, 5, 1])[group][:, None])
    assert adjusted_rand_score(merged.membership.argmax(1), group == 1) == 1


def test_groups_are_populations(linked):
    target = CoAssociation().bind(linked, linked.X)
    assert target.n_groups == 5
    assert adjusted_rand_score(target.groups, linked.obs["population"]) == 1
    np.testing.assert_array_equal(target.membership.sum(1), 1)


def test_groups_of_fewer_cells_than_the_smallest_group():
    target = CoAssociationTarget(np.arange(5)[:, None], [1], majority=True)
    assert target.n_groups == 5


def test_records_of_earlier_versions(caplog):
    old = {**CoAssociation().to_dict(), "spread": 0.7}
    with caplog.at_level("WARNING", logger="scmoe"):
        assert Similarity.from_dict(old) == CoAssociation()
    assert "`spread` of CoAssociation is ignored" in caplog.text


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
    with caplog.at_level("INFO", logger="scmoe"):
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
