"""Numbers that a newcomer cannot know: latent sizes and numbers of clusters. Arrays only.

Also how well clusters come again, and what moves with a state.
"""

from scmoe._core.neighbors import communities, neighbor_graph
from scmoe.estimate._agreement import Agreement, agreement
from scmoe.estimate._augmentation import augmentation
from scmoe.estimate._autoencoder import (
    LARGE_STEPS,
    Architecture,
    Schedule,
    decode,
    encode,
    large_latent,
    train_autoencoder,
)
from scmoe.estimate._choose import (
    METHODS,
    at_least_two,
    check_method,
    default_method,
    find_clusters,
    find_n_clusters,
)
from scmoe.estimate._density import density_clusters
from scmoe.estimate._found import MIN_CELLS, Found, check_cells
from scmoe.estimate._latent import (
    CLUSTERING,
    RECONSTRUCTION,
    LatentDim,
    check_learned,
    check_threshold,
    count_dims,
    find_group_dims,
    find_latent_dim,
)
from scmoe.estimate._mixture import mixture_clusters
from scmoe.estimate._stability import STABLE, stable_clusters
from scmoe.estimate._tree import grown_clusters, tree_clusters
from scmoe.estimate._trends import Trends, trends, variance_explained

__all__ = [
    "CLUSTERING",
    "LARGE_STEPS",
    "METHODS",
    "MIN_CELLS",
    "RECONSTRUCTION",
    "STABLE",
    "Agreement",
    "Architecture",
    "Found",
    "LatentDim",
    "Schedule",
    "Trends",
    "agreement",
    "at_least_two",
    "augmentation",
    "check_cells",
    "check_learned",
    "check_method",
    "check_threshold",
    "communities",
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
    "neighbor_graph",
    "stable_clusters",
    "train_autoencoder",
    "tree_clusters",
    "trends",
    "variance_explained",
]
