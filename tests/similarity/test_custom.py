"""Functions of the user, and how a saved model finds them again."""

from __future__ import annotations

import functools
import sys
import types

import numpy as np
import pytest

from scmoe.similarity import MAX_DENSE, Custom, Pairs, Similarity


@pytest.fixture
def mine(monkeypatch):
    """A module that can be imported."""
    module = types.ModuleType("module_of_mine")
    exec(
        "def parity(cells):\n"
        "    return (cells[:, None] + cells) % 2 == 0\n"
        "class Box:\n"
        "    @staticmethod\n"
        "    def inside(cells):\n"
        "        return parity(cells)\n"
        "    def method(self, cells):\n"
        "        return parity(cells)\n"
        "number = 3\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, "module_of_mine", module)
    return module


def answer(function, n=4):
    return Custom(function).bind(None, None).dense(np.arange(n))


def test_answer(mine):
    s = answer(mine.parity)
    np.testing.assert_array_equal(s, [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]])
    assert s.dtype == np.float32


def test_what_the_function_gets():
    seen = []

    def function(cells):
        seen.append(cells.copy())
        cells[:] = 0
        return np.ones((len(cells), len(cells)))

    cells = np.array([7, 3, 7], np.int32)
    Custom(function).bind(None, None).dense(cells)
    np.testing.assert_array_equal(seen[0], [7, 3, 7])
    assert seen[0].dtype == np.int64
    np.testing.assert_array_equal(cells, [7, 3, 7])


def test_no_opinion_and_rounding():
    given = np.array([[np.nan, np.nan, 1 + 1e-6], [np.nan, 5, -1e-6], [1, 0, 1]])
    s = answer(lambda cells: given, 3)
    np.testing.assert_array_equal(np.isnan(s), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert s[0, 2] == s[2, 0] == 1
    assert s[1, 2] == s[2, 1] == 0
    np.testing.assert_array_equal(s.diagonal(), 1)
    assert np.isnan(given[0, 0])


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (np.ones(3), r"shape \(3,\) for 3 cells; it must be \(3, 3\)"),
        (np.ones((2, 2)), r"shape \(2, 2\)"),
        (1.0, r"shape \(\)"),
        (None, "object values"),
        (np.full((3, 3), "a"), "<U1 values"),
        (np.array([[1, 2, 0], [2, 1, 0], [0, 0, 1]]), "values from 0 to 2"),
        (np.array([[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 1]]), r"values from -0\.5 to 1"),
        (np.array([[1, np.inf, 0], [np.inf, 1, 0], [0, 0, 1]]), "values from 0 to inf"),
        (np.tri(3), r"not symmetric; return `np\.maximum\(s, s\.T\)`"),
        (np.where(np.tri(3), 1, np.nan), "not symmetric"),
    ],
)
def test_bad_answers(given, match):
    with pytest.raises(ValueError, match=match) as error:
        answer(lambda cells: given, 3)
    assert "test_custom" in str(error.value)


def test_large_batches_ask_once(mine):
    sizes = []

    def counted(cells):
        sizes.append(len(cells))
        return mine.parity(cells)

    target = Custom(counted).bind(None, None)
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 10_000, MAX_DENSE + 1)
    rows, s, _ = pairs = target(cells, rng)
    assert isinstance(pairs, Pairs)
    assert sizes == [MAX_DENSE + 1]
    np.testing.assert_array_equal(s, (cells[rows[0]] + cells[rows[1]]) % 2 == 0)


def test_names_of_functions(mine):
    def local(cells):
        return mine.parity(cells)

    for function in (mine.parity, mine.Box.inside, mine.Box.method):
        # exec gave them the name of this module
        function.__module__ = "module_of_mine"
    for function, name in [
        (mine.parity, "module_of_mine:parity"),
        (mine.Box.inside, "module_of_mine:Box.inside"),
        (local, "test_custom:test_names_of_functions.<locals>.local"),
        (functools.partial(mine.parity), "functools:partial"),
        (mine.Box().method, "module_of_mine:Box.method"),
    ]:
        similarity = Custom(function)
        assert similarity.bind(None, None).dense(np.arange(3)).shape == (3, 3)
        values = similarity.to_dict()
        assert values == {"name": "Custom", "function": values["function"]}
        assert values["function"].endswith(name)
        again = Similarity.from_dict(values)
        assert again.to_dict() == values


@pytest.mark.parametrize("name", ["", "module_of_mine:parity", "os:system", "builtins:exec"])
def test_no_name_is_looked_up(mine, name):
    mine.parity.__module__ = "module_of_mine"
    for similarity in (Custom(name), Similarity.from_dict({"name": "Custom", "function": name})):
        assert similarity.function == name
        with pytest.raises(ValueError, match=f"{name!r}.*no name is looked up"):
            similarity.bind(None, None)
