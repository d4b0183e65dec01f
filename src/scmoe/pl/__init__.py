"""Plots, with the arguments ``show``, ``save``, ``ax`` and ``return_fig`` of scanpy."""

from ._clusters import clusters
from ._estimates import latent_dim, n_clusters
from ._figure import colors_of, set_colors, short
from ._generated import generated
from ._heatmaps import arms, mmd, prior
from ._images import images
from ._map import MAP, sample, with_map
from ._markers import markers
from ._reliability import calibration, drift, stability
from ._state_genes import state_genes
from ._training import history, pruning
from ._traversal import traversal
from ._tree import tree

__all__ = [
    "arms",
    "calibration",
    "clusters",
    "drift",
    "generated",
    "history",
    "images",
    "latent_dim",
    "markers",
    "mmd",
    "n_clusters",
    "prior",
    "pruning",
    "stability",
    "state_genes",
    "traversal",
    "tree",
]
