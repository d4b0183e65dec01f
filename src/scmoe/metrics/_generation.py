"""Quality report of generated cells: likeness to real cells, and novelty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import wasserstein_distance
from sklearn.neighbors import NearestNeighbors

from scmoe._core.random import as_seed
from scmoe._core.settings import check_whole
from scmoe._core.text import listing

from ._cells import (
    RealAndGenerated,
    as_cells,
    check_same_markers,
    draw,
    one_or_pair,
    values,
)
from ._mmd import median_squared_distance, mmd
from ._two_sample import LEAST_CELLS, classifier_two_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_ALL = "all"
_COPY_QUANTILE = 0.01
"""Generated cells nearer to a training cell than this quantile of real cells are copies."""


def generation_report(
    real: AnnData | ArrayLike,
    generated: AnnData | ArrayLike,
    *,
    groupby: str | tuple[str, str] | None = None,
    layer: str | tuple[str | None, str | None] | None = None,
    markers: Sequence[str] | None = None,
    reference: AnnData | ArrayLike | None = None,
    n_permutations: int = 1000,
    max_cells: int = 2000,
    random_state: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Measure how similar generated cells are to real cells, and whether they are new.

    No single number is enough: a generator that copies its training cells passes every test of
    similarity, and one that draws each marker independently has perfect marginals. The best
    values that can be reached are those of the same report with other *real* cells in place of
    generated cells.

    Parameters
    ----------
    real, generated
        Cells, both AnnData or both arrays (cells x markers), on the same scale. The markers of
        AnnData are matched by name, in any order.
    groupby
        Column of ``.obs`` with the groups to compare one by one, or a pair of columns (of
        ``real``, of ``generated``). Groups are matched by name; cells without a group are only
        in the row ``"all"``.
    layer
        The layer to read, or a pair of layers; by default ``.X``.
    markers
        The markers to compare. By default those of ``generated``.
    reference
        The training cells of the generator, in the form of ``real``, if they are not ``real``
        itself. The distances from generated to training cells are then compared with those from
        held-out ``real`` cells. Groups are not needed: the nearest cell may be in any group.
    n_permutations
        As in :func:`mmd`.
    max_cells
        Number of cells of each side at most that are drawn for the MMD, for the classifier and
        as queries of the nearest-neighbour search. The search, the marginals and the
        correlations use all cells.
    random_state
        Seed, or a generator.

    Returns
    -------
    Table with a row for each group, in natural order, and the row ``"all"`` at the end. A group
    with fewer than 10 real or generated cells has the numbers of cells and otherwise NaN.

    ``n_real``, ``n_generated`` : int64
        Number of cells, before any are drawn.
    ``mmd2``, ``mmd_statistic``, ``mmd_p`` : float64
        See :func:`mmd`. The bandwidth is the median of the real cells of the group alone, so
        that reports of several generators can be compared. 0 is best.
    ``c2st_accuracy``, ``c2st_auc``, ``c2st_auc_se`` : float64
        See :func:`classifier_two_sample`. 0.5 is best.
    ``marginal_mean``, ``marginal_max``, ``marginal_worst`` : float64, float64, object
        Wasserstein distance of each marker, divided by its standard deviation in all real cells:
        the mean, the largest, and the marker with the largest. Markers that are constant in all
        real cells are left out. 0 is best.
    ``correlation`` : float64
        Root mean square difference of the correlations of all pairs of markers. 0 is best.
    ``nearest_training`` : float64
        Median Euclidean distance from generated cells to the nearest training cell, divided by
        that from real cells to the nearest *other* training cell. About 1 is best; far below 1
        means copies, far above 1 cells unlike any training cell. NaN if most real cells have a
        duplicate.
    ``copies`` : float64
        Share of generated cells that are as near to a training cell as the nearest 1 % of real
        cells. Real cells have about 0.01.

    Raises
    ------
    KeyError
        If a marker, a layer or a column is missing.
    ValueError
        If one side is empty or holds NaN, if no marker is shared, if the names of cells or
        markers are not unique, or if a group is called ``"all"``.
    """
    check_whole("max_cells", max_cells, LEAST_CELLS)
    check_whole("n_permutations", n_permutations, 0)
    cells = RealAndGenerated.of(real, generated, groupby, layer, markers)
    if _ALL in cells.groups:
        raise ValueError(f"A group is called {_ALL!r}, which is the name of a row: rename it.")
    training = None if reference is None else _reference(reference, real, cells, layer)
    nearest = _Nearest(cells, training, max_cells)
    seed = as_seed(random_state)
    spread = cells.real.std(axis=0, dtype=np.float64)
    rows = {}
    for name in [*cells.groups, _ALL]:
        if name == _ALL:
            of_real, of_generated = np.arange(len(cells.real)), np.arange(len(cells.generated))
        else:
            of_real = np.flatnonzero(cells.real_groups == name)
            of_generated = np.flatnonzero(cells.generated_groups == name)
        row: dict[str, Any] = {"n_real": len(of_real), "n_generated": len(of_generated)}
        if min(len(of_real), len(of_generated)) >= LEAST_CELLS:
            x, y = cells.real[of_real], cells.generated[of_generated]
            row |= _discrepancy(x, y, n_permutations, max_cells, seed)
            row |= _classified(x, y, max_cells, seed)
            row |= _marginals(x, y, spread, cells.markers)
            row["correlation"] = correlation_distance(x, y)
            row |= nearest.of(of_real, of_generated, np.random.default_rng(seed))
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(_COLUMNS))
    return table.astype(_COLUMNS).rename_axis("group")


