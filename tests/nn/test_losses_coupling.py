"""What couples the arms, against values by hand, and where its gradients pull."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import gumbel_softmax

from scmoe.nn import (
    category_entropy,
    coupling,
    log_categories,
    simplex_coordinates,
)
from scmoe.nn._losses_coupling import FLOOR, MAX_INVERSE_DEVIATION

ALL = torch.ones(4, dtype=torch.bool)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.manual_seed(seed), dtype=torch.float64)


def test_log_categories_are_those_of_the_softmax():
    log_proba = log_categories(torch.tensor([[0.0, math.log(3)]]), ALL[:2])
    torch.testing.assert_close(log_proba.exp(), torch.tensor([[0.25, 0.75]]))


def test_log_categories_of_a_double_softmax_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    log_proba = log_categories(logits, ALL[:2], 0.1)
    # softmax of 2.5 and 7.5
    odds = math.exp(5)
    torch.testing.assert_close(log_proba.exp()[0, 1].item(), odds / (1 + odds))


def test_odds_of_a_double_softmax_are_bounded():
    log_proba = log_categories(torch.tensor([[-1e4, 1e4]]), ALL[:2], 0.1)
    torch.testing.assert_close(log_proba[0, 1] - log_proba[0, 0], torch.tensor(10.0))


@pytest.mark.parametrize("sharpness", [None, 0.1])
def test_categories_out_of_use_have_no_share_and_no_gradient(sharpness):
    logits = draws(2, 5, 4).requires_grad_()
    live = torch.tensor([True, False, True, True])
    log_proba = log_categories(logits, live, sharpness)
    assert torch.isneginf(log_proba[..., 1]).all()
    torch.testing.assert_close(
        log_proba[..., live], log_categories(logits[..., live], live[live], sharpness)
    )
    torch.manual_seed(0)
    drawn = gumbel_softmax(log_proba, 1.0)
    assert (drawn[..., 1] == 0).all()
    total = category_entropy(log_proba, live).sum() + drawn.square().sum()
    total = total + coupling(simplex_coordinates(log_proba, live))
    total.backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[..., 1] == 0).all()
    assert (logits.grad[..., live] != 0).any()


def test_entropy_by_hand():
    proba = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    live = torch.tensor([True, True, False])
    logs = proba.clamp_min(1e-30).log()
    torch.testing.assert_close(
        category_entropy(logs, live), torch.tensor([math.log(2), 0.0]), atol=1e-6, rtol=0
    )


def test_scaled_coordinates_against_numpy():
    log_proba = draws(2, 30, 4).log_softmax(-1)
    q = log_proba.exp().numpy()
    variance = q.var(axis=1, keepdims=True)
    expected = np.log(q + FLOOR) / np.sqrt(variance + MAX_INVERSE_DEVIATION**-2)
    torch.testing.assert_close(simplex_coordinates(log_proba, ALL), torch.from_numpy(expected))


def test_aitchison_coordinates_against_the_definition():
    log_proba = draws(1, 6, 4).log_softmax(-1)
    q = log_proba.exp()[0].numpy() + FLOOR
    expected = np.log(q / np.exp(np.log(q).mean(1, keepdims=True)))
    found = simplex_coordinates(log_proba, ALL, "aitchison")[0]
    torch.testing.assert_close(found, torch.from_numpy(expected))
    torch.testing.assert_close(found.sum(1), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("distance", ["scaled", "aitchison"])
def test_a_category_that_is_never_used_stays_finite(distance):
    logits = draws(2, 20, 4)
    logits[..., 3] = -1e3
    logits.requires_grad_()
    found = simplex_coordinates(log_categories(logits, ALL), ALL, distance)
    # the logarithm of the floor over the least deviation
    largest = -math.log(FLOOR) * MAX_INVERSE_DEVIATION
    assert found.abs().max() <= largest * (1 + 1e-9)
    coupling(found).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_category_that_is_always_used_stays_finite():
    logits = torch.zeros(2, 20, 3)
    logits[..., 0] = 1e3
    logits[1, 0, 0] = 0
    logits.requires_grad_()
    live = ALL[:3]
    coupling(simplex_coordinates(log_categories(logits, live), live)).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("n_arms", [2, 3, 4])
def test_coupling_against_the_double_loop(n_arms):
    where = draws(n_arms, 7, 4)
    pairs = [
        (where[a] - where[b]).square().sum(1).mean()
        for a in range(n_arms)
        for b in range(a + 1, n_arms)
    ]
    torch.testing.assert_close(coupling(where), torch.stack(pairs).mean())


@pytest.mark.parametrize("distance", ["scaled", "aitchison"])
def test_coordinates_of_categories_in_use_are_as_if_there_were_no_others(distance):
    logits, live = draws(2, 5, 4), torch.tensor([True, False, True, True])
    found = simplex_coordinates(log_categories(logits, live), live, distance)
    assert (found[..., 1] == 0).all()
    own = live[live]
    alone = simplex_coordinates(log_categories(logits[..., live], own), own, distance)
    torch.testing.assert_close(found[..., live], alone)


def test_coupling_by_hand():
    # one cell: (1, 2) and (4, 6) are 5 apart; the other is the same in both arms
    where = torch.tensor([[[1.0, 2.0], [3.0, 3.0]], [[4.0, 6.0], [3.0, 3.0]]])
    torch.testing.assert_close(coupling(where), torch.tensor(12.5))


def test_coupling_of_groups_is_their_mean():
    where = draws(6, 7, 4).unflatten(0, (3, 2))
    torch.testing.assert_close(coupling(where), torch.stack([coupling(g) for g in where]).mean())


@pytest.mark.parametrize("distance", ["scaled", "aitchison"])
def test_arms_that_say_the_same_are_not_apart(distance):
    log_proba = draws(1, 9, 4).log_softmax(-1).expand(3, -1, -1)
    assert coupling(simplex_coordinates(log_proba, ALL, distance)) < 1e-20


@pytest.mark.parametrize("distance", ["scaled", "aitchison"])
def test_coupling_pulls_on_every_arm(distance):
    logits = draws(3, 9, 4).requires_grad_()
    coupling(simplex_coordinates(logits.log_softmax(-1), ALL, distance)).backward()
    assert (logits.grad.abs().sum((1, 2)) > 0).all()
