"""The embedding that the paper's similarities look at."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from scmoe._core.cells import check_adata, layer_values
from scmoe._core.compat import rep_key, same_threads
from scmoe._core.progress import stage
from scmoe._core.random import as_seed
from scmoe._core.text import listing

if TYPE_CHECKING:
    from anndata import AnnData


def umap(
    adata: AnnData,
    *,
    metric: str = "canberra",
    use_rep: str = "X",
    n_components: int = 2,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    key_added: str = "X_umap",
    random_state: int | np.random.Generator = 0,
    progress: bool = True,
) -> None:
    """UMAP with a metric of your choice, as the paper's similarities use it.

    Parameters
    ----------
    adata
        The cells. Of ``"X"`` all variables are used: subset to markers first.
    metric
        Any metric of umap-learn. The paper names Canberra and correlation for CyTOF.
    use_rep
        ``"X"`` or a key of ``.obsm``.
    n_components, n_neighbors, min_dist
        As in umap-learn, with its defaults.
    key_added
        Slot in ``.obsm`` that is written.
    random_state
        Seed; the same seed gives the same embedding.
    progress
        Show that UMAP is at work.

    Returns
    -------
    None. Writes ``.obsm[key_added]``, ``(n_obs, n_components)`` float32.

    Raises
    ------
    KeyError
        ``use_rep`` is not in ``.obsm``.
    ValueError
        A metric that umap-learn does not have; NaN or infinite values; fewer than 3 cells; a
        view, or cells in a file.
    """
    from umap import UMAP
    from umap.distances import named_distances

    check_adata(adata)
    if not callable(metric) and metric not in named_distances:
        meant = get_close_matches(str(metric), named_distances) or sorted(named_distances)
        raise ValueError(
            f"`metric` must be one of umap-learn's, got {metric!r}. There are, among others, "
            f"{listing(meant)}."
        )
    key = rep_key(adata, use_rep)
    if use_rep != "X" and key not in adata.obsm:
        raise KeyError(f"Did not find {use_rep!r} in `.obsm`, which holds {list(adata.obsm)}.")
    x = layer_values(adata, None) if use_rep == "X" else np.asarray(adata.obsm[key])
    values = x.data if hasattr(x, "tocsr") else x
    if not np.isfinite(values).all():
        raise ValueError(f"{use_rep!r} holds NaN or infinite values.")
    if adata.n_obs < 3:
        raise ValueError(f"UMAP needs at least 3 cells, got {adata.n_obs}.")
    model = UMAP(
        metric=metric,
        n_components=n_components,
        n_neighbors=min(n_neighbors, adata.n_obs - 1),
        min_dist=min_dist,
        random_state=as_seed(random_state),
        n_jobs=1,
    )
    with same_threads(), stage("UMAP", progress=progress):
        embedding = model.fit_transform(x)
    adata.obsm[key_added] = np.asarray(embedding, dtype=np.float32)
