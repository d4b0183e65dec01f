"""What holds for every similarity."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from anndata import AnnData, read_h5ad

from scmoe._core.settings import kinds_of
from scmoe.nn import listed_similarity, pair_similarity
from scmoe.similarity import (
    MAX_DENSE,
    PARTNERS,
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
from scmoe.similarity._target import random_partners


def tens(cells):
    """Cells of the same ten are alike."""
    return cells[:, None] // 10 == cells[None] // 10


SIMILARITIES = [
    DensityTree(),
    CoAssociation(),
    Graph(),
    Knn(n_neighbors=5),
    Threshold(distance=0.7),
    Labels("labels"),
    Differ("sample", groups=("healthy", "ill")),
    Prior(),
    Prior(mode="pairs", train_on="all"),
    Custom(tens),
    Blend(DensityTree(), Graph(), weight=0.6),
    Blend(Prior(), Blend(Labels("labels"), Custom(tens)), weight=0.7),
]
"""One row for each kind of target."""
OPINIONATED = [s for s in SIMILARITIES if not isinstance(s, Labels | Differ | Prior)]
"""Have an opinion on every pair."""


@pytest.fixture(params=SIMILARITIES, ids=lambda s: type(s).__name__, scope="module")
def similarity(request):
    return request.param


@pytest.fixture(scope="module")
def target(similarity, linked_once):
    return similarity.bind(linked_once, linked_once.X)


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
    # sums of floats depend on their order
    np.testing.assert_allclose(target.dense(cells[order]), s[order][:, order], rtol=1e-6)
    np.testing.assert_array_equal(target.dense(cells[:1]), [[1]])


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
    np.testing.assert_allclose(s, target.dense(cells)[pairs[0], pairs[1]], rtol=1e-6)


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
    np.testing.assert_allclose(target.dense(cells)[rows[0], rows[1]], s, rtol=1e-6)
    again, other = (target.listed(cells, np.random.default_rng(seed)).rows for seed in (0, 1))
    np.testing.assert_array_equal(rows, again)
    assert rows.shape != other.shape or (rows != other).any()


def test_weights_sum_to_the_known_pairs(similarity, target, cells):
    rng = np.random.default_rng(0)
    known = np.count_nonzero(~np.isnan(target.dense(cells))) - 150
    total = [target.listed(cells, rng).weight.sum() for _ in range(30)]
    if similarity in OPINIONATED and not isinstance(similarity, Blend):
        np.testing.assert_allclose(total, known, rtol=1e-5)
    assert np.mean(total) == pytest.approx(known, rel=0.03)


@pytest.mark.parametrize(
    "similarity", [s for s in SIMILARITIES if isinstance(s, Graph | Knn)], ids=repr, indirect=True
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


def test_round_trip_through_json_and_a_file(tmp_path):
    records = {str(i): similarity.to_dict() for i, similarity in enumerate(SIMILARITIES)}
    AnnData(np.zeros((2, 1), np.float32), uns=records).write_h5ad(tmp_path / "x.h5ad")
    for read in (json.loads(json.dumps(records)), read_h5ad(tmp_path / "x.h5ad").uns):
        for i, similarity in enumerate(SIMILARITIES):
            assert read[str(i)]["name"] == type(similarity).__name__
            again = Similarity.from_dict(read[str(i)])
            assert again.to_dict() == records[str(i)]
            assert type(again) is type(similarity)
            # what was passed is not taken apart
            assert "name" in read[str(i)]


@pytest.mark.parametrize("values", [{"name": "Astrology"}, {}])
def test_unknown_name(values):
    with pytest.raises(ValueError, match=r"Unknown similarity .*CoAssociation.*Knn"):
        Similarity.from_dict(values)


def test_every_name_is_known():
    for cls in (CoAssociation, DensityTree, Graph, Knn, Prior, Threshold):
        assert Similarity.from_dict({"name": cls.__name__}) == cls()


def test_an_own_similarity_joins_in(linked):
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


WRONG = {
    "a whole number": [True, "64", np.inf, np.nan, 2.5, None],
    "a number": [True, "64", np.inf, np.nan, None],
    "True or False": [1, "yes", None],
    "a string": [3, None],
    "one of": ["x", 3, None],
    "a list": [3, "64", (np.inf,), ("a",), (True,), None],
    "a similarity": ["graph", Graph, None],
    "a function": [3, None],
}
"""Values of another kind, by the words of the kind."""


@pytest.mark.parametrize("similarity", SIMILARITIES[:-1], ids=lambda s: type(s).__name__)
def test_every_parameter_is_checked(similarity):
    kinds = kinds_of(type(similarity))
    assert list(kinds) == [parameter.name for parameter in fields(similarity)]
    for name, kind in kinds.items():
        for words, values in WRONG.items():
            for value in values if kind.words.startswith(words) else ():
                if not kind.fits(value):
                    with pytest.raises(ValueError, match=f"`{name}` must be {words}"):
                        replace(similarity, **{name: value})
        assert sum(map(kind.words.startswith, [*WRONG, "a sequence"])) == 1


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Knn(n_neighbors=0), "`n_neighbors`"),
        (lambda: Threshold(distance=0), "`distance`"),
        (lambda: CoAssociation(separation=0), "`separation`"),
        (lambda: CoAssociation(random_state=-1), "`random_state`"),
        (lambda: CoAssociation(random_state=2**32), "`random_state`"),
        (lambda: CoAssociation(resolutions=(1.0, 0.0)), "`resolutions`"),
        (lambda: CoAssociation(fine_resolutions=(-1.0,)), "`fine_resolutions`"),
        (lambda: CoAssociation(resolutions=(), fine_resolutions=()), "at least one resolution"),
        (lambda: DensityTree(significance=-1), "`significance`"),
        (lambda: DensityTree(depth=0), "`depth`"),
        (lambda: DensityTree(depth=1.5), "`depth`"),
        (lambda: DensityTree(min_cells=0), "`min_cells`"),
        (lambda: DensityTree(n_clusters=0), "`n_clusters`"),
        (lambda: DensityTree(random_state=-1), "`random_state`"),
        (lambda: Graph(obsp="a", neighbors_key="b"), "both `obsp` and `neighbors_key`"),
        (lambda: Differ("sample", groups=("ill",)), "`groups` must be a sequence of two or more"),
        (lambda: Differ("sample", groups=("ill", "ill")), "`groups` must be a sequence"),
        (lambda: Differ("sample", groups="ill"), "`groups` must be a sequence"),
        (lambda: Blend(Graph(), Knn(), weight=0), "`weight`"),
        (lambda: Blend(Graph(), Knn(), weight=1.0), "`weight`"),
        (lambda: Blend(Graph(), Graph(neighbors_key="b")), "different neighbour graphs"),
    ],
)
def test_parameters_out_of_range(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_parameters_become_plain_values():
    knn = Knn(n_neighbors=np.int64(3))
    assert type(knn.n_neighbors) is int
    assert CoAssociation(resolutions=[0.5, 1]) == CoAssociation(resolutions=np.array([0.5, 1]))
    groups = Differ("day", groups=[7, 0])
    assert Similarity.from_dict(groups.to_dict()) == groups


@pytest.mark.parametrize(
    "values",
    [
        {"name": "Knn", "k": 3},
        {"name": "Labels"},
        {"name": "Knn", "n_neighbors": "3"},
        {"name": "Blend", "first": {"name": "Knn"}, "second": 3},
    ],
)
def test_damaged_records(values):
    with pytest.raises(ValueError, match=r"Invalid parameters|must be"):
        Similarity.from_dict(values)
