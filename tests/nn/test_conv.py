"""Image networks against torch's own layers and a slow loop over images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scmoe.nn import ConvEncoder, ConvExperts

SMALL = {"channels": (3, 5, 4, 6)}


def images(n, shape, seed=0, **kwargs):
    return torch.rand(n, int(np.prod(shape)), generator=torch.manual_seed(seed), **kwargs)


# ----------------------------------------------------------------------------------------
# encoder


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 1), (4, 8, 3)])
def test_encoder_by_hand(shape):
    net = ConvEncoder(shape, 5, channels=(2, 3, 4, 3, 2)).double()
    x = images(6, shape, dtype=torch.float64)
    h = torch.from_numpy(x.numpy().reshape(6, *shape[:2], -1).transpose(0, 3, 1, 2))

    def normalised(h):
        mean = h.mean((0, 2, 3), keepdim=True)
        variance = h.var((0, 2, 3), unbiased=False, keepdim=True)
        return (h - mean) / (variance + 1e-5).sqrt()

    for i, layer in enumerate(net.convolutions):
        h = normalised(F.elu(F.conv2d(h, layer.weight, layer.bias, padding=1)))
        if i in (1, 2):
            h = normalised(F.max_pool2d(h, 2))
    torch.testing.assert_close(net(x), net.out(h.flatten(1)))


def test_encoder_has_the_papers_widths():
    net = ConvEncoder((28, 28), 68)
    assert [tuple(c.weight.shape[:2]) for c in net.convolutions] == [
        (64, 1),
        (128, 64),
        (128, 128),
        (64, 128),
        (8, 64),
    ]
    assert net.out.weight.shape == (68, 7 * 7 * 8)
    assert len([m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]) == 7


def test_encoder_without_batch_norm_takes_each_image_alone():
    net = ConvEncoder((8, 8), 3, channels=(2, 2, 2, 2, 2), batch_norm=False)
    assert not [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    x = images(4, (8, 8))
    torch.testing.assert_close(net(x), torch.cat([net(row[None]) for row in x]))


@pytest.mark.parametrize("shape", [(4, 4), (8, 8)])
def test_encoder_trains_on_one_image(shape):
    # after two poolings of 4 x 4 a channel is one value, which torch refuses to normalise
    net = ConvEncoder(shape, 3, channels=(2, 2, 2, 2, 2))
    net(images(9, shape))
    x = images(1, shape, seed=1)
    trained = net(x)
    trained.sum().backward()
    torch.testing.assert_close(trained, net.eval()(x))


@pytest.mark.parametrize("make", [lambda s: ConvEncoder(s, 3), lambda s: ConvExperts(2, 3, s)])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((28, 30), r"\(28, 30\); height and width must be multiples of 4"),
        ((7, 8, 3), r"\(7, 8, 3\); height and width must be multiples of 4"),
        ((784,), r"\(784,\); it must be \(height, width\) or"),
        ((8, 0), r"whole numbers above 0"),
        ((8, 8.5), r"whole numbers above 0"),
        ((8, 8, 3, 1), r"it must be \(height, width\) or"),
    ],
)
def test_bad_image_shape(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make(shape)


def test_bad_channels_and_activation():
    with pytest.raises(ValueError, match=r"`channels` is \(1, 2\); it must be 5 numbers"):
        ConvEncoder((8, 8), 3, channels=(1, 2))
    with pytest.raises(ValueError, match=r"`channels` is \(1, 2, 0, 4\); it must be 4 numbers"):
        ConvExperts(2, 3, (8, 8), channels=(1, 2, 0, 4))
    with pytest.raises(ValueError, match=r"`activation` is 'gelu'.*'elu', 'relu'"):
        ConvEncoder((8, 8), 3, activation="gelu")
    with pytest.raises(ValueError, match=r"`activation` is 'gelu'.*'elu', 'relu'"):
        ConvExperts(2, 3, (8, 8), activation="gelu")


def test_rows_of_another_length():
    net = ConvEncoder((8, 8, 3), 2, channels=(1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"8 x 8 pixels and 3 channel.*192 values.*\(5, 64\)"):
        net(torch.zeros(5, 64))


# ----------------------------------------------------------------------------------------
# experts


def loop(experts, z, expert, shape, activation="elu"):
    """Each image by itself through the weights of its expert."""
    act = getattr(F, activation)
    height, width = shape[:2]
    rows = []
    for code, k in zip(z, expert.tolist(), strict=True):
        weights, biases = [w[k] for w in experts.weights], [b[k] for b in experts.biases]
        h = (code @ weights[0] + biases[0]).view(1, -1, height // 4, width // 4)
        for i in (1, 2, 3):
            h = act(F.conv2d(h, weights[i], biases[i], padding=1))
            if i < 3:
                h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
        h = F.conv2d(h, weights[4], biases[4], padding=1)
        rows.append(h[0].permute(1, 2, 0).reshape(-1))
    return torch.stack(rows)


def assignment(n, k, which):
    if which == "all to one":
        return torch.full((n,), k - 1)
    if which == "some empty":
        return torch.randint(k // 2, (n,), generator=torch.manual_seed(3)) * 2
    return torch.randint(k, (n,), generator=torch.manual_seed(3))


@pytest.mark.parametrize("which", ["random", "all to one", "some empty"])
@pytest.mark.parametrize("activation", ["elu", "relu"])
@pytest.mark.parametrize("shape", [(8, 12), (4, 8, 3)])
def test_routed_equals_loop(shape, activation, which):
    generator = torch.manual_seed(0)
    experts = ConvExperts(5, 4, shape, activation=activation, **SMALL).double()
    z = torch.randn(13, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    expert = assignment(13, 5, which)
    inputs = [z, *experts.parameters()]

    routed, slow = experts(z, expert), loop(experts, z, expert, shape, activation)
    assert routed.shape == (13, np.prod(shape))
    torch.testing.assert_close(routed, slow)
    weights = torch.randn(routed.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad((routed * weights).sum(), inputs)
    expected = torch.autograd.grad((slow * weights).sum(), inputs)
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other)


def test_experts_without_images_get_no_gradient():
    experts = ConvExperts(5, 4, (4, 4), **SMALL)
    experts(torch.randn(6, 4), torch.tensor([1, 3, 1, 1, 3, 3])).square().sum().backward()
    for parameter in experts.parameters():
        assert (parameter.grad[[0, 2, 4]] == 0).all()
        assert (parameter.grad[[1, 3]].flatten(1) != 0).any(1).all()


def test_an_expert_without_images_is_not_run(monkeypatch):
    calls = []
    run = ConvExperts._decode

    def counted(self, z, *parameters):
        calls.append(len(z))
        return run(self, z, *parameters)

    monkeypatch.setattr(ConvExperts, "_decode", counted)
    experts = ConvExperts(50, 4, (4, 4), **SMALL)
    experts(torch.randn(6, 4), torch.tensor([40, 3, 3, 40, 3, 3]))
    assert calls == [4, 2]


def test_no_images():
    experts = ConvExperts(5, 4, (4, 4), **SMALL)
    assert experts(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).shape == (0, 16)


def test_order_of_the_images_does_not_matter():
    experts = ConvExperts(5, 4, (8, 8), **SMALL)
    z, expert = torch.randn(23, 4, generator=torch.manual_seed(0)), assignment(23, 5, "random")
    order = torch.randperm(23, generator=torch.manual_seed(1))
    torch.testing.assert_close(experts(z[order], expert[order]), experts(z, expert)[order])


def test_experts_can_be_renumbered():
    experts = ConvExperts(4, 3, (4, 4), **SMALL)
    z, order = torch.randn(4, 3, generator=torch.manual_seed(0)), torch.tensor([2, 0, 3, 1])
    before = experts(z, order)
    with torch.no_grad():
        for tensor in [*experts.weights, *experts.biases]:
            tensor.copy_(tensor[order])
    torch.testing.assert_close(experts(z, torch.arange(4)), before)


def test_experts_have_the_papers_widths():
    experts = ConvExperts(3, 68, (28, 28))
    assert [tuple(w.shape) for w in experts.weights] == [
        (3, 68, 7 * 7 * 8),
        (3, 128, 8, 3, 3),
        (3, 64, 128, 3, 3),
        (3, 32, 64, 3, 3),
        (3, 1, 32, 3, 3),
    ]


def test_experts_can_draw_black():
    # an activation at the end would keep the sigmoid above 0.27
    experts = ConvExperts(1, 2, (8, 8), **SMALL)
    z, expert = torch.randn(4, 2, generator=torch.manual_seed(0)), torch.zeros(4, dtype=int)
    optimiser = torch.optim.Adam(experts.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        F.softplus(experts(z, expert)).mean().backward()
        optimiser.step()
    assert experts(z, expert).sigmoid().max() < 0.05


def test_encoder_and_experts_learn_the_orientation_of_stripes():
    # pixels are read and written in one order: a mix-up would turn the stripes
    x = torch.zeros(2, 8, 8)
    x[0, ::2], x[1, :, ::2] = 1, 1
    x = x.flatten(1)
    torch.manual_seed(0)
    encoder = ConvEncoder((8, 8), 3, channels=(8, 8, 8, 8, 4))
    experts = ConvExperts(2, 3, (8, 8), channels=(4, 16, 16, 8))
    optimiser = torch.optim.Adam([*encoder.parameters(), *experts.parameters()], lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        logits = experts(encoder(x), torch.tensor([0, 1]))
        F.binary_cross_entropy_with_logits(logits, x).backward()
        optimiser.step()
    assert ((logits > 0).float() == x).float().mean() > 0.95
