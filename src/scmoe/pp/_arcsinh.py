"""The arcsinh transform of cytometry, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from scmoe._checks import (
    arcsinh_record,
    check_adata,
    layer_values,
    warn_if_transformed,
    written,
)
from scmoe._keys import Key
from scmoe._numbers import is_number

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("scmoe")


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
        Cells x channels, raw intensities; dense or sparse.
    cofactor
        Below it the transform is about linear, far above it about logarithmic. One positive
        number (5 is usual for mass cytometry, 150 for fluorescence), or one per marker: a
        mapping or Series by ``.var_names``.
    layer
        Transform ``.layers[layer]`` instead of ``.X``.
    channels
        Names of the variables to transform. By default those whose ``.var["kind"]`` is not
        ``time``, ``scatter``, ``copy`` or ``other``; all where ``.var`` has no such column.
    key_added
        Write the result to ``.layers[key_added]`` and leave the source as it is.
    copy
        Return a transformed copy and leave `adata` as it is.

    Returns
    -------
    None, or the copy if `copy`. Writes

    ``.X``, ``.layers[layer]`` or ``.layers[key_added]``
        float32; float64 where the source is float64.
    ``.uns["arcsinh"][name]``
        ``channels`` (array of str), ``cofactor`` (one float for each of them) and ``source``;
        `name` is the layer that was written, ``"X"`` for ``.X``. :func:`inverse_arcsinh`
        reads it.

    Raises
    ------
    ValueError
        If the source was transformed before; if `adata` is a view, or in a file, or has names
        that are not unique; if a cofactor is not a positive number; if a mapping lacks a marker
        that is to be transformed; if there is nothing to transform; if the source holds values
        that are not numbers.
    KeyError
        If `layer`, `channels` or `cofactor` name what is not there.

    Warns
    -----
    ScaleWarning
        If there is no record of a transform, but the values look transformed already (no marker
        goes beyond 20), or the keywords of their files say so. They are transformed all the
        same, unless the warning is made an error.

    Notes
    -----
    Nothing is written if an error is raised.
    """
    check_adata(adata)
    source_name = "X" if layer is None else layer
    target = source_name if key_added is None else key_added
    done = adata.uns.get(Key.uns.ARCSINH, {})
    for name in {source_name, target} & set(done):
        raise ValueError(
            f"{written(name)} holds arcsinh values already, see .uns['{Key.uns.ARCSINH}']; it "
            "is not transformed twice."
        )
    source = layer_values(adata, layer)
    chosen = _channels(adata, channels)
    cofactors = _cofactors(cofactor, chosen, adata.var_names, single=np.isscalar(cofactor))
    columns = adata.var_names.get_indexer(chosen)
    # a cofactor below 1 is for intensities that were scaled down
    units = np.minimum(cofactors, 1)
    judged = source[:, columns]
    warn_if_transformed(
        adata,
        judged if (units == 1).all() else judged / units,
        source_name,
        "What is transformed already can be clustered as it is.",
    )
    values = _transform(source, columns, cofactors, lambda x, c: np.arcsinh(x / c))

    result = adata.copy() if copy else adata
    if target == "X":
        result.X = values
    else:
        result.layers[target] = values
    record = {"channels": np.array(chosen, dtype=object), "cofactor": cofactors}
    result.uns[Key.uns.ARCSINH] = {**done, target: {**record, "source": source_name}}
    logger.info("arcsinh of %d of %d channels in %s", len(chosen), adata.n_vars, written(target))
    return result if copy else None


def inverse_arcsinh(
    adata: AnnData, *, layer: str | None = None, copy: bool = False
) -> AnnData | None:
    """Undo :func:`arcsinh`: transform to ``cofactor * sinh(x)`` by its record.

    Parameters
    ----------
    adata
        Cells x channels with the record of :func:`arcsinh`; dense or sparse. It may hold other
        cells than those that were transformed, such as generated ones, and fewer channels.
    layer
        Transform ``.layers[layer]`` back instead of ``.X``.
    copy
        Return a transformed copy and leave `adata` as it is.

    Returns
    -------
    None, or the copy if `copy`. Writes

    ``.X`` or ``.layers[layer]``
        Intensities, in place of the transformed values; float32, float64 where these are
        float64. Channels that the record does not name stay as they are.
    ``.uns["arcsinh"]``
        Loses the record of what was transformed back, and goes with the last one.

    Raises
    ------
    ValueError
        If there is no record of a transform, or it names no channel of `adata`; if values are
        too large for the inverse to be a number; if `adata` is a view.
    KeyError
        If there is no such layer.

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
    chosen, cofactors = _recorded(adata, name)
    columns = adata.var_names.get_indexer(chosen)
    try:
        with np.errstate(over="raise"):
            values = _transform(source, columns, cofactors, lambda x, c: c * np.sinh(x))
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
    # a new dict: generated cells may share theirs with the cells that they are modelled on
    result.uns = {**rest, Key.uns.ARCSINH: left} if left else rest
    logger.info(
        "undid arcsinh of %d of %d channels in %s", len(chosen), adata.n_vars, written(name)
    )
    return result if copy else None


def _recorded(adata: AnnData, name: str) -> tuple[list[str], np.ndarray]:
    """Return the channels of the record that are there, and their cofactors."""
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


def _channels(adata: AnnData, channels: Sequence[str] | None) -> list[str]:
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


def _cofactors(cofactor: Any, chosen: list[str], known: pd.Index, *, single: bool) -> np.ndarray:
    """Return one positive number for each chosen channel."""
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


def _transform(
    source: Any,
    columns: np.ndarray,
    cofactors: np.ndarray,
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Any:
    """Return a copy with a function of value and cofactor applied to some columns.

    Sparse stays sparse: the function of 0 is 0.
    """
    dtype = np.float64 if source.dtype == np.float64 else np.float32
    cofactor = np.ones(source.shape[1], dtype=dtype)
    cofactor[columns] = cofactors
    touched = np.zeros(source.shape[1], dtype=bool)
    touched[columns] = True
    if sparse.issparse(source):
        values = source.tocsr().astype(dtype, copy=True)
        of_chosen = touched[values.indices]
        which = values.indices[of_chosen]
        values.data[of_chosen] = function(values.data[of_chosen], cofactor[which])
        return values.asformat(source.format)
    values = np.array(source, dtype=dtype)
    values[:, touched] = function(values[:, touched], cofactor[touched])
    return values
