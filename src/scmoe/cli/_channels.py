"""Which channels are clustered by, and why the others are not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from scmoe._core.keys import Key
from scmoe._core.text import did_you_mean

from ._console import one_line
from ._settings import COFACTORS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pandas as pd

_LISTS = (".txt", ".csv", ".tsv", ".list")
"""How the name of a file with names in it may end."""

NOT_EVERYWHERE = "not every file has it"


def kinds_of(var: pd.DataFrame) -> pd.Series:
    """Return the kinds of channels, ``""`` where they are not known."""
    import pandas as pd

    if Key.var.KIND not in var:
        return pd.Series("", index=var.index)
    return var[Key.var.KIND].astype(str)


def why_left_out(
    var: pd.DataFrame,
    markers: Sequence[str] | None,
    exclude: Collection[str],
    partly: Collection[str] = (),
) -> dict[str, str]:
    """Return why each variable is not clustered by, ``""`` if it is.

    Parameters
    ----------
    var
        ``.var``, of which the kinds decide if no markers are named.
    markers, exclude
        The options.
    partly
        What not every file has. It is left out, unless it is named or nothing else is there.

    Raises
    ------
    KeyError
        For names that are no variable.
    """
    _check_known(var, "--markers", markers or ())
    _check_known(var, "--exclude", exclude)
    kinds = kinds_of(var)
    is_marker = kinds.isin(list(COFACTORS))
    why = {}
    for name, kind, fits in zip(var.index, kinds, is_marker, strict=True):
        if markers is not None:
            why[name] = "" if name in markers else "not in --markers"
        else:
            why[name] = "" if fits or not is_marker.any() else _of_kind(kind)
        why[name] = "--exclude" if name in exclude else why[name]
    left = [name for name, reason in why.items() if not reason]
    if markers is None and not set(left) <= set(partly):
        why.update({name: NOT_EVERYWHERE for name in left if name in set(partly)})
    return why


def _of_kind(kind: str) -> str:
    return f"kind {kind}"


def _check_known(var: pd.DataFrame, option: str, names: Collection[str]) -> None:
    unknown = [name for name in names if name not in var.index]
    if unknown:
        files = [name for name in unknown if name.lower().endswith(_LISTS) or os.sep in name]
        what = f", and no file {', '.join(map(repr, files))}" if files else ""
        raise KeyError(
            f"{option}: there is no marker {', '.join(map(repr, unknown))}{what}."
            f"{did_you_mean(unknown, var.index)} There are "
            f"{', '.join(var.index[:60])}{', ...' if len(var) > 60 else ''}."
        )


def table_of(
    files: tuple[str, ...],
    markers: Sequence[str] | None,
    exclude: Collection[str],
    join: str,
    **of_fcs: Any,
) -> list[str]:
    """Return the lines of a table of the channels of files, without reading their values.

    Raises
    ------
    ValueError, KeyError, FCSReadError, FileNotFoundError
        As a run does.
    """
    read = _h5ad if files[0].lower().endswith(".h5ad") else _fcs
    var, partly, dropped = read(files, join, **of_fcs)
    left_out = why_left_out(var, markers, exclude, partly)
    rows = [("channel", "marker", "kind", "used", "why")]
    for table in (var, dropped):
        columns = [table[c] if c in table else [""] * len(table) for c in _SHOWN]
        for name, kind, channel, known in zip(table.index, *columns, strict=True):
            why = left_out[name] if table is var else NOT_EVERYWHERE
            marker = name if channel and name != channel else ""
            # of a kind that is left out, the reason is that of the kind
            told = known if known and why in ("", _of_kind(kind)) else why
            rows.append((str(channel or name), marker, str(kind), "no" if why else "yes", told))
    used = sum(not why for why in left_out.values())
    end = f"{used} of {len(rows) - 1} channels are used to cluster by."
    if markers is None and not kinds_of(var).isin(list(COFACTORS)).any():
        end += " None is known to be a marker, so all are used but those of --exclude."
    return [*_aligned(rows), "", end]


_SHOWN = (Key.var.KIND, Key.var.CHANNEL, "why")


def _fcs(
    files: tuple[str, ...], join: str, *, by: str, **how: Any
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Return what a run gets, what of that not every file has, and what the join drops."""
    from scmoe.io._fcs import read_headers
    from scmoe.io._panels import Panel, join_panels
    from scmoe.io._paths import find_files

    about = read_headers(find_files(list(files)), **how)
    panel = join_panels(about, join, by, stacklevel=2)
    partly = [name for name in panel.names if any(name not in own for own in panel.called)]
    every = list(dict.fromkeys(name for own in panel.called for name in own))
    dropped = Panel(every, panel.called).variables(about).drop(index=panel.names)
    return panel.variables(about), partly, dropped


def _h5ad(
    files: tuple[str, ...], join: str, **_: Any
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Return the same as :func:`_fcs`."""
    import pandas as pd

    from ._read import h5ad_files, join_h5ad, read_variables

    paths = h5ad_files(files)
    cells = [read_variables(path) for path in paths]
    var = join_h5ad(paths, cells, join).var
    partly = [name for name in var.index if any(name not in a.var_names for a in cells)]
    dropped = pd.concat([a.var for a in cells])
    return var, partly, dropped[~dropped.index.isin(var.index) & ~dropped.index.duplicated()]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
