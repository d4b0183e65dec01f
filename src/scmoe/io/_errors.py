"""What the FCS reader raises and warns with."""

from __future__ import annotations

from pathlib import Path


class FCSReadError(ValueError):
    """A file, or a set of files, that cannot be read as FCS.

    Parameters
    ----------
    path
        The file (or folder) at fault.
    reason
        What is wrong with it, and what to do about it where something can be done.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class FCSRepairWarning(UserWarning):
    """The files disagreed with the FCS standard; what was done is in ``.uns["fcs"]``."""
