"""From intensities to the values that are clustered, and their neighbour graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe import pp
from scmoe._core.cells import layer_values
from scmoe._core.keys import Key
from scmoe._core.rows import Rows
from scmoe._core.text import listing
from scmoe._core.values import check_matrix, check_training
from scmoe.tl._working import technical_names

from ._channels import NOT_EVERYWHERE, kinds_of, why_left_out
from ._read import is_transformed
from ._settings import COFACTORS

if TYPE_CHECKING:
    from anndata import AnnData

    from ._console import Console
    from ._settings import Settings


def undoes_spillover(adata: AnnData, settings: Settings, console: Console) -> bool:
    """Whether spillover is to be undone; says so if there is any that is not."""
    if settings.compensates:
        return True
    if (settings.layer or "X") in adata.uns.get(Key.uns.COMPENSATED, {}):
        return False
    records = adata.uns.get(Key.uns.FCS, {})
    there = [name for name, record in records.items() if _spills(record.get("spillover"))]
    if there:
        console.warn(
            f"{len(there)} of {len(records)} samples have a spillover matrix, which was not "
            f"applied ({listing(there)}). --compensate applies it."
        )
    return False


def _spills(matrix: pd.DataFrame | None) -> bool:
    return matrix is not None and not np.array_equal(matrix.to_numpy(), np.eye(len(matrix)))


def choose_transform(
    adata: AnnData, settings: Settings, *, done: bool
) -> tuple[float | dict[str, float] | None, str]:
    """Return the cofactors of an arcsinh where one is due, else None, and the same in words.

    Parameters
    ----------
    adata
        The cells, or what the headers of their files tell.
    settings
        Of the run.
    done
        Whether the cells were transformed when they were read.

    Raises
    ------
    ValueError
        No channel is known to be one that is transformed.
    """
    wanted = settings.transform
    if wanted is None:
        # of h5ad only raw cytometry is known to lack it
        raw = not settings.from_h5ad or (Key.var.KIND in adata.var and Key.uns.FCS in adata.uns)
        wanted = (raw and not done) or settings.cofactor is not None
    if not wanted:
        return None, "none here; values were taken as they are"
    if settings.cofactor is not None:
        return settings.cofactor, f"arcsinh(x / {settings.cofactor:g})"
    kinds = kinds_of(adata.var)
    of_kind = {kind: value for kind, value in COFACTORS.items() if (kinds == kind).any()}
    if not of_kind:
        raise ValueError(
            "No channel is known to be mass or fluorescence; give --cofactor, or --no-transform."
        )
    cofactors = {name: of_kind[kind] for name, kind in kinds.items() if kind in of_kind}
    told = ", ".join(f"arcsinh(x / {value:g}) of {kind}" for kind, value in of_kind.items())
    return cofactors, told


def prepare(adata: AnnData, settings: Settings, console: Console) -> str:
    """Compensate and transform cells in memory; returns how they were transformed, in words."""
    # a layer that concatenation took away is missed here
    done = is_transformed(adata, settings.layer)
    if undoes_spillover(adata, settings, console):
        console.step("compensating")
        pp.compensate(adata, spillover=settings.spillover, layer=settings.layer)
    cofactors, told = choose_transform(adata, settings, done=done)
    if cofactors is not None:
        console.step("transforming by arcsinh")
        channels = list(cofactors) if isinstance(cofactors, dict) else None
        pp.arcsinh(adata, cofactors, layer=settings.layer, channels=channels)
    return told


def choose_markers(adata: AnnData, settings: Settings, console: Console) -> list[str]:
    """Names of the markers to cluster by, checked with their values.

    Raises
    ------
    KeyError
        For names that are no marker.
    ValueError
        For values that cannot be clustered, and if no marker is left.
    """
    values = layer_values(adata, settings.layer, in_memory=False)
    partly = _partly_measured(adata, values) if settings.join == "outer" else ()
    left_out = why_left_out(adata.var, settings.markers, settings.exclude, partly)
    names = [name for name in settings.markers or adata.var_names if not left_out[name]]
    names = list(dict.fromkeys(names))
    if not names:
        raise ValueError("No marker is left to cluster by.")
    if dropped := [name for name, why in left_out.items() if why == NOT_EVERYWHERE]:
        console.warn(f"Not clustered by {listing(dropped)}, which not every file has.")
    where = "X" if settings.layer is None else f"layer {settings.layer!r}"
    _check_number(adata, settings)
    # what no choice of markers mends: sparse values and whole numbers
    check_matrix(values[:0], names, where)
    rows = Rows(values, adata.var_names.get_indexer(names)).checked(names, where, counts=False)
    low, high = np.full((2, len(names)), [[np.inf], [-np.inf]])
    try:
        for _, block in rows:
            low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
        check_training(np.stack([low, high]), names, settings.least_clusters, n_obs=adata.n_obs)
    except ValueError as error:
        hint = "--exclude leaves markers out, --markers names them."
        raise ValueError(f"{error} {hint}") from None
    index = pd.Index(names)
    if settings.markers is None and (technical := technical_names(adata, index)):
        console.warn(
            f"By their names {listing(technical)} are no markers; --exclude leaves them out."
        )
    return names


def _check_number(adata: AnnData, settings: Settings) -> None:
    n_clusters = settings.least_clusters
    if adata.n_obs < n_clusters:
        raise ValueError(
            f"There are fewer cells ({adata.n_obs}) than clusters ({n_clusters}); "
            "--n-clusters asks for fewer."
        )


def _partly_measured(adata: AnnData, values: Any) -> list[str]:
    """Names of what not every file has; it stays in the result."""
    measured = adata.layers.get(Key.layers.MEASURED)
    # AnnData that was joined says it by NaN only
    everywhere = np.ones(adata.n_vars, dtype=bool)
    for _, block in Rows(values if measured is None else measured).raw_blocks():
        everywhere &= (~np.isnan(block) if measured is None else block).all(axis=0)
    return list(adata.var_names[~everywhere])


def has_own_graph(adata: AnnData, settings: Settings) -> bool:
    """Whether the user's graph is to be used: one that says nothing of other markers."""
    chosen = settings.markers is not None or settings.exclude or settings.layer is not None
    return "connectivities" in adata.obsp and "neighbors" in adata.uns and not chosen


def add_profile(adata: AnnData, names: list[str], layer: str | None) -> str:
    """Write the values to cluster to ``.obsm``, and return the name for ``use_rep``."""
    if layer is None and list(adata.var_names) == names:
        return "X"
    columns = adata.var_names.get_indexer(names)
    adata.obsm[Key.obsm.MARKERS] = np.asarray(layer_values(adata, layer)[:, columns])
    return Key.obsm.MARKERS
