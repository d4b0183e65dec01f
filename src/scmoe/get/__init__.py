"""Results as tables."""

from scmoe.get._proba import cluster_proba
from scmoe.get._signatures import signatures
from scmoe.get._state_genes import state_genes
from scmoe.get._tree import gates, tree

__all__ = ["cluster_proba", "gates", "signatures", "state_genes", "tree"]
