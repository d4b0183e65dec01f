"""Santos' mixture of VAEs: what it finds, what it knows, and what it refuses."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from made_up import make_three
from scipy import sparse

import scmoe
from scmoe._core.files import checksum
from scmoe._core.plain import for_h5ad
from scmoe._core.rows import Rows
from scmoe._estimate import find_clusters
from scmoe.metrics import accuracy
from scmoe.model import ModelFileError, MoESimVAE, MoEVAE, read_trained
from scmoe.model._clusters import Description
from scmoe.model._predict import PREDICTIONS, predict_cells
from scmoe.nn import padded_side

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"n_hidden": 16, "n_layers": 1}
QUICK = {
    "max_epochs": 50,
    "manager_epochs": 40,
    "batch_size": 50,
    "lr": 5e-3,
    "manager_lr": 5e-3,
    "method": "density",
}
GIVEN = {"n_latent": 2, **SMALL}
TERMS = {
    *("loss", "distance", "sample_entropy", "batch_entropy", "reconstruction", "kl"),
    "occupied_experts",
}


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


@pytest.fixture
def three():
    return make_three()


@pytest.fixture(scope="module")
def three_once():
    return make_three()


def build(adata, n_experts="auto", *, seed=0, layer=None, **kwargs):
    scvi.settings.seed = seed
    MoEVAE.setup_anndata(adata, layer=layer)
    return MoEVAE(adata, n_experts, **{**SMALL, **kwargs})


def train(model, epochs=10, **kwargs):
    kwargs = {"batch_size": 50, "pretrain_kwargs": QUICK, **QUIET, **kwargs}
    model.train(epochs, **kwargs)
    return model


def plainly(adata, n_experts=3, epochs=3, *, n_latent=2, train_kwargs=None, **kwargs):
    """A model that was trained from random weights, which takes no second."""
    model = build(adata, n_experts, n_latent=n_latent, **kwargs)
    return train(model, epochs, **{"pretrain": False, **(train_kwargs or {})})


@pytest.fixture(scope="module")
def found(three_once):
    """All that can be estimated was estimated."""
    before = scvi.settings.seed
    model = train(build(three_once))
    scvi.settings.seed = before
    return model


@pytest.fixture(scope="module")
def unequal(three_once):
    """Experts with latent spaces of 1, 2 and 3 dimensions, without pretraining."""
    before = scvi.settings.seed
    model = plainly(three_once.copy(), n_latent=[1, 2, 3], min_cells=0)
    scvi.settings.seed = before
    return model


def answers(model, adata=None):
    return (
        model.predict(adata),
        model.predict(adata, by="reconstruction"),
        model.predict_proba(adata).to_numpy(),
        model.get_distances(adata).to_numpy(),
        model.get_latent_representation(adata),
        model.outlier_score(adata),
    )


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def differs(first, second):
    return not np.array_equal(first.predict_proba(), second.predict_proba())


# ----------------------------------------------------------------------------------------
# what is found


def test_number_and_clusters_are_found(found, three_once):
    assert found.module.n_experts == 3
    assert found.cluster_names_ == ["0", "1", "2"]
    kinds = three_once.obs["kind"].to_numpy()
    np.testing.assert_array_equal(found.predict(), kinds)
    np.testing.assert_array_equal(found.predict(by="reconstruction"), kinds)
    proba = found.predict_proba()
    assert list(proba.index) == list(three_once.obs_names)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    assert found.module.size.tolist() == [90, 60, 50]


def test_evidence(found, tmp_path):
    record = found.estimates_
    assert set(record) == {"n_clusters", "n_latent", "experts"}
    assert record["n_clusters"]["method"] == "density"
    assert record["n_clusters"]["n_clusters"] == 3
    assert record["n_clusters"]["table"]["chosen"].sum() == 1
    assert record["n_latent"]["threshold"] == 0.9
    assert record["n_latent"]["explained"].sum() == pytest.approx(1)
    # two markers of each type, of which only the types are of more than noise
    assert record["n_latent"]["n_latent"] == found.get_latent_representation().shape[1] == 2
    experts = record["experts"]
    assert list(experts["n_cells"]) == [90, 60, 50]
    assert list(experts["n_latent"]) == list(found.module.experts.n_latents)
    assert (experts["n_latent"] >= 2).all()
    assert (experts["needed"] >= 1).all()

    template = AnnData(np.zeros((1, 1), np.float32), uns={"estimates": for_h5ad(record)})
    template.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad").uns["estimates"]
    pd.testing.assert_frame_equal(again["experts"], experts, check_names=False, check_dtype=False)
    assert again["n_clusters"]["n_clusters"] == 3


def test_history(found):
    assert set(found.history) == {f"{name}_train" for name in TERMS}
    table = {name: found.history[f"{name}_train"].to_numpy(float).ravel() for name in TERMS}
    for values in table.values():
        assert values.shape == (10,)
        assert np.isfinite(values).all()
    total = table["distance"] + 100 * table["sample_entropy"] + table["batch_entropy"]
    np.testing.assert_allclose(table["loss"], total, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        table["distance"], table["reconstruction"] + table["kl"], rtol=1e-4, atol=1e-5
    )
    assert table["distance"][-1] < table["distance"][0]


def test_what_pretraining_leaves(found, three_once):
    done = found.pretraining
    assert done.clusters.n_clusters == 3
    assert done.codes.shape == (200, 2)
    np.testing.assert_allclose(found.get_latent_representation(), done.codes, atol=1e-5)
    np.testing.assert_allclose(found.module.expected, [0.45, 0.3, 0.25], atol=0.03)
    assert found.settings.n_shared == 2


@pytest.mark.slow
def test_a_number_that_is_given(three):
    model = train(build(three, 2, n_latent=np.int64(3)), epochs=3)
    assert model.module.experts.n_latents == (3, 3)
    assert set(model.predict()) == {"0", "1"}
    assert model.estimates_["n_clusters"]["method"] == "mixture"
    assert "n_latent" not in model.estimates_
    assert "needed" not in model.estimates_["experts"]
    assert model.get_latent_representation().shape == (200, 3)


@pytest.mark.slow
def test_latent_sizes_that_are_given_follow_their_clusters(three):
    model = train(build(three, np.int64(3), n_latent=[4, 1, 2]), epochs=2)
    # the largest cluster has the first of them, before and after
    assert model.pretraining.n_latents == (4, 1, 2)
    assert model.module.experts.n_latents == (4, 1, 2)
    assert model.settings.n_latents == (4, 1, 2)
    assert model.settings.n_shared == 4
    assert accuracy(three.obs["kind"], model.predict()) > 0.95


@pytest.mark.slow
def test_another_method_and_threshold(three):
    model = build(three)
    settings = {"method": "stability", "n_samples": 3, "resolutions": [0.05, 0.2]}
    model.pretrain(**{**QUICK, **settings}, threshold=0.95, accelerator="cpu", progress=False)
    assert model.estimates_["n_clusters"]["method"] == "stability"
    assert model.estimates_["n_clusters"]["settings"]["n_samples"] == 3
    assert model.estimates_["n_latent"]["threshold"] == 0.95
    assert model.module.n_experts == 3
    assert not model.is_trained


@pytest.mark.slow
@pytest.mark.parametrize("space", ["codes", "decoded"])
def test_where_clusters_are_sought(three, monkeypatch, space):
    seen = []

    def find(points, **kwargs):
        seen.append(points)
        return find_clusters(points, **kwargs)

    monkeypatch.setattr("scmoe.model._moevae_pretraining.find_clusters", find)
    model = build(three)
    model.pretrain(**QUICK, space=space, accelerator="cpu", progress=False)
    done = model.pretraining
    if space == "codes":
        np.testing.assert_array_equal(seen[0], done.codes)
    else:
        # the cells without their noise, on the scale of the markers
        scaled = model.module.scale(torch.from_numpy(three.X)).numpy()
        assert seen[0].shape == scaled.shape
        assert np.square(seen[0] - scaled).mean() < scaled.var(0).mean() / 4


@pytest.mark.parametrize(
    ("settings", "method", "space"),
    [
        ({}, "tree", "values"),
        ({"space": "codes"}, "stability", "codes"),
        ({"method": "stability"}, "stability", "decoded"),
        ({"method": "tree", "space": "decoded"}, "tree", "decoded"),
    ],
)
def test_a_tree_is_of_the_markers(three, monkeypatch, settings, method, space):
    seen = {}

    def stop(values, scaled, *args, **kwargs):
        seen.update(kwargs, values=values)
        raise KeyboardInterrupt

    monkeypatch.setattr("scmoe.model._moevae.pretrain", stop)
    with pytest.raises(KeyboardInterrupt):
        build(three).pretrain(**settings)
    assert (seen["method"], seen["space"]) == (method, space)
    np.testing.assert_array_equal(seen["values"], three.X)


@pytest.mark.slow
def test_the_leaves_of_the_tree(three):
    model = train(build(three), pretrain_kwargs={**QUICK, "method": "tree"})
    record = model.estimates_["n_clusters"]
    assert (record["method"], record["n_clusters"]) == ("tree", 3)
    assert accuracy(three.obs["kind"], model.predict()) > 0.95


def test_sizes_of_the_experts_are_told(three, caplog):
    caplog.set_level("INFO", logger="scmoe")
    model = build(three, 3, n_latent=[1, 3, 2])
    model.pretrain(**{**QUICK, "max_epochs": 2}, accelerator="cpu", progress=False)
    assert "Step 8 of 9: 3 experts, of 1, 3, 2 dimensions." in caplog.messages


@pytest.mark.slow
def test_few_cells_are_told(three, caplog):
    model = build(three)
    model.pretrain(**QUICK, progress=False)
    assert f"{three.n_obs} cells are few for a VAE" in caplog.text


def test_an_unknown_space(three):
    model = build(three)
    with pytest.raises(
        ValueError, match=r"`space` must be one of \('values', 'decoded', 'codes'\)"
    ):
        model.pretrain(space="umap")
    assert model.module is None


# ----------------------------------------------------------------------------------------
# pretraining and training


@pytest.mark.slow
def test_pretraining_by_hand(three):
    by_hand, at_once = build(three.copy()), build(three.copy())
    scvi.settings.seed = 5
    by_hand.pretrain(**QUICK, accelerator="cpu", progress=False)
    assert not by_hand.is_trained
    done = by_hand.pretraining
    train(by_hand, 2, pretrain_kwargs=None)
    assert by_hand.pretraining is done
    scvi.settings.seed = 5
    train(at_once, 2)
    assert_same(answers(by_hand), answers(at_once))


@pytest.mark.slow
def test_pretraining_a_trained_model_begins_anew(three):
    model = plainly(three)
    model.pretrain(**QUICK, accelerator="cpu", progress=False)
    assert not model.is_trained
    with pytest.raises(RuntimeError, match="untrained model"):
        model.predict()
    train(model, 2)
    assert len(model.history["loss_train"]) == 2
    assert model.get_latent_representation().shape == (200, 2)


@pytest.mark.slow
def test_pretraining_again_estimates_again(three, tmp_path, monkeypatch):
    """What was found is not what was asked for, and experts may have changed places."""
    from scmoe.model import _moevae

    asked = []

    def spy(*args, **kwargs):
        asked.append((kwargs["n_experts"], kwargs["n_latents"]))
        return original(*args, **kwargs)

    original = _moevae.pretrain
    monkeypatch.setattr(_moevae, "pretrain", spy)
    model = train(build(three), 1)
    model.pretrain(**QUICK, accelerator="cpu", progress=False)
    train(model, 1).save(tmp_path / "model")
    again = MoEVAE.load(tmp_path / "model", three, accelerator="cpu")
    again.pretrain(**QUICK, accelerator="cpu", progress=False)
    assert asked == [(None, None)] * 3
    assert "n_latent" in again.estimates_


def asked_of_pretraining(adata, monkeypatch, **kwargs):
    """The cells and the seed that pretraining is called with."""
    asked = {}

    def stop(values, scaled, *args, seed, **rest):
        asked.update(scaled=scaled, seed=seed)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scmoe.model._moevae.pretrain", stop)
        with pytest.raises(KeyboardInterrupt):
            build(adata, **kwargs).pretrain(progress=False)
    return asked


def test_the_seed_reaches_pretraining(three, monkeypatch):
    first, second, other = (
        asked_of_pretraining(three, monkeypatch, seed=seed)["seed"] for seed in (3, 3, 4)
    )
    assert first == second != other


def test_pretraining_sees_what_the_module_sees(three, monkeypatch):
    three.X[:, 0] *= 30
    # one cell above the upper quantile
    free = asked_of_pretraining(three, monkeypatch)["scaled"]
    assert free.max() > 1
    clipped = asked_of_pretraining(three, monkeypatch, likelihood="bernoulli")["scaled"]
    np.testing.assert_array_equal(clipped, free.clip(0, 1))
    assert free.dtype == clipped.dtype == np.float32


class Counts(Callback):
    def __init__(self):
        self.sizes = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.sizes.append(len(batch["X"]))


@pytest.mark.parametrize(("batch_size", "sizes"), [(90, [90, 90]), (300, [200])])
def test_an_incomplete_batch_is_left_out_unless_it_is_all(three, batch_size, sizes):
    counts = Counts()
    settings = {"batch_size": batch_size, "callbacks": [counts]}
    plainly(three, epochs=1, train_kwargs=settings)
    assert counts.sizes == sizes


@pytest.mark.slow
def test_pretraining_twice_estimates_twice(three):
    """The sizes of the experts that are there already are not taken for given ones."""
    model = build(three)
    model.pretrain(**QUICK, accelerator="cpu", progress=False)
    assert model.module.n_experts == 3
    # two clusters, where the sizes of three are known
    model.pretrain(**{**QUICK, "min_cluster_size": 60}, accelerator="cpu", progress=False)
    assert model.module.n_experts == 2
    assert "needed" in model.estimates_["experts"]
    assert model.pretraining.latent is not None


def test_pretraining_after_training_takes_the_sizes_in_the_order_given(three):
    model = plainly(three, n_latent=[1, 2, 3], min_cells=0)
    model.settings = replace(model.settings, n_latents=(3, 1, 2))  # as training may leave them
    model.pretrain(**QUICK, accelerator="cpu", progress=False)
    assert model.module.experts.n_latents == (1, 2, 3)


def test_without_pretraining(three):
    model = plainly(three)
    assert model.pretraining is None
    assert model.estimates_ == {}
    # of each cell in its own expert
    z = model.get_latent_representation()
    assert z.shape == (200, 2)
    for name in set(model.predict()):
        own = model.predict() == name
        of_expert = model.get_latent_representation(cluster=name)
        np.testing.assert_allclose(z[own], of_expert[own], atol=1e-5)


@pytest.mark.parametrize(("n_experts", "n_latent"), [("auto", 2), (3, "auto"), ("auto", "auto")])
def test_numbers_to_estimate_without_pretraining(three, n_experts, n_latent):
    model = build(three, n_experts, n_latent=n_latent)
    with pytest.raises(ValueError, match=r"can't be estimated: give both, or use `pretrain=True`"):
        train(model, pretrain=False)
    assert model.module is None
    assert not model.is_trained


def test_training_twice_goes_on(three):
    model = plainly(three, n_latent=[1, 2, 3], min_cells=0)
    before = answers(model)
    train(model, 3)
    assert len(model.history["loss_train"]) == 6
    assert not np.array_equal(model.predict_proba(), before[2])
    sizes = model.module.experts.n_latents
    assert sorted(sizes) == [1, 2, 3]
    assert model.settings.n_latents == sizes
    for name, size in zip(model.cluster_names_, sizes, strict=True):
        assert model.get_latent_representation(cluster=name).shape == (200, size)


def test_seeds(three):
    first, second, other = (plainly(three.copy(), seed=seed) for seed in (3, 3, 4))
    assert_same(answers(first), answers(second))
    for name, table in first.history.items():
        pd.testing.assert_frame_equal(second.history[name], table, check_exact=True)
    assert differs(first, other)


@pytest.mark.parametrize("train_size", [1.0, 0.8])
def test_the_seed_of_torch_is_enough(three, train_size):
    """Also the order of the cells follows it, and which of them train."""
    found = []
    for _ in range(2):
        scvi.settings.seed = None
        torch.manual_seed(3)
        MoEVAE.setup_anndata(three)
        model = MoEVAE(three, 3, **GIVEN)
        found.append(train(model, 2, pretrain=False, train_size=train_size))
    assert_same(*map(answers, found))
    np.testing.assert_array_equal(found[0].train_indices, found[1].train_indices)


@pytest.mark.slow
def test_the_same_seed_finds_the_same(three, found):
    again = train(build(three))
    assert_same(answers(again), answers(found))
    pd.testing.assert_frame_equal(again.estimates_["experts"], found.estimates_["experts"])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"loss": "damic"},
        {"loss": "mixae"},
        {"balance": "even", "n_routed": None},
        {"kl": "normalized", "activation": "relu", "n_layers": 0},
        {"likelihood": "bernoulli"},
        {"scaling": "minmax", "n_routed": 1},
    ],
)
def test_variants(three, kwargs):
    model = plainly(three, **kwargs)
    label, by, proba, distance, z, outlier = answers(model)
    assert set(label) | set(by) <= {"0", "1", "2"}
    for values in (proba, z, outlier):
        assert np.isfinite(values).all()
    assert np.isfinite(distance[:, model.module.live]).all()
    for table in model.history.values():
        assert np.isfinite(table.to_numpy(float)).all()


def test_hardening_and_rates_reach_the_training(three):
    plan = {"lr": 1e-3, "manager_lr": 0.0, "hardening": 0.5}
    model = build(three, 3, n_latent=2, sample_weight=50.0)
    train(model, 4, pretrain=False, plan_kwargs=plan)
    table = {n: t.to_numpy(float).ravel() for n, t in model.history.items()}
    weight = table["loss_train"] - table["distance_train"] - table["batch_entropy_train"]
    expected = 50 * np.array([0, 0.5, 1, 1]) * table["sample_entropy_train"]
    np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="`hardening` must be"):
        train(model, 1, plan_kwargs={"hardening": 2})


@pytest.mark.parametrize("augment", [True, {"n_neighbors": 3, "share": 0.9}, "dropout"])
def test_cells_that_are_changed_in_training(three, augment):
    plain_, changed = (
        plainly(three.copy(), train_kwargs={"augment": how}) for how in (None, augment)
    )
    assert differs(plain_, changed)
    with pytest.raises(ValueError, match="has no 'rotation'; for cells"):
        train(changed, 1, augment={"rotation": 3})


def test_neighbours_are_the_same_in_all_steps(three, monkeypatch):
    """Those of the scaled cells, though a training changes values that are not."""
    from scmoe._estimate import _augmentation

    made = []

    class Spy(_augmentation.NeighborAugment):
        def __init__(self, x, neighbors, **amounts):
            made.append((x.numpy(), neighbors.numpy()))
            super().__init__(x, neighbors, **amounts)

    monkeypatch.setattr(_augmentation, "NeighborAugment", Spy)
    three.X[:, 0] *= 100
    train(build(three, 3, n_latent=2), 2, augment=True)
    (scaled, before), (values, after) = made
    assert scaled.dtype == np.float32
    assert np.ptp(scaled, axis=0).max() < 1.1
    np.testing.assert_array_equal(values, three.X)
    np.testing.assert_array_equal(after, before)


def test_validation_and_early_stopping(three):
    model = build(three, 3, n_latent=2)
    train(
        model,
        20,
        pretrain=False,
        train_size=0.8,
        early_stopping=True,
        early_stopping_patience=1,
        early_stopping_min_delta=1e6,
        check_val_every_n_epoch=1,
    )
    assert len(model.train_indices) == 160
    assert len(model.validation_indices) == 40
    assert "validation_loss" in model.history
    assert len(model.history["loss_train"]) < 20
    assert model.predict().shape == (200,)


@pytest.mark.parametrize(
    "shares",
    [{}, {"train_size": 0.999}, {"train_size": 0.8, "validation_size": 0.0}],
)
def test_early_stopping_without_validation_cells(three, shares):
    model = build(three)
    with pytest.raises(ValueError, match="Early stopping needs validation cells"):
        train(model, early_stopping=True, **shares)
    assert model.module is None


def test_splinters_are_retired(three):
    model = plainly(three, 6, min_cells=0)
    size = pd.Series(model.predict()).value_counts()
    assert len(size) > 1
    model = plainly(three, 6, min_cells=int(size.min()) + 1)
    left = pd.Series(model.predict()).value_counts()
    assert len(left) < len(size)
    assert left.min() > size.min()
    retired = ~model.module.live.numpy()
    assert retired.any()
    assert np.isinf(model.get_distances().to_numpy()[:, retired]).all()
    names = np.array(model.cluster_names_)
    assert not set(model.predict(by="reconstruction")) & set(names[retired])
    # an expert of nobody can still be asked what it makes of a cell
    probe = model.reconstruct(three[:1].copy(), clusters=[names[retired][0]])
    assert np.isfinite(probe.X).all()
    assert np.isfinite(probe.obs["distance"]).all()


# ----------------------------------------------------------------------------------------
# failures leave things as they were


class Fails(Callback):
    def __init__(self, epoch=1, error=RuntimeError("the plug was pulled")):
        self.epoch, self.error = epoch, error

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise self.error


def state(model):
    weights = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    history = {name: table.copy() for name, table in model.history.items()}
    return answers(model), weights, history, model.settings


def assert_as_it_was(model, before):
    result, weights, history, settings = before
    assert_same(answers(model), result)
    assert model.module.state_dict().keys() == weights.keys()
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert model.history.keys() == history.keys()
    for name, table in history.items():
        pd.testing.assert_frame_equal(model.history[name], table)
    assert model.settings == settings


@pytest.mark.parametrize("error", [RuntimeError("the plug was pulled"), KeyboardInterrupt()])
def test_a_training_that_breaks(three, error, capsys):
    model = plainly(three, n_latent=[1, 2, 3], min_cells=0)
    before = state(model)
    with pytest.raises(type(error)):
        train(model, 3, callbacks=[Fails(error=error)])
    assert_as_it_was(model, before)
    train(model, 1)
    assert len(model.history["loss_train"]) == 4


def test_a_description_that_breaks(three, monkeypatch):
    """The experts have been numbered anew by then, and their sizes with them."""
    model = plainly(three, n_latent=[3, 1, 2], min_cells=0)
    before, sizes = state(model), model.module.experts.n_latents
    # the smallest becomes the largest
    bias = torch.tensor([-20.0, 0.0, 20.0])
    with torch.no_grad():
        model.module.manager.out.bias += bias
    before = state(model)

    def broken(self):
        assert self.module.experts.n_latents != sizes
        raise RuntimeError("no description")

    monkeypatch.setattr(Description, "write", broken)
    with pytest.raises(RuntimeError, match="no description"):
        train(model, 1)
    assert model.module.experts.n_latents == sizes
    assert_as_it_was(model, before)


@pytest.mark.slow
def test_a_first_training_that_breaks(three, capsys):
    model = build(three, 3, n_latent=2)
    with pytest.raises(RuntimeError, match="plug"):
        train(model, 3, pretrain=False, callbacks=[Fails()])
    assert not model.is_trained
    # nothing was built, so that the next training may begin with pretraining
    assert model.module is None
    train(model, 2)
    assert model.pretraining is not None
    assert len(model.history["loss_train"]) == 2


@pytest.mark.slow
def test_pretraining_survives_a_training_that_breaks(three, capsys):
    model = build(three, 3, n_latent=2)
    with pytest.raises(RuntimeError, match="plug"):
        train(model, 3, callbacks=[Fails()])
    done = model.pretraining
    weights = {name: t.clone() for name, t in model.module.state_dict().items()}
    assert done is not None
    with pytest.raises(RuntimeError, match="plug"):
        train(model, 3, callbacks=[Fails()])
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    train(model, 2)
    assert model.pretraining is done
    assert accuracy(three.obs["kind"], model.predict()) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("step", ["train_autoencoder", "find_clusters", "fit"])
def test_an_interrupt_while_pretraining(three, monkeypatch, step):
    model = build(three)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"scmoe.model._moevae_pretraining.{step}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(model, 1)
    assert model.module is None
    assert model.pretraining is None
    assert model.estimates_ == {}
    assert model.settings.n_latents is None
    train(model, 1)
    assert accuracy(three.obs["kind"], model.predict()) > 0.95


# ----------------------------------------------------------------------------------------
# what the experts know


def test_new_cells_in_any_order(found, three_once):
    new = three_once[::-1, ::-1].copy()
    for a, b in zip(answers(found, new), answers(found), strict=True):
        # sums over markers may be taken in another order, by the place of a cell in memory
        equal = np.testing.assert_array_equal
        if np.asarray(b).dtype.kind == "f":
            equal = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        equal(a[::-1], b)
    which = [5, 0, 199]
    for values, rows in (
        (found.predict(indices=which), found.predict()[which]),
        (found.predict(indices=which, by="reconstruction"), found.predict()[which]),
        (found.get_distances(indices=which), found.get_distances().iloc[which]),
    ):
        if isinstance(values, pd.DataFrame):
            pd.testing.assert_frame_equal(values, rows, rtol=1e-4)
        else:
            np.testing.assert_array_equal(values, rows)


def test_distances_are_those_of_the_likelihood(found, three_once):
    table = found.get_distances()
    assert list(table.columns) == ["0", "1", "2"]
    assert list(table.index) == list(three_once.obs_names)
    assert (table.idxmin(1) == three_once.obs["kind"]).all()


def test_codes_of_one_expert(unequal):
    sizes = unequal.module.experts.n_latents
    assert sorted(sizes) == [1, 2, 3]
    for name, size in zip(unequal.cluster_names_, sizes, strict=True):
        z = unequal.get_latent_representation(cluster=name)
        assert z.shape == (200, size)
        assert z.dtype == np.float32
        assert np.ptp(z, axis=0).all()
        some = unequal.get_latent_representation(indices=[3, 1], cluster=name)
        np.testing.assert_allclose(some, z[[3, 1]], atol=1e-5)
    all_ = unequal.get_latent_representation()
    assert all_.shape == (200, 3)
    owner = unequal.predict().astype(int)
    for z, k in zip(all_, owner, strict=True):
        assert (z[sizes[k] :] == 0).all()


def test_reconstructions(found, three_once):
    cells = three_once[[3, 7, 50]].copy()
    made = found.reconstruct(cells)
    assert made.shape == (9, 6)
    assert made.X.dtype == np.float32
    assert list(made.var_names) == list(three_once.var_names)
    assert list(made.obs["probe"]) == [n for n in cells.obs_names for _ in range(3)]
    assert list(made.obs["expert"]) == ["0", "1", "2"] * 3
    distance = made.obs["distance"].to_numpy().reshape(3, 3)
    np.testing.assert_allclose(distance, found.get_distances(cells), rtol=1e-4)
    # the expert of a cell makes that cell of it
    missed = np.abs(made.X - cells.X.repeat(3, 0)).mean(1).reshape(3, 3)
    assert list(missed.argmin(1).astype(str)) == list(cells.obs["kind"])


def test_probes_of_all_kinds(found, three_once):
    cells = three_once[[3, 7]].copy()
    by_adata = found.reconstruct(cells)
    for probe in (cells.X, cells.X.astype(np.float64).tolist(), cells[:, ::-1].copy()):
        made = found.reconstruct(probe)
        np.testing.assert_allclose(made.X, by_adata.X, atol=1e-5)
        assert list(made.obs["expert"]) == list(by_adata.obs["expert"])
    one = found.reconstruct(cells.X[0], clusters=["2"])
    np.testing.assert_allclose(one.X, by_adata.X[[2]], atol=1e-5)
    assert one.obs["probe"].tolist() == ["0"]
    np.testing.assert_array_equal(found.reconstruct(cells.X[0], clusters="2").X, one.X)
    two = found.reconstruct(cells, clusters=[2, 0])
    np.testing.assert_allclose(two.X, by_adata.X[[2, 0, 5, 3]], atol=1e-5)


@pytest.mark.parametrize(
    ("cells", "clusters", "error", "match"),
    [
        (np.ones(5), None, ValueError, r"A probe has 6 values, .* shape \(5,\)"),
        (np.ones((2, 2, 6)), None, ValueError, r"shape \(2, 2, 6\)"),
        (np.full(6, np.nan), None, ValueError, "NaN or infinite values"),
        (np.ones(6), ["7"], KeyError, "There is no cluster '7'; there are '0', '1', '2'"),
        (np.ones(6), [], ValueError, "is empty or names a cluster twice"),
        (np.ones(6), ["1", 1], ValueError, "is empty or names a cluster twice"),
    ],
)
def test_probes_that_are_none(found, cells, clusters, error, match):
    with pytest.raises(error, match=match):
        found.reconstruct(cells, clusters)


def test_probes_without_a_marker(found, three_once):
    with pytest.raises(KeyError, match="missing: 'CD3'"):
        found.reconstruct(three_once[:, 1:].copy())


def test_a_walk(unequal):
    widest = unequal.module.experts.n_latents.index(3)
    name = unequal.cluster_names_[widest]
    steps = unequal.walk(name, 2, n=5, span=(-2, 2), start=[0.5, -0.5, 9.0])
    assert steps.shape == (5, 6)
    assert steps.obs["position"].tolist() == [-2, -1, 0, 1, 2]
    assert steps.obs["dimension"].tolist() == [2] * 5
    assert steps.obs["cluster"].tolist() == [name] * 5
    module = unequal.module
    codes = torch.tensor([[0.5, -0.5, float(p)] for p in range(-2, 3)])
    made = module.unscale(module.decode(codes, torch.full((5,), widest)))
    np.testing.assert_allclose(steps.X, made.detach(), atol=1e-5)
    # from the mean of the cluster, where nothing else is said
    steps = unequal.walk(name)
    assert steps.n_obs == 11
    codes = module.means[widest].repeat(11, 1)
    codes[:, 0] = torch.linspace(-1, 1, 11)
    made = module.unscale(module.decode(codes, torch.full((11,), widest)))
    np.testing.assert_allclose(steps.X, made.detach(), atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"dimension": 2}, r"has the dimensions 0 to 1, got 2"),
        ({"dimension": -1}, "got -1"),
        ({"dimension": 0.5}, "got 0.5"),
        ({"n": 1}, "`n` must be a whole number from 2, got 1"),
        ({"n": 2.5}, "`n` must be a whole number"),
        ({"span": (0, np.nan)}, "`span` must be two numbers"),
        ({"span": (0, 1, 2)}, "`span` must be two numbers"),
        ({"start": [0.0, 0.0, 0.0]}, "`start` must be 2 numbers"),
        ({"start": [0.0, np.inf]}, "`start` must be 2 numbers"),
    ],
)
def test_walks_that_are_none(found, kwargs, match):
    with pytest.raises(ValueError, match=match):
        found.walk("0", **kwargs)
    with pytest.raises(KeyError, match="There is no cluster '5'"):
        found.walk("5", **kwargs)


@pytest.mark.parametrize("name", ["predict", "predict_proba", "get_distances", "outlier_score"])
def test_no_cells_at_all(found, name):
    with pytest.raises(ValueError, match="`indices` is empty"):
        getattr(found, name)(indices=[])


def test_words_that_are_not_known(found):
    with pytest.raises(ValueError, match=r"`by` must be one of \('manager', 'reconstruction'\)"):
        found.predict(by="distance")
    with pytest.raises(KeyError, match="There is no cluster 'x'"):
        found.get_latent_representation(cluster="x")
    with pytest.raises(ValueError, match="`indices` is empty"):
        found.get_latent_representation(indices=[], cluster="0")


@pytest.mark.parametrize("prior", ["fitted", "unit"])
@pytest.mark.parametrize("gate", ["requested", "network"])
def test_new_cells(found, three_once, prior, gate):
    made = found.generate({"1": 40, "0": 60}, prior=prior, gate=gate)
    assert made.shape == (100, 6)
    assert made.obs["scmoe"].value_counts().to_dict() == {"0": 60, "1": 40}
    assert made.obsm["X_scmoe"].shape == (100, 2)
    assert np.isfinite(made.X).all()
    if gate == "requested":
        assert (made.obs["scmoe_expert"].astype(str) == made.obs["scmoe"].astype(str)).all()
    if prior == "fitted":
        assert np.mean(found.predict(made) == made.obs["scmoe"].astype(str)) > 0.95
        for name in ("0", "1"):
            cells = three_once.X[three_once.obs["kind"] == name]
            new = made.X[made.obs["scmoe"] == name]
            np.testing.assert_allclose(new.mean(0), cells.mean(0), atol=0.25)
            np.testing.assert_allclose(new.std(0), cells.std(0), atol=0.15)
    # where they lie among all cells
    clean = made.X
    codes = found.get_latent_representation(AnnData(clean, var=three_once.var[[]]))
    np.testing.assert_allclose(made.obsm["X_scmoe"], codes, atol=1e-3)


def test_experts_are_described_by_their_own_cells(three):
    """Codes of another expert mean something else, however undecided the manager is."""
    model = plainly(three, n_latent=[1, 2, 3], min_cells=0, sample_weight=0.0)
    assert model.predict_proba().to_numpy().max(1).mean() < 0.6
    owner, module = model.predict(), model.module
    for k, (name, size) in enumerate(zip("012", module.experts.n_latents, strict=True)):
        z = model.get_latent_representation(cluster=name)[owner == name].astype(float)
        assert len(z) > 0
        np.testing.assert_allclose(module.means[k, :size], z.mean(0), atol=1e-5)
        assert (module.means[k, size:] == 0).all()


def test_codes_of_new_cells_without_pretraining(unequal):
    sizes = unequal.module.experts.n_latents
    living = [name for name, n in zip("012", unequal.module.size.tolist(), strict=True) if n]
    for prior in ("fitted", "unit"):
        made = unequal.generate(dict.fromkeys(living, 5), prior=prior)
        for z, k in zip(made.obsm["X_scmoe"], made.obs["scmoe"].astype(int), strict=True):
            assert z.shape == (3,)
            assert (z[sizes[k] :] == 0).all()


def test_strange_cells(found, three_once):
    score = found.outlier_score()
    assert score.shape == (200,)
    assert 0 <= score.min() <= score.max() <= 1
    strange = three_once[:5].copy()
    strange.X += 5
    assert (found.outlier_score(strange) > 0.99).all()


def test_a_layer(three):
    three.layers["scaled"] = three.X * 2
    three.X[:] = 0
    model = build(three, 3, layer="scaled", n_latent=2)
    train(model, 3, pretrain=False)
    made = model.generate(20)
    np.testing.assert_array_equal(made.X, made.layers["scaled"])
    assert made.X.max() > 4
    probe = model.reconstruct(three.layers["scaled"][0])
    assert "scaled" in probe.layers
    np.testing.assert_array_equal(probe.X, probe.layers["scaled"])
    np.testing.assert_allclose(probe.X, model.reconstruct(three[:1].copy()).X, atol=1e-5)
    assert "scaled" in model.walk("0").layers


# ----------------------------------------------------------------------------------------
# files


def load(folder, adata, cls=MoEVAE):
    return cls.load(folder, adata, accelerator="cpu")


@pytest.mark.parametrize("which", ["found", "unequal"])
def test_there_and_back(which, request, tmp_path):
    model = request.getfixturevalue(which)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", model.adata.copy())
    assert_same(answers(again), answers(model))
    for name in again.cluster_names_:
        assert_same(
            [again.get_latent_representation(cluster=name)],
            [model.get_latent_representation(cluster=name)],
        )
    for kwargs in ({}, {"prior": "unit"}, {"gate": "network"}):
        np.testing.assert_array_equal(again.generate(9, **kwargs).X, model.generate(9, **kwargs).X)
    np.testing.assert_array_equal(again.walk("0").X, model.walk("0").X)
    assert again.settings == model.settings
    assert again.init_params_ == model.init_params_
    assert again.estimates_.keys() == model.estimates_.keys()
    for name, table in model.history.items():
        pd.testing.assert_frame_equal(again.history[name], table, check_exact=True)
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "m" / "model.safetensors"
    ).read_bytes()
    learned = []
    for twin in (copy.deepcopy(model), again):
        torch.manual_seed(5)
        train(twin, 2)
        learned.append(answers(twin))
    assert_same(*learned)


def test_the_trained_part_needs_no_cells(found, three_once, tmp_path):
    found.save(tmp_path / "m")
    trained, registry = read_trained(tmp_path / "m")
    assert trained.clusters == ["0", "1", "2"]
    assert trained.batches == ["0"]
    assert set(registry["setup_args"]) == {"layer"}
    said = predict_cells(trained.module, Rows(three_once.X), PREDICTIONS)
    np.testing.assert_allclose(said["proba"], found.predict_proba(), atol=1e-6)
    np.testing.assert_allclose(said["latent"], found.get_latent_representation(), atol=1e-5)
    np.testing.assert_allclose(said["outlier"], found.outlier_score(), atol=1e-6)
    assert trained.hash() == found.trained.hash()


@pytest.mark.slow
def test_what_is_pretrained_can_be_saved(three, tmp_path):
    model = build(three)
    model.pretrain(**QUICK, accelerator="cpu", progress=False)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", three.copy())
    assert not again.is_trained
    assert again.module.n_experts == 3
    with pytest.raises(ModelFileError, match="was saved before it was trained"):
        read_trained(tmp_path / "m")
    train(again, 2)
    assert accuracy(three.obs["kind"], again.predict()) > 0.95


def rewrite(folder, edit):
    """Change the description, with a hash that fits."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    edit(content)
    rest = {k: v for k, v in content.items() if k not in ("schema", "schema_version", "sha256")}
    path.write_text(json.dumps({**content, "sha256": checksum(rest)}))


