"""Trainings that run away, and settings that no training can have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up import make_three
from torch import nn

from scmoe.model import MoESimVAE, MoEVAE
from scmoe.tl import cluster, latent_dim
from scmoe.train import TermsPlan, fit
from scmoe.train._plan import WINDOW, LossWatch

MODELS = {
    "moe-sim-vae": {},
    "moe-vae": {"n_latent": 2, "train_kwargs": {"pretrain": False}},
    "cpl-mixvae": {"model_kwargs": {"n_arms": 2}, "train_kwargs": {"start_epochs": 1}},
}


def run(model, train_kwargs, adata=None):
    settings = MODELS[model]
    train = {
        "max_epochs": 3,
        "batch_size": 32,
        "accelerator": "cpu",
        **settings.get("train_kwargs", {}),
        **train_kwargs,
    }
    adata = make_three() if adata is None else adata
    cluster(
        adata, model=model, n_clusters=3, progress=False, **{**settings, "train_kwargs": train}
    )
    return adata


def watched(*losses, module=None, lr=0.1):
    watch = LossWatch(lr=lr)
    for loss in losses:
        watch.add(torch.tensor(float(loss)))
    watch.check(module)


def test_losses_of_healthy_trainings():
    watched()
    watched(5)
    watched(-300, *np.linspace(-300, -2000, 50))
    watched(0.01, *[0.5] * 30)
    # batches with a cell far beyond the others, between those without one
    watched(1, *[1, 1e9, 1e12, 1, 1e9] * 20)
    watched(1, *[9.9] * WINDOW)


@pytest.mark.parametrize(
    "losses",
    [
        [1, *[11] * WINDOW],
        [-3, *[31] * WINDOW],
        [0.01, *[11] * WINDOW],
        # found again later
        [1, *[1e4] * WINDOW, *[0.5] * 30],
        [1, *[1] * (WINDOW - 1), np.nan],
        [1, *[np.inf] * WINDOW],
    ],
)
def test_losses_of_trainings_that_run_away(losses):
    with pytest.raises(ValueError, match=r"diverged: .* smaller learning rate than `lr=0\.1`"):
        watched(*losses)


def test_the_end_of_a_training():
    module = nn.Linear(1, 1)
    # windows that are not full, and steps that nothing came after
    watched(1, 1e4, 1e5)
    with pytest.raises(ValueError, match=r"from 1 to 1e\+04"):
        watched(1, 1e4, 1e5, module=module)
    watched(1, 1, module=module)
    nn.init.constant_(module.bias, torch.inf)
    with pytest.raises(ValueError, match="from 1 to nan"):
        watched(1, 1, module=module)
    with pytest.raises(ValueError, match="first batch is nan, before any training step"):
        watched(np.nan, 1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("lr", [1e-5, 1e-2])
def test_rates_that_learn(model, lr):
    random = {"start": False} if model == "moe-sim-vae" else {}
    history = run(model, {"plan_kwargs": {"lr": lr}, **random}).uns["scmoe"]["history"]
    assert np.isfinite(history["loss"].to_numpy()).all()


def test_a_rate_that_is_too_large():
    adata = make_three()
    MoESimVAE.setup_anndata(adata)
    adata.obsp["connectivities"] = _graph(adata)
    model = MoESimVAE(adata, 3)
    before = {name: t.clone() for name, t in model.module.state_dict().items()}
    quiet = {"enable_progress_bar": False, "accelerator": "cpu", "batch_size": 32}
    with pytest.raises(ValueError, match=r"diverged.*`lr=0\.9`"):
        model.train(3, plan_kwargs={"lr": 0.9}, **quiet)
    assert not model.is_trained
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("model", MODELS)
def test_weights_that_become_nan(model, monkeypatch):
    """In the middle of an epoch, where torch would say that probabilities are none."""
    step = TermsPlan.training_step

    def broken(self, batch, batch_idx):
        if batch_idx == 2:
            with torch.no_grad():
                for weights in self.module.parameters():
                    weights.fill_(torch.nan)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TermsPlan, "training_step", broken)
    adata = make_three()
    with pytest.raises(ValueError, match=r"diverged: the loss rose from .* to nan.*`lr="):
        run(model, {}, adata)
    assert list(adata.obs) == ["kind"]
    assert not adata.uns


class Runaway(nn.Module):
    """A loss that grows."""

    def __init__(self):
        super().__init__()
        self.size = nn.Parameter(torch.tensor(1.0))

    def loss(self, batch):
        return {"loss": -(batch["x"].mean() * self.size.exp())}


def test_inner_networks():
    module, data = Runaway(), {"x": -torch.ones(40, 2)}
    module.size.register_hook(lambda gradient: -gradient)
    with pytest.raises(ValueError, match=r"diverged.*`manager_lr=0\.9`"):
        fit(
            module,
            data,
            max_epochs=8,
            batch_size=10,
            lr=0.9,
            rate="manager_lr",
            progress=False,
            accelerator="cpu",
        )


@pytest.mark.parametrize("rate", [0, -1e-3, 1, 1e6, np.nan, np.inf, "0.1", True, None, [0.1]])
def test_rates_that_are_none(rate):
    with pytest.raises(
        ValueError, match=r"`lr` must be a number above 0 and below 1 \(a learning"
    ):
        run("moe-sim-vae", {"plan_kwargs": {"lr": rate}})
    with pytest.raises(ValueError, match="`lr` must be a number"):
        latent_dim(make_three(), progress=False, train_kwargs={"lr": rate})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"accelerator": "abacus"}, ValueError, r"no such device.*finds cpu.*auto.* takes what"),
        ({"accelerator": None}, ValueError, "no such device: `accelerator=None`"),
        ({"device": "cuda"}, TypeError, "no 'device'.* The device is `accelerator="),
        ({"use_gpu": True}, TypeError, "no 'use_gpu'.* The device is `accelerator="),
        (
            {"learning_rate": 0.1},
            TypeError,
            r'The learning rate is `plan_kwargs=\{"lr": \.\.\.\}`',
        ),
        ({"epochs": 3}, TypeError, "The number of epochs is `max_epochs`"),
    ],
)
def test_settings_of_other_packages(model, settings, error, message):
    with pytest.raises(error, match=message):
        run(model, settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(ValueError, match=r"accelerator='gpu'.*It finds cpu here"):
        run("moe-sim-vae", {"accelerator": "gpu"})
    with pytest.raises(ValueError, match="no such device"):
        latent_dim(make_three(), progress=False, train_kwargs={"accelerator": "cuda"})
    adata = make_three()
    MoEVAE.setup_anndata(adata)
    with pytest.raises(ValueError, match="no such device"):
        MoEVAE(adata, 3).pretrain(accelerator="gpu", progress=False)


def _graph(adata):
    from sklearn.neighbors import kneighbors_graph

    graph = kneighbors_graph(adata.X, 10)
    return graph.maximum(graph.T).astype(np.float32)
