"""``scmoe.tl.cluster``: the model as one line of a scanpy workflow."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.cells import check_adata, check_copy, table
from scmoe._core.compat import released
from scmoe._core.files import SaveError
from scmoe._core.keys import Key
from scmoe._core.progress import stage
from scmoe._core.random import as_seed, seeded
from scmoe._core.rows import Rows
from scmoe._core.settings import FLAG
from scmoe._core.values import check_image_shape, check_training, check_values, dense, holds_images
from scmoe._core.workers import check_client
from scmoe.tl._manifest import data_hash, graph_hash, manifest
from scmoe.tl._recipes import make_recipe
from scmoe.tl._sketch import SKETCH, draw_sketch, survey
from scmoe.tl._slots import check_key, plain, write
from scmoe.tl._tree_counts import TreeCounts
from scmoe.tl._working import check_scale, values_of, with_values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from distributed import Client

    from scmoe.model._base import ExpertModel
    from scmoe.similarity import Similarity
    from scmoe.tl._recipes import Recipe
    from scmoe.train import Processes

logger = logging.getLogger("scmoe")


def cluster(
    adata: AnnData,
    *,
    model: str = "moe-sim-vae",
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

    The clusters of MoE-Sim-VAE are by default the populations that valleys of the density set
    apart, which needs no neighbour graph. It follows a graph that is named (``neighbors_key``,
    ``obsp``), and that of ``sc.pp.neighbors`` where it was made of another representation than
    the values in use, such as principal components; the log says which it was. The results are
    written when everything has succeeded: on an error or an interruption ``adata`` is as it was.
    With more than 100,000 cells the model learns from a random sketch of 100,000 of them, and then
    assigns all cells to its clusters; where it follows a graph of yours, it learns from all. The
    values may be in a file (``anndata.read_h5ad(path, backed="r")``, zarr, or an array of dask as
    ``anndata.experimental.read_lazy`` gives it): they are read block by block, and the results are
    in memory until you write them.

    Calls in several threads of one process wait for each other, as the generators that they draw
    from are those of the process; use processes to run several at a time.

    Parameters
    ----------
    adata
        Cells, with dense floating-point values on a scale where distances mean something:
        see :func:`scmoe.pp.arcsinh`.
    model
        ``"moe-sim-vae"``, whose clusters follow a similarity (Kopf et al. 2021),
        ``"moe-vae"``, Santos' mixture of VAEs, or ``"cpl-mixvae"``, coupled mixture VAEs, which
        both look at the markers alone; see :class:`scmoe.model.MoESimVAE`,
        :class:`scmoe.model.MoEVAE` and :class:`scmoe.model.CplMixVAE`. The last takes counts
        too, with ``model_kwargs={"likelihood": "nb"}``.
    n_clusters
        Upper bound for the number of clusters: surplus experts end without cells. ``"auto"``
        for as many as :func:`scmoe.tl.n_clusters` finds, or, with ``"cpl-mixvae"``, as pruning
        leaves. None for as many as the similarity knows groups (the populations of a tree) and
        two to spare, else 25, or what the preset says; with the other models for ``"auto"``.
        A tree with more populations is cut at a number that is given.
    n_latent
        Dimensions of the codes. ``"auto"`` for as many as :func:`scmoe.tl.latent_dim` finds.
        None for 9, or what the preset says, and for ``"auto"`` with ``"moe-vae"``, which also
        takes one number for each of its clusters. With ``"cpl-mixvae"`` it is the size of the
        states, 2 by default.
    similarity
        Who is like whom. By default :class:`scmoe.similarity.DensityTree`, with the seed of the
        clustering; :class:`scmoe.similarity.CoAssociation` where a graph is named or was made of
        another representation, with ``use_rep``, and for images. One that needs a graph takes
        the one that is named or that of ``sc.pp.neighbors``, else, or if that is one of all
        channels and some of them are no markers, it is given one that is built here, which is
        said.
    preset
        Start from the settings of one of the papers' experiments, see
        :func:`scmoe.model.preset`; whatever is given here replaces them.
    markers
        Names of the markers to look at. By default all, or, where ``.var["kind"]`` tells the
        kinds of channels apart, the markers among them.
    layer
        Layer to use instead of ``.X``.
    use_rep
        Representation in ``.obsm`` to use instead of ``.X``, or ``"X"``. Its columns keep their
        spreads (``scaling="common"``): those of principal components say how much they matter,
        where every marker matters alike.
    neighbors_key
        As in scanpy: the record in ``.uns`` that names the graph.
    obsp
        Key of the graph in ``.obsp``; not together with ``neighbors_key``.
    batch_key
        Column of ``.obs`` with the batch of each cell (plate, donor, instrument). The experts
        learn what is a matter of batches; a valley of the density must be there within batches;
        a graph that is built here is one of markers that have the same mean and spread in each
        batch, with as many neighbours from each. A graph of yours should come from integrated
        data.
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
    landmarks
        Keep up to 3,000 of the cells in the model, in ``.uns`` and where it is saved, by which
        :func:`scmoe.tl.assign` tells how far new cells are from them: whoever has the model, or
        a subset of the cells with its ``.uns``, can restore their values. False keeps none, and
        :func:`scmoe.tl.assign` rejects no cell then. See :meth:`scmoe.model.MoESimVAE.save` for
        what a model tells of its cells without them.
    client
        A ``distributed.Client``, whose workers draw the sketch and assign all cells; the model is
        trained in this process. The results are the same as without. By default the current
        client where the values are an array of dask, see :doc:`/on-a-cluster`.
    model_kwargs, train_kwargs
        Passed to the model and to its ``train``; ``{"devices": 4}`` trains on four devices, see
        :meth:`scmoe.model.MoESimVAE.train`.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added]``
        Cluster of each cell: categories are strings in natural order, ``"0"`` is the largest
        among the cells that were learned from; clusters without cells are left out. Where a
        prior lists classes (:class:`scmoe.similarity.Prior`), their clusters have their names.
    ``.obsm["X_" + key_added]``
        Codes, ``(n_obs, n_latent)`` float32.
    ``.obsm[key_added + "_proba"]``
        Probability of every expert, DataFrame ``(n_obs, n_clusters)`` float32; rows sum to 1.
    ``.obs[key_added + "_outlier"]``
        How far each cell is from the others, float32: the share of cells that are nearer to
        theirs, see :meth:`scmoe.model.MoESimVAE.outlier_score`.
    ``.obs[key_added + "_arm_consensus"]``, ``.obs[key_added + "_entropy"]``
        With ``"cpl-mixvae"``: the share of the pairs of arms that agree on the cluster of a
        cell, and the entropy of its probabilities in nats, float32.
    ``.obsm[key_added + "_state"]``
        With ``"cpl-mixvae"``: what varies within the cluster of each cell, ``(n_obs, n_latent)``
        float32; its ``X_`` slot holds the narrow layer of the first arm.
    ``.obsm[key_added + "_votes"]``
        With ``"cpl-mixvae"`` of two arms or more: the cluster that each arm gives a cell, as a
        position among the columns of the probabilities, ``(n_obs, n_arms)`` int16.
    ``.uns[key_added]``
        ``params`` (``n_learned``: cells that were learned from), ``n_clusters`` (how many live),
        ``estimates`` (the evidence for numbers that were ``"auto"``), ``history`` (loss terms
        over the epochs), ``tree`` (with a :class:`scmoe.similarity.DensityTree`: the splits as
        arrays, see :func:`scmoe.get.tree`, and ``labels``: cells of each of its clusters by their
        label),
        ``markers`` (names of the features that were used), ``categories`` (with
        ``"cpl-mixvae"``: consensus, mean entropy and cells of each), ``model`` (the trained
        model, from
        which :func:`scmoe.tl.generate` draws and by which :func:`scmoe.tl.assign` finds the
        clusters of new cells), ``version``, and ``manifest`` (SHA-256 of the values and of the
        graph, seed, versions of the libraries).

    Raises
    ------
    ValueError
        A view; a file that is closed; an array of dask whose chunks split the markers or have no
        known size; ``copy`` of a backed AnnData; names that are not unique; sparse or integer
        values; NaN or infinite values
        or constant markers (named); fewer than 2 cells, fewer cells than clusters, fewer
        than 2 clusters; a graph of the wrong shape; a ``key_added`` whose slots are taken;
        ``layer`` with ``use_rep``, ``obsp`` with ``neighbors_key``, either of them with a
        similarity that needs no graph or names its own; options that the model does not have;
        numbers to estimate where there is less than two clusters, or nothing but noise; a
        ``client`` that is closed or asynchronous; a training that runs away, of too large a
        learning rate for instance: its loss is not finite, or more than ten times that at the
        start.
    KeyError
        An unknown layer, representation, marker, graph, embedding or ``batch_key``.
    TypeError
        A ``client`` that is not a ``distributed.Client``, such as an address.
    RuntimeError
        A cluster that was lost, or whose workers ended again and again.
    scmoe.model.SaveError
        ``save_model`` could not be written, such as on a full disk; an OSError. The clusters
        are written nevertheless, and the attribute ``adata`` of the error has them.

    Warns
    -----
    scmoe.pp.ScaleWarning
        Values that look like raw intensities or counts: more than 1 % of the cells beyond 20, in
        at least 5 % of the markers, or nothing but whole numbers. Of ``use_rep`` and of images
        nothing is said.
    UserWarning
        Channels that are no markers by their names (Time, DNA, barcodes), where no
        ``.var["kind"]`` tells the kinds apart. The clusters under ``key_added`` are others than
        before, and there are names, a stability, state genes or a cut of those before. All cells
        came into one cluster, or every expert owns cells where no number was given.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> adata.obs["scmoe"].value_counts()
    >>> scmoe.tl.cluster(adata, n_clusters=10, key_added="ten")  # beside the first
    """
    from scmoe.model._predict import OUTLIER
    from scmoe.model._record import to_record

    seed = as_seed(random_state)
    FLAG.check("landmarks", landmarks)
    check_client(client)
    check_adata(adata, in_memory=False)
    check_key(adata, key_added)
    check_copy(adata, copy, "adata")
    if save_model is not None:
        if os.path.exists(save_model):
            raise ValueError(f"`save_model`: {str(save_model)!r} exists; name a new folder.")
        _check_folder(save_model)
        if use_rep not in (None, "X"):
            raise ValueError("`save_model` can't go with `use_rep`: new cells have no such slot.")
    recipe, work = prepare(
        adata,
        model,
        seed,
        n_clusters=n_clusters,
        n_latent=n_latent,
        markers=markers,
        layer=layer,
        use_rep=use_rep,
        model_kwargs=model_kwargs,
        train_kwargs=train_kwargs,
        client=client,
        similarity=similarity,
        preset=preset,
        neighbors_key=neighbors_key,
        obsp=obsp,
        batch_key=batch_key,
    )
    with seeded(seed), released(recipe.model_class, work.cells):
        trained = recipe.fit(work.cells, seed, progress)
        with stage("assigning all cells", progress=progress and work.is_sketch):
            seen, tree = look(trained, recipe, work)
        unsaved = None
        if save_model is not None:
            unsaved = processes_of(recipe).of_first(lambda: _save(trained, save_model, landmarks))

    names = np.asarray(trained.cluster_names_, dtype=object)
    beside = recipe.beside(trained, key_added, seen)
    proba = pd.DataFrame(seen["proba"], index=adata.obs_names, columns=names)
    categories = natsorted(names[np.unique(seen["expert"])])
    codes = pd.Index(categories).get_indexer(names)[seen["expert"]]
    labels = pd.Categorical.from_codes(codes, categories=categories)
    result = {
        "params": {
            "model": model,
            "n_clusters": recipe.n_clusters,
            "n_latent": n_latent,
            "layer": layer,
            "use_rep": use_rep,
            **recipe.params(),
            "random_state": seed,
            "n_learned": work.cells.n_obs,
            "model_kwargs": recipe.model_kwargs,
            "train_kwargs": recipe.train_kwargs,
        },
        "n_clusters": len(categories),
        "markers": work.cells.var_names.to_numpy(dtype=str),
        "history": _history(trained),
        **({"estimates": trained.estimates_} if trained.estimates_ else {}),
        **beside.get("uns", {}),
        **({} if tree is None else {"tree": tree.record(names, categories)}),
        "model": to_record(trained, landmarks=landmarks),
        "version": version("scmoe"),
        "manifest": manifest(work.data, graph=graph_hash(recipe.graph), seed=seed),
    }
    logger.info("%d of %d experts own cells.", len(categories), trained.module.n_experts)
    if len(categories) == 1:
        warnings.warn(_why_one(trained, model), UserWarning, stacklevel=2)
    elif recipe.n_clusters is None and len(categories) == trained.module.n_experts:
        warnings.warn(
            f"All {len(categories)} experts own cells: there may be more populations than that. "
            "Give a larger `n_clusters`, which is an upper bound.",
            UserWarning,
            stacklevel=2,
        )
    outdated = _outdated(adata, key_added, labels, seen["latent"])
    if outdated:
        warnings.warn(
            f"The clusters of {key_added!r} are others now. Of those before there still is "
            f"{', '.join(outdated)}: compute that again, or delete it.",
            UserWarning,
            stacklevel=2,
        )
    adata = adata.copy() if copy else adata
    write(
        (adata.obs, Key.obs.labels(key_added), labels),
        (adata.obs, Key.obs.outlier(key_added), seen[OUTLIER]),
        *_beside(adata, key_added, beside),
        (adata.obsm, Key.obsm.latent(key_added), seen["latent"]),
        (adata.obsm, Key.obsm.proba(key_added), proba),
        (adata.uns, Key.uns.result(key_added), plain(result)),
    )
    if unsaved is not None:
        raise SaveError(
            f"The model could not be saved in {str(save_model)!r}: {unsaved}. The clusters are "
            "in the `adata` of this error" + ("." if copy else ", which is that which was given."),
            adata,
        ) from unsaved
    return adata if copy else None


