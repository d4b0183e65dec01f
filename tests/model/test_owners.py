"""Which cluster a class has become."""

from __future__ import annotations

import numpy as np

from scmoe.model._clusters import owners


def test_a_name_follows_the_positive_cells():
    """Class 0 was taught to expert 0, but its cells are in expert 2."""
    expert = np.repeat([0, 1, 2, 3], [90, 60, 50, 10])
    positive = np.zeros((210, 2), np.float32)
    positive[:14, 0] = 1  # chance, in a population that nobody listed
    positive[150:195, 0] = 1
    positive[90:150, 1] = 1
    assert owners(positive, expert, 4).tolist() == [2, 1]


def test_cells_of_several_classes_count():
    """All cells of class 0 are positive for class 1 too, so none of them is certain."""
    expert = np.repeat([0, 1, 2], [60, 30, 90])
    positive = np.zeros((180, 2), np.float32)
    positive[:60, 0] = 1
    positive[:90, 1] = 1
    assert owners(positive, expert, 3).tolist() == [0, 1]


def test_a_class_without_cells_gets_the_emptiest_expert():
    expert = np.repeat([0, 1, 3], [50, 30, 20])
    positive = np.zeros((100, 3), np.float32)
    positive[:50, 1] = 1
    positive[50:80, 2] = 1
    assert owners(positive, expert, 4).tolist() == [2, 0, 1]


def test_f1_by_hand():
    """Expert 0 holds more of the positive cells, expert 1 is made of them.

    2 * 30 / (50 + 90) < 2 * 20 / (50 + 20).
    """
    expert = np.repeat([0, 1, 2], [90, 20, 100])
    positive = np.zeros((210, 1), np.float32)
    positive[:30], positive[90:110] = 1, 1
    assert owners(positive, expert, 3).tolist() == [1]


def test_chance_gives_no_name():
    """A tenth of all cells is positive, and a tenth of the big cluster: that says nothing."""
    expert = np.repeat([0, 1, 2], [800, 200, 0])
    positive = np.zeros((1000, 1), np.float32)
    positive[:80], positive[800:820] = 1, 1
    assert owners(positive, expert, 3).tolist() == [2]


def test_no_name_where_no_expert_is_left():
    """Nothing speaks for class 1, and the only other expert has cells."""
    expert = np.repeat([0, 1], [50, 50])
    positive = np.zeros((100, 2), np.float32)
    positive[:40, 0] = 1
    assert owners(positive, expert, 2).tolist() == [0, -1]
