"""Cells drawn anew from their posterior in a VAE."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scmoe._core.random import seeded
from scmoe.nn import Autoencoders, PosteriorAugment

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


def test_the_seed_decides(trained):
    vae, x, _ = trained
    augment, drawn = PosteriorAugment(vae, x), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augment(x, INDEX))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("kind", "how", "match"),
    [
        (
            PosteriorAugment,
            {"variance": -1},
            "`variance` is -1; it must be a number",
        ),
        (PosteriorAugment, {"noise": math.nan}, "`noise` is nan"),
        (PosteriorAugment, {"noise": "1"}, "`noise` is '1'"),
        (PosteriorAugment, {"variance": math.inf}, "`variance` is inf"),
    ],
)
def test_amounts_out_of_range(trained, kind, how, match):
    vae, x, _ = trained
    with pytest.raises(ValueError, match=match):
        kind(vae, x, **how)
