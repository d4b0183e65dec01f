"""Labels of some cells, samples that differ, and batches that hold what is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scmoe.similarity import PARTNERS, Differ, Labels
from scmoe.similarity._target import half_known_batches

N = np.nan


def cells_with(**columns):
    n = len(next(iter(columns.values())))
    obs = pd.DataFrame(columns, index=[str(i) for i in range(n)])
    return AnnData(np.zeros((n, 2), np.float32), obs=obs)


def dense(similarity, adata):
    return similarity.bind(adata, adata.X).dense(np.arange(adata.n_obs))


FORMS = {
    "strings": ["b", "a", None, "b", None],
    "categorical": pd.Categorical(["b", "a", None, "b", None], ["a", "b", "never seen"]),
    "numbers": [3.0, 1.0, N, 3.0, N],
    "integers": pd.array([3, 1, None, 3, None], dtype="Int64"),
    "booleans": np.array([True, False, None, True, N], dtype=object),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels(form):
    np.testing.assert_array_equal(
        dense(Labels("labels"), cells_with(labels=FORMS[form])),
        [[1, 0, N, 1, N], [0, 1, N, 0, N], [N, N, 1, N, N], [1, 0, N, 1, N], [N, N, N, N, 1]],
    )


def test_the_truth_about_masked_cells_is_not_looked_at(blobs):
    """Two data sets that differ in what is masked only give the same answers."""
    truth = blobs.obs["population"]
    masked = np.random.default_rng(0).random(600) < 0.8
    other = truth.cat.rename_categories(dict(zip(truth.cat.categories, "VWXYZ", strict=True)))
    other = other.astype(object).where(masked, truth.astype(object)).sample(frac=1, random_state=0)
    answers = []
    for values in (truth, pd.Series(np.where(masked, other, truth), truth.index)):
        blobs.obs["truth"] = pd.Categorical(values)
        # masking a categorical keeps the categories of the masked cells
        blobs.obs["labels"] = blobs.obs["truth"].mask(masked)
        target = Labels("labels").bind(blobs, blobs.X)
        cells, rng = np.arange(600), np.random.default_rng(1)
        answers.append([target.dense(cells), *target.batches(cells, 64, rng)])
    assert len(answers[0]) == 11
    for a, b in zip(*answers, strict=True):
        np.testing.assert_array_equal(a, b)


def test_listed_labels_are_known_ones(blobs):
    blobs.obs["labels"] = blobs.obs["population"].mask(np.arange(600) % 2 == 0)
    target = Labels("labels").bind(blobs, blobs.X)
    rows, s, weight = target.listed(np.arange(600), np.random.default_rng(0))
    assert (rows % 2 == 1).all()
    population = blobs.obs["population"].to_numpy()
    np.testing.assert_array_equal(s, population[rows[0]] == population[rows[1]])
    np.testing.assert_allclose(weight, 599 / PARTNERS)
    assert weight.sum() == pytest.approx(300 * 299, rel=0.05)
    rows, s, weight = target.listed(np.array([0, 2, 4]), np.random.default_rng(0))
    assert rows.shape == (2, 0)
    assert len(s) == len(weight) == 0


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([N, N, N], "no cell has a label"),
        (["a", None, "a"], "all labels are 'a'"),
        (["a", "b", "nan"], "'nan'.*replace it by NaN"),
        (["a", "b", ""], "''.*replace it by NaN"),
    ],
)
def test_labels_that_say_nothing(labels, match):
    adata = cells_with(labels=labels)
    with pytest.raises(ValueError, match=match):
        Labels("labels").bind(adata, adata.X)


@pytest.mark.parametrize("similarity", [Labels("cell_type"), Differ("cell_type")])
def test_no_such_column(similarity):
    adata = cells_with(labels=["a", "b"], sample=["1", "2"])
    with pytest.raises(KeyError, match=r"'cell_type' in `\.obs`.*'labels', 'sample'"):
        similarity.bind(adata, adata.X)


def test_differ():
    adata = cells_with(sample=["h", "i", "h", None, "x"])
    np.testing.assert_array_equal(
        dense(Differ("sample", groups=["h", "i"]), adata),
        [[1, 0, N, N, N], [0, 1, 0, N, N], [N, 0, 1, N, N], [N, N, N, 1, N], [N, N, N, N, 1]],
    )
    np.testing.assert_array_equal(
        dense(Differ("sample"), adata),
        [[1, 0, N, N, 0], [0, 1, 0, N, 0], [N, 0, 1, N, 0], [N, N, N, 1, N], [0, 0, 0, N, 1]],
    )


def test_groups_of_any_kind():
    adata = cells_with(day=[0, 7, 7])
    expected = [[1, 0, 0], [0, 1, N], [0, N, 1]]
    np.testing.assert_array_equal(dense(Differ("day", groups=(7, 0)), adata), expected)
    adata.obs["day"] = adata.obs["day"] == 7
    np.testing.assert_array_equal(dense(Differ("day"), adata), expected)


def test_groups_that_are_not_there():
    adata = cells_with(sample=["h", "i", "x"], one=["h", "h", None])
    with pytest.raises(ValueError, match=r"No cell has 'ill'.*'h', 'i', 'x'"):
        Differ("sample", groups=("h", "ill")).bind(adata, adata.X)
    with pytest.raises(ValueError, match=r"at least two groups.*holds 'h'"):
        Differ("one").bind(adata, adata.X)


def draw(known, cells, batch_size, seed=0):
    drawn = half_known_batches(known, cells, batch_size, np.random.default_rng(seed))
    return None if drawn is None else list(drawn)


def test_half_of_a_batch_is_known():
    known = np.zeros(1000, bool)
    known[np.random.default_rng(0).permutation(1000)[:100]] = True
    cells = np.random.default_rng(1).permutation(1000)[:800]
    batches = draw(known, cells, 64)
    assert len(batches) == 13
    for batch in batches:
        assert len(np.unique(batch)) == len(batch) == 64
        assert batch.max() < 800
        assert known[cells[batch]].sum() == 32
    seen = np.unique(np.concatenate(batches))
    assert len(seen) > 300
    np.testing.assert_array_equal(batches, draw(known, cells, 64))
    assert (np.array(batches) != draw(known, cells, 64, seed=1)).any()


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64, 99, 100, 1000])
@pytest.mark.parametrize("n_known", [1, 3, 49])
def test_any_number_of_known_cells(n_known, batch_size):
    known = np.arange(100) < n_known
    batches = draw(known, np.arange(100), batch_size)
    size = min(batch_size, 100)
    assert len(batches) == -(-100 // size)
    for batch in batches:
        assert len(np.unique(batch)) == len(batch) == size
        assert known[batch].sum() == min(-(-size // 2), n_known)


def test_chance_is_left_alone_where_it_is_good_enough():
    assert draw(np.arange(10) < 5, np.arange(10), 4) is None
    assert draw(np.arange(10) < 0, np.arange(10), 4) is None
    assert draw(np.arange(10) < 4, np.arange(10), 4) is not None
    # what counts is the share among the cells that train
    assert draw(np.arange(10) < 4, np.arange(8), 4) is None
    assert draw(np.arange(10) < 4, np.arange(4, 10), 4) is None
