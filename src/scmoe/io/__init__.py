"""Files -> AnnData."""

from ._errors import FCSReadError, FCSRepairWarning
from ._fcs import read_fcs

__all__ = ["FCSReadError", "FCSRepairWarning", "read_fcs"]
