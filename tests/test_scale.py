"""Values on another scale than the one that a function takes."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from benchmarks.data import levine32_balanced, pbmc_10x
from made_up import as_intensities
from scipy import sparse

import scmoe
from scmoe._core.values import Scale, says_transformed
from scmoe.pp import ScaleWarning
from scmoe.tl._values import check_scale, working_copy


def looked_at(adata, markers=None, use_rep=None):
    """What is said of the cells before they are clustered."""
    check_scale(adata, working_copy(adata, markers, None, use_rep), markers, use_rep)


@pytest.fixture
def intensities(blobs):
    return as_intensities(blobs)


def outlier(x):
    x = x.copy()
    x[3, 2] = 1e5
    return x


def counts(x):
    return np.floor(x)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_values_by_their_scale(blobs, make):
    x = blobs.X
    few_positive = np.zeros_like(x)
    few_positive[:30, 0] = 300.25
    for raw in (5 * np.sinh(x), counts(x), -300.5 * x, few_positive):
        assert len(Scale(make(raw)).raw_markers())
        assert not Scale(make(raw)).looks_transformed()
    for transformed in (x, np.log2(1 + 1e4 * x), (x - x.mean(0)) / x.std(0), outlier(x)):
        assert not len(Scale(make(transformed)).raw_markers())
        assert Scale(make(transformed)).looks_transformed()
    # neither: yes or no, and a single value among few cells
    for unclear in ((x > 1).astype(np.float32), outlier(x)[:20], x[:0]):
        assert not len(Scale(make(unclear)).raw_markers())
        assert not Scale(make(unclear)).looks_transformed()


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_blocks_tell_what_the_whole_does(blobs, make):
    x = blobs.X
    halves = np.floor(x), np.floor(x) + 0.5
    for values in (5 * np.sinh(x), counts(x), -300.5 * x, x, np.concatenate(halves), x[:1]):
        scale = Scale(make(values[:0]))
        for first in range(0, len(values), 37):
            scale.add(make(values[first : first + 37]))
        whole = Scale(make(values))
        assert list(scale.raw_markers()) == list(whole.raw_markers())
        assert scale.looks_transformed() == whole.looks_transformed()
        np.testing.assert_array_equal(scale.largest, abs(values).max(axis=0))


def test_residuals_of_counts_are_no_intensities():
    x = np.random.default_rng(0).normal(size=(300, 100))
    x[:10, :3] = 60.5
    assert not len(Scale(x).raw_markers())


def test_intensities_are_told_before_clustering(intensities):
    largest = intensities.X.max(axis=0)
    told = f"Values go up to {largest.max():,.4g} in {intensities.var_names[largest.argmax()]!r}"
    with pytest.warns(ScaleWarning, match=rf"{told}.* and 3 more.*scmoe.pp.arcsinh"):
        looked_at(intensities)
    for function, wrong in (
        (scmoe.tl.cluster, {"train_kwargs": {"start": "yes"}}),
        (scmoe.tl.latent_dim, {"network": "nothing"}),
    ):
        with pytest.warns(ScaleWarning) as said, pytest.raises((KeyError, ValueError)):
            function(intensities, **wrong)
        assert said[0].filename == __file__
    for function in (scmoe.tl.cluster, scmoe.tl.latent_dim, scmoe.tl.n_clusters):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ScaleWarning)
            with pytest.raises(ScaleWarning) as raised:
                function(intensities)
        assert raised.value.what.startswith(told)
    assert set(intensities.obs) == {"population"}


def test_what_is_not_judged(intensities):
    intensities.obsm["X_pca"] = intensities.X
    looked_at(intensities, use_rep="X_pca")
    intensities.uns["image_shape"] = np.array([2, 4])
    looked_at(intensities)
    del intensities.uns["image_shape"]
    scmoe.pp.arcsinh(intensities)
    looked_at(intensities)
    # a channel that is no marker
    intensities.var["kind"] = ["time"] + 7 * ["mass"]
    intensities.X[:, 0] = np.arange(600)
    looked_at(intensities, markers=list(intensities.var_names))


def test_channels_that_are_no_markers_by_their_names(blobs):
    blobs.var_names = ["Time", "Event_length", "DNA1", *blobs.var_names[3:]]
    blobs.X[:, 0] = np.arange(600)
    del blobs.var["kind"]
    with pytest.warns(UserWarning, match="'Time', 'Event_length', 'DNA1' are no markers"):
        looked_at(blobs)
    looked_at(blobs, markers=["Time", "CD56"])


@pytest.mark.parametrize("cofactor", [5, 150])
def test_twice_without_the_record(intensities, cofactor):
    scmoe.pp.arcsinh(intensities, cofactor)
    joined = ad.concat([intensities[:300], intensities[300:]])
    before = joined.X.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScaleWarning)
        with pytest.raises(ScaleWarning, match="looks transformed already, as no marker goes"):
            scmoe.pp.arcsinh(joined, cofactor)
    np.testing.assert_array_equal(joined.X, before)
    assert "arcsinh" not in joined.uns
    with pytest.warns(ScaleWarning):
        scmoe.pp.arcsinh(joined, cofactor)
    np.testing.assert_allclose(joined.X, np.arcsinh(before / cofactor), rtol=1e-6)


def test_intensities_from_0_to_1_and_counts_are_transformed_without_a_word(intensities):
    scaled = intensities.copy()
    scaled.X = scaled.X / scaled.X.max()
    scmoe.pp.arcsinh(scaled, 0.005)
    whole = intensities.copy()
    whole.X = np.floor(whole.X / 100)
    assert whole.X.max() < 20
    scmoe.pp.arcsinh(whole)


def test_compensation_of_transformed_values(intensities):
    names = list(intensities.var["channel"][:2])
    matrix = pd.DataFrame([[1, 0.1], [0, 1]], index=names, columns=names)
    scmoe.pp.compensate(intensities, spillover=matrix, copy=True)
    intensities.X = np.arcsinh(intensities.X / 5)
    with pytest.warns(ScaleWarning, match="compensate first, then transform"):
        scmoe.pp.compensate(intensities, spillover=matrix)


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"transformation": "custom"}, True),
        ({"transformation": "applied"}, False),
        ({"scmoe_events": "X arcsinh"}, True),
        ({"scmoe_events": "X compensated"}, False),
        ({"scmoe_events": "original"}, False),
        ({}, False),
    ],
)
def test_files_that_say_it(intensities, keywords, told):
    table = pd.DataFrame({"value": list(keywords.values())}, index=list(keywords), dtype=object)
    intensities.uns["fcs"] = {"a": {"keywords": table}, "gone": {}}
    intensities.obs["sample"] = "a"
    assert says_transformed(intensities.uns["fcs"]["a"]) == told
    if told:
        with pytest.warns(ScaleWarning, match=r"\.X was transformed in the files of 'a'"):
            scmoe.pp.arcsinh(intensities)
    else:
        scmoe.pp.arcsinh(intensities)


def test_a_file_of_ours_says_it(intensities, tmp_path):
    scmoe.pp.arcsinh(intensities, key_added="asinh")
    scmoe.io.write_fcs(intensities, tmp_path / "x.fcs", layer="asinh", obs=())
    back = scmoe.io.read_fcs(tmp_path / "x.fcs")
    with pytest.warns(ScaleWarning, match="as their keywords say"):
        scmoe.pp.arcsinh(back)


def test_real_cells(data_dir):
    for adata in (levine32_balanced(), scmoe.datasets.bodenmiller("H05")):
        assert len(Scale(adata.X).raw_markers())
        scmoe.pp.arcsinh(adata)
        looked_at(adata)
    counts = pbmc_10x().X.astype(np.float32)
    assert len(Scale(counts).raw_markers()) == 2000
    normalised = counts.multiply(1e4 / counts.sum(axis=1)).tocsr()
    assert len(Scale(normalised).raw_markers())
    assert not len(Scale(normalised.log1p()).raw_markers())
