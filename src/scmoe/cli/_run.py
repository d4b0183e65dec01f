"""The steps of ``scmoe cluster``, one after the other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from scipy.sparse import issparse

from scmoe import io, similarity, tl
from scmoe._core.atomic import check_space
from scmoe._core.cells import check_batches, layer_names
from scmoe._core.compat import rep_key
from scmoe._core.files import SaveError
from scmoe._core.tsne import MAP, sample, with_map
from scmoe.io._fcs import Plate
from scmoe.io._zarr import place_values, write_results
from scmoe.pl._figure import set_colors
from scmoe.similarity import with_seed
from scmoe.tl._neighbors import add_graph
from scmoe.tree import Tree

from . import _folder as names
from ._prepare import add_profile, choose_markers, has_own_graph, prepare
from ._read import find, read
from ._report import write_report
from ._settings import COUPLED, MIXTURE, SIMILAR
from ._store import check_similarity, needs_store, to_store
from ._tables import abundance, cluster_table, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from scmoe.similarity import Similarity

    from ._console import Console
    from ._folder import Output
    from ._settings import Settings

PRUNED = 10
"""Coupled arms train so many times shorter after each category that is pruned."""

_SIMILARITIES = {
    "tree": similarity.DensityTree,
    "coassociation": similarity.CoAssociation,
    "graph": similarity.Graph,
    "knn": similarity.Knn,
    "threshold": similarity.Threshold,
}


def run(settings: Settings, console: Console, output: Output) -> None:
    """Read, cluster, and fill the folder file by file, the cells first."""
    # pictures go to files
    mpl.use("Agg")
    console.step("reading")
    found = find(settings, progress=not console.quiet)
    stored = isinstance(found, Plate) and needs_store(found, settings, console)
    adata = found.head() if stored else read(found, settings)
    _check_slots(adata, settings)
    chosen = _chosen(adata, settings)
    if stored:
        check_similarity(chosen, settings)
        adata, scale = to_store(found, adata, settings, console, output.work)
    console.step(f"{adata.n_obs:,} cells x {adata.n_vars} channels")
    if not stored:
        scale = prepare(adata, settings, console)
    markers = choose_markers(adata, settings, console)
    own_graph, own_map = _similar(adata, markers, chosen, settings, console)
    saving = _cluster(adata, markers, chosen, output, settings, console)
    set_colors(adata, settings.key)
    try:
        with console.stage("writing the cells"):
            if stored:
                write_results(adata, output.work / names.STORE)
                output.put_store(names.STORE)
                place_values(adata, output.path / names.STORE)
            else:
                output.put(names.CELLS, partial(_write_cells, adata, output.path / names.CELLS))
    except Exception:
        # beside the cells of an earlier run it would pass for their model
        if saving is None and not output.replaces:
            output.put_folder(names.MODEL)
        raise
    if saving is not None:
        raise saving
    output.put_folder(names.MODEL)
    table = cluster_table(adata, settings.key, markers, settings.layer)
    output.put(names.TABLE, partial(write_table, table.reset_index()))
    output.put(names.ABUNDANCE, partial(write_table, abundance(adata, settings.key)))
    shown, basis = None, rep_key(adata, "X_umap") if own_map else MAP
    if settings.map:
        with console.stage("drawing the map"):
            draw = sample if own_map else partial(with_map, key=settings.key)
            shown = draw(adata, seed=settings.seed)
    has_fcs = settings.fcs and not settings.from_h5ad
    has_fcs = has_fcs and _write_fcs(adata, output, settings, console)
    record = adata.uns[settings.key]
    facts = {"transform": scale, "model": settings.model}
    if "tree" in record:
        facts["similarity"] = f"density tree, {_populations(record)}"
    facts["neighbor graph"] = _graph(record["params"], given=own_graph)
    report = partial(
        write_report,
        adata=adata,
        table=table,
        markers=markers,
        shown=shown,
        basis=basis,
        settings=settings,
        facts=facts,
        warnings=console.warnings,
        has_fcs=has_fcs,
    )
    with console.stage("writing the report"):
        output.put(names.REPORT, report)
    living = adata.uns[settings.key]["n_clusters"]
    console.step(f"{living} clusters of {adata.n_obs:,} cells in {settings.output}")


def _write_cells(adata: AnnData, target: Path, path: Path) -> None:
    """Write the cells of a target, if their matrices, nearly all of the file, fit on the disk."""
    layers = [adata.layers[name] for name in layer_names(adata)]
    parts = [adata.X, *layers, *adata.obsm.values(), *adata.obsp.values()]
    arrays = [a for x in parts for a in ((x.data, x.indices) if issparse(x) else (x,))]
    check_space(target, sum(np.asarray(array).nbytes for array in arrays))
    adata.write_h5ad(path)


def _graph(params: dict[str, Any], *, given: bool) -> str:
    """What the neighbour graph is: of the similarity's, what the clustering says."""
    used = str(params.get("neighbors", "not used"))
    if used == "given":
        return (
            "that of the file" if given else "nearest neighbors by the markers, built by this run"
        )
    return used


