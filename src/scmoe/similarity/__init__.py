"""Similarities: rules that say which cells should share a cluster.

The user chooses a similarity; bound to the cells it becomes the target of the training.
"""

from scmoe.similarity._base import Similarity, check_similarity, with_seed
from scmoe.similarity._blend import Blend
from scmoe.similarity._coassociation import CoAssociation
from scmoe.similarity._custom import Custom
from scmoe.similarity._density_tree import DensityTree
from scmoe.similarity._embedding import Knn, Threshold, image_gradients, umap
from scmoe.similarity._graph import Graph, check_graph, graph_slot, stored_graph
from scmoe.similarity._labels import Differ, Labels, Prior
from scmoe.similarity._target import MAX_DENSE, PARTNERS, Pairs, Target, TensorTarget

__all__ = [
    "Blend",
    "CoAssociation",
    "Custom",
    "DensityTree",
    "Differ",
    "Graph",
    "Knn",
    "Labels",
    "Pairs",
    "Prior",
    "Similarity",
    "Target",
    "TensorTarget",
    "Threshold",
    "image_gradients",
    "umap",
]
