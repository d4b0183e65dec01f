"""Published data sets that nobody can download in this form; ``SCMOE_DATA_DIR`` has the files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pooch
from natsort import natsorted
from scipy import sparse

import scmoe

ENVIRONMENT = "SCMOE_DATA_DIR"

_CYANNO = "https://github.com/abbioinfo/CyAnno, folder example"
_SCDCC = "https://github.com/ttgump/scDCC, folder data/Small_Datasets"

FILES = {
    "coil20.npz": (
        "c6587d0017baabeb55d11ef1420254131067b69a5eec4116cb05d8ab448f4465",
        "https://github.com/hyzhang98/AdaGAE",
    ),
    "levine32_balanced_subset.csv.gz": (
        "cd78ebe6779e8b27545d3f1551d1535a00bec868a8e82b62c80ee2f484c26c41",
        "https://github.com/phipsonlab/SuperCellCyto, folder inst/extdata",
    ),
    "multicenter/sample01.npz": (
        "c4228c999d2d802b080a5c6761110e2a1d8b750d49bd697d3a4e0d271943a050",
        _CYANNO,
    ),
    "multicenter/sample02.npz": (
        "f5510e55b4f2c7c7be88fa61720b2ea9899f5cf185bf85d9b567a2e9f1a1adba",
        _CYANNO,
    ),
    "multicenter/sample03.npz": (
        "370268938c34ec4eef1378fda8040129ec6365e5e9b94985a8de25d88e2741bf",
        _CYANNO,
    ),
    "multicenter/sample04.npz": (
        "54758cfb095f2d71de0f58cc662aec962b7c532880e506003003371e9169bfc5",
        _CYANNO,
    ),
    "multicenter/sample05.npz": (
        "7f1a9282c1c2df65294f89296c630480aa1a95d4e37c24d03d52fbaeaec2a4b2",
        _CYANNO,
    ),
    "multicenter/sample06.npz": (
        "14db2edb20d14f09369691af6e8c0e210fb7ff0f52b68a534c6ad25e24669085",
        _CYANNO,
    ),
    "multicenter/sample07.npz": (
        "361298fa3747ae4eb9a88bf7d8f99c42fa37cd9780e9b0e92d02f68425f15eb2",
        _CYANNO,
    ),
    "multicenter/sample08.npz": (
        "cbffec7beb10cfadd0e7cff99cae29cd963412802da13082430ee69d491a296d",
        _CYANNO,
    ),
    "samusik_ramp.csv.gz": (
        "84d90a01e080edbd1b7bd741a555eca9be4f28c762005e3115c49ab1adfaeb97",
        "https://github.com/ramp-kits/mouse_cytometry, folder data",
    ),
    "scrna/human_kidney_top2000.h5": (
        "01c8d454047bb2feca6df19db52b8818e7623e2755134c809221f0a5654e25cc",
        _SCDCC,
    ),
    "scrna/pbmc_10x_top2000.h5": (
        "ec78ead405dfa988d6156c12068b49c0782ca58f5ed52c938d8ba8e8377eb16e",
        _SCDCC,
    ),
    "scrna/tabula_muris_kidney_215.h5ad": (
        "544ee5cddccf694784aefc35aaa4949e9cfe013a26ed10b5b421614b737f589d",
        "https://github.com/mahmoudibrahim/genesorteR",
    ),
}
"""SHA-256 and origin of each file."""

_NOT_MASS = {
    "Time": "time",
    "Cell_length": "other",
    "DNA1": "other",
    "DNA2": "other",
    "Viability": "other",
}
"""Kinds of the channels of Levine 32 that are no markers."""


def find(name: str) -> Path:
    """Return the path of a file in ``SCMOE_DATA_DIR``.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it is not the known file.
    """
    digest, origin = FILES[name]
    path = Path(os.environ.get(ENVIRONMENT, "")).expanduser() / name
    if not os.environ.get(ENVIRONMENT) or not path.is_file():
        raise FileNotFoundError(
            f"{name!r} is missing, and this form of it cannot be downloaded (origin: {origin}). "
            f"The environment variable {ENVIRONMENT} names the folder that has the file."
        )
    if pooch.file_hash(str(path)) != digest:
        raise ValueError(f"{path} is not the known file {name!r}: its SHA-256 is not {digest}.")
    return path


def multicenter(sample: int = 1) -> ad.AnnData:
    """Read one of 8 samples of a multi-centre study: mass cytometry of human blood.

    Cells x 8 markers, raw values, 4 populations, NaN for ungated cells. From the examples of
    CyAnno (GPL-3); the order of the columns was inferred.
    """
    if sample not in range(1, 9):
        raise ValueError(f"There is no sample {sample}; there are 1 to 8.")
    name = f"sample{sample:02d}"
    with np.load(find(f"multicenter/{name}.npz"), allow_pickle=False) as archive:
        values, markers = archive["X"], archive["markers"]
        populations = archive["populations"][archive["y"]]
    return _cytometry(values, markers, populations, np.full(len(values), name))


def samusik_ramp() -> ad.AnnData:
    """Read gated cells of mouse bone marrow: mass cytometry, 23 populations.

    10,000 cells x 38 markers, raw values. Probably drawn from Samusik_all (Samusik et al., Nature
    Methods 13, 493, 2016).
    """
    table = pd.read_csv(find("samusik_ramp.csv.gz"))
    populations = table.pop("label").to_numpy()
    samples = np.full(len(table), "samusik_ramp")
    return _cytometry(table.to_numpy(), table.columns, populations, samples)


def levine32_balanced() -> ad.AnnData:
    """Read human bone marrow: mass cytometry, 50 cells of each of 14 populations and donor.

    1,500 cells x 37 channels (32 markers), raw values, NaN for unassigned cells; the sample is the
    donor. Levine et al., Cell 162, 184 (2015). Balanced, so that scores cannot be compared with
    published scores of Levine_32dim.
    """
    table = pd.read_csv(find("levine32_balanced_subset.csv.gz"))
    populations, samples = table.pop("population").to_numpy(), table.pop("sample").to_numpy()
    table = table.drop(columns=["file_number", "event_number"])
    return _cytometry(table.to_numpy(), table.columns, populations, samples)


def pbmc_10x() -> ad.AnnData:
    """Read human blood cells (10x Genomics): 4,271 cells x 2,000 variable genes, 8 populations.

    Counts, CSR, float32. The file has numbers for the populations and no names of genes.
    """
    return _counts("pbmc_10x")


def human_kidney() -> ad.AnnData:
    """Read human kidney: 5,685 cells x 2,000 variable genes, 11 populations.

    Counts, CSR, float32. The file has numbers for the populations and no names of genes.
    """
    return _counts("human_kidney")


def tabula_muris_kidney() -> ad.AnnData:
    """Read mouse kidney (Tabula Muris, Smart-seq2): 215 cells x 23,341 genes, 3 cell types.

    CSR, float32: log2(x + 1) of values that sum to 825,688 in each cell, no counts. The Tabula
    Muris Consortium, Nature 562, 367 (2018).
    """
    adata = ad.read_h5ad(find("scrna/tabula_muris_kidney_215.h5ad"))
    adata.obs["population"] = _categorical(adata.obs["cell_type"].astype(str).to_numpy())
    return adata


def coil20() -> ad.AnnData:
    """Read COIL-20: 72 photographs of each of 20 objects on a turntable, 32 x 32 pixels.

    Nene, Nayar & Murase, technical report CUCS-005-96 (1996), in the version of AdaGAE.
    """
    with np.load(find("coil20.npz"), allow_pickle=False) as archive:
        return scmoe.io.from_array(archive["x"], obs={"label": archive["y"]})


def _cytometry(
    values: np.ndarray, markers: Sequence[str], populations: np.ndarray, samples: np.ndarray
) -> ad.AnnData:
    """Return the arrays of a table of mass cytometry as AnnData."""
    names = [str(marker) for marker in markers]
    kinds = pd.Categorical([_NOT_MASS.get(name, "mass") for name in names])
    return ad.AnnData(
        np.asarray(values, dtype=np.float32),
        obs=pd.DataFrame(
            {"sample": _categorical(samples), "population": _categorical(populations)},
            index=[f"{sample}-{i}" for i, sample in enumerate(samples)],
        ),
        var=pd.DataFrame({"channel": names, "marker": names, "kind": kinds}, index=names),
    )


def _counts(name: str) -> ad.AnnData:
    """Return the counts and the numbers of the populations of an HDF5 file."""
    with h5py.File(find(f"scrna/{name}_top2000.h5")) as file:
        counts, populations = file["X"][:], file["Y"][:]
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32, copy=False)),
        obs=pd.DataFrame(
            {"population": _categorical(populations.astype(str))},
            index=[f"{name}-{i}" for i in range(len(counts))],
        ),
        var=pd.DataFrame(index=[f"gene_{i}" for i in range(counts.shape[1])]),
    )


def _categorical(labels: np.ndarray) -> pd.Categorical:
    """Return the labels with categories in natural order, NaN for cells without a population."""
    series = pd.Series(labels, dtype=object)
    series = series.where(~series.isin(["ungated", "unassigned"]))
    return pd.Categorical(series, categories=natsorted(series.dropna().unique()))
