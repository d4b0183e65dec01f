"""The record of a clustering in ``.uns``: made from its request, and read back into one."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from scmoe._core.cells import clustering_record
from scmoe._core.keys import Key
from scmoe._core.plain import as_python
from scmoe._core.settings import (
    FLAG,
    NOTHING,
    TEXT,
    Kind,
    kinds_of,
    many,
    named,
    number,
    one_of,
    shown,
    whole,
)
from scmoe.tl._cluster_models import BUILDERS, functions_of, takes_counts
from scmoe.tl._cluster_request import RESERVED, ClusterRequest
from scmoe.tl._results import CLUSTERING_RECORD, data_hashes, graph_hash, manifest
from scmoe.tl._values import working_copy

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.model import ExpertModel
    from scmoe.similarity import Similarity
    from scmoe.tl._cluster_cells import ClusterCells
    from scmoe.tl._cluster_models import Builder

MERGED = ("model_kwargs", "train_kwargs")
"""Options whose entries are replaced one by one."""

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

TRAINING_KINDS = {
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
    # words and amounts, which are checked where they are used
    **dict.fromkeys(("augment", "estimate_kwargs", "pretrain_kwargs"), FREE),
}
"""Arguments of a training that are read from a record, with the values that each accepts."""

_OBJECT = re.compile(r"^[<(\[{]|^[\w.]+\(.*\)$", re.DOTALL)
"""Text that stands for a Python object in a record."""


def make_record(
    trained: ExpertModel,
    builder: Builder,
    cells: ClusterCells,
    n_clusters: int,
    tree: dict[str, Any] | None,
    extra: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return the record of a clustering, as ``.uns`` keeps it."""
    from scmoe.model import to_record

    request = builder.request
    return {
        "params": {
            **request.to_record(),
            "neighbors": builder.graph_origin,
            "n_learned": cells.learned.n_obs,
        },
        "n_clusters": n_clusters,
        "markers": cells.learned.var_names.to_numpy(dtype=str),
        "history": _history(trained),
        **({"estimates": trained.estimates_} if trained.estimates_ else {}),
        **extra.get("uns", {}),
        **({} if tree is None else {"tree": tree}),
        "model": to_record(trained.trained, landmarks=request.landmarks),
        "version": version("scmoe"),
        "manifest": manifest(
            cells.data, graph=graph_hash(builder.graph), seed=request.random_state
        ),
    }


def _history(trained: ExpertModel) -> pd.DataFrame:
    """Return the terms of the loss by epoch, without the epochs of a start."""
    terms = {
        name.removesuffix("_train"): table.iloc[:, 0]
        for name, table in trained.history.items()
        if not name.startswith("start_")
    }
    return pd.DataFrame(terms).astype(float)


def read_request(adata: AnnData, key: str, given: Mapping[str, Any]) -> ClusterRequest:
    """Return the request that repeats a recorded clustering.

    Parameters
    ----------
    adata
        The cells.
    key
        Name of the clustering.
    given
        Options that replace the recorded ones: entries of ``model_kwargs`` and ``train_kwargs``
        one by one; a preset replaces both and the similarity.

    Warns
    -----
    UserWarning
        The values are not those that were clustered.

    Raises
    ------
    ValueError
        The record was not written by :func:`scmoe.tl.cluster`, is damaged, is of another model,
        lacks something that was a Python object, or has options that are not repeated.
    KeyError
        The graph that the clusters follow is gone.
    """
    record = clustering_record(adata, key)
    params = record.get("params")
    written = set(record) >= CLUSTERING_RECORD
    if not written or not isinstance(params, Mapping) or "model" not in params:
        raise ValueError(
            f"`.obs[{key!r}]` was not written by `scmoe.tl.cluster` (`.uns[{key!r}]` records no "
            "settings of one), so it can't be run again. Give the settings of the runs, such as "
            '`model="moe-sim-vae"`, to compare it with clusterings of that kind.'
        )
    params = {name: as_python(v) for name, v in params.items() if v is not None}
    repeated = [f.name for f in fields(ClusterRequest) if "repeated" in f.metadata]
    options = {name: params[name] for name in repeated if name in params}
    kinds = kinds_of(ClusterRequest)
    for name, value in options.items():
        if name == "model" or name not in given:
            _check_recorded(f"params[{name!r}]", value, kinds[name], key, name)
    model = params["model"]
    if given.get("model", model) != model:
        raise ValueError(
            f"{key!r} is a clustering by {model!r}; runs of {given['model']!r} would say nothing "
            "about how stable it is. Cluster by that model first, or give `key=None`."
        )
    argument_kinds = {"train_kwargs": TRAINING_KINDS, "model_kwargs": _model_kinds(model)}
    for name in MERGED:
        # a preset has its own
        kept = {} if given.get("preset") else params.get(name, {})
        if not isinstance(kept, Mapping):
            raise ValueError(f"`{name}` in the record of {key!r} is no mapping.")
        kept = dict(kept)
        if "n_latent" in options or "n_latent" in given:
            # it was recorded a second time, as an argument of the model
            for again in ("n_latent", "n_state"):
                kept.pop(again, None)
        replaced = given.get(name) or {}
        options[name] = {**kept, **replaced}
        _check_objects(options[name], replaced, name, key)
        for entry, value in kept.items():
            if entry not in replaced:
                kind = argument_kinds[name].get(entry)
                _check_recorded(f"{name}[{entry!r}]", value, kind, key, name)
    if given.get("use_rep", params.get("use_rep")) in (None, "X") and "markers" not in given:
        options["markers"] = as_python(record["markers"])
        _check_recorded("markers", options["markers"], many(TEXT), key, "markers")
    if "similarity" in params and not (given.get("similarity") or given.get("preset")):
        options["similarity"] = _read_similarity(params["similarity"], key)
    options |= {name: value for name, value in given.items() if name not in MERGED}
    request = ClusterRequest.of_options(options)
    _check_graph(adata, params, request, key)
    if not {"layer", "use_rep", "markers"} & set(given):
        _compare_values(adata, request, record, key)
    return request


