"""Spread discrete values, so that the steps between them are no valleys."""

from __future__ import annotations

import numpy as np

DISTINCT = 0.98
"""Share of distinct values from which a marker is continuous."""

MANY = 12
"""Cells with one value from which that value is looked at as a peak of its own."""

ATOM = 0.01
"""Share of the cells that the lowest or the highest value must have to be one as zeros are."""

FEW = 3
"""Markers that may stay as they are, to split the cells by their levels or zeros."""

CATEGORIES = 7.0
"""Cells that counts would have at the level behind the last, from which levels are categories."""

N_PARTS = 10
"""Counts that the least value of a cell may stand for."""

WHOLE = 0.01
"""How far a ratio may be from a whole number, and still be one."""

MOST_RATIO = 100.0
"""Ratios beyond this are not looked at: their rounding would be larger."""

MOST_LOG = 50.0
"""Largest value of which an exponential is taken."""

SAMPLE = 2_000
"""Cells by which it is told whether values are counts over a factor."""

N_BINS = 256
"""Bins of a marker."""


def spread_discrete(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spread what is repeated in cells ``(n, d)`` in random order; continuous markers stay.

    Counts over a factor of the cell (as they are or as log1p) move by up to half a count. Of
    other markers a repeated value moves up to half-way to the values beside it, and at most
    twice as far as to the nearer one. Zeros with a valley between them and the other values are
    spread as far as the first mode of those, and two or three levels like the others, unless
    this is so in few markers: these may split the cells by themselves.
    """
    counts = spread_counts(x, rng)
    if counts is not None:
        return counts
    x, closed = x.copy(), {}
    for j, column in enumerate(x.T):
        value, at, count = np.unique(column, return_inverse=True, return_counts=True)
        if len(value) < 2 or (len(value) > DISTINCT * len(column) and count.max() < MANY):
            continue
        gap = np.diff(value)
        below, above = np.concatenate([gap[:1], gap]), np.concatenate([gap, gap[-1:]])
        most = np.where(count > 1, 2 * np.minimum(below, above), 0)
        below, above = np.minimum(below, most)[at] / 2, np.minimum(above, most)[at] / 2
        noise = rng.random(len(at), dtype=np.float32)
        spread = column - below + noise * (below + above)
        if are_categories(count):
            closed[j] = spread
            continue
        x[:, j] = spread
        for end, sign in ((0, 1), (len(value) - 1, -1)):
            if len(value) > 3 and count[end] > max(MANY, ATOM * len(column)):
                atom = at == end
                offset = sign * (spread - value[end])
                reach = first_mode(offset[atom], offset[~atom])
                if reach > 0:
                    spread = closed.get(j, spread).copy()
                    spread[atom] = value[end] + reach * (2 * noise[atom] - 1)
                    closed[j] = spread
    if len(closed) > min(FEW, (x.shape[1] + 1) // 2):
        for j, spread in closed.items():
            x[:, j] = spread
    return x


def are_categories(count: np.ndarray) -> bool:
    """Whether two or three levels, with these numbers of cells, are no counts.

    Counts with so few levels are rare ones, whose levels fall off as those of a Poisson
    distribution: :math:`c_k = c_{k-1}^2 (k-1) / (c_{k-2} k)` cells would be at the level behind.
    """
    if not 2 <= len(count) <= 3 or count[:-1].min() < MANY:
        return False
    levels = len(count)
    return float(count[-1]) ** 2 * (levels - 1) / (float(count[-2]) * levels) >= CATEGORIES


def first_mode(atom: np.ndarray, rest: np.ndarray) -> float:
    """First mode of the positive values, if there is a valley between it and zero; else 0.

    Parameters
    ----------
    atom
        Where the cells with the repeated value are, around 0.
    rest
        All others, mostly above 0.
    """
    quartiles = np.quantile(rest, [0.25, 0.75, 0.99])
    low = atom.min()
    step = (quartiles[2] - low) / (N_BINS - 1) + 1e-12
    width = 0.4 * (quartiles[1] - quartiles[0]) / 1.34 * (len(rest) / 1000) ** -0.2
    width = max(width, step)
    kernel = np.exp(-0.5 * (np.arange(-N_BINS + 1, N_BINS) * step / width) ** 2)
    kernel *= 2 * np.sqrt(np.pi) * width / step / kernel.sum()

    def smooth(values: np.ndarray) -> np.ndarray:
        bins = np.clip((values - low) / step, 0, N_BINS).astype(int)
        counts = np.bincount(bins, minlength=N_BINS + 1)[:N_BINS]
        return np.convolve(counts, kernel)[N_BINS - 1 : 2 * N_BINS - 1].clip(0)

    def fall(peak: np.ndarray | float, count: np.ndarray | float) -> np.ndarray | float:
        return np.sqrt(2) * (np.sqrt(peak) - np.sqrt(count))

    others = smooth(rest)
    falls = fall(np.maximum.accumulate(others), others) > 3
    mode = others[: falls.argmax() + 1 if falls.any() else N_BINS].argmax()
    both = others + smooth(atom)
    valley = both[: mode + 1].argmin()
    peak = min(both[: valley + 1].max(), both[mode])
    clear = both[valley] <= peak / 2 and fall(peak, both[valley]) > 2
    return float(low + step * mode) if clear else 0.0


def spread_counts(x: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Spread counts over a factor of the cell by half a count; None if the values are none.

    That is how genes are after ``sc.pp.normalize_total``, with or without ``sc.pp.log1p``.
    Steps that are the same in all cells are left to each marker.
    """
    if x.shape[1] < 2 or x.min() < 0:
        return None
    for is_log in (False, True):
        if is_log and x.max() > MOST_LOG:
            continue
        some = x[:SAMPLE].astype(float)
        unit, told = unit_of(np.expm1(some) if is_log else some)
        known = unit[~np.isnan(unit)]
        if told.sum() < 50 or len(known) < 0.8 * told.sum():
            continue
        low, high = np.quantile(known, [0.25, 0.75])
        if high < 1.01 * low:
            continue
        values = np.expm1(x.astype(float)) if is_log else x.astype(float)
        unit, _ = unit_of(values)
        unit = np.where(np.isnan(unit), np.nanmedian(unit), unit)[:, None]
        values += unit * (rng.random(x.shape) - 0.5)
        values = np.sign(values) * np.log1p(np.abs(values)) if is_log else values
        return values.astype(np.float32)
    return None


def unit_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one count is worth in each cell.

    Returns
    -------
    The largest part of the least positive value of a cell (the whole, a half, ... a tenth) that
    all of its values are multiples of, ``(n,)``, NaN if none is; and whether there is a second
    value by which that can be told.
    """
    least = np.where(values > 0, values, np.inf).min(1)
    known = np.isfinite(least)[:, None]
    ratio = np.divide(values, least[:, None], where=known, out=np.zeros_like(values))
    told = ((ratio > 1.001) & (ratio < MOST_RATIO)).any(1)
    unit = np.full(len(values), np.nan)
    for parts in range(1, N_PARTS + 1):
        open_ = told & np.isnan(unit)
        multiple = parts * ratio[open_]
        whole = (np.abs(multiple - np.round(multiple)) < WHOLE) | (ratio[open_] >= MOST_RATIO)
        unit[np.flatnonzero(open_)[whole.all(1)]] = least[open_][whole.all(1)] / parts
    return unit, told


def without_copies(x: np.ndarray) -> np.ndarray:
    """Positions of cells ``(n, d)`` that are no copies of others, sorted.

    Copies make every chance dip significant. Cells of few counts are alike honestly: copies are
    told by a marker that tells (nearly) all distinct cells apart by itself.
    """
    everything = np.arange(len(x))
    if x.shape[1] < 2 or not len(x):
        return everything
    rows = np.ascontiguousarray(x).view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    first = np.unique(rows, return_index=True)[1]
    if len(first) > 0.99 * len(x):
        return everything
    best = max(len(np.unique(column)) for column in x.T)
    return np.sort(first) if best >= 0.9 * len(first) else everything
