"""Consensus of labellings against values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.metrics import category_agreement, category_consensus


def test_two_labelings_by_hand():
    labels = np.array([[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]])
    # both say 0 twice, of at most 3 cells; 1 twice, of at most 4; 2 never together
    np.testing.assert_allclose(category_consensus(labels, 4), [2 / 3, 2 / 4, 0, 0])


def test_which_categories_are_the_same():
    labels = np.array([[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]])
    # the first has 3, 2, 1, 0 cells and the second 2, 4, 0, 0
    expected = [[2 / 3, 1 / 4, 0, 0], [0, 2 / 4, 0, 0], [0, 1 / 4, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(category_agreement(labels, 4), expected)
    np.testing.assert_allclose(category_agreement(labels[::-1], 4), np.transpose(expected))


def test_of_three_labelings_both_directions_count():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
    # of two pairs one cell is in 0 here and in 1 there, which has 3 cells
    between = (1 / 3 + 1 / 3) / 6
    diagonal = category_consensus(labels, 2)
    expected = np.diag(diagonal) + between * (1 - np.eye(2))
    np.testing.assert_allclose(category_agreement(labels, 2), expected)


def test_mean_over_pairs():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
    # pairs (0, 1): 1 and 1; (0, 2) and (1, 2): 1/2 and 2/3
    np.testing.assert_allclose(category_consensus(labels, 2), [(1 + 1) / 3, (1 + 4 / 3) / 3])


def test_order_of_labelings_does_not_matter():
    labels = np.random.default_rng(0).integers(0, 3, (3, 40))
    np.testing.assert_allclose(category_consensus(labels, 3), category_consensus(labels[::-1], 3))


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([[0, 1]], "two labellings or more"),
        ([0, 1], "two labellings or more"),
        (np.zeros((2, 0), int), "one cell or more"),
        ([[0, 1], [0, 2]], "from 0 to 1"),
        ([[0, -1], [0, 1]], "from 0 to 1"),
        ([[0.0, 1.0], [0.0, 1.0]], "whole numbers"),
    ],
)
def test_labels_that_are_none_are_named(labels, match):
    with pytest.raises(ValueError, match=match):
        category_consensus(labels, 2)
