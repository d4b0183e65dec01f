"""Published systems as scvi-tools models."""

from scmoe._core.files import ModelFileError, SaveError
from scmoe.model._base import ExpertModel, read_trained
from scmoe.model._cplmixvae import CplMixVAE
from scmoe.model._cplmixvae_module import CplMixVAEModule
from scmoe.model._moesimvae import MoESimVAE
from scmoe.model._moevae import MoEVAE
from scmoe.model._presets import Preset, preset
from scmoe.model._record import Trained
from scmoe.model._states import Traversal, check_dims, traverse

MODELS = {model.__name__: model for model in (MoESimVAE, MoEVAE, CplMixVAE)}
"""Models by the names of their classes."""

__all__ = ["CplMixVAE", "MoESimVAE", "MoEVAE", "ModelFileError", "Preset", "SaveError", "preset"]
