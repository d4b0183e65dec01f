"""Classifier two-sample test (C2ST) of generated against real cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from scmoe._core.random import as_seed

from ._cells import as_cells, check_same_markers, draw

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LEAST_CELLS = 10
"""Least number of cells on each side: 5 folds of 2."""
_FOLDS = 5
_COMPONENTS = 20


class TwoSampleResult(NamedTuple):
    """Result of :func:`classifier_two_sample`."""

    accuracy: float
    """Share of held-out cells classified correctly; 0.5 if the two cannot be distinguished."""
    auc: float
    """Area under the ROC curve of held-out cells, the mean over the folds."""
    auc_se: float
    """Standard error of ``auc`` (Hanley and McNeil)."""
    n: int
    """Cells of each side."""


def classifier_two_sample(
    real: ArrayLike,
    generated: ArrayLike,
    *,
    max_cells: int = 5000,
    random_state: int | np.random.Generator = 0,
) -> TwoSampleResult:
    """Train a classifier to distinguish generated from real cells (C2ST).

    Gradient boosted trees are trained on four fifths of the cells and tested on the rest, in five
    folds. Trees detect differences of single markers better than differences of correlations, so
    their features also include the first 20 principal components of all cells, along which a
    lost correlation changes the spread. Both sides have the same number of cells, so 0.5 means
    that they cannot be distinguished. Values clearly below 0.5 mean that generated cells are
    copies: the duplicate of a held-out cell was in the training set with the opposite label.

    The test is strict. Real cells often have exactly 0 in many markers; a generator that writes
    0.01 instead is recognised by this alone.

    Parameters
    ----------
    real, generated
        Cells x markers, with the same markers in the same order and on the same scale.
    max_cells
        Number of cells at most that are drawn from each side.
    random_state
        Seed, or a generator.

    Returns
    -------
    Accuracy, area under the ROC curve, its standard error, and the cells of each side.

    Raises
    ------
    ValueError
        If one side has fewer than 10 cells or NaN, or the two have different numbers of markers.

    References
    ----------
    Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR (2017). Hanley and
    McNeil, Radiology 143, 29-36 (1982).
    """
    real, generated = as_cells(real, "real"), as_cells(generated, "generated")
    check_same_markers(real, generated, ("real", "generated"))
    n = min(len(real), len(generated), max_cells)
    if n < LEAST_CELLS:
        raise ValueError(
            f"A classifier needs {LEAST_CELLS} cells of each side or more, got {len(real)} real "
            f"and {len(generated)} generated ones, and max_cells={max_cells}."
        )
    seed = as_seed(random_state)
    rng = np.random.default_rng(seed)
    x = np.concatenate([draw(real, n, rng), draw(generated, n, rng)])
    is_generated = np.repeat([False, True], n)
    right, auc = [], []
    features = _features(x, seed)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(x, is_generated):
        classifier = HistGradientBoostingClassifier(
            max_leaf_nodes=8,
            # the default of 20 gives small groups no tree
            min_samples_leaf=min(20, max(2, n // 5)),
            early_stopping=False,
            random_state=seed,
        )
        classifier.fit(features[train], is_generated[train])
        score = classifier.predict_proba(features[test])[:, 1]
        right.append((score > 0.5) == is_generated[test])
        auc.append(roc_auc_score(is_generated[test], score))
    area = float(np.mean(auc))
    return TwoSampleResult(float(np.concatenate(right).mean()), area, _auc_error(area, n), n)


def _features(x: NDArray[np.floating], seed: int) -> NDArray[np.floating]:
    """Return the markers, and the principal components of the standardised markers."""
    spread = x.std(axis=0)
    scaled = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)
    n_components = min(_COMPONENTS, *x.shape)
    pca = PCA(n_components, svd_solver="randomized", random_state=seed)
    # all cells equal: there is no variance to explain
    return np.hstack([x, pca.fit_transform(scaled)]) if spread.any() else x


def _auc_error(auc: float, n: int) -> float:
    """Return the standard error of the area under a ROC curve, ``n`` cells on each side."""
    both_above = auc / (2 - auc)
    both_below = 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (n - 1) * (both_above + both_below - 2 * auc**2)
    return float(np.sqrt(max(spread, 0.0)) / n)
