"""The model and its verbs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from scipy import sparse

from scmoe.metrics import accuracy
from scmoe.model import MoESimVAE
from scmoe.nn import cluster_means
from scmoe.similarity import CoAssociation, Graph, Knn, Threshold

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}

TERMS = {"loss", "reconstruction", "similarity", "depict", "kl"}


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def trained(adata, n_experts=8, epochs=2, *, setup=None, train=None, seed=0, **kwargs):
    scvi.settings.seed = seed
    MoESimVAE.setup_anndata(adata, **(setup or {}))
    model = MoESimVAE(adata, n_experts, **kwargs)
    model.train(epochs, **{**QUIET, **(train or {})})
    return model


def answers(model, adata=None):
    return (
        model.predict(adata),
        model.predict_proba(adata).to_numpy(),
        model.get_latent_representation(adata),
    )


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# ----------------------------------------------------------------------------------------
# what comes out


def test_shapes(linked):
    model = trained(linked, n_experts=8, n_latent=5)
    label, proba, z = model.predict(), model.predict_proba(), model.get_latent_representation()
    assert label.shape == (600,)
    assert all(type(name) is str for name in label)
    assert set(label) <= {str(k) for k in range(8)}
    assert isinstance(proba, pd.DataFrame)
    assert list(proba.index) == list(linked.obs_names)
    assert list(proba.columns) == [str(k) for k in range(8)]
    assert (proba.dtypes == np.float32).all()
    assert proba.to_numpy().min() >= 0
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    assert list(proba.idxmax(1)) == list(label)
    assert z.shape == (600, 5)
    assert z.dtype == np.float32
    assert np.isfinite(z).all()


def test_predictions_repeat_and_do_not_depend_on_the_batch(linked):
    model = trained(linked)
    label, proba, z = answers(model)
    assert_same(answers(model), (label, proba, z))
    np.testing.assert_allclose(model.get_latent_representation(batch_size=7), z, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(batch_size=599), proba, atol=1e-5)


def test_indices(linked):
    model = trained(linked)
    which = [5, 599, 0]
    np.testing.assert_array_equal(model.predict(indices=which), model.predict()[which])
    proba = model.predict_proba(indices=which)
    assert list(proba.index) == list(linked.obs_names[which])
    np.testing.assert_allclose(proba, model.predict_proba().iloc[which], atol=1e-6)
    for wrong in ([600], [0, -601]):
        with pytest.raises(ValueError, match="`indices` must be from 0 to 599"):
            model.predict(indices=wrong)
    np.testing.assert_array_equal(model.predict(indices=[-1]), model.predict()[-1:])


def test_finds_the_populations(linked):
    model = trained(linked, n_experts=10, epochs=60)
    label = model.predict()
    assert accuracy(linked.obs["population"], label) > 0.95
    assert len(set(label)) <= 7
    # surplus experts end empty: the best five own nearly everything
    assert pd.Series(label).value_counts().iloc[:5].sum() > 570


def test_experts_are_numbered_by_size(linked):
    model = trained(linked, epochs=10)
    size = pd.Series(model.predict()).value_counts()
    owned = [size.get(str(k), 0) for k in range(8)]
    assert owned == sorted(owned, reverse=True)
    assert owned[0] > owned[-1]


def test_splinters_are_retired(linked):
    kept = trained(linked, epochs=20, min_cells=1)
    owned = pd.Series(kept.predict()).value_counts()
    limit = int(owned.min()) + 1
    model = trained(linked, epochs=20, min_cells=limit)  # the same but for the last step
    label, proba, _ = answers(model)
    size = pd.Series(label).value_counts()
    assert 1 < len(size) < len(owned)
    assert size.min() >= limit
    assert not (proba[:, len(size) :] > 0).any() or model.module.live.sum() > len(size)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    # who was with a living expert stays there, under the same number
    stays = owned.index[owned >= limit]
    before = kept.predict()
    moved = ~np.isin(before, stays)
    assert moved.any()
    same = pd.crosstab(before[~moved], label[~moved])
    assert ((same > 0).sum(1) == 1).all()


def test_nobody_is_left_without_an_expert(linked):
    model = trained(linked, min_cells=10_000)
    assert set(model.predict()) == {"0"}
    np.testing.assert_allclose(model.predict_proba()["0"], 1)


def test_retired_experts_may_come_back(linked):
    model = trained(linked, min_cells=10_000)
    model.settings = replace(model.settings, min_cells=1)
    model.train(20, **QUIET)
    assert len(set(model.predict())) > 1


@pytest.mark.parametrize("epochs", [1, 10])
def test_means_are_those_of_all_codes(linked, epochs):
    model = trained(linked, epochs=epochs)
    _, proba, z = answers(model)
    expected = cluster_means(torch.from_numpy(z), torch.from_numpy(proba))
    torch.testing.assert_close(model.module.means, expected, atol=1e-4, rtol=1e-4)


def test_history(linked):
    model = trained(linked, epochs=3, train={"start": False})
    names = TERMS | {"occupied_experts", "similar_pairs"}
    assert set(model.history) >= {f"{name}_train" for name in names}
    table = {name: model.history[f"{name}_train"].to_numpy(float).ravel() for name in names}
    for values in table.values():
        assert values.shape == (3,)
        assert np.isfinite(values).all()
    total = (
        table["reconstruction"] + table["similarity"] + 0.05 * table["depict"] + 0.01 * table["kl"]
    )
    np.testing.assert_allclose(table["loss"], total, rtol=1e-4)
    assert table["loss"][-1] < table["loss"][0]
    assert ((table["occupied_experts"] >= 1) & (table["occupied_experts"] <= 8)).all()
    assert (table["similar_pairs"] > 1).all()


def test_validation(linked):
    model = trained(linked, epochs=2, train={"train_size": 0.8, "check_val_every_n_epoch": 1})
    assert len(model.train_indices) == 480
    assert len(model.validation_indices) == 120
    assert any("validation" in name for name in model.history)
    assert len(model.predict()) == 600


def test_few_cells_that_differ_keep_a_marker_alive(blobs):
    # the quantiles of a marker that is 0 in nearly all cells coincide
    adata = AnnData(np.concatenate([blobs.X] * 3))
    adata.X[:, 3] = 0
    adata.X[17, 3] = 2
    model = trained(adata, epochs=1, setup={"similarity": Knn(use_rep="X")})
    assert float(model.module.low[3]) == 0
    assert float(model.module.high[3]) == 2
    for values in answers(model)[1:]:
        assert np.isfinite(values).all()


def test_scale_is_that_of_the_quantiles(linked):
    model = trained(linked, epochs=1)
    low, high = np.quantile(linked.X, [0.001, 0.999], axis=0)
    np.testing.assert_allclose(model.module.low, low, atol=1e-5)
    np.testing.assert_allclose(model.module.high, high, atol=1e-5)


# ----------------------------------------------------------------------------------------
# seeds


@pytest.mark.parametrize("similarity", [CoAssociation(), Graph()], ids=["chance", "drawn"])
def test_same_seed_same_result(linked, similarity):
    results = []
    for seed in (3, 3, 4):
        model = trained(linked.copy(), seed=seed, setup={"similarity": similarity})
        results.append(answers(model))
    assert_same(results[0], results[1])
    assert not np.allclose(results[0][2], results[2][2])


# ----------------------------------------------------------------------------------------
# training


@pytest.mark.parametrize(
    "similarity",
    [
        CoAssociation(),
        CoAssociation(majority=False),
        Graph(),
        Knn(use_rep="X"),
        Knn(use_rep="X_rep"),
        Threshold(use_rep="X_rep", distance=1.0),
    ],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'use_rep', '')}",
)
@pytest.mark.parametrize("batch_size", [100, 1500])
def test_every_similarity_trains(linked, similarity, batch_size):
    if batch_size > 1024:
        graph = linked.obsp["connectivities"]
        X = np.concatenate([linked.X] * 3)
        X += np.random.default_rng(0).normal(scale=1e-3, size=X.shape).astype(np.float32)
        linked = AnnData(X)
        linked.obsp["connectivities"] = sparse.block_diag([graph] * 3, format="csr")
    linked.obsm["X_rep"] = linked.X[:, :4].copy()
    seen = []

    class Looks(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            n = len(batch["X"])
            seen.append((batch["similarity"].numel() < n * n, n))

    model = trained(
        linked,
        epochs=2,
        setup={"similarity": similarity},
        train={"batch_size": batch_size, "callbacks": [Looks()]},
    )
    assert model.similarity == similarity
    # a model that has started compares some pairs in batches of any size
    some = batch_size > 1024 or isinstance(similarity, CoAssociation)
    assert set(seen) == {(some, batch_size)}
    assert np.isfinite(model.history["similarity_train"].to_numpy(float)).all()
    for values in answers(model)[1:]:
        assert np.isfinite(values).all()


@pytest.mark.parametrize("n", [129, 128, 127, 65, 64, 3])
def test_last_batch_of_one(linked, n):
    adata = linked[:n].copy()
    model = trained(
        adata,
        n_experts=3,
        setup={"similarity": Threshold(use_rep="X", distance=10)},
        train={"batch_size": 64},
    )
    assert len(model.predict()) == n
    assert np.isfinite(model.history["loss_train"].to_numpy(float)).all()


def test_default_epochs_are_about_2500_steps(linked, monkeypatch):
    asked = []

    def stub(self, max_epochs, **kwargs):
        asked.append(max_epochs)

    monkeypatch.setattr("scvi.model.base.UnsupervisedTrainingMixin.train", stub)
    monkeypatch.setattr(MoESimVAE, "_finish_classes", lambda self, target: None)
    MoESimVAE.setup_anndata(linked)
    MoESimVAE(linked, 5).train(start=False, **QUIET)
    MoESimVAE(linked, 5).train(start=False, batch_size=600, **QUIET)
    assert asked[1] == 2500
    assert 2500 <= asked[0] * 3 < 2503


class Modes(Callback):
    """Note whether noise was on."""

    def __init__(self):
        self.training = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.training.append(module.module.training)


@pytest.mark.slow
def test_training_continues(linked):
    model = trained(linked, epochs=30, train={"start": False})
    before = float(model.history["loss_train"].iloc[-1, 0])
    scale = model.module.low.clone(), model.module.high.clone()
    modes = Modes()
    model.train(2, callbacks=[modes], **QUIET)
    after = float(model.history["loss_train"].iloc[-1, 0])
    assert after < before + 0.1 < float(model.history["loss_train"].iloc[0, 0]) + 0.2
    assert modes.training
    assert all(modes.training), "the noise of training is off"
    torch.testing.assert_close(scale, (model.module.low, model.module.high))


def test_noise_is_on_in_the_first_training_and_after_validation(linked):
    modes = Modes()
    trained(
        linked,
        epochs=3,
        train={"train_size": 0.8, "check_val_every_n_epoch": 1, "callbacks": [modes]},
    )
    assert modes.training
    assert all(modes.training)


@pytest.mark.slow
def test_layer(linked):
    linked.layers["arcsinh"] = linked.X.copy()
    expected = answers(trained(linked.copy()))
    linked.X = np.random.default_rng(0).normal(size=linked.shape).astype(np.float32)
    model = trained(linked, setup={"layer": "arcsinh"})
    assert_same(answers(model), expected)
    new = linked[::2].copy()
    np.testing.assert_allclose(model.predict_proba(new), expected[1][::2], atol=1e-5)
    del new.layers["arcsinh"]
    with pytest.raises(KeyError, match="'arcsinh'"):
        model.predict(new)


@pytest.mark.slow
def test_float64_is_the_same_as_float32(linked):
    expected = answers(trained(linked.copy()))
    linked.X = linked.X.astype(np.float64)
    assert_same(answers(trained(linked)), expected)


# ----------------------------------------------------------------------------------------
# saved models and new cells


def test_save_and_load(linked, tmp_path):
    similarity = CoAssociation(resolutions=(0.2, 1.0), majority=False)
    setup = {"similarity": similarity}
    model = trained(linked, setup=setup, n_latent=4, code_noise=0.1, min_cells=250)
    model.save(str(tmp_path / "model"))
    fresh = linked.copy()
    again = MoESimVAE.load(str(tmp_path / "model"), fresh, accelerator="cpu")
    assert_same(answers(again), answers(model))
    torch.testing.assert_close(again.module.means, model.module.means, rtol=0, atol=0)
    assert again.similarity == similarity
    assert again.module.code_noise == 0.1
    assert again.settings.min_cells == 250
    assert torch.equal(again.module.live, model.module.live)
    # and it learns on
    again.train(1, **QUIET)


def test_new_cells_in_another_order_of_markers(linked):
    model = trained(linked)
    _, proba, z = answers(model)
    cells = np.random.default_rng(0).permutation(600)[:77]
    new = linked[cells, ::-1].copy()
    new = AnnData(new.X, obs=new.obs[["population"]], var=new.var)
    np.testing.assert_array_equal(model.predict(new), model.predict()[cells])
    frame = model.predict_proba(new)
    assert list(frame.index) == list(new.obs_names)
    np.testing.assert_allclose(frame, proba[cells], atol=1e-5)
    np.testing.assert_allclose(model.get_latent_representation(new), z[cells], atol=1e-5)


def test_new_cells_with_more_markers(linked):
    model = trained(linked)
    X = np.concatenate([np.full((20, 2), 99, np.float32), linked.X[:20]], axis=1)
    new = AnnData(X, var=pd.DataFrame(index=["Time", "DNA", *linked.var_names]))
    np.testing.assert_allclose(model.predict_proba(new), model.predict_proba()[:20], atol=1e-5)
    assert list(new.var_names)[:2] == ["Time", "DNA"]


def test_new_cells_far_outside_are_clipped(linked):
    model = trained(linked)
    new = AnnData(np.full((2, 8), 1e6, np.float32), var=pd.DataFrame(index=linked.var_names))
    new.X[1] = model.module.high
    z = model.get_latent_representation(new)
    np.testing.assert_allclose(z[0], z[1], atol=1e-5)


def test_missing_markers_are_named(linked):
    model = trained(linked, epochs=1)
    keep = [name for name in linked.var_names if name not in ("CD14", "CD4")]
    for verb in (model.predict, model.predict_proba, model.get_latent_representation):
        with pytest.raises(KeyError, match=r"'CD4', 'CD14'"):
            verb(linked[:, keep].copy())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_new_cells_with_nan(linked, value):
    model = trained(linked, epochs=1)
    new = linked[:30].copy()
    new.X[3, 5] = value
    with pytest.raises(ValueError, match=r"NaN or infinite values in 'CD14'"):
        model.predict(new)


def test_new_cells_of_the_wrong_kind(linked):
    model = trained(linked, epochs=1)
    new = linked[:30].copy()
    new.X = sparse.csr_matrix(new.X)
    with pytest.raises(ValueError, match="sparse"):
        model.predict(new)
    new = linked[:30].copy()
    new.X = new.X.astype(int)
    with pytest.raises(ValueError, match="int64"):
        model.predict(new)
    new = linked[:30].copy()
    new.obs_names = ["same"] * 30
    with pytest.raises(ValueError, match="not unique"):
        model.predict(new)


def test_an_untrained_model_says_so(linked):
    MoESimVAE.setup_anndata(linked)
    model = MoESimVAE(linked, 5)
    with pytest.raises(RuntimeError, match="train"):
        model.predict()


# ----------------------------------------------------------------------------------------
# mistakes


def nan(adata):
    adata.X[4, 3] = np.nan


def inf(adata):
    adata.X[4, 3] = -np.inf


def duplicate_cells(adata):
    adata.obs_names = ["twice", "twice", *adata.obs_names[2:]]


def duplicate_markers(adata):
    adata.var_names = ["CD3", "CD3", *adata.var_names[2:]]


def to_sparse(adata):
    adata.X = sparse.csr_matrix(adata.X)


def to_int(adata):
    adata.X = adata.X.astype(np.int32)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (nan, r"NaN or infinite values in 'CD19'"),
        (inf, r"NaN or infinite values in 'CD19'"),
        (duplicate_cells, r"Cell names are not unique: 'twice'"),
        (duplicate_markers, r"Marker names are not unique: 'CD3'"),
        (to_sparse, "sparse"),
        (to_int, "int32"),
    ],
)
def test_setup_mistakes(blobs, spoil, match):
    spoil(blobs)
    with pytest.raises(ValueError, match=match):
        MoESimVAE.setup_anndata(blobs)
    assert list(blobs.obs) == ["population"]
    assert not blobs.uns


def test_setup_of_a_view_of_an_unknown_layer_or_similarity(blobs):
    with pytest.raises(ValueError, match="view"):
        MoESimVAE.setup_anndata(blobs[:300])
    with pytest.raises(KeyError, match="'counts'"):
        MoESimVAE.setup_anndata(blobs, layer="counts")
    with pytest.raises(ValueError, match="Unknown similarity 'Astrology'"):
        MoESimVAE.setup_anndata(blobs, similarity={"name": "Astrology"})


def test_too_few_experts(linked):
    MoESimVAE.setup_anndata(linked)
    with pytest.raises(ValueError, match="at least 2, or None, got 1"):
        MoESimVAE(linked, 1)


@pytest.mark.parametrize(
    ("n_cells", "n_experts", "match"),
    [(1, 2, r"at least 2 cells, got 1"), (4, 5, r"fewer cells \(4\) than clusters \(5\)")],
)
def test_too_few_cells(blobs, n_cells, n_experts, match):
    adata = blobs[:n_cells].copy()
    MoESimVAE.setup_anndata(adata, similarity=Threshold(use_rep="X"))
    with pytest.raises(ValueError, match=match):
        MoESimVAE(adata, n_experts).train(1, **QUIET)


def test_constant_markers(linked):
    linked.X[:, [2, 7]] = 1.5
    MoESimVAE.setup_anndata(linked)
    with pytest.raises(ValueError, match=r"Constant in all cells: 'CD8', 'CD45'"):
        MoESimVAE(linked, 5).train(1, **QUIET)


@pytest.mark.parametrize(
    "similarity",
    [CoAssociation(), Graph(), CoAssociation(neighbors_key="mine"), Knn(use_rep="X_tsne")],
)
def test_the_similarity_lacks_its_slot(blobs, similarity):
    MoESimVAE.setup_anndata(blobs, similarity=similarity)
    with pytest.raises(KeyError, match="Did not find"):
        MoESimVAE(blobs, 5).train(1, **QUIET)


def test_early_stopping_watches_the_whole_loss(linked):
    MoESimVAE.setup_anndata(linked)
    model = MoESimVAE(linked, 5)
    with pytest.raises(ValueError, match="validation cells"):
        model.train(early_stopping=True, **QUIET)
    model.train(3, early_stopping=True, train_size=0.8, **QUIET)
    assert "validation_loss" in model.history


def test_unknown_plan_arguments_are_refused(linked):
    MoESimVAE.setup_anndata(linked)
    with pytest.raises(TypeError, match="weight_decay"):
        MoESimVAE(linked, 5).train(1, plan_kwargs={"weight_decay": 1.0}, **QUIET)


def test_no_cells_to_predict(linked):
    with pytest.raises(ValueError, match="no cells"):
        trained(linked, epochs=1).predict(linked[:0].copy())


# ----------------------------------------------------------------------------------------
# numbers out of range, and trainings that fail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_latent", 0),
        ("gate_hidden", 0),
        ("encoder_layers", -1),
        ("code_noise", -0.1),
        ("kl_weight", -1),
        ("gate_dropout", 1.0),
        ("min_cells", -1),
    ],
)
def test_numbers_out_of_range(linked, name, value):
    MoESimVAE.setup_anndata(linked)
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        MoESimVAE(linked, 4, **{name: value})


@pytest.mark.parametrize("size", [0, 1.5, -0.5])
def test_train_size_out_of_range(linked, size):
    MoESimVAE.setup_anndata(linked)
    with pytest.raises(ValueError, match="`train_size`"):
        MoESimVAE(linked, 4).train(1, train_size=size, **QUIET)


def test_no_indices_to_predict(linked):
    model = trained(linked, epochs=1)
    with pytest.raises(ValueError, match="`indices` is empty"):
        model.predict(indices=[])


class Failing(Callback):
    def on_train_batch_end(self, *args):
        raise RuntimeError("on purpose")


def test_a_failed_further_training_changes_nothing(linked):
    model = trained(linked)
    before = answers(model)
    with pytest.raises(RuntimeError, match="on purpose"):
        model.train(1, callbacks=[Failing()], **QUIET)
    assert_same(answers(model), before)
    assert len(model.generate(10)) == 10


def test_a_failed_first_training_leaves_an_untrained_model(linked):
    MoESimVAE.setup_anndata(linked)
    model = MoESimVAE(linked, 4)
    with pytest.raises(RuntimeError, match="on purpose"):
        model.train(1, callbacks=[Failing()], **QUIET)
    assert not model.is_trained
