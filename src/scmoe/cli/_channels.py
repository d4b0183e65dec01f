"""Choose the channels to cluster by, and say why the others are left out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmoe._core.cells import layer_values
from scmoe._core.keys import Key
from scmoe._core.markers import kinds_of
from scmoe._core.rows import Rows
from scmoe._core.text import did_you_mean, listing
from scmoe._core.values import check_matrix, check_training

from ._cells import h5ad_files, join_h5ad, read_variables
from ._console import one_line
from ._settings import COFACTORS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData

    from ._console import Console
    from ._settings import Settings

_LISTS = (".txt", ".csv", ".tsv", ".list")
"""Suffixes of files with names of markers."""

_NOT_EVERYWHERE = "not every file has it"

_SHOWN = (Key.var.KIND, Key.var.CHANNEL, "why")


def choose_markers(adata: AnnData, settings: Settings, console: Console) -> list[str]:
    """Return the names of the markers to cluster by, whose values have been checked.

    Raises
    ------
    KeyError
        For unknown names.
    ValueError
        For values that cannot be clustered, and if no marker is left.
    """
    # loads torch, which the table of channels does not need
    from scmoe.tl import technical_names

    values = layer_values(adata, settings.layer, in_memory=False)
    partly = _partly_measured(adata, values) if settings.join == "outer" else ()
    left_out = why_left_out(adata.var, settings.markers, settings.exclude, partly)
    names = [name for name in settings.markers or adata.var_names if not left_out[name]]
    names = list(dict.fromkeys(names))
    if not names:
        raise ValueError("No marker is left to cluster by.")
    if dropped := [name for name, why in left_out.items() if why == _NOT_EVERYWHERE]:
        console.warn(f"Not clustered by {listing(dropped)}, which not every file has.")
    n_clusters = settings.least_clusters
    if adata.n_obs < n_clusters:
        raise ValueError(
            f"There are fewer cells ({adata.n_obs}) than clusters ({n_clusters}); "
            "--n-clusters asks for fewer."
        )
    where = "X" if settings.layer is None else f"layer {settings.layer!r}"
    # another choice of markers does not help against sparse values and whole numbers
    check_matrix(values[:0], names, where)
    rows = Rows(values, adata.var_names.get_indexer(names)).checked(names, where, counts=False)
    low, high = np.full((2, len(names)), [[np.inf], [-np.inf]])
    try:
        for _, block in rows:
            low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
        check_training(np.stack([low, high]), names, n_clusters, n_obs=adata.n_obs)
    except ValueError as error:
        hint = "--exclude leaves markers out, --markers names them."
        raise ValueError(f"{error} {hint}") from None
    index = pd.Index(names)
    if settings.markers is None and (technical := technical_names(adata, index)):
        console.warn(
            f"By their names {listing(technical)} are no markers; --exclude leaves them out."
        )
    return names


def _partly_measured(adata: AnnData, values: Any) -> list[str]:
    """Return the names of the channels that not every file has; they stay in the result."""
    measured = adata.layers.get(Key.layers.MEASURED)
    # without the layer, as in joined h5ad, NaN stands for values that were not measured
    everywhere = np.ones(adata.n_vars, dtype=bool)
    for _, block in Rows(values if measured is None else measured).raw_blocks():
        everywhere &= (~np.isnan(block) if measured is None else block).all(axis=0)
    return list(adata.var_names[~everywhere])


def why_left_out(
    var: pd.DataFrame,
    markers: Sequence[str] | None,
    exclude: Collection[str],
    partly: Collection[str] = (),
) -> dict[str, str]:
    """Return the reason why each channel is left out, ``""`` if it is used.

    Parameters
    ----------
    var
        ``.var``; its kinds decide if no markers are named.
    markers, exclude
        The options ``--markers`` and ``--exclude``.
    partly
        Channels that not every file has. They are left out, unless they are named or no others
        are there.

    Raises
    ------
    KeyError
        For unknown names.
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
        why.update({name: _NOT_EVERYWHERE for name in left if name in set(partly)})
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


def channel_table(
    files: tuple[str, ...],
    markers: Sequence[str] | None,
    exclude: Collection[str],
    join: str,
    **of_fcs: Any,
) -> list[str]:
    """Return the lines of the table of channels, from the headers of the files alone.

    Raises
    ------
    ValueError, KeyError, FCSReadError, FileNotFoundError
        As in a run.
    """
    read = _h5ad_channels if files[0].lower().endswith(".h5ad") else _fcs_channels
    var, partly, dropped = read(files, join, **of_fcs)
    left_out = why_left_out(var, markers, exclude, partly)
    rows = [("channel", "marker", "kind", "used", "why")]
    for table in (var, dropped):
        columns = [table[c] if c in table else [""] * len(table) for c in _SHOWN]
        for name, kind, channel, known in zip(table.index, *columns, strict=True):
            why = left_out[name] if table is var else _NOT_EVERYWHERE
            marker = name if channel and name != channel else ""
            # the file may say why it has a channel of a kind that is left out
            told = known if known and why in ("", _of_kind(kind)) else why
            rows.append((str(channel or name), marker, str(kind), "no" if why else "yes", told))
    used = sum(not why for why in left_out.values())
    end = f"{used} of {len(rows) - 1} channels are used to cluster by."
    if markers is None and not kinds_of(var).isin(list(COFACTORS)).any():
        end += " No channel is known to be a marker, so all but those of --exclude are used."
    return [*_aligned(rows), "", end]


def _fcs_channels(
    files: tuple[str, ...], join: str, *, by: str, **how: Any
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Return ``.var`` of a run, the channels that not every file has, and what the join drops."""
    from scmoe.io import Panel, find_files, join_panels, read_headers

    about = read_headers(find_files(list(files)), **how)
    panel = join_panels(about, join, by, stacklevel=2)
    partly = [name for name in panel.names if any(name not in own for own in panel.called)]
    every = list(dict.fromkeys(name for own in panel.called for name in own))
    dropped = Panel(every, panel.called).variables(about).drop(index=panel.names)
    return panel.variables(about), partly, dropped


def _h5ad_channels(
    files: tuple[str, ...], join: str, **_: Any
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Return the same as :func:`_fcs_channels`, of h5ad."""
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
