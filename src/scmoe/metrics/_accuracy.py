"""Accuracy of a clustering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scipy.optimize import linear_sum_assignment

from ._counts import Counts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def accuracy(
    labels_true: ArrayLike,
    labels_pred: ArrayLike,
    *,
    ignore: Any = None,
    min_size: int = 0,
) -> float:
    r"""Share of cells in the cluster that stands for their population, from 0 to 1.

    Populations and clusters are paired one to one such that as many cells as possible are
    right (Hungarian algorithm on the counts),

    .. math:: \mathrm{ACC} = \frac{1}{N} \max_m \sum_c n_{c\,m(c)}.

    Cells of populations or clusters without a partner are wrong.

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
