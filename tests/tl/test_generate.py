"""New cells from an annotated AnnData alone."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from made_up import as_intensities

import scmoe
from scmoe.model import MoESimVAE
from scmoe.similarity import Knn, Prior
from scmoe.tl import cluster, generate


def run(adata, n_clusters=6, *, epochs=3, similarity=None, **kwargs):
    cluster(
        adata,
        n_clusters=n_clusters,
        similarity=similarity or Knn(use_rep="X"),
        progress=False,
        train_kwargs={"max_epochs": epochs, "accelerator": "cpu"},
        **kwargs,
    )
    return adata


@pytest.fixture(scope="module")
def once(linked_once):
    scmoe.pp.arcsinh(as_intensities(linked_once), cofactor=5)
    return run(linked_once, epochs=40)


def assert_same_cells(first, second):
    np.testing.assert_array_equal(first.X, second.X)
    (codes,) = first.obsm.keys() & second.obsm.keys()
    np.testing.assert_array_equal(first.obsm[codes], second.obsm[codes])
    pd.testing.assert_frame_equal(first.obs, second.obs)
    assert list(first.var_names) == list(second.var_names)


def is_within(x, of):
    """Whether all values are in the range of those of each column."""
    return np.maximum(x - of.max(axis=0), of.min(axis=0) - x).max() < 1e-4


# ----------------------------------------------------------------------------------------
# what comes back


def test_cells_and_what_they_are_of(once, same):
    before = same.look(once)
    new = generate(once, 200)
    same(once, before)
    assert new.shape == (200, 8)
    assert new.X.dtype == np.float32
    pd.testing.assert_frame_equal(new.var, once.var)
    assert set(new.obs["scmoe"]) <= set(once.obs["scmoe"])
    assert new.uns["arcsinh"].keys() == once.uns["arcsinh"].keys()
    # and it is a copy
    new.var["channel"] = "mine"
    new.uns["arcsinh"].clear()
    same(once, before)


def test_clusters_look_like_themselves(once):
    for name, count in once.obs["scmoe"].value_counts().items():
        if count < 20:
            continue
        new = generate(once, 300, clusters=[name])
        own = once[once.obs["scmoe"] == name]
        gap = np.abs(np.median(new.X, axis=0) - np.median(own.X, axis=0))
        others = once[once.obs["scmoe"] != name]
        assert gap.max() < 0.2 * np.ptp(once.X, axis=0).max()
        assert gap.sum() < np.abs(np.median(new.X, 0) - np.median(others.X, 0)).sum()


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"clusters": ["1", "0"]},
        {"clusters": np.array(["0"])},
        {"prior": "unit"},
        {"gate": "network", "prior": "unit"},
        {"noise": False},
    ],
    ids=str,
)
def test_the_model_draws_the_same_cells(blobs, kwargs, tmp_path):
    run(blobs, epochs=20, save_model=tmp_path / "m")
    model = MoESimVAE.load(str(tmp_path / "m"), blobs, accelerator="cpu")
    for seed in (0, 7):
        first = generate(blobs, 50, random_state=seed, **kwargs)
        assert_same_cells(first, model.generate(50, random_state=seed, **kwargs))
    assert not np.array_equal(first.X, generate(blobs, 50, random_state=8, **kwargs).X)


def test_numbers_for_each_cluster(once):
    sizes = once.obs["scmoe"].value_counts().iloc[:2].to_dict()
    assert generate(once, sizes).obs["scmoe"].value_counts().to_dict() == sizes
    # as somebody would type them
    assert list(generate(once, {0: 2, 1: 1}).obs["scmoe"]) == ["0", "0", "1"]
    assert set(generate(once, 5, clusters=[0]).obs["scmoe"]) == {"0"}


def test_a_generator_goes_on(once):
    rng = np.random.default_rng(0)
    first, second = generate(once, 9, random_state=rng), generate(once, 9, random_state=rng)
    assert not np.array_equal(first.X, second.X)
    assert_same_cells(first, generate(once, 9, random_state=np.random.default_rng(0)))


# ----------------------------------------------------------------------------------------
# which values


def test_key_added(blobs, same):
    run(blobs, key_added="mine")
    before = same.look(blobs)
    new = generate(blobs, 30, key="mine")
    same(blobs, before)
    assert list(new.obsm) == ["X_mine"]
    assert set(new.obs["mine"]) <= set(blobs.obs["mine"])
    with pytest.raises(KeyError, match=r"uns\['scmoe'\].*scmoe\.tl\.cluster.*`key`"):
        generate(blobs, 30)


def test_two_clusterings_do_not_mix(blobs):
    run(blobs, 6)
    expected = generate(blobs, 30)
    run(blobs, 3, key_added="other", markers=["CD3", "CD19"])
    assert_same_cells(generate(blobs, 30), expected)
    assert generate(blobs, 30, key="other").shape == (30, 2)


def test_markers(blobs, tmp_path):
    chosen = ["CD56", "CD3", "CD19"]
    run(blobs, markers=chosen, save_model=tmp_path / "m")
    new = generate(blobs, 40)
    assert list(new.var_names) == chosen
    assert list(new.var["channel"]) == ["Ch4", "Ch0", "Ch3"]
    values = blobs[:, chosen].copy()
    model = MoESimVAE.load(str(tmp_path / "m"), values, accelerator="cpu")
    assert_same_cells(new, model.generate(40))
    # in whatever order the markers are later
    assert_same_cells(generate(blobs[:, ::-1].copy(), 40), new)


def test_markers_that_are_gone(blobs, same):
    run(blobs)
    some = blobs[:, 2:].copy()
    before = same.look(some)
    with pytest.raises(KeyError, match=r"missing in `\.var_names`: 'CD3', 'CD4'\."):
        generate(some, 10)
    same(some, before)


def test_layer(blobs):
    blobs.layers["scaled"] = 2 * blobs.X
    expected = generate(run(blobs.copy()), 25)
    run(blobs, layer="scaled")
    new = generate(blobs, 25)
    assert set(new.layers) - {None} == {"scaled"}  # anndata 0.13 lists X as the layer None
    np.testing.assert_array_equal(new.layers["scaled"], new.X)
    assert set(expected.layers) - {None} == set()
    assert is_within(new.X, blobs.layers["scaled"])
    assert new.X.max() > blobs.X.max()


def test_layer_alone(blobs):
    """``.X`` may be empty: nobody looks at it."""
    blobs.layers["values"] = blobs.X.copy()
    blobs.X = None
    run(blobs, layer="values", similarity=Knn(use_rep="X"))
    assert generate(blobs, 5).shape == (5, 8)


def test_use_rep(blobs, tmp_path):
    blobs.obsm["X_pca"] = blobs.X[:, :4] - blobs.X[:, 4:]
    blobs.uns["image_shape"] = np.array([2, 2])
    scmoe.pp.arcsinh(as_intensities(blobs), cofactor=5)
    run(blobs, use_rep="X_pca", similarity=Knn(use_rep="X_pca"))
    new = generate(blobs, 15)
    assert list(new.var_names) == [f"X_pca_{i}" for i in range(4)]
    assert list(new.var.columns) == []
    # what is known of `.X` does not hold for it
    assert set(new.uns) == {"generated"}
    assert new.uns["generated"]["noise"]
    assert is_within(new.X, blobs.obsm["X_pca"])


def test_use_rep_x_are_the_markers(blobs):
    run(blobs, use_rep="X")
    assert list(generate(blobs, 5).var.columns) == list(blobs.var.columns)


def test_classes(blobs):
    scmoe.pp.marker_prior(blobs, {"T": "CD3", "B": "CD19"})
    run(blobs, similarity=Prior(), epochs=40)
    new = generate(blobs, {"B": 30, "T": 20})
    assert new.obs["scmoe"].value_counts().to_dict() == {"B": 30, "T": 20}
    mean = pd.DataFrame(new.X, columns=new.var_names).groupby(list(new.obs["scmoe"])).mean()
    assert mean.loc["B", "CD19"] > mean.loc["T", "CD19"] + 1
    assert mean.loc["T", "CD3"] > mean.loc["B", "CD3"] + 1


# ----------------------------------------------------------------------------------------
# later


@pytest.mark.parametrize("key", ["scmoe", "mine"])
def test_after_a_file(blobs, tmp_path, key):
    run(blobs, key_added=key, layer=None, markers=["CD3", "CD19", "CD4"])
    expected = generate(blobs, 30, key=key)
    for name in ("first.h5ad", "second.h5ad"):
        blobs.write_h5ad(tmp_path / name)
        blobs = ad.read_h5ad(tmp_path / name)
        assert_same_cells(generate(blobs, 30, key=key), expected)
    # and the new cells have a file of their own
    expected.write_h5ad(tmp_path / "new.h5ad")
    assert_same_cells(ad.read_h5ad(tmp_path / "new.h5ad"), expected)


def test_a_part_of_the_cells_is_enough(once):
    expected = generate(once, 30)
    assert_same_cells(generate(once[:5].copy(), 30), expected)
    assert_same_cells(generate(once[:5], 30), expected)
    assert_same_cells(generate(once[::-1].copy(), 30), expected)


def test_names_are_new(once):
    first = generate(once, 5)
    both = ad.concat([once, first], uns_merge="first", merge="same")
    assert both.obs_names.is_unique
    second = generate(both, 5)
    assert not second.obs_names.isin(both.obs_names).any()


def test_cells_can_be_drawn_while_others_train(blobs):
    """Weights that are kept are not those of a model that goes on."""
    run(blobs)
    before = generate(blobs, 10)
    run(blobs, key_added="again", random_state=1)
    assert_same_cells(generate(blobs, 10), before)


# ----------------------------------------------------------------------------------------
# mistakes


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "match"),
    [
        ((0,), {}, ValueError, "whole number from 1, got 0"),
        ((-2,), {}, ValueError, "whole number from 1"),
        ((1.5,), {}, ValueError, "whole number from 1"),
        (({"0": 0},), {}, ValueError, "whole number from 1"),
        (({},), {}, ValueError, "empty"),
        ((5,), {"clusters": ["B cells"]}, KeyError, "no cluster 'B cells'; there are '0'"),
        (({"B cells": 5},), {}, KeyError, "no cluster 'B cells'"),
        (({0: 1, "0": 1},), {}, ValueError, "twice"),
        ((5,), {"key": "other"}, KeyError, r"uns\['other'\]"),
        ((5,), {"key": "arcsinh"}, KeyError, r"uns\['arcsinh'\]"),
        ((5,), {"gate": "shut"}, ValueError, "`gate`"),
        ((5,), {"prior": "none"}, ValueError, "`prior`"),
        ((5,), {"random_state": None}, ValueError, "`random_state`"),
    ],
)
def test_mistakes(once, same, args, kwargs, error, match):
    before = same.look(once)
    with pytest.raises(error, match=match):
        generate(once, *args, **kwargs)
    same(once, before)


def test_empty_clusters(blobs):
    run(blobs, epochs=40, model_kwargs={"min_cells": 100})
    alive = set(blobs.obs["scmoe"])
    empty = next(name for name in blobs.obsm["scmoe_proba"] if name not in alive)
    with pytest.raises(ValueError, match=f"No cell belongs to '{empty}'.*'0'"):
        generate(blobs, 5, clusters=[empty])
    with pytest.raises(KeyError, match=r"no cluster '6'"):
        generate(blobs, 5, clusters=["6"])


def test_unit_prior_needs_a_kl_term(blobs):
    run(blobs, model_kwargs={"kl_weight": 0.0})
    with pytest.raises(ValueError, match="kl_weight=0"):
        generate(blobs, 5, prior="unit")
    assert len(generate(blobs, 5)) == 5


def test_damaged_record(blobs):
    run(blobs)
    weights = blobs.uns["scmoe"]["model"]["weights"]
    del weights["gate.out.bias"]
    with pytest.raises(ValueError, match=r"(?s)damaged.*gate\.out\.bias"):
        generate(blobs, 5)


def test_clustered_by_something_else(blobs):
    blobs.obs["scmoe"] = "0"
    with pytest.raises(KeyError, match=r"run `scmoe\.tl\.cluster"):
        generate(blobs, 5)
    blobs.uns["scmoe"] = {"params": {}}
    with pytest.raises(KeyError, match="Did not find a model"):
        generate(blobs, 5)


def test_global_generators_are_left_alone(once):
    before = torch.get_rng_state()
    generate(once, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_transform_of_the_layer_that_was_clustered(blobs):
    """The record of ``.X`` says nothing about a layer of other values."""
    scmoe.pp.arcsinh(as_intensities(blobs), cofactor=5)
    blobs.layers["z"] = (blobs.X - blobs.X.mean(0)) / blobs.X.std(0)
    run(blobs, layer="z")
    new = generate(blobs, 20)
    assert "arcsinh" not in new.uns
    assert not np.shares_memory(new.X, new.layers["z"])


def test_transform_into_a_layer_can_be_undone(blobs):
    scmoe.pp.arcsinh(as_intensities(blobs), cofactor=5, key_added="asinh")
    run(blobs, layer="asinh")
    new = generate(blobs, 20)
    before = new.X.copy()
    scmoe.pp.inverse_arcsinh(new)
    np.testing.assert_allclose(new.X, 5 * np.sinh(before), rtol=1e-4)
    np.testing.assert_array_equal(new.layers["asinh"], before)
