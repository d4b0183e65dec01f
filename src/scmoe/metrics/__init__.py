"""Scores of clusterings and of generated cells: arrays in, numbers out.

Scores that scikit-learn has (:func:`sklearn.metrics.normalized_mutual_info_score`,
:func:`sklearn.metrics.adjusted_rand_score`, ...) are not repeated here.
"""

from ._agreement import STABLE, Agreement, agreement, best_jaccard, shared_cells
from ._calibration import Calibration, calibration
from ._cells import RealAndGenerated
from ._clusterings import (
    accuracy,
    category_agreement,
    category_consensus,
    f1_table,
    match_table,
    mean_f1,
    weighted_f,
)
from ._generation import generation_report
from ._mmd import MMDResult, mmd, mmd_table
from ._two_sample import TwoSampleResult, classifier_two_sample

__all__ = [
    "Agreement",
    "Calibration",
    "MMDResult",
    "TwoSampleResult",
    "accuracy",
    "agreement",
    "calibration",
    "category_agreement",
    "category_consensus",
    "classifier_two_sample",
    "f1_table",
    "generation_report",
    "match_table",
    "mean_f1",
    "mmd",
    "mmd_table",
    "weighted_f",
]
