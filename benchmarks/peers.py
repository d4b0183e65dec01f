"""Other clusterings, each with the settings that its users start from.

Every function takes cells x markers (arcsinh values, float32) and a seed, and returns one label
for each cell.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings

import anndata as ad
import numpy as np
import scanpy as sc


def flowsom(x: np.ndarray, seed: int, n_clusters: int = 15) -> np.ndarray:
    """FlowSOM with its default 10 x 10 grid and a given number of metaclusters."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import flowsom as fs

        cells = ad.AnnData(x.astype(np.float64))
        cells.var_names = [f"m{i}" for i in range(x.shape[1])]
        result = fs.FlowSOM(
            cells, cols_to_use=list(cells.var_names), n_clusters=n_clusters, seed=seed
        )
        return result.get_cell_data().obs["metaclustering"].to_numpy().astype(str)


def phenograph(x: np.ndarray, seed: int) -> np.ndarray:
    """PhenoGraph with 30 neighbours, its default."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),  # it leaves files behind where it runs
    ):
        warnings.simplefilter("ignore")
        import phenograph as pg

        labels, _, _ = pg.cluster(x, k=30, seed=seed, n_jobs=1)
    return labels.astype(str)


def leiden(x: np.ndarray, seed: int, resolution: float = 1.0) -> np.ndarray:
    """Leiden on scanpy's default graph."""
    cells = ad.AnnData(x)
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    sc.tl.leiden(cells, resolution=resolution, random_state=seed, flavor="igraph", n_iterations=2)
    return cells.obs["leiden"].to_numpy().astype(str)
