"""Compensate fluorescence: undo the spillover between channels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg, sparse

from scmoe._core.cells import check_adata, layer_values
from scmoe._core.keys import Key
from scmoe._core.text import listing, written
from scmoe._core.values import Scale, warn_if_transformed

from ._spillover_matrix import SpilloverMatrix, matrices_by_sample, rows_of, samples_subtracted

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

logger = logging.getLogger("scmoe")

_CHUNK = 100_000

LINEAR = "Spillover adds up on the linear scale: compensate first, then transform."
"""Advice for values that look transformed."""


def compensate(
    adata: AnnData,
    *,
    spillover: pd.DataFrame
    | str
    | PathLike[str]
    | Mapping[str, pd.DataFrame | str | PathLike[str]]
    | None = None,
    layer: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Compensate fluorescence: solve ``measured = signal @ spillover`` for the signal.

    Compensate the values of :func:`scmoe.io.read_fcs` before :func:`arcsinh`.

    Parameters
    ----------
    adata
        Cells x channels, intensities on the linear scale, float32 or float64, dense.
    spillover
        Row i, column j: the share of the signal of channel i that channel j sees; 1 on the
        diagonal. Rows and columns are named by channels (``.var["channel"]``) or by markers,
        and may be in any order.

        - None: the matrix of each file, ``.uns["fcs"][sample]["spillover"]``.
        - A DataFrame, or the path of a CSV file (a line of names; with or without a column
          of names): one matrix for all cells.
        - A mapping from sample to such a matrix, by ``.obs["sample"]``.
    layer
        Compensate ``.layers[layer]`` instead of ``.X``.
    copy
        Return a compensated copy and leave `adata` unchanged.

    Returns
    -------
    None, or the copy if `copy`. Writes

    ``.X`` or ``.layers[layer]``
        The signals, in place of the measured values; same dtype. Channels that no matrix names
        stay unchanged.
    ``.uns["compensated"][name]``
        ``samples`` (array of str), ``matrix`` (int array, the number of their matrix) and
        ``matrices``, a dict by ``"0"``, ``"1"``, ... of ``channels`` (array of str) and
        ``spillover`` (float64). `name` is the layer, ``"X"`` for ``.X``; without
        ``.obs["sample"]`` the only sample is ``""``.

    Raises
    ------
    ValueError
        If a sample has no matrix (the error says why: an unusable matrix in its file, or an
        instrument that compensated already, ``$DFCiTOj`` of FCS 2.0); if a matrix is not square,
        not finite, has 0 on the diagonal, is in percent, is singular or nearly so, or couples a
        channel that is missing among the variables; if the values were compensated with another
        matrix, or transformed by arcsinh; if they are integers, sparse or not finite; if `adata`
        is a view, or backed by a file.
    KeyError
        If the layer does not exist; if matrices differ by sample and ``.obs["sample"]`` is
        missing.
    FileNotFoundError
        If the CSV file does not exist.

    Warns
    -----
    UserWarning
        If the values were compensated with the same matrix before (nothing is done), or the
        instrument compensated already.
    ScaleWarning
        If there is no record of a transform, but the values look transformed, or the keywords
        of their files say so.

    Notes
    -----
    Nothing is written if an error is raised. Compensation needs every channel that the matrix
    couples, so drop channels after compensation.

    Source: Bagwell and Adams (1993), Annals of the New York Academy of Sciences 677.

    Examples
    --------
    >>> adata = scmoe.io.read_fcs("plate/")
    >>> scmoe.pp.compensate(adata)
    >>> scmoe.pp.arcsinh(adata, cofactor=150)
    """
    check_adata(adata)
    name = "X" if layer is None else layer
    values = layer_values(adata, layer)
    done = adata.uns.get(Key.uns.COMPENSATED, {})
    matrices = matrices_by_sample(spillover, adata)
    if name in done:
        _require_same(done[name], matrices, name)
        warnings.warn(
            f"{written(name)} was compensated with the same spillover before, see "
            f".uns['{Key.uns.COMPENSATED}']; nothing was done.",
            stacklevel=2,
        )
        return adata.copy() if copy else None
    if name in adata.uns.get(Key.uns.ARCSINH, {}):
        raise ValueError(
            f"{written(name)} holds arcsinh values, see .uns['{Key.uns.ARCSINH}'], but spillover "
            "adds up on the linear scale: undo it with `scmoe.pp.inverse_arcsinh`, compensate, "
            "then transform."
        )
    if sparse.issparse(values):
        raise ValueError(f"{written(name)} is sparse; compensation takes dense values.")
    if values.dtype.kind != "f":
        raise ValueError(
            f"{written(name)} holds {values.dtype}, which cannot hold compensated values; pass it "
            'as `.astype("float32")`.'
        )
    columns = compensated_columns(matrices)
    check_finite(values, columns, adata.var_names, name)
    warn_if_subtracted(adata, matrices)
    warn_if_transformed(adata, values[:, columns], name, LINEAR)

    compensated = np.array(values)
    for sample, matrix in matrices.items():
        solve(compensated, rows_of(adata, sample), matrix)
    result = adata.copy() if copy else adata
    if layer is None:
        result.X = compensated
    else:
        result.layers[layer] = compensated
    result.uns[Key.uns.COMPENSATED] = {**done, name: record_of(matrices)}
    logger.info("compensated %s of %d samples", written(name), len(matrices))
    return result if copy else None


