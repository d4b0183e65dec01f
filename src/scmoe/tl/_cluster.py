"""``scmoe.tl.cluster``: the model as one line of a scanpy workflow."""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd
from natsort import natsorted

from scmoe._checks import (
    check_adata,
    check_batches,
    check_image_shape,
    check_similarity,
    check_training,
    holds_images,
)
from scmoe._compat import release
from scmoe._keys import Key
from scmoe._random import as_seed, seeded
from scmoe.tl._manifest import graph_hash, manifest
from scmoe.tl._slots import check_key, plain, write
from scmoe.tl._working import find_graph, working_copy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from anndata import AnnData

    from scmoe.similarity import Similarity

logger = logging.getLogger("scmoe")

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
    work = working_copy(adata, markers, layer, use_rep)
    if model_kwargs.get("network") == "conv":
        check_image_shape(work)
    # the margins of images are constant
    check_training(work.X, work.var_names, n_clusters, constant=holds_images(work))
    graph, origin = find_graph(adata, work, similarity, neighbors_key, obsp)
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
