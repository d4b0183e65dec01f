"""Published systems as scvi-tools models."""

from scmoe.model._moesimvae import MoESimVAE

__all__ = ["MoESimVAE"]
