"""Published systems as scvi-tools models.

Names that other packages of scmoe use can be imported from here too.
"""

from scmoe._core.files import ModelFileError, SaveError
from scmoe.model._base import ExpertModel, read_trained
from scmoe.model._cplmixvae import CplMixVAE
from scmoe.model._cplmixvae_module import CplMixVAEModule
from scmoe.model._generate import generate_cells
from scmoe.model._module import COUNTS
from scmoe.model._moesimvae import MoESimVAE
from scmoe.model._moevae import MoEVAE
from scmoe.model._outliers import Outliers
from scmoe.model._predict import PREDICTIONS, fill_block, predict_blocks
from scmoe.model._presets import Preset, preset
from scmoe.model._record import Trained, from_record, to_record
from scmoe.model._saved import check_names
from scmoe.model._states import (
    ArmStates,
    Traversal,
    arm_states,
    check_dims,
    consensus_of,
    consensus_table,
    traverse,
)

MODELS = {model.__name__: model for model in (MoESimVAE, MoEVAE, CplMixVAE)}
"""Models by the names of their classes."""

__all__ = ["CplMixVAE", "MoESimVAE", "MoEVAE", "ModelFileError", "Preset", "SaveError", "preset"]