@dataclass(frozen=True)
class Work:
    """What a clustering works on.

    Parameters
    ----------
    cells
        The cells that it learns from, with dense values in memory: all or a sketch of them.
    rows
        The values of all cells.
    obs
        Their ``.obs``.
    data
        Hash of their values.
    """

    cells: AnnData
    rows: Rows
    obs: pd.DataFrame
    data: str

    @property
    def is_sketch(self) -> bool:
        """Whether there are cells that nothing is learned from."""
        return self.cells.n_obs < len(self.rows)


def prepare(
    adata: AnnData,
    model: str,
    seed: int,
    *,
    n_clusters: int | str | None = None,
    n_latent: int | Sequence[int] | str | None = None,
    markers: Sequence[str] | None = None,
    layer: str | None = None,
    use_rep: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
    client: Client | None = None,
    **similar: Any,
) -> tuple[Recipe, Work]:
    """The recipe of what was asked, and the cells that it works on, both of them checked.

    Parameters as of :func:`cluster`; ``similar`` is what only MoE-Sim-VAE knows.
    """
    recipe = make_recipe(
        adata,
        model,
        n_clusters=n_clusters,
        n_latent=n_latent,
        layer=layer,
        use_rep=use_rep,
        model_kwargs=model_kwargs,
        train_kwargs=train_kwargs,
        similar=similar,
    )
    rows, names, where = values_of(adata, markers, layer, use_rep, in_memory=False)
    rows.client = client or rows.client
    counts = {"counts": recipe.counts, "if_counts": recipe.if_counts}
    if len(rows) > SKETCH:
        n_obs, batch = len(rows), _batch_of(adata, similar.get("batch_key"))

        def look_once() -> tuple[str, np.ndarray, np.ndarray]:
            seen = survey(rows.checked(names, where, **counts), names, seed)
            return seen.data, seen.limits, draw_sketch(seen.key, seed, batch)

        data, limits, chosen = processes_of(recipe).of_first(look_once)
        cells = with_values(adata, rows.take(np.arange(0)), names, layer, use_rep, np.arange(0))
    else:
        stored = rows.stored()
        check_values(stored, names, where, **counts)
        x = np.ascontiguousarray(dense(stored))
        data, limits, n_obs, rows = data_hash(x, names), x, None, Rows(x, client=client)
        cells = with_values(adata, x, names, layer, use_rep)
    if recipe.model_kwargs.get("network") == "conv":
        check_image_shape(cells)
    # the margins of images are constant, and genes may have no counts
    constant = holds_images(cells) or recipe.counts
    check_training(limits, names, recipe.least_clusters, constant=constant, n_obs=n_obs)
    recipe.look_at(adata, cells)
    if len(rows) > SKETCH:
        if recipe.of_all_cells:
            chosen = None
        else:
            logger.info("Learning from a random sketch of %d of %d cells.", len(chosen), n_obs)
        x = rows.take(np.arange(n_obs) if chosen is None else chosen)
        cells = with_values(adata, x, names, layer, use_rep, chosen)
    if not recipe.counts:
        check_scale(adata, cells, markers, use_rep, more=recipe.if_counts, stacklevel=4)
    return recipe, Work(cells, rows, table(adata.obs), data)


