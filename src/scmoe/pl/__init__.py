"""Pictures, in scanpy's manner: ``show``, ``save``, ``ax``, ``return_fig``."""

from ._arms import arms
from ._calibration import calibration
from ._clusters import clusters
from ._drift import drift

# below `as`: for the other rooms of the package
from ._figure import colors_of as colors_of
from ._figure import set_colors as set_colors
from ._figure import short as short
from ._generated import generated
from ._history import history
from ._images import images
from ._latent_dim import latent_dim
from ._markers import markers
from ._mmd import mmd
from ._n_clusters import n_clusters
from ._prior import prior
from ._pruning import pruning
from ._stability import stability
from ._state_genes import state_genes
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
