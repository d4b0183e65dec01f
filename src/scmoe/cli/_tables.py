"""Tables of the clusters: sizes, medians of the markers, abundance by sample."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmoe._core.cluster_names import names_of
from scmoe._core.keys import Key
from scmoe._core.signatures import cluster_effects, labels_of, measured_markers, medians
from scmoe._core.text import apart, visible
from scmoe.get import gate_signs

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


CONSENSUS = "consensus"
"""Column with the agreement of coupled arms on a cluster."""

OWN = ("cluster", "name", "cells", "share", "median_probability", CONSENSUS)
"""Columns that are no markers."""

ALL = "all cells"
"""The sample of cells without a column of samples."""

_MARKERS_OF_NAME = 3

_DIVERSE = 0.7
"""Weight of what a marker adds to the markers chosen before it."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_FORMULA = re.compile("(^|;)(?=\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20])")
"""Start of a formula of a spreadsheet, in the width of Latin or of East Asian text."""


def write_table(table: pd.DataFrame, path: Path) -> None:
    r"""Write a table as CSV, without formulas and control characters.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; control and
    bidirectional characters are written as ``\u202e``.
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

    One row for each cluster (the index ``cluster``), and one for the cells without a cluster. With
    coupled arms also their consensus on each cluster. A marker that is named like another column
    becomes ``"share (marker)"``.
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
    """Return the names that :func:`scmoe.tl.name_clusters` gives; given names stay."""
    effect, sizes = cluster_effects(adata, key, used, layer)
    if not all(name.isdigit() for name in effect.index):
        return pd.Series(effect.index, effect.index)
    return pd.Series(
        names_of(effect, sizes / adata.n_obs, _MARKERS_OF_NAME, gate_signs(adata, key))
    )


def _consensus(adata: AnnData, key: str) -> pd.Series | None:
    """Return the agreement of the arms on each cluster, None for fewer than two arms."""
    record = adata.uns.get(key, {}).get("categories", {})
    consensus = np.asarray(record.get("consensus", []), dtype=float)
    if not len(consensus) or np.isnan(consensus).all():
        return None
    names = adata.obsm[Key.obsm.proba(key)].columns
    return pd.Series(consensus, index=names.astype(str))


def highest_probability(adata: AnnData, key: str) -> pd.Series:
    """Return the probability of each cell for its most probable cluster."""
    return adata.obsm[Key.obsm.proba(key)].max(axis=1)


def most_different(effect: pd.DataFrame, shares: pd.Series, most: int) -> list[str]:
    """Return the markers that differ most between the clusters, in their own order.

    The score of a marker is the share of its variance between the clusters, so that clusters count
    by their cells. The score is lower if markers chosen before it differ in the same way.

    Parameters
    ----------
    effect
        Clusters x markers: the columns ``effect`` of :func:`scmoe.get.signatures`.
    shares
        Share of the cells of each cluster among all cells.
    most
        Number of markers to return.
    """
    names = list(effect.columns)
    if len(names) <= most:
        return names
    weights = shares.reindex(effect.index).to_numpy(dtype=float)[:, None]
    # from the difference to all other cells to the difference to all cells
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
    """Return the sample of each cell, categorical; None without a column of samples.

    Samples with the same name in several files stay different.
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
    """Return ``sample``, ``cluster``, ``cells``, and ``share`` of the cells of the sample.

    One row for each cluster in each sample, also without cells. Without a column of samples, all
    cells are one sample.
    """
    samples = samples_of(adata)
    if samples is None:
        samples = pd.Series(ALL, adata.obs_names).astype("category")
    counts = pd.crosstab(samples, labels_of(adata, key))
    table = counts.rename_axis(index="sample", columns="cluster").stack().rename("cells")
    table = table.reset_index().astype({"sample": str, "cluster": str})
    of_sample = table.groupby("sample", sort=False)["cells"].transform("sum")
    return table.assign(share=table["cells"] / of_sample)