def settings_of(content):
    return content["attributes"]["module_settings_"]


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda c: settings_of(c).pop("kl"), "module_settings_' .* wrong type"),
        (lambda c: settings_of(c).update(n_latents=None), "settings .*are damaged"),
        (lambda c: settings_of(c).update(n_latents=[0, 2, 2]), "settings .*are damaged"),
        (lambda c: settings_of(c).update(n_latents=[10**14] * 3), "settings .*are damaged"),
        (lambda c: settings_of(c).update(n_latents=[2, 2, 5]), "[Tt]he tensor '.*' is float32"),
        (lambda c: settings_of(c).update(n_shared=0), "tensors that the model lacks: 'shared"),
        (lambda c: settings_of(c).update(kl="none"), "settings .*are damaged"),
        (lambda c: c["attributes"].update(cluster_names_=["0"]), "3 experts and 1 names"),
        (lambda c: c["attributes"].update(estimates_=[1]), "'estimates_' .* wrong type"),
        (lambda c: c["attributes"].pop("n_experts_"), r"lack \['n_experts_'\]"),
        (lambda c: c["init_params"]["non_kwargs"].pop("loss"), r"lack \['loss'\]"),
    ],
)
def test_files_that_are_damaged(found, three_once, tmp_path, edit, match):
    found.save(tmp_path / "m")
    rewrite(tmp_path / "m", edit)
    with pytest.raises(ModelFileError, match=match):
        load(tmp_path / "m", three_once.copy())


