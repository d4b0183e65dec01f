"""Who is like whom: the user's notion of similarity, turned into targets for mini-batches."""

from scmoe.similarity._base import Pairs, Similarity, Target, check_similarity

# below `as`: for the other rooms of the package
from scmoe.similarity._base import with_seed as with_seed
from scmoe.similarity._blend import Blend
from scmoe.similarity._coassociation import CoAssociation
from scmoe.similarity._custom import Custom
from scmoe.similarity._density_tree import DensityTree
from scmoe.similarity._embedding import Knn, Threshold
from scmoe.similarity._graph import Graph
from scmoe.similarity._groups import Differ, Labels
from scmoe.similarity._images import image_gradients
from scmoe.similarity._prior import Prior
from scmoe.similarity._umap import umap

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
    "Threshold",
    "check_similarity",
    "image_gradients",
    "umap",
]
