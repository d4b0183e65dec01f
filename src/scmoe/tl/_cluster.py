"""``scmoe.tl.cluster``: cluster cells with a mixture of experts."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.cells import table
from scmoe._core.compat import released
from scmoe._core.files import SaveError
from scmoe._core.keys import Key
from scmoe._core.plain import for_h5ad
from scmoe._core.progress import stage
from scmoe._core.random import as_seed, seeded
from scmoe.tl._cluster_cells import predict_all, prepare, processes_of
from scmoe.tl._cluster_record import make_record
from scmoe.tl._cluster_request import ClusterRequest
from scmoe.tl._results import write

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from distributed import Client

    from scmoe.model import ExpertModel
    from scmoe.similarity import Similarity
    from scmoe.tl._cluster_request import ModelName

logger = logging.getLogger("scmoe")


def cluster(
    adata: AnnData,
    *,
    model: ModelName = "moe-sim-vae",
    n_clusters: int | str | None = None,
    n_latent: int | Sequence[int] | str | None = None,
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
    landmarks: bool = True,
    client: Client | None = None,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
) -> AnnData | None:
    """Cluster cells with a mixture of experts.

    By default the clusters of MoE-Sim-VAE are the populations that valleys of the density
    separate, which needs no neighbour graph. They follow a graph if one is named
    (``neighbors_key``, ``obsp``), or if ``sc.pp.neighbors`` computed one from another
    representation than the values in use, such as principal components; the log says which.
    Results are written after everything has succeeded: after an error or an interruption
    ``adata`` is unchanged. With more than 100,000 cells the model learns from a random sketch of
    100,000 cells and then assigns all cells to its clusters; if it follows a graph of yours, it
    learns from all cells. The values may be in a file (``anndata.read_h5ad(path, backed="r")``,
    zarr, or a dask array of ``anndata.experimental.read_lazy``): they are read block by block,
    and the results are in memory until you write them.

    Calls in several threads of one process wait for each other, because they use the random
    generators of the process; use processes for parallel calls.

    Parameters
    ----------
    adata
        Cells, with dense floating-point values on a scale on which distances are meaningful:
        see :func:`scmoe.pp.arcsinh`.
    model
        ``"moe-sim-vae"``, whose clusters follow a similarity (Kopf et al. 2021),
        ``"moe-vae"``, Santos' mixture of VAEs, or ``"cpl-mixvae"``, coupled mixture VAEs; the
        last two use the markers alone. See :class:`scmoe.model.MoESimVAE`,
        :class:`scmoe.model.MoEVAE` and :class:`scmoe.model.CplMixVAE`. ``"cpl-mixvae"`` also
        takes counts, with ``model_kwargs={"likelihood": "nb"}``.
    n_clusters
        Upper bound for the number of clusters: surplus experts end without cells. ``"auto"``
        for the estimate of :func:`scmoe.tl.n_clusters` or, with ``"cpl-mixvae"``, for what
        pruning leaves. None for the number of groups of the similarity (the populations of a
        tree) plus two, else for 25 or the number of the preset; for ``"auto"`` with the other
        models. A tree with more populations than a given number is cut at that number.
    n_latent
        Dimensions of the codes. ``"auto"`` for the estimate of :func:`scmoe.tl.latent_dim`.
        None for 9 or the number of the preset, and for ``"auto"`` with ``"moe-vae"``, which
        also takes one number for each cluster. With ``"cpl-mixvae"`` it is the size of the
        states, 2 by default.
    similarity
        Rule that says which cells should share a cluster. By default
        :class:`scmoe.similarity.DensityTree` with the seed of the clustering;
        :class:`scmoe.similarity.CoAssociation` if a graph is named or was computed from another
        representation, with ``use_rep``, and for images. A similarity that needs a graph takes
        the named one or that of ``sc.pp.neighbors``. If there is none, or if it was computed
        from all channels and some are not markers, a graph is built here, with a warning.
    preset
        Settings of one of the experiments of the papers, see :func:`scmoe.model.preset`;
        arguments that are given replace them.
    markers
        Names of the markers to use. By default all or, if there is ``.var["kind"]``, the
        channels whose kind is that of a marker.
    layer
        Layer to use instead of ``.X``.
    use_rep
        Representation in ``.obsm`` to use instead of ``.X``, or ``"X"``. Its columns keep their
        spreads (``scaling="common"``): those of principal components are their weights,
        whereas all markers have the same weight.
    neighbors_key
        As in scanpy: the record in ``.uns`` that names the graph.
    obsp
        Key of the graph in ``.obsp``; excludes ``neighbors_key``.
    batch_key
        Column of ``.obs`` with the batch of each cell (plate, donor, instrument). The experts
        learn the effect of the batch; a valley of the density must exist within batches; a
        graph that is built here uses markers with the same mean and spread in each batch, and
        the same number of neighbours from each. A graph of yours should be one of integrated
        data.
    key_added
        Name of the slots that are written.
    random_state
        Seed. The same seed gives the same labels on the same machine; global random states
        are restored.
    copy
        Return an annotated copy and leave ``adata`` unchanged.
    progress
        Show a progress bar.
    save_model
        Folder to save the trained model in; it must not exist yet, and excludes ``use_rep``.
        The model has the markers that were used:
        ``MoESimVAE.load(folder, adata[:, list(adata.uns[key_added]["markers"])].copy())``.
    landmarks
        Keep up to 3,000 of the cells in the model, in ``.uns`` and where it is saved;
        :func:`scmoe.tl.assign` needs them to compare new cells with. Anyone who has the model,
        or a subset of the cells with its ``.uns``, can restore their values. Without landmarks
        :func:`scmoe.tl.assign` rejects no cell. See :meth:`scmoe.model.MoESimVAE.save` for what
        a model reveals of its cells without them.
    client
        A ``distributed.Client`` whose workers draw the sketch and assign all cells; the model is
        trained in this process. The results do not depend on it. By default the current client
        if the values are a dask array, see :doc:`/on-a-cluster`.
    model_kwargs, train_kwargs
        Arguments of the model and of its ``train``; ``{"devices": 4}`` trains on four devices,
        see :meth:`scmoe.model.MoESimVAE.train`.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added]``
        Cluster of each cell: categories are strings in natural order, ``"0"`` is the largest
        among the cells that were learned from; clusters without cells are left out. The
        clusters of the classes of a prior (:class:`scmoe.similarity.Prior`) have their names.
    ``.obsm["X_" + key_added]``
        Codes, ``(n_obs, n_latent)`` float32.
    ``.obsm[key_added + "_proba"]``
        Probability of every expert, DataFrame ``(n_obs, n_clusters)`` float32; rows sum to 1.
    ``.obs[key_added + "_outlier"]``
        Outlier score, float32 in [0, 1]: the share of cells that are nearer to their
        neighbours, see :meth:`scmoe.model.MoESimVAE.outlier_score`.
    ``.obs[key_added + "_arm_consensus"]``, ``.obs[key_added + "_entropy"]``
        With ``"cpl-mixvae"``: the share of the pairs of arms that agree on the cluster of a
        cell, and the entropy of its probabilities in nats, float32.
    ``.obsm[key_added + "_state"]``
        With ``"cpl-mixvae"``: the variation within the cluster of each cell,
        ``(n_obs, n_latent)`` float32; its ``X_`` slot holds the narrow layer of the first arm.
    ``.obsm[key_added + "_votes"]``
        With ``"cpl-mixvae"`` of two arms or more: the cluster that each arm gives a cell, as a
        position among the columns of the probabilities, ``(n_obs, n_arms)`` int16.
    ``.uns[key_added]``
        ``params`` (``n_learned``: cells that were learned from), ``n_clusters`` (clusters with
        cells), ``estimates`` (evidence for numbers that were ``"auto"``), ``history`` (loss
        terms by epoch), ``tree`` (with a :class:`scmoe.similarity.DensityTree`: the splits as
        arrays, see :func:`scmoe.get.tree`, and ``labels``: cells of each population by
        cluster), ``markers`` (names of the features that were used), ``categories`` (with
        ``"cpl-mixvae"``: consensus, mean entropy and cells of each), ``model`` (the trained
        model, which :func:`scmoe.tl.generate` and :func:`scmoe.tl.assign` use), ``version``,
        and ``manifest`` (SHA-256 of the values and of the graph, seed, library versions).

    Raises
    ------
    ValueError
        A view; a closed file; a dask array whose chunks split the markers or have an unknown
        size; ``copy`` of a backed AnnData; names that are not unique; sparse or integer values;
        NaN or infinite values or constant markers (named); fewer than 2 cells, fewer cells than
        clusters, fewer than 2 clusters; a graph of the wrong shape; a ``key_added`` whose slots
        are taken; ``layer`` with ``use_rep``, ``obsp`` with ``neighbors_key``, either of these
        with a similarity that needs no graph or names its own; options that the model does not
        have or that are out of range; numbers to estimate for fewer than two clusters or for
        noise only; a ``client`` that is closed or asynchronous; a training that diverges, for
        instance because of a large learning rate: its loss is not finite, or more than ten
        times the loss at the start.
    KeyError
        An unknown layer, representation, marker, graph, embedding or ``batch_key``.
    TypeError
        A ``client`` that is not a ``distributed.Client``, such as an address.
    RuntimeError
        A cluster of machines that was lost, or whose workers failed repeatedly.
    scmoe.model.SaveError
        ``save_model`` could not be written, for instance because the disk is full; an OSError.
        The clusters are written nevertheless, in the attribute ``adata`` of the error.

    Warns
    -----
    scmoe.pp.ScaleWarning
        Values that look like raw intensities or counts: more than 1 % of the cells beyond 20, in
        at least 5 % of the markers, or whole numbers only. ``use_rep`` and images are not
        checked.
    UserWarning
        Channels that are not markers by name (Time, DNA, barcodes), if there is no
        ``.var["kind"]``. The clusters under ``key_added`` have changed, and names, a stability,
        state genes or a cut of the earlier clusters remain. All cells are in one cluster, or
        all experts have cells and no number was given.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> adata.obs["scmoe"].value_counts()
    >>> scmoe.tl.cluster(adata, n_clusters=10, key_added="ten")  # alongside the first
    """
    request = ClusterRequest(
        model=model,
        n_clusters=n_clusters,
        n_latent=n_latent,
        similarity=similarity,
        preset=preset,
        markers=markers,
        layer=layer,
        use_rep=use_rep,
        neighbors_key=neighbors_key,
        obsp=obsp,
        batch_key=batch_key,
        key_added=key_added,
        random_state=as_seed(random_state),
        copy=copy,
        progress=progress,
        save_model=save_model,
        landmarks=landmarks,
        client=client,
        model_kwargs=model_kwargs,
        train_kwargs=train_kwargs,
    )
    request.check(adata)
    builder, cells = prepare(adata, request)
    with seeded(request.random_state), released(builder.model_class(), cells.learned):
        trained = builder.train(cells.learned)
        with stage("assigning all cells", progress=progress and cells.is_sketch):
            seen, tree = predict_all(trained, builder, cells)
        unsaved = None
        if save_model is not None:
            unsaved = processes_of(builder).of_first(lambda: _save(trained, request))

    names = np.asarray(trained.cluster_names_, dtype=object)
    categories = natsorted(names[np.unique(seen["expert"])])
    codes = pd.Index(categories).get_indexer(names)[seen["expert"]]
    labels = pd.Categorical.from_codes(codes, categories=categories)
    logger.info("%d of %d experts own cells.", len(categories), trained.module.n_experts)
    if len(categories) == 1:
        warnings.warn(_why_one(trained, model), UserWarning, stacklevel=2)
    elif builder.request.n_clusters is None and len(categories) == trained.module.n_experts:
        warnings.warn(
            f"All {len(categories)} experts own cells: there may be more populations than that. "
            "Give a larger `n_clusters`, which is an upper bound.",
            UserWarning,
            stacklevel=2,
        )
    outdated = _outdated(adata, key_added, labels, seen["latent"])
    if outdated:
        warnings.warn(
            f"The clusters of {key_added!r} have changed. Of the earlier clusters there still is "
            f"{', '.join(outdated)}: compute that again, or delete it.",
            UserWarning,
            stacklevel=2,
        )
    extra = builder.extra_slots(trained, seen)
    tree = None if tree is None else tree.record(names, categories)
    record = make_record(trained, builder, cells, len(categories), tree, extra)
    adata = adata.copy() if copy else adata
    write(
        (adata.obs, Key.obs.labels(key_added), labels),
        (adata.obs, Key.obs.outlier(key_added), seen["outlier"]),
        *_extra_slots(adata, key_added, extra),
        (adata.obsm, Key.obsm.latent(key_added), seen["latent"]),
        (
            adata.obsm,
            Key.obsm.proba(key_added),
            pd.DataFrame(seen["proba"], index=adata.obs_names, columns=names),
        ),
        (adata.uns, Key.uns.result(key_added), for_h5ad(record)),
    )
    if unsaved is not None:
        raise SaveError(
            f"The model could not be saved in {str(save_model)!r}: {unsaved}. The clusters are "
            "in the `adata` of this error" + ("." if copy else ", the one that was given."),
            adata,
        ) from unsaved
    return adata if copy else None


def _extra_slots(
    adata: AnnData, key: str, extra: Mapping[str, dict[str, Any]]
) -> list[tuple[MutableMapping, str, Any]]:
    """Return the slots of one model alone; those that an earlier run has left are deleted."""
    found = {"obs": dict(extra.get("obs", {})), "obsm": dict(extra.get("obsm", {}))}
    if "categories" in adata.uns.get(Key.uns.result(key), {}):
        for slot in (Key.obs.arm_consensus(key), Key.obs.entropy(key)):
            found["obs"].setdefault(slot, None)
        for slot in (Key.obsm.state(key), Key.obsm.votes(key)):
            found["obsm"].setdefault(slot, None)
    return [
        (getattr(adata, place), slot, value)
        for place, values in found.items()
        for slot, value in values.items()
    ]


def _why_one(trained: ExpertModel, model: str) -> str:
    """Say why there may be only one cluster, and what to do."""
    told = "All cells came into one cluster"
    tree = getattr(trained, "tree", None)
    if tree is not None and tree.n_clusters == 1:
        return (
            f"{told}: their density has no clear valley. `scmoe.similarity.DensityTree` with a "
            "smaller `significance` takes fainter ones."
        )
    others = ", or take another `similarity`" if model == "moe-sim-vae" else ""
    rate = trained.trainer.lightning_module.lr
    return (
        f"{told}: the markers may show no groups, or the training did not find them. Try a "
        f'smaller learning rate (`train_kwargs={{"plan_kwargs": {{"lr": ...}}}}`, here {rate:g}), '
        f"train longer{others}."
    )


def _outdated(adata: AnnData, key: str, labels: pd.Categorical, latent: np.ndarray) -> list[str]:
    """Return the slots computed from an earlier clustering that is replaced by another one."""
    if Key.uns.result(key) not in adata.uns or Key.obs.labels(key) not in adata.obs:
        return []
    before = table(adata.obs)[Key.obs.labels(key)].astype(str).to_numpy()
    others = not np.array_equal(before, labels.astype(str))
    # states may change while the clusters stay the same
    turned = others or not np.array_equal(adata.obsm.get(Key.obsm.latent(key)), latent)
    made = [
        ("obs", adata.obs, Key.obs.names(key), others),
        ("uns", adata.uns, Key.uns.stability(key), others),
        ("uns", adata.uns, Key.uns.cut(key), others),
        ("uns", adata.uns, Key.uns.state_genes(key), turned),
    ]
    return [f".{place}[{slot!r}]" for place, there, slot, old in made if old and slot in there]


def _save(trained: ExpertModel, request: ClusterRequest) -> Exception | None:
    """Save a model; return an error, which must not cost the clusters."""
    try:
        trained.save(str(request.save_model), landmarks=request.landmarks)
    except Exception as error:  # noqa: BLE001
        return error
    return None
