"""Numbers that a newcomer cannot know: latent sizes and numbers of clusters. Arrays only."""

from scmoe.estimate._augmentation import augmentation
from scmoe.estimate._autoencoder import (
    Architecture,
    Schedule,
    encode,
    large_latent,
    train_autoencoder,
)
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

__all__ = [
    "CLUSTERING",
    "RECONSTRUCTION",
    "Architecture",
    "LatentDim",
    "Schedule",
    "augmentation",
    "check_learned",
    "check_threshold",
    "count_dims",
    "encode",
    "find_group_dims",
    "find_latent_dim",
    "large_latent",
    "train_autoencoder",
]
