"""Match the channels of several files, and choose those to keep."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from scmoe._core.keys import Key
from scmoe._core.text import listing

from ._channels import WHY, Kind, mark_copies
from ._errors import FCSReadError

if TYPE_CHECKING:
    from ._dataset import FCSDataset


@dataclass(frozen=True)
class Panel:
    """The variables of several files that are read together."""

    names: list[str]
    """Variables to keep, in the order of the files."""
    called: list[list[str]]
    """Name of the variable of each channel, one list for each file."""

    def matching(self, i: int) -> tuple[list[int], list[int]]:
        """Return the channels of a file that are kept, and their columns in the result."""
        column_of = {name: column for column, name in enumerate(self.names)}
        pairs = [(c, column_of[n]) for c, n in enumerate(self.called[i]) if n in column_of]
        return [channel for channel, _ in pairs], [column for _, column in pairs]

    @property
    def is_whole(self) -> bool:
        """Whether every file has every variable."""
        return all(set(self.names).issubset(names) for names in self.called)

    def variables(self, files: Sequence[FCSDataset]) -> pd.DataFrame:
        """Return ``.var``: each variable as in the first file that uses its name, else has it."""
        places: dict[str, tuple[int, int]] = {}
        for own in (True, False):
            for k, (file, called) in enumerate(zip(files, self.called, strict=True)):
                for i, name in enumerate(called):
                    if name not in places and (not own or file.variables[i] == name):
                        places[name] = (k, i)
        tables = []
        for k in dict.fromkeys(places[name][0] for name in self.names):
            here = {name: places[name][1] for name in self.names if places[name][0] == k}
            tables.append(files[k].var.iloc[list(here.values())].set_axis(list(here)))
        var = pd.concat(tables).loc[self.names]
        var = var.astype(dict(files[0].var.dtypes))
        return _with_copies_marked(var)

    def renamed(self, i: int, file: FCSDataset) -> pd.DataFrame | None:
        """Return the renamed channels of a file as a table; None if there are none."""
        rows = [
            (channel, marker, name)
            for channel, marker, own, name in zip(
                file.names, file.markers, file.variables, self.called[i], strict=True
            )
            if own != name and name in self.names
        ]
        if not rows:
            return None
        index = pd.Index([row[0] for row in rows], name="channel", dtype=object)
        columns = {"marker": [row[1] for row in rows], "variable": [row[2] for row in rows]}
        return pd.DataFrame(columns, index=index, dtype=object)


def join_panels(files: Sequence[FCSDataset], join: str, by: str, stacklevel: int) -> Panel:
    """Match the channels of files, and choose the variables to keep.

    Parameters
    ----------
    files
        Data sets without their values.
    join
        ``"inner"`` keeps what all files share, ``"outer"`` everything, ``"exact"`` raises if the
        files differ.
    by
        Match channels by the name of their variable (``"marker"``), or by ``$PnN``.
    stacklevel
        Stack level of the warnings.

    Raises
    ------
    FCSReadError
        If nothing is left; with ``"exact"`` if the panels differ; with ``by="channel"`` if a
        file has two channels of one name, or a marker that another one has elsewhere.
    """
    if by == "channel" and len(files) > 1:
        called = _names_by_channel(files)
        _warn_of_renamed(files, called, stacklevel + 1)
    else:
        called = [file.variables for file in files]
    if join == "exact":
        for i in range(1, len(files)):
            _require_same_panel(files, called, i, by)
    everything = list(dict.fromkeys(name for names in called for name in names))
    panels = [set(names) for names in called]
    shared = [name for name in everything if all(name in panel for panel in panels)]
    if not shared and join != "outer":
        what = "channel" if by == "channel" else "marker"
        raise FCSReadError(
            files[-1].path,
            f"no {what} is shared by {_file_label(files[-1])} and all the others "
            f"({files[0].label}); "
            f'join="outer" keeps all{_by_channel_hint(files, by)}',
        )
    if len(shared) < len(everything):
        hint = _by_channel_hint(files, by)
        _warn_of_others(files, called, everything, set(shared), join, hint, stacklevel + 1)
    if join != "exact" and by == "marker":
        _warn_of_moved(files, shared, stacklevel + 1)
    return Panel(everything if join == "outer" else shared, called)


def _with_copies_marked(var: pd.DataFrame) -> pd.DataFrame:
    """Mark copies again: the area of a detector may have been dropped, as other files lack it."""
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


def _file_label(file: FCSDataset) -> str:
    return f"data set {file.number} of this file" if file.several else "this file"


def _names_by_channel(files: Sequence[FCSDataset]) -> list[list[str]]:
    """Return names of variables by channel, from the first file that names a marker there."""
    marker_of: dict[str, str] = {}
    name_of: dict[str, str] = {}
    for file in files:
        twice = sorted({name for name in file.names if file.names.count(name) > 1})
        if twice:
            raise FCSReadError(
                file.path,
                f'several channels are called {listing(twice)}; by="marker" keeps them apart',
            )
        for channel, marker in zip(file.names, file.markers, strict=True):
            if not marker_of.get(channel):
                marker_of[channel] = marker
    for file in files:
        for channel, marker, name in zip(file.names, file.markers, file.variables, strict=True):
            if channel not in name_of and marker == marker_of[channel]:
                free = name
                if free in name_of.values():
                    free = f"{marker or channel} ({channel})"
                while free in name_of.values():
                    free += "_"
                name_of[channel] = free
    _require_markers_in_place(files, marker_of)
    return [[name_of[channel] for channel in file.names] for file in files]


def _require_markers_in_place(files: Sequence[FCSDataset], marker_of: dict[str, str]) -> None:
    """Raise FCSReadError if a file has a marker on another channel than the first file does."""
    for file in files:
        own = dict(zip(file.names, file.markers, strict=True))
        for channel in file.names:
            wanted = marker_of[channel]
            elsewhere = [c for c, m in own.items() if m == wanted and c != channel]
            if wanted and own[channel] != wanted and elsewhere:
                raise FCSReadError(
                    file.path,
                    f"{wanted} lies on {elsewhere[0]} here and on {channel} in another file, so "
                    'by="channel" would mix markers; by="marker" does not',
                )


def _by_channel_hint(files: Sequence[FCSDataset], by: str) -> str:
    """Return the advice to join by channel if that keeps more variables, else ``""``."""
    if by == "channel":
        return ""
    try:
        called = _names_by_channel(files)
    except FCSReadError:
        return ""
    more = len(set.intersection(*map(set, called)))
    fewer = len(set.intersection(*(set(file.variables) for file in files)))
    return '; by="channel" joins them by channel' if more > fewer else ""


def _warn_of_renamed(
    files: Sequence[FCSDataset], called: Sequence[Sequence[str]], stacklevel: int
) -> None:
    told: dict[tuple[str, str], str] = {}
    for file, names in zip(files, called, strict=True):
        for channel, own, name in zip(file.names, file.variables, names, strict=True):
            if own != name:
                where = f"{name} for {own} on {channel}, {file.label}"
                told.setdefault((channel, own), where)
    if told:
        warnings.warn(
            "Joined by channel, markers have the name that the first file gives them "
            f'(.uns["{Key.uns.FCS}"][sample]["renamed"]): {"; ".join(told.values())}',
            stacklevel=stacklevel,
        )


def _warn_of_others(
    files: Sequence[FCSDataset],
    called: Sequence[Sequence[str]],
    everything: list[str],
    shared: set[str],
    join: str,
    hint: str,
    stacklevel: int,
) -> None:
    told = []
    for file, own in zip(files, called, strict=True):
        if join == "outer":
            names = [name for name in everything if name not in set(own)]
        else:
            names = [name for name in own if name not in shared]
        if names:
            told.append(f"{file.label}: {', '.join(names)}")
    if join == "outer":
        text = f'Markers that a file does not have are NaN, see .layers["{Key.layers.MEASURED}"].'
    else:
        text = "Markers that not all files have were dropped."
    warnings.warn(f"{text} {'; '.join(told)}{hint}", stacklevel=stacklevel)


def _warn_of_moved(files: Sequence[FCSDataset], shared: list[str], stacklevel: int) -> None:
    """Warn of markers that are on different channels in different files."""
    first = dict(zip(files[0].variables, files[0].names, strict=True))
    moved: dict[str, str] = {}
    for file in files[1:]:
        for name, channel in zip(file.variables, file.names, strict=True):
            if name in first and first[name] != channel and name in shared:
                moved.setdefault(
                    name, f"{name} on {first[name]} in {files[0].label}, {channel} in {file.label}"
                )
    if moved:
        warnings.warn(
            f"Markers were measured on different channels: {'; '.join(moved.values())}",
            stacklevel=stacklevel,
        )


def _require_same_panel(
    files: Sequence[FCSDataset], called: Sequence[Sequence[str]], i: int, by: str
) -> None:
    ours, theirs = (_names_with_channels(files[k], called[k]) for k in (0, i))
    if ours == theirs:
        return
    first, file = files[0], files[i]
    names = [f.path.name if not f.several else f"data set {f.number}" for f in (file, first)]
    raise FCSReadError(
        file.path,
        f"its panel does not match that of {first.label}. "
        f"Only in {names[0]}: {_join_names(theirs - ours)}. "
        f"Only in {names[1]}: {_join_names(ours - theirs)}. "
        f'join="inner" keeps the shared markers, join="outer" all{_by_channel_hint(files, by)}',
    )


def _join_names(panel: set[str]) -> str:
    return listing(sorted(panel)).replace("'", "") or "none"


def _names_with_channels(file: FCSDataset, called: Sequence[str]) -> set[str]:
    return {
        name if name == channel else f"{name} [channel {channel}]"
        for name, channel in zip(called, file.names, strict=True)
    }
