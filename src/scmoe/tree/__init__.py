"""Populations as a tree of density valleys: arrays in, a tree out.

:func:`grow` cuts the cells in two where their density has the clearest valley along some
direction, then each half again, until no half has one.
"""

from scmoe.tree._batches import align, align_groups
from scmoe.tree._gates import Gate, count_labels, find_gates, split_weights, weighted
from scmoe.tree._grow import DEPTH, LEAST, SIGNIFICANCE, Cells, canonical_order, grow
from scmoe.tree._memberships import SUBSAMPLE, memberships, translated
from scmoe.tree._support import support
from scmoe.tree._tree import Tree

__all__ = [
    "DEPTH",
    "LEAST",
    "SIGNIFICANCE",
    "SUBSAMPLE",
    "Cells",
    "Gate",
    "Tree",
    "align",
    "align_groups",
    "canonical_order",
    "count_labels",
    "find_gates",
    "grow",
    "memberships",
    "split_weights",
    "support",
    "translated",
    "weighted",
]
