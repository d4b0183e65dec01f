"""How tensors meet the model: training plan, splitter, samplers."""

from scmoe.train._checkpoint import Checkpoints, refuse_pickles, remove_checkpoints
from scmoe.train._fingerprint import fingerprint
from scmoe.train._fit import Augment, fit
from scmoe.train._keys import BATCH_KEYS
from scmoe.train._plan import ArmsPlan, MixturePlan, SimilarityPlan, TermsPlan, one_cycle
from scmoe.train._settings import check_device, check_rate, check_training_settings
from scmoe.train._splitter import (
    ArmsSplitter,
    AugmentingSplitter,
    SimilaritySplitter,
    check_shares,
    split_cells,
    split_indices,
)

__all__ = [
    "BATCH_KEYS",
    "ArmsPlan",
    "ArmsSplitter",
    "Augment",
    "AugmentingSplitter",
    "Checkpoints",
    "MixturePlan",
    "SimilarityPlan",
    "SimilaritySplitter",
    "TermsPlan",
    "check_device",
    "check_rate",
    "check_shares",
    "check_training_settings",
    "fingerprint",
    "fit",
    "one_cycle",
    "refuse_pickles",
    "remove_checkpoints",
    "split_cells",
    "split_indices",
]
