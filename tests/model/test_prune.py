"""Which categories are pruned, and when it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from scmoe.model._cplmixvae_stages import prune


class Planted(nn.Module):
    """Four categories, of which two arms say alike in shares of the cells that are given."""

    n_experts = 4

    def __init__(self, agreed):
        super().__init__()
        self.register_buffer("live", torch.ones(4, dtype=torch.bool))
        self.register_buffer("rounds", torch.zeros(()))
        self.agreed = agreed

    def votes(self):
        """Ten cells of each live category; where arms disagree the other says the next one."""
        live = self.live.nonzero().ravel().tolist()
        one = np.repeat(live, 10)
        other = one.copy()
        for i, k in enumerate(live):
            other[i * 10 + self.agreed[k] : (i + 1) * 10] = live[(i + 1) % len(live)]
        return np.stack([one, other])

    def run(self, threshold=0.75, **kwargs):
        def fit():
            self.rounds += 1

        return prune(self, self.votes, lambda: float(self.rounds), fit, threshold)


def test_the_least_agreed_upon_goes_first():
    module = Planted([10, 2, 10, 9])
    curve, keep, weights = module.run()
    # 1 goes, which took from 2; then there is one cell of 3 that the other arm gives to 0
    assert curve["n_categories"].tolist() == [4, 3]
    assert keep.tolist() == [0, 2, 3]
    np.testing.assert_allclose(curve["lowest"], [0.2, 0.9])
    assert curve["loss"].tolist() == [0, 1]
    assert weights["rounds"] == 1
    # of two labellings with 10 and 12 cells of which 10 are the same, and so on
    first = [10 / 11, 2 / 10, 10 / 18, 9 / 10]
    np.testing.assert_allclose(curve["consensus"].iloc[0], np.mean(first))


def test_it_ends_where_the_arms_agree_enough_on_every_category():
    assert len(Planted([10, 10, 10, 9]).run(threshold=0.95)[0]) > 1
    curve, keep, _ = Planted([10, 10, 10, 9]).run(threshold=0.9)
    assert curve["n_categories"].tolist() == [4]
    assert keep.tolist() == [0, 1, 2, 3]


def test_the_best_round_is_taken_where_none_is_enough():
    module = Planted([9, 9, 9, 9])
    module.votes = iter(
        [
            np.array([[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 2, 3, 3, 0]]),
            np.array([[1, 1, 2, 2, 3, 3, 3, 3], [1, 1, 2, 2, 3, 3, 3, 2]]),
            np.array([[2, 2, 2, 2, 3, 3, 3, 3], [3, 3, 2, 2, 3, 3, 2, 2]]),
        ]
    ).__next__
    curve, keep, weights = module.run()
    assert curve["n_categories"].tolist() == [4, 3, 2]
    assert keep.tolist() == [1, 2, 3]
    assert weights["rounds"] == 1
    assert weights["live"].tolist() == [False, True, True, True]


def test_categories_without_cells_go_together():
    module = Planted([10, 10, 10, 10])
    module.votes = lambda: np.array([[1, 1, 3, 3], [1, 1, 3, 3]])
    curve, keep, _ = module.run()
    assert keep.tolist() == [1, 3]
    assert module.live.tolist() == [False, True, False, True]
    assert len(curve) == 1


def test_everything_pruned_is_an_error_with_advice():
    module = Planted([10, 10, 10, 10])
    module.votes = lambda: np.zeros((2, 5), dtype=int)
    with pytest.raises(ValueError, match="All cells came to one category"):
        module.run()
