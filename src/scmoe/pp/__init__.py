"""Preprocess AnnData: compensation, arcsinh, classes of cells from known markers."""

from scmoe._core.values import ScaleWarning

# the streamed forms are for `scmoe.io`, which writes files to a store one by one
from ._arcsinh import StreamedArcsinh, arcsinh, inverse_arcsinh
from ._compensate import StreamedCompensation, compensate
from ._marker_prior import marker_prior

__all__ = ["ScaleWarning", "arcsinh", "compensate", "inverse_arcsinh", "marker_prior"]
