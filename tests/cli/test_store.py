"""Runs whose cells stay in a zarr store, against the same runs in memory."""

from __future__ import annotations

import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import scmoe as library
from scmoe.cli import _store
from scmoe.cli._store import available_memory
from scmoe.io import write_fcs

PANEL = ["CD3", "CD45", "CD4", "CD20", "Time"]


@pytest.fixture(scope="module")
def panels(tmp_path_factory):
    """A folder with files of three populations, one of them without a marker that others have."""
    folder = tmp_path_factory.mktemp("panels")
    rng = np.random.default_rng(0)
    centres = np.array([[5, 5, 0, 0], [0, 5, 5, 0], [0, 0, 5, 5]])
    for i, n in enumerate((300, 400, 150)):
        x = 150 * np.sinh(np.abs(centres[rng.choice(3, n)] + 0.4 * rng.normal(size=(n, 4))))
        x = np.column_stack([x, np.arange(n)]).astype(np.float32)
        names = PANEL[:3] + PANEL[4:] if i == 2 else PANEL
        adata = ad.AnnData(x[:, [PANEL.index(name) for name in names]])
        adata.var_names = names
        write_fcs(adata, folder / f"{'abc'[i]}.fcs", obs=[])
    names = ["CD3", "CD45", "CD4"]
    spill = pd.DataFrame([[1, 0.2, 0], [0.1, 1, 0.05], [0, 0, 1]], names, names)
    spill.to_csv(folder / "spill.csv")
    return folder


def same_uns(one, other):
    assert set(one) == set(other)
    for key, value in one.items():
        if isinstance(value, dict):
            same_uns(value, other[key])
        elif isinstance(value, pd.DataFrame):
            assert_frame_equal(value, other[key], check_dtype=False)
        else:
            assert np.array_equal(np.asarray(value, object), np.asarray(other[key], object)), key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sketch"),
    [
        ([], False),
        (["--spillover", "spill.csv", "--batch-key", "sample", "--n-clusters", "3"], True),
        (["--join", "outer", "--cofactor", "150", "--markers", "CD3,CD45,CD4"], True),
        (["--no-transform", "--exclude", "CD45"], False),
    ],
)
def test_same_results(scmoe, panels, monkeypatch, words, sketch):
    monkeypatch.setattr("scmoe.io._zarr.ROWS", 128)
    if sketch:
        monkeypatch.setattr("scmoe.tl._cluster_cells.SKETCH", 500)
        monkeypatch.setattr("scmoe._core.rows.CHUNK", 100)
        monkeypatch.setattr("scmoe._core.rows.VALUES", 1)
    words = [panels / word if word == "spill.csv" else word for word in words]
    told = []
    for cells in ("h5ad", "zarr"):
        result = scmoe(panels, *words, "--cells", cells, fcs=True, output=cells)
        assert result.exit_code == 0, result.stderr
        told.append({line for line in result.stderr.splitlines() if "warning" in line})
    assert told[0] == told[1]
    memory, store = scmoe.home / "h5ad", scmoe.home / "zarr"
    for name in ("clusters.csv", "abundance.csv", *(f"fcs/{s}.fcs" for s in "abc")):
        assert (memory / name).read_bytes() == (store / name).read_bytes(), name
    inside, outside = ad.read_h5ad(memory / "cells.h5ad"), ad.read_zarr(store / "cells.zarr")
    assert outside.obs["scmoe"].nunique() > 1
    assert_frame_equal(inside.obs, outside.obs)
    assert_frame_equal(inside.var, outside.var)
    assert_frame_equal(inside.obsm["scmoe_proba"], outside.obsm["scmoe_proba"])
    np.testing.assert_array_equal(inside.obsm["X_scmoe"], outside.obsm["X_scmoe"])
    np.testing.assert_array_equal(inside.X, outside.X)
    assert list(inside.layers) == list(outside.layers)
    same_uns(inside.uns, outside.uns)
    # what is read again is good for all that the library does with it
    assert_frame_equal(library.get.gates(inside), library.get.gates(outside))
    query = inside.copy()
    del query.obs["scmoe"], query.obs["scmoe_outlier"], query.obsm, query.uns["scmoe"]
    library.tl.assign(query, outside, key_added="again", reject=None)
    assert (query.obs["again"].astype(str) == outside.obs["scmoe"].astype(str)).all()


