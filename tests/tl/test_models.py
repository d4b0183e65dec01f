"""Models of other kinds, and numbers that are estimated, as one line of a workflow."""

from __future__ import annotations

import random

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from made_up import make_three

from scmoe._estimate import Schedule
from scmoe.model import MoEVAE
from scmoe.similarity import CoAssociation, Knn
from scmoe.tl import assign, cluster, generate

HOW = {"max_epochs": 3, "batch_size": 50, "accelerator": "cpu"}
QUICK = {
    "max_epochs": 50,
    "manager_epochs": 40,
    "batch_size": 50,
    "lr": 5e-3,
    "manager_lr": 5e-3,
    "method": "density",
}
SMALL = {"n_hidden": 16, "n_layers": 1}


@pytest.fixture
def three():
    return make_three((70, 50, 40))


def estimating(adata, **kwargs):
    """Numbers are estimated."""
    train_kwargs = {**HOW, "pretrain_kwargs": QUICK, **kwargs.pop("train_kwargs", {})}
    model_kwargs = {**SMALL, **kwargs.pop("model_kwargs", {})}
    return cluster(
        adata,
        **{"model": "moe-vae", "progress": False, **kwargs},
        model_kwargs=model_kwargs,
        train_kwargs=train_kwargs,
    )


def plainly(adata, **kwargs):
    """Numbers are given, and weights are random: quick."""
    train_kwargs = {**HOW, "pretrain": False, **kwargs.pop("train_kwargs", {})}
    kwargs = {"n_clusters": 3, "n_latent": 2, **kwargs}
    return estimating(adata, train_kwargs=train_kwargs, **kwargs)


@pytest.fixture(scope="module")
def once():
    adata = make_three((70, 50, 40))
    estimating(adata)
    return adata


def results(adata, key="scmoe"):
    return (
        adata.obs[key].astype(str).to_numpy(),
        adata.obsm[f"{key}_proba"].to_numpy(),
        adata.obsm[f"X_{key}"],
        adata.obs[f"{key}_outlier"].to_numpy(),
    )


def assert_same(first, second):
    for a, b in zip(results(first), results(second), strict=True):
        np.testing.assert_array_equal(a, b)


# ----------------------------------------------------------------------------------------
# the mixture of VAEs


def test_slots(three, same):
    before = same.look(three)
    assert estimating(three, key_added="mine") is None
    label = three.obs["mine"]
    assert list(label.cat.categories) == ["0", "1", "2"]
    np.testing.assert_array_equal(label.astype(str), three.obs["kind"])
    assert three.obsm["X_mine"].shape == (160, 2)
    assert three.obsm["X_mine"].dtype == np.float32
    proba = three.obsm["mine_proba"]
    assert list(proba.columns) == ["0", "1", "2"]
    assert (proba.dtypes == np.float32).all()
    assert list(proba.idxmax(1)) == list(label)
    assert three.obs["mine_outlier"].dtype == np.float32
    record = three.uns["mine"]
    assert set(record) == {
        *("params", "n_clusters", "markers", "history", "estimates", "model", "version"),
        "manifest",
    }
    assert record["n_clusters"] == 3
    assert set(record["estimates"]) == {"n_clusters", "n_latent", "experts"}
    assert record["estimates"]["n_clusters"]["n_clusters"] == 3
    assert record["model"]["class"] == "MoEVAE"
    assert {"loss", "distance", "sample_entropy", "batch_entropy"} <= set(record["history"])
    params = record["params"]
    assert params["model"] == "moe-vae"
    assert params["n_clusters"] == "auto"
    assert params["model_kwargs"] == SMALL
    assert params["train_kwargs"]["pretrain_kwargs"] == QUICK
    assert not {"n_latent", "similarity", "preset", "neighbors"} & set(params)
    assert "graph" not in record["manifest"]

    del three.obs["mine"], three.obs["mine_outlier"], three.uns["mine"]
    del three.obsm["X_mine"], three.obsm["mine_proba"]
    same(three, before)


def test_numbers_that_are_given_leave_no_estimates(three):
    plainly(three, n_latent=[1, 2, 3])
    record = three.uns["scmoe"]
    assert "estimates" not in record
    assert record["params"]["n_clusters"] == 3
    assert list(record["params"]["n_latent"]) == [1, 2, 3]
    assert three.obsm["X_scmoe"].shape == (160, 3)
    # an estimate of an earlier run does not stay behind
    record["estimates"] = {"n_latent": 3}
    plainly(three)
    assert "estimates" not in three.uns["scmoe"]


def test_through_a_file(once, tmp_path):
    once.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert_same(again, once)
    frame = again.uns["scmoe"]["estimates"]["experts"]
    pd.testing.assert_frame_equal(frame, once.uns["scmoe"]["estimates"]["experts"])
    first, second = (generate(adata, 40, random_state=3) for adata in (once, again))
    np.testing.assert_array_equal(first.X, second.X)
    np.testing.assert_array_equal(first.obsm["X_scmoe"], second.obsm["X_scmoe"])
    assert set(first.obs["scmoe"]) == {"0", "1", "2"}
    queries = [make_three((70, 50, 40)) for _ in range(2)]
    for query, reference in zip(queries, (once, again), strict=True):
        assign(query, reference, reject=None)
        assert_same(query, once)


