"""Layers that are solved for, against numpy, scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge

from scmoe.nn._closed_form import (
    SHRINKAGE,
    Layer,
    constant,
    discriminants,
    group_moments,
    inverse_root,
    moments,
    newton_step,
    principal_axes,
    ridge,
)


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(a)) for a in arrays]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def cells(rng):
    """Three groups of 40, 80 and 120 cells in four dimensions, that overlap."""
    group = np.repeat([0, 1, 2], [40, 80, 120])
    mix = rng.normal(size=(4, 4))
    x = rng.normal(size=(240, 4)) @ mix + 1.5 * rng.normal(size=(3, 4))[group]
    return x, group, np.eye(3)[group]


def test_moments_of_weighted_cells(cells, rng):
    x, _, _ = cells
    times = rng.integers(1, 4, len(x))
    mean, covariance = moments(*tensors(x, times.astype(float)))
    repeated = np.repeat(x, times, axis=0)
    np.testing.assert_allclose(mean, repeated.mean(0))
    np.testing.assert_allclose(covariance, np.cov(repeated.T, bias=True))


def test_moments_of_groups(cells):
    x, group, membership = cells
    share, means, within = group_moments(*tensors(x, membership, np.ones(240)))
    np.testing.assert_allclose(share, [1 / 6, 1 / 3, 1 / 2])
    np.testing.assert_allclose(means, [x[group == k].mean(0) for k in range(3)])
    rest = np.concatenate([x[group == k] - x[group == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(within, rest.T @ rest / 240)


def test_inverse_root():
    # rotated by 45 degrees: variances 4 and 1
    covariance = torch.tensor([[2.5, 1.5], [1.5, 2.5]])
    root = inverse_root(covariance)
    torch.testing.assert_close(root, torch.tensor([[0.75, -0.25], [-0.25, 0.75]]))


def test_principal_axes():
    x = torch.tensor([[3.0, 0, 0], [-3, 0, 0], [0, 0, 1], [0, 0, -1]])
    axes = principal_axes(x, torch.ones(4), 2)
    torch.testing.assert_close(axes, torch.tensor([[1.0, 0], [0, 0], [0, 1]]))
    assert principal_axes(x, torch.ones(4), 9).shape == (3, 3)


def test_ridge(cells, rng):
    x, _, _ = cells
    target, weight = rng.normal(size=(240, 2)) + x[:, :2], rng.random(240)
    layer = ridge(*tensors(x, target, weight), 0.1)
    share = weight / weight.sum()
    spread = np.trace(np.cov(x.T, aweights=share, bias=True)) / 4
    known = Ridge(alpha=0.1 * spread).fit(x, target, sample_weight=share)
    np.testing.assert_allclose(layer.weights, known.coef_.T)
    np.testing.assert_allclose(layer.bias, known.intercept_)


def test_discriminants(cells):
    x, group, membership = cells
    layer = discriminants(*tensors(x, membership, np.ones(240)))
    logits = x @ layer.weights.numpy() + layer.bias.numpy()
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE).fit(x, group)
    proba = torch.from_numpy(logits).softmax(1).numpy()
    np.testing.assert_allclose(proba, lda.predict_proba(x), atol=1e-9)


def test_discriminants_of_one_group(cells):
    x, _, _ = cells
    layer = discriminants(*tensors(x, np.ones((240, 1)), np.ones(240)))
    torch.testing.assert_close(layer.weights, torch.zeros(4, 1).double())
    torch.testing.assert_close(layer.bias, torch.zeros(1).double())


def test_constant():
    target, weight = torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([3.0, 1.0])
    layer = constant(target, weight, 5, "bernoulli")
    assert layer.weights.shape == (5, 2)
    np.testing.assert_allclose(layer.bias.sigmoid(), [0.25, 0.999], rtol=1e-5)
    torch.testing.assert_close(
        constant(target, weight, 5, "gaussian").bias, torch.tensor([0.25, 1.0])
    )


def test_newton_steps_find_a_logistic_regression(cells, rng):
    x, _, _ = cells
    chance = 1 / (1 + np.exp(-x @ rng.normal(scale=0.3, size=(4, 2))))
    target = (rng.random((240, 2)) < chance).astype(float)
    layer = constant(*tensors(target, np.ones(240)), 4, "bernoulli")
    for _ in range(20):
        layer = newton_step(layer, *tensors(x, target, np.ones(240)), "bernoulli", penalty=0)
    for j in range(2):
        known = LogisticRegression(C=np.inf, tol=1e-8).fit(x, target[:, j])
        np.testing.assert_allclose(layer.weights[:, j], known.coef_[0], atol=1e-3)
        np.testing.assert_allclose(layer.bias[j], known.intercept_[0], atol=1e-3)


def test_one_newton_step_solves_least_squares(cells, rng):
    x, _, _ = cells
    target = rng.normal(size=(240, 3))
    start = Layer(torch.zeros(4, 3).double(), torch.zeros(3).double())
    layer = newton_step(start, *tensors(x, target, np.ones(240)), "gaussian", penalty=1e-9)
    design = np.column_stack([x, np.ones(240)])
    known = np.linalg.lstsq(design, target, rcond=None)[0]
    np.testing.assert_allclose(torch.cat([layer.weights, layer.bias[None]]), known, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 240])
@pytest.mark.parametrize("n_outputs", [3, 200])
def test_no_output_becomes_worse(cells, rng, n, n_outputs):
    x = tensors(cells[0][:n])[0]
    target = torch.from_numpy(rng.random((n, n_outputs)) > 0.5).double()
    # far from the best, so that some whole steps go too far
    start = Layer(
        torch.from_numpy(rng.normal(size=(4, n_outputs))), torch.zeros(n_outputs).double()
    )
    layer = newton_step(start, x, target, torch.ones(n).double(), "bernoulli")

    def losses(layer):
        logits = x @ layer.weights + layer.bias
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(0)

    assert (losses(layer) <= losses(start) + 1e-9).all()
    assert losses(layer).sum() < losses(start).sum()
