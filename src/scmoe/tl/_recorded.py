"""The settings of a clustering, read back from its record."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key
from scmoe._core.settings import (
    FLAG,
    NOTHING,
    TEXT,
    Kind,
    many,
    named,
    number,
    one_of,
    shown,
    whole,
)
from scmoe.tl._manifest import data_hashes
from scmoe.tl._recipes import MODELS
from scmoe.tl._slots import CLUSTERING
from scmoe.tl._working import working_copy

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.similarity import Similarity

MERGED = ("model_kwargs", "train_kwargs")
"""Settings whose entries are replaced one by one."""

AUTO = one_of("auto")

REPEATED = {
    "model": one_of(*MODELS),
    "n_clusters": whole(2) | AUTO,
    "n_latent": whole(1) | AUTO | many(whole(1)),
    "layer": TEXT,
    "use_rep": TEXT,
    "neighbors_key": TEXT,
    "obsp": TEXT,
    "batch_key": TEXT,
}
"""Arguments of a clustering that are taken from its record as they are.

The others are not: a record may come from anywhere, and must not name a folder to write to or a
function to call.
"""

SIMPLE = number(-math.inf) | TEXT | FLAG | NOTHING
FREE = Kind(
    "numbers, words, and lists and mappings of them",
    lambda v: (
        all(isinstance(k, str) and FREE.fits(v[k]) for k in v)
        if isinstance(v, Mapping)
        else all(map(FREE.fits, v))
        if isinstance(v, list | tuple)
        else SIMPLE.fits(v)
    ),
)

OF_TRAINING = {
    **dict.fromkeys(("max_epochs", "max_steps", "min_epochs", "min_steps"), whole(-1)),
    **dict.fromkeys(("start_epochs", "prune_epochs", "batch_size"), whole(1)),
    **dict.fromkeys(("num_sanity_val_steps", "log_every_n_steps"), whole(0)),
    **dict.fromkeys(("check_val_every_n_epoch", "accumulate_grad_batches"), whole(1)),
    **dict.fromkeys(("early_stopping_patience", "early_stopping_warmup_epochs"), whole(0)),
    **dict.fromkeys(("train_size", "validation_size", "threshold", "gradient_clip_val"), number()),
    "early_stopping_min_delta": number(),
    **dict.fromkeys(("limit_train_batches", "limit_val_batches"), number()),
    **dict.fromkeys(("early_stopping", "pretrain", "start", "prune"), FLAG),
    "deterministic": FLAG | one_of("warn"),
    **dict.fromkeys(("enable_progress_bar", "enable_model_summary", "benchmark"), FLAG),
    **dict.fromkeys(("simple_progress_bar", "learning_rate_monitor"), FLAG),
    "progress_bar_refresh_rate": whole(0),
    "early_stopping_mode": one_of("min", "max"),
    "early_stopping_monitor": TEXT,
    "gradient_clip_algorithm": one_of("norm", "value"),
    "precision": whole(1) | TEXT,
    "accelerator": TEXT,
    "strategy": TEXT,
    "num_nodes": whole(1),
    "devices": whole(-1) | TEXT | many(whole(0)),
    "plan_kwargs": named(
        {
            **dict.fromkeys(("lr", "manager_lr", "hardening"), number()),
            "betas": many(number()),
        }
    ),
    # words and amounts, which are looked at where they are used
    **dict.fromkeys(("augment", "estimate_kwargs", "pretrain_kwargs"), FREE),
}
"""The same of its training."""

NOT_REPEATED = ("save_model",)
"""Options that name a folder, which runs would take from each other."""

CLASSES = {"moe-sim-vae": "MoESimVAE", "moe-vae": "MoEVAE", "cpl-mixvae": "CplMixVAE"}
"""Classes of the models."""

COUNTS_CLUSTERS = ("n_experts", "n_categories")
"""Arguments of models that are `n_clusters` here."""

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
        The record is not one of :func:`scmoe.tl.cluster`, is damaged, is of another model, lacks
        something that was a Python object, or has settings that are not repeated.
    KeyError
        The graph that was clustered by is gone.
    """
    record = clustering_record(adata, key)
    params = record.get("params")
    if not isinstance(params, Mapping) or not set(record) >= CLUSTERING or "model" not in params:
        raise ValueError(
            f"`.obs[{key!r}]` was not written by `scmoe.tl.cluster` (`.uns[{key!r}]` records no "
            "settings of one), so it can't be run again. Give the settings of the runs, such as "
            '`model="moe-sim-vae"`, to compare it with clusterings of that kind.'
        )
    params = {name: native(v) for name, v in params.items() if v is not None}
    for name, kind in REPEATED.items():
        if name in params and name not in given:
            _check_kind(f"params[{name!r}]", params[name], kind, key, name)
    model = params["model"]
    if given.get("model", model) != model:
        raise ValueError(
            f"{key!r} is a clustering by {model!r}; runs of {given['model']!r} would say nothing "
            "about how stable it is. Cluster by that model first, or give `key=None`."
        )
    settings = {name: params[name] for name in REPEATED if name in params}
    kinds = {"train_kwargs": OF_TRAINING, "model_kwargs": _kinds_of_model(model)}
    for name in MERGED:
        # a preset has its own
        kept = {} if given.get("preset") else params.get(name, {})
        if not isinstance(kept, Mapping):
            raise ValueError(f"`{name}` in the record of {key!r} is no mapping.")
        kept = dict(kept)
        if "n_latent" in settings or "n_latent" in given:
            # the recipe has noted it a second time
            kept.pop("n_latent", None)
        settings[name] = {**kept, **(given.get(name) or {})}
        _check_entries(settings[name], given.get(name) or {}, name, key)
        for entry, value in kept.items():
            if entry not in (given.get(name) or {}):
                kind = kinds[name].get(entry)
                _check_kind(f"{name}[{entry!r}]", value, kind, key, name)
    if given.get("use_rep", params.get("use_rep")) in (None, "X") and "markers" not in given:
        settings["markers"] = native(record["markers"])
        _check_kind("markers", settings["markers"], many(TEXT), key, "markers")
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