def test_models_of_another_class(found, three, tmp_path):
    found.save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="of the class 'MoEVAE', not 'MoESimVAE'"):
        load(tmp_path / "m", three, MoESimVAE)
    rewrite(tmp_path / "m", lambda c: c.update({"class": "SCVI"}))
    for call in (lambda: load(tmp_path / "m", three), lambda: read_trained(tmp_path / "m")):
        with pytest.raises(ModelFileError, match="of the class 'SCVI'"):
            call()


def test_the_trained_part_of_damaged_files(found, tmp_path):
    found.save(tmp_path / "m")
    for sizes in ([10**14] * 3, None, ["2"] * 3):
        rewrite(tmp_path / "m", lambda c, sizes=sizes: settings_of(c).update(n_latents=sizes))
        with pytest.raises(ModelFileError, match=r"settings .*are damaged"):
            read_trained(tmp_path / "m")


# ----------------------------------------------------------------------------------------
# images


def make_images(n=60, shape=(12, 10)):
    """Standing and lying bars within a dark margin; not square, and no power of two."""
    rng = np.random.default_rng(0)
    images = np.zeros((n, *shape), np.float32)
    stands = np.arange(n) % 3 > 0
    images[stands, 1:-1, 4:6] = 0.9
    images[~stands, 5:7, 1:-1] = 0.9
    images[:, 1:-1, 1:-1] += rng.uniform(0, 0.1, images[:, 1:-1, 1:-1].shape).astype(np.float32)
    return scmoe.io.from_array(images, obs={"stands": stands.astype(str)})


