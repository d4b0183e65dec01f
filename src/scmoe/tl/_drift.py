"""How far samples have moved away from a reference."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmoe._core.text import listing

if TYPE_CHECKING:
    from scmoe.model._outliers import Outliers

DRIFT = 0.25
"""Excess of strange cells from which a sample is called drifted."""

SHIFT = 0.3
"""Share of its range by which a marker may move; a wrong transform moves all of them."""

NOISE = 1.63
"""Kolmogorov's 1 % point: what chance gives to n cells is this by the root of n."""


LOOKED_AT = 50_000
"""Cells by which it is seen whether markers have moved ..."""

OF_SAMPLE = 200
"""... but so many of each sample, if it has them."""


def looked_at(sample: np.ndarray) -> np.ndarray:
    """Which cells are looked at, ``(n,)`` bool: all, or a random share of each sample.

    Parameters
    ----------
    sample
        Sample of each cell, ``(n,)`` integers from 0.
    """
    if len(sample) <= LOOKED_AT:
        return np.ones(len(sample), dtype=bool)
    share = np.maximum(LOOKED_AT / len(sample), OF_SAMPLE / np.bincount(sample))
    found = np.random.default_rng(0).random(len(sample)) < share[sample]
    # samples of one cell are seen, too
    found[np.unique(sample, return_index=True)[1]] = True
    return found


def drift_table(
    outliers: Outliers,
    score: np.ndarray,
    position: np.ndarray,
    looked: np.ndarray,
    markers: pd.Index,
    sample: np.ndarray,
    names: pd.Index,
    rejected: np.ndarray,
) -> pd.DataFrame:
    """Compare each sample with the reference; see :func:`scmoe.tl.assign`.

    Parameters
    ----------
    outliers
        Of the reference.
    score, sample, rejected
        Outlier score, position of the sample among ``names``, and whether a cell is rejected,
        ``(n,)``.
    position
        Scaled markers of the cells that are ``looked`` at, ``(n_looked, n_markers)``.
    looked
        Which these are, ``(n,)`` bool.
    markers, names
        Of the columns, and of the samples.
    """
    known = outliers.markers.numpy(force=True)
    levels = np.linspace(0, 1, len(known))
    of_position = sample[looked]
    rows = {}
    for number, name in enumerate(names):
        own = sample == number
        moved = np.quantile(position[of_position == number], levels, axis=0) - known
        moved = np.abs(moved).mean(0)
        rows[name] = {
            "n_cells": int(own.sum()),
            "rejected": float(rejected[own].mean()),
            "drift": _excess(score[own]),
            "marker": str(markers[moved.argmax()]),
            "shift": float(moved.max()),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    chance = NOISE / np.sqrt(table["n_cells"])
    table["alarm"] = (table["drift"] > DRIFT + chance) | (table["shift"] > SHIFT + chance)
    return table


def _excess(score: np.ndarray) -> float:
    """One-sided distance of Kolmogorov and Smirnov from the uniform scores of the reference.

    NaN where there are no scores.
    """
    if np.isnan(score).any():
        return float("nan")
    below = np.arange(len(score)) / len(score)
    return float(max((np.sort(score) - below).max(), 0.0))


def warn_of_drift(drift: pd.DataFrame) -> None:
    """Warn of samples whose labels may be wrong."""
    drifted = drift[drift["alarm"]]
    if drifted.empty:
        return
    # without landmarks there is no drift, only shifts
    worst = str(drifted["drift"].fillna(drifted["shift"]).idxmax())
    row = drifted.loc[worst]
    warnings.warn(
        f"{len(drifted)} of {len(drift)} samples have drifted from the reference: "
        f"{listing(list(drifted.index))}. Worst is {worst!r}: {row['rejected']:.1%} of its cells "
        f"are rejected, and {row['marker']} has moved most, by {row['shift']:.2f} of its range. "
        'Their labels may be wrong; see `.uns[key]["drift"]`.',
        UserWarning,
        stacklevel=3,
    )
