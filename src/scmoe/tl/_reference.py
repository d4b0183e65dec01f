"""A clustering as something that other cells are compared with."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe._checks import (
    arcsinh_record,
    check_is_adata,
    check_values,
    dense,
    layer_values,
    listing,
)
from scmoe._keys import Key
from scmoe.tl._slots import find_model

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.model._record import Trained


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
    from scmoe.model._record import from_record

    if isinstance(reference, ExpertModel):
        return _of_model(reference.trained, reference.registry)
    if not isinstance(reference, AnnData | str | PathLike):
        check_is_adata(reference, "reference")
    if not isinstance(reference, AnnData):
        return _of_model(*read_trained(reference))
    record = find_model(reference, key, "reference")
    params = record["params"]
    use_rep = params.get("use_rep", "X")
    layer = params.get("layer")
    return Reference(
        from_record(record["model"]),
        pd.Index(record["markers"]),
        layer,
        None if use_rep == "X" else use_rep,
        params.get("batch_key"),
        arcsinh_record(reference, layer or "X"),
        (layer or "X") in reference.uns.get(Key.uns.COMPENSATED, {}),
        reference.uns.get(f"{key}_colors"),
    )


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


def check_transform(query: AnnData, known: Reference, layer: str | None) -> None:
    """Compare what is recorded of the query's values with that of the reference's."""
    place = layer or known.layer or "X"
    if known.arcsinh is None:
        return
    if known.compensated != (place in query.uns.get(Key.uns.COMPENSATED, {})):
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
