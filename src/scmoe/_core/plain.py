"""Python values as plain JSON and back without loss and without code; values for h5ad files.

What JSON lacks is an object with the key ``"!"`` that names its kind. Reading looks kinds and
dtypes up in the lists below; nothing is imported or evaluated by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import torch

KIND = "!"
"""The key that marks an object which stands for something else."""

NUMBERS = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
}
"""Dtypes of numbers."""

RAGGED = 64
"""Strings of an array that differ more in length than this are not brought to one length.

One long string would make an array of it and of many short ones far larger than their text.
"""

FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""Floats that JSON cannot write."""


def to_plain(value: Any, where: str, tensors: dict[str, torch.Tensor] | None = None) -> Any:
    """Convert a value to plain values that JSON can hold.

    Parameters
    ----------
    value
        None, bool, int, float, str; lists, tuples and mappings; numpy scalars and arrays of
        numbers, strings or such objects; DataFrames with string columns; tensors.
    where
        Name of the value, for the error and for its tensors.
    tensors
        Takes the tensors, under names that start with ``where``; None where there must be none.

    Raises
    ------
    ValueError
        Something else; it names where.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {KIND: "float", "value": str(value)}
    if isinstance(value, np.generic):
        array = to_plain(np.asarray(value), where)
        return {KIND: "scalar", "dtype": array["dtype"], "value": array["values"][0]}
    if isinstance(value, np.ndarray):
        return _plain_array(value, where, tensors)
    if kind is list:
        return [to_plain(v, f"{where}/{i}", tensors) for i, v in enumerate(value)]
    if kind is tuple:
        return {KIND: "tuple", "items": to_plain(list(value), where, tensors)}
    if isinstance(value, Mapping):
        return _plain_mapping(value, where, tensors)
    if isinstance(value, pd.DataFrame):
        return _plain_frame(value, where)
    if tensors is not None and _is_tensor(value):
        tensors[where] = value
        return {KIND: "tensor", "name": where}
    raise ValueError(
        f"`{where}` is a {kind.__module__}.{kind.__qualname__}, which can't be written as plain "
        "values. Use numbers, strings, lists, mappings, arrays or DataFrames."
    )


def from_plain(value: Any, tensors: Mapping[str, torch.Tensor] | None = None) -> Any:
    """Restore a value from :func:`to_plain`; ValueError for anything else."""
    try:
        return _restored(value, tensors or {})
    except (KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"a value is not written as it should be: {error!r}") from error


def for_h5ad(value: Any) -> Any:
    """Return a value that ``.uns`` of an h5ad file can hold, not without loss.

    Entries of mappings that are None are left out, lists and tuples become arrays, and objects of
    other kinds become text.
    """
    if isinstance(value, dict):
        return {k: for_h5ad(v) for k, v in value.items() if v is not None}
    if isinstance(value, tuple | list):
        simple = all(isinstance(v, bool | int | float | str | np.generic) for v in value)
        return np.asarray(value if simple else [str(v) for v in value])
    if isinstance(value, bool | int | float | str | np.generic | np.ndarray | pd.DataFrame):
        return value
    return str(value)


def as_python(value: Any) -> Any:
    """Return a value of a record, which an h5ad file may hold as numpy, as one of Python."""
    if isinstance(value, Mapping):
        return {name: as_python(v) for name, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _plain_array(value: np.ndarray, where: str, tensors: dict | None) -> dict[str, Any]:
    if value.dtype.name in NUMBERS:
        dtype, values = value.dtype.name, value.ravel().tolist()
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            values = [to_plain(v, where) for v in values]
    elif value.dtype.kind == "U":
        dtype, values = "str", value.ravel().tolist()
    elif value.dtype.kind == "O":
        dtype, values = "object", to_plain(list(value.ravel()), where, tensors)
    else:
        raise ValueError(f"`{where}` is an array of {value.dtype}, which can't be written.")
    return {KIND: "array", "dtype": dtype, "shape": list(value.shape), "values": values}


def _plain_mapping(value: Mapping, where: str, tensors: dict | None) -> dict[str, Any]:
    if all(type(k) is str for k in value) and KIND not in value:
        return {k: to_plain(v, f"{where}/{k}", tensors) for k, v in value.items()}
    items = [[to_plain(k, where), to_plain(v, f"{where}/{k}", tensors)] for k, v in value.items()]
    return {KIND: "mapping", "items": items}


def _plain_frame(value: pd.DataFrame, where: str) -> dict[str, Any]:
    if not all(type(name) is str for name in value.columns) or not value.columns.is_unique:
        raise ValueError(f"`{where}` is a DataFrame whose columns are not unique strings.")
    return {
        KIND: "frame",
        "index": to_plain(value.index.to_numpy(), where),
        "index_name": to_plain(value.index.name, where),
        "columns": [
            [name, to_plain(value[name].to_numpy(), f"{where}/{name}")] for name in value.columns
        ],
    }


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _restored(value: Any, tensors: Mapping) -> Any:
    if isinstance(value, list):
        return [_restored(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if KIND not in value:
        return {k: _restored(v, tensors) for k, v in value.items()}
    value = dict(value)
    kind = value.pop(KIND)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"unknown kind of value {kind!r}")
    return _KINDS[kind](tensors, **value)


def _float(tensors: Mapping, *, value: str) -> float:
    return FLOATS[value]


def _scalar(tensors: Mapping, *, dtype: str, value: Any) -> np.generic:
    return _array(tensors, dtype=dtype, shape=[1], values=[value])[0]


def _array(tensors: Mapping, *, dtype: str, shape: list[int], values: list) -> np.ndarray:
    if not isinstance(values, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array without values or shape")
    if math.prod(shape) != len(values):
        raise ValueError(f"an array of shape {shape} with {len(values)} values")
    values = _restored(values, tensors)
    if dtype not in NUMBERS | {"str", "object"}:
        raise ValueError(f"unknown dtype {dtype!r}")
    allowed = {"b": bool, "i": int, "u": int, "f": float, "U": str, "O": object}
    kind = allowed[np.dtype(dtype).kind]
    if kind is not object and not all(type(v) is kind for v in values):
        raise ValueError(f"an array of {dtype} with other values")
    if kind is object or (kind is str and _ragged(values)):
        array = np.empty(len(values), dtype=object)
        for i, v in enumerate(values):
            # not all at once, which would unfold values that are lists or arrays
            array[i] = v
    else:
        with np.errstate(over="raise"):
            array = np.array(values, dtype=dtype)
    return array.reshape(shape)


def _ragged(strings: list[str]) -> bool:
    lengths = [len(s) + 1 for s in strings]
    return len(lengths) * max(lengths, default=0) > RAGGED * sum(lengths)


def _tuple(tensors: Mapping, *, items: list) -> tuple:
    return tuple(_restored(items, tensors))


def _mapping(tensors: Mapping, *, items: list) -> dict:
    value = {_restored(k, tensors): _restored(v, tensors) for k, v in items}
    if len(value) < len(items):
        raise ValueError("a key occurs twice")
    return value


def _frame(tensors: Mapping, *, index: dict, index_name: Any, columns: list) -> pd.DataFrame:
    rows = _restored(index, tensors)
    values = {name: _restored(column, tensors) for name, column in columns}
    # whatever else pandas would repeat for each row
    if len(values) < len(columns) or not all(
        isinstance(v, np.ndarray) and v.shape == (len(rows),) for v in (rows, *values.values())
    ):
        raise ValueError("a table whose columns are not arrays of its length")
    index = pd.Index(rows, name=_restored(index_name, tensors))
    return pd.DataFrame(values, index=index, columns=list(values))


def _tensor(tensors: Mapping, *, name: str) -> torch.Tensor:
    return tensors[name]


_KINDS = {
    "float": _float,
    "scalar": _scalar,
    "array": _array,
    "tuple": _tuple,
    "mapping": _mapping,
    "frame": _frame,
    "tensor": _tensor,
}
