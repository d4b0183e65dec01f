"""Read and write files: FCS, arrays, zarr stores."""

from ._array import from_array
from ._channels import channel_kinds
from ._errors import FCSReadError, FCSRepairWarning
from ._files import find_files, sample_names
from ._panels import Panel, join_panels
from ._read_fcs import Plate, ReadOptions, read_fcs, read_headers, read_plate
from ._write_fcs import write_fcs
from ._write_text import added_channels
from ._zarr import fcs_to_zarr, open_store, set_values, write_results, write_store

__all__ = [
    "FCSReadError",
    "FCSRepairWarning",
    "fcs_to_zarr",
    "from_array",
    "read_fcs",
    "write_fcs",
]
