"""What holds for every similarity."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from anndata import AnnData, read_h5ad

from scmoe.nn import listed_similarity, pair_similarity
from scmoe.similarity import (
    Blend,
    CoAssociation,
    Custom,
    DensityTree,
    Differ,
    Graph,
    Knn,
    Labels,
    Pairs,
    Prior,
    Similarity,
    Target,
    Threshold,
)
from scmoe.similarity._base import MAX_DENSE, PARTNERS, random_partners


def tens(cells):
    """Cells of the same ten are alike."""
    return cells[:, None] // 10 == cells[None] // 10


SIMILARITIES = [
    DensityTree(),
    DensityTree(significance=6, batch_key="sample"),
    CoAssociation(),
    CoAssociation(majority=False),
    Graph(),
    Knn(n_neighbors=5),
    Knn(use_rep="X"),
    Threshold(distance=0.7),
    Graph(obsp="mine"),
    Labels("labels"),
    Differ("sample", groups=("healthy", "ill")),
    Prior(),
    Prior(mode="pairs", train_on="all"),
    Custom(tens),
    Blend(CoAssociation(resolutions=(0.5,), fine_resolutions=()), Graph(), weight=0.25),
    Blend(Graph(), Knn(n_neighbors=5)),
    Blend(DensityTree(), Graph(), weight=0.6),
    Blend(Differ("sample"), Graph(obsp="mine"), weight=0.1),
    Blend(Labels("labels"), Differ("sample")),
    Blend(Prior(), Blend(Labels("labels"), Custom(tens)), weight=0.7),
]
OPINIONATED = [
    s for s in SIMILARITIES if not isinstance(s, Labels | Differ | Prior) and s != SIMILARITIES[-2]
]
"""Have an opinion on every pair."""
EXACT_EDGES = (Graph, Knn)
"""List every edge once, and random pairs for the others."""


@pytest.fixture(params=SIMILARITIES, ids=lambda s: f"{type(s).__name__}-{s.to_dict()}")
def similarity(request):
    return request.param


@pytest.fixture
def target(similarity, linked):
    return similarity.bind(linked, linked.X)


@pytest.fixture
def cells():
    return np.random.default_rng(2).permutation(600)[:150]


def test_dense(similarity, target, cells):
    s = target.dense(cells)
    assert s.shape == (150, 150)
    assert s.dtype == np.float32
    assert np.nanmin(s) >= 0
    assert np.nanmax(s) <= 1
    np.testing.assert_array_equal(s, s.T)
    np.testing.assert_array_equal(s.diagonal(), 1)
    assert 0 < np.nanmean(s) < 1
    assert np.isnan(s).any() == (similarity not in OPINIONATED)


def test_dense_belongs_to_the_cells(target, cells):
    order = np.random.default_rng(3).permutation(150)
    s = target.dense(cells)
    np.testing.assert_array_equal(target.dense(cells[order]), s[order][:, order])


def test_dense_of_one_cell(target):
    np.testing.assert_array_equal(target.dense(np.array([17])), [[1]])


def test_a_cell_is_like_its_copy(similarity, target, cells):
    """Batches may be drawn with replacement."""
    if not isinstance(similarity, Custom):
        cells[[3, 70]] = cells[[2, 4]]
        s = target.dense(cells)
        np.testing.assert_array_equal(s[[2, 3, 4, 70], [3, 2, 70, 4]], 1)


def test_at(target, cells):
    cells[[3, 70]] = cells[[2, 4]]
    pairs = np.random.default_rng(0).integers(0, 150, (2, 2000))
    pairs[:, :2] = [[2, 4], [3, 70]]
    s = target.at(cells, pairs)
    assert s.shape == (2000,)
    assert s.dtype == np.float32
    np.testing.assert_array_equal(s, target.dense(cells)[pairs[0], pairs[1]])


def test_classes(similarity, target, cells):
    classes = target.classes(cells)
    assert target.n_classes == len(target.class_names)
    if isinstance(similarity, Prior | Blend) and target.class_share:
        assert 0 < target.class_share <= 1
        assert list(target.class_names) == ["T", "B", "NK", "mono", "pDC"]
        assert classes.shape == (150, 5)
        assert classes.dtype == np.float32
        unknown = np.isnan(classes)
        assert (unknown.all(1) == unknown.any(1)).all()
        assert 0 < unknown.all(1).mean() < 1
    else:
        assert classes is None
        assert target.class_share == 0
        assert target.n_classes == 0


def test_batches(target, cells):
    drawn = target.batches(cells, 32, np.random.default_rng(0))
    if drawn is not None:
        drawn = list(drawn)
        assert len(drawn) == 5
        for batch in drawn:
            assert batch.shape == (32,)
            assert 0 <= batch.min() <= batch.max() < 150


def test_small_batches_are_dense_large_ones_listed(target):
    rng = np.random.default_rng(0)
    cells = rng.choice(600, MAX_DENSE)
    assert isinstance(target(cells, rng), np.ndarray)
    assert isinstance(target(np.append(cells, 0), rng), Pairs)


def test_listed_pairs(target, cells):
    rows, s, weight = target.listed(cells, np.random.default_rng(0))
    assert rows.dtype == np.int64
    assert s.dtype == weight.dtype == np.float32
    assert rows.shape == (2, len(s)) == (2, len(weight))
    assert (rows[0] != rows[1]).all()
    assert rows.min() >= 0
    assert rows.max() < len(cells)
    assert (weight > 0).all()
    np.testing.assert_array_equal(target.dense(cells)[rows[0], rows[1]], s)


def test_weights_sum_to_the_known_pairs(similarity, target, cells):
    rng = np.random.default_rng(0)
    known = np.count_nonzero(~np.isnan(target.dense(cells))) - 150
    total = [target.listed(cells, rng).weight.sum() for _ in range(30)]
    if similarity in OPINIONATED and not isinstance(similarity, Blend):
        np.testing.assert_allclose(total, known, rtol=1e-5)
    assert np.mean(total) == pytest.approx(known, rel=0.03)


@pytest.mark.parametrize(
    "similarity", [s for s in SIMILARITIES if isinstance(s, EXACT_EDGES)], ids=repr, indirect=True
)
def test_listed_edges_are_complete_and_weights_sum_to_all_pairs(target, cells):
    rows, s, weight = target.listed(cells, np.random.default_rng(0))
    dense = target.dense(cells)
    np.fill_diagonal(dense, 0)
    edges = rows[:, s > 0]
    assert len(np.unique(edges, axis=1).T) == edges.shape[1] == np.count_nonzero(dense)
    np.testing.assert_array_equal(weight[s > 0], 1)
    assert weight.sum() == pytest.approx(150 * 149, rel=1e-5)


def test_listed_loss_estimates_the_dense_loss(target, cells):
    proba = torch.randn(150, 4, generator=torch.manual_seed(0)).mul(2).softmax(1)
    s = torch.from_numpy(target.dense(cells))
    known = torch.nonzero(~s.isnan() & ~torch.eye(150, dtype=torch.bool)).T
    all_known = (known, s[known[0], known[1]], torch.ones(known.shape[1]))
    dense = float(listed_similarity(proba, *all_known))
    if known.shape[1] == 150 * 149:
        assert dense == pytest.approx(float(pair_similarity(proba, s)), rel=1e-4)
    rng = np.random.default_rng(4)
    draws = [
        float(listed_similarity(proba, *map(torch.from_numpy, target.listed(cells, rng))))
        for _ in range(200)
    ]
    error = np.std(draws) / np.sqrt(len(draws))
    assert 0 < error < 0.01 * dense
    assert abs(np.mean(draws) - dense) < 4 * error


def test_listed_repeats_with_the_same_generator(target, cells):
    a, b, other = (target.listed(cells, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.rows, b.rows)
    assert a.rows.shape != other.rows.shape or (a.rows != other.rows).any()


def test_random_partners_are_uniform_over_ordered_pairs():
    n = 6
    rng = np.random.default_rng(0)
    count = np.zeros((n, n))
    for _ in range(500):
        rows = random_partners(n, rng)
        assert rows.shape == (2, n * PARTNERS)
        np.add.at(count, tuple(rows), 1)
    assert (count.diagonal() == 0).all()
    share = count[~np.eye(n, dtype=bool)] / count.sum()
    np.testing.assert_allclose(share, 1 / 30, rtol=0.15)


def test_round_trip(similarity):
    values = similarity.to_dict()
    assert values["name"] == type(similarity).__name__
    again = Similarity.from_dict(json.loads(json.dumps(values)))
    assert again.to_dict() == values
    assert type(again) is type(similarity)
    assert "name" in values  # what was passed is not taken apart


def test_round_trip_through_a_file(similarity, tmp_path):
    adata = AnnData(np.zeros((2, 1), np.float32), uns={"s": similarity.to_dict()})
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = Similarity.from_dict(read_h5ad(tmp_path / "x.h5ad").uns["s"])
    assert again.to_dict() == similarity.to_dict()


@pytest.mark.parametrize("values", [{"name": "Astrology"}, {}])
def test_unknown_name(values):
    with pytest.raises(ValueError, match=r"Unknown similarity .*CoAssociation.*Knn"):
        Similarity.from_dict(values)


def test_every_name_is_known():
    for cls in (CoAssociation, DensityTree, Graph, Knn, Prior, Threshold):
        assert Similarity.from_dict({"name": cls.__name__}) == cls()


def test_an_own_similarity_joins_in(linked):
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Everybody(Similarity):
        level: float = 0.5

        def bind(self, adata, profile, *, progress=False):
            class Same(Target):
                def dense(self, cells):
                    return np.full((len(cells), len(cells)), 0.5, np.float32)

                def listed(self, cells, rng):
                    raise NotImplementedError

            return Same()

    try:
        assert Similarity.from_dict(Everybody(level=0.1).to_dict()).level == 0.1
        answer = Everybody().bind(linked, linked.X)(np.arange(3), np.random.default_rng(0))
        assert (answer == 0.5).all()
    finally:
        del Similarity.registry["Everybody"]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Knn(n_neighbors=0), "`n_neighbors`"),
        (lambda: Threshold(distance=0), "`distance`"),
        (lambda: Threshold(distance=-1.0), "`distance`"),
        (lambda: CoAssociation(separation=0), "`separation`"),
        (lambda: CoAssociation(random_state=-1), "`random_state`"),
        (lambda: CoAssociation(resolutions=(1.0, 0.0)), "`resolutions`"),
        (lambda: CoAssociation(fine_resolutions=(-1.0,)), "`fine_resolutions`"),
        (lambda: CoAssociation(resolutions=(), fine_resolutions=()), "at least one resolution"),
        (lambda: Graph(obsp="a", neighbors_key="b"), "both `obsp` and `neighbors_key`"),
        (lambda: Prior(mode="class"), "`mode`"),
        (lambda: Prior(train_on="some"), "`train_on`"),
        (lambda: Differ("sample", groups=("ill",)), "`groups` must be two or more"),
        (lambda: Differ("sample", groups=("ill", "ill")), "`groups` must be two or more"),
        (lambda: Differ("sample", groups="ill"), "`groups` must be a sequence"),
        (lambda: Custom(np.ones(3)), "`function` must be a function.*ndarray"),
        (lambda: Blend(Graph(), "graph"), "`second` must be a similarity, got str"),
        (lambda: Blend(Graph(), Knn(), weight=0), "`weight`"),
        (lambda: Blend(Graph(), Knn(), weight=1.0), "`weight`"),
        (lambda: Blend(Graph(), Graph(neighbors_key="b")), "different neighbour graphs"),
    ],
)
def test_senseless_parameters(make, match):
    with pytest.raises(ValueError, match=match):
        make()
