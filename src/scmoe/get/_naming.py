"""Names of clusters, out of the markers by which they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

ENTERS = 1.0
"""An effect from which a marker makes part of a name, in standard deviations."""

STAYS = 0.4
"""An effect from which a marker has a sign, where names are equal or empty otherwise."""

APART = 0.6
"""How far apart the means of clusters are that a marker tells apart."""

MARGIN = 0.1
"""Effects that differ by less are equal; then the order of the markers decides."""

UNMARKED = "no marker"
"""Clusters in which nothing is high or low."""


def names_of(
    effect: pd.DataFrame,
    shares: pd.Series,
    max_markers: int,
    gates: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, str]:
    """A different name for each cluster that depends on its markers and not on its number.

    A name has the markers of the gates of the cluster, if it has some, then those that are highest
    in it (``CD3+``) and, where these are fewer than ``max_markers``, those that are lowest
    (``CD8-``); in it markers keep their order. Where
    none enters it has the one that is highest, or else lowest, if that has a sign.
    Clusters of the same name are told apart by the marker that differs most between them, again
    and again, and numbered from the largest on where none does.

    Parameters
    ----------
    effect
        Clusters x markers, what :func:`scmoe.get.signatures` says.
    shares
        Share of all cells that each cluster has.
    max_markers
        Markers of a name that needs no others to be told apart.
    gates
        By cluster the sign, 1 or -1, of the markers of its gates, the most telling first.

    Returns
    -------
    Names by cluster.
    """
    # sums differ in the last digits with the order of the clusters
    values = effect.to_numpy().round(6)
    # of the means of clusters among each other, where effects grow with the size of a cluster
    means = (values * (1 - shares.to_numpy()[:, None])).round(6)
    known = [_of_gates(effect.columns, (gates or {}).get(name, {})) for name in effect.index]
    signs = [
        _first_markers(row, max_markers, gated) for row, gated in zip(values, known, strict=True)
    ]
    told = True
    while told:
        groups = _equal([_text(sign, effect.columns) for sign in signs])
        told = sum(_tell_apart(values, means, signs, group) for group in groups) > 0
    names = [_text(sign, effect.columns) for sign in signs]
    for group in _equal(names):
        ranked = sorted(group, key=lambda k: (-shares.iloc[k], *(-values[k])))
        for number, k in enumerate(ranked, start=1):
            names[k] = f"{names[k]} ({number})"
    return dict(zip(effect.index, names, strict=True))


def _of_gates(markers: pd.Index, gates: Mapping[str, int]) -> dict[int, int]:
    """Signs of the markers of gates, by position."""
    return {int(markers.get_loc(m)): sign for m, sign in gates.items() if m in markers}


def _first_markers(row: np.ndarray, most: int, gated: dict[int, int]) -> dict[int, int]:
    """Signs of the markers of gates, then of those that stand out most, by position."""
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
    """Positions of the largest effects from ``least`` on; of equal ones, the first."""
    left = [int(i) for i in np.flatnonzero(effect >= least)]
    taken: list[int] = []
    while left and len(taken) < most:
        limit = effect[left].max() - MARGIN
        taken.append(next(i for i in left if effect[i] >= limit))
        left.remove(taken[-1])
    return taken


def _text(signs: dict[int, int], markers: pd.Index) -> str:
    """What is high, then what is low, each in the order of the markers."""
    parts = sorted(signs.items(), key=lambda item: (-item[1], item[0]))
    return " ".join(f"{markers[i]}{'+' if sign > 0 else '-'}" for i, sign in parts) or UNMARKED


def _equal(names: list[str]) -> list[list[int]]:
    """Groups of positions that share a name."""
    groups: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        groups.setdefault(name, []).append(k)
    return [group for group in groups.values() if len(group) > 1]


def _tell_apart(
    values: np.ndarray, means: np.ndarray, signs: list[dict[int, int]], group: list[int]
) -> bool:
    """Add one marker to the names of a group; False where none tells it apart."""
    own = values[group]
    spread = np.ptp(means[group], axis=0)
    sign = (own >= STAYS).astype(int) - (own <= -STAYS).astype(int)
    tells = (np.ptp(sign, axis=0) > 0) & (spread >= APART)
    tells[list(signs[group[0]])] = False
    if not tells.any():
        return False
    limit = spread[tells].max() - MARGIN
    chosen = int(np.flatnonzero(tells & (spread >= limit))[0])
    for k, one in zip(group, sign[:, chosen], strict=True):
        if one:
            signs[k][chosen] = int(one)
    return True
