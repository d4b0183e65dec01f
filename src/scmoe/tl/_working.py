"""What a function works on: the values of the markers, and the neighbour graph of the user."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from scmoe._core.cells import check_chunks, layer_values, table
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe._core.neighbors import N_NEIGHBORS, N_PCS_FROM
from scmoe._core.rows import Rows, is_dask
from scmoe._core.text import did_you_mean, listing
from scmoe._core.values import check_values, dense, holds_images, warn_if_raw
from scmoe.io import channel_kinds
from scmoe.similarity import check_graph, graph_slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from scmoe.similarity import Similarity

LARGEST_PANEL = 200
"""Variables from which on they are genes, whose names look like those of channels by chance."""


def values_of(
    adata: AnnData,
    markers: Sequence[str] | None,
    layer: str | None,
    use_rep: str | None,
    *,
    in_memory: bool = True,
) -> tuple[Rows, pd.Index, str]:
    """The values to look at, the names of their columns, and what to call them in messages."""
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
    """The values to cluster as an AnnData of their own; the user's stays untouched."""
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
    """Values as an AnnData, with what a similarity may look at of the user's cells.

    Parameters
    ----------
    adata
        The user's cells.
    x, names
        Cells x markers, float32, and the names of the markers.
    layer, use_rep
        Where the values are from.
    chosen
        Which of the cells they are of; None for all. Graphs are those of all cells.
    """
    obs = table(adata.obs)
    obs = obs.copy() if chosen is None else obs.iloc[chosen].copy()
    work = ad.AnnData(
        x,
        # cells of a store may be called by their numbers
        obs=obs.set_axis(obs.index.astype(str)),
        var=pd.DataFrame(index=names),
        # under its name too, so that a saved model asks new cells for the same layer
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
    """Warn of values of a working copy that were never transformed, and of what is no marker.

    Of representations and of images nothing is said; parameters are those of the copy, and
    ``more`` is a sentence for the message.
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
    """Warn of markers that were never transformed, unless they are pixels."""
    if holds_images(adata):
        return
    known = ~_are_technical(adata, names)
    warn_if_raw(x[:, known], names[known], more=more, stacklevel=stacklevel + 1)


def technical_names(adata: AnnData, names: pd.Index) -> list[str]:
    """Return the variables that are no markers by their names, where nothing else says it."""
    return [] if Key.var.KIND in adata.var else names[_are_technical(adata, names)].tolist()


def _are_technical(adata: AnnData, names: pd.Index) -> np.ndarray:
    """Which variables are no markers: by their kinds, if some are, else by names in a panel."""
    nothing = np.zeros(len(names), bool)
    if Key.var.KIND in adata.var:
        is_marker = table(adata.var).loc[names, Key.var.KIND].isin(Key.var.MARKER_KINDS).to_numpy()
        return ~is_marker if is_marker.any() else nothing
    if len(names) > LARGEST_PANEL:
        return nothing
    return ~np.isin(channel_kinds(names), Key.var.MARKER_KINDS)


def choose_markers(adata: AnnData, markers: Sequence[str] | None) -> np.ndarray:
    """Return the positions of the markers that are looked at; KeyError for unknown ones."""
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
    if Key.var.KIND in adata.var:
        is_marker = table(adata.var)[Key.var.KIND].isin(Key.var.MARKER_KINDS).to_numpy()
        if is_marker.any():
            return np.flatnonzero(is_marker)
    return np.arange(adata.n_vars)


def find_graph(
    adata: AnnData,
    work: AnnData,
    similarity: Similarity,
    neighbors_key: str | None,
    obsp: str | None,
) -> tuple[csr_matrix | None, str]:
    """The graph of a similarity: see :func:`given_graph`."""
    if not similarity.needs_graph:
        if obsp is not None or neighbors_key is not None:
            raise ValueError(f"{type(similarity).__name__} does not look at a neighbour graph.")
        return None, "not used"
    own = similarity.neighbors_key
    if own is not None and (obsp is not None or neighbors_key not in (None, own)):
        raise ValueError(
            f"The similarity names its graph already, `neighbors_key={own!r}`; leave "
            "`neighbors_key` and `obsp` out."
        )
    of_variables = work.var_names.isin(adata.var_names).all()
    return given_graph(adata, neighbors_key or own, obsp, of_variables=of_variables, stacklevel=4)


def given_graph(
    adata: AnnData,
    neighbors_key: str | None,
    obsp: str | None,
    *,
    of_variables: bool,
    stacklevel: int = 3,
) -> tuple[csr_matrix | None, str]:
    """The user's graph, checked, and where the graph comes from; None to build one.

    ``of_variables``: whether the values that are looked at are those of variables.
    """
    if obsp is not None and neighbors_key is not None:
        raise ValueError("You can't specify both `obsp` and `neighbors_key`.")
    built = f"{N_NEIGHBORS} nearest, built here"
    if obsp is None:
        if neighbors_key is None and "connectivities" not in adata.obsp:
            return None, built
        obsp = graph_slot(adata, neighbors_key)
        dropped = []
        if of_variables:
            dropped = _graph_of_dropped_channels(adata, neighbors_key or "neighbors")
        if dropped:
            warnings.warn(
                "The neighbour graph was computed from all channels of `.X`, also from "
                f"{listing(dropped)}, which are no markers. A graph of the markers is used "
                "instead. To choose your own, subset to markers before `sc.pp.neighbors`.",
                UserWarning,
                stacklevel=stacklevel,
            )
            return None, f"{built}: the given graph looked at {', '.join(dropped)}"
    elif obsp not in adata.obsp:
        raise KeyError(f"Did not find {obsp!r} in `.obsp`, which holds {list(adata.obsp)}.")
    return check_graph(adata.obsp[obsp], adata.n_obs, f"`adata.obsp[{obsp!r}]`"), "given"


def graph_of_other_values(adata: AnnData, use_rep: str | None) -> str | None:
    """The values that scanpy's graph was made of, where they are not those to cluster.

    None where there is no graph, or one of these values, or nothing says what it is of.

    Parameters
    ----------
    adata
        The user's cells.
    use_rep
        Representation to cluster; None for markers, of whatever layer.
    """
    source = _source_of_graph(adata, "neighbors")
    if "connectivities" not in adata.obsp or source is None:
        return None
    same = rep_key(adata, source) == rep_key(adata, use_rep or "X")
    return None if same else source


def _source_of_graph(adata: AnnData, neighbors_key: str) -> str | None:
    """The values that scanpy made a graph of: ``"X"`` or a representation; None if unknown."""
    record = adata.uns.get(neighbors_key)
    params = record.get("params", {}) if isinstance(record, Mapping) else {}
    if params.get("use_rep") is not None:
        return str(params["use_rep"])
    if "n_neighbors" not in params:
        return None
    # scanpy's own choice
    few = params.get("n_pcs") == 0 or adata.n_vars <= N_PCS_FROM
    return "X" if few else "X_pca"


def _graph_of_dropped_channels(adata: AnnData, neighbors_key: str) -> list[str]:
    """Time and other channels that are no markers, if scanpy's graph is one of all of ``.X``.

    They are far larger than any arcsinh value, so such a graph joins cells by their time.
    """
    if Key.var.KIND not in adata.var:
        return []
    of_all_channels = _source_of_graph(adata, neighbors_key) == "X"
    no_marker = ~table(adata.var)[Key.var.KIND].isin(Key.var.MARKER_KINDS).to_numpy()
    return list(adata.var_names[no_marker]) if of_all_channels else []
