"""``scmoe.tl.cluster``: the model as one line of a scanpy workflow."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._checks import (
    check_adata,
    check_batches,
    check_image_shape,
    check_matrix,
    check_similarity,
    check_training,
    holds_images,
    layer_values,
    listing,
)
from scmoe._compat import release
from scmoe._keys import Key
from scmoe._random import as_seed, seeded
from scmoe.similarity._graph import check_graph, graph_slot
from scmoe.tl._manifest import graph_hash, manifest
from scmoe.tl._slots import check_key, plain, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from scmoe.similarity import Similarity

logger = logging.getLogger("scmoe")

MARKER_KINDS = ("mass", "fluor")
"""Kinds of channels that a clustering looks at, where `.var["kind"]` tells them apart."""

N_CLUSTERS = 25
"""Upper bound for the number of clusters, the paper's for cytometry."""


def cluster(
    adata: AnnData,
    *,
    n_clusters: int | None = None,
    similarity: Similarity | None = None,
    preset: str | None = None,
    markers: Sequence[str] | None = None,
    layer: str | None = None,
    use_rep: str | None = None,
    neighbors_key: str | None = None,
    obsp: str | None = None,
    batch_key: str | None = None,
    key_added: str = Key.DEFAULT,
    random_state: int | np.random.Generator = 0,
    copy: bool = False,
    progress: bool = True,
    save_model: str | Path | None = None,
    checkpoint: str | Path | None = None,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
) -> AnnData | None:
    """Cluster cells with MoE-Sim-VAE (Kopf et al. 2021).

    Uses the neighbour graph of ``sc.pp.neighbors`` if there is one, else builds one and says
    so; also if the graph is one of all channels and some of them are no markers. The results
    are written when everything has succeeded: on an error or an interruption ``adata`` is as
    it was.

    Parameters
    ----------
    adata
        Cells, with dense floating-point values on a scale where distances mean something:
        see :func:`scmoe.pp.arcsinh`.
    n_clusters
        Upper bound for the number of clusters: surplus experts end without cells. None for 25,
        or what the preset says.
    similarity
        Who is like whom; :class:`scmoe.similarity.CoAssociation` by default.
    preset
        Start from the settings of one of the papers' experiments, see
        :func:`scmoe.model.preset`; whatever is given here replaces them.
    markers
        Names of the markers to look at. By default all, or, where ``.var["kind"]`` tells the
        kinds of channels apart, the markers among them.
    layer
        Layer to use instead of ``.X``.
    use_rep
        Representation in ``.obsm`` to use instead of ``.X``, or ``"X"``.
    neighbors_key
        As in scanpy: the record in ``.uns`` that names the graph.
    obsp
        Key of the graph in ``.obsp``; not together with ``neighbors_key``.
    batch_key
        Column of ``.obs`` with the batch of each cell (plate, donor, instrument). The experts
        learn what is a matter of batches; a graph that is built here is one of markers that
        have the same mean and spread in each batch, with as many neighbours from each. A graph
        of yours should come from integrated data.
    key_added
        Names the slots that are written.
    random_state
        Seed. The same seed gives the same labels on the same machine; global random states
        are given back as they were.
    copy
        Return an annotated copy and leave ``adata`` alone.
    progress
        Show a progress bar.
    save_model
        Folder to save the trained model in; it must not exist yet, and ``use_rep`` can't be
        used. The model knows the markers that were used:
        ``MoESimVAE.load(folder, adata[:, list(adata.uns[key_added]["markers"])].copy())``.
    checkpoint
        Folder for the state of the training after every epoch. The same call in a new process
        goes on from it if this one is killed, and ends with the same labels; see
        :meth:`scmoe.model.MoESimVAE.train`. It is removed when the training is done.
    model_kwargs, train_kwargs
        Passed to :class:`scmoe.model.MoESimVAE` and to its ``train``.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added]``
        Cluster of each cell: categories are strings in natural order, ``"0"`` is the largest;
        clusters without cells are left out. Where a prior lists classes
        (:class:`scmoe.similarity.Prior`), their clusters have their names.
    ``.obsm["X_" + key_added]``
        Codes, ``(n_obs, n_latent)`` float32.
    ``.obsm[key_added + "_proba"]``
        Probability of every expert, DataFrame ``(n_obs, n_clusters)`` float32; rows sum to 1.
    ``.obs[key_added + "_outlier"]``
        How far each cell is from the others, float32: the share of cells that are nearer to
        theirs, see :meth:`scmoe.model.MoESimVAE.outlier_score`.
    ``.uns[key_added]``
        ``params``, ``n_clusters`` (how many live), ``history`` (loss terms over the epochs),
        ``markers`` (names of the features that were used), ``model`` (the trained model, from
        which :func:`scmoe.tl.generate` draws and by which :func:`scmoe.tl.assign` finds the
        clusters of new cells), ``version``, and ``manifest`` (SHA-256 of the values and of the
        graph, seed, versions of the libraries).

    Raises
    ------
    ValueError
        A view; names that are not unique; sparse or integer values; NaN or infinite values
        or constant markers (named); fewer than 2 cells, fewer cells than clusters, fewer
        than 2 clusters; a graph of the wrong shape; a ``key_added`` whose slots are taken;
        ``layer`` with ``use_rep``, ``obsp`` with ``neighbors_key``, either of them with a
        similarity that needs no graph or names its own.
    KeyError
        An unknown layer, representation, marker, graph, embedding or ``batch_key``.
    """
    from scmoe.model import MoESimVAE
    from scmoe.model._record import to_record
    from scmoe.similarity import CoAssociation
    from scmoe.tl._neighbors import build_graph

    preset_similarity, model_kwargs, train_kwargs = _settings(preset, model_kwargs, train_kwargs)
    similarity = similarity or preset_similarity or CoAssociation()
    check_similarity(similarity)
    preset_clusters = model_kwargs.pop("n_experts", N_CLUSTERS)
    n_clusters = preset_clusters if n_clusters is None else n_clusters
    seed = as_seed(random_state)
    check_adata(adata)
    check_key(adata, key_added)
    if batch_key is not None:
        check_batches(adata, batch_key)
    if save_model is not None:
        if os.path.exists(save_model):
            raise ValueError(f"`save_model`: {str(save_model)!r} exists; name a new folder.")
        _check_folder(save_model)
        if use_rep not in (None, "X"):
            raise ValueError("`save_model` can't go with `use_rep`: new cells have no such slot.")
    work = _working_copy(adata, markers, layer, use_rep)
    if model_kwargs.get("network") == "conv":
        check_image_shape(work)
    # the margins of images are constant
    check_training(work.X, work.var_names, n_clusters, constant=holds_images(work))
    graph, origin = _find_graph(adata, work, similarity, neighbors_key, obsp)
    try:
        with seeded(seed):
            if similarity.needs_graph:
                if graph is None:
                    graph = build_graph(work.X, work.obs, batch_key, seed)
                slot = "connectivities"
                if similarity.neighbors_key is not None:
                    # the name by which the similarity will ask for the graph
                    slot = Key.obsp.GRAPH
                    work.uns[similarity.neighbors_key] = {"connectivities_key": slot}
                work.obsp[slot] = graph
            if batch_key is not None:
                # categories without cells are no batches
                work.obs[batch_key] = work.obs[batch_key].astype(str)
            MoESimVAE.setup_anndata(work, layer=layer, batch_key=batch_key, similarity=similarity)
            model = MoESimVAE(work, n_experts=n_clusters, **model_kwargs)
            resumed = {} if checkpoint is None else {"checkpoint": checkpoint}
            model.train(**{"enable_progress_bar": progress, **resumed, **train_kwargs})
            labels = model.predict()
            proba = model.predict_proba()
            latent = model.get_latent_representation()
            outlier = model.outlier_score()
        if save_model is not None:
            model.save(str(save_model))
    finally:
        release(MoESimVAE, work)

    categories = natsorted(set(labels))
    result = {
        "params": {
            "n_clusters": n_clusters,
            "preset": preset,
            "similarity": similarity.to_dict(),
            "layer": layer,
            "use_rep": use_rep,
            "neighbors": origin,
            "neighbors_key": neighbors_key,
            "obsp": obsp,
            "batch_key": batch_key,
            "random_state": seed,
            "model_kwargs": model_kwargs,
            "train_kwargs": train_kwargs,
        },
        "n_clusters": len(categories),
        "markers": work.var_names.to_numpy(dtype=str),
        "history": pd.DataFrame(
            {name.removesuffix("_train"): t.iloc[:, 0] for name, t in model.history.items()}
        ).astype(float),
        "model": to_record(model),
        "version": version("scmoe"),
        "manifest": manifest(work.X, work.var_names, graph=graph_hash(graph), seed=seed),
    }
    logger.info("%d of at most %d clusters own cells.", len(categories), n_clusters)
    adata = adata.copy() if copy else adata
    write(
        (adata.obs, Key.obs.labels(key_added), pd.Categorical(labels, categories=categories)),
        (adata.obs, Key.obs.outlier(key_added), outlier),
        (adata.obsm, Key.obsm.latent(key_added), latent),
        (adata.obsm, Key.obsm.proba(key_added), proba),
        (adata.uns, Key.uns.result(key_added), plain(result)),
    )
    return adata if copy else None


