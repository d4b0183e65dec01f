"""Tensors only: networks, experts and losses. No module here knows AnnData."""

from scmoe.nn._affine import affine_images
from scmoe.nn._augment import ImageAugment, NeighborAugment, augment_images
from scmoe.nn._autoencoders import Autoencoders
from scmoe.nn._conv import ConvEncoder, ConvExperts
from scmoe.nn._dynamic import ConvVAEs, DynamicDecoder, DynamicEncoder, padded_side
from scmoe.nn._experts import Experts, route
from scmoe.nn._gradients import oriented_gradients, straighten
from scmoe.nn._losses import (
    class_similarity,
    cluster_kl,
    cluster_means,
    depict,
    depict_target,
    listed_similarity,
    pair_similarity,
    posterior_kl,
    reconstruction,
)
from scmoe.nn._mixture import (
    batch_entropy,
    damic,
    gaussian_kl,
    mixae_weights,
    sample_entropy,
    weighted_distance,
)
from scmoe.nn._mlp import MLP
from scmoe.nn._vaes import DenseVAEs

__all__ = [
    "MLP",
    "Autoencoders",
    "ConvEncoder",
    "ConvExperts",
    "ConvVAEs",
    "DenseVAEs",
    "DynamicDecoder",
    "DynamicEncoder",
    "Experts",
    "ImageAugment",
    "NeighborAugment",
    "affine_images",
    "augment_images",
    "batch_entropy",
    "class_similarity",
    "cluster_kl",
    "cluster_means",
    "damic",
    "depict",
    "depict_target",
    "gaussian_kl",
    "listed_similarity",
    "mixae_weights",
    "oriented_gradients",
    "padded_side",
    "pair_similarity",
    "posterior_kl",
    "reconstruction",
    "route",
    "sample_entropy",
    "straighten",
    "weighted_distance",
]
