"""Tools for clustering cells, in the style of scanpy.

Functions that other packages of scmoe use can be imported from here too.
"""

from scmoe.tl._assign import DRIFT, SHIFT, assign
from scmoe.tl._cluster import cluster
from scmoe.tl._cut import cut
from scmoe.tl._generate import generate
from scmoe.tl._graph import add_graph
from scmoe.tl._latent_dim import latent_dim
from scmoe.tl._n_clusters import n_clusters
from scmoe.tl._name_clusters import name_clusters
from scmoe.tl._reference import read_clustering
from scmoe.tl._stability import stability
from scmoe.tl._state_genes import state_genes
from scmoe.tl._values import technical_names

__all__ = [
    "DRIFT",
    "SHIFT",
    "assign",
    "cluster",
    "cut",
    "generate",
    "latent_dim",
    "n_clusters",
    "name_clusters",
    "stability",
    "state_genes",
]
