"""Results of a clustering as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def cluster_proba(adata: AnnData, *, key: str = Key.DEFAULT) -> pd.DataFrame:
    """Probabilities of the clusters that own cells.

    Parameters
    ----------
    adata
        Cells clustered by :func:`scmoe.tl.cluster`.
    key
        The ``key_added`` of the clustering.

    Returns
    -------
    Cells x clusters, float32, columns in the order of the categories of ``.obs[key]``. Rows
    sum to at most 1: experts without cells are left out.

    Raises
    ------
    KeyError
        No such clustering.
    """
    clustering_record(adata, key)
    slot = Key.obsm.proba(key)
    if slot not in adata.obsm or key not in adata.obs:
        raise KeyError(
            f"Did not find {slot!r} in `.obsm`: run `scmoe.tl.cluster(adata, key_added={key!r})`."
        )
    return adata.obsm[slot][list(adata.obs[key].cat.categories)]
