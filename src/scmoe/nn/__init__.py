"""Tensors only: networks, experts and losses. No module here knows AnnData."""

from scmoe.nn._experts import Experts, route
from scmoe.nn._losses import (
    cluster_kl,
    cluster_means,
    depict,
    depict_target,
    listed_similarity,
    pair_similarity,
    reconstruction,
)
from scmoe.nn._mlp import MLP

__all__ = [
    "MLP",
    "Experts",
    "cluster_kl",
    "cluster_means",
    "depict",
    "depict_target",
    "listed_similarity",
    "pair_similarity",
    "reconstruction",
    "route",
]
