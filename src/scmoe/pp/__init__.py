"""AnnData -> AnnData."""

from scmoe._core.values import ScaleWarning

from ._arcsinh import arcsinh, inverse_arcsinh
from ._compensate import compensate
from ._marker_prior import marker_prior

__all__ = ["ScaleWarning", "arcsinh", "compensate", "inverse_arcsinh", "marker_prior"]
