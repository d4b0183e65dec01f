"""What varies within the clusters of coupled mixture VAEs, by the model."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData

from scmoe.model import CplMixVAE
from scmoe.model._states import arm_states

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"n_hidden": 16, "n_layers": 1, "n_embed": 4}


@pytest.fixture(autouse=True, scope="module")
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def make_two(counts=False):
    """Two types of 150 cells; within the second, the first marker moves with a hidden factor."""
    rng = np.random.default_rng(0)
    kind = np.arange(300) % 2
    x = rng.normal(scale=0.2, size=(300, 6)) + 3 * np.eye(2)[kind].repeat(3, 1)
    x[kind == 1, 0] += rng.uniform(0, 3, 150)
    if counts:
        x = rng.poisson(5 * np.clip(x, 0.2, None) * rng.lognormal(0, 0.2, (300, 1)))
    return AnnData(x.astype(np.float32), obs={"kind": kind.astype(str)})


def fit(adata, *, counts=False, layer=None, train=None, **kwargs):
    scvi.settings.seed = 0
    CplMixVAE.setup_anndata(adata, counts=counts, layer=layer)
    model = CplMixVAE(adata, 2, **{**SMALL, **kwargs})
    model.train(**{"max_epochs": 3, "batch_size": 100, "prune": False, **QUIET, **(train or {})})
    return model


@pytest.fixture(scope="module")
def trained():
    """Three arms that use their states: these cost little, and nothing is hidden from them."""
    train = {"max_epochs": 200, "augment": False, "plan_kwargs": {"lr": 5e-3}}
    return fit(make_two(), n_arms=3, kl_weight=0.1, input_dropout=0.0, train=train)


def test_steps_are_decoded_states(trained):
    name = trained.predict()[0]
    states = trained.get_state()[trained.predict() == name]
    steps = trained.traverse(name, dims=1, n_steps=5, quantiles=(0.1, 0.8))
    assert steps.shape == (5, 6)
    assert steps.X.dtype == np.float32
    assert set(steps.obs["cluster"]) == {name}
    assert set(steps.obs["dimension"]) == {1}
    low, high = np.quantile(states[:, 1], [0.1, 0.8])
    np.testing.assert_allclose(steps.obs["position"], np.linspace(low, high, 5), rtol=1e-5)
    codes = np.tile(np.median(states, 0), (5, 1))
    codes[:, 1] = steps.obs["position"]
    k = trained.cluster_names_.index(name)
    module = trained.module
    with torch.inference_mode():
        decoded = module.decode(torch.from_numpy(codes).float(), torch.full((5,), k))
        np.testing.assert_allclose(steps.X, module.unscale(decoded), rtol=1e-5)


def test_all_dimensions_by_default(trained):
    steps = trained.traverse("0")
    assert steps.obs["dimension"].tolist() == [0] * 11 + [1] * 11
    assert steps.obs_names.is_unique
    one = trained.traverse("0", dims=[1])
    np.testing.assert_allclose(steps.X[11:], one.X, rtol=1e-6)


def test_the_marker_that_moves_is_seen_to_move(trained):
    labels = trained.predict()
    name = labels[trained.adata.obs["kind"] == "1"][0]
    moved = np.ptp(trained.traverse(name).X.reshape(2, 11, 6), axis=1).max(0)
    assert moved[0] > 1.5
    assert (moved[1:] < 0.3).all()


def test_layers_go_along():
    adata = make_two()
    adata.layers["scaled"] = adata.X
    steps = fit(adata, layer="scaled").traverse("0")
    np.testing.assert_array_equal(steps.layers["scaled"], steps.X)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_counts_are_means_at_the_typical_total(likelihood):
    adata = make_two(counts=True)
    model = fit(adata, counts=True, likelihood=likelihood)
    steps = model.traverse("0")
    own = adata.X[model.predict() == "0"]
    assert not np.array_equal(steps.X, steps.X.round())
    if likelihood == "nb":
        typical = np.exp(np.log(own.sum(1)).mean())
        np.testing.assert_allclose(steps.X.sum(1), typical, rtol=1e-4)
    assert (steps.X >= 0).all()


def test_images_stay_images():
    rng = np.random.default_rng(0)
    adata = AnnData(rng.random((60, 16), np.float32))
    adata.uns["image_shape"] = np.array([4, 4])
    steps = fit(adata, train={"max_epochs": 1}).traverse("0", dims=0)
    assert steps.uns["image_shape"].tolist() == [4, 4]
    assert steps.X.min() >= 0
    assert steps.X.max() <= 1


def test_votes_and_states_of_all_arms(trained):
    votes = trained.get_votes()
    assert votes.shape == (300, 3)
    assert votes.dtype == np.int16
    pairs = [votes[:, i] == votes[:, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(trained.get_consensus(), np.mean(pairs, axis=0), rtol=1e-6)
    found = arm_states(trained.trained, trained.adata.X)
    assert found.mean.shape == found.variance.shape == (3, 300, 2)
    np.testing.assert_allclose(found.mean[0], trained.get_state(), atol=1e-5)
    assert (found.variance > 0).all()
    names = np.asarray(trained.cluster_names_)[found.expert]
    np.testing.assert_array_equal(names, trained.predict())
    assert not np.allclose(found.mean[0], found.mean[1])


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"dims": 2}, "dimensions 0 to 1, got 2"),
        ({"dims": -1}, "dimensions 0 to 1"),
        ({"dims": []}, "dimensions 0 to 1"),
        ({"dims": [0.5]}, "dimensions 0 to 1"),
        ({"dims": [1, 1]}, "twice"),
        ({"n_steps": 1}, "`n_steps` must be a whole number from 2"),
        ({"quantiles": (0.9, 0.1)}, "`quantiles`"),
        ({"quantiles": (-0.1, 0.5)}, "`quantiles`"),
        ({"quantiles": 0.5}, "`quantiles`"),
        ({"quantiles": ("a", 1)}, "`quantiles`"),
    ],
)
def test_traversals_that_are_none_are_named(trained, how, match):
    with pytest.raises(ValueError, match=match):
        trained.traverse("0", **how)


def test_clusters_that_are_none_are_named(trained):
    with pytest.raises(KeyError, match=r"no cluster '7'; there are '0'"):
        trained.traverse("7")
    model = fit(make_two())
    # as if it had been retired
    model.module.live[1] = False
    with pytest.raises(ValueError, match="No cell belongs to '1'"):
        model.traverse("1")


def test_an_untrained_model_has_nothing_to_say():
    adata = make_two()
    CplMixVAE.setup_anndata(adata)
    with pytest.raises(RuntimeError, match="train"):
        CplMixVAE(adata, 2).traverse("0")
