"""Markers of a panel: chosen by the user, or told apart by ``.var["kind"]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmoe._core.cells import table
from scmoe._core.keys import Key
from scmoe._core.text import did_you_mean, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def kinds_of(var: pd.DataFrame) -> pd.Series:
    """Return the kind of each channel by ``.var["kind"]``, ``""`` where there is none."""
    if Key.var.KIND not in var:
        return pd.Series("", index=var.index)
    return var[Key.var.KIND].astype(str)


def has_kind(
    adata: AnnData, kinds: Sequence[str], names: Sequence[str] | None = None
) -> np.ndarray:
    """Return which variables have one of some kinds by ``.var["kind"]``, ``(n,)`` bool.

    ``names`` are the variables in question, all by default. Without the column there is none.
    """
    if Key.var.KIND not in adata.var:
        return np.zeros(adata.n_vars if names is None else len(names), dtype=bool)
    column = table(adata.var)[Key.var.KIND]
    column = column if names is None else column.loc[names]
    return column.isin(kinds).to_numpy()


def choose_markers(adata: AnnData, markers: Sequence[str] | None) -> np.ndarray:
    """Return the positions of the markers to use: those named, else those by kind, else all.

    Raises
    ------
    KeyError
        Unknown markers.
    ValueError
        No markers, or a marker that is named twice.
    """
    if markers is not None:
        markers = [markers] if isinstance(markers, str) else list(markers)
        unknown = [m for m in markers if m not in adata.var_names]
        if unknown:
            raise KeyError(
                f"Did not find {listing(unknown)} in `.var_names`."
                f"{did_you_mean(unknown, adata.var_names)}"
            )
        if not markers or len(set(markers)) < len(markers):
            raise ValueError("`markers` is empty or names a marker twice.")
        return adata.var_names.get_indexer(markers)
    is_marker = has_kind(adata, Key.var.MARKER_KINDS)
    return np.flatnonzero(is_marker) if is_marker.any() else np.arange(adata.n_vars)
