"""The module of the coupled mixture: its loss, its categories and its draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up import COUPLED
from scvi import REGISTRY_KEYS

from scmoe.model._cplmixvae_module import CplMixVAEModule, CplMixVAESettings, draw_counts
from scmoe.train import BATCH_KEYS


def make(**kwargs):
    torch.manual_seed(0)
    return CplMixVAEModule(CplMixVAESettings(n_input=5, **{**COUPLED, **kwargs}))


def cells(n=12, *, counts=False):
    x = torch.randn(n, 5, generator=torch.manual_seed(1))
    return x.exp().mul(5).round() if counts else x


def step(module, x, **more):
    tensors = {REGISTRY_KEYS.X_KEY: x, **more}
    return module(tensors)[2]


@pytest.mark.parametrize("likelihood", ["gaussian", "nb", "zinb"])
def test_loss_is_the_weighted_sum_of_its_terms(likelihood):
    output = step(make(likelihood=likelihood), cells(counts=likelihood != "gaussian"))
    term = output.extra_metrics
    expected = term["reconstruction"] + 2 * term["kl"] + 1.5 * term["coupling"]
    torch.testing.assert_close(output.loss, expected - 0.5 * term["entropy"])


def test_while_categories_are_taught_arms_are_not_coupled():
    module, x = make(), cells()
    # the second arm is taught of fewer cells
    taught = torch.stack([torch.arange(12) % 4 - 1, torch.arange(12) % 2 - 1], dim=1)
    torch.manual_seed(3)
    output = step(module, x, **{BATCH_KEYS.TAUGHT: taught})
    term = output.extra_metrics
    torch.testing.assert_close(
        output.loss, term["reconstruction"] + 2 * term["kl"] + 10 * term["taught"]
    )
    log_arms = module.inference(x)["log_arms"]
    by_hand = [
        np.mean([-log_arms[a, i, taught[i, a]].item() for i in range(12) if taught[i, a] >= 0])
        for a in range(2)
    ]
    assert term["taught"].item() == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_cells_that_are_taught_nothing():
    output = step(make(), cells(), **{BATCH_KEYS.TAUGHT: torch.full((12, 2), -1)})
    assert output.extra_metrics["taught"] == 0
    assert torch.isfinite(output.loss)


def test_one_arm_is_a_plain_mixture():
    output = step(make(n_arms=1), cells())
    term = output.extra_metrics
    assert "coupling" not in term
    torch.testing.assert_close(output.loss, term["reconstruction"] + 2 * term["kl"])


def test_gradients_reach_every_arm():
    module = make()
    x = cells()
    step(module, x, **{BATCH_KEYS.ARMS: torch.stack([x, x + 0.1])}).loss.backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad.flatten(1).abs().sum(1) > 0).all(), name


def test_arms_see_their_copies_and_the_cell_is_what_they_should_say():
    module = make().train()
    x = cells()
    arms = torch.stack([x + 1, x - 1])
    with torch.no_grad():
        found = module.inference(x, arms=arms)
        for a in range(2):
            alone = module.inference(arms[a])
            torch.testing.assert_close(found["log_arms"][a], alone["log_arms"][a])
    torch.testing.assert_close(found["scaled"], x)


def test_outside_of_training_nothing_is_drawn():
    module = make(input_dropout=0.5).eval()
    x = cells()
    assert torch.equal(step(module, x).loss, step(module, x).loss)
    assert not torch.equal(step(module.train(), x).loss, step(module, x).loss)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "nb", "zinb"])
def test_categories_can_be_renumbered(likelihood):
    module = make(likelihood=likelihood).eval()
    x = cells(counts=likelihood in ("nb", "zinb"))
    z, order = torch.randn(4, 2), torch.tensor([2, 0, 3, 1])
    if module.takes_counts:
        module.totals.copy_(torch.arange(8.0).view(4, 2) / 4)
    with torch.no_grad():
        proba, decoded = module.inference(x)["proba"], module.decode(z, order)
        module.reorder(order)
        torch.testing.assert_close(module.inference(x)["proba"], proba[:, order])
        torch.testing.assert_close(module.decode(z, torch.arange(4)), decoded)


def test_retired_categories_get_no_cells():
    module = make().eval()
    module.live[1] = False
    found = module.inference(cells())
    assert (found["proba"][:, 1] == 0).all()
    assert (found["votes"] != 1).all()
    assert torch.isfinite(found["entropy"]).all()
    assert torch.isfinite(step(module.train(), cells()).loss)


def test_counts_are_looked_at_by_their_logarithms():
    module = make(likelihood="nb")
    x = cells(counts=True)
    torch.testing.assert_close(module.scale(x), x.log1p())
    torch.testing.assert_close(module.unscale(module.scale(x)), x)


def test_decoded_counts_have_the_typical_total():
    module = make(likelihood="nb").eval()
    module.totals[:, 0] = torch.tensor([1.0, 10.0, 100.0, 1000.0]).log()
    with torch.no_grad():
        decoded = module.decode(torch.zeros(4, 2), torch.arange(4))
    total = decoded.expm1().sum(1)
    torch.testing.assert_close(total, torch.tensor([1.0, 10.0, 100.0, 1000.0]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_drawn_counts_have_the_moments_of_their_distribution(likelihood):
    module = make(likelihood=likelihood)
    output = torch.randn(module.observed.n_output, generator=torch.manual_seed(3))
    n = 20_000
    with torch.no_grad():
        said = module.observed.distribution(output.expand(n, -1), torch.full((n, 1), 40.0), arm=0)
    drawn = draw_counts(said, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0), said.mean[0], rtol=0.06)
    if likelihood == "nb":
        np.testing.assert_allclose(drawn.var(0), said.variance[0], rtol=0.12)
    np.testing.assert_array_equal(drawn, drawn.round())


def test_drawn_cells_are_of_what_was_asked():
    module = make(likelihood="nb").eval()
    module.size.fill_(10)
    module.covariances.copy_(torch.eye(2).expand(4, 2, 2))
    drawn = module.draw(np.array([0, 0, 3]), np.zeros(3, int), np.random.default_rng(0))
    assert drawn["expert"].tolist() == [0, 0, 3]
    again = module.draw(np.array([0, 0, 3]), np.zeros(3, int), np.random.default_rng(0))
    assert torch.equal(drawn["scaled"], again["scaled"])
