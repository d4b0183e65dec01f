"""Scores of a clustering against known populations: arrays in, numbers out.

What scikit-learn has (:func:`sklearn.metrics.normalized_mutual_info_score`,
:func:`sklearn.metrics.adjusted_rand_score`, ...) is used from there.
"""

from ._accuracy import accuracy
from ._f_measure import f1_table, match_table, mean_f1, weighted_f

__all__ = ["accuracy", "f1_table", "match_table", "mean_f1", "weighted_f"]
