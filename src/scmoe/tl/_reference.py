"""A clustering as something that other cells are compared with."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe._checks import (
    ScaleWarning,
    arcsinh_record,
    check_values,
    dense,
    layer_values,
    listing,
    raw_markers,
)
from scmoe._compat import rep_key
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
        key = rep_key(query, known.use_rep)
        if key not in query.obsm:
            raise KeyError(
                f"The clusters are of {known.use_rep!r}, which `{name}.obsm` lacks: it has "
                f"{list(query.obsm)}."
            )
        x = query.obsm[key]
        x = x.to_numpy() if isinstance(x, pd.DataFrame) else x
        if x.shape[1] != len(known.markers):
            raise ValueError(
                f"`{name}.obsm[{key!r}]` has {x.shape[1]} columns, that of the "
                f"reference {len(known.markers)}."
            )
        where = f"`{name}.obsm[{key!r}]`"
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


def check_transform(query: AnnData, known: Reference, layer: str | None, x: np.ndarray) -> None:
    """Compare the query's values and what is recorded of them with the reference's.

    ``x`` is cells x markers of the reference.
    """
    place = layer or known.layer or "X"
    apart = _apart(known, x)
    if known.arcsinh is None:
        if apart:
            _warn(apart, "Transform the query as the reference was.")
        return
    if known.compensated != (place in query.uns.get(Key.uns.COMPENSATED, {})):
        who = "reference" if known.compensated else "query"
        raise ValueError(
            f"By .uns[{Key.uns.COMPENSATED!r}] the {who} was compensated and the other was not: "
            "do the same to both."
        )
    ours = arcsinh_record(query, place)
    if ours is None:
        _warn(
            "The reference was transformed by `scmoe.pp.arcsinh`; of the query nothing says so."
            f"{apart and f' {apart}'}",
            "If it holds intensities, transform it with the same cofactor.",
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
    if apart:
        _warn(apart, "The record says that both were transformed alike: one was written anew.")


def _apart(known: Reference, x: np.ndarray) -> str:
    """Say how the query goes further than the reference, or the reference than the query.

    Empty unless one of them looks raw and the other transformed.
    """
    module = known.trained.module
    if known.use_rep is not None or module.takes_counts:
        return ""
    low, high = (t.numpy(force=True) for t in (module.low, module.high))
    # all but the extremes of each marker
    theirs = low + (high - low) * module.outliers.markers.numpy(force=True)[1:-1]
    raw, is_raw = raw_markers(theirs), raw_markers(x)
    if bool(len(raw)) == bool(len(is_raw)):
        return ""
    where = (raw if len(raw) else is_raw)[0]
    ours, reference = np.abs(x[:, where]).max(), np.abs(theirs[:, where]).max()
    return (
        f"In {str(known.markers[where])!r} the query goes up to {ours:,.4g} and the reference to "
        f"{reference:,.4g}: one of them was never transformed."
    )


def _warn(what: str, how: str) -> None:
    """Warn the caller of :func:`scmoe.tl.assign`."""
    warnings.warn(ScaleWarning(what, how), stacklevel=4)
