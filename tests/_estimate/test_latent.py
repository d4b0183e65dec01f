"""How many dimensions codes need."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scmoe._estimate import (
    Architecture,
    Schedule,
    check_learned,
    count_dims,
    encode,
    find_group_dims,
    find_latent_dim,
    train_autoencoder,
)


def codes_of(variances, n=400, seed=0):
    """Codes whose principal components have exactly these variances, along random axes."""
    rng = np.random.default_rng(seed)
    d = len(variances)
    x = rng.normal(size=(n, d))
    white = np.linalg.qr(x - x.mean(0))[0] * np.sqrt(n - 1)
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return white * np.sqrt(variances) @ axes + rng.normal(size=d)


# ----------------------------------------------------------------------------------------
# codes


@pytest.mark.parametrize(
    ("threshold", "n_latent"),
    [(0.5, 1), (0.51, 2), (0.8, 2), (0.9, 3), (0.95, 4), (0.991, 5), (1, 5)],
)
def test_known_spectrum(threshold, n_latent):
    found = find_latent_dim(codes_of([50, 30, 12, 7, 1]), threshold)
    assert found.n_latent == n_latent
    np.testing.assert_allclose(found.explained, [0.5, 0.3, 0.12, 0.07, 0.01])
    assert (found.threshold, found.n_cells) == (threshold, 400)


def test_the_shares_are_those_of_the_cells_not_of_the_scale():
    codes = codes_of([50, 30, 12, 7, 1])
    found, other = find_latent_dim(codes), find_latent_dim((1e3 * codes + 7).astype(np.float32))
    assert found.n_latent == other.n_latent == 3
    np.testing.assert_allclose(found.explained, other.explained, rtol=1e-3)


def test_rounding_does_not_add_a_dimension():
    assert count_dims(np.full(10, 0.1), 1) == 10
    assert count_dims(np.full(10, 0.1), 0.9) == 9
    assert count_dims(np.array([0.5, 0.3]), 0.9) == 2


def test_fewer_cells_than_dimensions():
    found = find_latent_dim(codes_of([1] * 20)[:3], 1)
    assert found.n_latent == 2
    assert len(found.explained) == 3


@pytest.mark.parametrize(
    ("codes", "threshold", "match"),
    [
        (np.ones((5, 3)), 0.9, "the same"),
        (np.zeros((1, 3)), 0.9, "at least 2 cells, got 1"),
        (np.array([[0.0], [np.nan]]), 0.9, "NaN"),
        (np.array([[0.0], [np.inf]]), 0.9, "infinite"),
        (np.eye(3), 0, "above 0 and at most 1, got 0"),
        (np.eye(3), 1.01, "at most 1"),
        (np.eye(3), np.nan, "above 0"),
        (np.eye(3), 90, "at most 1"),
        (np.eye(3), True, "must be a number"),
        (np.eye(3), "0.9", "must be a number"),
    ],
)
def test_refused(codes, threshold, match):
    with pytest.raises(ValueError, match=match):
        find_latent_dim(codes, threshold)


def test_groups():
    one, three = codes_of([1, 1e-4, 1e-4]), codes_of([1, 1, 1]) + 100
    codes = np.concatenate([three, one, one[:1], np.ones((4, 3)), one])
    labels = ["b"] * 400 + ["a"] * 400 + ["lone"] + ["same"] * 4 + [None] * 400
    found = find_group_dims(codes, labels)
    assert list(found) == ["b", "a", "lone", "same"]
    assert (found["b"].n_latent, found["a"].n_latent) == (3, 1)
    assert (found["b"].n_cells, found["a"].n_cells) == (400, 400)
    assert found["lone"] is None
    assert found["same"] is None
    # each as if it were alone
    np.testing.assert_array_equal(found["a"].explained, find_latent_dim(one).explained)
    with pytest.raises(ValueError, match="threshold"):
        find_group_dims(codes, labels, 2)


def test_codes_that_are_not_in_use():
    check_learned(codes_of([0.9, 1e-4]))
    with pytest.raises(ValueError, match=r"nothing that markers have in common.*max_epochs"):
        check_learned(codes_of([0.1, 0.1]))


# ----------------------------------------------------------------------------------------
# with an autoencoder


def of_rank(rank, n=1500, d=12):
    rng = np.random.default_rng(0)
    # orthogonal, so that each dimension explains the same
    axes = np.linalg.qr(rng.normal(size=(d, rank)))[0].T
    x = rng.normal(size=(n, rank)) @ axes
    x += 0.05 * x.std() * rng.normal(size=x.shape)
    return ((x - x.min()) / np.ptp(x)).astype(np.float32)


def train(x, epochs=200, n_latent=20, **kwargs):
    architecture = Architecture(x.shape[1], n_hidden=32, n_layers=1, **kwargs)
    schedule = Schedule(epochs, batch_size=128, lr=3e-3, accelerator="cpu")
    return train_autoencoder(x, n_latent, architecture, schedule, progress=False)[0]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 3, 5])
def test_data_of_known_rank(rank):
    x = of_rank(rank)
    network = train(x, likelihood="gaussian")
    codes = encode(network, x)
    assert codes.shape == (1500, 20)
    assert codes.dtype == np.float32
    check_learned(codes)
    assert find_latent_dim(codes).n_latent == rank
    assert find_latent_dim(codes, 0.95).n_latent == rank

    # draws from the posteriors, instead of their means, seem to need nearly all of the 20
    with torch.inference_mode():
        which = torch.zeros(len(x), dtype=torch.int64)
        loc, log_var = network.encode(torch.from_numpy(x), which)
        drawn = torch.normal(loc, (log_var / 2).exp(), generator=torch.manual_seed(0))
    assert find_latent_dim(drawn.numpy()).n_latent >= 16


@pytest.mark.slow
def test_independent_markers_have_no_dimensions():
    x = np.random.default_rng(0).normal(size=(4000, 12)).astype(np.float32)
    codes = encode(train(x, 75, likelihood="gaussian"), x)
    with pytest.raises(ValueError, match="in common"):
        check_learned(codes)
