"""Scores of clusterings: against known populations, and against each other."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from ._counts import Counts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Direction = Literal["populations", "clusters"]
Matching = Literal["one_to_one", "best"]


def f1_table(
    labels_true: ArrayLike,
    labels_pred: ArrayLike,
    *,
    ignore: Any = None,
    min_size: int = 0,
) -> pd.DataFrame:
    r"""Compute the F1 of every population with every cluster.

    With :math:`n_{ck}` cells shared by population :math:`c` and cluster :math:`k`,

    .. math:: F_{ck} = \frac{2\, n_{ck}}{n_c + n_k},

    the harmonic mean of precision :math:`n_{ck}/n_k` and recall :math:`n_{ck}/n_c`.

    Parameters
    ----------
    labels_true
        Population of each cell, shape ``(n_cells,)``. Cells without a population
        (NaN, None) are left out of the score.
    labels_pred
        Cluster of each cell, shape ``(n_cells,)``, in the same order. A cell without a
        cluster (NaN, None) counts in its population and in no cluster.
    ignore
        A label or several labels of ``labels_true`` (such as ``"unassigned"``) whose cells are
        left out of the score. Labels that do not occur are ignored.
    min_size
        Populations with fewer cells are left out. The paper of MoE-Sim-VAE scores populations
        of at least 30 cells.

    Returns
    -------
    Populations x clusters, float64, both in natural order. Clusters without a scored cell have
    no column.

    Raises
    ------
    ValueError
        If the two arrays have different lengths, are empty or not one-dimensional, or if no
        cell is left to score.
    """
    counts = Counts.of(labels_true, labels_pred, ignore, min_size)
    return pd.DataFrame(
        counts.f1(),
        index=pd.Index(counts.populations, name="population"),
        columns=pd.Index(counts.clusters, name="cluster"),
    )


def weighted_f(
    labels_true: ArrayLike,
    labels_pred: ArrayLike,
    *,
    ignore: Any = None,
    min_size: int = 0,
    direction: Direction = "populations",
) -> float:
    r"""Compute the weighted best-match F-measure (FlowCAP), from 0 to 1.

    Every population is matched with the cluster of its highest F1 and weighted by its size:

    .. math:: F = \sum_c \frac{n_c}{N} \max_k F_{ck}.

    Several populations may be matched with the same cluster, and small populations have little
    weight: a clustering that merges rare populations into common ones can score high.
    :func:`mean_f1` is the opposite in both respects.

    Parameters
    ----------
    labels_true, labels_pred, ignore, min_size
        See :func:`f1_table`.
    direction
        ``"populations"`` is the sum above: the measure of FlowCAP and of the experiments with
        MoE-Sim-VAE. ``"clusters"`` follows equation 12 of that paper literally, where :math:`c`
        are the clusters and :math:`k` the reference: :math:`\sum_k n_k / N \max_c F_{ck}`, with
        :math:`N` the number of scored cells that have a cluster. This score tolerates split
        populations and penalises missed populations even less.

    Returns
    -------
    The score.

    Raises
    ------
    ValueError
        As :func:`f1_table`, or if ``direction`` is unknown.

    References
    ----------
    Aghaeepour et al., "Critical assessment of automated flow cytometry data analysis
    techniques", Nature Methods 10, 228-238 (2013). Kopf et al., PLoS Computational Biology
    17(6), e1009086 (2021), equation 12.
    """
    if direction not in get_args(Direction):
        raise ValueError(f"direction must be 'populations' or 'clusters', got {direction!r}.")
    counts = Counts.of(labels_true, labels_pred, ignore, min_size)
    if not counts.clusters:
        return 0.0
    f1 = counts.f1()
    if direction == "populations":
        return float(np.average(f1.max(axis=1), weights=counts.sizes))
    return float(np.average(f1.max(axis=0), weights=counts.cluster_sizes))


def mean_f1(
    labels_true: ArrayLike,
    labels_pred: ArrayLike,
    *,
    ignore: Any = None,
    min_size: int = 0,
) -> float:
    r"""Compute the mean F1 under a one-to-one matching (Weber and Robinson), from 0 to 1.

    Populations and clusters are matched one to one such that the sum of their F1 is maximal
    (Hungarian algorithm). An unmatched population has an F1 of 0; all populations have the same
    weight, whatever their size.

    Parameters
    ----------
    labels_true, labels_pred, ignore, min_size
        See :func:`f1_table`.

    Returns
    -------
    The score.

    Raises
    ------
    ValueError
        As :func:`f1_table`.

    References
    ----------
    Weber and Robinson, "Comparison of clustering methods for high-dimensional single-cell flow
    and mass cytometry data", Cytometry A 89, 1084-1096 (2016).
    """
    f1 = Counts.of(labels_true, labels_pred, ignore, min_size).f1()
    rows, columns = linear_sum_assignment(f1, maximize=True)
    return float(f1[rows, columns].sum() / f1.shape[0])


def accuracy(
    labels_true: ArrayLike,
    labels_pred: ArrayLike,
    *,
    ignore: Any = None,
    min_size: int = 0,
) -> float:
    r"""Compute the clustering accuracy, the share of correctly clustered cells, from 0 to 1.

    Populations and clusters are matched one to one such that as many cells as possible are
    right (Hungarian algorithm on the counts),

    .. math:: \mathrm{ACC} = \frac{1}{N} \max_m \sum_c n_{c\,m(c)}.

    Cells of unmatched populations or clusters are wrong.

    Parameters
    ----------
    labels_true, labels_pred, ignore, min_size
        See :func:`f1_table`.

    Returns
    -------
    The score.

    Raises
    ------
    ValueError
        As :func:`f1_table`.

    References
    ----------
    Xie, Girshick and Farhadi, "Unsupervised deep embedding for clustering analysis", ICML
    (2016).
    """
    counts = Counts.of(labels_true, labels_pred, ignore, min_size)
    rows, columns = linear_sum_assignment(counts.table, maximize=True)
    return float(counts.table[rows, columns].sum() / counts.n_cells)


def match_table(
    labels_true: ArrayLike,
    labels_pred: ArrayLike,
    *,
    ignore: Any = None,
    min_size: int = 0,
    matching: Matching = "one_to_one",
) -> pd.DataFrame:
    """Match populations with clusters, and list precision, recall and F1 of each pair.

    Parameters
    ----------
    labels_true, labels_pred, ignore, min_size
        See :func:`f1_table`.
    matching
        ``"one_to_one"`` matches as :func:`mean_f1` does; ``"best"`` matches every population
        with its best cluster as :func:`weighted_f` does (the first of equally good clusters).

    Returns
    -------
    Table with a row for each population, largest first, and the columns

    ``n_cells`` : int64
        Cells of the population.
    ``cluster`` : object
        The matched cluster, None if there is none or if the two share no cell.
    ``n_cluster`` : int64
        Scored cells of this cluster.
    ``n_shared`` : int64
        Cells in both.
    ``precision``, ``recall``, ``f1`` : float64
        0 without a match. The mean of ``f1`` is :func:`mean_f1`; with ``matching="best"``, the
        mean weighted by ``n_cells`` is :func:`weighted_f`.

    Raises
    ------
    ValueError
        As :func:`f1_table`, or if ``matching`` is unknown.
    """
    if matching not in get_args(Matching):
        raise ValueError(f"matching must be 'one_to_one' or 'best', got {matching!r}.")
    counts = Counts.of(labels_true, labels_pred, ignore, min_size)
    found = [
        k if k >= 0 and counts.table[i, k] > 0 else None
        for i, k in enumerate(_partners(counts.f1(), matching))
    ]
    shared = np.array([0 if k is None else counts.table[i, k] for i, k in enumerate(found)])
    n_cluster = np.array([0 if k is None else counts.cluster_sizes[k] for k in found])
    clusters = [None if k is None else counts.clusters[k] for k in found]
    table = pd.DataFrame(
        {
            "n_cells": counts.sizes,
            "cluster": pd.Series(clusters, dtype=object).to_numpy(),
            "n_cluster": n_cluster.astype(np.int64),
            "n_shared": shared.astype(np.int64),
            "precision": shared / np.maximum(n_cluster, 1),
            "recall": shared / counts.sizes,
            "f1": 2.0 * shared / (counts.sizes + n_cluster),
        },
        index=pd.Index(counts.populations, name="population"),
    )
    return table.sort_values("n_cells", ascending=False, kind="stable")


def _partners(f1: NDArray[np.float64], matching: Matching) -> NDArray[np.intp]:
    """Return the column of the cluster matched with each population, -1 for none."""
    partner = np.full(f1.shape[0], -1, dtype=np.intp)
    if f1.shape[1] == 0:
        return partner
    if matching == "best":
        partner[:] = f1.argmax(axis=1)
    else:
        rows, columns = linear_sum_assignment(f1, maximize=True)
        partner[rows] = columns
    return partner


def category_agreement(labels: np.ndarray, n_categories: int) -> np.ndarray:
    r"""Compute the agreement of the categories of several labellings of the same cells.

    The agreement of category k of one labelling with category l of another is
    :math:`C_{kl} / \max(\sum_m C_{km}, \sum_m C_{ml})` with the contingency table :math:`C`: the
    number of shared cells, divided by the size of the larger of the two categories. For more than
    two labellings it is the mean over all pairs, each in both directions.

    Parameters
    ----------
    labels
        Labels, ``(n_labelings, n_cells)``, integers from 0 with the same meaning in all
        labellings.
    n_categories
        Number of categories K.

    Returns
    -------
    ``(K, K)`` float from 0 to 1; for two labellings, rows are categories of the first one. 0 for
    a category without cells.

    Raises
    ------
    ValueError
        If there are fewer than two labellings, no cells, or labels outside of 0 to K - 1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or len(labels) < 2 or labels.shape[1] == 0:
        raise ValueError(
            "`labels` must have two labellings or more of one cell or more, got the shape "
            f"{labels.shape}."
        )
    if not np.issubdtype(labels.dtype, np.integer) or not (
        0 <= labels.min() <= labels.max() < n_categories
    ):
        raise ValueError(f"`labels` must be whole numbers from 0 to {n_categories - 1}.")
    pairs = list(combinations(labels, 2))
    total = np.zeros((n_categories, n_categories))
    for one, other in pairs:
        table = confusion_matrix(one, other, labels=range(n_categories))
        size = np.maximum(table.sum(1)[:, None], table.sum(0))
        total += table / np.maximum(size, 1)
    return total if len(pairs) == 1 else (total + total.T) / (2 * len(pairs))


def category_consensus(labels: np.ndarray, n_categories: int) -> np.ndarray:
    """Compute the consensus of each category, the diagonal of :func:`category_agreement`.

    Parameters
    ----------
    labels, n_categories
        See :func:`category_agreement`.

    Returns
    -------
    ``(K,)`` float from 0 to 1.

    Raises
    ------
    ValueError
        As :func:`category_agreement`.
    """
    return category_agreement(labels, n_categories).diagonal().copy()