def _write_fcs(adata: AnnData, output: Output, settings: Settings, console: Console) -> bool:
    """Write the clusters to FCS; a file that cannot hold them does not cost the other results."""
    folder = output.work / names.FCS
    try:
        io.write_fcs(adata, folder, obs=(settings.key,), progress=not console.quiet)
    except ValueError as error:
        console.warn(f"No FCS files were written. {error}")
        return False
    output.put_folder(names.FCS)
    return True


def _check_slots(adata: AnnData, settings: Settings) -> None:
    """Raise an error early for what is not there, and for cells without a batch."""
    if settings.batch_key is not None:
        check_batches(adata, settings.batch_key)
    if settings.layer is not None and settings.layer not in adata.layers:
        raise KeyError(
            f"--layer: there is no layer {settings.layer!r}; there are "
            f"{', '.join(layer_names(adata)) or 'none'}."
        )


def _populations(record: Mapping[str, Any]) -> str:
    """How many there are in the tree of a clustering."""
    n = Tree.from_record(record["tree"]).n_clusters
    return f"{n} population{'s' if n != 1 else ''}"


def _chosen(adata: AnnData, settings: Settings) -> Similarity | None:
    """The similarity that was asked for, or None where the library chooses.

    It may choose the graph of a file, but not one that says something of other markers.
    """
    from scmoe.model import preset

    if settings.similarity is not None:
        return with_seed(_SIMILARITIES[settings.similarity](), settings.seed)
    if settings.preset is not None:
        return preset(settings.preset).similarity
    if settings.model != SIMILAR or has_own_graph(adata, settings):
        return None
    return with_seed(similarity.DensityTree(), settings.seed)


def _similar(
    adata: AnnData,
    markers: list[str],
    chosen: Similarity | None,
    settings: Settings,
    console: Console,
) -> tuple[bool, bool]:
    """Compute what the similarity looks at.

    Returns whether the neighbour graph is one that came with the cells, and whether there is a
    map that fits it.
    """
    own_graph = has_own_graph(adata, settings)
    own_map = own_graph and rep_key(adata, "X_umap") in adata.obsm
    if getattr(chosen, "use_rep", None) == "X_umap":
        if not own_map:
            use_rep = add_profile(adata, markers, settings.layer)
            with console.stage("embedding by UMAP, which the similarity looks at"):
                similarity.umap(adata, use_rep=use_rep, random_state=settings.seed, progress=False)
        return own_graph, True
    if not own_graph and chosen is not None and chosen.needs_graph:
        use_rep = add_profile(adata, markers, settings.layer)
        with console.stage("searching neighbours"):
            add_graph(adata, use_rep=use_rep, batch_key=settings.batch_key, seed=settings.seed)
    return own_graph, own_map


def _cluster(
    adata: AnnData,
    markers: list[str],
    chosen: Similarity | None,
    output: Output,
    settings: Settings,
    console: Console,
) -> SaveError | None:
    """Cluster; returns why the model was not saved, which costs the clusters nothing."""
    console.step("clustering")
    options: dict[str, Any] = {"model": settings.model}
    if settings.batch_key is not None:
        options["batch_key"] = settings.batch_key
    if (most := settings.max_epochs) is not None:
        options.setdefault("train_kwargs", {})["max_epochs"] = most
        if settings.model == MIXTURE:
            pretraining = {"max_epochs": most, "manager_epochs": most}
            options["train_kwargs"]["pretrain_kwargs"] = pretraining
        if settings.model == COUPLED:
            # in proportion to those of a default training
            options["train_kwargs"]["prune_epochs"] = -(-most // PRUNED)
    unsaved = None
    try:
        tl.cluster(
            adata,
            n_clusters=settings.n_clusters,
            n_latent=settings.n_latent,
            similarity=chosen,
            preset=settings.preset,
            markers=markers,
            layer=settings.layer,
            key_added=settings.key,
            random_state=settings.seed,
            progress=not console.quiet,
            save_model=output.work / names.MODEL,
            landmarks=settings.landmarks,
            **options,
        )
    except SaveError as error:
        unsaved = error
    if "tree" in (record := adata.uns[settings.key]):
        console.step(f"density tree: {_populations(record)}")
    return unsaved
