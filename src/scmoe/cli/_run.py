"""The steps of ``scmoe cluster``, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from scmoe import io, similarity, tl
from scmoe._checks import check_batches
from scmoe.tl._neighbors import add_graph

from . import _folder as names
from ._folder import output_folder
from ._pictures import UMAP, set_colours
from ._prepare import (
    add_profile,
    choose_markers,
    compensate,
    has_own_graph,
    transform,
)
from ._read import is_transformed, read
from ._report import write_report
from ._settings import COUPLED, MIXTURE, SIMILAR
from ._tables import abundance, cluster_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from scmoe.similarity import Similarity

    from ._console import Console
    from ._settings import Settings

MAP_CELLS = 50_000
"""Cells on the map at most: a picture needs no more, and the map is the slowest step."""

PRUNED = 10
"""Coupled arms train so many times shorter after each category that is pruned."""

_SIMILARITIES = {
    "coassociation": similarity.CoAssociation,
    "graph": similarity.Graph,
    "knn": similarity.Knn,
    "threshold": similarity.Threshold,
}


def run(settings: Settings, console: Console) -> None:
    """Read, cluster, and write ``settings.output`` as a whole or not at all."""
    # pictures go to files
    mpl.use("Agg")
    # two runs could not share a checkpoint
    alone = settings.checkpoint
    with output_folder(settings.output, overwrite=settings.overwrite, alone=alone) as folder:
        console.step("reading")
        adata = read(settings, progress=console.bars)
        console.step(f"{adata.n_obs:,} cells x {adata.n_vars} channels")
        _check_slots(adata, settings)
        # a layer that concatenation took away is missed here
        done = is_transformed(adata, settings.layer)
        compensate(adata, settings, console)
        scale = transform(adata, settings, console, done=done)
        markers = choose_markers(adata, settings, console)
        own_graph, own_map = _similar(adata, markers, settings, console)
        _cluster(adata, markers, folder, settings, console)
        set_colours(adata, settings.key)
        table = cluster_table(adata, settings.key, markers, settings.layer)
        shown = _map(adata, markers, settings, console, drawn=own_map) if settings.umap else None
        console.step("writing")
        adata.write_h5ad(folder / names.CELLS)
        write_table(table.reset_index(), folder / names.TABLE)
        write_table(abundance(adata, settings.key), folder / names.ABUNDANCE)
        has_fcs = settings.fcs and not settings.from_h5ad
        has_fcs = has_fcs and _write_fcs(adata, folder / names.FCS, settings, console)
        graph = _graph(adata.uns[settings.key]["params"], settings, given=own_graph)
        facts = {"transform": scale, "model": settings.model, "neighbor graph": graph}
        write_report(
            folder / names.REPORT,
            adata,
            table=table,
            markers=markers,
            shown=shown,
            settings=settings,
            facts=facts,
            warnings=console.warnings,
            has_fcs=has_fcs,
        )
    living = adata.uns[settings.key]["n_clusters"]
    console.step(f"{living} clusters of {adata.n_obs:,} cells in {settings.output}")


def _graph(params: dict[str, Any], settings: Settings, *, given: bool) -> str:
    """What the neighbour graph is: of the similarity's, what the clustering says."""
    used = str(params.get("neighbors", "not used"))
    if used == "not used":
        return "for the map alone" if settings.umap else used
    if used == "given":
        return (
            "that of the file" if given else "nearest neighbors by the markers, built by this run"
        )
    return used


def _write_fcs(adata: AnnData, folder: Path, settings: Settings, console: Console) -> bool:
    """Write the clusters to FCS; a file that cannot hold them does not cost the other results."""
    try:
        io.write_fcs(adata, folder, obs=(settings.key,), progress=console.bars)
    except ValueError as error:
        console.warn(f"No FCS files were written. {error}")
        return False
    return True


def _check_slots(adata: AnnData, settings: Settings) -> None:
    """Raise an error early for what is not there, and for cells without a batch."""
    if settings.batch_key is not None:
        check_batches(adata, settings.batch_key)
    if settings.layer is not None and settings.layer not in adata.layers:
        raise KeyError(
            f"--layer: there is no layer {settings.layer!r}; there are "
            f"{', '.join(adata.layers) or 'none'}."
        )


def _chosen(settings: Settings) -> Similarity | None:
    """The similarity by name, that of the preset, or None for the library's."""
    from scmoe.model import preset

    if settings.similarity is not None:
        return _SIMILARITIES[settings.similarity]()
    return None if settings.preset is None else preset(settings.preset).similarity


def _similar(
    adata: AnnData, markers: list[str], settings: Settings, console: Console
) -> tuple[bool, bool]:
    """Compute what the similarity looks at.

    Returns whether the neighbour graph is one that came with the cells, and whether there is
    a map that fits it.
    """
    chosen = _chosen(settings)
    use_rep = add_profile(adata, markers, settings.layer)
    own_graph = has_own_graph(adata, settings)
    own_map = own_graph and UMAP in adata.obsm
    if getattr(chosen, "use_rep", None) == UMAP:
        if not own_map:
            console.step("embedding by UMAP, which the similarity looks at")
            similarity.umap(adata, use_rep=use_rep, random_state=settings.seed)
        return own_graph, True
    if not own_graph and (settings.umap or settings.model == SIMILAR):
        console.step("searching neighbours")
        add_graph(adata, use_rep=use_rep, batch_key=settings.batch_key, seed=settings.seed)
    return own_graph, own_map


def _cluster(
    adata: AnnData, markers: list[str], folder: Path, settings: Settings, console: Console
) -> None:
    console.step("clustering")
    options: dict[str, Any] = {"model": settings.model}
    if settings.batch_key is not None:
        options["batch_key"] = settings.batch_key
    if settings.checkpoint:
        options["checkpoint"] = settings.checkpoint_folder
        console.goes_on = f"The same command goes on from {settings.checkpoint_folder}."
    if (most := settings.max_epochs) is not None:
        options["train_kwargs"] = {"max_epochs": most}
        if settings.model == MIXTURE:
            pretraining = {"max_epochs": most, "manager_epochs": most}
            options["train_kwargs"]["pretrain_kwargs"] = pretraining
        if settings.model == COUPLED:
            # in proportion to those of a default training
            options["train_kwargs"]["prune_epochs"] = -(-most // PRUNED)
    tl.cluster(
        adata,
        n_clusters=settings.n_clusters,
        n_latent=settings.n_latent,
        similarity=None if settings.similarity is None else _chosen(settings),
        preset=settings.preset,
        markers=markers,
        layer=settings.layer,
        key_added=settings.key,
        random_state=settings.seed,
        progress=console.bars,
        save_model=folder / names.MODEL,
        **options,
    )
    console.goes_on = ""


def _map(
    adata: AnnData, markers: list[str], settings: Settings, console: Console, *, drawn: bool
) -> AnnData:
    """The cells of the picture, with a UMAP in ``.obsm["X_umap"]``."""
    if adata.n_obs <= MAP_CELLS:
        if not drawn:
            import scanpy as sc

            console.step("drawing a map by UMAP")
            sc.tl.umap(adata, random_state=settings.seed)
        return adata
    rng = np.random.default_rng(settings.seed)
    some = np.sort(rng.choice(adata.n_obs, MAP_CELLS, replace=False))
    shown = adata[some].copy()
    if not drawn:
        console.step(f"drawing a map of {MAP_CELLS:,} cells by UMAP")
        use_rep = add_profile(shown, markers, settings.layer)
        similarity.umap(shown, use_rep=use_rep, metric="euclidean", random_state=settings.seed)
    return shown
