"""The neighbour graph of a clustering that is given none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np

from scmoe._core.neighbors import (
    N_NEIGHBORS,
    N_PCS_FROM,
    balanced,
    components,
    connectivities,
    neighbor_graph,
)
from scmoe._core.progress import stage
from scmoe.tree import align

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

logger = logging.getLogger("scmoe")


def build_graph(
    x: np.ndarray, obs: pd.DataFrame, batch_key: str | None, seed: int, *, progress: bool = False
) -> csr_matrix:
    """Connectivities of cells x features, as :func:`add_graph` makes them; says that it does."""
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
    """Write the graph that ``sc.pp.neighbors`` makes by default; with batches, balanced.

    Parameters
    ----------
    adata
        Cells.
    use_rep
        Of what values: ``"X"``, or a name in ``.obsm``.
    batch_key
        Column of the batches. Then the features are brought to the same mean and spread in all
        batches, and neighbours are searched in each batch apart, as many in each (BBKNN,
        Polański et al. 2020), so that no cell is joined to its own batch alone.
    seed
        Of principal components.
    """
    # scanpy takes a record of other neighbours into account
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
