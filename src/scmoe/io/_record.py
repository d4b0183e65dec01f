"""What is kept of a file in ``.uns``."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pandas as pd

from ._errors import naming
from ._file import spill_of
from ._paths import path_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ._file import FCSText

_VALUE = "value"


def record_of(about: FCSText, sha256: str, renamed: pd.DataFrame | None = None) -> dict[str, Any]:
    """Return what ``.uns["fcs"][sample]`` holds, plain enough for h5ad.

    Parameters
    ----------
    about
        The data set.
    sha256
        Of its file, :func:`digest`.
    renamed
        Channels that are called by another name than their own.
    """
    spill = spill_of(about)
    record: dict[str, Any] = {
        "file": path_text(about.path.name),
        "path": path_text(os.path.abspath(about.path)),
        "dataset": about.dataset,
        "offsets": about.offsets,
        "version": about.version,
        "sha256": sha256,
        "keywords": _table(about.keywords),
        "repairs": list(about.repairs),
    }
    more = {
        "spillover": spill.matrix,
        "spillover_unusable": spill.unusable,
        "subtracted": spill.subtracted,
        "renamed": renamed,
    }
    return record | {key: value for key, value in more.items() if value is not None}


def keywords_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the keywords of a record: lower case, without the leading ``$``."""
    table = record["keywords"]
    # AnnData that was read lazily leaves tables on the disk
    table = table if isinstance(table, pd.DataFrame) else table.to_memory()
    return dict(table[_VALUE])


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


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with naming(path), path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
