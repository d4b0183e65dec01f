"""The steps of ``scmoe cluster``, one after the other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from scipy.sparse import issparse

from scmoe import io, similarity, tl
from scmoe._core.atomic import check_space
from scmoe._core.cells import check_batches, layer_names, layer_values
from scmoe._core.compat import rep_key
from scmoe._core.files import SaveError
from scmoe._core.keys import Key
from scmoe.io import Plate, set_values, write_results
from scmoe.pl import MAP, sample, set_colors, with_map
from scmoe.similarity import with_seed
from scmoe.tl import add_graph
from scmoe.tree import Tree

from . import _output as names
from ._cells import compensate_and_transform, find_cells, read_cells
from ._channels import choose_markers
from ._report import write_report
from ._settings import COUPLED, MIXTURE, SIMILAR
from ._store import check_similarity, choose_store, to_store
from ._tables import abundance, cluster_table, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from scmoe.similarity import Similarity

    from ._console import Console
    from ._output import Output
    from ._settings import Settings

TIMES_SHORTER = 10
"""How many times shorter coupled arms train after each category that is pruned."""

_SIMILARITIES = {
    "tree": similarity.DensityTree,
    "coassociation": similarity.CoAssociation,
    "graph": similarity.Graph,
    "knn": similarity.Knn,
    "threshold": similarity.Threshold,
}


def run(settings: Settings, console: Console, output: Output) -> None:
    """Read and cluster the cells, and write the results, the cells first."""
    # pictures go to files
    mpl.use("Agg")
    console.step("reading")
    found = find_cells(settings, progress=not console.quiet)
    stored = isinstance(found, Plate) and choose_store(found, settings, console)
    adata = found.head() if stored else read_cells(found, settings)
    _check_slots(adata, settings)
    chosen = _choose_similarity(adata, settings)
    if stored:
        check_similarity(chosen, settings)
        adata, scale = to_store(found, adata, settings, console, output.work)
    console.step(f"{adata.n_obs:,} cells x {adata.n_vars} channels")
    if not stored:
        scale = compensate_and_transform(adata, settings, console)
    markers = choose_markers(adata, settings, console)
    own_graph, own_map = _prepare_similarity(adata, markers, chosen, settings, console)
    saving = _cluster(adata, markers, chosen, output, settings, console)
    set_colors(adata, settings.key)
    try:
        with console.stage("writing the cells"):
            if stored:
                write_results(adata, output.work / names.STORE)
                output.put_store(names.STORE)
                set_values(adata, output.path / names.STORE)
            else:
                output.put(names.CELLS, partial(_write_cells, adata, output.path / names.CELLS))
    except Exception:
        # next to the cells of an earlier run it would pass for their model
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
        facts["similarity"] = f"density tree, {_count_populations(record)}"
    facts["neighbor graph"] = _describe_graph(record["params"], given=own_graph)
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
    """Write cells to a temporary path; raise OSError if their matrices do not fit on the disk."""
    layers = [adata.layers[name] for name in layer_names(adata)]
    parts = [adata.X, *layers, *adata.obsm.values(), *adata.obsp.values()]
    arrays = [a for x in parts for a in ((x.data, x.indices) if issparse(x) else (x,))]
    check_space(target, sum(np.asarray(array).nbytes for array in arrays))
    adata.write_h5ad(path)


def _describe_graph(params: dict[str, Any], *, given: bool) -> str:
    """Return the origin of the neighbour graph, in words."""
    used = str(params.get("neighbors", "not used"))
    if used == "given":
        return (
            "that of the file" if given else "nearest neighbors by the markers, built by this run"
        )
    return used


def _write_fcs(adata: AnnData, output: Output, settings: Settings, console: Console) -> bool:
    """Write FCS files with the clusters, and return whether they could be written."""
    folder = output.work / names.FCS
    try:
        io.write_fcs(adata, folder, obs=(settings.key,), progress=not console.quiet)
    except ValueError as error:
        console.warn(f"No FCS files were written. {error}")
        return False
    output.put_folder(names.FCS)
    return True


def _check_slots(adata: AnnData, settings: Settings) -> None:
    """Raise an error for a missing layer or batch column, and for cells without a batch."""
    if settings.batch_key is not None:
        check_batches(adata, settings.batch_key)
    if settings.layer is not None and settings.layer not in adata.layers:
        raise KeyError(
            f"--layer: there is no layer {settings.layer!r}; there are "
            f"{', '.join(layer_names(adata)) or 'none'}."
        )


def _count_populations(record: Mapping[str, Any]) -> str:
    """Return the number of populations in the tree of a clustering, in words."""
    n = Tree.from_record(record["tree"]).n_clusters
    return f"{n} population{'s' if n != 1 else ''}"


def _choose_similarity(adata: AnnData, settings: Settings) -> Similarity | None:
    """Return the similarity of the settings, or None where :func:`scmoe.tl.cluster` chooses.

    ``tl.cluster`` may choose the graph of a file, but not a graph of other markers.
    """
    from scmoe.model import preset

    if settings.similarity is not None:
        return with_seed(_SIMILARITIES[settings.similarity](), settings.seed)
    if settings.preset is not None:
        return preset(settings.preset).similarity
    if settings.model != SIMILAR or _has_own_graph(adata, settings):
        return None
    return with_seed(similarity.DensityTree(), settings.seed)


def _prepare_similarity(
    adata: AnnData,
    markers: list[str],
    chosen: Similarity | None,
    settings: Settings,
    console: Console,
) -> tuple[bool, bool]:
    """Compute the neighbour graph or the UMAP that the similarity needs.

    Returns whether the neighbour graph came with the cells, and whether there is a map of it.
    """
    own_graph = _has_own_graph(adata, settings)
    own_map = own_graph and rep_key(adata, "X_umap") in adata.obsm
    if getattr(chosen, "use_rep", None) == "X_umap":
        if not own_map:
            use_rep = _add_profile(adata, markers, settings.layer)
            with console.stage("embedding by UMAP, which the similarity needs"):
                similarity.umap(adata, use_rep=use_rep, random_state=settings.seed, progress=False)
        return own_graph, True
    if not own_graph and chosen is not None and chosen.needs_graph:
        use_rep = _add_profile(adata, markers, settings.layer)
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
    """Cluster the cells, and return the error if the model could not be saved."""
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
            options["train_kwargs"]["prune_epochs"] = -(-most // TIMES_SHORTER)
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
        console.step(f"density tree: {_count_populations(record)}")
    return unsaved


def _has_own_graph(adata: AnnData, settings: Settings) -> bool:
    """Return whether the cells have a neighbour graph, and it is not of other markers."""
    chosen = settings.markers is not None or settings.exclude or settings.layer is not None
    return "connectivities" in adata.obsp and "neighbors" in adata.uns and not chosen


def _add_profile(adata: AnnData, markers: list[str], layer: str | None) -> str:
    """Write the values of the markers to ``.obsm``, and return the name for ``use_rep``."""
    if layer is None and list(adata.var_names) == markers:
        return "X"
    columns = adata.var_names.get_indexer(markers)
    adata.obsm[Key.obsm.MARKERS] = np.asarray(layer_values(adata, layer)[:, columns])
    return Key.obsm.MARKERS