_COLUMNS = {
    "n_real": np.int64,
    "n_generated": np.int64,
    "mmd2": np.float64,
    "mmd_statistic": np.float64,
    "mmd_p": np.float64,
    "c2st_accuracy": np.float64,
    "c2st_auc": np.float64,
    "c2st_auc_se": np.float64,
    "marginal_mean": np.float64,
    "marginal_max": np.float64,
    "marginal_worst": object,
    "correlation": np.float64,
    "nearest_training": np.float64,
    "copies": np.float64,
}


def _reference(
    reference: Any, real: Any, cells: RealAndGenerated, layer: Any
) -> NDArray[np.floating]:
    if isinstance(reference, AnnData) != isinstance(real, AnnData):
        raise ValueError(
            "reference and real must both be AnnData, or both arrays, got "
            f"{type(reference).__name__} and {type(real).__name__}."
        )
    if not isinstance(reference, AnnData):
        x = as_cells(reference, "reference")
        check_same_markers(cells.real, x, ("real", "reference"))
        return x
    missing = [name for name in cells.markers if name not in reference.var_names]
    if missing:
        raise KeyError(f"reference lacks the marker {listing(missing)}.")
    return values(reference, cells.markers, one_or_pair(layer, "layer")[0], "reference")


def _discrepancy(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    n_permutations: int,
    max_cells: int,
    seed: int,
) -> dict[str, float]:
    width = median_squared_distance(x, np.random.default_rng(seed))
    if width <= 0:
        return {}
    result = mmd(
        x,
        y,
        n_permutations=n_permutations,
        max_cells=max_cells,
        bandwidth=width,
        random_state=seed,
    )
    return {
        "mmd2": result.mmd2,
        "mmd_statistic": result.statistic,
        "mmd_p": result.p_value,
    }


def _classified(
    x: NDArray[np.floating], y: NDArray[np.floating], max_cells: int, seed: int
) -> dict[str, float]:
    result = classifier_two_sample(x, y, max_cells=max_cells, random_state=seed)
    return {
        "c2st_accuracy": result.accuracy,
        "c2st_auc": result.auc,
        "c2st_auc_se": result.auc_se,
    }


