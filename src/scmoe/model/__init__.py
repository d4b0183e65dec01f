"""Published systems as scvi-tools models."""

from scmoe.model._moesimvae import MoESimVAE
from scmoe.model._presets import Preset, preset

__all__ = ["MoESimVAE", "Preset", "preset"]