@pytest.mark.parametrize("n_latent", [2, [2, 1, 3]])
def test_from_model_and_folder(three, tmp_path, n_latent):
    plainly(three, save_model=tmp_path / "m", n_latent=n_latent, random_state=4)
    model = MoEVAE.load(tmp_path / "m", make_three((70, 50, 40)), accelerator="cpu")
    for reference in (three, model, tmp_path / "m", str(tmp_path / "m")):
        query = make_three((70, 50, 40))
        assign(query, reference, reject=None)
        for a, b in zip(results(query), results(three), strict=True):
            if a.dtype == object:
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_array_equal(model.generate(9).X, generate(three, 9).X)


def test_markers_layer_and_representation(three):
    three.layers["twice"] = 2 * three.X
    three.obsm["X_rep"] = three.X[:, :4].copy()
    plainly(three, layer="twice", markers=["CD3", "CD19", "CD14"])
    assert list(three.uns["scmoe"]["markers"]) == ["CD3", "CD19", "CD14"]
    made = generate(three, 8)
    assert list(made.var_names) == ["CD3", "CD19", "CD14"]
    np.testing.assert_array_equal(made.X, made.layers["twice"])
    plainly(three, use_rep="X_rep")
    assert list(three.uns["scmoe"]["markers"]) == [f"X_rep_{i}" for i in range(4)]
    query = make_three((70, 50, 40))
    query.obsm["X_rep"] = query.X[:, :4].copy()
    assign(query, three, reject=None)
    assert_same(query, three)


def test_copy(three, same):
    before = same.look(three)
    made = plainly(three, copy=True)
    same(three, before)
    plainly(three)
    assert_same(made, three)


@pytest.mark.slow
def test_seeds_and_global_random_states(three):
    estimating(three)
    first = three.copy()
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    expected = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    estimating(three)
    after = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    assert after == expected
    assert_same(three, first)
    estimating(three, random_state=1)
    assert not np.array_equal(three.obsm["X_scmoe"], first.obsm["X_scmoe"])


def test_generators_give_seeds(three):
    rng = np.random.default_rng(0)
    plainly(three, random_state=rng)
    first = three.obsm["X_scmoe"].copy()
    plainly(three, random_state=rng)
    assert not np.array_equal(three.obsm["X_scmoe"], first)
    plainly(three, random_state=np.random.default_rng(0))
    np.testing.assert_array_equal(three.obsm["X_scmoe"], first)


# ----------------------------------------------------------------------------------------
# what goes with what


@pytest.mark.parametrize(
    "option",
    [
        {"similarity": CoAssociation()},
        {"preset": "synthetic"},
        {"neighbors_key": "neighbors"},
        {"obsp": "connectivities"},
        {"batch_key": "kind"},
    ],
)
def test_options_of_the_other_model(three, same, option):
    before = same.look(three)
    (name,) = option
    with pytest.raises(ValueError, match=f"'{name}' can't go with `model=\"moe-vae\"`"):
        plainly(three, **option)
    same(three, before)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        (
            {"model": "vade"},
            ValueError,
            r"`model` must be one of \('moe-sim-vae', 'moe-vae', 'cpl-mixvae'\)",
        ),
        (
            {"n_clusters": "many"},
            ValueError,
            '`n_clusters` must be "auto", or a whole number',
        ),
        ({"n_clusters": 1}, ValueError, "`n_clusters` must be"),
        ({"n_latent": "few"}, ValueError, "`n_latent` must be"),
        ({"n_latent": 0}, ValueError, "`n_latent` must be"),
        ({"n_latent": [2, 2]}, ValueError, "names 2 latent sizes for 3 experts"),
        ({"model_kwargs": {"n_latent": 3}}, ValueError, "Give `n_latent` as `n_latent`"),
        ({"model_kwargs": {"n_experts": 3}}, ValueError, "Give `n_experts` as `n_clusters`"),
        ({"model_kwargs": {"loss": "none"}}, ValueError, "`loss` must be one of"),
        ({"n_clusters": "auto"}, ValueError, "can't be estimated: give both"),
        ({"n_clusters": 500}, ValueError, r"fewer cells \(160\) than clusters \(500\)"),
        ({"batch_key": "donor"}, KeyError, "Did not find the batches 'donor'"),
        ({"layer": "raw"}, KeyError, "Did not find layer 'raw'"),
        ({"model_kwargs": {"network": "conv"}}, KeyError, "shape of an image"),
    ],
)
def test_nothing_is_written_on_errors(three, same, tmp_path, kwargs, error, match):
    before = same.look(three)
    with pytest.raises(error, match=match):
        plainly(three, save_model=tmp_path / "m", **kwargs)
    same(three, before)
    assert not (tmp_path / "m").exists()


