"""Results of a clustering as tables.

The tree of a clustering, as other packages of scmoe read it, can be imported from here too.
"""

from scmoe.get._tables import cluster_proba, signatures, state_genes
from scmoe.get._tree import (
    MAX_GATE_CELLS,
    TREE_LABELS,
    gate_cells,
    gate_signs,
    gates,
    label_names,
    recorded_tree,
    relabelled_tree,
    tree,
    tree_values,
)

__all__ = ["cluster_proba", "gates", "signatures", "state_genes", "tree"]