def built_graph(adata: AnnData, key: str) -> bool:
    """Whether a clustering built its own graph, even if there is another graph now."""
    origin = str(adata.uns[Key.uns.result(key)]["params"].get("neighbors", ""))
    return "built here" in origin


def _model_kinds(model: str) -> dict[str, Kind]:
    """Return the values that each argument of a model accepts, but for numbers of clusters."""
    kinds = BUILDERS[model].model_class()._module_cls.settings_class.argument_kinds()
    return {name: kind for name, kind in kinds.items() if RESERVED.get(name) != "n_clusters"}


def _check_recorded(name: str, value: Any, kind: Kind | None, key: str, argument: str) -> None:
    """Raise ValueError for a recorded value that is not repeated: unknown, or not of its kind."""
    if value is None or (kind is not None and kind.fits(value)):
        return
    why = "it is none of the settings that are" if kind is None else f"it must be {kind.words}"
    raise ValueError(
        f"`{name}` in the record of {key!r} is {shown(value)}, which is not repeated: {why}. A "
        f"record may come from anywhere. Give it again, in `{argument}`."
    )


def _check_objects(
    entries: Mapping[str, Any], given: Mapping[str, Any], name: str, key: str
) -> None:
    """Raise ValueError for a Python object of which only the text was recorded."""
    for entry, value in entries.items():
        if entry in given:
            continue
        if isinstance(value, Mapping):
            _check_objects(value, {}, f"{name}[{entry!r}]", key)
        values = value if isinstance(value, list) else [value]
        lost = [v for v in values if isinstance(v, str) and _OBJECT.match(v)]
        if lost:
            raise ValueError(
                f"`{name}[{entry!r}]` of the clustering {key!r} was a Python object, of which "
                f"only the text {lost[0]!r} is recorded. Give it again, in "
                f"`{name.partition('[')[0]}`."
            )


def _read_similarity(recorded: Mapping[str, Any], key: str) -> Similarity:
    """Return the recorded similarity; ValueError for functions and for unknown classes."""
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


def _check_graph(
    adata: AnnData, params: Mapping[str, Any], request: ClusterRequest, key: str
) -> None:
    """Raise KeyError where the runs would build a graph in place of a given one that is gone."""
    named = request.neighbors_key is not None or request.obsp is not None
    if params.get("neighbors") == "given" and not named and "connectivities" not in adata.obsp:
        if getattr(request.similarity, "neighbors_key", None) is not None:
            return
        raise KeyError(
            f"{key!r} was clustered by the graph in `.obsp['connectivities']`, which is gone: run "
            "`sc.pp.neighbors(adata)` again, or name another graph (`neighbors_key`, `obsp`)."
        )


def _compare_values(
    adata: AnnData, request: ClusterRequest, record: Mapping[str, Any], key: str
) -> None:
    """Warn if the cells or their values are not those that were clustered."""
    noted = record.get("manifest")
    clustered = noted.get("data") if isinstance(noted, Mapping) else None
    if clustered is None:
        return
    counts = takes_counts(request)
    work = working_copy(adata, request.markers, request.layer, request.use_rep, counts=counts)
    if clustered not in data_hashes(work.X, work.var_names):
        warnings.warn(
            f"The cells, or their values, are not those that {key!r} was made of: what does not "
            "come again may be due to that.",
            UserWarning,
            stacklevel=4,
        )
