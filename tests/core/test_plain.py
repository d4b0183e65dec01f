"""Values survive the way through JSON, and JSON runs nothing."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from scmoe._core.plain import from_plain, to_plain


def through(value, tensors=None):
    text = json.dumps(to_plain(value, "value", tensors), allow_nan=False)
    return from_plain(json.loads(text), tensors)


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            0,
            -3,
            2**127,
            0.1,
            1e-320,
            -0.0,
            5e300,
            "",
            "ä\n\udcff",
        ),
        *([], [1, [2.5, "x", None]], (), (1, (2,), [3]), {}, {"a": {"b": (1,)}}),
        *({1: "x", (2, "y"): 3.5}, {"!": 1}, {"!": "array", "dtype": "object"}),
    ],
)
def test_plain_values(value):
    again = through(value)
    assert again == value
    assert type(again) is type(value)
    assert repr(again) == repr(value)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_floats_that_json_lacks(value):
    again = through({"x": [value]})["x"][0]
    assert type(again) is float
    np.testing.assert_equal(again, value)


@pytest.mark.parametrize(
    "value",
    [
        np.int8(-3),
        np.uint64(2**64 - 1),
        np.float32(0.1),
        np.float64(np.nan),
        np.bool_(True),
        np.str_("x"),
    ],
)
def test_numpy_scalars(value):
    again = through(value)
    assert type(again) is type(value)
    np.testing.assert_equal(again, value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.array([0.1, np.nan, -np.inf], np.float32),
        np.random.default_rng(0).standard_normal((2, 3, 4)),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 4), np.int16),
        np.array(3.5),
        np.array([True, False]),
        np.array(["CD3", "ä"]),
        np.array(["CD3", None, 1.5, np.float32(2)], object),
        np.array([[1, "a"], [None, 2]], object),
    ],
)
def test_arrays(value):
    again = through(value)
    assert again.dtype == value.dtype
    assert again.shape == value.shape
    np.testing.assert_array_equal(again, value)
    if value.dtype == object:
        assert [type(v) for v in again.ravel()] == [type(v) for v in value.ravel()]


def test_tables():
    table = pd.DataFrame({"loss": [0.5, 0.25], "n": [1, 2]}, index=pd.Index([3, 4], name="epoch"))
    table["mixed"] = pd.Series([1.5, None], index=table.index, dtype=object)
    pd.testing.assert_frame_equal(through(table), table)
    empty = pd.DataFrame(columns=["loss"])
    pd.testing.assert_frame_equal(through(empty), empty, check_index_type=False)


def test_mappings_of_other_kinds_become_dicts():
    value = through({"a": OrderedDict(x=1), "b": defaultdict(dict, y=2)})
    assert value == {"a": {"x": 1}, "b": {"y": 2}}
    assert type(value["a"]) is type(value["b"]) is dict


def test_tensors_go_elsewhere():
    tensors = {}
    value = {"state": {0: {"step": torch.tensor(3.0)}}, "x": [torch.arange(3)]}
    again = through(value, tensors)
    assert set(tensors) == {"value/state/0/step", "value/x/0"}
    assert torch.equal(again["x"][0], torch.arange(3))
    assert torch.equal(again["state"][0]["step"], torch.tensor(3.0))


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"x",
        object(),
        len,
        1j,
        range(3),
        torch.zeros(2),
        np.datetime64("2020-01-01"),
        np.array([object()]),
        pd.DataFrame({1: [2]}),
        type("Name", (str,), {})("x"),
    ],
)
def test_what_cannot_be_written_is_named(value):
    with pytest.raises(ValueError, match=r"`top/a/1(/0)?` is "):
        to_plain({"a": [0, value]}, "top")


THREE = {"!": "array", "dtype": "int64", "shape": [3], "values": [0, 1, 2]}


@pytest.mark.parametrize(
    "written",
    [
        {"!": "os.system", "value": "x"},
        {"!": ["array"]},
        {"!": "__class__"},
        {"!": "array"},
        {"!": "array", "dtype": "object", "shape": [1], "values": [1], "further": 1},
        {"!": "array", "dtype": "datetime64[s]", "shape": [1], "values": [1]},
        {"!": "array", "dtype": "O", "shape": [1], "values": [1]},
        {"!": "array", "dtype": ["int8"], "shape": [1], "values": [1]},
        {"!": "array", "dtype": "int8", "shape": [2], "values": [1]},
        {"!": "array", "dtype": "int8", "shape": [-1], "values": [1]},
        {"!": "array", "dtype": "int8", "shape": 1, "values": [1]},
        {"!": "array", "dtype": "int8", "shape": [1], "values": "1"},
        {"!": "array", "dtype": "int8", "shape": [1], "values": [300]},
        {"!": "array", "dtype": "int8", "shape": [1], "values": [1.5]},
        {"!": "array", "dtype": "float32", "shape": [1], "values": ["nan"]},
        {"!": "array", "dtype": "float32", "shape": [1], "values": [{"!": "float", "value": 1}]},
        {"!": "float", "value": "1.5"},
        {"!": "float", "value": []},
        {"!": "scalar", "dtype": "int8", "value": None},
        {"!": "tuple", "items": 3},
        {"!": "mapping", "items": [[1]]},
        {"!": "mapping", "items": [[[1], 2]]},
        {"!": "frame", "index": [0], "index_name": None, "columns": [["a", [1, 2]]]},
        {"!": "frame", "index": 3, "index_name": None, "columns": []},
        {"!": "frame", "index": THREE, "index_name": None, "columns": [["a", 1]]},
        {"!": "frame", "index": THREE, "index_name": None, "columns": [["a", THREE]] * 2},
        {"!": "mapping", "items": [["a", 1], ["a", 2]]},
        {"!": "array", "dtype": "float32", "shape": [1], "values": [1e300]},
        {"!": "tensor", "name": "absent"},
    ],
)
def test_what_is_written_wrongly(written):
    with pytest.raises(ValueError, match=r".+"):
        from_plain({"x": [written]})


@pytest.mark.parametrize("size", [10, 1000])
def test_one_long_string_does_not_lengthen_the_others(size):
    strings = np.array(["a"] * size + ["b" * 100 * size], dtype=object)
    written = {"!": "array", "dtype": "str", "shape": [size + 1], "values": list(strings)}
    array = from_plain(json.loads(json.dumps(written)))
    np.testing.assert_array_equal(array, strings)
    assert array.nbytes < 50 * len(json.dumps(written))


def test_too_deep():
    deep = value = []
    for _ in range(100_000):
        value.append([])
        value = value[0]
    with pytest.raises(ValueError, match="RecursionError"):
        from_plain(deep)
