"""A map of clustered cells, of a sample where there are many."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from scipy.sparse import issparse

from scmoe._core.cells import layer_values, obs_columns
from scmoe._core.compat import rep_key
from scmoe._core.neighbors import N_PCS_FROM, balanced, components, nearest
from scmoe._core.rows import Rows
from scmoe._core.text import listing
from scmoe._core.values import dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("scmoe")

MAP = "X_tsne"
"""The slot of the map, scanpy's."""

MAP_CELLS = 10_000
"""Cells on the map at most: more points cover each other, and take longer."""

PERPLEXITY = 30
"""The default of t-SNE; three times as many neighbours are looked at."""

EXAGGERATED, STEPS = 100, 150
"""Steps of t-SNE with exaggerated attraction, and those after: more change no neighbours."""


def sample(adata: AnnData, seed: int) -> AnnData:
    """Return the cells of a map, drawn at random where there are more; a copy.

    Of cells whose values are in a store the copy is in memory, without layers and graphs.
    """
    some = np.arange(adata.n_obs)
    if adata.n_obs > MAP_CELLS:
        some = np.sort(np.random.default_rng(seed).choice(some, MAP_CELLS, replace=False))
    if adata.X is None or isinstance(adata.X, np.ndarray) or issparse(adata.X):
        return adata[some].copy()
    obs = adata.obs.iloc[some]
    names = obs.index.astype(str)
    obsm = {
        key: value.iloc[some].set_axis(names) if hasattr(value, "iloc") else value[some]
        for key, value in adata.obsm.items()
    }
    x = Rows(adata.X).take(some)
    return AnnData(x, obs=obs.set_axis(names), var=adata.var, uns=dict(adata.uns), obsm=obsm)


def with_map(adata: AnnData, key: str, seed: int = 0) -> AnnData:
    """Return a sample of clustered cells with a map of what was clustered.

    Parameters
    ----------
    adata
        Clustered cells.
    key
        The ``key_added`` of the clustering.
    seed
        Of the sample and of the map.

    Returns
    -------
    A copy of at most :data:`MAP_CELLS` cells, with ``.obsm["X_tsne"]``, ``(n, 2)`` float32.

    Raises
    ------
    KeyError
        Markers, layer, representation or batches of the clustering are not there any more.
    """
    shown = sample(adata, seed)
    logger.info("Drawing a map of %s of %s cells.", f"{shown.n_obs:,}", f"{adata.n_obs:,}")
    params = adata.uns[key]["params"]
    batches = params.get("batch_key")
    if batches is not None:
        if batches not in shown.obs:
            raise KeyError(
                f"Did not find the batches {batches!r} in `.obs`: {obs_columns(adata)}."
            )
        batches = shown.obs[batches].astype(str).to_numpy()
    shown.obsm[MAP] = tsne(_values(shown, adata.uns[key]), batches, seed)
    return shown


def _values(cells: AnnData, record: Mapping) -> NDArray[np.floating]:
    """Return the values that were clustered, cells x features; of counts their logarithms."""
    params = record["params"]
    if params.get("use_rep") not in (None, "X"):
        name = rep_key(cells, params["use_rep"])
        if name not in cells.obsm:
            raise KeyError(f"Did not find {name!r}, which was clustered, in `.obsm`.")
        return np.asarray(cells.obsm[name])
    columns = cells.var_names.get_indexer(list(record["markers"]))
    if (columns < 0).any():
        lost = [name for name, c in zip(record["markers"], columns, strict=True) if c < 0]
        raise KeyError(
            f"`adata` lacks markers that were clustered: {listing(lost)}. Name a map of yours "
            "with `basis`, or draw that of the cells with all markers."
        )
    x = dense(layer_values(cells, params.get("layer"))[:, columns])
    if params.get("model_kwargs", {}).get("likelihood") in ("nb", "zinb"):
        total = np.maximum(x.sum(axis=1, keepdims=True), 1)
        x = np.log1p(x / total * np.median(total))
    return x


def tsne(
    x: NDArray[np.floating], batches: NDArray[np.str_] | None = None, seed: int = 0
) -> NDArray[np.float32]:
    """Embed cells in two dimensions by t-SNE (van der Maaten and Hinton 2008).

    Parameters
    ----------
    x
        ``(n, d)`` values, three cells at least.
    batches
        ``(n,)`` batch of each cell: cells are near those of all batches alike.
    seed
        The same seed gives the same map.

    Returns
    -------
    ``(n, 2)`` float32.
    """
    from openTSNE import TSNE, initialization
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    k = min(3 * PERPLEXITY, len(x) - 1)
    if batches is not None:
        from scmoe.tree import align

        x = align(x, batches)
    if x.shape[1] > N_PCS_FROM:
        x = components(x, seed)
    if batches is None:
        positions, distances = nearest(x, k)
    else:
        # the first is the cell itself
        positions, distances = (found[:, 1:] for found in balanced(x, batches, k + 1))
    affinities = PerplexityBasedNN(
        perplexity=positions.shape[1] / 3, knn_index=PrecomputedNeighbors(positions, distances)
    )
    start = initialization.pca(x, random_state=seed)
    model = TSNE(
        early_exaggeration_iter=EXAGGERATED,
        n_iter=STEPS,
        negative_gradient_method="fft",
        random_state=seed,
    )
    return np.asarray(model.fit(affinities=affinities, initialization=start), dtype=np.float32)