@pytest.fixture(scope="module")
def of_images():
    before = scvi.settings.seed
    model = build(make_images(), 2, n_latent=[2, 3], network="conv", width=2)
    kwargs = {"pretrain_kwargs": {**QUICK, "batch_size": 20, "max_epochs": 40}, "batch_size": 20}
    train(model, 8, **kwargs)
    scvi.settings.seed = before
    return model


def test_images(of_images):
    model = of_images
    assert model.settings.image_shape == (12, 10)
    assert model.settings.likelihood == "bernoulli"
    assert model.settings.scaling == "none"
    assert model.estimates_["image_side"] == padded_side((12, 10)) == 16
    assert set(model.estimates_) == {"image_side", "n_clusters", "experts"}
    assert accuracy(model.adata.obs["stands"], model.predict()) > 0.9
    made = model.generate(10)
    assert made.uns["image_shape"].tolist() == [12, 10]
    assert made.shape == (10, 120)
    assert made.X.min() >= 0
    assert made.X.max() <= 1
    probe = model.reconstruct(np.ones(120))
    assert probe.shape == (2, 120)
    assert probe.uns["image_shape"].tolist() == [12, 10]
    assert model.walk("0").uns["image_shape"].tolist() == [12, 10]


def test_images_come_back_from_files(of_images, tmp_path):
    of_images.save(tmp_path / "m")
    again = MoEVAE.load(tmp_path / "m", of_images.adata.copy(), accelerator="cpu")
    assert_same(answers(again), answers(of_images))
    assert again.estimates_["image_side"] == 16
    pd.testing.assert_frame_equal(again.estimates_["experts"], of_images.estimates_["experts"])
    train(again, 1, batch_size=20)


