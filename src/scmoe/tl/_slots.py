"""Writing results: all of them or none, and never over somebody else's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from anndata import AnnData


CLUSTERING = {"params", "markers", "version"}
"""What the record of a clustering holds."""


def check_key(adata: AnnData, key: str, parts: set[str] = CLUSTERING) -> None:
    """Raise ValueError for a name whose slots hold something that is not ours.

    ``parts`` is what a record holds that may be written over.
    """
    check_free(
        adata,
        key,
        parts,
        ("uns", Key.uns.result(key)),
        ("obs", Key.obs.labels(key)),
        ("obsm", Key.obsm.latent(key)),
        ("obsm", Key.obsm.proba(key)),
        ("obsm", Key.obsm.state(key)),
        ("obsm", Key.obsm.votes(key)),
        ("obs", Key.obs.outlier(key)),
        ("obs", Key.obs.arm_consensus(key)),
        ("obs", Key.obs.entropy(key)),
    )


def check_free(
    adata: AnnData, key: str, parts: set[str], record: tuple[str, str], *others: tuple[str, str]
) -> None:
    """Raise ValueError where one of some slots, each a place and a name, holds something else.

    The first is that of the record; if it has all ``parts``, the others are ours too.
    """
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"`key_added` must be a name without '/', got {key!r}.")
    there = adata.uns.get(record[1])
    if isinstance(there, Mapping) and parts <= set(there):
        return
    taken = [
        f'.{place}["{name}"]' for place, name in (record, *others) if name in getattr(adata, place)
    ]
    if taken:
        raise ValueError(
            f"`key_added={key!r}` would overwrite {' and '.join(taken)}, which was not written "
            "here; choose another name, or delete it."
        )


def find_model(adata: AnnData, key: str, name: str = "adata") -> Mapping[str, Any]:
    """The record of a clustering with its model; KeyError where there is none.

    ValueError where cells of two clusterings were joined.
    """
    record = clustering_record(adata, key, name)
    if "model" not in record:
        raise KeyError(
            f"Did not find a model in `{name}.uns[{key!r}]`: run `scmoe.tl.cluster({name})` "
            "first, or name its `key_added` as `key`."
        )
    return record


def write(*slots: tuple[MutableMapping, str, Any]) -> None:
    """Fill all slots or none: also Ctrl-C between two of them leaves things as they were.

    None empties a slot that an earlier run may have filled.
    """
    before = [(place, key, place.get(key)) for place, key, _ in slots]
    try:
        for place, key, value in slots:
            if value is not None:
                place[key] = value
            elif key in place:
                del place[key]
    except BaseException:
        for place, key, value in before:
            if value is not None:
                place[key] = value
            elif key in place:
                del place[key]
        raise


def plain(value: Any) -> Any:
    """Values that h5ad can hold: no None, no tuples, no objects of other kinds."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, tuple | list):
        simple = all(isinstance(v, bool | int | float | str | np.generic) for v in value)
        return np.asarray(value if simple else [str(v) for v in value])
    if isinstance(value, bool | int | float | str | np.generic | np.ndarray | pd.DataFrame):
        return value
    return str(value)
