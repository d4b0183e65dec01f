"""Calibration of cluster probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from scmoe._core.settings import check_whole

from ._counts import Counts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Calibration(NamedTuple):
    """Result of :func:`calibration`."""

    error: float
    """Expected calibration error, from 0 to 1."""
    table: pd.DataFrame
    """A row for each bin, with its limits ``low`` and ``high``, ``n_cells``, the mean
    ``probability`` and the ``accuracy``; both NaN where there is no cell."""
    n_cells: int
    """Number of cells that have a label."""


def calibration(proba: pd.DataFrame, labels_true: ArrayLike, *, n_bins: int = 15) -> Calibration:
    r"""Compare the probability of each cell's cluster with how often the cluster is right.

    Each cluster is assigned the population of most of its cells; a cell is right if this is its
    own population. Cells are sorted into bins :math:`B_b` of equal width by the probability of
    their most probable cluster. The expected calibration error is

    .. math:: \mathrm{ECE} = \sum_b \frac{|B_b|}{n}
              \left|\mathrm{accuracy}(B_b) - \mathrm{probability}(B_b)\right|.

    0 means, for example, that of the cells with a probability of 0.8 four in five are right. Use
    cells that the model was not trained on. A cluster with two populations is wrong for the cells
    of the smaller population, however certain the model is: the error also measures the clusters.

    Parameters
    ----------
    proba
        Cells x clusters, such as :meth:`scmoe.model.MoESimVAE.predict_proba` and
        :func:`scmoe.get.cluster_proba` give.
    labels_true
        Population of each cell, ``(n_cells,)``. Cells without one (NaN, None) are left out.
    n_bins
        Number of bins.

    Returns
    -------
    The error, the table behind it, and the number of cells.

    Raises
    ------
    ValueError
        If the probabilities are not a table of numbers from 0 to 1, the number of labels differs
        from the number of cells, no cell has a label, or ``n_bins`` is below 1.

    References
    ----------
    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI (2015); Guo et al., "On calibration of modern neural networks", ICML (2017).

    Examples
    --------
    >>> scmoe.metrics.calibration(model.predict_proba(new), new.obs["population"]).error
    """
    check_whole("n_bins", n_bins, 1)
    values = np.asarray(proba)
    numbers = np.issubdtype(values.dtype, np.floating)
    if values.ndim != 2 or not numbers or not ((values >= 0) & (values <= 1 + 1e-4)).all():
        raise ValueError(
            "`proba` must be cells x clusters with probabilities from 0 to 1, as `predict_proba` "
            "gives."
        )
    owner = values.argmax(1)
    counts = Counts.of(labels_true, owner)
    codes = pd.Series(np.asarray(labels_true, dtype=object)).map(
        {name: i for i, name in enumerate(counts.populations)}
    )
    known = codes.notna().to_numpy()
    stands_for = dict(zip(counts.clusters, counts.table.argmax(0), strict=True))
    right = np.array([stands_for[k] for k in owner[known]]) == codes[known].to_numpy()
    sure = np.minimum(values.max(1)[known], 1)
    edges = np.linspace(0, 1, n_bins + 1)
    place = np.minimum((sure * n_bins).astype(int), n_bins - 1)
    n = np.bincount(place, minlength=n_bins)
    some = np.where(n > 0, n, np.nan)
    table = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n_cells": n,
            "probability": np.bincount(place, weights=sure, minlength=n_bins) / some,
            "accuracy": np.bincount(place, weights=right, minlength=n_bins) / some,
        }
    )
    gap = (table["probability"] - table["accuracy"]).abs()
    return Calibration(float((gap * n).sum() / n.sum()), table, int(n.sum()))
