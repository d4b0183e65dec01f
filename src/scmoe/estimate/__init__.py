"""Numbers that a newcomer cannot know: latent sizes and numbers of clusters. Arrays only."""

from scmoe.estimate._autoencoder import LARGE, Architecture, Schedule, encode, train_autoencoder
from scmoe.estimate._choose import METHODS, at_least_two, find_n_clusters
from scmoe.estimate._density import density_clusters
from scmoe.estimate._found import Found
from scmoe.estimate._latent import CLUSTERING, RECONSTRUCTION, LatentDim, find_latent_dim
from scmoe.estimate._mixture import mixture_clusters
from scmoe.estimate._stability import stable_clusters

__all__ = [
    "CLUSTERING",
    "LARGE",
    "METHODS",
    "RECONSTRUCTION",
    "Architecture",
    "Found",
    "LatentDim",
    "Schedule",
    "at_least_two",
    "density_clusters",
    "encode",
    "find_latent_dim",
    "find_n_clusters",
    "mixture_clusters",
    "stable_clusters",
    "train_autoencoder",
]
