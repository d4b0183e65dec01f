"""Estimates from arrays: numbers of clusters, latent sizes, agreement of runs, trends."""

from scmoe._estimate._augmentation import augmentation
from scmoe._estimate._clusters import MIN_CELLS, Found, check_cells
from scmoe._estimate._density import density_clusters, mixture_clusters
from scmoe._estimate._latent_dim import (
    CLUSTERING,
    LARGE_STEPS,
    RECONSTRUCTION,
    Architecture,
    LatentDim,
    Schedule,
    check_learned,
    check_threshold,
    count_dims,
    decode,
    encode,
    find_group_dims,
    find_latent_dim,
    large_latent,
    train_autoencoder,
)
from scmoe._estimate._n_clusters import (
    METHODS,
    advice,
    at_least_two,
    check_method,
    default_method,
    find_clusters,
    find_n_clusters,
)
from scmoe._estimate._stability import FEW_CELLS, stable_clusters
from scmoe._estimate._tree import grown_clusters, tree_clusters
from scmoe._estimate._trends import Trends, trends, variance_explained

__all__ = [
    "CLUSTERING",
    "FEW_CELLS",
    "LARGE_STEPS",
    "METHODS",
    "MIN_CELLS",
    "RECONSTRUCTION",
    "Architecture",
    "Found",
    "LatentDim",
    "Schedule",
    "Trends",
    "advice",
    "at_least_two",
    "augmentation",
    "check_cells",
    "check_learned",
    "check_method",
    "check_threshold",
    "count_dims",
    "decode",
    "default_method",
    "density_clusters",
    "encode",
    "find_clusters",
    "find_group_dims",
    "find_latent_dim",
    "find_n_clusters",
    "grown_clusters",
    "large_latent",
    "mixture_clusters",
    "stable_clusters",
    "train_autoencoder",
    "tree_clusters",
    "trends",
    "variance_explained",
]
