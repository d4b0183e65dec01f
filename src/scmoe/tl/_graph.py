"""The neighbour graph that clusters follow: the one of the user, or one that is built here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np

from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe._core.markers import has_kind
from scmoe._core.neighbors import (
    N_NEIGHBORS,
    N_PCS_FROM,
    balanced,
    components,
    connectivities,
    neighbor_graph,
)
from scmoe._core.progress import stage
from scmoe._core.text import listing
from scmoe.similarity import check_graph, graph_slot
from scmoe.tree import align

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from scmoe.similarity import Similarity

logger = logging.getLogger("scmoe")


def build_graph(
    x: np.ndarray, obs: pd.DataFrame, batch_key: str | None, seed: int, *, progress: bool = False
) -> csr_matrix:
    """Return the connectivities that :func:`add_graph` computes, and log that they are built."""
    logger.warning(
        "No neighbour graph found: building one of %d neighbours%s. Run `sc.pp.neighbors` first "
        "to choose your own.",
        N_NEIGHBORS,
        "" if batch_key is None else ", from all batches alike",
    )
    cells = ad.AnnData(x, obs=obs[[] if batch_key is None else [batch_key]].copy())
    with stage("searching neighbours", progress=progress):
        add_graph(cells, batch_key=batch_key, seed=seed)
    return cells.obsp["connectivities"]


def add_graph(
    adata: AnnData, *, use_rep: str = "X", batch_key: str | None = None, seed: int = 0
) -> None:
    """Write the graph that ``sc.pp.neighbors`` makes by default; with batches, a balanced one.

    Parameters
    ----------
    adata
        Cells.
    use_rep
        Values to use: ``"X"``, or a key of ``.obsm``.
    batch_key
        Column of the batches. Features get the same mean and spread in all batches, and the
        same number of neighbours is searched in each batch (BBKNN, Polański et al. 2020), so
        that no cell is connected to its own batch only.
    seed
        Seed of the principal components.
    """
    # scanpy reads the record of other neighbours
    for slots, key in ((adata.uns, "neighbors"), (adata.obsp, "distances")):
        if key in slots:
            del slots[key]
    values = adata.X if use_rep == "X" else adata.obsm[use_rep]
    batches = None
    if batch_key is not None and adata.obs[batch_key].nunique() > 1:
        batches = adata.obs[batch_key].astype(str).to_numpy()
        values = align(values, batches)
    values = np.asarray(values)
    if values.shape[1] > N_PCS_FROM:
        use_rep = "X_pca"
        adata.obsm[use_rep] = values = components(values, seed)
    params = {
        "method": "umap",
        "metric": "euclidean",
        "n_neighbors": N_NEIGHBORS,
        "use_rep": use_rep,
    }
    if batches is None:
        graph = neighbor_graph(values)
    else:
        graph = connectivities(*balanced(values, batches, N_NEIGHBORS))
        params["batch_key"] = batch_key
    adata.obsp["connectivities"] = graph
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "params": params}


def find_graph(
    adata: AnnData,
    work: AnnData,
    similarity: Similarity,
    neighbors_key: str | None,
    obsp: str | None,
) -> tuple[csr_matrix | None, str]:
    """Return the graph of a similarity and its origin; see :func:`given_graph`."""
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
    """Return the checked graph of the user and its origin; None if one must be built.

    ``of_variables``: whether the values to analyse are those of variables.
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
    """Return the values that scanpy's graph was computed from, if others are to be clustered.

    None if there is no graph, if it was computed from the values to cluster, or if its values
    are unknown.

    Parameters
    ----------
    adata
        Cells of the user.
    use_rep
        Representation to cluster; None for markers, of any layer.
    """
    source = _source_of_graph(adata, "neighbors")
    if "connectivities" not in adata.obsp or source is None:
        return None
    same = rep_key(adata, source) == rep_key(adata, use_rep or "X")
    return None if same else source


def _source_of_graph(adata: AnnData, neighbors_key: str) -> str | None:
    """Return the values of a graph of scanpy: ``"X"`` or a representation; None if unknown."""
    record = adata.uns.get(neighbors_key)
    params = record.get("params", {}) if isinstance(record, Mapping) else {}
    if params.get("use_rep") is not None:
        return str(params["use_rep"])
    if "n_neighbors" not in params:
        return None
    # the default of scanpy
    few = params.get("n_pcs") == 0 or adata.n_vars <= N_PCS_FROM
    return "X" if few else "X_pca"


def _graph_of_dropped_channels(adata: AnnData, neighbors_key: str) -> list[str]:
    """Return the channels that are not markers, if scanpy's graph was computed from all of ``.X``.

    Values of time are far larger than any arcsinh value, so such a graph connects cells by time.
    """
    if Key.var.KIND not in adata.var:
        return []
    of_all_channels = _source_of_graph(adata, neighbors_key) == "X"
    no_marker = ~has_kind(adata, Key.var.MARKER_KINDS)
    return list(adata.var_names[no_marker]) if of_all_channels else []
