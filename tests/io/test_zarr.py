"""FCS files written to zarr, against the same files read and written."""

from __future__ import annotations

import tracemalloc
import warnings

import anndata as ad
import numpy as np
import pytest
import zarr
from pandas.testing import assert_frame_equal

import scmoe.io._zarr
from scmoe.io import FCSReadError, FCSRepairWarning, fcs_to_zarr, read_fcs
from scmoe.pp import ScaleWarning, arcsinh, compensate

# the files of `plate` differ, and one has an infinite value
expected = pytest.mark.filterwarnings(
    "ignore:Markers", "ignore:1 of 3 files:scmoe.io.FCSRepairWarning"
)
SPILL = {"$SPILLOVER": "2,A,B,1,0.1,0.2,1"}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    # files of 3, 5 and 0 cells end within chunks
    monkeypatch.setattr(scmoe.io._zarr, "ROWS", 4)


@pytest.fixture
def plate(make_fcs, tmp_path):
    """Three files with other panels; one has spillover, one a value that is not finite."""
    values = np.random.default_rng(0).lognormal(4, 2, (8, 3))
    values[6, 1] = np.inf
    make_fcs("plate/a.fcs", events=values[:3], channels=["A", "B", "Time"], keywords=SPILL)
    make_fcs("plate/b.fcs", events=values[3:], channels=["B", "A", "C"])
    make_fcs("plate/c.fcs", events=np.empty((0, 2)), channels=["A", "B"])
    return tmp_path / "plate"


def assert_same(stored, adata):
    """Compare all that a store may hold, types included."""
    assert_frame_equal(stored.obs, adata.obs)
    assert_frame_equal(stored.var, adata.var)
    assert stored.X.dtype == adata.X.dtype
    np.testing.assert_array_equal(stored.X, adata.X)
    assert list(stored.layers) == list(adata.layers)
    for name in adata.layers:
        np.testing.assert_array_equal(stored.layers[name], adata.layers[name])
    assert_same_uns(stored.uns, adata.uns)


def assert_same_uns(ours, theirs):
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        if isinstance(value, dict):
            assert_same_uns(ours[key], value)
        elif hasattr(value, "columns"):
            assert_frame_equal(ours[key], value)
        else:
            np.testing.assert_array_equal(ours[key], value)


@expected
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize(
    "how",
    [{"join": "outer", "dtype": "float64"}, {"by": "channel", "dataset": "all"}],
    ids=str,
)
def test_store_holds_what_is_read(plate, tmp_path, how):
    adata = read_fcs(plate, **how)
    adata.write_zarr(tmp_path / "read.zarr")
    store = fcs_to_zarr(plate, tmp_path / "new" / "plate.zarr", **how)
    assert store == tmp_path / "new" / "plate.zarr"
    assert_same(ad.read_zarr(store), ad.read_zarr(tmp_path / "read.zarr"))
    assert_same(ad.read_zarr(store), adata)
    group = zarr.open_group(store)
    assert group["X"].chunks == (4, adata.n_vars)
    assert list((tmp_path / "new").iterdir()) == [store]


@expected
def test_arcsinh_on_the_way(plate, tmp_path):
    cofactor = {"A": 5, "B": 150}
    adata = read_fcs(plate)
    arcsinh(adata, cofactor)
    stored = ad.read_zarr(fcs_to_zarr(plate, tmp_path / "x.zarr", cofactor=cofactor))
    np.testing.assert_array_equal(stored.X, adata.X)
    assert_same_uns(stored.uns["arcsinh"], adata.uns["arcsinh"])
    with pytest.raises(ValueError, match="already"):
        arcsinh(stored)


def test_compensation_on_the_way(make_fcs, tmp_path):
    values = np.random.default_rng(0).lognormal(4, 2, (8, 3))
    own = {"$SPILLOVER": "2,B,A,1,0.3,0.2,1"}
    make_fcs("plate/a.fcs", events=values[:3], channels=["A", "B", "Time"], keywords=SPILL)
    make_fcs("plate/b.fcs", events=values[3:], channels=["A", "B", "Time"], keywords=own)
    make_fcs("plate/c.fcs", events=np.empty((0, 3)), channels=["A", "B", "Time"])
    adata = read_fcs(tmp_path / "plate")
    compensate(adata)
    arcsinh(adata, 5)
    store = fcs_to_zarr(tmp_path / "plate", tmp_path / "x.zarr", compensate=True, cofactor=5)
    stored = ad.read_zarr(store)
    np.testing.assert_array_equal(stored.X, adata.X)
    assert_same_uns(stored.uns, adata.uns)
    # the file without cells needs no matrix, one with cells does
    make_fcs("plate/d.fcs", events=values[:3], channels=["A", "B", "Time"])
    with pytest.raises(ValueError, match=r"For sample 'd' .* no spillover matrix"):
        fcs_to_zarr(tmp_path / "plate", tmp_path / "y.zarr", compensate=True)
    values[1, 0] = np.inf
    path = make_fcs("e.fcs", events=values, channels=["A", "B", "Time"], keywords=SPILL)
    with pytest.raises(ValueError, match="NaN or infinite values"):
        fcs_to_zarr(path, tmp_path / "y.zarr", compensate=True)
    assert not (tmp_path / "y.zarr").exists()


