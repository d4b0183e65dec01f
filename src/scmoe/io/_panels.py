"""Which channels several files have in common."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from scmoe._checks import listing
from scmoe._keys import Key

from ._channels import WHY, Kind, mark_copies
from ._errors import FCSReadError

if TYPE_CHECKING:
    from ._file import FCSText

JOINS = ("inner", "exact", "outer")


def join_panels(files: Sequence[FCSText], join: str, stacklevel: int) -> list[str]:
    """Return the variables to keep, in the order of the files.

    Raises
    ------
    FCSReadError
        If nothing is left; with ``"exact"`` if the panels differ.
    """
    panels = [set(file.variables) for file in files]
    if join == "exact":
        for file in files[1:]:
            _require_same_panel(files[0], file)
    everything = list(dict.fromkeys(name for file in files for name in file.variables))
    shared = [name for name in everything if all(name in panel for panel in panels)]
    if not shared and join != "outer":
        raise FCSReadError(
            files[-1].path,
            f"no marker is shared by this file and all the others ({files[0].path}); "
            'join="outer" keeps all',
        )
    if len(shared) < len(everything):
        _warn_of_others(files, everything, set(shared), join, stacklevel + 1)
    if join != "exact":
        _warn_of_moved(files, shared, stacklevel + 1)
    return everything if join == "outer" else shared


def variables_of(files: Sequence[FCSText], names: Sequence[str]) -> pd.DataFrame:
    """Describe variables by the first file that has each."""
    rows: list[pd.DataFrame] = []
    wanted = list(names)
    for file in files:
        here = [name for name in wanted if name in file.var.index]
        if here:
            rows.append(file.var.loc[here])
            wanted = [name for name in wanted if name not in set(here)]
        if not wanted:
            break
    return _judged(pd.concat(rows).loc[list(names)])


def _judged(var: pd.DataFrame) -> pd.DataFrame:
    """Say anew what is a copy: the area of a detector may be what other files lack."""
    var = var.copy()
    described = zip(var[Key.var.KIND], var[WHY], strict=True)
    kinds = mark_copies(
        list(var[Key.var.CHANNEL]),
        list(var[Key.var.MARKER]),
        [Kind(*pair) for pair in described],
        list(var["PnE"]),
    )
    var[Key.var.KIND] = pd.Categorical([kind for kind, _ in kinds])
    var[WHY] = [why for _, why in kinds]
    return var


def _warn_of_others(
    files: Sequence[FCSText], everything: list[str], shared: set[str], join: str, stacklevel: int
) -> None:
    told = []
    for file in files:
        if join == "outer":
            names = [name for name in everything if name not in set(file.variables)]
        else:
            names = [name for name in file.variables if name not in shared]
        if names:
            told.append(f"{file.path}: {', '.join(names)}")
    if join == "outer":
        text = f'Markers that a file does not have are NaN, see .layers["{Key.layers.MEASURED}"].'
    else:
        text = "Markers that not all files have were dropped."
    warnings.warn(f"{text} {'; '.join(told)}", stacklevel=stacklevel)


def _warn_of_moved(files: Sequence[FCSText], shared: list[str], stacklevel: int) -> None:
    """Warn of markers that lie on one channel here and on another there."""
    first = dict(zip(files[0].variables, files[0].names, strict=True))
    moved: dict[str, str] = {}
    for file in files[1:]:
        for name, channel in zip(file.variables, file.names, strict=True):
            if name in first and first[name] != channel and name in shared:
                moved.setdefault(
                    name, f"{name} on {first[name]} in {files[0].path}, {channel} in {file.path}"
                )
    if moved:
        warnings.warn(
            f"Markers were measured on different channels: {'; '.join(moved.values())}",
            stacklevel=stacklevel,
        )


def _require_same_panel(first: FCSText, file: FCSText) -> None:
    ours, theirs = _panel(first), _panel(file)
    if ours == theirs:
        return
    raise FCSReadError(
        file.path,
        f"its panel does not match that of {first.path}. "
        f"Only in {file.path.name}: {_names(theirs - ours)}. "
        f"Only in {first.path.name}: {_names(ours - theirs)}. "
        'join="inner" keeps the shared markers, join="outer" all',
    )


def _names(panel: set[str]) -> str:
    return listing(sorted(panel)).replace("'", "") or "none"


def _panel(file: FCSText) -> set[str]:
    return {
        name if name == channel else f"{name} [channel {channel}]"
        for name, channel in zip(file.variables, file.names, strict=True)
    }
