"""A model that starts from groups of cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from groups import Groups
from lightning.pytorch.callbacks import Callback

import scmoe
from scmoe.metrics import accuracy
from scmoe.model import MoESimVAE
from scmoe.model import _moesimvae_start as from_groups
from scmoe.model._moesimvae_module import MoESimVAEModule, MoESimVAESettings
from scmoe.similarity import CoAssociation, DensityTree, Graph
from scmoe.train import one_cycle

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def build(adata, n_experts=None, *, key="population", seed=0, setup=None, **kwargs):
    scvi.settings.seed = seed
    MoESimVAE.setup_anndata(adata, similarity=Groups(key=key), **(setup or {}))
    return MoESimVAE(adata, n_experts, **kwargs)


def trained(adata, n_experts=None, *, train=None, **kwargs):
    model = build(adata, n_experts, **kwargs)
    model.train(**{**QUIET, **(train or {})})
    return model


def state(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.slow
def test_follows_the_groups(blobs):
    model = trained(blobs)
    assert model.module.n_experts == 5 + from_groups.SPARE
    label = model.predict()
    assert accuracy(blobs.obs["population"], label) == 1
    assert set(label) == set("01234")
    assert {"loss_train", "groups_train"} <= set(model.history)


def test_the_start_alone_tells_the_groups(blobs):
    model = trained(blobs, train={"max_steps": 1})
    assert accuracy(blobs.obs["population"], model.predict()) > 0.99


def test_same_seed_same_model(blobs):
    kwargs = {"train": {"max_steps": 5}}
    first, again, other = (trained(blobs, seed=s, **kwargs) for s in (0, 0, 1))
    assert_same_state(state(first), state(again))
    assert not torch.equal(first.module.gate.out.weight, other.module.gate.out.weight)


class Fails(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("the plug was pulled")


def test_what_a_start_and_its_end_do_to_the_gate(rng):
    """Spare experts are rare at the start; in the end the gate is taught once more."""
    settings = MoESimVAESettings(n_input=4, n_experts=4, n_latent=3, likelihood="gaussian")
    group = np.arange(900) % 2
    scaled = torch.from_numpy(rng.normal(0.4 + 0.15 * group[:, None], 0.1, (900, 4)))
    cells = from_groups.Cells(
        scaled.float(),
        torch.zeros(900, 1),
        torch.nn.functional.one_hot(torch.from_numpy(group)).float(),
        torch.ones(900),
    )
    torch.manual_seed(0)
    module = MoESimVAEModule(settings)

    @torch.no_grad()
    def log_proba():
        return module.eval().gate(module.encode(cells.scaled, cells.batch)).log_softmax(1)

    from_groups.start(module, cells, rng)
    assert log_proba().exp()[:, 2:].sum(1).mean() < 0.02
    before = log_proba()[np.arange(900), group].mean()
    from_groups.finish(module, cells)
    assert log_proba()[np.arange(900), group].mean() > before + 0.01


def test_settings_of_the_user_are_kept(blobs):
    rates = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])
            assert len(batch["X"]) == 100

    given = {"batch_size": 100, "max_epochs": 2, "callbacks": [Watch()]}
    trained(blobs, train={**given, "plan_kwargs": {"lr": 1e-4}})
    # the largest of its cycle
    assert len(rates) == 12
    assert 0.9e-4 < max(rates) <= 1e-4
    rates.clear()
    trained(blobs, train=given)
    assert rates == pytest.approx([from_groups.LR * one_cycle(i / 12) for i in range(12)])


@pytest.mark.slow
def test_default_length(blobs):
    steps = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, *args, **kwargs):
            steps.append(trainer.global_step)

    trained(blobs, train={"callbacks": [Watch()]})
    assert steps[-1] == from_groups.N_STEPS


def test_without_the_start_as_before(linked):
    """No start where nothing is known, or where it was declined."""

    def weights(similarity, **train):
        scvi.settings.seed = 0
        MoESimVAE.setup_anndata(linked, similarity=similarity)
        model = MoESimVAE(linked, 6)
        model.train(1, batch_size=300, **QUIET, **train)
        return model

    assert "groups_train" not in weights(Graph()).history
    assert "groups_train" not in weights(Groups(), start=False).history


def test_nothing_to_start_from(linked, caplog):
    scvi.settings.seed = 0
    MoESimVAE.setup_anndata(linked, similarity=Graph())
    model = MoESimVAE(linked, 6)
    before = state(model)
    with pytest.raises(ValueError, match="knows no groups"):
        model.train(1, start=True, **QUIET)
    with pytest.raises(ValueError, match="`start` must be"):
        model.train(1, start="yes", **QUIET)
    few = build(linked, 3)
    with pytest.raises(ValueError, match="5 groups, more than 3 experts"):
        few.train(1, start=True, **QUIET)
    assert_same_state(state(model), before)
    with caplog.at_level("WARNING", logger="scmoe"):
        few.train(1, **QUIET)
    assert "random weights" in caplog.text
    assert "groups_train" not in few.history


@pytest.mark.parametrize("similarity", [CoAssociation(), DensityTree()])
def test_more_groups_than_experts(linked, similarity, caplog):
    """The closest groups are merged, so that the model starts from as many as it has experts."""
    MoESimVAE.setup_anndata(linked, similarity=similarity)
    scvi.settings.seed = 0
    model = MoESimVAE(linked, 3)
    with caplog.at_level("INFO", logger="scmoe"):
        model.train(**QUIET)
    assert "The similarity has 5 groups: the closest are merged to 3" in caplog.text
    assert "groups_train" in model.history
    assert len(set(model.predict())) == 3
    # whole populations
    table = pd.crosstab(linked.obs["population"].to_numpy(), model.predict(), normalize="index")
    assert table.max(axis=1).min() > 0.95
    if model.tree is not None:
        assert model.tree.n_clusters == 3


def test_further_training_does_not_start_again(blobs):
    model = trained(blobs, train={"max_steps": 20})
    label, n_epochs = model.predict(), len(model.history["groups_train"])
    model.train(1, **QUIET)
    assert len(model.history["groups_train"]) == n_epochs
    assert accuracy(label, model.predict()) > 0.9


def test_no_experts_to_spare(blobs):
    model = trained(blobs, 5, train={"max_steps": 20})
    assert accuracy(blobs.obs["population"], model.predict()) == 1
    many = trained(blobs, 30, train={"max_steps": 20})
    assert accuracy(blobs.obs["population"], many.predict()) == 1
    assert many.module.live.sum() == 5


def test_numbers_that_nobody_gave_are_not_saved_untrained(blobs, linked, tmp_path):
    with pytest.raises(ValueError, match="train first"):
        build(blobs).save(tmp_path / "m")
    model = trained(blobs, train={"max_steps": 5})
    model.save(tmp_path / "m")
    again = MoESimVAE.load(tmp_path / "m", blobs, accelerator="cpu")
    np.testing.assert_array_equal(again.predict(), model.predict())
    MoESimVAE.setup_anndata(linked, similarity=Graph())
    unknown = MoESimVAE(linked)
    unknown.train(1, **QUIET)
    assert unknown.module.n_experts == 25


@pytest.mark.slow
def test_one_group(blobs):
    blobs.obs["one"] = "all"
    model = trained(blobs, key="one")
    assert set(model.predict()) == {"0"}
    assert model.module.n_experts == 1 + from_groups.SPARE
    assert model.generate(50).n_obs == 50


@pytest.mark.slow
def test_a_group_of_few_cells(blobs):
    rare = blobs.obs["population"].to_numpy(dtype=object)
    rare[np.flatnonzero(rare == "pDC")[12:]] = "mono"
    blobs.obs["rare"] = rare
    blobs.X[rare == "pDC", 7] = 9
    model = trained(blobs, key="rare")
    found = model.predict()[rare == "pDC"]
    assert len(set(found)) == 1
    assert (model.predict() == found[0]).sum() == 12


@pytest.mark.slow
def test_undecided_cells_stay_so(blobs, rng):
    """From one population to another there are cells of which the groups are ever less sure."""
    population = blobs.obs["population"]
    share = pd.get_dummies(population).to_numpy(dtype=np.float32)
    t, b = (list(population.cat.categories).index(name) for name in ("T", "B"))
    cells = np.flatnonzero(population == "T")[:120]
    means = [blobs.X[population == name].mean(0) for name in ("T", "B")]
    part = rng.random(120)
    blobs.X[cells] += part[:, None].astype(np.float32) * (means[1] - means[0])
    share[cells, b] = 1 / (1 + np.exp(-10 * (part - 0.5)))
    share[cells, t] = 1 - share[cells, b]
    blobs.obsm["share"] = share
    model = trained(blobs, key="share")
    proba = model.predict_proba().to_numpy()
    of_b = proba[:, proba[population == "B"].mean(0).argmax()]
    assert np.abs(of_b - share[:, b])[cells].mean() < 0.12
    assert np.abs(of_b - share[:, b]).mean() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("n_markers", [1, 3, 8])
def test_panels_of_fewer_markers_than_codes(blobs, n_markers):
    some = blobs[:, :n_markers].copy()
    some.obs["high"] = np.where(some.X[:, 0] > 2, "high", "low")
    model = trained(some, key="high")
    assert accuracy(some.obs["high"], model.predict()) > 0.99
    codes = model.get_latent_representation()
    assert codes.shape == (600, 9)
    assert np.isfinite(codes).all()
    new = model.generate(2000).X
    np.testing.assert_allclose(new.mean(0), some.X.mean(0), atol=0.2)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"likelihood": "gaussian"},
        {"code_noise": "learned"},
        {"means": "learned"},
        {"batch_norm": True},
        {"encoder_layers": 0, "gate_layers": 0, "expert_layers": 0},
        {"expert_layers": 3, "gate_layers": 5, "activation": "relu"},
        {"encode_batch": True},
    ],
    ids=lambda kwargs: "-".join(kwargs),
)
def test_other_networks(blobs, kwargs):
    blobs.obs["donor"] = np.where(np.arange(600) % 2, "a", "b")
    model = trained(blobs, setup={"batch_key": "donor"}, train={"max_steps": 30}, **kwargs)
    assert accuracy(blobs.obs["population"], model.predict()) > 0.99


def test_validation_and_early_stopping(blobs):
    model = trained(
        blobs,
        train={
            "train_size": 0.8,
            "early_stopping": True,
            "early_stopping_patience": 2,
            "max_epochs": 30,
        },
    )
    assert "validation_loss" in model.history
    assert accuracy(blobs.obs["population"], model.predict()) > 0.99


def test_large_groups_are_sampled(rng):
    membership = np.eye(2, dtype=np.float32)[np.repeat([0, 1], [from_groups.MOST + 500, 40])]
    cells = rng.permutation(len(membership))[:-3]
    chosen, weight = from_groups.choose_cells(membership, cells, rng)
    assert (np.diff(chosen) > 0).all()
    assert set(chosen) <= set(cells)
    own = membership[chosen, 0] == 1
    assert own.sum() == from_groups.MOST
    assert weight.sum() == pytest.approx(len(cells))
    assert (weight[~own] == 1).all()


def test_one_cycle():
    assert one_cycle(0) == pytest.approx(0.04)
    assert one_cycle(0.3) == pytest.approx(1)
    assert one_cycle(0.65) == pytest.approx(0.5, abs=1e-3)
    assert one_cycle(1) == one_cycle(1.5) == pytest.approx(1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_components_are_learned_in_peace(seed):
    """Few cells of many components, most of which vary little beside the first."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.arange(1, 51)
    centres = 4 * rng.normal(size=(6, 50)) * (np.arange(50) < 8)
    x = (centres[rng.integers(0, 6, 600)] / 2 + rng.normal(size=(600, 50))) * spread
    cells = ad.AnnData(x[:, :2].astype(np.float32), obsm={"X_pca": x.astype(np.float32)})
    scmoe.tl.cluster(cells, use_rep="X_pca", random_state=seed, progress=False)
    loss = cells.uns["scmoe"]["history"]["loss"]
    assert loss.iloc[0] < 5
    assert loss.max() < 3 * loss.iloc[0]
    assert loss.iloc[-1] < loss.iloc[0]


def test_small_networks_stay_on_the_cpu(blobs):
    """Six operations a weight and cell, of one expert: a GPU would not have started yet."""
    small = trained(blobs, train={"max_epochs": 1}).module
    assert from_groups.is_quick(small)
    weights = [small.encoder, small.gate]
    n = sum(p.numel() for part in weights for p in part.parameters())
    n += sum(p.numel() for p in small.experts.parameters()) / small.n_experts
    assert 6 * n * 200 * 512 < 1e11
    wide = trained(blobs, train={"max_epochs": 1, "start": False}, n_hidden=1024).module
    assert not from_groups.is_quick(wide)
