"""Which splits come again, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe.tree import Tree, support


@pytest.fixture
def tree():
    """All cells are cut by A, the high ones by B."""
    return Tree(
        markers=np.array(["A", "B"]),
        region=np.array([0, 2], np.int32),
        weights=np.eye(2, dtype=np.float32),
        threshold=np.zeros(2),
        significance=np.array([9.0, 5.0]),
        depth=np.array([0.1, 0.3]),
        sizes=np.array([[10, 20], [10, 10]]),
        cluster=np.array([-1, 2, -1, 0, 1], np.int32),
    )


LEAF = np.repeat([1, 3, 4], 10)
SAME = np.repeat([2, 0, 1], 10)
"""Under other numbers."""
MERGED = np.repeat([0, 1, 1], 10)
FINER = np.repeat(np.arange(6), 5)
MOVED = np.where(np.arange(30) == 19, 1, SAME)
"""One cell in ten changes sides: 9 of 10 and 10 of 11 of the sides agree."""
FAR = np.where((np.arange(30) >= 16) & (np.arange(30) < 20), 1, SAME)
"""Four in ten do: 6 of 10 and 10 of 14."""
UNKNOWN = np.where(np.arange(30) % 2, SAME, -1)
ELSEWHERE = np.where(np.arange(30) >= 20, -1, SAME)
"""No cell of the last leaf was drawn."""


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([SAME], [1, 1]),
        ([MERGED], [1, 0]),
        ([FINER], [1, 1]),
        ([MOVED], [1, 1]),
        ([FAR], [1, 0]),
        ([UNKNOWN], [1, 1]),
        ([ELSEWHERE], [1, 0]),
        ([np.zeros(30, int)], [0, 0]),
        ([SAME, MERGED, FAR, SAME], [1, 0.5]),
    ],
)
def test_by_hand(tree, others, expected):
    found = support(tree, LEAF, others)
    assert found.dtype == np.float32
    assert found.tolist() == expected


def test_one_leaf(tree):
    alone = tree.merge(np.zeros(3, int))
    assert support(alone, np.zeros(30, int), [SAME]).shape == (0,)
