"""Tensors only: networks, experts and losses. No module here knows AnnData."""

from scmoe.nn._affine import affine_images
from scmoe.nn._arms import Arms
from scmoe.nn._augment import (
    Augments,
    DropoutAugment,
    ImageAugment,
    NeighborAugment,
    PosteriorAugment,
    ThinAugment,
    augment_images,
    check_factor,
)
from scmoe.nn._autoencoders import Autoencoders
from scmoe.nn._conv import ConvEncoder, ConvExperts
from scmoe.nn._coupling import (
    category_entropy,
    coupling,
    gumbel_softmax,
    log_categories,
    simplex_coordinates,
)
from scmoe.nn._dynamic import ConvVAEs, DynamicDecoder, DynamicEncoder, padded_side
from scmoe.nn._experts import Experts, route
from scmoe.nn._gradients import oriented_gradients, straighten
from scmoe.nn._losses import (
    class_similarity,
    cluster_kl,
    cluster_means,
    depict,
    depict_target,
    in_blocks,
    listed_similarity,
    of_one_device,
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
from scmoe.nn._observed import Observed
from scmoe.nn._vaes import DenseVAEs

__all__ = [
    "MLP",
    "Arms",
    "Augments",
    "Autoencoders",
    "ConvEncoder",
    "ConvExperts",
    "ConvVAEs",
    "DenseVAEs",
    "DropoutAugment",
    "DynamicDecoder",
    "DynamicEncoder",
    "Experts",
    "ImageAugment",
    "NeighborAugment",
    "Observed",
    "PosteriorAugment",
    "ThinAugment",
    "affine_images",
    "augment_images",
    "batch_entropy",
    "category_entropy",
    "check_factor",
    "class_similarity",
    "cluster_kl",
    "cluster_means",
    "coupling",
    "damic",
    "depict",
    "depict_target",
    "gaussian_kl",
    "gumbel_softmax",
    "in_blocks",
    "listed_similarity",
    "log_categories",
    "mixae_weights",
    "of_one_device",
    "oriented_gradients",
    "padded_side",
    "pair_similarity",
    "posterior_kl",
    "reconstruction",
    "route",
    "sample_entropy",
    "simplex_coordinates",
    "straighten",
    "weighted_distance",
]
