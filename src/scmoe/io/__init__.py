"""Read and write files: FCS, arrays, zarr stores."""

from ._array import from_array

# below `as`: for the other rooms of the package
from ._channels import channel_kinds as channel_kinds
from ._errors import FCSReadError, FCSRepairWarning
from ._files import find_files as find_files
from ._files import sample_names as sample_names
from ._panels import Panel as Panel
from ._panels import join_panels as join_panels
from ._read_fcs import Plate as Plate
from ._read_fcs import ReadOptions as ReadOptions
from ._read_fcs import read_fcs
from ._read_fcs import read_headers as read_headers
from ._read_fcs import read_plate as read_plate
from ._write_fcs import write_fcs
from ._write_text import added_channels as added_channels
from ._zarr import fcs_to_zarr
from ._zarr import open_store as open_store
from ._zarr import set_values as set_values
from ._zarr import write_results as write_results
from ._zarr import write_store as write_store

__all__ = [
    "FCSReadError",
    "FCSRepairWarning",
    "fcs_to_zarr",
    "from_array",
    "read_fcs",
    "write_fcs",
]
