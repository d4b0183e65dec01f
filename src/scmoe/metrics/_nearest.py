"""Are generated cells new, or copies of cells that the generator was trained on?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COPY_QUANTILE = 0.01
"""A generated cell nearer than this share of real cells is called a copy."""


class Neighbours:
    """Distances to the nearest of some cells.

    Parameters
    ----------
    cells
        The cells to be searched, shape ``(n, n_markers)``.
    """

    def __init__(self, cells: NDArray[np.floating]) -> None:
        self.cells = cells
        self.index = NearestNeighbors().fit(cells)

    def distance(
        self, x: NDArray[np.floating], own: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """Distance of each row of ``x`` to the nearest cell.

        ``own`` names the row of each ``x`` among the cells, which is not its own neighbour.
        """
        n_neighbors = 1 if own is None else 2
        found = self.index.kneighbors(x, n_neighbors=n_neighbors, return_distance=False)
        nearest = found[:, 0]
        if own is not None:
            # a cell with a twin may be listed second, after the twin
            nearest = np.where(found[:, 0] == own, found[:, 1], found[:, 0])
        # by hand: a search by products of matrices gives copies a distance a little above 0
        return np.linalg.norm(x.astype(np.float64) - self.cells[nearest], axis=1)


def nearness(generated: NDArray[np.float64], real: NDArray[np.float64]) -> tuple[float, float]:
    """Compare distances of generated cells with those of real cells.

    Returns
    -------
    The ratio of the medians (NaN if that of the real cells is 0), and the share of generated
    cells that are as near as the nearest 1 % of the real ones.
    """
    median = np.median(real)
    ratio = float(np.median(generated) / median) if median > 0 else np.nan
    return ratio, float(np.mean(generated <= np.quantile(real, _COPY_QUANTILE)))
