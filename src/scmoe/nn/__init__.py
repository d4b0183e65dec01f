"""Networks, experts, losses and augmentations on tensors; no module here knows AnnData."""

from scmoe.nn._arms import Arms
from scmoe.nn._augment import (
    Augments,
    DropoutAugment,
    ImageAugment,
    NeighborAugment,
    PosteriorAugment,
    ThinAugment,
    check_factor,
)
from scmoe.nn._autoencoders import LOG_VARIANCES, Autoencoders, DenseVAEs
from scmoe.nn._closed_form import (
    Layer,
    constant,
    discriminants,
    group_moments,
    inverse_root,
    newton_step,
    principal_axes,
    ridge,
    shrunk,
)
from scmoe.nn._conv import ConvEncoder, ConvExperts
from scmoe.nn._conv_vaes import ConvVAEs, DynamicDecoder, DynamicEncoder, padded_side
from scmoe.nn._experts import Experts, route
from scmoe.nn._images import affine_images, oriented_gradients, straighten
from scmoe.nn._layers import MLP
from scmoe.nn._likelihood import Observed
from scmoe.nn._losses_coupling import (
    category_entropy,
    coupling,
    log_categories,
    simplex_coordinates,
)
from scmoe.nn._losses_mixture import (
    batch_entropy,
    damic,
    gaussian_kl,
    mixae_weights,
    sample_entropy,
    weighted_distance,
)
from scmoe.nn._losses_similarity import (
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

__all__ = [
    "LOG_VARIANCES",
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
    "Layer",
    "NeighborAugment",
    "Observed",
    "PosteriorAugment",
    "ThinAugment",
    "affine_images",
    "batch_entropy",
    "category_entropy",
    "check_factor",
    "class_similarity",
    "cluster_kl",
    "cluster_means",
    "constant",
    "coupling",
    "damic",
    "depict",
    "depict_target",
    "discriminants",
    "gaussian_kl",
    "group_moments",
    "in_blocks",
    "inverse_root",
    "listed_similarity",
    "log_categories",
    "mixae_weights",
    "newton_step",
    "of_one_device",
    "oriented_gradients",
    "padded_side",
    "pair_similarity",
    "posterior_kl",
    "principal_axes",
    "reconstruction",
    "ridge",
    "route",
    "sample_entropy",
    "shrunk",
    "simplex_coordinates",
    "straighten",
    "weighted_distance",
]