def _check_folder(path: str | Path) -> None:
    """Raise ValueError, before the training, where no folder can be made."""
    place = os.path.abspath(path)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        raise ValueError(f"`save_model`: {place!r} is no folder that can be written to.")


def _settings(
    preset: str | None, model_kwargs: dict | None, train_kwargs: dict | None
) -> tuple[Similarity | None, dict[str, Any], dict[str, Any]]:
    """What a preset says, and on top of it what is given."""
    model_kwargs, train_kwargs = dict(model_kwargs or {}), dict(train_kwargs or {})
    if "n_experts" in model_kwargs:
        raise ValueError("`n_experts` is called `n_clusters` here; give it as that.")
    if preset is None:
        return None, model_kwargs, train_kwargs
    from scmoe.model import preset as find

    found = find(preset)
    of_training = found.train_kwargs
    if train_kwargs.get("max_epochs") is not None and "max_steps" not in train_kwargs:
        # the user's epochs instead of the preset's steps
        del of_training["max_steps"]
    plan = {**of_training["plan_kwargs"], **(train_kwargs.get("plan_kwargs") or {})}
    return (
        found.similarity,
        {**found.model_kwargs, **model_kwargs},
        {**of_training, **train_kwargs, "plan_kwargs": plan},
    )


def _working_copy(
    adata: AnnData, markers: Sequence[str] | None, layer: str | None, use_rep: str | None
) -> AnnData:
    """The values to cluster as an AnnData of their own; the user's stays untouched."""
    use_rep = None if use_rep == "X" else use_rep
    if layer is not None and use_rep is not None:
        raise ValueError("You can't specify both `layer` and `use_rep`.")
    if use_rep is not None:
        if use_rep not in adata.obsm:
            raise KeyError(f"Did not find {use_rep!r} in `.obsm`, which holds {list(adata.obsm)}.")
        if markers is not None:
            raise ValueError("`markers` chooses among `.var_names`; it can't go with `use_rep`.")
        x = adata.obsm[use_rep]
        x = x.to_numpy() if isinstance(x, pd.DataFrame) else x
        names = [f"{use_rep}_{i}" for i in range(x.shape[1])]
        where = f"`adata.obsm[{use_rep!r}]`"
    else:
        x = layer_values(adata, layer)
        where = "`adata.X`" if layer is None else f"`adata.layers[{layer!r}]`"
        chosen = _choose_markers(adata, markers)
        x, names = x[:, chosen], adata.var_names[chosen]
    check_matrix(x, names, where)
    x = np.ascontiguousarray(x, dtype=np.float32)
    work = ad.AnnData(
        x,
        # where a similarity may look labels up
        obs=adata.obs.copy(),
        var=pd.DataFrame(index=pd.Index(names, dtype=str)),
        # under its name too, so that a saved model asks new cells for the same layer
        layers={} if layer is None else {layer: x},
    )
    for slots, others in ((work.obsm, adata.obsm), (work.obsp, adata.obsp)):
        for key, value in others.items():
            slots[key] = value
    same = use_rep is None and work.var_names.equals(adata.var_names)
    if same and Key.uns.IMAGE_SHAPE in adata.uns:
        work.uns[Key.uns.IMAGE_SHAPE] = adata.uns[Key.uns.IMAGE_SHAPE]
    return work


