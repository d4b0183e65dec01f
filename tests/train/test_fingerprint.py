"""A hash of all that a value consists of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scmoe.train._fingerprint import digest, readable


class Thing:
    def __init__(self, **values):
        vars(self).update(values)

    def __call__(self):
        """Objects that can be called are objects, not functions."""


def first():
    pass


def second():
    pass


PAIRS = [
    (1, 2),
    (1, True),
    (1, "1"),
    ([1, 2], [2, 1]),
    ([[1], 2], [1, [2]]),
    ({"a": 1}, {"a": 2}),
    ({"a": 1}, {"b": 1}),
    (np.zeros(3), np.zeros((3, 1))),
    (np.zeros(3), np.zeros(3, np.float32)),
    (np.array([1.0, 2.0]), np.array([1.0, np.nextafter(2.0, 3)])),
    (np.array(["a", "b"], object), np.array(["a", "c"], object)),
    (sparse.csr_matrix(np.eye(3)), sparse.csr_matrix(np.eye(3)[[1, 0, 2]])),
    (torch.zeros(2), torch.tensor([0.0, 1.0])),
    (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]})),
    (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"b": [1, 2]})),
    (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 2]}, index=[1, 2])),
    (pd.Series([1, 2]), pd.Series([2, 1])),
    (first, second),
    (Thing(x=1), Thing(x=2)),
    (Thing(x=Thing(y=np.arange(3))), Thing(x=Thing(y=np.arange(3)[::-1]))),
]


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_other_values_have_another_hash(left, right):
    assert digest(left) != digest(right)


def test_equal_values_have_the_same_hash():
    def make():
        graph = sparse.csr_matrix(np.eye(4))
        return {"a": [np.arange(5), Thing(graph=graph, names=("x", None))], "b": first}

    assert digest(make()) == digest(make())
    assert digest(np.arange(6).reshape(2, 3).T) == digest(
        np.ascontiguousarray(np.arange(6).reshape(2, 3).T)
    )


def test_settings_as_text():
    value = {"lr": np.float64(0.1), "betas": (0.9, 1), "none": None, "callbacks": [Thing(x=1)]}
    assert readable(value) == (
        f"{{lr: 0.1, betas: [0.9, 1], none: None, callbacks: [{__name__}.Thing]}}"
    )
