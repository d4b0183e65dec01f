"""Transform intensities by arcsinh, and back."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata.compat import DaskArray
from scipy import sparse

from scmoe._core.cells import check_adata, check_is_adata, check_names, layer_values
from scmoe._core.keys import Key
from scmoe._core.settings import is_number
from scmoe._core.text import written
from scmoe._core.values import FEW_CELLS, Scale, arcsinh_record, cells_beyond, warn_if_transformed

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("scmoe")

_PIECE = 1 << 18
"""Values transformed at once."""
_JUDGED_CELLS = 10_000
"""Cells of a dask array that are checked for an earlier transform."""


def arcsinh(
    adata: AnnData,
    cofactor: float | Mapping[str, float] | pd.Series = 5,
    *,
    layer: str | None = None,
    channels: Sequence[str] | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Transform intensities to ``arcsinh(x / cofactor)``.

    Parameters
    ----------
    adata
        Cells x channels, raw intensities; dense, sparse, or a dask array (also of AnnData that
        was read lazily), which stays one.
    cofactor
        The transform is nearly linear below the cofactor, and nearly logarithmic far above it.
        One positive number (5 is usual for mass cytometry, 150 for fluorescence), or one for each
        marker: a mapping or Series by ``.var_names``.
    layer
        Transform ``.layers[layer]`` instead of ``.X``.
    channels
        Names of the variables to transform. By default those whose ``.var["kind"]`` is not
        ``time``, ``scatter``, ``copy`` or ``other``; all if ``.var`` lacks that column.
    key_added
        Write the result to ``.layers[key_added]`` and leave the source unchanged.
    copy
        Return a transformed copy and leave `adata` unchanged.

    Returns
    -------
    None, or the copy if `copy`. Writes

    ``.X``, ``.layers[layer]`` or ``.layers[key_added]``
        float32; float64 if the source is float64. Floats without another reference are
        transformed in place, to save memory.
    ``.uns["arcsinh"][name]``
        ``channels`` (array of str), ``cofactor`` (one float for each of them) and ``source``;
        `name` is the layer that was written, ``"X"`` for ``.X``. :func:`inverse_arcsinh`
        reads it.

    Raises
    ------
    ValueError
        If the source was transformed before; if `adata` is a view, or backed by a file, or has
        names that are not unique; if the chunks of a dask array split the channels; if a cofactor
        is not a positive number; if a mapping lacks a marker to transform; if there is no channel
        to transform; if the source holds values that are not numbers.
    KeyError
        If `layer`, `channels` or `cofactor` name a layer or variable that does not exist.

    Warns
    -----
    ScaleWarning
        If there is no record of a transform, but the values look transformed already (no marker
        exceeds 20), or the keywords of their files say so. They are transformed nevertheless,
        unless the warning is turned into an error.

    Notes
    -----
    Nothing is written if an error is raised; an interruption takes effect after the write. A dask
    array is checked for an earlier transform by its first 10,000 cells.
    """
    _check_cells(adata)
    source_name = "X" if layer is None else layer
    target = source_name if key_added is None else key_added
    done = adata.uns.get(Key.uns.ARCSINH, {})
    for name in {source_name, target} & set(done):
        raise ValueError(
            f"{written(name)} holds arcsinh values already, see .uns['{Key.uns.ARCSINH}']; it "
            "is not transformed twice."
        )
    source = _matrix(adata, layer)
    cofactors = channel_cofactors(adata, cofactor, channels)
    columns = adata.var_names.get_indexer(cofactors.index)
    warn_if_transformed(
        adata,
        _values_to_judge(source, columns, cofactors.to_numpy()),
        source_name,
        "What is transformed already can be clustered as it is.",
    )
    del source
    result = adata.copy() if copy else adata

    def write() -> None:
        values = _matrix(result, layer)
        # a small cofactor may overflow and raise half-way
        in_place = target == source_name and cofactors.min() >= 1 and _owns_memory(values)
        if in_place:
            in_place = sys.getrefcount(values) <= _fewest_references()
        values = transform(values, columns, cofactors.to_numpy(), in_place=in_place)
        if target == "X":
            result.X = values
        else:
            result.layers[target] = values
        record = record_of(cofactors, source_name)
        result.uns[Key.uns.ARCSINH] = {**done, target: record}

    # an interruption reaches the main thread only, so it waits until everything is written
    with ThreadPoolExecutor(1) as beside:
        beside.submit(write).result()
    logger.info("arcsinh of %d of %d channels in %s", len(columns), adata.n_vars, written(target))
    return result if copy else None


