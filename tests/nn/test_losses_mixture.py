"""Terms of the mixture's loss against values by hand, and where their gradients pull."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from scmoe.nn import (
    batch_entropy,
    damic,
    gaussian_kl,
    mixae_weights,
    sample_entropy,
    weighted_distance,
)

LOG_2 = math.log(2)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.manual_seed(seed), dtype=torch.float64)


# ----------------------------------------------------------------------------------------
# divergence of the codes


def test_kl_by_hand():
    # row 0: (1 + 1 - 1 - 0) / 2 and (4 + 2 - 1 - log 2) / 2; row 1 is the standard normal
    loc, log_var = tensor([1, 2], [0, 0]), tensor([0, LOG_2], [0, 0])
    expected = tensor(0.5 + 0.5 * (5 - LOG_2), 0)
    torch.testing.assert_close(gaussian_kl(loc, log_var), expected)
    torch.testing.assert_close(gaussian_kl(loc, log_var, torch.tensor([2, 2])), expected / 2)


def test_kl_against_torch():
    loc, log_var = draws(5, 3), draws(5, 3, seed=1)
    expected = kl_divergence(Normal(loc, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(gaussian_kl(loc, log_var), expected)


def test_kl_of_a_short_code_does_not_see_its_filling():
    loc, log_var = draws(4, 5), draws(4, 5, seed=1)
    own = torch.tensor([5, 2, 1, 3])
    beyond = torch.arange(5) >= own.unsqueeze(1)
    loc, log_var = loc.masked_fill(beyond, 0), log_var.masked_fill(beyond, 0)
    for i, d in enumerate(own.tolist()):
        alone = gaussian_kl(loc[[i], :d], log_var[[i], :d])
        torch.testing.assert_close(gaussian_kl(loc, log_var)[[i]], alone)
        torch.testing.assert_close(gaussian_kl(loc, log_var, own)[[i]], alone / d)


def test_kl_is_precise_where_it_is_small():
    # the exponential minus one would round to 0 in single precision
    log_var = torch.full((1, 1), 1e-5)
    kl = gaussian_kl(torch.zeros(1, 1), log_var)
    assert kl.item() >= 0
    assert kl.item() < 1e-9


def test_kl_gradient():
    inputs = draws(3, 2).requires_grad_(), draws(3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(gaussian_kl, inputs)


# ----------------------------------------------------------------------------------------
# the three terms


def test_weighted_distance_by_hand():
    proba, distance = tensor([0.25, 0.75], [1, 0]), tensor([4, 8], [3, 100])
    torch.testing.assert_close(weighted_distance(proba, distance), tensor((7 + 3) / 2).squeeze())


@pytest.mark.parametrize(
    ("proba", "expected"),
    [
        ([[0.25] * 4, [0.25] * 4], math.log(4)),
        ([[0.5, 0.5], [0.75, 0.25]], (LOG_2 + 0.75 * math.log(4 / 3) + 0.25 * math.log(4)) / 2),
    ],
)
def test_sample_entropy_by_hand(proba, expected):
    logits = tensor(*proba).log() + 3  # a softmax does not see what is added to all
    torch.testing.assert_close(sample_entropy(logits).item(), expected)


def test_sample_entropy_is_0_for_one_hot():
    logits = torch.tensor([[1e4, 0.0, -1e4], [-3e4, 0.0, 3e4]], requires_grad=True)
    entropy = sample_entropy(logits)
    entropy.backward()
    assert entropy.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_step_down_the_sample_entropy_sharpens():
    logits = draws(20, 4).requires_grad_()
    sample_entropy(logits).backward()
    after = (logits - logits.grad).detach()
    before = logits.detach().softmax(1).amax(1)
    assert (after.softmax(1).amax(1) > before).all()
    assert torch.equal(after.argmax(1), logits.argmax(1))


@pytest.mark.parametrize(
    ("proba", "expected"),
    [
        ([[1, 0], [0, 1]], -LOG_2),  # sure of each, even over the batch
        ([[0.5, 0.5], [0.5, 0.5]], -LOG_2),
        ([[1, 0], [1, 0]], 0),  # collapsed
        ([[1, 0], [0.5, 0.5]], 0.75 * math.log(0.75) + 0.25 * math.log(0.25)),
    ],
)
def test_batch_entropy_by_hand(proba, expected):
    torch.testing.assert_close(batch_entropy(tensor(*proba)).item(), float(expected))


def test_batch_entropy_with_a_prior():
    proba = tensor([1, 0], [0.5, 0.5])
    assert batch_entropy(proba, tensor(0.75, 0.25)).item() == pytest.approx(0, abs=1e-12)
    expected = 0.75 * math.log(0.75 / 0.1) + 0.25 * math.log(0.25 / 0.9)
    torch.testing.assert_close(batch_entropy(proba, tensor(0.1, 0.9)).item(), expected)
    uniform = batch_entropy(proba, tensor(0.5, 0.5))
    torch.testing.assert_close(uniform, batch_entropy(proba) + LOG_2)


def pull(proba, *prior):
    """Gradient of the balance with respect to the logits of one row for all."""
    logits = tensor(*[proba] * 3).log().requires_grad_()
    batch_entropy(logits.softmax(1), *prior).backward()
    return -logits.grad.sum(0)


def test_a_step_down_the_batch_entropy_balances():
    first, middle, last = pull([0.7, 0.2, 0.1])
    assert first < 0
    assert min(middle, last) > 0
    torch.testing.assert_close(pull([1 / 3] * 3), torch.zeros(3, dtype=torch.float64))
    prior = tensor(0.7, 0.2, 0.1)
    torch.testing.assert_close(
        pull([0.7, 0.2, 0.1], prior), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert pull([0.9, 0.05, 0.05], prior)[0] < 0 < pull([0.5, 0.4, 0.1], prior)[0]


@pytest.mark.parametrize("prior", [None, torch.tensor([0.2, 0.3, 0.5])])
def test_an_empty_cluster_has_a_finite_gradient(prior):
    logits = torch.tensor([[300.0, 0.0, -1e4], [200.0, 0.0, -1e4]], requires_grad=True)
    proba = logits.softmax(1)
    proba.retain_grad()
    term = batch_entropy(proba, prior)
    term.backward()
    assert term.isfinite()
    assert proba.grad.isfinite().all()
    assert (proba.grad[:, 0] > proba.grad[:, 2]).all()  # away from the full one
    assert logits.grad.isfinite().all()


def test_gradients_of_the_terms():
    logits, distance = draws(4, 3).requires_grad_(), draws(4, 3, seed=1).requires_grad_()
    prior = tensor(0.2, 0.3, 0.5)
    assert torch.autograd.gradcheck(sample_entropy, logits)
    assert torch.autograd.gradcheck(lambda z: batch_entropy(z.softmax(1), prior), logits)
    assert torch.autograd.gradcheck(
        lambda z, d: weighted_distance(z.softmax(1), d), (logits, distance)
    )
    assert torch.autograd.gradcheck(lambda z, d: damic(z.log_softmax(1), d), (logits, distance))


# ----------------------------------------------------------------------------------------
# relatives


def test_damic_by_hand():
    log_proba = tensor([0.5, 0.5], [0.25, 0.75]).log()
    distance = tensor([0, math.log(3)], [LOG_2, LOG_2])
    # 0.5 + 0.5 / 3 = 2 / 3; 1 / 2
    expected = (math.log(3 / 2) + LOG_2) / 2
    torch.testing.assert_close(damic(log_proba, distance).item(), expected)


def test_damic_is_below_the_weighted_distance_and_meets_it_for_sure_managers():
    logits, distance = draws(10, 4), draws(10, 4, seed=1).exp()
    log_proba = logits.log_softmax(1)
    assert damic(log_proba, distance) < weighted_distance(log_proba.exp(), distance)
    sure = (logits * 1e4).log_softmax(1)
    torch.testing.assert_close(damic(sure, distance), weighted_distance(sure.exp(), distance))


def test_damic_survives_large_distances():
    log_proba = torch.tensor([[1e4, 0.0]]).log_softmax(1).requires_grad_()
    loss = damic(log_proba, torch.tensor([[5e3, 4e3]]))
    loss.backward()
    assert loss.item() == 5e3
    assert log_proba.grad.isfinite().all()


def test_damic_weights_by_responsibility():
    distance = tensor([0, 5], [5, 0]).requires_grad_()
    damic(tensor([0.5, 0.5], [0.5, 0.5]).log(), distance).backward()
    torch.testing.assert_close(2 * distance.grad, (-distance.detach()).softmax(1))


def test_mixae_makes_the_terms_equal():
    terms = [tensor(v).squeeze().requires_grad_() for v in (0.3, 1.2, -2.0)]
    alpha, beta = mixae_weights(*terms)
    assert not alpha.requires_grad
    assert not beta.requires_grad
    torch.testing.assert_close(alpha.item(), 0.25)
    torch.testing.assert_close(beta.item(), 0.3)  # (0.3 + 0.25 * 1.2) / 2


def test_mixae_without_entropy_is_finite():
    alpha, beta = mixae_weights(tensor(0.3), tensor(0.0), tensor(0.0))
    torch.testing.assert_close(alpha, tensor(300))
    torch.testing.assert_close(beta, tensor(300))
