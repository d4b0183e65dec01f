"""Routed experts against a slow loop over experts."""

from __future__ import annotations

import pytest
import torch

from scmoe.nn import Experts, route
from scmoe.nn._layers import ACTIVATIONS


def loop(experts, z, expert, activation="elu"):
    """Each expert as a network of its own, cell by cell."""
    rows = []
    for i, k in enumerate(expert.tolist()):
        h = z[i]
        layers = list(zip(experts.weights, experts.biases, strict=True))
        for weight, bias in layers[:-1]:
            h = ACTIVATIONS[activation](h @ weight[k] + bias[k, 0])
        weight, bias = layers[-1]
        rows.append(h @ weight[k] + bias[k, 0])
    return torch.stack(rows)


def assignment(n, k, which):
    generator = torch.manual_seed(3)
    if which == "all to one":
        return torch.full((n,), k - 1)
    if which == "one empty":
        return torch.randint(max(k - 1, 1), (n,), generator=generator)
    return torch.randint(k, (n,), generator=generator)


@pytest.mark.parametrize(
    ("n", "k", "tile", "which", "wide"),
    [
        (37, 7, 16, "random", False),
        (37, 7, 4, "one empty", False),
        (37, 7, 1, "random", False),
        (32, 7, 16, "all to one", False),
        (37, 1, 16, "random", False),
        (1, 7, 16, "random", False),
        (37, 7, 16, "one empty", True),
    ],
)
def test_routed_equals_loop(n, k, tile, which, wide, monkeypatch):
    monkeypatch.setattr("scmoe.nn._experts.WIDE", 0 if wide else 10**9)
    generator = torch.manual_seed(0)
    experts = Experts(k, 3, 5, 4, n_layers=2, tile=tile).double()
    z = torch.randn(n, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    expert = assignment(n, k, which)
    weights = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    inputs = [z, *experts.parameters()]

    routed, slow = experts(z, expert), loop(experts, z, expert)
    torch.testing.assert_close(routed, slow)
    grads = torch.autograd.grad((routed * weights).sum(), inputs)
    expected = torch.autograd.grad((slow * weights).sum(), inputs)
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other)


@pytest.mark.parametrize(("n_layers", "activation"), [(0, "elu"), (1, "relu"), (3, "elu")])
def test_depth_and_activation(n_layers, activation):
    experts = Experts(4, 3, 5, 2, n_layers=n_layers, activation=activation)
    assert len(experts.weights) == n_layers + 1
    z = torch.randn(20, 3, generator=torch.manual_seed(0))
    expert = assignment(20, 4, "random")
    torch.testing.assert_close(experts(z, expert), loop(experts, z, expert, activation))


@pytest.mark.parametrize("wide", [False, True])
def test_experts_without_cells_get_no_gradient(wide, monkeypatch):
    monkeypatch.setattr("scmoe.nn._experts.WIDE", 0 if wide else 10**9)
    experts = Experts(5, 3, 4, 2, n_layers=1)
    experts(torch.randn(9, 3), torch.tensor([1, 3, 1, 1, 3, 3, 3, 1, 1])).square().sum().backward()
    for parameter in experts.parameters():
        assert (parameter.grad[[0, 2, 4]] == 0).all()
        assert (parameter.grad[[1, 3]] != 0).any(-1).any(-1).all()


def test_without_hidden_layers_each_expert_is_linear():
    experts = Experts(4, 3, 99, 2, n_layers=0)
    assert [w.shape for w in experts.weights] == [(4, 3, 2)]
    z = torch.randn(20, 3, generator=torch.manual_seed(0))
    expert = assignment(20, 4, "random")
    weight, bias = experts.weights[0][expert], experts.biases[0][expert]
    torch.testing.assert_close(experts(z, expert), (z.unsqueeze(1) @ weight + bias).squeeze(1))


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"`activation` is 'gelu'.*'elu', 'relu'"):
        Experts(4, 3, 5, 2, n_layers=1, activation="gelu")


@pytest.mark.parametrize("wide", [False, True])
def test_no_cells(wide, monkeypatch):
    monkeypatch.setattr("scmoe.nn._experts.WIDE", 0 if wide else 10**9)
    experts = Experts(5, 3, 4, 2, n_layers=1)
    assert experts(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0, 2)


def test_order_of_the_cells_does_not_matter():
    experts = Experts(5, 3, 4, 2, n_layers=1)
    z, expert = torch.randn(23, 3), assignment(23, 5, "random")
    order = torch.randperm(23)
    torch.testing.assert_close(experts(z[order], expert[order]), experts(z, expert)[order])


def test_experts_start_different():
    experts = Experts(6, 3, 4, 2, n_layers=1)
    z = torch.ones(6, 3)
    assert len(experts(z, torch.arange(6)).unique(dim=0)) == 6
    assert all(len(p.unique(dim=0)) == 6 for p in experts.parameters())


@pytest.mark.parametrize(
    ("n", "n_experts", "tile"), [(97, 7, 16), (97, 100, 5), (16, 7, 1), (16, 1, 16), (1, 7, 16)]
)
def test_route(n, n_experts, tile):
    expert = torch.randint(n_experts, (n,), generator=torch.manual_seed(n))
    tile_expert, slot = route(expert, n_experts, tile)
    n_live = len(expert.unique())
    assert len(slot.unique()) == n
    assert slot.min() >= 0
    assert slot.max() < len(tile_expert) * tile
    assert (tile_expert[slot // tile] == expert).all()
    # what is promised about the padding, and the least that can do
    assert len(tile_expert) <= n / tile + n_live
    assert len(tile_expert) == sum(-(-int(c) // tile) for c in torch.bincount(expert))


def test_work_does_not_grow_with_the_experts():
    expert = torch.arange(256) % 10
    few, many = (len(route(expert, k, 16).tile_expert) for k in (10, 1000))
    assert few == many
