"""What is kept of a file in ``.uns``."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pandas as pd

from ._errors import FCSReadError
from ._file import spillover_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ._file import FCSText

_VALUE = "value"


def record_of(about: FCSText) -> dict[str, Any]:
    """Return what ``.uns["fcs"][sample]`` holds, plain enough for h5ad."""
    spillover = spillover_of(about)
    record: dict[str, Any] = {
        "file": about.path.name,
        "path": os.path.abspath(about.path),
        "dataset": about.dataset,
        "version": about.version,
        "sha256": _digest(about.path),
        "keywords": _table(about.keywords),
        "repairs": list(about.repairs),
    }
    if spillover is not None:
        record["spillover"] = spillover
    return record


def keywords_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the keywords of a record: lower case, without the leading ``$``."""
    return dict(record["keywords"][_VALUE])


def says_transformed(record: Mapping[str, Any]) -> bool:
    """Whether a file says that its values were transformed before it was written.

    flowCore notes it as ``transformation: custom``, and :func:`scmoe.io.write_fcs` in
    ``SCMOE_EVENTS``.
    """
    keywords = keywords_of(record) if "keywords" in record else {}
    ours = keywords.get("scmoe_events", "").split()[1:]
    return keywords.get("transformation", "").strip().lower() == "custom" or "arcsinh" in ours


def _table(keywords: Mapping[str, str]) -> pd.DataFrame:
    """Put keywords into a table; a dict of hundreds of strings takes h5ad most of a second.

    HDF5 cannot hold NUL bytes.
    """
    return pd.DataFrame(
        {_VALUE: [value.replace("\0", "") for value in keywords.values()]},
        index=pd.Index([key.replace("\0", "") for key in keywords], name="keyword", dtype=object),
        dtype=object,
    )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise FCSReadError(path, f"the file cannot be read: {error}") from error
