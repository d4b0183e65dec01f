"""Tables of records in markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

MISSING = "–"


def spread(values: pd.Series, digits: int) -> str:
    """Return median and range, such as ``0.500 (0.400–0.600)``; a dash without measurements.

    The value alone where there is only one.
    """
    values = values.dropna()
    if values.empty:
        return MISSING
    # what rounds to nothing has no sign
    low, mid, high = (round(f(values), digits) + 0.0 for f in (np.min, np.median, np.max))
    if len(values) == 1:
        return f"{mid:.{digits}f}"
    return f"{mid:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def markdown(columns: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table in markdown."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def measured(records: Iterable[dict]) -> pd.DataFrame:
    """Return the records without errors."""
    return pd.DataFrame([record for record in records if "error" not in record])


def failures(records: Iterable[dict], keys: tuple[str, ...]) -> str:
    """Return the errors among the records as a list, or nothing."""
    lines = [
        f"- {', '.join(str(record[key]) for key in keys if key in record)}: {record['error']}\n"
        for record in records
        if "error" in record
    ]
    return "\nWhat could not be run:\n\n" + "".join(lines) if lines else ""
