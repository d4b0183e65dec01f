"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with public data sets; tests that ask for it are skipped without it."""
    value = os.environ.get("SCMOE_DATA_DIR")
    if not value:
        pytest.skip("SCMOE_DATA_DIR is not set: no public data sets to test with")
    folder = Path(value).expanduser()
    if not folder.is_dir():
        pytest.skip(f"SCMOE_DATA_DIR={value} is not a folder")
    return folder.resolve()


def make_blobs() -> AnnData:
    """600 cells, 8 markers, 5 populations from 5 to 45 % of the cells.

    ``.X`` is float32 and looks like arcsinh-transformed cytometry (0 and above); the
    population is in ``.obs["population"]``. ``.var`` is that of the FCS reader.
    """
    from anndata import AnnData

    rng = np.random.default_rng(0)
    sizes = {"T": 270, "B": 150, "NK": 90, "mono": 60, "pDC": 30}
    markers = ["CD3", "CD4", "CD8", "CD19", "CD56", "CD14", "CD123", "CD45"]
    centres = np.array(
        [
            [4.0, 3.5, 0.5, 0.5, 0.5, 0.5, 0.5, 5.0],
            [0.5, 0.5, 0.5, 4.0, 0.5, 0.5, 0.5, 4.5],
            [0.5, 0.5, 2.0, 0.5, 4.0, 0.5, 0.5, 5.0],
            [0.5, 2.0, 0.5, 0.5, 0.5, 4.0, 1.5, 4.0],
            [0.5, 2.0, 0.5, 0.5, 0.5, 0.5, 4.5, 4.0],
        ]
    )
    population = np.repeat(np.arange(5), list(sizes.values()))
    rng.shuffle(population)
    X = centres[population] + rng.normal(scale=0.35, size=(population.size, len(markers)))
    return AnnData(
        np.clip(X, 0, None).astype(np.float32),
        obs=pd.DataFrame(
            {"population": pd.Categorical.from_codes(population, list(sizes))},
            index=[f"cell_{i}" for i in range(population.size)],
        ),
        var=pd.DataFrame(
            {
                "channel": [f"Ch{i}" for i in range(len(markers))],
                "marker": markers,
                "kind": "mass",
            },
            index=markers,
        ),
    )


def link(adata: AnnData) -> AnnData:
    """Add the graph of the 10 nearest neighbours, all weights 1."""
    from scipy import sparse
    from sklearn.neighbors import kneighbors_graph

    graph = kneighbors_graph(adata.X, 10)
    adata.obsp["connectivities"] = sparse.csr_matrix(graph.maximum(graph.T), dtype=np.float32)
    return adata


@pytest.fixture
def blobs() -> AnnData:
    """See :func:`make_blobs`."""
    return make_blobs()


@pytest.fixture
def linked(blobs: AnnData) -> AnnData:
    """``blobs`` with a graph, see :func:`link`."""
    return link(blobs)


@pytest.fixture(scope="module")
def linked_once() -> AnnData:
    """``linked`` for the tests of a module that train once and only look."""
    return link(make_blobs())


@pytest.fixture
def six_cells() -> AnnData:
    """Six cells: three in "0", two in "1", one without a cluster."""
    from anndata import AnnData

    adata = AnnData(
        np.array([[0, 1], [2, 1], [10, 1], [5, 3], [7, 5], [4, 4]], dtype=np.float32),
        obs=pd.DataFrame(
            {
                "k": pd.Categorical(["0", "0", "0", "1", "1", None], categories=["0", "1", "2"]),
                "sample": ["a", "a", "b", "b", "b", "b"],
            },
            index=list("uvwxyz"),
        ),
        var=pd.DataFrame({"kind": ["mass", "time"]}, index=["CD3", "Time"]),
    )
    adata.obsm["k_proba"] = pd.DataFrame(
        {"0": [0.9, 0.8, 0.6, 0.3, 0.0, 0.5], "1": [0.1, 0.2, 0.4, 0.7, 1.0, 0.5]},
        index=adata.obs_names,
    )
    return adata


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    """No figure survives the test that drew it."""
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def scanpy_settings(tmp_path: Path) -> Iterator[object]:
    """scanpy's settings with figures going to ``tmp_path``; restored after the test."""
    import scanpy as sc

    names = ["figdir", "autosave", "autoshow", "plot_suffix", "file_format_figs", "verbosity"]
    before = {name: getattr(sc.settings, name) for name in names}
    sc.settings.figdir = tmp_path
    yield sc.settings
    for name, value in before.items():
        setattr(sc.settings, name, value)
