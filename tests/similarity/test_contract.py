"""What holds for every similarity."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from scmoe.nn import listed_similarity, pair_similarity
from scmoe.similarity import CoAssociation, Graph, Knn, Pairs, Similarity, Target, Threshold
from scmoe.similarity._base import MAX_DENSE, PARTNERS, random_partners

SIMILARITIES = [
    CoAssociation(),
    CoAssociation(majority=False),
    Graph(),
    Knn(n_neighbors=5),
    Knn(use_rep="X"),
    Threshold(distance=0.7),
]
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


def test_dense(target, cells):
    s = target.dense(cells)
    assert s.shape == (150, 150)
    assert s.dtype == np.float32
    assert s.min() >= 0
    assert s.max() <= 1
    np.testing.assert_array_equal(s, s.T)
    np.testing.assert_array_equal(s.diagonal(), 1)
    assert 0 < s.mean() < 1


def test_dense_belongs_to_the_cells(target, cells):
    order = np.random.default_rng(3).permutation(150)
    s = target.dense(cells)
    np.testing.assert_array_equal(target.dense(cells[order]), s[order][:, order])


def test_dense_of_one_cell(target):
    np.testing.assert_array_equal(target.dense(np.array([17])), [[1]])


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
    dense = float(pair_similarity(proba, torch.from_numpy(target.dense(cells))))
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
    assert again == similarity
    assert type(again) is type(similarity)
    assert "name" in values  # what was passed is not taken apart


@pytest.mark.parametrize("values", [{"name": "Astrology"}, {}])
def test_unknown_name(values):
    with pytest.raises(ValueError, match=r"Unknown similarity .*CoAssociation.*Knn"):
        Similarity.from_dict(values)


def test_every_name_is_known():
    for cls in (CoAssociation, Graph, Knn, Threshold):
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
        (lambda: CoAssociation(spread=0), "`spread`"),
        (lambda: CoAssociation(resolutions=(1.0, 0.0)), "`resolutions`"),
        (lambda: CoAssociation(fine_resolutions=(-1.0,)), "`fine_resolutions`"),
        (lambda: CoAssociation(resolutions=(), fine_resolutions=()), "at least one resolution"),
    ],
)
def test_senseless_parameters(make, match):
    with pytest.raises(ValueError, match=match):
        make()