class Stops(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        raise KeyboardInterrupt


def test_nothing_is_written_on_an_interruption(three, same, tmp_path, capsys):
    plainly(three)
    before = same.look(three)
    stores = len(MoEVAE._setup_adata_manager_store)
    with pytest.raises(KeyboardInterrupt):
        plainly(three, save_model=tmp_path / "m", train_kwargs={"callbacks": [Stops()]})
    same(three, before)
    assert not (tmp_path / "m").exists()
    assert len(MoEVAE._setup_adata_manager_store) == stores


# ----------------------------------------------------------------------------------------
# numbers that MoE-Sim-VAE estimates


def similar(adata, **kwargs):
    estimates = {"method": "stability", "n_samples": 3, "resolutions": [0.05, 0.2]}
    estimates["max_epochs"] = 30
    train_kwargs = {"max_epochs": 60, "accelerator": "cpu", "estimate_kwargs": estimates}
    train_kwargs |= kwargs.pop("train_kwargs", {})
    kwargs = {"similarity": Knn(use_rep="X"), "progress": False, **kwargs}
    return cluster(adata, **kwargs, train_kwargs=train_kwargs)


def test_both_numbers(three, tmp_path, monkeypatch):
    # small batches, so that few epochs teach the autoencoder enough
    hasty = {"batch_size": 50, "lr": 5e-3}
    monkeypatch.setattr(
        "scmoe.model._estimates.Schedule", lambda epochs, **kw: Schedule(epochs, **{**kw, **hasty})
    )
    similar(three, n_clusters="auto", n_latent="auto")
    record = three.uns["scmoe"]
    assert set(record["estimates"]) == {"n_clusters", "n_latent"}
    assert record["estimates"]["n_clusters"]["n_clusters"] == 3
    assert record["params"]["n_clusters"] == record["params"]["n_latent"] == "auto"
    assert three.obsm["scmoe_proba"].shape == (160, 3)
    assert three.obsm["X_scmoe"].shape[1] == record["estimates"]["n_latent"]["n_latent"]
    three.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(generate(again, 9).X, generate(three, 9).X)
    query = make_three((70, 50, 40))
    assign(query, again, reject=None)
    assert_same(query, three)


def test_the_graph_of_the_user(linked):
    similar(linked, n_clusters="auto", similarity=CoAssociation(), train_kwargs={"max_epochs": 2})
    assert linked.uns["scmoe"]["params"]["neighbors"] == "given"
    assert "estimates" in linked.uns["scmoe"]
    assert linked.obsm["X_scmoe"].shape == (600, 9)


def test_presets_and_numbers(linked):
    train_kwargs = {"max_epochs": 1}
    similar(linked, preset="synthetic", n_latent=3, train_kwargs=train_kwargs)
    assert linked.obsm["X_scmoe"].shape == (600, 3)
    assert linked.uns["scmoe"]["params"]["n_latent"] == 3
    assert linked.uns["scmoe"]["params"]["model_kwargs"]["n_latent"] == 3


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"n_latent": [2, 3]}, "`n_latent` must be"),
        ({"n_latent": 3, "model_kwargs": {"n_latent": 3}}, "Give `n_latent` as `n_latent`"),
        ({"model_kwargs": {"n_experts": "auto"}}, "Give `n_experts` as `n_clusters`"),
        (
            {"n_clusters": "auto", "train_kwargs": {"estimate_kwargs": {"n": 3}}},
            "`method='tree'` has no 'n'",
        ),
    ],
)
def test_numbers_that_are_none(three, same, kwargs, match):
    before = same.look(three)
    with pytest.raises(ValueError, match=match):
        similar(three, **kwargs)
    same(three, before)


def test_latent_sizes_in_the_settings_of_the_model(three):
    similar(three, n_clusters=4, model_kwargs={"n_latent": 2}, train_kwargs={"max_epochs": 1})
    assert three.obsm["X_scmoe"].shape == (160, 2)


@pytest.mark.parametrize(
    ("model", "how"),
    [
        ("moe-sim-vae", {}),
        ("moe-vae", {"pretrain_kwargs": {**QUICK, "max_epochs": np.int64(2)}}),
        ("cpl-mixvae", {"start_epochs": np.int64(1)}),
    ],
)
def test_numbers_of_numpy(three, model, how):
    """As ``.uns`` has them after reading a file, and numpy where it counts."""
    cluster(
        three,
        model=model,
        n_clusters=np.int64(3),
        n_latent=np.int64(2),
        progress=False,
        train_kwargs={
            **HOW,
            "max_epochs": np.int64(2),
            "batch_size": np.int64(50),
            **how,
        },
    )
    assert three.obsm["scmoe_proba"].shape == (160, 3)
    assert three.uns["scmoe"]["params"]["n_clusters"] == 3
