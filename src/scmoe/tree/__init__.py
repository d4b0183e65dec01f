"""Populations as a tree of density valleys: arrays in, a tree out.

:func:`grow` cuts the cells in two where their density has the clearest valley along some
direction, then each half again, until no half has one.
"""

from scmoe.tree._grow import DEPTH, LEAST, SIGNIFICANCE, grow
from scmoe.tree._support import support
from scmoe.tree._tree import Tree

__all__ = ["DEPTH", "LEAST", "SIGNIFICANCE", "Tree", "grow", "support"]