class StreamedArcsinh:
    """Apply :func:`arcsinh` to cells that come one sample at a time.

    Parameters
    ----------
    head
        AnnData with the variables of the cells, and any cells.
    cofactor
        As in :func:`arcsinh`.
    n_obs
        Number of all cells.
    """

    def __init__(self, head: AnnData, cofactor: Any, n_obs: int) -> None:
        self._cofactors = channel_cofactors(head, cofactor)
        self._columns = head.var_names.get_indexer(self._cofactors.index)
        self._scale = Scale(np.empty((0, len(self._columns))))
        self._n_obs = n_obs

    def apply(self, X: np.ndarray, _: str) -> None:
        """Transform the cells of a sample in place."""
        cofactors = self._cofactors.to_numpy()
        if not self._scale.surely_raw(self._n_obs):
            # a cofactor below 1 is meant for intensities that were scaled down
            self._scale.add(X[:, self._columns] / np.minimum(cofactors, 1).astype(X.dtype))
        transform(X, self._columns, cofactors, in_place=True)

    def warn(self, adata: AnnData) -> None:
        """Warn if the values before the transform looked transformed."""
        warn_if_transformed(adata, self._scale, "X", "Leave `cofactor` out.")

    def record(self) -> dict[str, Any]:
        """Return the entry of ``.uns`` that :func:`arcsinh` writes."""
        return {Key.uns.ARCSINH: {"X": record_of(self._cofactors, "X")}}


def inverse_arcsinh(
    adata: AnnData, *, layer: str | None = None, copy: bool = False
) -> AnnData | None:
    """Undo :func:`arcsinh`: transform to ``cofactor * sinh(x)`` by its record.

    Parameters
    ----------
    adata
        Cells x channels with the record of :func:`arcsinh`; dense or sparse. The cells may be
        others than the transformed ones, such as generated cells, with fewer channels.
    layer
        Transform ``.layers[layer]`` instead of ``.X``.
    copy
        Return a transformed copy and leave `adata` unchanged.

    Returns
    -------
    None, or the copy if `copy`. Writes

    ``.X`` or ``.layers[layer]``
        Intensities, in place of the transformed values; float32, float64 if these are float64.
        Channels that the record does not name stay unchanged.
    ``.uns["arcsinh"]``
        Without the record of this transform; removed with the last record.

    Raises
    ------
    ValueError
        If there is no record of a transform, or it names no channel of `adata`; if the inverse of
        a value overflows; if `adata` is a view.
    KeyError
        If the layer does not exist.

    Notes
    -----
    Nothing is written if an error is raised.

    Examples
    --------
    >>> scmoe.pp.arcsinh(adata, cofactor=5)
    >>> scmoe.pp.inverse_arcsinh(adata)
    """
    check_adata(adata)
    name = "X" if layer is None else layer
    source = layer_values(adata, layer)
    done = adata.uns.get(Key.uns.ARCSINH, {})
    chosen, cofactors = _recorded_cofactors(adata, name)
    columns = adata.var_names.get_indexer(chosen)
    try:
        with np.errstate(over="raise"):
            values = transform(source, columns, cofactors, function=_sinh)
    except FloatingPointError:
        raise ValueError(
            f"{written(name)} holds values that are too large to come from arcsinh; was it "
            f"written anew since .uns['{Key.uns.ARCSINH}'] was?"
        ) from None

    result = adata.copy() if copy else adata
    if layer is None:
        result.X = values
    else:
        result.layers[layer] = values
    left = {other: record for other, record in done.items() if other != name}
    rest = {key: value for key, value in result.uns.items() if key != Key.uns.ARCSINH}
    # a new dict, since generated cells may share `.uns` with the cells of the model
    result.uns = {**rest, Key.uns.ARCSINH: left} if left else rest
    logger.info(
        "undid arcsinh of %d of %d channels in %s", len(chosen), adata.n_vars, written(name)
    )
    return result if copy else None


