"""The plain network."""

from __future__ import annotations

import pytest
import torch

from scmoe.nn import MLP


def test_dropout_acts_only_when_noisy():
    net = MLP(5, 64, 3, n_layers=2, dropout=0.5)
    x = torch.randn(4, 5, generator=torch.manual_seed(0))
    for mode in (True, False):
        net.train(mode)
        torch.testing.assert_close(net(x), net(x), rtol=0, atol=0)
        first, second = net(x, noisy=True), net(x, noisy=True)
        assert not torch.allclose(first, second)
        assert not torch.allclose(first, net(x))


def test_noise_keeps_the_mean():
    net = MLP(5, 64, 3, n_layers=1, dropout=0.5)
    x = torch.randn(1, 5, generator=torch.manual_seed(0))
    torch.manual_seed(1)
    noisy = net(x.repeat(20_000, 1), noisy=True).mean(0, keepdim=True)
    torch.testing.assert_close(noisy, net(x), atol=0.02, rtol=0)


def test_no_dropout_no_noise():
    net, x = MLP(5, 8, 3, n_layers=1), torch.randn(4, 5)
    torch.testing.assert_close(net(x, noisy=True), net(x), rtol=0, atol=0)


def test_without_hidden_layers_it_is_linear():
    net, x = MLP(5, 8, 3, n_layers=0), torch.randn(4, 5)
    torch.testing.assert_close(net(x), x @ net.out.weight.T + net.out.bias)


@pytest.mark.parametrize("activation", ["elu", "relu"])
def test_last_layer_is_linear(activation):
    # an activation at the end would keep the outputs above -1
    net = MLP(5, 8, 3, n_layers=1, activation=activation)
    x = 100 * torch.randn(50, 5, generator=torch.manual_seed(0))
    assert net(x).min() < -2
    hidden = getattr(torch.nn.functional, activation)(net.hidden[0](x))
    torch.testing.assert_close(net(x), net.out(hidden))


# ----------------------------------------------------------------------------------------
# batch normalisation


def test_batch_norm_by_hand():
    net = MLP(5, 8, 3, n_layers=2, batch_norm=True).double()
    x = torch.randn(20, 5, generator=torch.manual_seed(0), dtype=torch.float64)
    h = x
    for layer in net.hidden:
        h = layer(h)
        h = torch.nn.functional.elu((h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(net(x), net.out(h))


@pytest.mark.parametrize("n", [0, 1])
def test_batch_norm_of_one_cell_takes_the_running_statistics(n):
    net = MLP(5, 8, 3, n_layers=2, batch_norm=True)
    net(torch.randn(50, 5, generator=torch.manual_seed(0)))
    running = [norm.running_mean.clone() for norm in net.norms]
    x = torch.randn(n, 5)
    trained = net(x)
    for norm, before in zip(net.norms, running, strict=True):
        torch.testing.assert_close(norm.running_mean, before, rtol=0, atol=0)
    torch.testing.assert_close(trained, net.eval()(x))


def test_one_cell_trains_through_batch_norm():
    net = MLP(5, 8, 3, n_layers=1, batch_norm=True)
    net(torch.randn(1, 5)).sum().backward()
    assert (net.hidden[0].weight.grad != 0).any()


def test_batch_norm_is_off_and_leaves_no_trace_by_default():
    names = {"hidden.0.weight", "hidden.0.bias", "out.weight", "out.bias"}
    assert set(MLP(5, 8, 3, n_layers=1).state_dict()) == names
    assert set(MLP(5, 8, 3, n_layers=1, batch_norm=True).state_dict()) > names


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"`activation` is 'gelu'.*'elu', 'relu'"):
        MLP(5, 8, 3, n_layers=1, activation="gelu")
