"""Pictures, in scanpy's manner: ``show``, ``save``, ``ax``, ``return_fig``."""

from ._clusters import clusters
from ._history import history
from ._markers import markers

__all__ = ["clusters", "history", "markers"]