def processes_of(recipe: Recipe) -> Processes:
    """The processes that a model is trained in."""
    from scmoe.train import find_processes

    given = recipe.train_kwargs
    return find_processes(given.get("accelerator", "auto"), given.get("devices", "auto"), given)


def _batch_of(adata: AnnData, batch_key: str | None) -> np.ndarray | None:
    """Batch of each cell as a number, ``(n_obs,)``."""
    if batch_key is None:
        return None
    return np.unique(table(adata.obs)[batch_key].astype(str), return_inverse=True)[1]


def look(
    trained: ExpertModel, recipe: Recipe, work: Work
) -> tuple[dict[str, np.ndarray], TreeCounts | None]:
    """What a trained model says of all cells, and how many of them are where in its tree."""
    from scmoe.model._predict import SEEN, put, see

    module, batch_key = trained.module, recipe.params().get("batch_key")
    batch = None
    if module.encode_batch:
        batch = pd.Index(trained.batch_names).get_indexer(work.obs[batch_key].astype(str))
    tree = getattr(trained, "tree", None)
    if tree is not None:
        tree = TreeCounts(tree, module.n_experts, recipe.similarity, work.cells, work.obs)
    seen: dict[str, np.ndarray] = {}
    counts = (None,) if tree is None else (tree.of_block, tree.batch)
    names = (*SEEN, *recipe.sees)
    for place, part, counted in see(module, work.rows, names, batch, None, *counts):
        put(seen, len(work.rows), place, part)
        if tree is not None:
            tree.add(counted)
    return seen, tree


