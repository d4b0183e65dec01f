"""How far several clusterings of the same cells name the same clusters."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from sklearn.metrics import confusion_matrix


def category_consensus(labels: np.ndarray, n_categories: int) -> np.ndarray:
    r"""Agreement of labellings on each category.

    Of two labellings with the contingency table :math:`C` it is
    :math:`C_{kk} / \max(\sum_l C_{kl}, \sum_l C_{lk})`, the share of the cells of the category
    that both name, in the labelling that gives it more of them. The mean over pairs.

    Parameters
    ----------
    labels
        Labels that mean the same in all labellings, ``(n_labelings, n)`` int from 0.
    n_categories
        K.

    Returns
    -------
    ``(K,)`` float from 0 to 1; 0 for a category that has no cell in either of two labellings.

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
    total = np.zeros(n_categories)
    pairs = list(combinations(labels, 2))
    for one, other in pairs:
        table = confusion_matrix(one, other, labels=range(n_categories))
        size = np.maximum(table.sum(0), table.sum(1))
        total += table.diagonal() / np.maximum(size, 1)
    return total / len(pairs)
