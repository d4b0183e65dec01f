"""Tensors only: networks, experts and losses. No module here knows AnnData."""

from scmoe.nn._affine import affine_images
from scmoe.nn._autoencoders import Autoencoders
from scmoe.nn._conv import ConvEncoder, ConvExperts
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
from scmoe.nn._mlp import MLP
from scmoe.nn._vaes import DenseVAEs

__all__ = [
    "MLP",
    "Autoencoders",
    "ConvEncoder",
    "ConvExperts",
    "DenseVAEs",
    "Experts",
    "affine_images",
    "class_similarity",
    "cluster_kl",
    "cluster_means",
    "depict",
    "depict_target",
    "listed_similarity",
    "oriented_gradients",
    "pair_similarity",
    "posterior_kl",
    "reconstruction",
    "route",
    "straighten",
]
