"""Convert arrays, such as images, to AnnData."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from natsort import natsorted

from scmoe._core.keys import Key
from scmoe._core.settings import is_number

_LARGEST_BYTE = 255
_MOST_COLOURS = 4


def from_array(
    X: Any,
    *,
    image_shape: Sequence[int] | None = None,
    obs: Mapping[str, Any] | pd.DataFrame | None = None,
    obs_names: Sequence[str] | None = None,
    var_names: Sequence[str] | None = None,
    scale: float | None = None,
) -> AnnData:
    """Convert an array to AnnData: one row for each cell, or for each image.

    Parameters
    ----------
    X
        Real numbers, (n, d); or images, (n, H, W) or (n, H, W, C), channels last. Anything that
        :func:`numpy.asarray` accepts, for instance a torch tensor.
    image_shape
        (H, W) or (H, W, C) of images that are flattened to (n, d), row by row and channels last.
        By default the shape of `X` decides.
    obs
        Columns of ``.obs`` by name, n values each, matched by position. A DataFrame with an index
        of strings names the rows as well.
    obs_names
        n different names; by default ``"0"``, ``"1"``, ...
    var_names
        d different names; by default ``"y_x"`` or ``"y_x_c"`` for the pixels of images, such as
        ``"0_27"`` (row 0, column 27), else ``"0"``, ``"1"``, ...
    scale
        Divisor of the values. By default 255 for images of ``uint8``, else 1.

    Returns
    -------
    AnnData, n x d, with

    ``.X``
        Dense, float32: ``X / scale``, images flattened row after row, channels last.
    ``.obs``
        Columns of strings, integers or booleans become categorical, in natural order. A
        categorical keeps its order. Floats stay floats.
    ``.uns["image_shape"]``
        (H, W) or (H, W, C), int64, for images only; ``.X.reshape(-1, *image_shape)`` restores
        them.
    ``.uns["value_scale"]``
        The `scale`, float, unless it is 1; ``.X`` times the scale restores the values of `X`.

    Raises
    ------
    ValueError
        If `X` has another shape, is empty, or holds anything but finite real numbers; if
        `image_shape` or the number of names or labels does not fit `X`; if names are not unique;
        if a 4-d `X` looks like channels first; if `scale` is not positive.

    Examples
    --------
    >>> adata = scmoe.io.from_array(images, obs={"label": digits})
    >>> adata.X[0].reshape(adata.uns["image_shape"])
    """
    values = np.asarray(X)
    _check_values(values)
    shape = _image_shape(values.shape, image_shape)
    divisor = _divisor(scale, is_bytes=shape is not None and values.dtype == np.uint8)
    n = len(values)
    flat = _flat(values, divisor)
    obs = {} if obs is None else obs
    columns = {str(name): _column(str(name), obs[name], n) for name in obs}
    if obs_names is None and _names_rows(obs):
        obs_names = obs.index
    rows = _names("obs_names", obs_names, n, [str(i) for i in range(n)])
    variables = _names("var_names", var_names, flat.shape[1], _pixels(shape or flat.shape[1:]))
    adata = AnnData(
        X=flat,
        obs=pd.DataFrame(columns, index=rows),
        var=pd.DataFrame(index=variables),
    )
    if shape is not None:
        adata.uns[Key.uns.IMAGE_SHAPE] = np.array(shape, dtype=np.int64)
    if divisor != 1:
        adata.uns[Key.uns.VALUE_SCALE] = divisor
    return adata


def _check_values(values: np.ndarray) -> None:
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"`X` holds {values.dtype}, not real numbers (a sparse matrix: pass `X.toarray()`)."
        )
    if values.ndim not in (2, 3, 4):
        raise ValueError(
            "`X` is (n, d), or (n, H, W) or (n, H, W, C) for images; this one has "
            f"{values.ndim} dimensions, shape {values.shape}."
        )
    if values.size == 0:
        raise ValueError(f"`X` is empty: its shape is {values.shape}.")
    if values.ndim == 4 and values.shape[1] <= _MOST_COLOURS < values.shape[3]:
        raise ValueError(
            f"`X` of shape {values.shape} looks like channels first; pass "
            "`np.moveaxis(X, 1, -1)`. If these are rows, pass `X.reshape(len(X), -1)` with "
            f"`image_shape={values.shape[1:]}`."
        )


def _image_shape(
    shape: tuple[int, ...], image_shape: Sequence[int] | None
) -> tuple[int, ...] | None:
    """Return the shape of an image, (H, W) or (H, W, C); None for other arrays."""
    of_array = shape[1:]
    if image_shape is None:
        return of_array if len(of_array) > 1 else None
    given = tuple(np.atleast_1d(image_shape).tolist())
    whole = all(isinstance(size, int) and size > 0 for size in given)
    if len(given) not in (2, 3) or not whole:
        raise ValueError(
            f"`image_shape` is (H, W) or (H, W, C), whole numbers from 1 on, not {image_shape!r}."
        )
    if len(of_array) == 1 and np.prod(given) != of_array[0]:
        raise ValueError(
            f"`image_shape` {given} has {np.prod(given)} values, but the rows of `X` have "
            f"{of_array[0]}."
        )
    if len(of_array) > 1 and given != of_array:
        raise ValueError(f"`image_shape` is {given}, but the images of `X` are {of_array}.")
    return given


def _divisor(scale: float | None, *, is_bytes: bool) -> float:
    if scale is None:
        return float(_LARGEST_BYTE) if is_bytes else 1.0
    if not is_number(scale) or not 0 < scale < np.inf:
        raise ValueError(f"`scale` is a positive number, not {scale!r}.")
    return float(scale)


def _flat(values: np.ndarray, divisor: float) -> np.ndarray:
    """Return a scaled copy with one row for each cell, float32."""
    # values beyond float32 become infinite, and raise below
    with np.errstate(over="ignore"):
        flat = values.reshape(len(values), -1).astype(np.float32)
        flat /= np.float32(divisor)
    bad = ~np.isfinite(flat).all(axis=1)
    if bad.any():
        raise ValueError(
            f"`X` holds NaN, infinite or too large values in {bad.sum()} of {len(flat)} rows, "
            f"the first is row {np.argmax(bad)}; remove or replace them."
        )
    return flat


def _names_rows(obs: Mapping[str, Any] | pd.DataFrame) -> bool:
    return isinstance(obs, pd.DataFrame) and not pd.api.types.is_numeric_dtype(obs.index)


def _pixels(shape: tuple[int, ...]) -> list[str]:
    """Return the names of the positions in an array, last axis fastest."""
    return ["_".join(map(str, position)) for position in np.ndindex(shape)]


def _names(what: str, given: Sequence[str] | None, n: int, default: list[str]) -> pd.Index:
    if given is None:
        return pd.Index(default)
    names = pd.Index([str(name) for name in given])
    if len(names) != n:
        raise ValueError(f"`{what}` has {len(names)} names, but `X` needs {n}.")
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(f"`{what}` are not unique: {', '.join(twice[:5])}.")
    return names


def _column(name: str, given: Any, n: int) -> pd.Categorical | np.ndarray:
    """Return a column of ``.obs``: floats as they are, anything else as categorical."""
    of_pandas = isinstance(given, pd.Series | pd.Index | pd.Categorical)
    values = given if of_pandas else np.asarray(given)
    if values.ndim != 1:
        raise ValueError(f"`obs[{name!r}]` has {values.ndim} dimensions; one value per row fits.")
    if len(values) != n:
        raise ValueError(f"`obs[{name!r}]` has {len(values)} values, but `X` has {n} rows.")
    values = pd.Series(values).array
    if isinstance(values, pd.Categorical):
        return values.rename_categories([str(label) for label in values.categories])
    if pd.api.types.is_float_dtype(values.dtype):
        return pd.Series(values).to_numpy(np.float64, na_value=np.nan)
    missing = pd.isna(values)
    labels = np.array(
        [None if m else str(v) for v, m in zip(values, missing, strict=True)], object
    )
    return pd.Categorical(labels, categories=natsorted(set(labels[~missing])))
