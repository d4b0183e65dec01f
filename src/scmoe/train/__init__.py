"""Training: batches in memory, training plans, settings and processes."""

from scmoe.train._batches import (
    BATCH_KEYS,
    Augment,
    Batch,
    InMemory,
    changed,
    check_shares,
    copied,
    split_cells,
)
from scmoe.train._fit import fit
from scmoe.train._plan import MixturePlan, SimilarityPlan, TermsPlan, one_cycle
from scmoe.train._processes import Processes, find_processes
from scmoe.train._settings import check_device, check_rate, check_training_settings
from scmoe.train._similar_batches import SimilarBatches

__all__ = [
    "BATCH_KEYS",
    "Augment",
    "Batch",
    "InMemory",
    "MixturePlan",
    "Processes",
    "SimilarBatches",
    "SimilarityPlan",
    "TermsPlan",
    "changed",
    "check_device",
    "check_rate",
    "check_shares",
    "check_training_settings",
    "copied",
    "find_processes",
    "fit",
    "one_cycle",
    "split_cells",
]
