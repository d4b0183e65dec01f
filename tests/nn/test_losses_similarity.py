"""Every loss term against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scmoe.nn import (
    class_similarity,
    cluster_kl,
    cluster_means,
    depict,
    depict_target,
    listed_similarity,
    pair_similarity,
    posterior_kl,
    reconstruction,
)

log = math.log


def proba(n, k, seed=0):
    """Random assignments that require gradients."""
    return torch.randn(n, k, generator=torch.manual_seed(seed)).softmax(1).requires_grad_()


# ----------------------------------------------------------------------------------------
# reconstruction, eq. 4


def test_reconstruction_by_hand():
    logits = torch.tensor([[0.0, log(3)], [-log(3), log(4)]])  # 1/2, 3/4; 1/4, 4/5
    x = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    expected = [
        (log(2) + log(4)) / 2,  # the second is the negative term alone
        (0.5 * log(4) - 0.5 * log(3 / 4) - log(4 / 5)) / 2,
    ]
    torch.testing.assert_close(reconstruction(logits, x), torch.tensor(expected))


def test_reconstruction_is_least_at_the_input_and_not_at_ones():
    x = torch.tensor([[0.1, 0.7]])
    best = reconstruction(torch.logit(x), x)
    assert best < reconstruction(torch.full((1, 2), 20.0), x)
    assert best < reconstruction(torch.logit(x + 0.05), x)
    assert best < reconstruction(torch.logit(x - 0.05), x)


def test_gaussian_reconstruction_by_hand():
    logits = torch.tensor([[0.0, 2.0], [-3.0, 1.0]])
    x = torch.tensor([[1.0, 2.0], [1.0, -1.0]])
    expected = torch.tensor([0.5 / 2, (8 + 2) / 2])
    torch.testing.assert_close(reconstruction(logits, x, "gaussian"), expected)


def test_reconstruction_of_an_unknown_likelihood():
    with pytest.raises(ValueError, match=r"`likelihood` is 'zinb'.*'bernoulli', 'gaussian'"):
        reconstruction(torch.zeros(1, 1), torch.zeros(1, 1), likelihood="zinb")


# ----------------------------------------------------------------------------------------
# means of the clusters, eq. 6


def test_cluster_means_by_hand():
    z = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, -2.0]])
    p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    # soft sums over soft sizes 1.5, 1.5; nobody is in the last
    expected = torch.tensor([[2.5 / 1.5, 1 / 1.5], [6.5 / 1.5, -1 / 1.5], [0.0, 0.0]])
    torch.testing.assert_close(cluster_means(z, p), expected)


def test_uncertain_assignments_do_not_shrink_the_mean():
    # a soft sum over a hard count, as printed, would give 0.4 times the code
    z = torch.full((4, 2), 7.0)
    p = torch.tensor([[0.4, 0.3, 0.3]]).repeat(4, 1)
    torch.testing.assert_close(cluster_means(z, p), torch.full((3, 2), 7.0))


# ----------------------------------------------------------------------------------------
# spread of the clusters, eqs. 2 and 3


def two_cells(variance, d=1):
    """Codes of two cells whose second moment about 3 is ``variance`` in every dimension."""
    root = math.sqrt(variance)
    return torch.tensor([[3 + root] * d, [3 - root] * d], dtype=torch.float64)


@pytest.mark.parametrize(
    ("variance", "per_dimension"),
    # the direction of the released code; the print would swap the last two
    [(1.0, 0.0), (0.1, 0.5 * (0.1 - 1 + log(10))), (10.0, 0.5 * (10 - 1 - log(10)))],
)
def test_cluster_kl_by_hand(variance, per_dimension):
    z, expert = two_cells(variance, d=3), torch.tensor([0, 0])
    means = torch.full((1, 3), 3.0, dtype=torch.float64)
    assert float(cluster_kl(z, expert, means)) == pytest.approx(3 * per_dimension)


@pytest.mark.parametrize(
    ("direction", "narrow", "wide"), [("released", 0.70, 3.35), ("paper", 3.35, 0.70)]
)
def test_cluster_kl_directions(direction, narrow, wide):
    means = torch.tensor([[3.0]], dtype=torch.float64)
    expert = torch.tensor([0, 0])
    for variance, expected in [(0.1, narrow), (10.0, wide), (1.0, 0.0)]:
        value = cluster_kl(two_cells(variance), expert, means, direction)
        assert float(value) == pytest.approx(expected, abs=0.01)


def test_cluster_kl_has_the_direction_of_the_released_code():
    means, expert = torch.zeros(1, 2), torch.zeros(4, dtype=torch.int64)
    z = torch.randn(4, 2, generator=torch.manual_seed(0))
    assert cluster_kl(z, expert, means) == cluster_kl(z, expert, means, "released")
    assert cluster_kl(z, expert, means) != cluster_kl(z, expert, means, "paper")


def test_cluster_kl_of_an_unknown_direction():
    with pytest.raises(ValueError, match=r"`direction` is 'reverse'.*'released', 'paper'"):
        cluster_kl(torch.ones(2, 1), torch.tensor([0, 0]), torch.ones(1, 1), direction="reverse")


def test_cluster_kl_is_the_mean_over_all_clusters():
    # cluster 0: v = 0.1; cluster 1: one cell, far from its mean; cluster 2: nobody;
    # cluster 3: v = 4 about a mean that is not that of its cells
    z = torch.cat([two_cells(0.1), torch.tensor([[100.0], [5.0], [5.0]])])
    expert = torch.tensor([0, 0, 1, 3, 3])
    means = torch.tensor([[3.0], [0.0], [0.0], [3.0]], dtype=torch.float64)
    expected = (0.5 * (0.1 - 1 + log(10)) + 0.5 * (4 - 1 - log(4))) / 4
    assert float(cluster_kl(z, expert, means)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "expert",
    [[0, 1, 2, 0], [0, 0, 0, 0], [2, 2, 1, 1]],
    ids=["one member", "empty", "one empty"],
)
@pytest.mark.parametrize("direction", ["released", "paper"])
def test_cluster_kl_gradients_are_finite(expert, direction):
    # a lone cell is its own mean: its variance is 0, the logarithm of which diverges
    z = torch.randn(4, 2, generator=torch.manual_seed(0)).requires_grad_()
    expert = torch.tensor(expert)
    hard = torch.nn.functional.one_hot(expert, 3).float()
    value = cluster_kl(z, expert, cluster_means(z, hard), direction)
    (grad,) = torch.autograd.grad(value, z)
    assert value.isfinite()
    assert grad.isfinite().all()
    alone = torch.bincount(expert, minlength=3)[expert] == 1
    assert (grad[alone] == 0).all()
    assert (grad[~alone] != 0).any()


@pytest.mark.parametrize("direction", ["released", "paper"])
def test_cluster_kl_of_identical_codes_is_finite(direction):
    z = torch.ones(5, 2, requires_grad=True)
    value = cluster_kl(z, torch.zeros(5, dtype=torch.int64), torch.ones(1, 2), direction)
    (grad,) = torch.autograd.grad(value, z)
    assert value.isfinite()
    assert value > 10
    assert grad.isfinite().all()


@pytest.mark.parametrize("direction", ["released", "paper"])
@pytest.mark.parametrize("variance", [0.25, 9.0])
def test_cluster_kl_pulls_to_unit_variance(variance, direction):
    z = two_cells(variance).requires_grad_()
    means, expert = torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([0, 0])
    optimiser = torch.optim.Adam([z], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        cluster_kl(z, expert, means, direction).backward()
        optimiser.step()
    torch.testing.assert_close(z.detach(), two_cells(1.0), atol=0.01, rtol=0)


# ----------------------------------------------------------------------------------------
# the same for every cell, with a learned noise


def test_posterior_kl_by_hand():
    loc = torch.tensor([[1.0, 0.0], [3.0, 5.0]], dtype=torch.float64)
    scale = torch.tensor([[1.0, 2.0], [0.5, 1.0]], dtype=torch.float64)
    means = torch.tensor([[9.0, 9.0], [1.0, 0.0], [2.0, 5.0]], dtype=torch.float64)
    first = 0.5 * (4 - 1 - 2 * log(2))
    second = 0.5 * (0.25 + 1 - 1 + 2 * log(2))
    value = posterior_kl(loc, scale.log(), torch.tensor([1, 2]), means)
    assert float(value) == pytest.approx((first + second) / 2)


def test_posterior_kl_is_the_divergence_of_torch():
    normal = torch.distributions.Normal
    generator = torch.manual_seed(0)
    loc, log_scale = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    expert = torch.arange(30) % 3
    each = torch.distributions.kl_divergence(
        normal(loc, log_scale.exp()), normal(means[expert], torch.ones_like(loc))
    )
    torch.testing.assert_close(posterior_kl(loc, log_scale, expert, means), each.sum(1).mean())


def test_posterior_kl_ends_at_the_mean_with_unit_noise():
    generator = torch.manual_seed(0)
    loc, log_scale = (torch.randn(6, 2, generator=generator).requires_grad_() for _ in range(2))
    means, expert = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.arange(6) % 2
    optimiser = torch.optim.Adam([loc, log_scale], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        posterior_kl(loc, log_scale, expert, means).backward()
        optimiser.step()
    torch.testing.assert_close(loc.detach(), means[expert], atol=0.01, rtol=0)
    torch.testing.assert_close(log_scale.detach(), torch.zeros(6, 2), atol=0.01, rtol=0)
    fixed = means[expert].requires_grad_(), torch.zeros(6, 2, requires_grad=True)
    value = posterior_kl(*fixed, expert, means)
    assert value == 0
    assert all((grad == 0).all() for grad in torch.autograd.grad(value, fixed))


def test_posterior_kl_gradients_by_hand():
    # d/dm = m - mu; d/dlog s = s^2 - 1; both over the number of cells
    loc = torch.tensor([[2.0], [0.0]], requires_grad=True)
    log_scale = torch.tensor([[log(3)], [log(0.5)]], requires_grad=True)
    value = posterior_kl(loc, log_scale, torch.tensor([0, 0]), torch.tensor([[0.5]]))
    by_loc, by_scale = torch.autograd.grad(value, (loc, log_scale))
    torch.testing.assert_close(by_loc, torch.tensor([[1.5], [-0.5]]) / 2)
    torch.testing.assert_close(by_scale, torch.tensor([[8.0], [-0.75]]) / 2)


# ----------------------------------------------------------------------------------------
# similarity, eq. 7


def test_pair_similarity_by_hand():
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]])
    s = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.5], [0.0, 0.5, 1.0]])
    # agreements: 1/2, 1/4, 1/2; every pair counts twice among the six ordered ones
    expected = (log(2) - log(3 / 4) + log(2)) / 3
    assert float(pair_similarity(p, s)) == pytest.approx(expected)


def test_pair_similarity_of_an_asymmetric_target_by_hand():
    p = torch.tensor([[0.8, 0.2], [0.5, 0.5]])
    s = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert float(pair_similarity(p, s)) == pytest.approx(log(2))


def test_diagonal_does_not_matter():
    p, s = proba(6, 3), torch.rand(6, 6, generator=torch.manual_seed(1))
    other = s.clone()
    other.fill_diagonal_(0.0)
    value = pair_similarity(p, s)
    (grad,) = torch.autograd.grad(value, p)
    (grad_other,) = torch.autograd.grad(pair_similarity(p, other), p)
    torch.testing.assert_close(pair_similarity(p, other), value)
    torch.testing.assert_close(grad, grad_other)


def blocks():
    """Two groups of three cells: 1 within a group, 0 between groups."""
    return torch.block_diag(torch.ones(3, 3), torch.ones(3, 3))


def test_one_single_cluster_is_not_the_minimum():
    one = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    two = torch.eye(2).repeat_interleave(3, 0)
    even = torch.full((6, 2), 0.5)
    collapsed, right, undecided = (float(pair_similarity(p, blocks())) for p in (one, two, even))
    assert right < 1e-5
    assert undecided == pytest.approx(log(2))
    # 18 of 30 pairs are wrong; the printed term alone would give 0 here
    assert collapsed > 5


def test_descent_separates_the_groups():
    logits = torch.randn(6, 4, generator=torch.manual_seed(2)) * 0.1
    logits[:, 0] += 2  # nearly collapsed
    logits.requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        pair_similarity(logits.softmax(1), blocks()).backward()
        optimiser.step()
    cluster = logits.argmax(1)
    assert cluster[0] == cluster[1] == cluster[2]
    assert cluster[3] == cluster[4] == cluster[5]
    assert cluster[0] != cluster[3]


@pytest.mark.parametrize("wrong", [False, True])
def test_similarity_is_safe_at_exactly_one_hot(wrong):
    p = torch.eye(2).repeat_interleave(3, 0).requires_grad_()
    s = 1 - blocks() if wrong else blocks()
    pairs = torch.triu_indices(6, 6, 1)
    for value in (
        pair_similarity(p, s),
        listed_similarity(p, pairs, s[pairs[0], pairs[1]], torch.ones(15)),
    ):
        (grad,) = torch.autograd.grad(value, p)
        assert value.isfinite()
        assert grad.isfinite().all()
        assert (value > 5) == wrong


def test_single_cell_has_no_similarity():
    p = proba(1, 3)
    value = pair_similarity(p, torch.ones(1, 1))
    assert value == 0
    assert torch.autograd.grad(value, p)[0].isfinite().all()


def test_all_pairs_listed_is_the_dense_loss():
    p, s = proba(7, 4), torch.rand(7, 7, generator=torch.manual_seed(1))
    i, j = np.nonzero(~np.eye(7, dtype=bool))
    pairs = torch.from_numpy(np.stack([i, j]))
    listed = listed_similarity(p, pairs, s[i, j], torch.ones(42))
    dense = pair_similarity(p, s)
    torch.testing.assert_close(listed, dense)
    torch.testing.assert_close(torch.autograd.grad(listed, p)[0], torch.autograd.grad(dense, p)[0])


def test_listed_similarity_weights_its_pairs():
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]])
    value = listed_similarity(
        p, torch.tensor([[0, 2], [1, 0]]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 3.0])
    )
    assert float(value) == pytest.approx((log(2) - 3 * log(3 / 4)) / 4)


def test_unknown_pairs_are_left_out():
    p = proba(3, 2)
    nan = math.nan
    s = torch.tensor([[nan, 1.0, nan], [1.0, nan, 0.3], [nan, nan, nan]])
    a = (p @ p.T).detach()
    expected = -(2 * a[0, 1].log() + 0.3 * a[1, 2].log() + 0.7 * (1 - a[1, 2]).log()) / 3
    value = pair_similarity(p, s)
    torch.testing.assert_close(value.detach(), expected)
    assert torch.autograd.grad(value, p)[0].isfinite().all()


def test_an_unknown_pair_has_no_gradient():
    p, s = proba(4, 3), torch.ones(4, 4)
    s[:, 3] = s[3, :] = math.nan
    (grad,) = torch.autograd.grad(pair_similarity(p, s), p)
    (alone,) = torch.autograd.grad(pair_similarity(p[:3], torch.ones(3, 3)), p)
    torch.testing.assert_close(grad, alone)
    assert (grad[3] == 0).all()


def test_pair_similarity_leaves_its_target_alone():
    s = torch.full((3, 3), math.nan)
    s[0, 1] = 1
    before = s.clone()
    pair_similarity(proba(3, 2), s)
    torch.testing.assert_close(s, before, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("n", [1, 5])
def test_nothing_known_is_zero_with_a_graph(n):
    p = proba(n, 3)
    nothing = torch.full((n, n), math.nan)
    pairs = torch.zeros(2, 4, dtype=torch.int64)
    for value in (
        pair_similarity(p, nothing),
        listed_similarity(p, pairs, torch.full((4,), math.nan), torch.ones(4)),
        listed_similarity(p, pairs[:, :0], torch.zeros(0), torch.zeros(0)),
        class_similarity(p, nothing[:, :2]),
    ):
        assert value == 0
        assert (torch.autograd.grad(value, p)[0] == 0).all()


def test_listed_similarity_leaves_unknown_pairs_out():
    p = proba(6, 3)
    pairs = torch.triu_indices(6, 6, 1)
    s = torch.rand(15, generator=torch.manual_seed(1))
    weight = torch.arange(15) + 1.0
    known = torch.arange(15) % 3 > 0
    value = listed_similarity(p, pairs, torch.where(known, s, math.nan), weight)
    fewer = listed_similarity(p, pairs[:, known], s[known], weight[known])
    torch.testing.assert_close(value, fewer)
    grad, expected = (torch.autograd.grad(v, p)[0] for v in (value, fewer))
    torch.testing.assert_close(grad, expected)


# ----------------------------------------------------------------------------------------
# classes instead of pairs


def test_class_similarity_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    # two classes, three experts; nothing is known of the second cell; the last has both
    classes = torch.tensor([[1.0, 0.0], [math.nan, math.nan], [1.0, 0.5]])
    first = -log(0.5) - log(0.75) - log(0.75)
    last = -log(0.2) - 0.5 * log(0.2) - 0.5 * log(0.8) - log(0.4)
    assert float(class_similarity(p, classes)) == pytest.approx((first + last) / 6)


def test_a_cell_of_no_class_is_known():
    p = torch.tensor([[0.5, 0.5]])
    assert float(class_similarity(p, torch.zeros(1, 1))) == pytest.approx(log(2))


def test_a_cell_with_one_unknown_class_is_unknown():
    p = proba(2, 3)
    classes = torch.tensor([[1.0, 0.0], [0.0, math.nan]])
    value = class_similarity(p, classes)
    torch.testing.assert_close(value, class_similarity(p[:1], classes[:1]))
    (grad,) = torch.autograd.grad(value, p)
    assert grad.isfinite().all()
    assert (grad[1] == 0).all()


@pytest.mark.parametrize("wrong", [False, True])
def test_class_similarity_is_safe_at_exactly_one_hot(wrong):
    p = torch.eye(3).requires_grad_()
    value = class_similarity(p, torch.eye(3).roll(int(wrong), 0))
    (grad,) = torch.autograd.grad(value, p)
    assert value.isfinite()
    assert grad.isfinite().all()
    assert (value > 5) == wrong


def test_class_similarity_puts_each_class_to_its_expert():
    logits = torch.randn(8, 5, generator=torch.manual_seed(0)).requires_grad_()
    classes = torch.eye(3)[torch.arange(8) % 3]
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        class_similarity(logits.softmax(1), classes).backward()
        optimiser.step()
    assert logits.argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_more_classes_than_experts():
    with pytest.raises(ValueError, match=r"more classes \(4\) than experts \(3\)"):
        class_similarity(proba(2, 3), torch.ones(2, 4))


# ----------------------------------------------------------------------------------------
# DEPICT, eqs. 8 and 9


def test_depict_target_by_hand():
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.85, 0.15]])  # sizes 2.25 and 0.75
    ratio = math.sqrt(3)
    expected = [[a / (a + ratio * b), ratio * b / (a + ratio * b)] for a, b in p.tolist()]
    torch.testing.assert_close(depict_target(p), torch.tensor(expected))


def test_depict_target_is_a_distribution_without_gradient():
    target = depict_target(proba(50, 6))
    assert not target.requires_grad
    assert target.min() >= 0
    torch.testing.assert_close(target.sum(1), torch.ones(50))


def test_depict_target_survives_an_empty_cluster():
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(depict_target(p), p)


def test_depict_by_hand():
    target = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    logits = torch.tensor([[0.0, 0.0], [0.0, log(3)]])
    expected = (log(2) - 0.25 * log(1 / 4) - 0.75 * log(3 / 4)) / 2
    assert float(depict(target, logits)) == pytest.approx(expected)


def test_dec_target_by_hand():
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.85, 0.15]])  # sizes 2.25 and 0.75
    expected = [[a * a / (a * a + 3 * b * b), 3 * b * b / (a * a + 3 * b * b)] for a, b in p]
    torch.testing.assert_close(depict_target(p, "dec"), torch.tensor(expected))


def test_released_target_is_the_papers_with_a_gradient():
    p = proba(50, 6)
    released = depict_target(p, "released")
    torch.testing.assert_close(released.detach(), depict_target(p, "paper"))
    assert (torch.autograd.grad((released**2).sum(), p)[0] != 0).any()
    assert not depict_target(p, "dec").requires_grad


def test_unknown_target():
    with pytest.raises(ValueError, match=r"`kind` is 'x'.*'paper', 'released', 'dec'"):
        depict_target(proba(2, 2), kind="x")


def unbalanced_after_depict(kind):
    """Share of the first cluster before, all shares after, and mean entropy after.

    Free assignments of 256 cells to 7 clusters with this term alone.
    """
    logits = torch.randn(256, 7, generator=torch.manual_seed(0))
    logits[:, 0] += 2
    logits.requires_grad_()
    before = logits.detach().softmax(1).mean(0)[0]
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        depict(depict_target(logits.softmax(1), kind), logits).backward()
        optimiser.step()
    p = logits.detach().softmax(1)
    return before, p.mean(0), torch.special.entr(p).sum(1).mean()


def test_depict_balances_usage_without_sharpening():
    before, usage, entropy = unbalanced_after_depict("paper")
    assert before > 0.4
    torch.testing.assert_close(usage, torch.full((7,), 1 / 7), atol=0.01, rtol=0)
    assert entropy > 1  # sharpening would take it to about 0


def test_released_depict_sharpens_and_keeps_the_imbalance():
    before, usage, entropy = unbalanced_after_depict("released")
    assert entropy < 0.02
    assert usage[0] > 0.9 * before


def test_dec_sharpens_and_keeps_most_of_the_imbalance():
    _, usage, entropy = unbalanced_after_depict("dec")
    assert entropy < 0.05
    assert usage[0] > 2 / 7


def test_one_cluster_for_all_is_a_zero_of_the_released_depict():
    # why the term cannot prevent the collapse
    logits = torch.zeros(20, 4)
    logits[:, 2] = 50
    assert depict(depict_target(logits.softmax(1), "released"), logits) < 1e-6
