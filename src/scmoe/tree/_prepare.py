"""Prepare the cells of a tree: align batches, spread discrete values, find copies."""

from __future__ import annotations

import numpy as np

CONTINUOUS_SHARE = 0.98
"""A marker with a larger share of distinct values is continuous."""

REPEATED = 12
"""Number of cells from which a repeated value counts as a peak of its own."""

END_SHARE = 0.01
"""Share of cells above which the lowest or highest value is treated as zeros are."""

MAX_SPLITTING_MARKERS = 3
"""Largest number of markers whose levels or zeros may split the cells."""

MIN_NEXT_LEVEL = 7.0
"""Number of cells expected at the next level of counts, from which levels are categories."""

MAX_COUNT = 10
"""Largest number of counts that the smallest value of a cell may stand for."""

ROUNDING = 0.01
"""Largest deviation of a ratio from a whole number."""

MAX_RATIO = 100.0
"""Larger ratios are not tested: their rounding errors would be larger than allowed."""

MAX_LOG = 50.0
"""Largest value that may be on a log scale."""

UNIT_SAMPLE = 2_000
"""Number of cells that are tested for counts divided by a factor."""

MODE_BINS = 256
"""Number of bins of a marker."""


def align(x: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Give every batch the mean and standard deviation of all cells, marker by marker.

    This is correct if all batches have the same populations in the same proportions.

    Parameters
    ----------
    x
        Cells, ``(n, d)``.
    batch
        Batch of each cell, ``(n,)``.

    Returns
    -------
    Aligned cells, ``(n, d)``.
    """
    aligned = np.empty_like(x)
    mean, spread = x.mean(0), x.std(0)
    for name in np.unique(batch):
        own = batch == name
        # a marker that is constant in a batch stays constant
        scale = np.where((own_spread := x[own].std(0)) > 0, own_spread, 1)
        aligned[own] = (x[own] - x[own].mean(0)) / scale * spread + mean
    return aligned


def align_groups(
    x: np.ndarray, batch: np.ndarray, group: np.ndarray, min_cells: int
) -> np.ndarray:
    """Shift every batch by the differences between its groups and those of the other batches.

    The shift of a batch is a median over groups, marker by marker, weighted by the root of their
    cells: the median of the difference between the mean of a group in the batch and the mean of
    these means over all batches. Unlike in :func:`align`, the proportions of the groups do not
    matter.

    Parameters
    ----------
    x
        Cells, ``(n, d)``.
    batch, group
        Batch and group of each cell, ``(n,)`` integers from 0.
    min_cells
        Smallest number of cells of a group in a batch.

    Returns
    -------
    Aligned cells, ``(n, d)``.
    """
    n_batches, n_groups = int(batch.max()) + 1, int(group.max()) + 1
    both = batch * n_groups + group
    count = np.bincount(both, minlength=n_batches * n_groups).reshape(n_batches, n_groups)
    sums = np.stack([np.bincount(both, column, count.size) for column in x.T], axis=1)
    mean = sums.reshape(n_batches, n_groups, -1) / np.maximum(count, 1)[..., None]
    known = count >= min_cells
    known &= known.sum(0) > 1
    middle = (mean * known[..., None]).sum(0) / np.maximum(known.sum(0), 1)[:, None]
    moved = x.copy()
    for number in range(n_batches):
        weight = np.sqrt(count[number]) * known[number]
        if not weight.any():
            continue
        difference = mean[number] - middle
        order = np.argsort(difference, axis=0, kind="stable")
        share = np.cumsum(weight[order], axis=0) / weight.sum()
        at = order[(share >= 0.5).argmax(0), np.arange(x.shape[1])]
        shift = difference[at, np.arange(x.shape[1])]
        moved[batch == number] -= shift.astype(x.dtype)
    return moved


def spread_discrete(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spread repeated values of cells ``(n, d)`` at random, so that gaps between them close.

    The cells are in random order; continuous markers stay unchanged. Counts divided by a factor
    of the cell (before or after log1p) move by up to half a count. In other markers, a repeated
    value moves up to half-way to its neighbouring values, and at most twice as far on one side as
    on the other. Zeros with a valley between them and the other values are spread up to the first
    mode of these, and two or three levels like other repeated values, unless only a few markers
    are of this kind: these may split the cells.
    """
    counts = spread_counts(x, rng)
    if counts is not None:
        return counts
    x, closed = x.copy(), {}
    for j, column in enumerate(x.T):
        value, at, count = np.unique(column, return_inverse=True, return_counts=True)
        if len(value) < 2 or (
            len(value) > CONTINUOUS_SHARE * len(column) and count.max() < REPEATED
        ):
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
            if len(value) > 3 and count[end] > max(REPEATED, END_SHARE * len(column)):
                atom = at == end
                offset = sign * (spread - value[end])
                reach = first_mode(offset[atom], offset[~atom])
                if reach > 0:
                    spread = closed.get(j, spread).copy()
                    spread[atom] = value[end] + reach * (2 * noise[atom] - 1)
                    closed[j] = spread
    if len(closed) > min(MAX_SPLITTING_MARKERS, (x.shape[1] + 1) // 2):
        for j, spread in closed.items():
            x[:, j] = spread
    return x


def are_categories(count: np.ndarray) -> bool:
    """Return whether two or three levels with these numbers of cells are categories, not counts.

    Counts with so few levels are rare events, and the numbers of cells fall off as in a Poisson
    distribution: :math:`c_k = c_{k-1}^2 (k-1) / (c_{k-2} k)` cells are expected at the next level.
    """
    if not 2 <= len(count) <= 3 or count[:-1].min() < REPEATED:
        return False
    levels = len(count)
    return float(count[-1]) ** 2 * (levels - 1) / (float(count[-2]) * levels) >= MIN_NEXT_LEVEL


def first_mode(atom: np.ndarray, rest: np.ndarray) -> float:
    """Find the first mode of the positive values; 0 if no valley separates it from zero.

    Parameters
    ----------
    atom
        Spread values of the cells with the repeated value, around 0.
    rest
        Values of all other cells, mostly above 0.
    """
    quartiles = np.quantile(rest, [0.25, 0.75, 0.99])
    low = atom.min()
    step = (quartiles[2] - low) / (MODE_BINS - 1) + 1e-12
    width = 0.4 * (quartiles[1] - quartiles[0]) / 1.34 * (len(rest) / 1000) ** -0.2
    width = max(width, step)
    kernel = np.exp(-0.5 * (np.arange(-MODE_BINS + 1, MODE_BINS) * step / width) ** 2)
    kernel *= 2 * np.sqrt(np.pi) * width / step / kernel.sum()

    def smooth(values: np.ndarray) -> np.ndarray:
        bins = np.clip((values - low) / step, 0, MODE_BINS).astype(int)
        counts = np.bincount(bins, minlength=MODE_BINS + 1)[:MODE_BINS]
        return np.convolve(counts, kernel)[MODE_BINS - 1 : 2 * MODE_BINS - 1].clip(0)

    def fall(peak: np.ndarray | float, count: np.ndarray | float) -> np.ndarray | float:
        return np.sqrt(2) * (np.sqrt(peak) - np.sqrt(count))

    others = smooth(rest)
    falls = fall(np.maximum.accumulate(others), others) > 3
    mode = others[: falls.argmax() + 1 if falls.any() else MODE_BINS].argmax()
    both = others + smooth(atom)
    valley = both[: mode + 1].argmin()
    peak = min(both[: valley + 1].max(), both[mode])
    clear = both[valley] <= peak / 2 and fall(peak, both[valley]) > 2
    return float(low + step * mode) if clear else 0.0


def spread_counts(x: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Spread counts that were divided by a factor of the cell, by up to half a count.

    ``sc.pp.normalize_total``, with or without ``sc.pp.log1p``, makes such values. None for other
    values, and for steps that are the same in all cells, which are spread marker by marker.
    """
    if x.shape[1] < 2 or x.min() < 0:
        return None
    for is_log in (False, True):
        if is_log and x.max() > MAX_LOG:
            continue
        some = x[:UNIT_SAMPLE].astype(float)
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
        # on a log scale, values around zero would form two groups, above and below zero
        return (np.log1p(np.abs(values)) if is_log else values).astype(np.float32)
    return None


def unit_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the value of one count in each cell.

    Returns
    -------
    unit
        The largest fraction of the smallest positive value of a cell (the whole, a half, ... a
        tenth) that all values of the cell are multiples of, ``(n,)``; NaN if there is none.
    told
        Whether the cell has a second value, without which this cannot be tested, ``(n,)`` bool.
    """
    least = np.where(values > 0, values, np.inf).min(1)
    known = np.isfinite(least)[:, None]
    ratio = np.divide(values, least[:, None], where=known, out=np.zeros_like(values))
    told = ((ratio > 1.001) & (ratio < MAX_RATIO)).any(1)
    unit = np.full(len(values), np.nan)
    for parts in range(1, MAX_COUNT + 1):
        open_ = told & np.isnan(unit)
        multiple = parts * ratio[open_]
        whole = (np.abs(multiple - np.round(multiple)) < ROUNDING) | (ratio[open_] >= MAX_RATIO)
        unit[np.flatnonzero(open_)[whole.all(1)]] = least[open_][whole.all(1)] / parts
    return unit, told


def without_copies(x: np.ndarray) -> np.ndarray:
    """Return the sorted positions of cells ``(n, d)`` without those that are copies of others.

    Copies make every random dip significant. Cells with few counts can be equal without being
    copies, so copies are removed only if a single marker separates nearly all distinct cells.
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