def test_disk_without_room(make_fcs, tmp_path, monkeypatch):
    path = make_fcs("plate/a.fcs")
    usage = type("", (), {"free": 1})()
    monkeypatch.setattr("scmoe._core.atomic.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="GB are needed"):
        fcs_to_zarr(path, tmp_path / "new" / "x.zarr")
    assert not (tmp_path / "new").exists()


def test_values_that_look_transformed(make_fcs, tmp_path):
    path = make_fcs(events=[[0.5, 2], [3, 4], [5, 6]])
    with pytest.warns(ScaleWarning, match="looks transformed"):
        fcs_to_zarr(path, tmp_path / "x.zarr", cofactor=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ScaleWarning):
            fcs_to_zarr(path, tmp_path / "y.zarr", cofactor=5)
    assert not (tmp_path / "y.zarr").exists()


def test_repairs_are_told(make_fcs, tmp_path):
    path = make_fcs(late=1)
    with pytest.warns(FCSRepairWarning):
        stored = ad.read_zarr(fcs_to_zarr(path, tmp_path / "x.zarr"))
    assert len(stored.uns["fcs"][path.stem]["repairs"])


@expected
def test_nothing_is_left_of_an_error(plate, make_fcs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    store = fcs_to_zarr(plate, out / "x.zarr")
    before = ad.read_zarr(store)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scmoe.io._read_fcs.record_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fcs_to_zarr(plate, store, overwrite=True)
        with pytest.raises(KeyboardInterrupt):
            fcs_to_zarr(plate, out / "new" / "y.zarr")
    for bad, error, match in (
        ({"cofactor": -1}, ValueError, "positive"),
        ({"cofactor": {"A": 5, "B": 5, "Z": 5}}, KeyError, "'Z'"),
        ({"join": "all"}, ValueError, "`join`"),
    ):
        with pytest.raises(error, match=match):
            fcs_to_zarr(plate, store, overwrite=True, **bad)
    make_fcs("plate/d.fcs", keywords={"$TOT": "9"})
    with pytest.raises(FCSReadError, match="truncated"):
        fcs_to_zarr(plate, store, overwrite=True)
    assert list(out.iterdir()) == [store]
    assert_same(ad.read_zarr(store), before)


def test_what_is_there_stays(make_fcs, tmp_path):
    path = make_fcs("plate/a.fcs")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        fcs_to_zarr(path, tmp_path / "plate")
    with pytest.raises(FileExistsError, match="not a zarr store"):
        fcs_to_zarr(path, tmp_path / "plate", overwrite=True)
    assert path.exists()
    store = fcs_to_zarr(path, tmp_path / "x.zarr")
    path = make_fcs("plate/a.fcs", events=[[7, 8]])
    fcs_to_zarr(path, store, overwrite=True)
    np.testing.assert_array_equal(ad.read_zarr(store).X, [[7, 8]])


@pytest.mark.slow
def test_memory_is_that_of_a_file_and_a_chunk(make_fcs, tmp_path, monkeypatch):
    monkeypatch.setattr(scmoe.io._zarr, "ROWS", 10_000)
    n, d, n_files = 20_000, 40, 6
    for i in range(n_files):
        make_fcs(
            f"plate/{i}.fcs",
            events=np.empty((0, d)),
            channels=[f"C{k}" for k in range(d)],
            data=np.full((n, d), i, dtype="<f4").tobytes(),
            keywords={"$TOT": str(n)},
        )
    fcs_to_zarr(tmp_path / "plate" / "0.fcs", tmp_path / "first.zarr")
    tracemalloc.start()
    store = fcs_to_zarr(tmp_path / "plate", tmp_path / "x.zarr", progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one = 4 * n * d
    # names of the cells are Python strings
    assert peak < 2.5 * one + 150 * n, peak / one
    np.testing.assert_array_equal(ad.read_zarr(store).X[::n, 0], range(n_files))


@expected
def test_lazy_reading(plate, tmp_path):
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    lazy = ad.experimental.read_lazy(fcs_to_zarr(plate, tmp_path / "x.zarr"))
    assert lazy.X.chunksize == (4, 2)
    arcsinh(lazy)
    adata = read_fcs(plate)
    arcsinh(adata)
    assert_same_uns(lazy.uns["arcsinh"], adata.uns["arcsinh"])
    np.testing.assert_array_equal(lazy.X.compute(), adata.X)