@pytest.mark.slow
def test_where_cells_go(scmoe, panels, monkeypatch):
    # 850 cells of 4 channels, each of them 332 bytes
    for free, name in ((850 * 332, "cells.h5ad"), (850 * 332 - 1, "cells.zarr")):
        monkeypatch.setattr("scmoe.cli._store.available_memory", lambda free=free: free)
        result = scmoe(panels, "--overwrite")
        assert result.exit_code == 0, result.stderr
        assert ("their values go to cells.zarr" in result.stderr) == (name == "cells.zarr")
        # what an earlier run wrote is gone
        there = {"abundance.csv", "clusters.csv", "model", "report.html", "run.json"}
        assert set(os.listdir(scmoe.home / "out")) == {*there, name}
    assert 'ad.read_zarr("cells.zarr")' in (scmoe.home / "out" / "report.html").read_text()
    assert scmoe(panels, "--overwrite", "--cells", "zarr").exit_code == 0
    assert scmoe(panels, "--overwrite", "--cells", "h5ad").exit_code == 0
    assert not (scmoe.home / "out" / "cells.zarr").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cells", ["auto", "zarr"])
def test_more_cells_than_memory(scmoe, panels, monkeypatch, error_of, cells):
    free = 850 * _store.BYTES_OF_STORED_CELL
    monkeypatch.setattr(_store, "available_memory", lambda: free - 1)
    told = error_of(scmoe(panels, "--cells", cells))
    assert "out of memory. 850 cells need at least 0.000212 GB of memory" in told
    assert "give fewer files" in told
    assert not os.listdir(scmoe.home)
    monkeypatch.setattr(_store, "available_memory", lambda: free)
    assert scmoe(panels, "--cells", cells).exit_code == 0


def test_what_needs_all_cells_is_refused(scmoe, panels, error_of):
    words = [panels, "--cells", "zarr"]
    told = error_of(scmoe(*words, "--similarity", "coassociation"))
    assert "--similarity coassociation needs a graph" in told
    assert "--cells h5ad" in told
    assert "--preset cytof" in error_of(scmoe(*words, "--preset", "cytof"))
    assert "no marker 'CD9'" in error_of(scmoe(*words, "--markers", "CD9"))
    assert "has no spillover matrix" in error_of(scmoe(*words, "--compensate"))
    assert "'plate'" in error_of(scmoe(*words, "--batch-key", "plate"))
    assert not os.listdir(scmoe.home)
    assert scmoe("cells.h5ad", "--cells", "zarr").exit_code == 2


def test_nothing_is_left_of_what_fails(scmoe, panels, monkeypatch, error_of):
    words = [panels, "--cells", "zarr"]
    usage = type("", (), {"free": 2**10})()
    with monkeypatch.context() as patch:
        patch.setattr("scmoe._core.atomic.shutil.disk_usage", lambda path: usage)
        assert "cells.zarr: No space left on device: " in error_of(scmoe(*words))
    read = library.io._read_fcs.read_values

    def broken(file, *where):
        if file.path.name == "c.fcs":
            raise library.io.FCSReadError(file.path, "broken")
        read(file, *where)

    with monkeypatch.context() as patch:
        patch.setattr("scmoe.io._read_fcs.read_values", broken)
        assert "c.fcs" in error_of(scmoe(*words))
    assert "its panel does not match" in error_of(scmoe(*words, "--join", "exact"))
    assert not os.listdir(scmoe.home)


# ---- available memory ----


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """Files of a folder in place of those of Linux."""

    def tell(limit="max"):
        group = tmp_path / "job"
        group.mkdir(exist_ok=True)
        (tmp_path / "meminfo").write_text("MemTotal:  900 kB\nMemAvailable:  500 kB\n")
        (tmp_path / "own").write_text("1:cpu:/x\n0::/job\n")
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("300000\n")
        (group / "memory.stat").write_text("anon 1\ninactive_file 100000\n")

    monkeypatch.setattr(_store, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(_store, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(_store, "GROUPS", tmp_path)
    return tell


def test_the_smaller_of_machine_and_job(linux):
    linux()
    assert available_memory() == 500 * 1024
    linux(limit=600_000)
    assert available_memory() == 400_000


def test_a_system_that_tells_nothing(linux):
    assert available_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
