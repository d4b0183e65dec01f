"""The distance of a cell from an expert: an error and the price of the code."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from scmoe.nn import Autoencoders


def make(n_latents=(2, 1), n_input=3, **kwargs):
    torch.manual_seed(0)
    settings = {
        "image_shape": None,
        "n_hidden": 4,
        "n_layers": 1,
        "width": None,
        "activation": "elu",
        "likelihood": "gaussian",
    }
    return Autoencoders(n_input, n_latents, **{**settings, **kwargs})


def one_number(**kwargs):
    """Feature x has the code 2 x + 1 with log-variance -1; a code z is decoded as 3 z - 0.5."""
    net = make((1,), 1, n_layers=0, **kwargs)
    with torch.no_grad():
        net.vaes.encoders.weights[0].copy_(torch.tensor([[[2.0, 0.0]]]))
        net.vaes.encoders.biases[0].copy_(torch.tensor([[[1.0, -1.0]]]))
        net.vaes.decoders.weights[0].fill_(3.0)
        net.vaes.decoders.biases[0].fill_(-0.5)
    return net.eval()


def cells(n=12, d=3):
    return torch.rand(n, d, generator=torch.manual_seed(1))


def experts(n=12, k=2):
    return torch.arange(n) % k


# KL of N(1.4, exp(-1)) from N(0, 1), by hand
KL = 0.5 * (1.4**2 + math.exp(-1) - 1 + 1)


def test_gaussian_by_hand():
    net = one_number()
    net.noise.fill_(0.25)
    parts = net.distance(torch.tensor([[0.2]]), torch.zeros(1, dtype=torch.int64))
    # the code of 0.2 is 1.4, decoded as 3.7
    missed = 0.5 * (3.5**2 / 0.25 + math.log(2 * math.pi * 0.25))
    assert parts["loc"].item() == pytest.approx(1.4)
    assert parts["kl"].item() == pytest.approx(KL)
    assert parts["reconstruction"].item() == pytest.approx(missed)
    assert parts["distance"].item() == pytest.approx(missed + KL)


def test_bernoulli_by_hand():
    net = one_number(likelihood="bernoulli")
    parts = net.distance(torch.tensor([[0.2]]), torch.zeros(1, dtype=torch.int64))
    p = 1 / (1 + math.exp(-3.7))
    missed = -(0.2 * math.log(p) + 0.8 * math.log(1 - p))
    assert parts["reconstruction"].item() == pytest.approx(missed, rel=1e-5)
    assert parts["distance"].item() == pytest.approx(missed + KL, rel=1e-5)
    assert net.decode(parts["loc"], torch.zeros(1, dtype=torch.int64)).item() == pytest.approx(p)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_distance_is_a_bound_of_the_likelihood_by_feature(likelihood):
    """Against torch.distributions: the ELBO at the mean of the code, divided by the features."""
    net = make(likelihood=likelihood).eval()
    net.look_at(cells(), together=False)
    net.noise.copy_(torch.tensor([[0.3, 0.5, 0.7], [0.2, 0.4, 0.6]]))
    x, expert = cells(), experts()
    parts = net.distance(x, expert)
    for i, k in enumerate(expert.tolist()):
        d = net.n_latents[k]
        loc, log_var = (t[0, :d] for t in net.encode(x[i : i + 1], expert[i : i + 1]))
        z = torch.zeros(1, 2)
        z[0, :d] = loc
        output = net.vaes.decode(z, expert[i : i + 1])[0]
        if likelihood == "gaussian":
            seen = (x[i] - net.centre) / net.spread
            log_p = Normal(output, net.noise[k].sqrt()).log_prob(seen).sum()
        else:
            # of a value between 0 and 1: the expectation over a pixel that is on so often
            on, off = (Bernoulli(logits=output).log_prob(torch.full((3,), v)) for v in (1.0, 0.0))
            log_p = (x[i] * on + (1 - x[i]) * off).sum()
        code = Independent(Normal(loc, (log_var / 2).exp()), 1)
        prior = Independent(Normal(torch.zeros(d), torch.ones(d)), 1)
        elbo = log_p - kl_divergence(code, prior)
        torch.testing.assert_close(parts["distance"][i], -elbo / 3)


def test_normalized_kl_is_the_mean_over_the_own_dimensions():
    x, expert = cells(), experts()
    elbo, normalized = make().eval(), make(kl="normalized").eval()
    sizes = torch.tensor([2, 1])[expert]
    torch.testing.assert_close(
        normalized.distance(x, expert)["kl"], elbo.distance(x, expert)["kl"] * 3 / sizes
    )


def test_noise_becomes_the_mean_squared_error_of_each_expert():
    net = make(n_input=2, n_latents=(1, 1), n_layers=0).train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    # everything is decoded as 0, so the errors are the squares of the values
    generator = torch.manual_seed(0)
    spread = torch.tensor([[1.0, 0.5], [2.0, 0.1]])
    for _ in range(100):
        expert = torch.randint(2, (200,), generator=generator)
        net.distance(torch.randn(200, 2, generator=generator) * spread[expert], expert)
    torch.testing.assert_close(net.noise, spread.square(), rtol=0.1, atol=0)


def test_noise_by_hand():
    net = make(n_input=1, n_latents=(1, 1, 1), n_layers=0).train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    x, expert = torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([0, 0, 1])
    net.distance(x, expert, torch.tensor([1.0, 0.5, 0.0]))
    # (1000 * 1 + 1 * 9 + 0.5 * 1) / (1000 + 1.5); a weight of 0 and no cells change nothing
    expected = torch.tensor([[1009.5 / 1001.5], [1.0], [1.0]])
    torch.testing.assert_close(net.noise, expected)


def test_isotropic_noise_and_spread_are_those_of_all_features():
    net = make(n_input=2, n_latents=(1, 1), n_layers=0, isotropic=True).train()
    x = torch.tensor([[3.0, 1.0], [-1.0, 1.0]])
    net.look_at(x, together=False)
    torch.testing.assert_close(net.centre, torch.ones(2))
    torch.testing.assert_close(net.spread, torch.full((2,), 2.0).sqrt())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    net.distance(x, torch.tensor([0, 0]))
    # squares (4 + 0) / 2 of either feature, twice, in units of the spread: 1 for each cell
    expected = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    torch.testing.assert_close(net.noise, expected)
    net.distance(x[:1] + 2.0, torch.tensor([1]))
    # (16 + 4) / 2 / 2 = 5
    expected[1] = (1000 + 5) / 1001
    torch.testing.assert_close(net.noise, expected)


def test_noise_has_a_floor_and_stays_outside_of_training():
    net = make(n_input=1, n_latents=(1,), n_layers=0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    zeros, expert = torch.zeros(5000, 1), torch.zeros(5000, dtype=torch.int64)
    net.eval().distance(zeros, expert)
    assert net.noise.item() == 1
    net.train()
    for _ in range(10):
        net.distance(zeros, expert)
    assert net.noise.item() == pytest.approx(1e-3)


def test_drawn_in_training_and_not_outside_of_it():
    net, x, expert = make(), cells(), experts()
    net.eval()
    first, second = (net.distance(x, expert)["distance"] for _ in range(2))
    assert torch.equal(first, second)
    net.train()
    first, second = (net.distance(x, expert)["reconstruction"] for _ in range(2))
    assert not torch.equal(first, second)


def test_codes_are_drawn_from_their_posterior(monkeypatch):
    net, drawn = one_number().train(), []
    decode = net.vaes.decode
    monkeypatch.setattr(net.vaes, "decode", lambda z, k: drawn.append(z) or decode(z, k))
    torch.manual_seed(2)
    net.distance(torch.full((20_000, 1), 0.2), torch.zeros(20_000, dtype=torch.int64))
    # of 0.2: a normal distribution about 1.4, with a variance of exp(-1)
    away = (drawn[0] - 1.4) / math.exp(-0.5)
    assert away.mean().item() == pytest.approx(0, abs=0.03)
    assert away.std().item() == pytest.approx(1, abs=0.03)
    assert (away.abs() < 1).float().mean().item() == pytest.approx(0.683, abs=0.02)


@pytest.mark.parametrize(("bias", "log_var"), [(1e4, 8.0), (-1e4, -12.0)])
def test_variances_of_codes_stay_finite(bias, log_var):
    net = one_number().train()
    with torch.no_grad():
        net.vaes.encoders.biases[0][..., 1] = bias
    x, expert = torch.rand(5, 1), torch.zeros(5, dtype=torch.int64)
    assert (net.encode(x, expert)[1] == log_var).all()
    parts = net.distance(x, expert)
    parts["distance"].sum().backward()
    assert parts["distance"].isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@pytest.mark.parametrize("kl", ["elbo", "normalized"])
def test_the_price_of_codes_teaches_the_encoder_alone(kl):
    net = make(kl=kl)
    net.distance(cells(), experts())["kl"].sum().backward()
    # the mean and the log-variance of each dimension that there is
    learns = (net.vaes.encoders.biases[-1].grad[:, 0] != 0).tolist()
    assert learns == [[True] * 4, [True, False, True, False]]
    assert all(p.grad is None for p in net.vaes.decoders.parameters())


def test_networks_see_standard_values_and_give_back_the_scale():
    x = cells(500) * torch.tensor([1.0, 100.0, 0.0]) + torch.tensor([0.0, -7.0, 2.0])
    net = make()
    net.look_at(x, together=False)
    seen = (x - net.centre) / net.spread
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    expert = experts(500)
    z = torch.zeros(500, 2)
    expected = net.centre + net.spread * net.vaes.decode(z, expert)
    torch.testing.assert_close(net.decode(z, expert), expected)
    net.look_at(x, together=True)
    torch.testing.assert_close(net.centre, x.mean().expand(3))
    torch.testing.assert_close(net.spread, x.std(correction=0).expand(3))


def test_reorder():
    net, x, expert = make().eval(), cells(), experts()
    net.noise.copy_(torch.tensor([[0.3, 0.5, 0.7], [0.2, 0.4, 0.6]]))
    before = net.distance(x, expert)["distance"]
    net.reorder(torch.tensor([1, 0]))
    assert net.n_latents == (1, 2)
    torch.testing.assert_close(net.distance(x, 1 - expert)["distance"], before)


def test_convolutions():
    net = make((3,), 64, image_shape=(8, 8), width=2, likelihood="bernoulli")
    parts = net.distance(cells(6, 64), torch.zeros(6, dtype=torch.int64))
    assert parts["loc"].shape == (6, 3)
    parts["distance"].sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_loss_of_a_plain_vae_is_the_mean_distance():
    net, x = make((2,)).eval(), cells()
    terms = net.loss({"x": x})
    parts = net.distance(x, torch.zeros(12, dtype=torch.int64))
    torch.testing.assert_close(terms["loss"], parts["distance"].mean())
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["kl"])


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"likelihood": "poisson"}, "likelihood"),
        ({"kl": "none"}, "`kl`"),
        ({"n_latents": (0,)}, "n_latents"),
        ({"activation": "tanh"}, "activation"),
    ],
)
def test_bad_settings(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make(**kwargs)
