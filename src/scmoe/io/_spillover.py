"""The spillover matrix that a file carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

_KEYWORDS = ("spillover", "spill")


def parse_spillover(keywords: Mapping[str, str], channels: Sequence[str]) -> pd.DataFrame | None:
    """Read ``$SPILLOVER`` (or ``SPILL``): ``n, names, n * n values`` row by row.

    Parameters
    ----------
    keywords
        Lower case, without the leading ``$``.
    channels
        Names of the channels of the file, which the matrix must name, or number from 1.

    Returns
    -------
    Rows are the exact names of the channels; columns are the same in the same order, with
    ``/`` as ``_`` because no key of an h5ad file may hold it. None if there is no matrix.

    Raises
    ------
    ValueError
        If there is one and it cannot be understood.
    """
    keyword = next((key for key in _KEYWORDS if keywords.get(key, "").strip()), None)
    if keyword is None:
        return None
    fields = [field.strip() for field in keywords[keyword].split(",")]
    try:
        n = int(fields[0])
    except ValueError:
        raise ValueError(f"${keyword.upper()} starts with {fields[0]!r}, not a count") from None
    if n == 0:
        return None
    if n < 0 or len(fields) != 1 + n + n * n:
        raise ValueError(
            f"${keyword.upper()} is for {n} channels but holds {len(fields) - 1} fields"
        )
    names = [_channel(name, channels, keyword) for name in fields[1 : 1 + n]]
    if len(set(names)) != n:
        raise ValueError(f"${keyword.upper()} names a channel twice")
    try:
        values = np.array(fields[1 + n :], dtype=np.float64).reshape(n, n)
    except ValueError:
        raise ValueError(f"${keyword.upper()} holds a value that is not a number") from None
    if not np.isfinite(values).all():
        raise ValueError(f"${keyword.upper()} holds a value that is not finite")
    return pd.DataFrame(values, index=names, columns=[name.replace("/", "_") for name in names])


def _channel(name: str, channels: Sequence[str], keyword: str) -> str:
    if name in channels:
        return name
    if name.isdecimal() and 1 <= int(name) <= len(channels):
        return channels[int(name) - 1]
    raise ValueError(f"${keyword.upper()} names {name!r}, which is no channel of the file")
