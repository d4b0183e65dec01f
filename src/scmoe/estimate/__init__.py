"""Estimates that a model can start from: arrays in, plain results out."""

from ._choose import METHODS, at_least_two, find_n_clusters
from ._density import density_clusters
from ._found import Found
from ._stability import stable_clusters

__all__ = [
    "METHODS",
    "Found",
    "at_least_two",
    "density_clusters",
    "find_n_clusters",
    "stable_clusters",
]
