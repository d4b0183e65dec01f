"""Names of clusters, made from the markers by which they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

ENTERS = 1.0
"""Effect from which a marker enters a name, in standard deviations."""

STAYS = 0.4
"""Effect from which a marker may enter a name that would otherwise be ambiguous or empty."""

APART = 0.6
"""Difference of cluster means from which a marker separates two clusters."""

MARGIN = 0.1
"""Effects that differ by less count as equal; then the order of the markers decides."""

UNMARKED = "no marker"
"""Name of clusters in which no marker is high or low."""


def names_of(
    effect: pd.DataFrame,
    shares: pd.Series,
    max_markers: int,
    gates: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, str]:
    """Return a unique name for each cluster that depends on its markers, not on its number.

    A name lists the markers of the gates of the cluster, if there are any, then the highest
    markers (``CD3+``) and, if these are fewer than ``max_markers``, the lowest ones (``CD8-``),
    in the order of the markers. If no marker is high or low enough, the name is the highest or
    else the lowest marker, provided that its effect reaches :data:`STAYS`.
    Clusters with the same name are separated by the marker that differs most between them,
    repeatedly; if no marker differs, they are numbered from the largest to the smallest.

    Parameters
    ----------
    effect
        Effects, clusters x markers, as in :func:`scmoe.get.signatures`.
    shares
        Share of all cells in each cluster.
    max_markers
        Markers in a name at most, unless more are needed to make it unique.
    gates
        For each cluster the sign, 1 or -1, of the markers of its gates, the most telling first.

    Returns
    -------
    The name of each cluster.
    """
    # the last digits of sums depend on the order of the clusters
    values = effect.to_numpy().round(6)
    # difference from the mean of all cells; effects grow with the size of the cluster
    means = (values * (1 - shares.to_numpy()[:, None])).round(6)
    known = [_gate_markers(effect.columns, (gates or {}).get(name, {})) for name in effect.index]
    signs = [
        _first_markers(row, max_markers, gated) for row, gated in zip(values, known, strict=True)
    ]
    separated = True
    while separated:
        groups = _equal([_text(sign, effect.columns) for sign in signs])
        separated = sum(_separate(values, means, signs, group) for group in groups) > 0
    names = [_text(sign, effect.columns) for sign in signs]
    for group in _equal(names):
        ranked = sorted(group, key=lambda k: (-shares.iloc[k], *(-values[k])))
        for number, k in enumerate(ranked, start=1):
            names[k] = f"{names[k]} ({number})"
    return dict(zip(effect.index, names, strict=True))


def _gate_markers(markers: pd.Index, gates: Mapping[str, int]) -> dict[int, int]:
    """Return the signs of the markers of gates by position."""
    return {int(markers.get_loc(m)): sign for m, sign in gates.items() if m in markers}


def _first_markers(row: np.ndarray, most: int, gated: dict[int, int]) -> dict[int, int]:
    """Return the signs of the gate markers, then of the strongest markers, by position."""
    signs = dict(list(gated.items())[:most])
    row = row.copy()
    row[list(gated)] = 0
    high = _strongest(row, most - len(signs))
    low = _strongest(-row, most - len(signs) - len(high))
    if not high and not low and not signs:
        # one weak marker is better than no name
        high = _strongest(row, 1, STAYS)
        low = [] if high else _strongest(-row, 1, STAYS)
    return signs | dict.fromkeys(high, 1) | dict.fromkeys(low, -1)


def _strongest(effect: np.ndarray, most: int, least: float = ENTERS) -> list[int]:
    """Return the positions of the largest effects of at least ``least``; the first of equals."""
    left = [int(i) for i in np.flatnonzero(effect >= least)]
    taken: list[int] = []
    while left and len(taken) < most:
        limit = effect[left].max() - MARGIN
        taken.append(next(i for i in left if effect[i] >= limit))
        left.remove(taken[-1])
    return taken


def _text(signs: dict[int, int], markers: pd.Index) -> str:
    """Write the high, then the low markers, each in the order of the markers."""
    parts = sorted(signs.items(), key=lambda item: (-item[1], item[0]))
    return " ".join(f"{markers[i]}{'+' if sign > 0 else '-'}" for i, sign in parts) or UNMARKED


def _equal(names: list[str]) -> list[list[int]]:
    """Return the groups of positions that share a name."""
    groups: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        groups.setdefault(name, []).append(k)
    return [group for group in groups.values() if len(group) > 1]


def _separate(
    values: np.ndarray, means: np.ndarray, signs: list[dict[int, int]], group: list[int]
) -> bool:
    """Add one marker to the names of a group; return False if no marker separates its members."""
    own = values[group]
    spread = np.ptp(means[group], axis=0)
    sign = (own >= STAYS).astype(int) - (own <= -STAYS).astype(int)
    separates = (np.ptp(sign, axis=0) > 0) & (spread >= APART)
    separates[list(signs[group[0]])] = False
    if not separates.any():
        return False
    limit = spread[separates].max() - MARGIN
    chosen = int(np.flatnonzero(separates & (spread >= limit))[0])
    for k, one in zip(group, sign[:, chosen], strict=True):
        if one:
            signs[k][chosen] = int(one)
    return True
