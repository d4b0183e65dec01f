"""Density trees: cut cells into populations at the valleys of their density.

:func:`grow` cuts the cells in two where their density has the clearest valley along some
direction, then each half in the same way, until no half has a valley.
"""

from scmoe.tree._gates import Gate, count_labels, find_gates, format_weights, split_weights
from scmoe.tree._grow import DEPTH, MIN_CELLS, SIGNIFICANCE, Cells, grow
from scmoe.tree._prepare import align, align_groups
from scmoe.tree._stability import SUBSAMPLE, memberships, support
from scmoe.tree._tree import Tree

__all__ = [
    "DEPTH",
    "MIN_CELLS",
    "SIGNIFICANCE",
    "SUBSAMPLE",
    "Cells",
    "Gate",
    "Tree",
    "align",
    "align_groups",
    "count_labels",
    "find_gates",
    "format_weights",
    "grow",
    "memberships",
    "split_weights",
    "support",
]
