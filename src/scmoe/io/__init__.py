"""Files and arrays -> AnnData."""

from ._array import from_array
from ._errors import FCSReadError, FCSRepairWarning
from ._fcs import read_fcs
from ._write_fcs import write_fcs
from ._zarr import fcs_to_zarr

__all__ = [
    "FCSReadError",
    "FCSRepairWarning",
    "fcs_to_zarr",
    "from_array",
    "read_fcs",
    "write_fcs",
]
