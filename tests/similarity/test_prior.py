"""Priors over classes, and the pairs that they imply."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scmoe.pp import marker_prior
from scmoe.similarity import Prior
from scmoe.similarity._labels import check_prior

N = np.nan
PRIOR = np.array(
    [
        [1.0, 0.0, 0.0],
        [0.0, 0.25, 0.75],
        [0.0, 0.0, 0.0],  # nothing known
        [1.0, 1.0, 0.0],  # two markers
        [0.5, 0.5, 0.0],
        [0.3, 0.3, 0.3],  # not a whole
    ]
)
KNOWN = [0, 1, 4]


def cells_with(prior):
    adata = AnnData(np.zeros((len(prior), 2), np.float32))
    adata.obsm["marker_prior"] = prior
    return adata


def bound(prior, **kwargs):
    adata = cells_with(prior)
    return Prior(**kwargs).bind(adata, adata.X)


def test_classes():
    target = bound(PRIOR)
    assert target.class_share == 1
    assert target.n_classes == 3
    assert list(target.class_names) == ["0", "1", "2"]
    expected = PRIOR.copy()
    expected[[2, 3, 5]] = N
    np.testing.assert_array_equal(target.classes(np.arange(6)), expected)
    np.testing.assert_array_equal(target.classes(np.array([4, 2, 4])), expected[[4, 2, 4]])
    np.testing.assert_array_equal(target.cells, KNOWN)
    assert bound(PRIOR, train_on="all").cells is None


def test_names_of_classes():
    adata = cells_with(PRIOR)
    frame = pd.DataFrame(PRIOR, index=adata.obs_names, columns=["T", "B", 3])
    adata.obsm["mine"] = frame
    target = Prior(use_rep="mine").bind(adata, adata.X)
    assert list(target.class_names) == ["T", "B", "3"]


def test_pairs():
    target = bound(PRIOR, mode="pairs")
    expected = np.full((6, 6), N)
    expected[np.ix_(KNOWN, KNOWN)] = [[1, 0, 0.5], [0, 1, 0.125], [0.5, 0.125, 1]]
    np.fill_diagonal(expected, 1)
    s = target.dense(np.arange(6))
    np.testing.assert_allclose(s, expected, rtol=1e-6)
    pairs = np.indices((6, 6)).reshape(2, -1)
    np.testing.assert_allclose(target.at(np.arange(6), pairs), s.ravel(), rtol=1e-6)
    assert target.class_share == 0
    assert target.n_classes == 0
    assert target.classes(np.arange(6)) is None
    np.testing.assert_array_equal(target.cells, KNOWN)
    assert bound(PRIOR, mode="pairs", train_on="all").cells is None


def test_soft_pairs_stay_in_range():
    prior = np.random.default_rng(0).dirichlet(np.full(7, 0.05), 300).astype(np.float32)
    # sums that are rounded, as somebody's softmax leaves them
    prior = np.minimum(prior * (1 + 5e-4), 1)
    s = bound(prior, mode="pairs").dense(np.arange(300))
    assert not np.isnan(s).any()
    assert s.max() == 1
    np.testing.assert_array_equal(s, s.T)


def test_a_sum_near_one_is_one():
    prior = np.array([[0.5, 0.5005], [0.0, 0.9991], [0.0, 0.998], [1.0, 0.0]])
    target = bound(prior)
    np.testing.assert_array_equal(target.cells, [0, 1, 3])
    np.testing.assert_allclose(target.classes(target.cells).sum(1), 1, rtol=1e-6)


def test_batches_hold_known_cells():
    prior = np.zeros((400, 2))
    prior[np.arange(40), np.arange(40) % 2] = 1
    rng = np.random.default_rng(0)
    everybody = bound(prior, train_on="all")
    for batch in everybody.batches(np.arange(400), 50, rng):
        assert (batch < 40).sum() == 25
    certain = bound(prior)
    assert certain.batches(certain.cells, 50, rng) is None


@pytest.mark.parametrize(
    ("prior", "match"),
    [
        (sparse.csr_matrix(PRIOR), r"sparse.*\.toarray"),
        (PRIOR[:5], r"shape \(5, 3\).*\(6, classes\)"),
        (PRIOR[:, 0], r"shape \(6,\)"),
        (PRIOR[:, :1], "one column"),
        (np.full((6, 2), "T"), "does not hold numbers"),
        (np.where(PRIOR == 0.75, N, PRIOR), "NaN; use zeros for a cell of unknown class"),
        (PRIOR - 0.1, r"outside \[0, 1\] \(-0\.1 to 0\.9\)"),
        (PRIOR * 2, r"outside \[0, 1\] \(0 to 2\)"),
        (PRIOR * 0, "no certain cell"),
        (np.ones((6, 3)), "no certain cell"),
        (np.eye(3)[[0, 0, 0, 0, 0, 0]], "all 6 certain cells the same class"),
    ],
)
def test_what_is_no_prior(prior, match):
    with pytest.raises(ValueError, match=match) as error:
        check_prior(prior, 6, "`.obsm['p']`")
    assert "`.obsm['p']`" in str(error.value)


def test_missing():
    with pytest.raises(KeyError, match=r"'other'.*'marker_prior'.*scmoe\.pp\.marker_prior"):
        bound(PRIOR, use_rep="other")


def test_prior_that_is_given_stays_as_it_is():
    adata = cells_with(PRIOR.copy())
    Prior().bind(adata, adata.X).classes(np.arange(6))[:] = 7
    np.testing.assert_array_equal(adata.obsm["marker_prior"], PRIOR)


def test_markers_become_a_prior(blobs):
    marker_prior(blobs, {"T": "CD3", "B": "CD19", "mono": "CD14"})
    target = Prior().bind(blobs, blobs.X)
    assert list(target.class_names) == ["T", "B", "mono"]
    classes = target.classes(target.cells)
    np.testing.assert_array_equal(classes.sum(1), 1)
    found = np.array(target.class_names)[classes.argmax(1)]
    truth = blobs.obs["population"].to_numpy()[target.cells]
    named = np.isin(truth, target.class_names)
    assert (found == truth)[named].mean() > 0.99
