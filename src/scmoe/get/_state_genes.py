"""What moves with the state within clusters, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key
from scmoe._core.text import listing

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def state_genes(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    cluster: str | None = None,
    dimension: int | None = None,
) -> pd.DataFrame:
    """What moves with the state within clusters, as :func:`scmoe.tl.state_genes` found it.

    Parameters
    ----------
    adata
        Cells, after :func:`scmoe.tl.state_genes`.
    key
        Its ``key_added``.
    cluster
        One cluster; all by default.
    dimension
        One dimension of the state; all by default.

    Returns
    -------
    A row for each cluster, marker and dimension, sorted by them in this order, markers by their
    rank; :func:`scmoe.tl.state_genes` explains the columns.

    Raises
    ------
    KeyError
        No such table, cluster or dimension.

    Examples
    --------
    >>> scmoe.get.state_genes(adata, cluster="3").query("dimension == 0").head()
    """
    clustering_record(adata, key)
    slot = Key.uns.state_genes(key)
    record = adata.uns.get(slot)
    if not isinstance(record, Mapping) or "table" not in record:
        raise KeyError(
            f"Did not find `.uns[{slot!r}]`: run `scmoe.tl.state_genes(adata)` first, or name its "
            "`key_added` as `key`."
        )
    table = record["table"]
    wanted = {"cluster": None if cluster is None else str(cluster), "dimension": dimension}
    for column, value in wanted.items():
        if value is None:
            continue
        there = list(record["table"][column].unique())
        if value not in there:
            raise KeyError(
                f"`.uns[{slot!r}]` has no {column} {value!r}; there are {listing(there)}."
            )
        table = table[table[column] == value]
    return table.reset_index(drop=True)
