"""Copies out of a VAE: what they are made of, and that the branch of the noise learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scmoe._core.random import seeded
from scmoe.metrics import mmd
from scmoe.nn import Autoencoders, LearnedAugment, PosteriorAugment, squared_mmd

INDEX = torch.arange(300)


def three_types(n=300, d=8):
    """Cells of three types with two directions of their own, and a little noise."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 3
    centres = 3 * rng.normal(size=(3, d))
    ways = rng.normal(size=(3, 2, d))
    state = rng.normal(size=(n, 1, 2))
    x = centres[kind] + (state @ ways[kind])[:, 0] + 0.2 * rng.normal(size=(n, d))
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(kind)


def network(x, likelihood="gaussian", n_latent=4, steps=400):
    """A small VAE, trained for a second."""
    with seeded(0):
        vae = Autoencoders(
            x.shape[1],
            [n_latent],
            image_shape=None,
            n_hidden=32,
            n_layers=1,
            width=None,
            activation="elu",
            likelihood=likelihood,
        )
        vae.look_at(x, together=False)
        adam = torch.optim.Adam(vae.parameters(), lr=5e-3)
        for _ in range(steps):
            adam.zero_grad()
            vae.loss({"x": x})["loss"].backward()
            adam.step()
        vae.zero_grad()
    return vae.eval()


@pytest.fixture(scope="module")
def trained():
    x, kind = three_types()
    return network(x), x, kind


@pytest.fixture(scope="module")
def learned(trained):
    """A change with a margin of 0.1 that has learned, and one of the same weights at first."""
    vae, x, _ = trained
    with seeded(0):
        fresh, augment = (LearnedAugment(vae, x, margin=0.1, noise=0.0) for _ in range(2))
        fresh.load_state_dict(augment.state_dict())
        adam = torch.optim.Adam(augment.step.parameters(), lr=2e-3)
        augment.train()
        for _ in range(500):
            adam.zero_grad()
            augment.loss({"x": x})["loss"].backward()
            adam.step()
    return augment.eval(), fresh


def reconstruction(vae, x):
    zeros = torch.zeros(len(x), dtype=torch.int64)
    with torch.no_grad():
        return vae.decode(vae.encode(x, zeros)[0], zeros)


def test_without_factors_a_copy_is_the_reconstruction(trained):
    vae, x, _ = trained
    copies = PosteriorAugment(vae, x, variance=0, noise=0)(x, INDEX)
    expected = reconstruction(vae, x).clamp(x.min(0).values, x.max(0).values)
    torch.testing.assert_close(copies, expected)
    assert not copies.requires_grad


def test_the_noise_is_what_the_network_leaves(trained):
    vae, x, _ = trained
    wide = torch.cat([x - 100, x + 100])  # a range that cuts nothing
    some = x[:50].repeat(200, 1)
    clean = PosteriorAugment(vae, wide, variance=0, noise=0)(some, None)
    noisy = PosteriorAugment(vae, wide, variance=0, noise=2.0)(some, None)
    left = 2 * vae.noise[0].sqrt() * vae.spread
    torch.testing.assert_close((noisy - clean).std(0), left, rtol=0.05, atol=0)


def test_the_variance_is_that_of_the_posterior(trained, monkeypatch):
    vae, x, _ = trained
    seen = []
    monkeypatch.setattr(vae, "decode", lambda z, expert: seen.append(z) or torch.zeros(len(z), 8))
    augment = PosteriorAugment(vae, x, variance=4.0, noise=0)
    one = x[:1].expand(20_000, -1)
    augment(one, None)
    loc, log_var = vae.encode(x[:1], torch.zeros(1, dtype=torch.int64))
    deviation = (log_var[0] / 2).exp().detach()
    centre, spread = seen[0].mean(0), seen[0].std(0)
    torch.testing.assert_close(spread, 2 * deviation, rtol=0.03, atol=0)
    assert ((centre - loc[0].detach()).abs() < 0.1 * deviation).all()


def test_copies_stay_in_the_range_of_the_cells(trained):
    vae, x, _ = trained
    copies = PosteriorAugment(vae, x, variance=100.0)(x, INDEX)
    assert (copies >= x.min(0).values).all()
    assert (copies <= x.max(0).values).all()
    assert (copies == x.max(0).values).any()


def test_images_get_no_noise():
    x, _ = three_types()
    x = (x - x.min()) / (x.max() - x.min())
    vae = network(x, "bernoulli", steps=20)
    copies = PosteriorAugment(vae, x, variance=0, noise=5.0)(x, INDEX)
    torch.testing.assert_close(copies, PosteriorAugment(vae, x, variance=0, noise=0)(x, INDEX))


@pytest.mark.parametrize("kind", [PosteriorAugment, LearnedAugment])
def test_the_seed_decides(trained, kind):
    vae, x, _ = trained
    augment, drawn = kind(vae, x), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augment(x, INDEX))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


# ----------------------------------------------------------------------------------------
# what learns


