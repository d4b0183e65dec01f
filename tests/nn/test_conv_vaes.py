"""Image networks of a depth that follows the image, and their routing to experts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from scmoe.nn import ConvVAEs, DynamicDecoder, DynamicEncoder, padded_side

OBLONG = (20, 28, 3)


def images(n, shape, seed=0, **kwargs):
    return torch.rand(n, math.prod(shape), generator=torch.manual_seed(seed), **kwargs)


def experts(*values):
    return torch.tensor(values, dtype=torch.int64)


def trained(net, shape, n=12):
    """The network for use, after statistics of some batches."""
    for seed in range(3):
        x = images(n, shape, seed + 10)
        expert = torch.arange(n) % net.n_experts
        loc, _ = net.encode(x, expert)
        net.decode(loc, expert)
    return net.eval()


# ----------------------------------------------------------------------------------------
# the plan


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        ((3, 1), 4),
        ((4, 4), 4),
        ((5, 3), 8),
        ((16, 16), 16),
        ((28, 28), 32),
        (OBLONG, 32),
        ((64, 54), 64),
        ((65, 10, 3), 128),
    ],
)
def test_padded_side(shape, side):
    assert padded_side(shape) == side


# filters of the convolutions in their order: general blocks have two
PLANS = {
    4: [4, 4],
    16: [16, 16, 32, 32, 64],
    28: [32, 32, 64, 64, 128, 256],
    32: [32, 32, 64, 64, 128, 256],
    64: [64, 64, 128, 128, 256, 256, 512, 1024],
    128: [128, 128, 256, 256, 512, 512, 1024, 2048, 4096],
}


@pytest.mark.parametrize(("size", "filters"), PLANS.items())
def test_the_papers_blocks_and_filters(size, filters):
    # eqs. 7 to 9; on the meta device the largest costs nothing
    with torch.device("meta"):
        encoder = DynamicEncoder((size, size), 10)
        decoder = DynamicDecoder(10, (size, size))
    assert [c.out_channels for c in encoder.convolutions] == filters
    strides = [c.stride[0] for c in encoder.convolutions]
    assert 2 ** (strides.count(2) + 1) == padded_side((size, size))
    assert encoder.out.in_features == 2 * 2 * filters[-1]
    # the mirror
    assert decoder.dense.out_features == 2 * 2 * filters[-1]
    assert [c.in_channels for c in decoder.convolutions] == filters[::-1]
    assert [c.stride[0] for c in decoder.convolutions] == strides[::-1]


def test_a_width_replaces_the_papers():
    encoder = DynamicEncoder((28, 28), 10, width=3)
    assert [c.out_channels for c in encoder.convolutions] == [3, 3, 6, 6, 12, 24]


# ----------------------------------------------------------------------------------------
# encoder and decoder alone


@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_encoder_by_hand(activation):
    # 6 x 7 in a square of 8: a general and a specific block
    net = DynamicEncoder((6, 7, 2), 5, width=3, activation=activation).double()
    x = images(6, (6, 7, 2), dtype=torch.float64)
    h = torch.zeros(6, 2, 8, 8, dtype=torch.float64)
    h[:, :, 1:7, :7] = x.view(6, 6, 7, 2).permute(0, 3, 1, 2)
    for convolution, stride in zip(net.convolutions, (1, 2, 2), strict=True):
        h = F.conv2d(h, convolution.weight, stride=stride, padding=1)
        mean, variance = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), False, keepdim=True)
        h = getattr(F, activation)((h - mean) / (variance + 1e-5).sqrt())
    assert h.shape == (6, 6, 2, 2)
    torch.testing.assert_close(net(x), net.out(h.flatten(1)))


@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_decoder_by_hand(activation):
    net = DynamicDecoder(4, (8, 8, 2), width=3, activation=activation).double()
    z = images(6, (4,), dtype=torch.float64)
    h = net.dense(z).view(6, 6, 2, 2)
    for i, convolution in enumerate(net.convolutions):
        mean, variance = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), False, keepdim=True)
        h = getattr(F, activation)((h - mean) / (variance + 1e-5).sqrt())
        if i < 2:
            twice = {"stride": 2, "padding": 1, "output_padding": 1}
            h = F.conv_transpose2d(h, convolution.weight, **twice)
        else:
            h = F.conv2d(h, convolution.weight, convolution.bias, padding=1)
    assert h.shape == (6, 2, 8, 8)
    torch.testing.assert_close(net(z), h.permute(0, 2, 3, 1).flatten(1))


def test_decoder_crops_what_the_encoder_pads():
    net = DynamicDecoder(4, (6, 7, 2), width=3).double()
    square = DynamicDecoder(4, (8, 8, 2), width=3).double()
    square.load_state_dict(net.state_dict())
    z = images(5, (4,), dtype=torch.float64)
    whole = square(z).view(5, 8, 8, 2)
    torch.testing.assert_close(net(z).view(5, 6, 7, 2), whole[:, 1:7, :7])
    assert net(z).std(0).min() > 0


def test_decoder_draws_any_value():
    # the last convolution has a bias, and neither normalisation nor activation after it
    net = DynamicDecoder(4, (8, 8), width=2)
    with torch.no_grad():
        net.convolutions[-1].bias.fill_(-50)
    assert net(images(5, (4,))).max() < -30


def test_two_convolutions_see_as_far_as_one_of_5():
    # one pixel of the first block's output against all of the input
    net = DynamicEncoder((16, 16), 3, width=2).eval()
    x = images(1, (16, 16)).requires_grad_()
    h = x.view(1, 1, 16, 16)
    for convolution in net.convolutions[:2]:
        h = F.elu(convolution(h))
    h[0, :, 4, 4].sum().backward()
    seen = x.grad.view(16, 16).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [5, 5]


# ----------------------------------------------------------------------------------------
# experts


@pytest.mark.parametrize("shape", [(4, 4), (28, 28), OBLONG])
def test_shapes(shape):
    net = ConvVAEs(shape, [3, 1, 2], width=2)
    x, expert = images(7, shape), experts(0, 1, 2, 2, 1, 0, 0)
    loc, log_var = net.encode(x, expert)
    assert loc.shape == log_var.shape == (7, 3)
    assert net.decode(loc, expert).shape == x.shape
    assert (net.n_experts, net.n_latents) == (3, (3, 1, 2))


def test_columns_beyond_a_code_are_0():
    net = ConvVAEs((8, 8), [3, 1, 2], width=2)
    expert = experts(0, 1, 2, 1)
    for half in net.encode(images(4, (8, 8)), expert):
        own = torch.arange(3) < torch.tensor(net.n_latents)[expert].unsqueeze(1)
        assert torch.equal(half != 0, own)


def test_columns_beyond_a_code_are_not_read():
    net = trained(ConvVAEs((8, 8), [3, 1], width=2), (8, 8))
    z, expert = images(4, (3,)), experts(0, 1, 1, 0)
    other = z.clone()
    other[expert == 1, 1:] = 9
    torch.testing.assert_close(net.decode(z, expert), net.decode(other, expert))
    other[expert == 0, 2] = 9
    assert not torch.allclose(net.decode(z, expert), net.decode(other, expert))


@pytest.mark.parametrize("shape", [(8, 8), OBLONG])
def test_routed_is_a_loop_over_images(shape):
    net = trained(ConvVAEs(shape, [2, 4, 3], width=2), shape)
    x, expert = images(9, shape), experts(2, 0, 2, 2, 0, 0, 2, 0, 2)  # expert 1 has none
    loc, log_var = net.encode(x, expert)
    logits = net.decode(loc, expert)
    for i, k in enumerate(expert.tolist()):
        d = net.n_latents[k]
        code = net.encoders[k](x[i : i + 1])[0]
        torch.testing.assert_close(loc[i, :d], code[:d])
        torch.testing.assert_close(log_var[i, :d], code[d:])
        torch.testing.assert_close(logits[i], net.decoders[k](code[None, :d])[0])


def test_in_training_an_expert_normalises_over_its_own_images():
    net = ConvVAEs((8, 8), [2, 2], width=2)
    x = images(8, (8, 8))
    expert = experts(0, 1, 0, 1, 0, 1, 0, 1)
    loc, _ = net.encode(x, expert)
    torch.testing.assert_close(loc[1::2], net.encoders[1](x[1::2])[:, :2])
    x[::2] += 5
    torch.testing.assert_close(net.encode(x, expert)[0][1::2], loc[1::2])


def test_gradients_reach_only_experts_with_images():
    net = ConvVAEs((8, 8), [2, 3, 2], width=2)
    x, expert = images(6, (8, 8)), experts(0, 2, 2, 0, 0, 2)
    loc, log_var = net.encode(x, expert)
    (net.decode(loc, expert).square().mean() + log_var.exp().mean()).backward()
    for k in range(3):
        parameters = [*net.encoders[k].parameters(), *net.decoders[k].parameters()]
        if k == 1:
            assert all(p.grad is None for p in parameters)
        else:
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def test_one_image_trains_and_none_passes():
    net = ConvVAEs((4, 4), [2, 3], width=2)
    loc, _ = net.encode(images(1, (4, 4)), experts(1))
    net.decode(loc, experts(1)).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.decoders[1].parameters())
    none = experts()
    loc, log_var = net.encode(images(0, (4, 4)), none)
    assert loc.shape == log_var.shape == (0, 3)
    assert net.decode(loc, none).shape == (0, 16)


def test_a_single_vae_learns_its_images():
    # bars at 4 places: 2 dimensions are enough to tell them apart
    x = torch.zeros(4, 6, 6)
    for i in range(4):
        x[i, i + 1] = 1
    x = x.flatten(1).repeat(8, 1)
    expert = torch.zeros(len(x), dtype=torch.int64)
    torch.manual_seed(0)
    net = ConvVAEs((6, 6), [2], width=4)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        logits = net.decode(net.encode(x, expert)[0], expert)
        F.binary_cross_entropy_with_logits(logits, x).backward()
        optimizer.step()
    net.eval()
    drawn = net.decode(net.encode(x, expert)[0], expert).sigmoid()
    assert (drawn - x).abs().max() < 0.1


# ----------------------------------------------------------------------------------------
# mistakes


@pytest.mark.parametrize(
    "make",
    [
        padded_side,
        lambda s: DynamicEncoder(s, 3),
        lambda s: DynamicDecoder(3, s),
        lambda s: ConvVAEs(s, [3]),
    ],
)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((784,), r"\(784,\); it must be \(height, width\) or"),
        ((8, 0), "whole numbers above 0"),
        ((1, 1), r"`image_shape` is \(1, 1\); images of at most 2 x 2 pixels"),
        ((2, 2, 3), "Use dense networks"),
    ],
)
def test_bad_shapes(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make(shape)


@pytest.mark.parametrize("n_latents", [[], [2, 0], [2.5], [-1, 3]])
def test_bad_sizes_of_codes(n_latents):
    with pytest.raises(ValueError, match=r"`n_latents` is .* one whole number above 0 for each"):
        ConvVAEs((8, 8), n_latents)


@pytest.mark.parametrize("width", [0, -4, 1.5])
def test_bad_widths(width):
    with pytest.raises(ValueError, match=f"`width` is {width}; it must be a whole number"):
        ConvVAEs((8, 8), [2], width=width)


def test_unknown_activation():
    with pytest.raises(ValueError, match="`activation` is 'tanh'; it must be one of 'elu'"):
        ConvVAEs((8, 8), [2], width=2, activation="tanh")


@pytest.mark.parametrize("n", [0, 3])
def test_rows_of_another_length(n):
    net = ConvVAEs(OBLONG, [2], width=2)
    with pytest.raises(ValueError, match=r"20 x 28 pixels and 3 channel.* rows of 1680 values"):
        net.encode(torch.zeros(n, 1024), torch.zeros(n, dtype=torch.int64))


def test_weights_are_read_back():
    net = trained(ConvVAEs((8, 8), [2, 3], width=2), (8, 8))
    other = ConvVAEs((8, 8), [2, 3], width=2).eval()
    other.load_state_dict(net.state_dict())
    x, expert = images(3, (8, 8)), experts(0, 1, 1)
    torch.testing.assert_close(other.encode(x, expert), net.encode(x, expert), rtol=0, atol=0)