def _beside(adata: AnnData, key: str, found: dict[str, dict]) -> list[tuple]:
    """Slots of what one model alone says; emptied where an earlier run of that model was."""
    found = {"obs": dict(found.get("obs", {})), "obsm": dict(found.get("obsm", {}))}
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


def _history(trained: ExpertModel) -> pd.DataFrame:
    """The terms of the loss over the epochs, without those of a start before them."""
    terms = {
        name.removesuffix("_train"): table.iloc[:, 0]
        for name, table in trained.history.items()
        if not name.startswith("start_")
    }
    return pd.DataFrame(terms).astype(float)


def _why_one(trained: ExpertModel, model: str) -> str:
    """Why there may be one cluster only, and what to do."""
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
    """Slots that were made of the clustering that is about to be replaced by another one."""
    if Key.uns.result(key) not in adata.uns or Key.obs.labels(key) not in adata.obs:
        return []
    before = table(adata.obs)[Key.obs.labels(key)].astype(str).to_numpy()
    others = not np.array_equal(before, labels.astype(str))
    # states may be others where the clusters are the same
    turned = others or not np.array_equal(adata.obsm.get(Key.obsm.latent(key)), latent)
    made = [
        ("obs", adata.obs, Key.obs.names(key), others),
        ("uns", adata.uns, Key.uns.stability(key), others),
        ("uns", adata.uns, Key.uns.cut(key), others),
        ("uns", adata.uns, Key.uns.state_genes(key), turned),
    ]
    return [f".{place}[{slot!r}]" for place, there, slot, old in made if old and slot in there]


def _save(trained: ExpertModel, path: str | Path, landmarks: bool) -> Exception | None:
    """Save a model; returns the error, which must not cost the clusters."""
    try:
        trained.save(str(path), landmarks=landmarks)
    except Exception as error:  # noqa: BLE001
        return error
    return None


def _check_folder(path: str | Path) -> None:
    """Raise ValueError, before the training, where no folder can be made."""
    place = os.path.abspath(path)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        raise ValueError(f"`save_model`: {place!r} is no folder that can be written to.")
