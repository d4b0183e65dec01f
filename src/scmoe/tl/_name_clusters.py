"""``scmoe.tl.name_clusters``: clusters that are called after their markers."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import pandas as pd
from natsort import natsorted

from scmoe._core.cells import check_adata
from scmoe._core.cluster_names import names_of
from scmoe._core.keys import Key
from scmoe._core.settings import check_whole
from scmoe._core.signatures import cluster_effects
from scmoe.get import gate_signs
from scmoe.tl._slots import check_free, plain, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

RECORD = {"clustering", "names", "params"}
"""What the record of names holds."""


def name_clusters(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    markers: Sequence[str] | None = None,
    max_markers: int = 3,
    layer: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Name clusters after the markers by which they differ, such as ``CD3+ CD4+ CD8-``.

    Where the clusters follow a tree, a name has first the markers of their gates, ``+`` above the
    threshold and ``-`` below it (:func:`scmoe.get.gates`; not those of sums of markers, or between
    two thresholds). Besides, a marker is ``+`` or ``-`` in a cluster whose mean is above or below
    that of all other cells by at least one standard deviation; what all cells have in common is
    in no name. A name has up to ``max_markers``, high ones before low ones; where there is none,
    the strongest one from 0.4 on. Clusters that would be called the same get further markers, down
    to 0.4 standard deviations, where their means differ by at least 0.6 of them, and then numbers,
    ``(1)`` for the largest. Markers that are equal up to 0.1 are taken in their own order. So
    names depend on what the clusters are and not on how they are numbered, and stay where
    effects change a little, unless one is at a limit.

    Parameters
    ----------
    adata
        Cells.
    key
        Column of ``.obs`` with clusters: of :func:`scmoe.tl.cluster`, the consensus of
        :func:`scmoe.tl.stability`, or of anybody else.
    markers
        Names of the markers that may be in a name, in the order that decides between equals; by
        default those that were clustered by, or all that are no technical channels.
    max_markers
        Markers of a name, unless more are needed to tell clusters apart.
    layer
        Layer to use; by default that which was clustered, else ``.X``.
    key_added
        Names the slots that are written; by default ``key + "_names"``.
    copy
        Return an annotated copy and leave ``adata`` alone.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added]``
        The name of the cluster of each cell, categorical in natural order; NaN for cells without
        a cluster. ``"no marker"`` is a cluster in which nothing stands out.
    ``.uns[key_added]``
        ``names``, a table by cluster of ``name`` and ``n_cells``; ``clustering`` (``key``),
        ``params`` and ``version``.
    ``.uns[key_added + "_colors"]``
        The colours of the clusters, where they have some.

    Raises
    ------
    KeyError
        An unknown clustering, marker or layer.
    ValueError
        A view; names of cells or markers that are not unique; no markers; ``max_markers`` below
        1; no cell with a cluster; a ``key_added`` whose slots are taken.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.tl.name_clusters(adata)
    >>> adata.obs["scmoe_names"].cat.categories
    """
    check_whole("max_markers", max_markers, 1)
    check_adata(adata)
    effect, sizes = cluster_effects(adata, key, markers, layer)
    key_added = Key.obs.names(key) if key_added is None else key_added
    check_free(adata, key_added, RECORD, ("uns", key_added), ("obs", key_added))
    names = names_of(effect, sizes / adata.n_obs, max_markers, gate_signs(adata, key))
    labels = adata.obs[key].astype("object").map(lambda name: names[str(name)], na_action="ignore")
    categories = natsorted(names.values())
    result = {
        "clustering": key,
        "names": pd.DataFrame({"name": names, "n_cells": sizes}, index=list(names)),
        "params": {"markers": list(effect.columns), "max_markers": max_markers, "layer": layer},
        "version": version("scmoe"),
    }
    adata = adata.copy() if copy else adata
    write(
        (adata.obs, key_added, pd.Categorical(labels, categories=categories)),
        (adata.uns, key_added, plain(result)),
        (adata.uns, f"{key_added}_colors", _colors(adata, key, key_added, names, categories)),
    )
    return adata if copy else None


def _colors(
    adata: AnnData, key: str, key_added: str, names: dict[str, str], categories: list[str]
) -> list[str] | None:
    """Return the colours of the clusters in the order of their names."""
    clusters = adata.obs[key].astype("category").cat.categories.astype(str)
    colors = adata.uns.get(f"{key}_colors", ())
    if len(colors) != len(clusters):
        return adata.uns.get(f"{key_added}_colors")
    of_names = {names.get(k): str(color) for k, color in zip(clusters, colors, strict=True)}
    return [of_names[name] for name in categories]
