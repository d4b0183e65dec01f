"""A clustering as a reference for other cells: its model, its markers and its transform."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe._core.cells import check_chunks, check_is_adata, layer_values
from scmoe._core.compat import rep_key
from scmoe._core.keys import Key
from scmoe._core.rows import Rows
from scmoe._core.settings import shown
from scmoe._core.text import listing
from scmoe._core.values import Scale, ScaleWarning, arcsinh_record, check_values, dense
from scmoe.tl._results import find_model

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.model import Trained


SLOTS = ("layer", "use_rep", "batch_key")
"""Parameters of a clustering that name slots of its values."""


@dataclass(frozen=True)
class Reference:
    """A clustering that other cells are compared with."""

    trained: Trained
    markers: pd.Index
    layer: str | None
    use_rep: str | None
    batch_key: str | None
    arcsinh: dict[str, float] | None
    """Cofactors of the values that were clustered, if they are recorded."""
    compensated: bool = False
    """Whether a compensation of the values is recorded."""
    colors: Any = None
    """Colours of the clusters, as scanpy keeps them."""


def reference_of(reference: Any, key: str) -> Reference:
    """Return the reference of a clustered AnnData, of a model, or of the folder of a model."""
    from anndata import AnnData

    from scmoe.model import ExpertModel, read_trained

    if isinstance(reference, ExpertModel):
        return _of_model(reference.trained, reference.registry)
    if not isinstance(reference, AnnData | str | PathLike):
        check_is_adata(reference, "reference")
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
        The cells; their file may come from anywhere.
    key
        The ``key_added`` of the clustering.
    name
        Name of the cells in messages.

    Raises
    ------
    KeyError
        No such clustering.
    ModelFileError
        A record that is damaged; it is a ValueError.
    """
    from scmoe.model import ModelFileError, check_names, from_record

    record, where = find_model(adata, key, name), f"`{name}.uns[{key!r}]`"
    trained = from_record(record["model"], f"`{name}.uns[{key!r}]['model']`")
    params, markers = record.get("params"), record.get("markers")
    if not isinstance(params, Mapping) or not isinstance(markers, np.ndarray | list):
        raise ModelFileError(f"{where} is damaged: it lacks 'params' or 'markers'.")
    check_names(list(markers), trained.module.low.numel(), "markers", where)
    if "experts" in record:
        trained = replace(trained, merged=_merged(record["experts"], trained, where))
    params = {slot: params[slot] for slot in SLOTS if params.get(slot) is not None}
    for slot, value in params.items():
        if not isinstance(value, str):
            raise ModelFileError(f"{where} is damaged: its {slot!r} is {shown(value)}, no name.")
    return trained, params, pd.Index(markers)


def _merged(names: Any, trained: Trained, where: str) -> list[str]:
    """Return the cluster of each expert, as :func:`scmoe.tl.cut` has recorded it."""
    from scmoe.model import ModelFileError

    fits = isinstance(names, np.ndarray | list) and len(names) == len(trained.clusters)
    if not fits or not all(isinstance(name, str) for name in names):
        raise ModelFileError(f"{where} is damaged: its 'experts' are no clusters of the experts.")
    return [str(name) for name in names]


def _of_model(trained: Trained, registry: dict[str, Any]) -> Reference:
    from scvi import REGISTRY_KEYS

    setup = registry["setup_args"]
    x = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
    markers = pd.Index(x["column_names"])
    return Reference(trained, markers, setup["layer"], None, setup.get("batch_key"), None)


def reference_values(
    query: AnnData, known: Reference, layer: str | None, name: str = "query"
) -> np.ndarray:
    """Return the checked values, cells x markers of the reference, float32.

    ``name`` is the name of the cells in messages.
    """
    rows, where = reference_rows(query, known, layer, name)
    x = rows.stored()
    check_values(x, known.markers, where, counts=known.trained.module.takes_counts)
    return np.ascontiguousarray(dense(x))


def reference_rows(
    query: AnnData, known: Reference, layer: str | None, name: str, *, in_memory: bool = True
) -> tuple[Rows, str]:
    """Return the values, neither read nor checked, and their name in messages."""
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
        x = layer_values(query, layer, in_memory=in_memory)
        where = f"`{name}.X`" if layer is None else f"`{name}.layers[{layer!r}]`"
        return Rows(x, query.var_names.get_indexer(known.markers)), where
    check_chunks(x, where)
    return Rows(x), where


def is_compensated(adata: AnnData, place: str) -> bool:
    """Whether a compensation of ``"X"`` or of a layer is recorded."""
    record = adata.uns.get(Key.uns.COMPENSATED)
    return isinstance(record, Mapping) and place in record


def check_transform(query: AnnData, known: Reference, layer: str | None, x: np.ndarray) -> None:
    """Compare the values of the query and their recorded transform with the reference.

    ``x`` is cells x markers of the reference.
    """
    place = layer or known.layer or "X"
    apart = _apart(known, x)
    if known.arcsinh is None:
        if apart:
            _warn(apart, "Transform the query as the reference was.")
        return
    if known.compensated != is_compensated(query, place):
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
    """Describe the scales of query and reference if one looks raw and the other transformed.

    Empty otherwise.
    """
    module = known.trained.module
    if known.use_rep is not None or module.takes_counts:
        return ""
    low, high = (t.numpy(force=True) for t in (module.low, module.high))
    # without the extremes of each marker
    theirs = low + (high - low) * module.outliers.markers.numpy(force=True)[1:-1]
    raw, is_raw = Scale(theirs).raw_markers(), Scale(x).raw_markers()
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
