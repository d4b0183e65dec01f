"""Stacked arms: each is a network of its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scmoe.nn import Arms
from scmoe.nn._arms import ArmLinear, ArmMLP, ArmNorm

SIZES = {"n_hidden": 7, "n_layers": 2, "n_embed": 3, "activation": "relu"}


def make(n_arms=3, n_categories=4, seed=0, **kwargs):
    torch.manual_seed(seed)
    given = {**SIZES, "input_dropout": 0.0, "state_dropout": 0.0, **kwargs}
    return Arms(n_arms, 5, 5, n_categories, 2, **given)


def through(arms, x):
    """All outputs of the arms for what they see."""
    embedded = arms.embed(x)
    logits = arms.categorize(embedded)
    category = logits.softmax(-1)
    loc, log_var = arms.states(embedded, category)
    return {
        "embedded": embedded,
        "logits": logits,
        "loc": loc,
        "log_var": log_var,
        "output": arms.decode(category, loc),
    }


def test_linear_against_each_arm():
    layer = ArmLinear(2, 3, 4)
    x = torch.randn(2, 6, 3)
    for a in range(2):
        expected = F.linear(x[a], layer.weight[a].T, layer.bias[a, 0])
        torch.testing.assert_close(layer(x)[a], expected)


def test_linear_starts_like_torch():
    weight = ArmLinear(2, 25, 400).weight
    # uniform within 1 / sqrt(25)
    assert weight.abs().max() <= 0.2
    torch.testing.assert_close(weight.std().item(), 0.2 / 3**0.5, atol=2e-3, rtol=0)


def test_norm_is_of_each_arm():
    norm = ArmNorm(2, 3)
    x = torch.randn(2, 50, 3) * torch.tensor([1.0, 10.0])[:, None, None] + 4
    found = norm(x)
    torch.testing.assert_close(found.mean(1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(1, correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)


def test_norm_takes_running_moments_outside_of_training():
    norm = ArmNorm(1, 2)
    for _ in range(200):
        norm(torch.randn(1, 100, 2) * 3 + 5)
    norm.eval()
    found = norm(torch.full((1, 1, 2), 5.0))
    torch.testing.assert_close(found, torch.zeros(1, 1, 2), atol=0.1, rtol=0)


def test_layers_are_linear_then_activation_then_norm():
    mlp = ArmMLP(1, [3, 4], "relu")
    x = torch.randn(1, 30, 3)
    hidden = F.relu(mlp.layers[0](x))[0]
    torch.testing.assert_close(
        mlp(x)[0], F.batch_norm(hidden, None, None, training=True), atol=1e-5, rtol=1e-4
    )


def test_shapes():
    found = through(make(), torch.randn(3, 6, 5))
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        "embedded": (3, 6, 3),
        "logits": (3, 6, 4),
        "loc": (3, 6, 2),
        "log_var": (3, 6, 2),
        "output": (3, 6, 5),
    }


@pytest.mark.parametrize("training", [True, False])
def test_what_an_arm_sees_changes_nothing_in_another(training):
    arms = make().train(training)
    x = torch.randn(3, 8, 5)
    before = through(arms, x)
    x[0] += 1
    after = through(arms, x)
    for name, tensor in before.items():
        assert torch.equal(tensor[1:], after[name][1:]), name
        assert not torch.equal(tensor[0], after[name][0]), name


def test_gradients_reach_every_arm_and_no_other():
    arms = make()
    x = torch.randn(3, 8, 5)
    through(arms, x)["output"][1].square().sum().backward()
    for name, parameter in arms.named_parameters():
        of_arm = parameter.grad.abs().flatten(1).sum(1) > 0
        if "log_var" not in name:
            assert of_arm.tolist() == [False, True, False], name
    arms.zero_grad()
    sum(t.square().sum() for t in through(arms, x).values()).backward()
    for name, parameter in arms.named_parameters():
        assert (parameter.grad.abs().flatten(1).sum(1) > 0).all(), name


@pytest.mark.parametrize("n_layers", [0, 2])
def test_stacked_arms_equal_single_ones(n_layers):
    arms = make(n_layers=n_layers)
    for _ in range(3):
        through(arms, torch.randn(3, 20, 5))
    arms.eval()
    x = torch.randn(3, 6, 5)
    together = through(arms, x)
    for a in range(3):
        single = make(n_arms=1, n_layers=n_layers, seed=9).eval()
        state = {}
        for name, tensor in arms.state_dict().items():
            own = single.state_dict()[name]
            if "running" in name:
                state[name] = tensor.view(3, -1)[a]
            else:
                state[name] = tensor if own.ndim == 0 else tensor[a : a + 1]
        single.load_state_dict(state)
        for name, tensor in through(single, x[a : a + 1]).items():
            torch.testing.assert_close(tensor[0], together[name][a])


def test_dropout_is_of_training_alone():
    arms = make(input_dropout=0.5, state_dropout=0.5)
    x = torch.randn(3, 8, 5)
    category, state = torch.rand(3, 8, 4), torch.randn(3, 8, 2)
    assert not torch.equal(arms.embed(x), arms.embed(x))
    assert not torch.equal(arms.decode(category, state), arms.decode(category, state))
    arms.eval()
    assert torch.equal(arms.embed(x), arms.embed(x))
    assert torch.equal(arms.decode(category, state), arms.decode(category, state))


def test_a_batch_of_one_passes():
    assert torch.isfinite(through(make(), torch.randn(3, 1, 5))["output"]).all()


@pytest.mark.parametrize("keep", [[2, 0], [3, 1, 0, 2]])
def test_categories_that_are_taken_keep_what_they_say(keep):
    arms = make()
    for _ in range(3):
        through(arms, torch.randn(3, 20, 5))
    arms.eval()
    taken = make(n_categories=len(keep), seed=5).eval()
    order = torch.tensor(keep)
    taken.take(arms, order)
    x, state = torch.randn(3, 6, 5), torch.randn(3, 6, 2)
    embedded = arms.embed(x)
    torch.testing.assert_close(taken.embed(x), embedded)
    torch.testing.assert_close(taken.categorize(embedded), arms.categorize(embedded)[..., order])
    for new, old in enumerate(keep):
        ours = F.one_hot(torch.tensor(new), len(keep)).float().expand(3, 6, -1)
        theirs = F.one_hot(torch.tensor(old), 4).float().expand(3, 6, -1)
        torch.testing.assert_close(taken.states(embedded, ours), arms.states(embedded, theirs))
        torch.testing.assert_close(taken.decode(ours, state), arms.decode(theirs, state))


def test_unknown_activations_are_named():
    with pytest.raises(ValueError, match="`activation` is 'gelu'"):
        make(activation="gelu")
