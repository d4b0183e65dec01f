"""Batches: what sets them apart is the experts' business."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from scmoe.model import MoESimVAE

SHIFT = 1.5


@pytest.fixture(scope="module")
def shifted(linked_once):
    """The blobs, every other cell from a batch in which CD45 is brighter."""
    adata = linked_once.copy()
    second = np.arange(adata.n_obs) % 2 == 1
    adata.X[second, adata.var_names.get_loc("CD45")] += SHIFT
    adata.obs["plate"] = pd.Categorical(np.where(second, "p2", "p1"))
    return adata


def trained(adata, epochs=150, **kwargs):
    adata = adata.copy()
    torch.manual_seed(0)
    MoESimVAE.setup_anndata(adata, batch_key="plate")
    model = MoESimVAE(adata, 6, n_hidden=16, **kwargs)
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def model(shifted):
    return trained(shifted)


@pytest.fixture(scope="module")
def seeing(shifted):
    return trained(shifted, epochs=2, encode_batch=True)


def test_generated_cells_look_like_their_batch(model, shifted):
    first, second = (model.generate(2000, batch=name, calibrate=False) for name in ("p1", "p2"))
    apart = second[:, "CD45"].X.mean() - first[:, "CD45"].X.mean()
    assert apart == pytest.approx(SHIFT, abs=0.2)
    others = [m for m in shifted.var_names if m != "CD45"]
    np.testing.assert_allclose(second[:, others].X.mean(0), first[:, others].X.mean(0), atol=0.15)
    assert list(first.obs["plate"].unique()) == ["p1"]


def test_codes_are_drawn_where_those_of_the_batch_are(model, shifted):
    codes, cluster = model.get_latent_representation(), model.predict()
    offsets = model.module.offsets.numpy()
    for k, name in enumerate(model.cluster_names_):
        own = cluster == name
        for b, batch in enumerate(model.batch_names):
            some = own & (shifted.obs["plate"] == batch).to_numpy()
            if some.any():
                expected = codes[some].mean(0) - codes[own].mean(0)
                np.testing.assert_allclose(offsets[k, b], expected, atol=1e-5)
            else:
                assert not offsets[k, b].any()


def test_batches_in_proportion(shifted, model):
    new = model.generate(4000)
    assert (new.obs["plate"] == "p1").mean() == pytest.approx(0.5, abs=0.05)
    # and in the proportion that a cluster has
    cells = model.module.batches
    assert cells.sum() == shifted.n_obs
    expected = pd.crosstab(model.predict(), shifted.obs["plate"])
    for k, name in enumerate(model.cluster_names_):
        if name in expected.index:
            assert cells[k].tolist() == expected.loc[name].tolist()


def test_unknown_batch_of_generated_cells(model):
    with pytest.raises(KeyError, match=r"no batch 'p9'; there are 'p1', 'p2'"):
        model.generate(5, batch="p9")


def test_codes_do_not_look_at_the_batch(model, shifted):
    other = shifted.copy()
    other.obs["plate"] = "never seen"
    np.testing.assert_array_equal(
        model.get_latent_representation(other), model.get_latent_representation()
    )
    del other.obs["plate"]
    assert list(model.predict(other)) == list(model.predict())


def test_an_encoder_may_look_at_the_batch(seeing, shifted):
    other = shifted.copy()
    other.obs["plate"] = "p1"
    codes, others = seeing.get_latent_representation(), seeing.get_latent_representation(other)
    same = (shifted.obs["plate"] == "p1").to_numpy()
    np.testing.assert_array_equal(codes[same], others[same])
    assert (codes[~same] != others[~same]).any(1).all()


def test_such_an_encoder_refuses_unknown_batches(seeing, shifted):
    other = shifted.copy()
    other.obs["plate"] = "p7"
    with pytest.raises(ValueError, match=r"never seen the batch 'p7'; it knows 'p1', 'p2'"):
        seeing.predict(other)
    del other.obs["plate"]
    with pytest.raises(KeyError, match="'plate'"):
        seeing.predict(other)


def test_one_batch_is_no_batch(linked_once):
    adata = linked_once.copy()
    adata.obs["plate"] = "p1"
    one = trained(adata, epochs=1)
    assert one.module.experts.weights[0].shape[1] == 9
    assert one.generate(3).obs["plate"].tolist() == ["p1"] * 3


def test_missing_batches(linked_once):
    adata = linked_once.copy()
    adata.obs["plate"] = pd.Categorical(["p1"] * 599 + [None])
    with pytest.raises(ValueError, match=r"missing for 1 of 600 cells, such as 'cell_599'"):
        MoESimVAE.setup_anndata(adata, batch_key="plate")
    with pytest.raises(KeyError, match="'plates'"):
        MoESimVAE.setup_anndata(adata, batch_key="plates")
    assert "_scvi_batch" not in adata.obs


def test_without_batches_there_is_none_to_ask_for(linked_once):
    adata = linked_once.copy()
    MoESimVAE.setup_anndata(adata)
    model = MoESimVAE(adata, 4, n_hidden=8)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(ValueError, match="knows no batches"):
        model.generate(5, batch="p1")


def test_convolutions_do_not_take_batches(linked_once):
    adata = linked_once.copy()
    adata.uns["image_shape"] = (2, 4)
    MoESimVAE.setup_anndata(adata)
    with pytest.raises(ValueError, match="encode_batch"):
        MoESimVAE(adata, 4, network="conv", encode_batch=True)


@pytest.mark.parametrize("encode_batch", [False, True])
def test_batches_that_are_numbers(linked_once, encode_batch):
    adata = linked_once.copy()
    adata.obs["plate"] = np.arange(600) % 2 + 1
    model = trained(adata, epochs=1, encode_batch=encode_batch)
    assert model.batch_names == ["1", "2"]
    assert list(model.predict(adata)) == list(model.predict())
    adata.obs["plate"] = adata.obs["plate"].astype(str)
    assert list(model.predict(adata)) == list(model.predict())
