"""Coupled mixtures that are trained in one fit learn what each would learn by itself."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from made_up import COUPLED
from scvi import REGISTRY_KEYS

from scmoe.model import CplMixVAE
from scmoe.model._cplmixvae_module import CplMixVAEModule
from scmoe.model._together import join, share_out
from scmoe.train import BATCH_KEYS, ArmsPlan

LIKELIHOODS = ["gaussian", "bernoulli", "nb", "zinb"]
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def make_parts(likelihood="gaussian", distance="scaled", n=3):
    torch.manual_seed(0)
    settings = {**COUPLED, "n_input": 5, "likelihood": likelihood, "distance": distance}
    parts = [CplMixVAEModule(**settings) for _ in range(n)]
    for number, part in enumerate(parts):
        # otherwise these are the same in all of them
        if likelihood == "gaussian":
            part.observed.noise.fill_(number + 1)
        for name, buffer in part.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn_like(buffer))
    return parts, settings


def cells(likelihood="gaussian", n=12):
    x = torch.rand(n, 5, generator=torch.Generator().manual_seed(1))
    return x.mul(9).round() if likelihood in ("nb", "zinb") else x


def loss_of(module, x, **more):
    return module({REGISTRY_KEYS.X_KEY: x, **more})[2]


def of_group(joint, tensor, group):
    return tensor.chunk(joint.n_groups)[group]


# ----------------------------------------------------------------------------------------
# the module of all


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_each_gets_its_own_arms_back(likelihood):
    parts, settings = make_parts(likelihood)
    before = [{name: t.clone() for name, t in part.state_dict().items()} for part in parts]
    joint = join(parts, settings)
    for part in parts:
        for tensor in part.state_dict().values():
            tensor.zero_()
    share_out(joint, parts)
    for part, state in zip(parts, before, strict=True):
        for name, tensor in part.state_dict().items():
            assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("distance", ["scaled", "aitchison"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_loss_is_the_mean_and_gradients_are_those_of_each(likelihood, distance):
    parts, settings = make_parts(likelihood, distance)
    # nothing is drawn
    joint = join(parts, settings).eval()
    x = cells(likelihood)
    found = loss_of(joint, x)
    alone = [loss_of(part.eval(), x) for part in parts]
    torch.testing.assert_close(found.loss, torch.stack([one.loss for one in alone]).mean())
    for name, value in found.extra_metrics.items():
        mean = torch.stack([one.extra_metrics[name] for one in alone]).mean()
        torch.testing.assert_close(value, mean)
    (joint.n_groups * found.loss).backward()
    for group, (part, one) in enumerate(zip(parts, alone, strict=True)):
        one.loss.backward()
        own = dict(part.named_parameters())
        for name, parameter in joint.named_parameters():
            torch.testing.assert_close(of_group(joint, parameter.grad, group), own[name].grad)


def test_each_is_taught_its_own_categories():
    parts, settings = make_parts()
    joint, x = join(parts, settings).eval(), cells()
    # of two arms each; the third is taught of fewer cells
    taught = torch.arange(12)[:, None] % torch.tensor([4, 3, 4, 4, 3, 2])
    taught[:8, 4:] = -1
    found = loss_of(joint, x, **{BATCH_KEYS.TAUGHT: taught})
    alone = [
        loss_of(part.eval(), x, **{BATCH_KEYS.TAUGHT: own})
        for part, own in zip(parts, taught.split(2, dim=1), strict=True)
    ]
    expected = torch.stack([one.extra_metrics["taught"] for one in alone]).mean()
    torch.testing.assert_close(found.extra_metrics["taught"], expected)
    torch.testing.assert_close(found.loss, torch.stack([one.loss for one in alone]).mean())


def test_gradients_are_cut_at_the_norm_of_each():
    parts, settings = make_parts()
    joint = join(parts, settings)
    for parameter in joint.parameters():
        parameter.grad = torch.randn_like(parameter)
        of_group(joint, parameter.grad, 1).mul_(1e-4)
    for group, part in enumerate(parts):
        for name, parameter in part.named_parameters():
            grad = dict(joint.named_parameters())[name].grad
            parameter.grad = of_group(joint, grad, group).clone()
        torch.nn.utils.clip_grad_norm_(part.parameters(), 1.0)
    plan = ArmsPlan(joint)
    plan.configure_gradient_clipping(plan.configure_optimizers(), 1.0, "norm")
    for group, part in enumerate(parts):
        own = dict(part.named_parameters())
        for name, parameter in joint.named_parameters():
            torch.testing.assert_close(of_group(joint, parameter.grad, group), own[name].grad)


# ----------------------------------------------------------------------------------------
# the fit


@pytest.fixture
def three():
    rng = np.random.default_rng(0)
    kind = np.arange(200) % 3
    x = 3 * np.eye(3).repeat(2, 1)[kind] + rng.normal(scale=0.3, size=(200, 6))
    before = scvi.settings.seed
    scvi.settings.seed = 0
    adata = AnnData(x.astype(np.float32))
    CplMixVAE.setup_anndata(adata)
    yield adata
    scvi.settings.seed = before


def make(adata, n=3, **kwargs):
    return [
        CplMixVAE(adata, **{"n_categories": n, "n_hidden": 16, "n_layers": 1, **kwargs})
        for _ in range(3)
    ]


def test_all_are_trained_and_none_is_another(three, tmp_path):
    first, *others = models = make(three)
    first.train(4, beside=others, batch_size=60, **QUIET)
    weights = [model.module.state_dict()["arms.category.weight"] for model in models]
    for model in models:
        assert model.module.n_groups == 1
        assert model.module.n_arms == 2
        assert len(model.predict_proba()) == 200
        assert list(model.history) == list(first.history)
        assert model.consensus_["n_cells"].sum() == 200
        assert (model.module.size.sum() == 200).all()
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    # as any other model
    models[2].save(tmp_path / "model")
    loaded = CplMixVAE.load(tmp_path / "model", three)
    np.testing.assert_array_equal(loaded.predict_proba(), models[2].predict_proba())
    models[2].train(1, **QUIET)
    assert np.isfinite(models[2].history["loss_train"].to_numpy(float)).all()


def test_same_seed_same_models(three):
    found = []
    for _ in range(2):
        scvi.settings.seed = 3
        first, *others = models = make(three)
        first.train(2, beside=others, batch_size=60, **QUIET)
        found.append(np.stack([model.predict_proba() for model in models]))
    np.testing.assert_array_equal(*found)


def test_each_prunes_its_own(three):
    first, *others = models = make(three, "auto")
    slow = {"plan_kwargs": {"lr": 1e-3}}
    first.train(20, beside=others, prune_epochs=2, batch_size=100, **slow, **QUIET)
    for model in models:
        assert model.pruning_["n_categories"].is_monotonic_decreasing
        assert model.module.n_experts == model.estimates_["n_categories"]["chosen"]
    assert not all(model.pruning_.equals(first.pruning_) for model in others)


def test_a_failure_leaves_all_as_they_were(three, monkeypatch):
    first, *others = models = make(three)

    def fail(*args, **kwargs):
        raise RuntimeError("no more")

    monkeypatch.setattr(ArmsPlan, "on_train_epoch_end", fail)
    with pytest.raises(RuntimeError, match="no more"):
        first.train(2, beside=others, **QUIET)
    assert all(model.module is None and not model.is_trained_ for model in models)


def test_mistakes(three):
    first, second, third = make(three)
    with pytest.raises(ValueError, match="beside itself"):
        first.train(2, beside=[first], **QUIET)
    with pytest.raises(ValueError, match="same settings"):
        first.train(2, beside=make(three, 4), **QUIET)
    for kwargs in ({"scaling": "none"}, {"min_cells": 3}):
        with pytest.raises(ValueError, match="same settings"):
            first.train(2, beside=make(three, **kwargs), **QUIET)
    three.layers["twice"] = 2 * three.X
    CplMixVAE.setup_anndata(three, layer="twice")
    with pytest.raises(ValueError, match="same settings"):
        first.train(2, beside=make(three), **QUIET)
    CplMixVAE.setup_anndata(three)
    other = three.copy()
    CplMixVAE.setup_anndata(other)
    with pytest.raises(ValueError, match="same cells"):
        first.train(2, beside=make(other), **QUIET)
    second.train(1, **QUIET)
    with pytest.raises(ValueError, match="make new ones"):
        first.train(2, beside=[second], **QUIET)
    with pytest.raises(ValueError, match="make new ones"):
        second.train(2, beside=[third], **QUIET)
    assert first.module is None
    assert third.module is None
