"""Published single-cell RNA sequencing with labels."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from scmoe._core.keys import Key

from ._published import _categorical
from ._registry import fetch


def pbmc_10x() -> ad.AnnData:
    """Human blood cells (10x Genomics), counts of 2,000 variable genes, 8 populations.

    Returns
    -------
    4,271 cells x 2,000 genes, with

    ``.X``
        Counts, CSR, float32.
    ``.obs["population"]``
        Categorical, ``"1"`` to ``"8"``: the file has numbers only.
    ``.var_names``
        ``"gene_0"``, ``"gene_1"``, ...: the file does not name the genes.

    Raises
    ------
    ValueError
        If the file in ``SCMOE_DATA_DIR`` is not the published one.
    FileNotFoundError
        If the file is not in ``SCMOE_DATA_DIR``; it is not downloaded.

    Notes
    -----
    From https://github.com/ttgump/scDCC (Apache-2.0), there ``10X_PBMC_top2000.h5``.
    """
    return _counts("pbmc_10x")


def human_kidney() -> ad.AnnData:
    """Human kidney, counts of 2,000 variable genes, 11 populations.

    Returns
    -------
    5,685 cells x 2,000 genes, with

    ``.X``
        Counts, CSR, float32.
    ``.obs["population"]``
        Categorical, ``"0"`` to ``"10"``: the file has numbers only.
    ``.var_names``
        ``"gene_0"``, ``"gene_1"``, ...: the file does not name the genes.

    Raises
    ------
    ValueError
        If the file in ``SCMOE_DATA_DIR`` is not the published one.
    FileNotFoundError
        If the file is not in ``SCMOE_DATA_DIR``; it is not downloaded.

    Notes
    -----
    From https://github.com/ttgump/scDCC (Apache-2.0), there
    ``human_kidney_counts_top2000.h5``.
    """
    return _counts("human_kidney")


def tabula_muris_kidney() -> ad.AnnData:
    """Mouse kidney (Tabula Muris, Smart-seq2), log-normalised, 3 cell types.

    Returns
    -------
    215 cells x 23,341 genes, with

    ``.X``
        CSR, float32: log2(x + 1) of values that sum to 825,688 in each cell. Not counts.
    ``.obs["population"]``, ``.obs["cell_type"]``
        Categorical, the cell type, twice.

    Raises
    ------
    ValueError
        If the file in ``SCMOE_DATA_DIR`` is not the published one.
    FileNotFoundError
        If the file is not in ``SCMOE_DATA_DIR``; this form of it cannot be downloaded.

    Notes
    -----
    The Tabula Muris Consortium, Nature 562, 367 (2018), from
    https://github.com/mahmoudibrahim/genesorteR (GPL-3).
    """
    adata = ad.read_h5ad(fetch("scrna/tabula_muris_kidney_215.h5ad"))
    types = _categorical(adata.obs["cell_type"].astype(str).to_numpy())
    adata.obs["cell_type"] = types
    adata.obs[Key.obs.POPULATION] = types
    return adata


def _counts(name: str) -> ad.AnnData:
    """Read counts and numbers of populations from an HDF5 file."""
    with h5py.File(fetch(f"scrna/{name}_top2000.h5")) as file:
        counts, populations = file["X"][:], file["Y"][:]
    return ad.AnnData(
        X=sparse.csr_matrix(counts.astype(np.float32, copy=False)),
        obs=pd.DataFrame(
            {Key.obs.POPULATION: _categorical(populations.astype(str))},
            index=[f"{name}-{i}" for i in range(len(counts))],
        ),
        var=pd.DataFrame(index=[f"gene_{i}" for i in range(counts.shape[1])]),
    )
