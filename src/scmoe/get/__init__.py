"""Results as tables."""

from scmoe.get._proba import cluster_proba
from scmoe.get._signatures import signatures
from scmoe.get._state_genes import state_genes

__all__ = ["cluster_proba", "signatures", "state_genes"]
