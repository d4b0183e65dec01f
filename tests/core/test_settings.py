"""What counts as a number."""

from __future__ import annotations

import numpy as np
import pytest

from scmoe._core.settings import as_whole, check_whole, is_number, is_whole


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (3, True, True),
        (np.int32(3), True, True),
        (3.0, False, True),
        (np.float32(3), False, True),
        (float("nan"), False, True),
        (True, False, False),
        (np.True_, False, False),
        ("3", False, False),
        (None, False, False),
        (3j, False, False),
    ],
)
def test_what_is_a_number(value, whole, number):
    assert is_whole(value) is whole
    assert is_number(value) is number


@pytest.mark.parametrize("value", [1, 2.0, "2", None, True])
def test_a_whole_number_that_is_none_is_named(value):
    with pytest.raises(ValueError, match=r"`n_cells` must be a whole number from 2 on, got "):
        check_whole("n_cells", value, 2)
    check_whole("n_cells", np.int64(2), 2)
    with pytest.raises(ValueError, match=r"from 1 on, or -1 for all cores, got 0\."):
        check_whole("n_jobs", 0, 1, or_else="-1 for all cores")


def test_whole_numbers_of_numpy_become_those_of_python():
    assert type(as_whole(np.int64(3))) is int
    assert [as_whole(value) for value in (3, 2.5, "auto", None, True)] == [
        *(3, 2.5, "auto", None, True)
    ]
    assert as_whole(True) is True