def _recorded_cofactors(adata: AnnData, name: str) -> tuple[list[str], np.ndarray]:
    """Return the channels of the record that `adata` has, and their cofactors."""
    done, given = adata.uns.get(Key.uns.ARCSINH, {}), arcsinh_record(adata, name)
    if given is None:
        told = ", ".join(map(written, done)) or "nothing"
        raise ValueError(
            f"there is no record of an arcsinh of {written(name)} in .uns['{Key.uns.ARCSINH}'], "
            f"which tells of {told}; `scmoe.pp.arcsinh` writes it."
        )
    chosen = [channel for channel in given if channel in adata.var_names]
    if not chosen:
        raise ValueError(
            f"none of the channels whose arcsinh is in {written(name)} by "
            f".uns['{Key.uns.ARCSINH}'] is in .var_names: {', '.join(given)}"
        )
    return chosen, np.array([given[channel] for channel in chosen], dtype=np.float64)


def channel_cofactors(
    adata: AnnData, cofactor: Any, channels: Sequence[str] | None = None
) -> pd.Series:
    """Return the cofactor of each channel to transform, by name."""
    chosen = _chosen_channels(adata, channels)
    values = _check_cofactors(cofactor, chosen, adata.var_names, single=np.isscalar(cofactor))
    return pd.Series(values, index=pd.Index(chosen, dtype=object))


def record_of(cofactors: pd.Series, source: str) -> dict[str, Any]:
    """Return the record of a transform for ``.uns["arcsinh"]``."""
    channels = np.array(cofactors.index, dtype=object)
    return {"channels": channels, "cofactor": cofactors.to_numpy(), "source": source}


def _chosen_channels(adata: AnnData, channels: Sequence[str] | None) -> list[str]:
    if channels is None:
        if Key.var.KIND not in adata.var:
            return list(adata.var_names)
        chosen = adata.var_names[~adata.var[Key.var.KIND].isin(Key.var.TECHNICAL_KINDS)]
    else:
        chosen = [channels] if isinstance(channels, str) else list(channels)
        unknown = [name for name in chosen if name not in adata.var_names]
        if unknown:
            raise KeyError(f"`channels` names what is not in .var_names: {unknown}")
        if len(set(chosen)) < len(chosen):
            raise ValueError("`channels` names a channel twice.")
    if len(chosen) == 0:
        raise ValueError(
            "there is no channel to transform: `channels` is empty, or .var['kind'] is "
            f"{', '.join(Key.var.TECHNICAL_KINDS)} for all; name them with `channels=`."
        )
    return list(chosen)


def _check_cofactors(
    cofactor: Any, chosen: list[str], known: pd.Index, *, single: bool
) -> np.ndarray:
    """Return one positive cofactor for each chosen channel."""
    if isinstance(cofactor, Mapping | pd.Series):
        given = dict(cofactor.items())
        unknown = [name for name in given if name not in known]
        if unknown:
            raise KeyError(f"`cofactor` names what is not in .var_names: {unknown}")
        missing = [name for name in chosen if name not in given]
        if missing:
            raise ValueError(f"`cofactor` has no value for: {', '.join(missing)}")
        values = [given[name] for name in chosen]
    elif single:
        values = [cofactor] * len(chosen)
    else:
        raise ValueError(
            "`cofactor` is a positive number, or a mapping or Series of them by marker, not "
            f"{type(cofactor).__name__}."
        )
    bad = [name for name, x in zip(chosen, values, strict=True) if not _is_positive(x)]
    if bad:
        raise ValueError(f"`cofactor` is not a positive number for: {', '.join(bad)}")
    return np.array(values, dtype=np.float64)


def _is_positive(x: Any) -> bool:
    return bool(is_number(x) and 0 < x < np.inf)


