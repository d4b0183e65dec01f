"""Who is like whom: the user's notion of similarity, turned into targets for mini-batches."""

from scmoe.similarity._base import Pairs, Similarity, Target
from scmoe.similarity._coassociation import CoAssociation
from scmoe.similarity._embedding import Knn, Threshold
from scmoe.similarity._graph import Graph
from scmoe.similarity._umap import umap

__all__ = ["CoAssociation", "Graph", "Knn", "Pairs", "Similarity", "Target", "Threshold", "umap"]
