"""The clusters in numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmoe._core.keys import Key
from scmoe._core.text import apart, visible
from scmoe.get._naming import names_of
from scmoe.get._signatures import cluster_effects, labels_of, measured_markers, medians
from scmoe.get._tree import gate_signs

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


CONSENSUS = "consensus"
"""Column of how far coupled arms agree on a cluster."""

OWN = ("cluster", "name", "cells", "share", "median_probability", CONSENSUS)
"""Columns that are no markers."""

ALL = "all cells"
"""The sample of cells that say nothing of samples."""

_MARKERS_OF_NAME = 3

_DIVERSE = 0.7
"""How much less a marker counts that others, which were chosen before it, make up for."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_FORMULA = re.compile("(^|;)(?=\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20])")
"""What a spreadsheet would run, in the width of Latin or of East Asian text."""


def write_table(table: pd.DataFrame, path: Path) -> None:
    r"""Write a table as CSV, the names in it as text that does nothing.

    Text that a spreadsheet would run gets an apostrophe in front, control and bidirectional
    characters are written as ``\u202e``.
    """
    table = table.copy()
    for column in table.columns[[dtype.kind not in "biuf" for dtype in table.dtypes]]:
        table[column] = [_harmless(value) for value in table[column]]
    table.columns = apart([_harmless(name) for name in table.columns], ())
    table.to_csv(path, index=False, encoding="utf-8")


def _harmless(value: object) -> str:
    text = visible(str(value))
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", text)


def cluster_table(
    adata: AnnData, key: str, used: list[str], layer: str | None = None
) -> pd.DataFrame:
    """Return name, cells, share, median of the highest probability and of each marker.

    A row for each cluster, called ``cluster``, and for the cells without one. Of coupled arms
    also their consensus on each cluster. A marker that is called like another column is
    ``"share (marker)"``.
    """
    labels = labels_of(adata, key)
    sizes = labels.value_counts(sort=False)
    certain = highest_probability(adata, key).groupby(labels, observed=True).median()
    table = pd.DataFrame(
        {"cells": sizes, "share": sizes / len(labels), "median_probability": certain}
    )
    table.index = table.index.astype(str)
    table.insert(0, "name", _names(adata, key, used, layer).reindex(table.index, fill_value=""))
    agreed = _consensus(adata, key)
    if agreed is not None:
        table[CONSENSUS] = agreed.reindex(table.index).to_numpy()
    names = measured_markers(adata, used)
    middle = medians(adata, labels, names, layer).set_axis(apart(names, OWN), axis=1)
    return pd.concat([table, middle.reindex(table.index)], axis=1).rename_axis("cluster")


def _names(adata: AnnData, key: str, used: list[str], layer: str | None) -> pd.Series:
    """What :func:`scmoe.tl.name_clusters` calls the clusters; what is called already keeps it."""
    effect, sizes = cluster_effects(adata, key, used, layer)
    if not all(name.isdigit() for name in effect.index):
        return pd.Series(effect.index, effect.index)
    return pd.Series(
        names_of(effect, sizes / adata.n_obs, _MARKERS_OF_NAME, gate_signs(adata, key))
    )


def _consensus(adata: AnnData, key: str) -> pd.Series | None:
    """How far the arms agree on each cluster; None where there are no arms to agree."""
    record = adata.uns.get(key, {}).get("categories", {})
    consensus = np.asarray(record.get("consensus", []), dtype=float)
    if not len(consensus) or np.isnan(consensus).all():
        return None
    names = adata.obsm[Key.obsm.proba(key)].columns
    return pd.Series(consensus, index=names.astype(str))


def highest_probability(adata: AnnData, key: str) -> pd.Series:
    """Of each cell, over the clusters."""
    return adata.obsm[Key.obsm.proba(key)].max(axis=1)


def most_telling(effect: pd.DataFrame, shares: pd.Series, most: int) -> list[str]:
    """Return the markers that tell the clusters apart best, in their own order.

    A marker counts by the share of its variance that lies between the clusters, so that a
    cluster counts by its cells; and less if those that were chosen before it tell the same.

    Parameters
    ----------
    effect
        Clusters x markers, see :func:`scmoe.get._signatures.effects`.
    shares
        Share of all cells that each cluster has.
    most
        How many markers to return.
    """
    names = list(effect.columns)
    if len(names) <= most:
        return names
    weights = shares.reindex(effect.index).to_numpy(dtype=float)[:, None]
    # a mean less that of all cells, where an effect is one less that of all others
    between = effect.to_numpy() * (1 - weights) * np.sqrt(weights)
    whole, rest = (between**2).sum(axis=0), between.copy()
    chosen: list[int] = []
    for _ in range(most):
        score = (1 - _DIVERSE) * whole + _DIVERSE * (rest**2).sum(axis=0)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        along = rest[:, chosen[-1]]
        if (length := np.linalg.norm(along)) > 0:
            rest -= np.outer(along, along @ rest) / length**2
    return [names[i] for i in sorted(chosen)]


def samples_of(adata: AnnData) -> pd.Series | None:
    """Return the sample of each cell, categorical; None where the cells do not say.

    Samples of one name in several files are told apart.
    """
    columns = [c for c in (Key.obs.SAMPLE, Key.obs.FILE) if c in adata.obs]
    if not columns:
        return None
    samples = labels_of(adata, columns[0])
    if len(columns) == 2:
        files = labels_of(adata, Key.obs.FILE)
        if (pd.crosstab(samples, files) > 0).sum(axis=1).max() > 1:
            both = files.astype(str) + ": " + samples.astype(str)
            return both.astype("category").rename(Key.obs.SAMPLE)
    return samples


def abundance(adata: AnnData, key: str) -> pd.DataFrame:
    """Return ``sample``, ``cluster``, ``cells`` and ``share``, of the sample's cells.

    A row for each cluster in each sample, also where it has no cells. What does not know
    samples is one.
    """
    samples = samples_of(adata)
    if samples is None:
        samples = pd.Series(ALL, adata.obs_names).astype("category")
    counts = pd.crosstab(samples, labels_of(adata, key))
    table = counts.rename_axis(index="sample", columns="cluster").stack().rename("cells")
    table = table.reset_index().astype({"sample": str, "cluster": str})
    of_sample = table.groupby("sample", sort=False)["cells"].transform("sum")
    return table.assign(share=table["cells"] / of_sample)