def _check_cells(adata: AnnData) -> None:
    """Check AnnData as :func:`check_adata` does, but allow AnnData that was read lazily."""
    check_is_adata(adata)
    if adata.isbacked:
        raise ValueError(
            "`adata` is backed by a file; pass `adata.to_memory()`, or read the file with "
            "`anndata.experimental.read_lazy`, which leaves the values on the disk."
        )
    if isinstance(adata.obs, pd.DataFrame):
        check_adata(adata)
    else:
        check_names(adata)


def _matrix(adata: AnnData, layer: str | None) -> Any:
    """Return the matrix to transform; a dask array stays one."""
    if layer is None or layer in adata.layers:
        values = adata.X if layer is None else adata.layers[layer]
        if isinstance(values, DaskArray):
            if len(values.chunks[1]) > 1:
                raise ValueError(
                    f"The chunks of {written(layer or 'X')} split the channels; rechunk it, such "
                    "as `x.rechunk({1: -1})`, so that a chunk has all of them."
                )
            return values
    return layer_values(adata, layer)


def _values_to_judge(source: Any, columns: np.ndarray, cofactors: np.ndarray) -> Any:
    """Return values for the check of an earlier transform; no rows if the values are raw."""
    # a cofactor below 1 is meant for intensities that were scaled down
    units = np.minimum(cofactors, 1)
    if isinstance(source, DaskArray):
        source = source[:_JUDGED_CELLS].compute()
    beyond = np.zeros(len(columns))
    for rows in _pieces(source):
        piece = source[rows][:, columns]
        beyond += cells_beyond(piece if (units == 1).all() else piece / units)
        if (beyond > FEW_CELLS * source.shape[0]).any():
            return source[:0, columns]
    judged = source[:, columns]
    return judged if (units == 1).all() else judged / units


def _owns_memory(values: Any) -> bool:
    """Whether values are floats that own their memory and can be changed in place."""
    return (
        isinstance(values, np.ndarray)
        and values.dtype in (np.float32, np.float64)
        and values.flags.owndata
        and values.flags.writeable
    )


def _fewest_references() -> int:
    """Return the reference count of an array with one owner and one local name."""
    place = [np.empty(0)]
    values = place[0]
    return sys.getrefcount(values)


def _arcsinh(x: np.ndarray, cofactor: np.ndarray) -> None:
    np.divide(x, cofactor, out=x)
    np.arcsinh(x, out=x)


def _sinh(x: np.ndarray, cofactor: np.ndarray) -> None:
    np.sinh(x, out=x)
    np.multiply(cofactor, x, out=x)


def _pieces(values: Any) -> Iterator[slice]:
    """Yield slices of rows that fit into the cache; a sparse matrix is one slice."""
    n, d = values.shape
    step = n if sparse.issparse(values) else _PIECE // d
    return (slice(first, first + step) for first in range(0, n, max(step, 1)))


def transform(
    source: Any,
    columns: np.ndarray,
    cofactors: np.ndarray,
    *,
    function: Callable[[np.ndarray, np.ndarray], None] = _arcsinh,
    in_place: bool = False,
) -> Any:
    """Apply a function of value and cofactor to some columns, in place or in a copy.

    Sparse matrices stay sparse, since the function maps 0 to 0; a dask array stays one.
    """
    dtype = np.float64 if source.dtype == np.float64 else np.float32
    if isinstance(source, DaskArray):
        meta = source._meta.astype(dtype)
        return source.map_blocks(transform, columns, cofactors, function=function, meta=meta)
    cofactor = np.ones(source.shape[1], dtype=dtype)
    cofactor[columns] = cofactors
    columns = np.sort(columns)
    if sparse.issparse(source):
        values = source.tocsr().astype(dtype, copy=True)
        of_chosen = np.isin(values.indices, columns)
        part = values.data[of_chosen]
        function(part, cofactor[values.indices[of_chosen]])
        values.data[of_chosen] = part
        return values.asformat(source.format)
    values = source if in_place else np.array(source, dtype=dtype)
    every = len(columns) == values.shape[1]
    for rows in _pieces(values):
        part = values[rows] if every else values[rows, columns]
        function(part, cofactor[columns])
        if not every:
            values[rows, columns] = part
    return values
