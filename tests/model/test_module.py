"""Which term of the loss teaches which part."""

from __future__ import annotations

import pytest
import torch
from scvi import REGISTRY_KEYS

from scmoe.model._moesimvae_module import MoESimVAEModule, MoESimVAESettings
from scmoe.nn import (
    cluster_kl,
    cluster_means,
    depict,
    depict_target,
    pair_similarity,
    reconstruction,
)
from scmoe.train import BATCH_KEYS

TERMS = ["reconstruction", "similarity", "depict", "kl"]


@pytest.fixture
def module(settings):
    torch.manual_seed(0)
    return MoESimVAEModule(MoESimVAESettings(n_input=6, n_experts=4, n_latent=3, **settings))


@pytest.fixture
def tensors():
    torch.manual_seed(1)
    similarity = (torch.rand(40, 40) < 0.2).float()
    return {
        REGISTRY_KEYS.X_KEY: torch.rand(40, 6),
        BATCH_KEYS.SIMILARITY: torch.maximum(similarity, similarity.T),
    }


def only(module, term):
    module.weights = {name: float(name == term) for name in TERMS}


def reached(part):
    return any(p.grad is not None and (p.grad != 0).any() for p in part.parameters())


@pytest.mark.parametrize(
    ("term", "encoder", "gate", "experts"),
    [
        ("reconstruction", True, False, True),  # no gradient passes the argmax
        ("similarity", True, True, False),
        ("depict", True, True, False),
        ("kl", True, True, False),
    ],
)
def test_gradients(module, tensors, term, encoder, gate, experts):
    only(module, term)
    _, _, output = module(tensors)
    output.loss.backward()
    assert reached(module.encoder) == encoder
    assert reached(module.gate) == gate
    assert reached(module.experts) == experts
    for parameter in module.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_loss_is_the_weighted_sum_of_its_terms(module, tensors):
    module.eval()  # no noise, so that the terms can be computed again
    inference, _, output = module(tensors)
    x, z, proba = (inference[name] for name in ("scaled", "z", "proba"))
    logits = module.experts(z, inference["expert"])
    terms = {
        "reconstruction": reconstruction(logits, x).mean(),
        "similarity": pair_similarity(proba, tensors[BATCH_KEYS.SIMILARITY]),
        "depict": depict(depict_target(proba), inference["logits"]),
        "kl": cluster_kl(z, inference["expert"], cluster_means(z, proba)),
    }
    for name, value in terms.items():
        torch.testing.assert_close(output.extra_metrics[name], value)
    expected = (
        terms["reconstruction"]
        + 0.7 * terms["similarity"]
        + 0.2 * terms["depict"]
        + 0.05 * terms["kl"]
    )
    torch.testing.assert_close(output.loss, expected)
    occupied = len(inference["expert"].unique())
    assert float(output.extra_metrics["occupied_experts"]) == occupied
    target = tensors[BATCH_KEYS.SIMILARITY].clone().fill_diagonal_(0)
    assert float(output.extra_metrics["similar_pairs"]) == pytest.approx(float(target.sum()) / 40)


def test_each_cell_is_decoded_by_its_most_probable_expert(module, tensors):
    inference, generative, _ = module.eval()(tensors)
    assert (inference["expert"] == inference["proba"].argmax(1)).all()
    for i, k in enumerate(inference["expert"].tolist()):
        alone = module.experts(inference["z"][[i]], torch.tensor([k]))
        torch.testing.assert_close(generative["logits"][[i]], alone)


def test_noise_while_training_only(module, tensors):
    x = tensors[REGISTRY_KEYS.X_KEY]
    first, second = module.train().inference(x), module.inference(x)
    assert not torch.allclose(first["z"], second["z"])
    spread = module.inference(x[:1].repeat(5000, 1))["z"].std(0).mean().detach()
    assert float(spread) == pytest.approx(0.3, rel=0.05)
    first, second = module.eval().inference(x), module.inference(x)
    torch.testing.assert_close(first["z"], second["z"], rtol=0, atol=0)


def test_depict_compares_with_a_noisy_pass_while_training(module, tensors):
    module.code_noise = 0.0
    only(module, "depict")
    losses = {module.train()(tensors)[2].loss.item() for _ in range(5)}
    assert len(losses) == 5
    losses = {module.eval()(tensors)[2].loss.item() for _ in range(5)}
    assert len(losses) == 1


def test_scale_clips(module):
    module.low.copy_(torch.arange(6.0))
    module.high.copy_(torch.arange(6.0) + 2)
    x = torch.arange(6.0) + torch.tensor([[-1.0], [0.5], [3.0]])
    expected = torch.tensor([[0.0], [0.25], [1.0]]).repeat(1, 6)
    torch.testing.assert_close(module.scale(x), expected)


def test_without_a_similarity_the_others_remain(module, tensors):
    del tensors[BATCH_KEYS.SIMILARITY]
    output = module(tensors)[2]
    assert output.extra_metrics["similarity"] == 0
    assert output.loss.isfinite()


def test_reorder_keeps_what_the_model_says(module, tensors):
    module.eval()
    x = tensors[REGISTRY_KEYS.X_KEY]
    module.means.copy_(torch.randn(4, 3))
    order = torch.tensor([2, 0, 3, 1])
    before = module.inference(x)
    decoded = module.generative(before["z"], before["expert"], before["batch"])["logits"]
    means = module.means.clone()
    with torch.inference_mode():
        module.reorder(order)
    after = module.inference(x)
    torch.testing.assert_close(after["proba"], before["proba"][:, order])
    torch.testing.assert_close(after["z"], before["z"])
    torch.testing.assert_close(module.means, means[order])
    torch.testing.assert_close(
        module.generative(after["z"], after["expert"], after["batch"])["logits"], decoded
    )


def test_parameters_follow_the_sizes(settings):
    def count(n_experts):
        sizes = {"n_latent": 3, "encoder_layers": 2, "gate_layers": 3}
        sizes = {**settings, **sizes, "n_input": 6, "n_experts": n_experts}
        module = MoESimVAEModule(MoESimVAESettings(**sizes))
        return sum(p.numel() for p in module.parameters())

    encoder = 6 * 16 + 16 + 16 * 16 + 16 + 16 * 3 + 3
    gate = 3 * 16 + 16 + 2 * (16 * 16 + 16)
    each = (16 + 1) + (3 * 16 + 16 + 16 * 6 + 6)
    assert count(4) == encoder + gate + 4 * each
    assert count(9) == encoder + gate + 9 * each
