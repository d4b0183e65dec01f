"""Coupled mixture VAEs: what they find, what they know, and what they refuse."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from made_up import make_three
from scipy import sparse
from sklearn.metrics import normalized_mutual_info_score

from scmoe._estimate import _augmentation
from scmoe.model import CplMixVAE, ModelFileError, read_trained
from scmoe.model._cplmixvae_module import CplMixVAEModule
from scmoe.model._record import from_record, to_record
from scmoe.train import BATCH_KEYS

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"n_hidden": 16, "n_layers": 1, "n_embed": 4}
TERMS = {"loss", "reconstruction", "kl", "entropy", "coupling", "taught", "occupied_experts"}


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def make_counts(**kwargs):
    adata = make_three(**kwargs)
    rng = np.random.default_rng(1)
    rate = 2 + 20 * np.clip(adata.X, 0, None)
    adata.X = rng.poisson(rate * rng.lognormal(0, 0.3, (adata.n_obs, 1)))
    return adata


def build(adata, n_categories=4, *, seed=0, layer=None, counts=False, **kwargs):
    scvi.settings.seed = seed
    CplMixVAE.setup_anndata(adata, layer=layer, counts=counts)
    return CplMixVAE(adata, n_categories, **{**SMALL, **kwargs})


def fit(adata, n_categories=4, *, train=None, **kwargs):
    model = build(adata, n_categories, **kwargs)
    model.train(**{"max_epochs": 3, "batch_size": 100, **QUIET, **(train or {})})
    return model


@pytest.fixture(scope="module")
def trained():
    """A model that has learned the three types, and their cells."""
    before = scvi.settings.seed
    adata = make_three()
    model = fit(adata, 4, train={"max_epochs": 120, "plan_kwargs": {"lr": 5e-3}})
    scvi.settings.seed = before
    return model, adata


def test_three_types_are_found(trained):
    model, adata = trained
    labels = model.predict()
    assert normalized_mutual_info_score(adata.obs["kind"], labels) > 0.9
    assert set(model.history) == {f"{name}_train" for name in TERMS}
    # as many on top, in which communities are learned
    assert model.history["loss_train"].shape == (240, 1)
    assert model.history["taught_train"].shape == (120, 1)
    assert model.cluster_names_ == ["0", "1", "2", "3"]


def test_what_it_says_of_cells(trained):
    model, adata = trained
    proba = model.predict_proba()
    assert proba.shape == (200, 4)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(proba.to_numpy().argmax(1).astype(str), model.predict())
    assert model.get_latent_representation().shape == (200, 4)
    assert model.get_state().shape == (200, 2)
    values = proba.to_numpy(float)
    entropy = -(values * np.log(np.where(values > 0, values, 1))).sum(1)
    np.testing.assert_allclose(model.get_entropy(), entropy, atol=1e-5)
    assert model.outlier_score().shape == (200,)
    strange = adata[:1].copy()
    strange.X = strange.X + 50
    assert model.outlier_score(strange) > 0.99
    np.testing.assert_array_equal(model.predict(adata[:9].copy()), model.predict()[:9])


def test_category_is_that_of_the_mean_over_arms(trained):
    model, adata = trained
    model.module.eval()
    with torch.inference_mode():
        found = model.module.inference(torch.from_numpy(adata.X))
        own = found["log_arms"]
    geometric = own.exp().prod(0).sqrt()
    torch.testing.assert_close(found["proba"], geometric / geometric.sum(1, keepdim=True))
    same = (own[0].argmax(1) == own[1].argmax(1)).float().numpy()
    np.testing.assert_array_equal(model.get_consensus(), same)


def test_consensus_and_entropy_of_each_category(trained):
    model, _ = trained
    table, labels = model.consensus_, model.predict()
    assert list(table) == ["consensus", "entropy", "n_cells"]
    assert table["n_cells"].tolist() == [(labels == name).sum() for name in "0123"]
    assert table["n_cells"].is_monotonic_decreasing
    for k in np.flatnonzero(table["n_cells"]):
        mean = model.get_entropy()[labels == str(k)].mean()
        np.testing.assert_allclose(table["entropy"][k], mean, rtol=1e-4)
    assert (table["consensus"][:3] > 0.9).all()
    assert table["consensus"].between(0, 1).all()


def test_three_arms_have_thirds_of_consensus():
    model = fit(make_three(), 3, n_arms=3)
    assert set(np.unique(model.get_consensus())) <= {np.float32(v) for v in (0, 1 / 3, 1)}
    votes = model._collect(lambda out: out["votes"], None, None, None)
    first = sum(votes[0, a] == votes[0, b] for a, b in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_allclose(model.get_consensus()[0], first / 3, rtol=1e-6)


def test_new_cells_are_like_those_of_their_cluster(trained):
    model, adata = trained
    name = model.predict()[0]
    new = model.generate({name: 300})
    own = adata.X[model.predict() == name]
    np.testing.assert_allclose(new.X.mean(0), own.mean(0), atol=0.25)
    assert model.generate(50, gate="network", prior="unit").n_obs == 50


def test_same_seed_same_result():
    one, other, third = (fit(make_three(), 3, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one.predict_proba(), other.predict_proba())
    assert not one.predict_proba().equals(third.predict_proba())


@pytest.mark.parametrize(
    "how",
    [
        {"distance": "aitchison"},
        {"sharpness": 0.1},
        {"hard": True},
        {"scaling": "common"},
        {"scaling": "none", "n_layers": 0},
        {"activation": "elu", "state_dropout": 0.2},
        {"n_arms": 4, "n_state": 1},
        {"scaling": "quantile", "likelihood": "bernoulli"},
    ],
)
def test_variants_learn(how):
    model = fit(make_three(), 3, train={"max_epochs": 20}, **how)
    loss = model.history["loss_train"].iloc[:, 0]
    assert loss.iloc[-1] < loss.iloc[0]
    assert np.isfinite(model.predict_proba()).all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "augment",
    [
        False,
        {"share": 0.2, "n_neighbors": 3},
        "dropout",
        ["neighbors", "dropout"],
        {"dropout": {"rate": 0.3}, "neighbors": {}},
        {"posterior": {"noise": 0}},
    ],
)
def test_augmentation_can_be_chosen(augment, monkeypatch):
    monkeypatch.setattr(_augmentation, "N_STEPS", 300)
    one, again = (fit(make_three(), 3, train={"augment": augment}) for _ in range(2))
    pd.testing.assert_frame_equal(one.predict_proba(), again.predict_proba())


@pytest.mark.parametrize("augment", [True, "thinning", ["neighbors", "thinning", "dropout"]])
def test_copies_of_counts(augment):
    assert fit(make_counts(), 3, counts=True, train={"augment": augment}).is_trained


def test_copies_that_are_thinned_are_logarithms_of_fewer_counts():
    model = build(make_counts(), 3, counts=True)
    x = model._values(3)
    model._build()
    model._look_at(x)
    cells = torch.from_numpy(x)
    scaled = model._scaled(x)
    copies = model._copies("thinning", scaled, scaled, 0)(cells, torch.arange(len(x)))
    thinned = copies.expm1()
    torch.testing.assert_close(thinned, thinned.round(), rtol=0, atol=1e-3)
    assert (thinned.round() <= cells).all()
    share = thinned.sum(1) / cells.sum(1)
    assert share.mean() == pytest.approx(0.75, abs=0.05)


def test_each_arm_gets_a_copy_of_its_own_and_the_cell_is_the_target():
    model = build(make_three(), 3)
    x = model._values(3)
    model._build()
    model._look_at(x)
    scaled = model._scaled(x)
    copies = model._copies(True, scaled, scaled, 0)
    index = torch.arange(10)
    x = torch.from_numpy(model.adata.X[:10])
    one, other = copies(x, index), copies(x, index)
    scaled = model.module.scale(x)
    assert not torch.equal(one, other)
    # at most half of the way to a neighbour, which is of the same type
    assert (one - scaled).abs().max() < 0.6
    assert not torch.equal(one, scaled)


def test_copies_are_in_training_batches_alone(monkeypatch):
    seen = []
    before = CplMixVAEModule._get_inference_input

    def look(self, tensors, **kwargs):
        seen.append((self.training, tensors.get(BATCH_KEYS.ARMS)))
        return before(self, tensors, **kwargs)

    monkeypatch.setattr(CplMixVAEModule, "_get_inference_input", look)
    model = build(make_three(), 3, n_arms=3)
    model.train(1, batch_size=100, train_size=0.8, check_val_every_n_epoch=1, **QUIET)
    for training, arms in seen:
        assert (arms is not None) == training
        if training:
            assert arms.shape == (3, 100, 6)
            assert not torch.equal(arms[0], arms[1])
    assert {training for training, _ in seen} == {True, False}


def test_images_are_turned_and_have_a_bernoulli_likelihood():
    rng = np.random.default_rng(0)
    adata = AnnData(rng.random((60, 16), np.float32))
    adata.X[:, 0] = 0
    adata.uns["image_shape"] = np.array([4, 4])
    model = fit(adata, 2, train={"batch_size": 30})
    assert model.module.likelihood == "bernoulli"
    assert model.generate(3).X.shape == (3, 16)


# ----------------------------------------------------------------------------------------
# the start


def test_arms_that_start_alike_agree():
    consensus = []
    for start in (True, False):
        model = fit(
            make_three(),
            3,
            seed=3,
            train={"max_epochs": 6, "start": start, "start_epochs": 120 if start else None},
        )
        consensus.append(model.get_consensus().mean())
    assert consensus[0] > 0.95
    assert consensus[1] < 0.8


def test_a_training_is_silent():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit(make_three(), 3)
    assert not [str(w.message) for w in seen if "lightning" in w.filename]


def test_a_trained_model_starts_no_second_time():
    model = fit(make_three(), 3)
    assert len(model.history["taught_train"]) == 3
    model.train(2, batch_size=100, **QUIET)
    assert len(model.history["taught_train"]) == 3
    assert len(model.history["loss_train"]) == 3 + 3 + 2
    model.train(2, batch_size=100, start=True, start_epochs=4, **QUIET)
    assert len(model.history["taught_train"]) == 7


# ----------------------------------------------------------------------------------------
# counts


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_counts(likelihood):
    adata = make_counts()
    adata.X = sparse.csr_matrix(adata.X)
    train = {"max_epochs": 120, "plan_kwargs": {"lr": 5e-3}}
    model = fit(adata, 4, seed=1, counts=True, likelihood=likelihood, train=train)
    labels = model.predict()
    assert normalized_mutual_info_score(adata.obs["kind"], labels) > 0.8
    new = model.generate({labels[0]: 500})
    assert (new.X >= 0).all()
    np.testing.assert_array_equal(new.X, np.round(new.X))
    own = adata.X.toarray()[labels == labels[0]]
    np.testing.assert_allclose(new.X.sum(1).mean(), own.sum(1).mean(), rtol=0.1)
    large = own.mean(0) > 20
    np.testing.assert_allclose(new.X.mean(0)[large], own.mean(0)[large], rtol=0.25)


def test_counts_are_the_same_dense_or_sparse_whole_or_float():
    adata = make_counts()
    proba = [
        fit(AnnData(x, obs=adata.obs, var=adata.var), 3, counts=True).predict_proba()
        for x in (adata.X, sparse.csr_matrix(adata.X), adata.X.astype(np.float32))
    ]
    pd.testing.assert_frame_equal(proba[0], proba[1])
    pd.testing.assert_frame_equal(proba[0], proba[2])


def test_new_counts_may_be_sparse_and_must_be_counts():
    adata = make_counts()
    model = fit(adata, 3, counts=True)
    new = adata[:5].copy()
    new.X = sparse.csr_matrix(new.X)
    np.testing.assert_array_equal(model.predict(new), model.predict()[:5])
    new.X = new.X * 0.5
    with pytest.raises(ValueError, match="are no counts"):
        model.predict(new)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, np.inf])
def test_values_that_are_no_counts_are_named(kind, value):
    adata = make_counts()
    x = adata.X.astype(float)
    x[3, 2] = value
    adata.X = kind(x)
    with pytest.raises(ValueError, match=r"no counts, such as .* in 'CD19'"):
        CplMixVAE.setup_anndata(adata, counts=True)
    assert "_indices" not in adata.obs


def test_counts_without_saying_so_are_refused():
    with pytest.raises(ValueError, match=r"look like counts.* registered with `counts=True`"):
        CplMixVAE.setup_anndata(make_counts())


def test_likelihoods_must_fit_the_values():
    with pytest.raises(ValueError, match="counts=True"):
        build(make_three(), likelihood="nb")
    with pytest.raises(ValueError, match="registered as counts"):
        build(make_counts(), counts=True, likelihood="gaussian")
    with pytest.raises(ValueError, match="Counts are looked at by their logarithms"):
        build(make_counts(), counts=True, scaling="minmax")


# ----------------------------------------------------------------------------------------
# pruning

PRUNING = {
    "max_epochs": 60,
    "prune_epochs": 10,
    "batch_size": 200,
    "plan_kwargs": {"lr": 5e-3},
}


@pytest.fixture(scope="module")
def pruned():
    before = scvi.settings.seed
    adata = make_three()
    model = fit(adata, "auto", train=PRUNING)
    scvi.settings.seed = before
    return model, adata


def test_pruning_leaves_categories_that_the_arms_agree_on(pruned):
    model, adata = pruned
    curve, n = model.pruning_, model.module.n_experts
    assert list(curve) == ["n_categories", "consensus", "lowest", "loss"]
    assert (curve["lowest"] <= curve["consensus"]).all()
    assert curve["n_categories"].is_monotonic_decreasing
    assert curve["n_categories"].is_unique
    assert curve["n_categories"].iloc[0] <= 20
    reached = curve.loc[curve["lowest"] >= 0.75, "n_categories"]
    best = curve.loc[curve["lowest"].idxmax(), "n_categories"]
    assert n == (reached.max() if len(reached) else best)
    assert normalized_mutual_info_score(adata.obs["kind"], model.predict()) > 0.7
    assert model.predict_proba().shape == (200, n)
    found = model.estimates_["n_categories"]
    assert found["chosen"] == n
    np.testing.assert_array_equal(found["consensus"], curve["consensus"])
    assert len(model.history["loss_train"]) == 120 + 10 * (len(curve) - 1)


def test_pruned_models_are_saved_whole(pruned, tmp_path):
    model, adata = pruned
    model.save(tmp_path / "model")
    loaded = CplMixVAE.load(tmp_path / "model", adata)
    pd.testing.assert_frame_equal(loaded.predict_proba(), model.predict_proba())
    pd.testing.assert_frame_equal(loaded.pruning_, model.pruning_)
    pd.testing.assert_frame_equal(loaded.consensus_, model.consensus_)


def test_pruned_weights_are_those_of_the_best_round():
    # nothing reaches a consensus of 1 so early, and all numbers down to 2 are looked at
    model = fit(make_three(), 5, train={"prune": True, "prune_epochs": 1, "threshold": 1.0})
    curve = model.pruning_
    best = curve["consensus"].idxmax()
    assert model.module.n_experts == curve["n_categories"][best]
    # of the categories that have cells in an arm
    assert model.consensus_["consensus"].mean() == pytest.approx(curve["consensus"][best])


def test_a_pruned_model_can_be_trained_on(pruned):
    model = fit(make_three(), "auto", train={**PRUNING, "max_epochs": 30, "prune_epochs": 2})
    n = model.module.n_experts
    model.train(2, batch_size=200, **QUIET)
    assert model.module.n_experts == n


# ----------------------------------------------------------------------------------------
# files


@pytest.mark.parametrize("counts", [False, True])
def test_saved_models_predict_the_same(tmp_path, counts):
    adata = make_counts() if counts else make_three()
    model = fit(adata, 3, counts=counts)
    model.save(tmp_path / "model")
    loaded = CplMixVAE.load(tmp_path / "model", adata)
    for what in ("predict_proba", "get_state", "get_latent_representation", "get_entropy"):
        np.testing.assert_array_equal(getattr(loaded, what)(), getattr(model, what)())
    np.testing.assert_array_equal(loaded.generate(9).X, model.generate(9).X)
    trained, _ = read_trained(tmp_path / "model")
    assert trained.hash() == model.trained.hash()
    assert from_record(to_record(model.trained)).hash() == model.trained.hash()


def test_untrained_models_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="train first"):
        build(make_three()).save(tmp_path / "model")


def test_a_model_of_another_class_is_refused(trained, tmp_path):
    from scmoe.model import MoEVAE

    model, adata = trained
    model.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="CplMixVAE"):
        MoEVAE.load(tmp_path / "model", adata)


# ----------------------------------------------------------------------------------------
# what is refused


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"n_categories": 1}, "`n_categories` must be"),
        ({"n_categories": 2.5}, "`n_categories` must be"),
        ({"n_arms": 0}, "`n_arms`"),
        ({"n_state": 0}, "`n_state`"),
        ({"n_layers": -1}, "`n_layers`"),
        ({"input_dropout": 1.0}, "`input_dropout`"),
        ({"coupling_weight": -1}, "`coupling_weight`"),
        ({"kl_weight": np.nan}, "`kl_weight`"),
        ({"sharpness": 0}, "`sharpness`"),
        ({"temperature": np.inf}, "`temperature`"),
        ({"distance": "euclidean"}, "`distance`"),
        ({"likelihood": "poisson"}, "`likelihood`"),
        ({"scaling": "log"}, "`scaling`"),
        ({"hard": 1}, "`hard`"),
        ({"min_cells": -1}, "`min_cells`"),
    ],
)
def test_settings_out_of_range_are_named(how, match):
    with pytest.raises(ValueError, match=match):
        build(make_three(), **how)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"start": "no"}, "`start`"),
        ({"start_epochs": 0}, "`start_epochs`"),
        ({"prune": "yes"}, "`prune`"),
        ({"prune": True, "prune_epochs": 0}, "`prune_epochs`"),
        ({"threshold": 1.5}, "`threshold`"),
        ({"batch_size": 1}, "A batch of one cell"),
        ({"early_stopping": True}, "validation cells"),
        ({"augment": "yes"}, "`augment`"),
        ({"augment": {"rotation": 3}}, "no 'rotation'"),
        ({"augment": "thinning"}, r"augmentations of cells\), .*got 'thinning'"),
        ({"augment": {"dropout": {"rate": 2}}}, "`rate` is 2"),
        ({"max_epochs": 0.5}, "`max_epochs`"),
    ],
)
def test_trainings_that_make_no_sense_are_named(how, match):
    model = build(make_three(), 3)
    with pytest.raises(ValueError, match=match):
        model.train(**{"max_epochs": 1, **QUIET, **how})
    assert model.module is None
    assert not model.is_trained


def test_one_arm_couples_nothing():
    with pytest.warns(UserWarning, match="With one arm nothing is coupled"):
        model = build(make_three(), 3, n_arms=1)
    model.train(2, batch_size=100, **QUIET)
    assert "coupling_train" not in model.history
    assert model.consensus_["consensus"].isna().all()
    with pytest.raises(ValueError, match="one arm"):
        model.get_consensus()
    with pytest.raises(ValueError, match="Pruning looks at how far arms agree"):
        model.train(1, prune=True, **QUIET)


def test_small_batches_are_a_warning():
    model = build(make_three(), 4, distance="scaled")
    with pytest.warns(UserWarning, match="Batches of 15 cells are small for 4 categories"):
        model.train(1, batch_size=15, **QUIET)
    # a distance that needs no deviations
    build(make_three(), 4, distance="aitchison").train(1, batch_size=15, **QUIET)


def test_more_categories_than_cells_are_refused():
    model = build(make_three(sizes=(2, 2, 2)), 9)
    with pytest.raises(ValueError, match="fewer cells"):
        model.train(1, **QUIET)


def test_validation_cells_have_a_loss():
    model = fit(make_three(), 3, train={"train_size": 0.8, "check_val_every_n_epoch": 1})
    assert len(model.history["validation_loss"]) > 0
    assert len(model.train_indices) == 160