def _marginals(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    spread: NDArray[np.float64],
    markers: list[str],
) -> dict[str, Any]:
    varying = np.flatnonzero(spread > 0)
    if not len(varying):
        return {}
    distance = np.array([wasserstein_distance(x[:, i], y[:, i]) for i in varying])
    distance /= spread[varying]
    worst = int(distance.argmax())
    return {
        "marginal_mean": float(distance.mean()),
        "marginal_max": float(distance[worst]),
        "marginal_worst": markers[varying[worst]],
    }


class _Nearest:
    """Columns of the report about the nearest training cell."""

    def __init__(
        self, cells: RealAndGenerated, training: NDArray[np.floating] | None, max_cells: int
    ) -> None:
        self.cells = cells
        self.held_out = training is not None
        self.training = NearestCell(cells.real if training is None else training)
        self.max_cells = max_cells

    def of(
        self,
        of_real: NDArray[np.intp],
        of_generated: NDArray[np.intp],
        rng: np.random.Generator,
    ) -> dict[str, float]:
        some = draw(of_real, self.max_cells, rng)
        own = None if self.held_out else some
        real = self.training.distance(self.cells.real[some], own)
        some = draw(of_generated, self.max_cells, rng)
        generated = self.training.distance(self.cells.generated[some])
        ratio, copies = nearness(generated, real)
        return {"nearest_training": ratio, "copies": copies}


def correlation_distance(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Compute the root mean square difference of the correlations of all pairs of markers, 0 to 2.

    A marker that is constant on one side has a correlation of 0 there; markers that are constant
    on both sides are left out. NaN if fewer than two markers are left.
    """
    varying = (np.ptp(x, axis=0) > 0) | (np.ptp(y, axis=0) > 0)
    if varying.sum() < 2:
        return np.nan
    difference = _correlations(x[:, varying]) - _correlations(y[:, varying])
    return float(np.sqrt(np.mean(difference[np.triu_indices(len(difference), k=1)] ** 2)))


def _correlations(x: NDArray[np.floating]) -> NDArray[np.float64]:
    centred = x - x.mean(axis=0, dtype=np.float64)
    centred[:, np.ptp(x, axis=0) == 0] = 0
    length = np.linalg.norm(centred, axis=0)
    centred /= np.where(length > 0, length, 1)
    return centred.T @ centred


class NearestCell:
    """Search for the nearest cell.

    Parameters
    ----------
    cells
        The cells to search, shape ``(n, n_markers)``.
    """

    def __init__(self, cells: NDArray[np.floating]) -> None:
        self.cells = cells
        self.index = NearestNeighbors().fit(cells)

    def distance(
        self, x: NDArray[np.floating], own: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """Return the distance of each row of ``x`` to the nearest cell.

        ``own`` is the position of each row of ``x`` among the cells, which is not its neighbour.
        """
        n_neighbors = 1 if own is None else 2
        found = self.index.kneighbors(x, n_neighbors=n_neighbors, return_distance=False)
        nearest = found[:, 0]
        if own is not None:
            # a cell may be listed second, after a duplicate
            nearest = np.where(found[:, 0] == own, found[:, 1], found[:, 0])
        # computed again: the search by matrix products gives copies a distance slightly above 0
        return np.linalg.norm(x.astype(np.float64) - self.cells[nearest], axis=1)


def nearness(generated: NDArray[np.float64], real: NDArray[np.float64]) -> tuple[float, float]:
    """Compare the nearest-cell distances of generated cells with those of real cells.

    Returns
    -------
    The ratio of the medians (NaN if that of real cells is 0), and the share of generated cells
    that are as near as the nearest 1 % of real cells.
    """
    median = np.median(real)
    ratio = float(np.median(generated) / median) if median > 0 else np.nan
    return ratio, float(np.mean(generated <= np.quantile(real, _COPY_QUANTILE)))
