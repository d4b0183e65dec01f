"""Read one data set of one FCS file, with the public files' tests and scripts in mind."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scmoe.io._dataset import FCSDataset, open_dataset, read_spillover, read_values

if TYPE_CHECKING:
    import pandas as pd

    from scmoe.io._spillover import FileSpillover


@dataclass
class FCSFile:
    """One data set of a file."""

    values: np.ndarray
    """Events x channels, on the linear scale."""
    about: FCSDataset
    spill: FileSpillover

    @property
    def spillover(self) -> pd.DataFrame | None:
        """The matrix that the file carries."""
        return self.spill.matrix

    @property
    def path(self) -> Path:
        """The file."""
        return self.about.path

    @property
    def var(self) -> pd.DataFrame:
        """See :attr:`FCSDataset.var`."""
        return self.about.var

    @property
    def keywords(self) -> dict[str, str]:
        """The TEXT segment: lower case, without the leading ``$``."""
        return self.about.keywords

    @property
    def repairs(self) -> list[str]:
        """What disagreed with the standard, and how it was read."""
        return self.about.repairs


def read_file(
    path: str | PathLike[str],
    dataset: int = 0,
    dtype: str = "float64",
    strict: bool = False,
) -> FCSFile:
    """Read one data set of one file.

    Parameters
    ----------
    path
        The file, which may be compressed with gzip.
    dataset
        Which data set, counted from 0.
    dtype
        Of the values, ``"float32"`` or ``"float64"``.
    strict
        Refuse what would be repaired.

    Raises
    ------
    FCSReadError
        If the file cannot be read, or can be read in more than one way.
    FileNotFoundError, PermissionError
        If there is no such file, or no right to read it.
    """
    about = open_dataset(path, dataset=dataset, strict=strict)
    values = np.empty((about.n_events, len(about.names)), dtype=dtype)
    read_values(about, values)
    return FCSFile(values, about, read_spillover(about))