def _choose_markers(adata: AnnData, markers: Sequence[str] | None) -> np.ndarray:
    if markers is not None:
        markers = [markers] if isinstance(markers, str) else list(markers)
        unknown = [m for m in markers if m not in adata.var_names]
        if unknown:
            raise KeyError(f"Did not find {listing(unknown)} in `.var_names`.")
        if not markers or len(set(markers)) < len(markers):
            raise ValueError("`markers` is empty or names a marker twice.")
        return adata.var_names.get_indexer(markers)
    if Key.var.KIND in adata.var:
        is_marker = adata.var[Key.var.KIND].isin(MARKER_KINDS).to_numpy()
        if is_marker.any():
            return np.flatnonzero(is_marker)
    return np.arange(adata.n_vars)


def _find_graph(
    adata: AnnData,
    work: AnnData,
    similarity: Similarity,
    neighbors_key: str | None,
    obsp: str | None,
) -> tuple[csr_matrix | None, str]:
    """The user's graph, checked, and where the graph comes from; None to build one."""
    from scmoe.tl._neighbors import N_NEIGHBORS

    if obsp is not None and neighbors_key is not None:
        raise ValueError("You can't specify both `obsp` and `neighbors_key`.")
    if not similarity.needs_graph:
        if obsp is not None or neighbors_key is not None:
            raise ValueError(f"{type(similarity).__name__} does not look at a neighbour graph.")
        return None, "not used"
    own = similarity.neighbors_key
    if own is not None and (obsp is not None or neighbors_key not in (None, own)):
        raise ValueError(
            f"The similarity names its graph already, `neighbors_key={own!r}`; leave "
            "`neighbors_key` and `obsp` out."
        )
    neighbors_key = neighbors_key or own
    built = f"{N_NEIGHBORS} nearest, built here"
    if obsp is None:
        if neighbors_key is None and "connectivities" not in adata.obsp:
            return None, built
        obsp = graph_slot(adata, neighbors_key)
        dropped = _graph_of_dropped_channels(adata, work, neighbors_key or "neighbors")
        if dropped:
            warnings.warn(
                "The neighbour graph was computed from all channels of `.X`, also from "
                f"{listing(dropped)}, which are no markers. A graph of the markers is used "
                "instead. To choose your own, subset to markers before `sc.pp.neighbors`.",
                UserWarning,
                stacklevel=3,
            )
            return None, f"{built}: the given graph looked at {', '.join(dropped)}"
    elif obsp not in adata.obsp:
        raise KeyError(f"Did not find {obsp!r} in `.obsp`, which holds {list(adata.obsp)}.")
    return check_graph(adata.obsp[obsp], adata.n_obs, f"`adata.obsp[{obsp!r}]`"), "given"


def _graph_of_dropped_channels(adata: AnnData, work: AnnData, neighbors_key: str) -> list[str]:
    """Time and other channels that are no markers, if scanpy's graph is one of all of ``.X``.

    They are far larger than any arcsinh value, so such a graph joins cells by their time.
    """
    if Key.var.KIND not in adata.var or not work.var_names.isin(adata.var_names).all():
        return []
    params = adata.uns.get(neighbors_key, {}).get("params", {})
    of_all_channels = params.get("use_rep") == "X" or (
        params.get("use_rep") is None and "n_neighbors" in params and "X_pca" not in adata.obsm
    )
    no_marker = ~adata.var[Key.var.KIND].isin(MARKER_KINDS).to_numpy()
    return list(adata.var_names[no_marker]) if of_all_channels else []