def test_images_in_dense_networks():
    model = plainly(make_images(), 2)
    assert model.settings.image_shape is None
    assert "image_side" not in model.estimates_
    assert model.settings.likelihood == "bernoulli"
    assert np.isfinite(model.predict_proba()).all().all()


def test_images_that_are_none(three):
    with pytest.raises(KeyError, match="Convolutions need the shape of an image"):
        build(three, network="conv")
    bright = make_images()
    bright.X *= 2
    with pytest.raises(ValueError, match="Bernoulli likelihood cannot give them"):
        plainly(bright, 2)
    # whose pixels may be anything
    model = plainly(bright, 2, likelihood="gaussian", network="conv", width=2)
    assert np.isfinite(model.generate(5).X).all()


# ----------------------------------------------------------------------------------------
# what can't be


def test_no_groups_at_all():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 1)) @ np.ones((1, 6)) + 0.3 * rng.normal(size=(150, 6))
    adata = AnnData(x.astype(np.float32))
    model = build(adata)
    with pytest.raises(
        ValueError, match=r"cluster was found by method 'density'.*Give the number"
    ):
        train(model, 1, pretrain_kwargs={**QUICK, "min_cluster_size": 70})
    assert model.module is None
    assert not model.is_trained


def test_markers_that_have_nothing_in_common():
    x = np.random.default_rng(0).uniform(size=(600, 6)).astype(np.float32)
    model = build(AnnData(x))
    with pytest.raises(ValueError, match="nothing that markers have in common"):
        train(model, 1, pretrain_kwargs={**QUICK, "max_epochs": 4})
    assert model.module is None


