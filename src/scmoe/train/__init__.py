"""How tensors meet the model: training plan, splitter, samplers."""

from scmoe.train._keys import BATCH_KEYS
from scmoe.train._plan import SimilarityPlan
from scmoe.train._splitter import SimilaritySplitter

__all__ = ["BATCH_KEYS", "SimilarityPlan", "SimilaritySplitter"]