class StreamedCompensation:
    """Apply :func:`compensate` to cells that come one sample at a time.

    Parameters
    ----------
    head
        AnnData with the variables, the samples and the ``.uns["fcs"]`` of the cells.
    spillover
        As in :func:`compensate`.
    """

    def __init__(self, head: AnnData, spillover: Any) -> None:
        self._names = head.var_names
        self._matrices = matrices_by_sample(spillover, head)
        self._columns = compensated_columns(self._matrices)
        warn_if_subtracted(head, self._matrices)
        self._scale = Scale(np.empty((0, len(self._columns))))

    def apply(self, X: np.ndarray, sample: str) -> None:
        """Compensate the cells of a sample in place."""
        if len(X):
            check_finite(X, self._columns, self._names, "X")
            self._scale.add(X[:, self._columns])
            solve(X, np.arange(len(X)), self._matrices[sample])

    def warn(self, adata: AnnData) -> None:
        """Warn if the values before compensation looked transformed."""
        warn_if_transformed(adata, self._scale, "X", LINEAR)

    def record(self) -> dict[str, Any]:
        """Return the entry of ``.uns`` that :func:`compensate` writes."""
        return {Key.uns.COMPENSATED: {"X": record_of(self._matrices)}}


def compensated_columns(matrices: Mapping[str, SpilloverMatrix]) -> np.ndarray:
    """Return the columns that matrices name; ValueError for coupled channels that are missing."""
    for matrix in matrices.values():
        needed = matrix.needed_but_missing()
        if needed:
            raise ValueError(
                f"The spillover matrix couples channels that the cells do not have: "
                f"{listing(needed)}. Compensate before channels are dropped."
            )
    return np.unique(np.concatenate([m.columns[m.columns >= 0] for m in matrices.values()]))


def check_finite(values: np.ndarray, columns: np.ndarray, names: pd.Index, place: str) -> None:
    """Raise ValueError for columns with values that are not finite."""
    bad = [i for i in columns if not np.isfinite(values[:, i]).all()]
    if bad:
        raise ValueError(
            f"{written(place)} holds NaN or infinite values, which compensation would spread to "
            f"other channels, in: {listing(names[bad].tolist())}."
        )


def warn_if_subtracted(adata: AnnData, matrices: Mapping[str, SpilloverMatrix]) -> None:
    """Warn of samples that their instrument compensated already."""
    twice = samples_subtracted(adata, matrices)
    if twice:
        warnings.warn(
            f"The instrument had compensated sample {listing(twice)} before the values were "
            f"stored, see .uns['{Key.uns.FCS}'][sample]['subtracted']; they are compensated on "
            "top of that.",
            stacklevel=3,
        )


def solve(values: np.ndarray, rows: np.ndarray, matrix: SpilloverMatrix) -> None:
    """Compensate some rows of `values` in place."""
    there = matrix.columns >= 0
    columns = matrix.columns[there]
    # measured = signal @ spillover, so spillover.T @ signal.T = measured.T
    factors = linalg.lu_factor(matrix.values[np.ix_(there, there)].T)
    for begin in range(0, len(rows), _CHUNK):
        block = np.ix_(rows[begin : begin + _CHUNK], columns)
        measured = values[block].astype(np.float64)
        values[block] = linalg.lu_solve(factors, measured.T).T


def record_of(matrices: Mapping[str, SpilloverMatrix]) -> dict[str, Any]:
    """Return the record of a compensation for ``.uns["compensated"]``."""
    different = list(dict.fromkeys(matrices.values()))
    return {
        "samples": np.array(list(matrices), dtype=object),
        "matrix": np.array([different.index(m) for m in matrices.values()], dtype=np.int64),
        "matrices": {
            str(i): {
                "channels": np.array(matrix.channels, dtype=object),
                "spillover": matrix.values,
            }
            for i, matrix in enumerate(different)
        },
    }


def _require_same(
    record: Mapping[str, Any], matrices: Mapping[str, SpilloverMatrix], name: str
) -> None:
    """Raise ValueError for a sample that was compensated with another matrix, or not at all."""
    then = {
        str(sample): SpilloverMatrix(
            [str(channel) for channel in record["matrices"][str(i)]["channels"]],
            np.asarray(record["matrices"][str(i)]["spillover"]),
        )
        for sample, i in zip(record["samples"], record["matrix"], strict=True)
    }
    for sample, matrix in matrices.items():
        if sample in then and matrix.agrees(then[sample]):
            continue
        told = f"Sample {sample!r}" if sample else "The cells"
        what = "with another spillover matrix" if sample in then else "without this sample"
        raise ValueError(
            f"{written(name)} was compensated {what}, see .uns['{Key.uns.COMPENSATED}']. "
            f"{told} cannot be compensated on top of it; start from the raw values."
        )
