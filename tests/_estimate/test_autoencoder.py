"""The VAE of all cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from scmoe._estimate import (
    Architecture,
    Schedule,
    decode,
    encode,
    large_latent,
    train_autoencoder,
)


def cells(n=60, d=5):
    return np.random.default_rng(0).random((n, d)).astype(np.float32)


def train(x, seed=0, **kwargs):
    return train_autoencoder(
        x,
        3,
        Architecture(x.shape[1], n_hidden=8),
        Schedule(2, batch_size=20, accelerator="cpu"),
        seed=seed,
        progress=False,
        **kwargs,
    )


def test_same_seed_same_codes_and_nothing_else_is_drawn():
    x = cells()
    before = torch.get_rng_state()
    (first, of_first), (second, of_second), (other, _) = train(x), train(x), train(x, 1)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(encode(first, x), encode(second, x))
    pd.testing.assert_frame_equal(of_first, of_second)
    assert not np.array_equal(encode(first, x), encode(other, x))
    assert list(of_first) == ["loss", "reconstruction", "kl"]


@pytest.mark.parametrize("shape", [None, (4, 4)], ids=["cells", "images"])
def test_networks_see_standard_values(shape):
    x = cells(60, 16) * np.linspace(0.1, 1, 16, dtype=np.float32)
    architecture = Architecture(16, image_shape=shape, n_hidden=8, width=2)
    schedule = Schedule(1, batch_size=20, accelerator="cpu")
    network, _ = train_autoencoder(x, 3, architecture, schedule, progress=False)
    # the pixels of images have one mean and spread together
    axis = 0 if shape is None else None
    np.testing.assert_allclose(network.centre, np.resize(x.mean(axis), 16), rtol=1e-4)
    np.testing.assert_allclose(network.spread, np.resize(x.std(axis), 16), rtol=1e-4)


def test_codes_do_not_depend_on_other_cells():
    """Also of a network that comes out of a training."""
    x = cells(40, 16)
    network = Architecture(16, image_shape=(4, 4), width=2).build([3])
    codes = encode(network.train(), x)
    np.testing.assert_allclose(encode(network.train(), x[:3]), codes[:3], atol=1e-5)
    made = decode(network.train(), codes)
    assert made.shape == x.shape
    np.testing.assert_allclose(decode(network.train(), codes[:3]), made[:3], atol=1e-5)


def test_augmented():
    seen = []

    def augment(x, index):
        seen.append((x, index))
        return x

    x = cells()
    train(x, augment=augment)
    assert sum(len(index) for _, index in seen) == 120
    for batch, index in seen:
        np.testing.assert_array_equal(batch, x[index])


def test_codes_are_those_of_an_expert_with_its_own_columns():
    x = cells(9000)
    torch.manual_seed(0)
    network = Architecture(5, n_hidden=8).build([2, 4])
    network.look_at(torch.from_numpy(x), together=False)
    codes = encode(network, x, 0)
    assert codes.shape == (9000, 2)
    assert encode(network, x, 1).shape == (9000, 4)
    # cells do not depend on those that they are encoded with
    np.testing.assert_allclose(encode(network, x[8990:], 0), codes[8990:], atol=1e-6)


@pytest.mark.parametrize(
    ("n", "batch_size", "epochs"), [(256_000, 256, 4), (1000, 250, 1000), (100, 256, 1000)]
)
def test_epochs(n, batch_size, epochs):
    assert Schedule(batch_size=batch_size).epochs(n) == epochs
    assert Schedule(7, batch_size=batch_size).epochs(n) == 7


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"max_epochs": 0}, "`max_epochs` must be a whole number from 1 on, got 0"),
        ({"max_epochs": 1.5}, "max_epochs"),
        ({"batch_size": 1}, "`batch_size` must be a whole number from 2 on"),
        ({"batch_size": "many"}, "batch_size"),
        ({"lr": 0}, "`lr` must be a number above 0"),
        ({"lr": np.nan}, "lr"),
        ({"lr": "0.1"}, "`lr` must be a number above 0 .*, got '0.1'"),
    ],
)
def test_bad_schedules(kwargs, match):
    with pytest.raises(ValueError, match=match):
        Schedule(**kwargs)


@pytest.mark.parametrize("kwargs", [{"n_hidden": 0}, {"n_layers": -1}, {"n_hidden": True}])
def test_bad_architectures(kwargs):
    (name,) = kwargs
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number"):
        Architecture(3, **kwargs)


@pytest.mark.parametrize(("n_input", "size"), [(10, 10), (100, 100), (784, 100)])
def test_large_latent(n_input, size):
    assert large_latent(n_input) == size
