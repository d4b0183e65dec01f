"""Results as tables."""

# below `as`: for the other rooms of the package
from scmoe.get._naming import names_of as names_of
from scmoe.get._proba import cluster_proba
from scmoe.get._signatures import UNASSIGNED as UNASSIGNED
from scmoe.get._signatures import cluster_effects as cluster_effects
from scmoe.get._signatures import effects as effects
from scmoe.get._signatures import labels_of as labels_of
from scmoe.get._signatures import measured_markers as measured_markers
from scmoe.get._signatures import medians as medians
from scmoe.get._signatures import signatures
from scmoe.get._signatures import standing_out as standing_out
from scmoe.get._state_genes import state_genes
from scmoe.get._tree import MOST_CELLS as MOST_CELLS
from scmoe.get._tree import gate_signs as gate_signs
from scmoe.get._tree import gates, tree

__all__ = ["cluster_proba", "gates", "signatures", "state_genes", "tree"]
