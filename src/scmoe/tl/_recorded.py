"""The settings of a clustering, read back from its record."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._checks import clustering_record
from scmoe._keys import Key
from scmoe.tl._cluster import cluster
from scmoe.tl._manifest import data_hash
from scmoe.tl._slots import CLUSTERING
from scmoe.tl._working import working_copy

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.similarity import Similarity

MERGED = ("model_kwargs", "train_kwargs")
"""Settings whose entries are replaced one by one."""

NOT_REPEATED = ("save_model", "checkpoint")
"""Options that name a folder, which runs would take from each other."""

_OWN = {"preset", "similarity", "random_state"}
"""Not taken from the record as they are: what a preset says is among the others."""

_OBJECT = re.compile(r"^[<(\[{]|^[\w.]+\(.*\)$", re.DOTALL)
"""Text that the record holds in place of a Python object."""


def settings_of(adata: AnnData, key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`scmoe.tl.cluster` that give a recorded clustering again.

    Parameters
    ----------
    adata
        The cells.
    key
        Name of the clustering.
    given
        Replaces what is recorded; entries of ``model_kwargs`` and ``train_kwargs`` one by one, a
        preset all of them and the similarity.

    Warns
    -----
    UserWarning
        The values are not those that were clustered.

    Raises
    ------
    ValueError
        The record is not one of :func:`scmoe.tl.cluster`, is of another model, or lacks
        something that was a Python object.
    KeyError
        The graph that was clustered by is gone.
    """
    record = clustering_record(adata, key)
    params = record.get("params", {})
    if not set(record) >= CLUSTERING or "model" not in params:
        raise ValueError(
            f"`.obs[{key!r}]` was not written by `scmoe.tl.cluster` (`.uns[{key!r}]` records no "
            "settings of one), so it can't be run again. Give the settings of the runs, such as "
            '`model="moe-sim-vae"`, to compare it with clusterings of that kind.'
        )
    params = {name: native(value) for name, value in params.items()}
    model = params["model"]
    if given.get("model", model) != model:
        raise ValueError(
            f"{key!r} is a clustering by {model!r}; runs of {given['model']!r} would say nothing "
            "about how stable it is. Cluster by that model first, or give `key=None`."
        )
    known = set(signature(cluster).parameters) - _OWN
    settings = {name: value for name, value in params.items() if name in known}
    for name in MERGED:
        # a preset has its own
        kept = {} if given.get("preset") else dict(params.get(name, {}))
        if "n_latent" in settings or "n_latent" in given:
            # the recipe has noted it a second time
            kept.pop("n_latent", None)
        settings[name] = {**kept, **(given.get(name) or {})}
        _check_entries(settings[name], given.get(name) or {}, name, key)
    if given.get("use_rep", params.get("use_rep")) in (None, "X") and "markers" not in given:
        settings["markers"] = [str(name) for name in record["markers"]]
    if "similarity" in params and not (given.get("similarity") or given.get("preset")):
        settings["similarity"] = _similarity(params["similarity"], key)
    settings |= {name: value for name, value in given.items() if name not in MERGED}
    _check_graph(adata, params, settings, key)
    if not {"layer", "use_rep", "markers"} & set(given):
        _compare_values(adata, settings, record, key)
    return settings


def built_graph(adata: AnnData, key: str) -> bool:
    """Whether a clustering built its graph itself, though there may be another by now."""
    origin = str(adata.uns[Key.uns.result(key)]["params"].get("neighbors", ""))
    return "built here" in origin


def native(value: Any) -> Any:
    """Values of a record, which may come out of a file, as Python's own."""
    if isinstance(value, Mapping):
        return {name: native(v) for name, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _check_entries(
    entries: Mapping[str, Any], given: Mapping[str, Any], name: str, key: str
) -> None:
    """Raise ValueError where only the name of an object is left."""
    for entry, value in entries.items():
        if entry in given:
            continue
        if isinstance(value, Mapping):
            _check_entries(value, {}, f"{name}[{entry!r}]", key)
        values = value if isinstance(value, list) else [value]
        lost = [v for v in values if isinstance(v, str) and _OBJECT.match(v)]
        if lost:
            raise ValueError(
                f"`{name}[{entry!r}]` of the clustering {key!r} was a Python object, of which "
                f"only the text {lost[0]!r} is recorded. Give it again, in "
                f"`{name.partition('[')[0]}`."
            )


def _similarity(recorded: Mapping[str, Any], key: str) -> Similarity:
    """The similarity of a record; ValueError for functions and classes that can't be found."""
    from scmoe.similarity import Similarity

    advice = f"Give it again: `scmoe.tl.stability(adata, key={key!r}, similarity=...)`."
    try:
        similarity = Similarity.from_dict(recorded)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The similarity of {key!r} can't be made from its record: {error} {advice}"
        ) from error
    lost = _lost_functions(similarity)
    if lost:
        raise ValueError(
            f"The similarity of {key!r} asks the function {lost[0]!r}, of which only the name is "
            f"recorded. {advice}"
        )
    return similarity


def _lost_functions(similarity: Similarity) -> list[str]:
    from dataclasses import fields

    from scmoe.similarity import Custom, Similarity

    if isinstance(similarity, Custom):
        return [similarity.function] if isinstance(similarity.function, str) else []
    parts = [getattr(similarity, f.name) for f in fields(similarity)]
    return [name for p in parts if isinstance(p, Similarity) for name in _lost_functions(p)]


def _check_graph(
    adata: AnnData, params: Mapping[str, Any], settings: Mapping[str, Any], key: str
) -> None:
    """Raise KeyError where the runs would silently build a graph in place of a given one."""
    named = any(settings.get(name) is not None for name in ("neighbors_key", "obsp"))
    if params.get("neighbors") == "given" and not named and "connectivities" not in adata.obsp:
        similarity = settings.get("similarity")
        if similarity is not None and getattr(similarity, "neighbors_key", None) is not None:
            return
        raise KeyError(
            f"{key!r} was clustered by the graph in `.obsp['connectivities']`, which is gone: run "
            "`sc.pp.neighbors(adata)` again, or name another graph (`neighbors_key`, `obsp`)."
        )


def _compare_values(
    adata: AnnData, settings: Mapping[str, Any], record: Mapping[str, Any], key: str
) -> None:
    """Warn where the cells or their values are others than those that were clustered."""
    from scmoe.model._described import COUNTS

    clustered = record.get("manifest", {}).get("data")
    if clustered is None:
        return
    markers, layer, use_rep = (settings.get(n) for n in ("markers", "layer", "use_rep"))
    counts = (settings.get("model_kwargs") or {}).get("likelihood") in COUNTS
    work = working_copy(adata, markers, layer, use_rep, counts=counts)
    if data_hash(work.X, work.var_names) != clustered:
        warnings.warn(
            f"The cells, or their values, are not those that {key!r} was made of: what does not "
            "come again may be due to that.",
            UserWarning,
            stacklevel=4,
        )
