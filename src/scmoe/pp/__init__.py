"""AnnData -> AnnData."""

from ._arcsinh import arcsinh

__all__ = ["arcsinh"]