def _kinds_of_model(model: str) -> dict[str, Kind]:
    from scmoe import model as models

    kinds = getattr(models, CLASSES[model])._module_cls.settings_class.argument_kinds()
    return {name: kind for name, kind in kinds.items() if name not in COUNTS_CLUSTERS}


def _check_kind(name: str, value: Any, kind: Kind | None, key: str, argument: str) -> None:
    """Raise ValueError for a recorded setting that is not repeated, or not as it is."""
    if value is None or (kind is not None and kind.fits(value)):
        return
    why = "it is none of the settings that are" if kind is None else f"it must be {kind.words}"
    raise ValueError(
        f"`{name}` in the record of {key!r} is {shown(value)}, which is not repeated: {why}. A "
        f"record may come from anywhere. Give it again, in `{argument}`."
    )


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
    """The similarity of a record; ValueError for functions, and for classes that are unknown."""
    from scmoe.similarity import Similarity

    advice = f"Give it again: `scmoe.tl.stability(adata, key={key!r}, similarity=...)`."
    try:
        similarity = Similarity.from_dict(recorded)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"The similarity of {key!r} can't be made from its record: {error} {advice}"
        ) from error
    functions = functions_of(similarity)
    if functions:
        raise ValueError(
            f"The similarity of {key!r} asks the function {functions[0]!r}, of which only the "
            f"name is recorded, and no name is looked up. {advice}"
        )
    return similarity


def functions_of(similarity: Similarity) -> list[Any]:
    """The functions that a similarity asks about cells by their numbers."""
    from dataclasses import fields

    from scmoe.similarity import Custom, Similarity

    if isinstance(similarity, Custom):
        return [similarity.function]
    parts = [getattr(similarity, f.name) for f in fields(similarity)]
    return [name for p in parts if isinstance(p, Similarity) for name in functions_of(p)]


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
    from scmoe.model._module import COUNTS

    noted = record.get("manifest")
    clustered = noted.get("data") if isinstance(noted, Mapping) else None
    if clustered is None:
        return
    markers, layer, use_rep = (settings.get(n) for n in ("markers", "layer", "use_rep"))
    counts = (settings.get("model_kwargs") or {}).get("likelihood") in COUNTS
    work = working_copy(adata, markers, layer, use_rep, counts=counts)
    if clustered not in data_hashes(work.X, work.var_names):
        warnings.warn(
            f"The cells, or their values, are not those that {key!r} was made of: what does not "
            "come again may be due to that.",
            UserWarning,
            stacklevel=4,
        )
