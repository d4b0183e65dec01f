"""Results as tables."""

from scmoe.get._proba import cluster_proba
from scmoe.get._signatures import signatures

__all__ = ["cluster_proba", "signatures"]
