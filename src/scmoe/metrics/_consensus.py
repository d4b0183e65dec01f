"""How far several clusterings of the same cells name the same clusters."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from sklearn.metrics import confusion_matrix


def category_agreement(labels: np.ndarray, n_categories: int) -> np.ndarray:
    r"""Which categories of several labellings of the same cells are the same.

    Of two labellings with the contingency table :math:`C` it is
    :math:`C_{kl} / \max(\sum_m C_{km}, \sum_m C_{ml})`, the share of the cells that are both in
    category k of the first and l of the second, in the one that has more. Of more labellings it
    is the mean over pairs, each in both directions.

    Parameters
    ----------
    labels
        Labels that mean the same in all labellings, ``(n_labelings, n)`` int from 0.
    n_categories
        K.

    Returns
    -------
    ``(K, K)`` float from 0 to 1, for two labellings the first in rows; 0 for a category that has
    no cell in either of them.

    Raises
    ------
    ValueError
        Fewer than two labellings, no cells, labels that are not from 0 to K - 1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or len(labels) < 2 or labels.shape[1] == 0:
        raise ValueError(
            f"Consensus is between two labellings or more of one cell or more; the labels have "
            f"the shape {labels.shape}."
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
    """Agreement of labellings on each category, the diagonal of :func:`category_agreement`.

    Parameters
    ----------
    labels, n_categories
        As there.

    Returns
    -------
    ``(K,)`` float from 0 to 1.

    Raises
    ------
    ValueError
        As there.
    """
    return category_agreement(labels, n_categories).diagonal().copy()