def test_gradients_reach_the_noise_and_leave_the_network(trained):
    vae, x, _ = trained
    augment = LearnedAugment(vae, x).train()
    assert not augment.network.training
    augment.loss({"x": x})["loss"].backward()
    assert all(p.grad is None for p in vae.parameters())
    first = augment.step.hidden[0].weight.grad
    codes, noise = first.split([4, augment.n_noise], 1)
    assert (codes.abs().sum(0) > 0).all()
    assert (noise.abs().sum(0) > 0).all()


@pytest.mark.parametrize("term", ["margin", "mmd", "identity"])
def test_each_term_teaches_the_noise(trained, term):
    vae, x, _ = trained
    augment = LearnedAugment(vae, x)
    augment.loss({"x": x})[term].backward()
    assert (augment.step.hidden[0].weight.grad[:, 4:].abs().sum(0) > 0).all()


def draw(augment, x):
    """Two copies of every cell, without noise, and its reconstruction."""
    with torch.no_grad():
        loc, deviation = augment.encode(x)
        first, second = (augment._draw(loc, deviation) for _ in range(2))
        return first, second, augment.decode(loc)


def test_copies_are_as_far_as_told(trained, learned):
    _, x, _ = trained
    augment, fresh = learned
    first, second, back = draw(augment, x)
    far = augment.distance(first, back)
    assert far.mean() == pytest.approx(0.1, rel=0.2)
    # a cell's copies are not all the same one
    assert augment.distance(first, second).mean() > 0.14
    # further from the cell than its reconstruction, by the margin
    further = augment.distance(first, x) - augment.distance(back, x)
    assert further.mean() == pytest.approx(0.1, rel=0.35)
    first, _, back = draw(fresh, x)
    assert abs(fresh.distance(first, back).mean() - 0.1) > 0.05


def test_two_random_reconstructions_are_1_apart(trained):
    vae, x, _ = trained
    augment, back = LearnedAugment(vae, x), reconstruction(vae, x)
    pairs = augment.distance(back.repeat_interleave(300, 0), back.repeat(300, 1))
    assert pairs.mean() == pytest.approx(1 - 1 / 300, rel=1e-3)


def test_copies_are_of_their_type_and_nearer_to_their_cell(trained, learned):
    _, x, kind = trained
    copies = learned[0](x, INDEX)
    apart = torch.cdist(copies, x)
    assert (kind[apart.fill_diagonal_(math.inf).argmin(1)] == kind).float().mean() > 0.97
    own = (copies - x).square().sum(1)
    other = (copies - x[torch.randperm(300, generator=torch.manual_seed(0))]).square().sum(1)
    assert (own < other).float().mean() > 0.9


def test_mmd_is_that_of_the_metrics():
    generator = torch.manual_seed(0)
    x, y = torch.randn(2, 40, 3, generator=generator, dtype=torch.float64)
    y = 0.5 * y + 1
    rows = torch.cat([x, y])
    width = torch.cdist(rows, rows).square().mean()
    expected = []
    for share in (0.25, 0.5, 1.0, 2.0):
        found = mmd(x, y, n_permutations=0, bandwidth=float(share * width))
        # without the pairs of a cell and its copy
        cross = (-torch.cdist(x, y).square() / (share * width)).exp()
        pairs, diagonal = cross.sum(), cross.trace()
        expected.append(found.mmd2 + 2 * pairs / 40**2 - 2 * (pairs - diagonal) / (40 * 39))
    assert squared_mmd(x, y) == pytest.approx(float(np.mean(expected)), rel=1e-6)


def test_mmd_of_one_distribution_is_0_on_average():
    torch.manual_seed(0)
    alike = torch.stack([squared_mmd(*torch.randn(2, 50, 4)) for _ in range(100)])
    assert alike.mean().abs() < 3 * alike.std() / 10
    assert squared_mmd(torch.randn(50, 4), torch.randn(50, 4) + 1) > 5 * alike.std()


def test_cells_that_are_all_the_same_have_finite_gradients(trained):
    vae, x, _ = trained
    augment = LearnedAugment(vae, x[:1].expand(50, -1))
    augment.loss({"x": x[:1].expand(50, -1)})["loss"].backward()
    assert all(p.grad.isfinite().all() for p in augment.step.parameters())


@pytest.mark.parametrize(
    ("kind", "how", "match"),
    [
        (PosteriorAugment, {"variance": -1}, "`variance` is -1; it must be a number from 0 on"),
        (PosteriorAugment, {"noise": math.nan}, "`noise` is nan"),
        (LearnedAugment, {"noise": "1"}, "`noise` is '1'"),
        (LearnedAugment, {"margin": 0}, "`margin` is 0; it must be a number above 0"),
        (LearnedAugment, {"margin": math.inf}, "`margin` is inf"),
    ],
)
def test_amounts_out_of_range(trained, kind, how, match):
    vae, x, _ = trained
    with pytest.raises(ValueError, match=match):
        kind(vae, x, **how)