@pytest.mark.parametrize(
    ("n_experts", "match"),
    [
        ("auto", "can't be estimated from 9 cells.*Give the number"),
        (3, r"needs at least 10 cells, got 9.*`train\(pretrain=False\)`"),
    ],
)
def test_few_cells(three, n_experts, match, monkeypatch):
    model = build(three[:9].copy(), n_experts)
    monkeypatch.setattr("scmoe.model._moevae.pretrain", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ValueError, match=match):
        train(model)
    model = build(three[:4].copy(), 5, n_latent=2)
    with pytest.raises(ValueError, match=r"fewer cells \(4\) than clusters \(5\)"):
        train(model, pretrain=False)


def test_ten_cells_are_enough(three):
    """Fewer than the neighbours of a UMAP."""
    model = train(build(three[:12].copy(), 2, n_latent=2), 2)
    assert model.predict().shape == (12,)


@pytest.mark.slow
def test_fewer_clusters_than_latent_sizes(three, monkeypatch):
    """A Gaussian mixture may leave a component without cells."""
    from scmoe.model import _moevae_pretraining

    def mixture(codes, n_clusters, *, seed):
        return original(codes, n_clusters - 1, seed=seed)

    original = _moevae_pretraining.mixture_clusters
    monkeypatch.setattr(_moevae_pretraining, "mixture_clusters", mixture)
    model = build(three, 3, n_latent=[2, 3, 2])
    with pytest.raises(ValueError, match="names 3 latent sizes, but there are only 2 clusters"):
        train(model, 1)
    assert model.module is None
    model = train(build(three, 3, n_latent=2), 1)
    assert model.module.n_experts == 2
    assert model.estimates_["n_clusters"]["n_clusters"] == 2


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"n_experts": 1}, '`n_experts` must be "auto" or a whole number of at least 2, got 1'),
        ({"n_experts": 3.0}, "`n_experts` must be"),
        ({"n_experts": True}, "`n_experts` must be"),
        ({"n_experts": "many"}, "`n_experts` must be"),
        ({"n_experts": None}, "`n_experts` must be"),
        ({"n_experts": np.array([2, 3])}, "`n_experts` must be"),
        ({"n_latent": 0}, "`n_latent` must be"),
        ({"n_latent": 2.0}, "`n_latent` must be"),
        ({"n_latent": "few"}, "`n_latent` must be"),
        ({"n_latent": None}, "`n_latent` must be"),
        ({"n_latent": []}, "`n_latent` must be"),
        ({"n_experts": 3, "n_latent": [2, 2]}, "names 2 latent sizes for 3 experts"),
        ({"n_latent": [2, 2]}, "names 2 latent sizes for auto experts"),
        ({"network": "deep"}, r"`network` must be one of \('dense', 'conv'\), got 'deep'"),
        ({"activation": "tanh"}, "`activation` must be one of"),
        ({"likelihood": "poisson"}, "`likelihood` must be one of"),
        ({"scaling": "zscore"}, "`scaling` must be one of"),
        ({"kl": "paper"}, "`kl` must be one of"),
        ({"loss": "elbo"}, "`loss` must be one of"),
        ({"balance": "odd"}, "`balance` must be one of"),
        ({"n_hidden": 0}, "`n_hidden` must be a whole number of at least 1, got 0"),
        ({"n_hidden": "64"}, "`n_hidden` must be a whole number"),
        ({"n_hidden": None}, "`n_hidden` must be a whole number"),
        ({"n_layers": 1.5}, "`n_layers` must be a whole number"),
        ({"width": 0}, "`width` must be a whole number"),
        ({"n_routed": 0}, "`n_routed` must be a whole number"),
        ({"n_routed": 1.5}, "`n_routed` must be a whole number"),
        ({"min_cells": -1}, "`min_cells` must be a whole number"),
        ({"sample_weight": -1}, "`sample_weight` must be a number of at least 0"),
        ({"sample_weight": float("nan")}, "`sample_weight` must be a number"),
        ({"batch_weight": float("inf")}, "`batch_weight` must be a number"),
        ({"batch_weight": "1"}, "`batch_weight` must be a number"),
    ],
)
def test_settings_that_cannot_be(three, kwargs, match):
    with pytest.raises(ValueError, match=match):
        build(three, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"threshold": 0}, "`threshold` must be above 0"),
        ({"method": "elbow"}, "`method` must be one of"),
        (
            {"method": "density", "n_neighbours": 3},
            "`method='density'` has no 'n_neighbours'; it has",
        ),
        ({"method": "stability", "min_dist": 0}, "`method='stability'` has no 'min_dist'"),
        ({"max_epochs": 0}, "`max_epochs` must be"),
        ({"manager_epochs": 0}, "`max_epochs` must be"),
        ({"batch_size": 1}, "`batch_size` must be"),
        ({"lr": 0}, "`lr` must be"),
        ({"manager_lr": -1}, "`manager_lr` must be"),
        ({"augment": "much"}, "`augment` must be"),
    ],
)
def test_pretraining_that_cannot_be(three, monkeypatch, kwargs, match):
    """Said before anything is trained."""
    model = build(three)
    monkeypatch.setattr("scmoe.model._moevae.pretrain", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ValueError, match=match):
        model.pretrain(**kwargs, progress=False)
    assert model.module is None


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"max_epochs": "3"}, ValueError, "`max_epochs` must be a whole number from 0 on"),
        ({"max_epochs": 2.0}, ValueError, "`max_epochs` must be"),
        ({"max_epochs": -3}, ValueError, "`max_epochs` must be"),
        ({"batch_size": "7"}, ValueError, "`batch_size` must be a whole number from 1 on"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"estimate_kwargs": {}}, TypeError, "`train` has no 'estimate_kwargs'"),
        ({"plan_kwargs": {"rate": 1}}, TypeError, "`plan_kwargs` has no 'rate'; it has .*lr"),
        ({"plan_kwargs": {"lr": "1"}}, ValueError, "`lr` must be a number above 0 and below 1"),
        ({"plan_kwargs": {"manager_lr": -1}}, ValueError, "`manager_lr` must be a number"),
    ],
)
def test_training_that_cannot_be(three, monkeypatch, kwargs, error, match):
    """Said before the pretraining, which takes longer."""
    model = build(three)
    monkeypatch.setattr("scmoe.model._moevae.pretrain", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(error, match=match):
        model.train(**{**QUIET, **kwargs})
    assert model.module is None


def test_cells_that_cannot_be(three):
    flat = three.copy()
    flat.X[:, 2] = 1
    with pytest.raises(ValueError, match="Constant in all cells: 'CD19'"):
        train(build(flat))
    bad = three.copy()
    bad.X[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinite values in 'CD4'"):
        build(bad)
    with pytest.raises(ValueError, match="is sparse"):
        build(AnnData(sparse.csr_matrix(three.X)))
    with pytest.raises(ValueError, match="int64 values"):
        build(AnnData(np.ones((5, 3), dtype=np.int64)))
    with pytest.raises(ValueError, match="is a view"):
        build(three[:50])
    with pytest.raises(KeyError, match="Did not find layer 'raw'"):
        build(three, layer="raw")


@pytest.mark.parametrize("train_size", [0, 1.5, "0.5"])
def test_shares_that_cannot_be(three, train_size):
    model = build(three)
    with pytest.raises(ValueError, match="`train_size` must be above 0"):
        train(model, train_size=train_size)
    assert model.module is None
    with pytest.raises(ValueError, match="would write pickles"):
        train(model, enable_checkpointing=True)


def test_before_it_is_trained(three, tmp_path, capsys):
    model = build(three)
    repr(model)
    assert "MoEVAE(n_hidden=16" in capsys.readouterr().out
    for name in ("predict", "predict_proba", "get_latent_representation", "outlier_score"):
        with pytest.raises(RuntimeError, match="untrained model"):
            getattr(model, name)()
    for call in (
        model.get_distances,
        lambda: model.predict(by="reconstruction"),
        lambda: model.get_latent_representation(cluster="0"),
        lambda: model.reconstruct(three),
        lambda: model.walk("0"),
        lambda: model.generate(3),
        lambda: model.trained,
    ):
        with pytest.raises(RuntimeError, match="untrained model"):
            call()
    with pytest.raises(ValueError, match="has numbers to estimate and no networks yet"):
        model.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())
