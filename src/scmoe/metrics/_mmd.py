"""Maximum mean discrepancy (MMD): the distance between two distributions of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import euclidean_distances

from scmoe._core.random import as_seed
from scmoe._core.settings import check_whole

from ._cells import as_cells, check_same_markers, draw, group_codes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_BANDWIDTH_CELLS = 1000
"""Cells at most whose pairs give the median bandwidth."""
_BLOCK = 250
"""Permutations that are computed at a time."""


class MMDResult(NamedTuple):
    """Result of :func:`mmd`."""

    mmd2: float
    """Unbiased estimate of the squared MMD; may be below 0 if the distributions are similar."""
    statistic: float
    """``n_x n_y / (n_x + n_y) * mmd2``, which grows with the numbers of cells."""
    p_value: float
    """P-value of the permutation test; NaN without permutations."""
    n_x: int
    """Cells of ``x`` that were compared."""
    n_y: int
    """Cells of ``y`` that were compared."""
    bandwidth: float
    """The :math:`w` of the kernel, a squared distance."""


def mmd(
    x: ArrayLike,
    y: ArrayLike,
    *,
    n_permutations: int = 1000,
    max_cells: int = 1000,
    bandwidth: float | None = None,
    random_state: int | np.random.Generator = 0,
) -> MMDResult:
    r"""Compute the maximum mean discrepancy of two sets of cells, with a permutation test.

    With the kernel :math:`k(a, b) = \exp(-\lVert a - b \rVert^2 / w)`,

    .. math::
        \mathrm{MMD}^2_u = \frac{\sum_{i \ne j} k(x_i, x_j)}{n_x (n_x - 1)}
        + \frac{\sum_{i \ne j} k(y_i, y_j)}{n_y (n_y - 1)}
        - \frac{2 \sum_{ij} k(x_i, y_j)}{n_x n_y}.

    The expected value is 0 for two samples of one distribution. The usual prefactors are used:
    with those of equation 14 of the paper the expected value would not be 0.

    Parameters
    ----------
    x, y
        Cells x markers, with the same markers in the same order and on the same scale.
    n_permutations
        Number of permutations for the p-value; 0 for none.
    max_cells
        Number of cells at most that are drawn from each side. Memory grows with its square: the
        kernel takes 32 MB with 1,000 cells and 3.2 GB with 10,000.
    bandwidth
        :math:`w`. By default the median squared distance between pairs of at most 1,000 of all
        cells. Values with different bandwidths cannot be compared.
    random_state
        Seed, or a generator.

    Returns
    -------
    The squared MMD, the scaled statistic, the p-value, the numbers of cells and the bandwidth.
    The p-value is :math:`(1 + \#\{\text{null} \ge \text{observed}\}) / (1 + B)`, at least
    :math:`1 / (1 + B)`.

    Raises
    ------
    ValueError
        If one side has fewer than 2 cells or NaN, the two have different numbers of markers, or
        the median distance is 0 and no bandwidth is given.

    References
    ----------
    Gretton et al., "A kernel two-sample test", Journal of Machine Learning Research 13,
    723-773 (2012). Kopf et al., PLoS Computational Biology 17(6), e1009086 (2021), equation 14.
    """
    x, y = as_cells(x, "x"), as_cells(y, "y")
    check_same_markers(x, y, ("x", "y"))
    check_whole("n_permutations", n_permutations, 0)
    check_whole("max_cells", max_cells, 2)
    for cells, name in ((x, "x"), (y, "y")):
        if len(cells) < 2:
            raise ValueError(f"{name} has {len(cells)} cell; the MMD needs 2 or more.")
    rng = np.random.default_rng(as_seed(random_state))
    x, y = draw(x, max_cells, rng), draw(y, max_cells, rng)
    n_x, n_y = len(x), len(y)
    cells = np.concatenate([x, y]).astype(np.float64)
    width = _bandwidth(cells, bandwidth, rng)
    kernel = _kernel(cells, cells, width)
    np.fill_diagonal(kernel, 0)

    of_x = np.zeros((n_x + n_y, 1))
    of_x[:n_x] = 1
    mmd2 = float(_permuted_mmd2(kernel, of_x, n_x)[0])
    p_value = np.nan
    if n_permutations:
        null = np.concatenate(
            [
                _permuted_mmd2(kernel, rng.permuted(np.repeat(of_x, n, axis=1), axis=0), n_x)
                for n in _blocks(n_permutations)
            ]
        )
        # an equal permutation must count as equal, whatever the rounding of its sums
        p_value = (1 + int((null >= mmd2 - 1e-12).sum())) / (1 + n_permutations)
    return MMDResult(mmd2, mmd2 * n_x * n_y / (n_x + n_y), float(p_value), n_x, n_y, width)


def mmd_table(
    x: ArrayLike,
    labels: Any,
    *,
    y: ArrayLike | None = None,
    y_labels: Any = None,
    statistic: Literal["mmd2", "scaled"] = "mmd2",
    max_cells: int = 1000,
    bandwidth: float | None = None,
    random_state: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Compute the MMD between groups of cells.

    With ``x`` alone every group is compared with every other group; on the diagonal, one random
    half of a group is compared with the other half, which should give about 0. With ``y`` (for
    example generated cells) the groups of ``x`` are compared with those of ``y``. The whole table
    has one bandwidth, so its entries can be compared.

    Parameters
    ----------
    x
        Cells x markers.
    labels
        Group of each cell of ``x``; cells without a group (NaN, None) are left out.
    y, y_labels
        Other cells with the same markers, and their groups.
    statistic
        ``"mmd2"``, or ``"scaled"`` for ``n_x n_y / (n_x + n_y) * mmd2``, the statistic of tests,
        which depends on the numbers of cells.
    max_cells
        Number of cells at most that are drawn from each group.
    bandwidth
        As in :func:`mmd`; by default the median over all groups.
    random_state
        Seed, or a generator.

    Returns
    -------
    Groups of ``x`` x groups of ``y``, or of ``x`` again, float64, in natural order. NaN if one
    side has fewer than 2 cells.
    ``.attrs`` has ``"bandwidth"`` and ``"statistic"``.

    Raises
    ------
    ValueError
        As :func:`mmd`, or if labels and cells do not match.
    """
    if statistic not in ("mmd2", "scaled"):
        raise ValueError(f"statistic must be 'mmd2' or 'scaled', got {statistic!r}.")
    if (y is None) != (y_labels is None):
        raise ValueError("y and y_labels belong together: give both or none.")
    check_whole("max_cells", max_cells, 2)
    rng = np.random.default_rng(as_seed(random_state))
    rows = _drawn_groups(as_cells(x, "x"), labels, "labels", max_cells, rng)
    columns = rows
    if y is not None:
        columns = _drawn_groups(as_cells(y, "y"), y_labels, "y_labels", max_cells, rng)
        check_same_markers(next(iter(rows.values())), next(iter(columns.values())), ("x", "y"))
    pooled = list(rows.values()) + (list(columns.values()) if y is not None else [])
    width = _bandwidth(np.concatenate(pooled), bandwidth, rng)

    table = pd.DataFrame(
        np.nan,
        index=pd.Index(list(rows), name="group"),
        columns=pd.Index(list(columns), name="group"),
    )
    within = {name: _mean_within(cells, width) for name, cells in rows.items()}
    within_y = within
    if y is not None:
        within_y = {name: _mean_within(cells, width) for name, cells in columns.items()}
    for i, (row, a) in enumerate(rows.items()):
        for j, (column, b) in enumerate(columns.items()):
            if y is None and j < i:
                table.iloc[i, j] = table.iloc[j, i]
                continue
            if y is None and i == j:
                a1, a2 = a[: len(a) // 2], a[len(a) // 2 :]
                first, second = _mean_within(a1, width), _mean_within(a2, width)
            else:
                a1, a2 = a, b
                first, second = within[row], within_y[column]
            if min(len(a1), len(a2)) < 2:
                continue
            value = first + second - 2 * _kernel(a1, a2, width).mean()
            if statistic == "scaled":
                value *= len(a1) * len(a2) / (len(a1) + len(a2))
            table.iloc[i, j] = value
    table.attrs |= {"bandwidth": width, "statistic": statistic}
    return table


def median_squared_distance(cells: NDArray[np.floating], rng: np.random.Generator) -> float:
    """Return the median squared distance between pairs of at most 1,000 cells."""
    some = draw(cells, _BANDWIDTH_CELLS, rng).astype(np.float64)
    squared = euclidean_distances(some, squared=True)
    return float(np.median(squared[np.triu_indices(len(some), k=1)]))


def _bandwidth(
    cells: NDArray[np.floating], wanted: float | None, rng: np.random.Generator
) -> float:
    if wanted is None:
        width = median_squared_distance(cells, rng)
        if width <= 0:
            raise ValueError(
                "More than half of all pairs of cells are equal, so the median distance is 0: "
                "give a bandwidth."
            )
        return width
    if not (np.isfinite(wanted) and wanted > 0):
        raise ValueError(f"bandwidth must be a positive number, got {wanted!r}.")
    return float(wanted)


def _kernel(x: NDArray[np.floating], y: NDArray[np.floating], width: float) -> NDArray[np.float64]:
    squared = euclidean_distances(x, y, squared=True)
    squared /= -width
    return np.exp(squared, out=squared)


def _mean_within(x: NDArray[np.floating], width: float) -> float:
    """Return the mean of the kernel over pairs of different cells."""
    n = len(x)
    if n < 2:
        return np.nan
    # the kernel of a cell with itself is 1
    return float((_kernel(x, x, width).sum() - n) / (n * (n - 1)))


def _permuted_mmd2(
    kernel: NDArray[np.float64], of_x: NDArray[np.float64], n_x: int
) -> NDArray[np.float64]:
    """Compute the squared MMD of each permutation, a column of ones (x) and zeros (y)."""
    n_y = len(kernel) - n_x
    sums = kernel @ of_x
    xx = np.einsum("ij,ij->j", of_x, sums)
    from_x = sums.sum(axis=0)
    xy = from_x - xx
    yy = kernel.sum() - from_x - xy
    return xx / (n_x * (n_x - 1)) + yy / (n_y * (n_y - 1)) - 2 * xy / (n_x * n_y)


def _blocks(n: int) -> list[int]:
    return [min(_BLOCK, n - start) for start in range(0, n, _BLOCK)]


def _drawn_groups(
    x: NDArray[np.floating], labels: Any, name: str, max_cells: int, rng: np.random.Generator
) -> dict[Any, NDArray[np.float64]]:
    """Draw the cells of each group in random order, because halves of a group are compared."""
    codes, found = group_codes(labels, len(x), name)
    return {
        label: x[rng.permutation(np.flatnonzero(codes == code))[:max_cells]].astype(np.float64)
        for code, label in enumerate(found)
    }
