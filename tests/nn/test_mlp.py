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
