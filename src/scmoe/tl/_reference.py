"""A clustering as something that other cells are compared with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe._checks import arcsinh_record, check_values, dense, layer_values, listing
from scmoe._keys import Key
from scmoe._numbers import shown
from scmoe.tl._slots import find_model

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.model._record import Trained


SLOTS = ("layer", "use_rep", "batch_key")
"""What the record of a clustering says of the places that its values came from."""


@dataclass(frozen=True)
class Reference:
    """All that is taken of a clustering, to put other cells beside its own."""

    trained: Trained
    markers: pd.Index
    layer: str | None
    use_rep: str | None
    batch_key: str | None
    arcsinh: dict[str, float] | None
    """Cofactors of the values that were clustered, if there is a record of them."""
    compensated: bool = False
    """Whether there is a record of a compensation of them."""
    colors: Any = None
    """Colours of the clusters, as scanpy keeps them."""


def reference_of(reference: Any, key: str) -> Reference:
    """Take what is needed from a clustered AnnData, a model, or the folder of one."""
    from anndata import AnnData

    from scmoe.model._base import ExpertModel
    from scmoe.model._open import read_trained

    if isinstance(reference, ExpertModel):
        return _of_model(reference.trained, reference.registry)
    if not isinstance(reference, AnnData):
        return _of_model(*read_trained(reference))
    trained, params, markers = read_clustering(reference, key, "reference")
    use_rep = params.get("use_rep", "X")
    layer = params.get("layer")
    return Reference(
        trained,
        markers,
        layer,
        None if use_rep == "X" else use_rep,
        params.get("batch_key"),
        arcsinh_record(reference, layer or "X"),
        is_compensated(reference, layer or "X"),
        reference.uns.get(f"{key}_colors"),
    )


def read_clustering(
    adata: AnnData, key: str, name: str = "adata"
) -> tuple[Trained, dict[str, Any], pd.Index]:
    """Read the model of a clustering, the names of its slots and its markers from the record.

    Parameters
    ----------
    adata
        The cells, which may come out of anybody's file.
    key
        The ``key_added`` of the clustering.
    name
        What the cells are called in messages.

    Raises
    ------
    KeyError
        No such clustering.
    ModelFileError
        A record that is damaged; it is a ValueError.
    """
    from scmoe.model import ModelFileError
    from scmoe.model._loaded import check_names
    from scmoe.model._record import from_record

    record, where = find_model(adata, key, name), f"`{name}.uns[{key!r}]`"
    trained = from_record(record["model"], f"`{name}.uns[{key!r}]['model']`")
    params, markers = record.get("params"), record.get("markers")
    if not isinstance(params, Mapping) or not isinstance(markers, np.ndarray | list):
        raise ModelFileError(f"{where} is damaged: it lacks 'params' or 'markers'.")
    check_names(list(markers), trained.module.low.numel(), "markers", where)
    params = {slot: params[slot] for slot in SLOTS if params.get(slot) is not None}
    for slot, value in params.items():
        if not isinstance(value, str):
            raise ModelFileError(f"{where} is damaged: its {slot!r} is {shown(value)}, no name.")
    return trained, params, pd.Index(markers)


def _of_model(trained: Trained, registry: dict[str, Any]) -> Reference:
    from scvi import REGISTRY_KEYS

    setup = registry["setup_args"]
    x = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
    markers = pd.Index(x["column_names"])
    return Reference(trained, markers, setup["layer"], None, setup.get("batch_key"), None)


def reference_values(
    query: AnnData, known: Reference, layer: str | None, name: str = "query"
) -> np.ndarray:
    """Cells x markers of the reference, float32; ``name`` is that of the cells in messages."""
    if known.use_rep is not None:
        if layer is not None:
            raise ValueError(f"The clusters are of `.obsm[{known.use_rep!r}]`; leave `layer` out.")
        if known.use_rep not in query.obsm:
            raise KeyError(
                f"The clusters are of {known.use_rep!r}, which `{name}.obsm` lacks: it has "
                f"{list(query.obsm)}."
            )
        x = query.obsm[known.use_rep]
        x = x.to_numpy() if isinstance(x, pd.DataFrame) else x
        if x.shape[1] != len(known.markers):
            raise ValueError(
                f"`{name}.obsm[{known.use_rep!r}]` has {x.shape[1]} columns, that of the "
                f"reference {len(known.markers)}."
            )
        where = f"`{name}.obsm[{known.use_rep!r}]`"
    else:
        missing = known.markers.difference(query.var_names, sort=False)
        if len(missing):
            raise KeyError(
                f"`{name}` lacks markers that were clustered: {listing(list(missing))}."
            )
        layer = known.layer if layer is None else layer
        x = layer_values(query, layer)[:, query.var_names.get_indexer(known.markers)]
        where = f"`{name}.X`" if layer is None else f"`{name}.layers[{layer!r}]`"
    check_values(x, known.markers, where, counts=known.trained.module.takes_counts)
    return np.ascontiguousarray(dense(x))


def is_compensated(adata: AnnData, place: str) -> bool:
    """Whether there is a record of a compensation of ``"X"`` or a layer."""
    record = adata.uns.get(Key.uns.COMPENSATED)
    return isinstance(record, Mapping) and place in record


def check_transform(query: AnnData, known: Reference, layer: str | None) -> None:
    """Compare what is recorded of the query's values with that of the reference's."""
    place = layer or known.layer or "X"
    if known.arcsinh is None:
        return
    if known.compensated != is_compensated(query, place):
        who = "reference" if known.compensated else "query"
        raise ValueError(
            f"By .uns[{Key.uns.COMPENSATED!r}] the {who} was compensated and the other was not: "
            "do the same to both."
        )
    ours = arcsinh_record(query, place)
    if ours is None:
        warnings.warn(
            "The reference was transformed by `scmoe.pp.arcsinh`; of the query nothing says so. "
            "If it holds intensities, transform it with the same cofactor.",
            UserWarning,
            stacklevel=3,
        )
        return
    theirs = known.arcsinh
    other = [m for m in known.markers if ours.get(m) != theirs.get(m)]
    if other:
        raise ValueError(
            f"The query has another arcsinh than the reference, in {listing(other)}: "
            f"cofactor {ours.get(other[0])} and not {theirs.get(other[0])}. Undo it by "
            "`scmoe.pp.inverse_arcsinh`, and transform with that of the reference."
        )
