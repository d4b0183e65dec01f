"""The values that a function analyses: markers, a layer or a representation of the cells."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from scmoe._core.cells import check_chunks, layer_values, table
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe._core.markers import choose_markers, has_kind
from scmoe._core.rows import Rows, is_dask
from scmoe._core.text import listing
from scmoe._core.values import check_values, dense, holds_images, warn_if_raw
from scmoe.io import channel_kinds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

LARGEST_PANEL = 200
"""Number of variables above which they are genes; their names resemble channels by chance."""


def values_of(
    adata: AnnData,
    markers: Sequence[str] | None,
    layer: str | None,
    use_rep: str | None,
    *,
    in_memory: bool = True,
) -> tuple[Rows, pd.Index, str]:
    """Return the values to analyse, the names of their columns, and their name in messages."""
    use_rep = None if use_rep == "X" else use_rep
    if layer is not None and use_rep is not None:
        raise ValueError("You can't specify both `layer` and `use_rep`.")
    if use_rep is None:
        x = layer_values(adata, layer, in_memory=in_memory)
        where = "`adata.X`" if layer is None else f"`adata.layers[{layer!r}]`"
        chosen = choose_markers(adata, markers)
        return Rows(x, chosen), pd.Index(adata.var_names[chosen], dtype=str), where
    key = rep_key(adata, use_rep)
    if key not in adata.obsm:
        raise KeyError(f"Did not find {use_rep!r} in `.obsm`, which holds {list(adata.obsm)}.")
    if markers is not None:
        raise ValueError("`markers` chooses among `.var_names`; it can't go with `use_rep`.")
    x, where = adata.obsm[key], f"`adata.obsm[{key!r}]`"
    x = x.to_numpy() if isinstance(x, pd.DataFrame) else x
    check_chunks(x, where)
    return Rows(x), pd.Index([f"{use_rep}_{i}" for i in range(x.shape[1])], dtype=str), where


def working_copy(
    adata: AnnData,
    markers: Sequence[str] | None,
    layer: str | None,
    use_rep: str | None,
    *,
    counts: bool = False,
    if_counts: str = "",
) -> AnnData:
    """Copy the checked values to a new AnnData; the AnnData of the user stays as it is."""
    rows, names, where = values_of(adata, markers, layer, use_rep)
    x = rows.stored()
    check_values(x, names, where, counts=counts, if_counts=if_counts)
    return with_values(adata, np.ascontiguousarray(dense(x)), names, layer, use_rep)


def with_values(
    adata: AnnData,
    x: np.ndarray,
    names: pd.Index,
    layer: str | None,
    use_rep: str | None,
    chosen: np.ndarray | None = None,
) -> AnnData:
    """Make an AnnData of values and of the slots of the cells that a similarity may use.

    Parameters
    ----------
    adata
        Cells of the user.
    x, names
        Values, cells x markers float32, and the names of the markers.
    layer, use_rep
        Slot of the values.
    chosen
        Positions of the cells that the values belong to; None for all. Graphs are copied only
        with all cells.
    """
    obs = table(adata.obs)
    obs = obs.copy() if chosen is None else obs.iloc[chosen].copy()
    work = ad.AnnData(
        x,
        # the names of cells in a store may be numbers
        obs=obs.set_axis(obs.index.astype(str)),
        var=pd.DataFrame(index=names),
        # under its name too, so that a saved model reads the same layer of new cells
        layers={} if layer is None else {layer: x},
    )
    for key, value in adata.obsm.items():
        if chosen is None:
            work.obsm[key] = value
        elif isinstance(value, pd.DataFrame):
            work.obsm[key] = value.iloc[chosen]
        elif not is_dask(value):
            work.obsm[key] = value[chosen]
    if chosen is None:
        for key, value in adata.obsp.items():
            work.obsp[key] = value
    same = use_rep in (None, "X") and work.var_names.equals(adata.var_names)
    if same and Key.uns.IMAGE_SHAPE in adata.uns:
        work.uns[Key.uns.IMAGE_SHAPE] = adata.uns[Key.uns.IMAGE_SHAPE]
    return work


def check_scale(
    adata: AnnData,
    work: AnnData,
    markers: Sequence[str] | None,
    use_rep: str | None,
    *,
    more: str = "",
    stacklevel: int = 3,
) -> None:
    """Warn of untransformed values in a working copy, and of channels that are not markers.

    Representations and images are not checked. ``markers`` and ``use_rep`` are those of the
    working copy; ``more`` is a sentence for the message.
    """
    if use_rep not in (None, "X"):
        return
    if markers is None and (names := technical_names(adata, work.var_names)):
        warnings.warn(
            f"By their names {listing(names)} are no markers, but there is no "
            f'`.var["{Key.var.KIND}"]` that says so. Name the `markers`, or set it to "other" '
            f"for these and to {' or '.join(map(repr, Key.var.MARKER_KINDS))} for markers.",
            UserWarning,
            stacklevel=stacklevel,
        )
    warn_if_raw_markers(adata, work.X, work.var_names, more=more, stacklevel=stacklevel)


def warn_if_raw_markers(
    adata: AnnData, x: Any, names: pd.Index, *, more: str = "", stacklevel: int = 2
) -> None:
    """Warn of markers that were never transformed; pixels are not checked."""
    if holds_images(adata):
        return
    known = ~_are_technical(adata, names)
    warn_if_raw(x[:, known], names[known], more=more, stacklevel=stacklevel + 1)


def technical_names(adata: AnnData, names: pd.Index) -> list[str]:
    """Return the variables whose names are not those of markers; none with ``.var["kind"]``."""
    return [] if Key.var.KIND in adata.var else names[_are_technical(adata, names)].tolist()


def _are_technical(adata: AnnData, names: pd.Index) -> np.ndarray:
    """Return which variables are not markers: by ``.var["kind"]``, else by name in a panel."""
    nothing = np.zeros(len(names), bool)
    if Key.var.KIND in adata.var:
        is_marker = has_kind(adata, Key.var.MARKER_KINDS, names)
        return ~is_marker if is_marker.any() else nothing
    if len(names) > LARGEST_PANEL:
        return nothing
    return ~np.isin(channel_kinds(names), Key.var.MARKER_KINDS)
