"""Likelihoods of markers, pixels and counts against values by hand and by other libraries."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from scmoe.nn import Observed
from scmoe.nn._likelihood import MEMORY, MIN_NOISE


def make(likelihood, n_arms=2, n_input=3, **kwargs):
    return Observed(n_arms, n_input, likelihood=likelihood, **kwargs)


def test_gaussian_by_hand():
    observed = make("gaussian", n_arms=1, n_input=2).eval()
    observed.noise.copy_(torch.tensor([[1.0, 4.0]]))
    observed.centre.copy_(torch.tensor([1.0, 0.0]))
    observed.spread.copy_(torch.tensor([2.0, 1.0]))
    # the cell is at (1, 4) of standard values; the arm says (0, 0)
    found = observed.missed(torch.zeros(1, 1, 2), torch.tensor([[3.0, 4.0]]))
    expected = 0.5 * (1 + 16 / 4 + math.log(4) + 2 * math.log(2 * math.pi))
    torch.testing.assert_close(found, torch.tensor([[expected]]))


def test_the_variance_moves_to_what_each_arm_leaves():
    observed = make("gaussian", n_input=2)
    output = torch.stack([torch.zeros(MEMORY, 2), torch.full((MEMORY, 2), 3.0)])
    observed.missed(output, torch.zeros(MEMORY, 2))
    # as many new cells as are remembered: half way from 1 to 0, and to 9
    torch.testing.assert_close(observed.noise, torch.tensor([[0.5, 0.5], [5.0, 5.0]]))
    for _ in range(20):
        observed.missed(0 * output, torch.zeros(MEMORY, 2))
    torch.testing.assert_close(observed.noise, torch.full((2, 2), MIN_NOISE))
    observed.eval()
    observed.missed(output, torch.zeros(MEMORY, 2))
    torch.testing.assert_close(observed.noise, torch.full((2, 2), MIN_NOISE))


def test_one_variance_for_all_features():
    observed = make("gaussian", n_input=2, isotropic=True)
    output = torch.tensor([0.0, 2.0]).expand(2, MEMORY, 2)
    observed.missed(output, torch.zeros(MEMORY, 2))
    torch.testing.assert_close(observed.noise, torch.full((2, 2), 1.5))


def test_bernoulli_by_hand():
    found = make("bernoulli", n_arms=1, n_input=2).missed(
        torch.tensor([[[0.0, math.log(3)]]]), torch.tensor([[0.2, 1.0]])
    )
    torch.testing.assert_close(found, torch.tensor([[math.log(2) - math.log(0.75)]]))


def test_negative_binomial_against_scipy():
    observed = make("nb")
    with torch.no_grad():
        observed.log_dispersion.copy_(torch.tensor([[0.0, 0.5, 1.0], [1.0, -0.5, 2.0]]))
    output = torch.randn(2, 4, 3, generator=torch.manual_seed(0))
    counts = torch.tensor([[1.0, 0, 4], [0, 0, 2], [7, 1, 1], [20, 0, 3]])
    found = observed.missed(output, torch.zeros(4, 3), counts)
    mean = output.softmax(-1).double() * counts.sum(1, keepdim=True)
    theta = observed.log_dispersion.detach().double().exp()[:, None]
    expected = -stats.nbinom.logpmf(counts, theta, theta / (theta + mean)).sum(-1)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_zero_inflation_against_the_definition():
    observed = make("zinb", n_arms=1)
    logits, dropped = torch.randn(2, 1, 2, 3, generator=torch.manual_seed(0))
    counts = torch.tensor([[1.0, 0, 4], [0, 2, 0]])
    found = observed.missed(torch.cat([logits, dropped], -1), torch.zeros(2, 3), counts)
    share = dropped.sigmoid()
    mean = logits.softmax(-1) * counts.sum(1, keepdim=True) / (1 - share)
    pmf = torch.from_numpy(stats.nbinom.pmf(counts, 1, (1 / (1 + mean)).numpy())).float()
    likelihood = share * (counts == 0) + (1 - share) * pmf
    torch.testing.assert_close(found, -likelihood.log().sum(-1), rtol=1e-4, atol=1e-4)


def test_totals_are_kept_after_the_zero_inflation():
    observed = make("zinb", n_arms=1)
    output = 3 * torch.randn(1, 4, 6, generator=torch.manual_seed(0))
    output[..., 3] = 100.0
    total = torch.tensor([[5.0], [10], [20], [40]])
    mean = observed.distribution(output, total).mean
    torch.testing.assert_close(mean.sum(-1), total[:, 0].expand(1, 4), rtol=1e-4, atol=0)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_a_cell_without_counts_stays_finite(likelihood):
    observed = make(likelihood)
    output = torch.zeros(2, 1, observed.n_output, requires_grad=True)
    observed.missed(output, torch.zeros(1, 3), torch.zeros(1, 3)).sum().backward()
    assert torch.isfinite(output.grad).all()
    assert torch.isfinite(observed.log_dispersion.grad).all()


def test_one_arm_is_the_same_alone():
    observed = make("nb")
    with torch.no_grad():
        observed.log_dispersion.copy_(torch.randn(2, 3))
    output, total = torch.randn(2, 4, 3), torch.full((4, 1), 9.0)
    together = observed.distribution(output, total)
    alone = observed.distribution(output[1], total, arm=1)
    torch.testing.assert_close(alone.mean, together.mean[1])
    torch.testing.assert_close(alone.variance, together.variance[1])


def test_looks_at_cells():
    observed = make("gaussian")
    scaled = torch.tensor([[0.0, 1.0, 5.0], [2.0, 3.0, 5.0]])
    observed.look_at(scaled, together=False)
    torch.testing.assert_close(observed.centre, torch.tensor([1.0, 2.0, 5.0]))
    # what never varies is left as it is
    torch.testing.assert_close(observed.spread, torch.tensor([1.0, 1.0, 1.0]))
    observed.look_at(scaled, together=True)
    torch.testing.assert_close(observed.centre, torch.full((3,), 16 / 6))
    torch.testing.assert_close(
        observed.expected(observed.standard(scaled)), scaled, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "nb", "zinb"])
def test_what_is_said_first_is_the_mean_of_the_cells(likelihood):
    observed = make(likelihood, n_arms=1)
    counts = torch.tensor([[0.0, 1, 5], [2.0, 3, 9]])
    if likelihood in ("nb", "zinb"):
        observed.look_at(counts.log1p(), together=False, counts=counts)
        first = observed.typical(counts.log1p(), counts)
        said = observed.distribution(first[None], torch.tensor([[20.0]]), arm=0).mean[0]
        expected = torch.tensor([2.0, 4, 14])
    else:
        observed.look_at(counts / 10, together=False)
        first = observed.typical(counts / 10)
        said, expected = observed.expected(first), torch.tensor([0.1, 0.2, 0.7])
    assert first.shape == (observed.n_output,)
    torch.testing.assert_close(said, expected)


def test_dispersions_start_at_the_moments():
    observed = make("nb")
    # mean 2 and variance 4: 2**2 / (4 - 2); no more variance than mean; never counted
    counts = torch.tensor([[0.0, 1, 0], [4, 1, 0]])
    observed.look_at(counts.log1p(), together=False, counts=counts)
    expected = torch.tensor([2.0, 100, 0.1]).log().expand(2, 3)
    torch.testing.assert_close(observed.log_dispersion.detach(), expected)


def test_unknown_likelihoods_are_named():
    with pytest.raises(ValueError, match="`likelihood` is 'poisson'"):
        make("poisson")
