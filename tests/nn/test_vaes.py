"""K VAEs of dense layers as one module."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scmoe.nn import DenseVAEs

SIZES = (2, 5, 1)
EXPERT = torch.tensor([2, 0, 1, 1, 0, 2, 1, 1])


@pytest.fixture
def vaes():
    torch.manual_seed(0)
    return DenseVAEs(6, SIZES, n_hidden=7, n_layers=2)


def cells(n=len(EXPERT), d=6):
    return torch.randn(n, d, generator=torch.manual_seed(1))


def through(experts, h, k):
    """One expert of stacked weights, layer by layer."""
    layers = list(zip(experts.weights, experts.biases, strict=True))
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight[k] + bias[k, 0]
        h = F.elu(h) if i + 1 < len(layers) else h
    return h


def test_routed_is_a_loop_over_experts(vaes):
    x = cells()
    loc, log_var = vaes.encode(x, EXPERT)
    z = torch.randn(len(x), 5, generator=torch.manual_seed(2))
    decoded = vaes.decode(z, EXPERT)
    assert loc.shape == log_var.shape == (8, 5)
    for i, k in enumerate(EXPERT.tolist()):
        d = SIZES[k]
        out = through(vaes.encoders, x[i], k)
        torch.testing.assert_close(loc[i, :d], out[:d])
        torch.testing.assert_close(log_var[i, :d], out[5 : 5 + d])
        own = torch.cat([z[i, :d], torch.zeros(5 - d)])
        torch.testing.assert_close(decoded[i], through(vaes.decoders, own, k))


def test_columns_that_an_expert_has_not_are_zero_and_unread(vaes):
    loc, log_var = vaes.encode(cells(), EXPERT)
    foreign = torch.arange(5) >= torch.tensor(SIZES)[EXPERT, None]
    assert (loc[foreign] == 0).all()
    assert (log_var[foreign] == 0).all()
    assert (loc[~foreign] != 0).all()
    z = cells(8, 5)
    disturbed = torch.where(foreign, torch.full_like(z, torch.nan), z)
    torch.testing.assert_close(vaes.decode(disturbed, EXPERT), vaes.decode(z, EXPERT))


def test_gradients_reach_only_the_own_columns_of_the_own_expert(vaes):
    expert = torch.full((8,), 0)
    loc, log_var = vaes.encode(cells(), expert)
    (vaes.decode(loc + log_var.exp(), expert).sum() + log_var.sum()).backward()
    out = vaes.encoders.weights[-1].grad
    used = torch.zeros(10, dtype=torch.bool)
    used[[0, 1, 5, 6]] = True
    assert (out[0][:, used] != 0).all()
    assert (out[0][:, ~used] == 0).all()
    into = vaes.decoders.weights[0].grad
    assert (into[0][:2] != 0).any(1).all()
    assert (into[0][2:] == 0).all()
    for parameter in vaes.parameters():
        assert (parameter.grad[1:] == 0).all()


def test_an_expert_without_cells(vaes):
    x = cells(3)
    first = torch.zeros(3, dtype=torch.int64)
    assert torch.isfinite(vaes.decode(vaes.encode(x, first)[0], first)).all()
    none = vaes.encode(x[:0], first[:0])[0]
    assert none.shape == (0, 5)
    assert vaes.decode(none, first[:0]).shape == (0, 6)


def test_reorder(vaes):
    x = cells()
    loc, log_var = vaes.encode(x, EXPERT)
    decoded = vaes.decode(loc, EXPERT)
    order = torch.tensor([1, 2, 0])
    vaes.reorder(order)
    assert vaes.n_latents == (5, 1, 2)
    renumbered = order.argsort()[EXPERT]
    for before, after in zip(
        (loc, log_var, decoded),
        (*vaes.encode(x, renumbered), vaes.decode(loc, renumbered)),
        strict=True,
    ):
        torch.testing.assert_close(after, before)


def test_one_expert_is_a_plain_vae():
    vae = DenseVAEs(6, [3], n_hidden=4, n_layers=1)
    assert (vae.n_experts, vae.n_latents) == (1, (3,))
    x, expert = cells(), torch.zeros(8, dtype=torch.int64)
    loc, log_var = vae.encode(x, expert)
    torch.testing.assert_close(torch.cat([loc, log_var], 1), through(vae.encoders, x, 0))


@pytest.mark.parametrize("sizes", [[], [2, 0], [1.5], [-1]])
def test_bad_latent_sizes(sizes):
    with pytest.raises(ValueError, match="one whole number above 0 for each expert"):
        DenseVAEs(6, sizes, n_hidden=4, n_layers=1)


def test_bad_activation():
    with pytest.raises(ValueError, match="activation"):
        DenseVAEs(6, [2], n_hidden=4, n_layers=1, activation="tanh")
