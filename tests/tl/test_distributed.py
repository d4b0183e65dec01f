"""The same clusters with the workers of dask.distributed as without."""

from __future__ import annotations

import os
import shutil

import anndata as ad
import numpy as np
import pytest
from tests.tl.test_out_of_memory import (
    SHORT,
    N,
    backed,
    cells,
    chunks,
    lazy,
    results,
    same,
    shrink,
    zarr_array,
)

from scmoe._core import rows, workers
from scmoe._core.cells import check_chunks
from scmoe._core.rows import Rows
from scmoe.tl import assign, cluster
from scmoe.tl._results import block_hash

pytestmark = pytest.mark.slow

array = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

RECORDED = ("manifest", "tree", "drift")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def local():
    """Two processes."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture
def client(local):
    """A client that dask does not take by itself."""
    local.wait_for_workers(2)
    with distributed.Client(local, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def alone():
    """A clustering, and an assignment by it, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        reference, query = cells(), cells(1)
        cluster(reference, batch_key="batch", **SHORT)
        assign(query, reference, sample_key="batch")
    return reference, query


def equal(one: ad.AnnData, other: ad.AnnData) -> None:
    same(results(one), results(other))
    for entry in RECORDED:
        assert str(one.uns["scmoe"].get(entry)) == str(other.uns["scmoe"].get(entry))


def in_memory(_, adata):
    return adata


@pytest.mark.parametrize("place", [chunks, lazy, zarr_array, backed, in_memory])
def test_clusters_are_those_without(tmp_path, client, alone, place):
    for inside, seed in zip(alone, (0, 1), strict=True):
        (tmp_path / str(seed)).mkdir()
        outside = place(tmp_path / str(seed), cells(seed))
        if seed == 0:
            cluster(outside, batch_key="batch", client=client, **SHORT)
        else:
            assign(outside, alone[0], sample_key="batch", client=client)
        equal(inside, outside)


@pytest.mark.parametrize("model", ["moe-vae", "cpl-mixvae"])
def test_every_model(client, model):
    train = {"max_epochs": 2} | ({"pretrain": False} if model == "moe-vae" else {})
    asked = {"model": model, "n_clusters": 4, "n_latent": 2, "progress": False}
    inside, outside = cells(), cells()
    cluster(inside, train_kwargs=train, **asked)
    cluster(outside, train_kwargs=train, client=client, **asked)
    equal(inside, outside)
    for slot in set(inside.obsm) - {"scmoe_proba"}:
        np.testing.assert_array_equal(inside.obsm[slot], outside.obsm[slot])


def test_the_current_client_is_that_of_dask_arrays(local, alone, monkeypatch):
    asked = []

    def in_order(client, *args):
        asked.append(client)
        return workers.in_order(client, *args)

    monkeypatch.setattr(rows, "in_order", in_order)
    with distributed.Client(local) as client:
        lazily, loaded = chunks(None, cells(1)), cells(1)
        assign(loaded, alone[0], sample_key="batch")
        assert not asked
        assign(lazily, alone[0], sample_key="batch")
    assert asked == [client]
    equal(alone[1], lazily)
    assign(chunks(None, cells(1)), alone[0], sample_key="batch")
    assert asked == [client]


def test_blocks_are_those_of_rows_whatever_the_chunks(tmp_path, client):
    x = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
    columns, number = np.array([2, 0]), np.arange(2000)

    def noted(block, block_info=None):
        with (tmp_path / str(block_info[0]["chunk-location"][0])).open("a") as file:
            file.write("read ")
        return block

    expected = [(place, block) for place, block in Rows(x, columns)]
    for sizes in ((2000,), (1, 600, 0, 1399), (100,) * 20):
        lazily = array.from_array(x, chunks=(sizes, 3)).map_blocks(noted, dtype=x.dtype)
        found = Rows(lazily, columns, client).map(np.append, number)
        for (place, block), (at, values) in zip(expected, found, strict=True):
            assert at == place
            np.testing.assert_array_equal(values, np.append(block, number[place]))
        read = [path.read_text() for path in tmp_path.iterdir()]
        assert len(read) == len(sizes)
        assert set(read) == {"read "}
        for path in tmp_path.iterdir():
            path.unlink()
        chosen = np.array([0, 511, 512, 1999])
        np.testing.assert_array_equal(Rows(lazily, None, client).take(chosen), x[chosen])
        for path in tmp_path.iterdir():
            path.unlink()


def test_few_blocks_are_under_way(client):
    class Read:
        shape, dtype, until = (100_000, 2), np.dtype("f4"), 0

        def __getitem__(self, rows):
            self.until = rows.stop
            return np.zeros((rows.stop - rows.start, 2), np.float32)

    x = Read()
    results = Rows(x, client=client).map(block_hash)
    for i in range(5):
        next(results)
        assert x.until == 512 * (4 + i)
    client.close()
    with pytest.raises(RuntimeError, match="The cluster was lost on the way"):
        list(results)


@pytest.mark.parametrize("place", [chunks, zarr_array, in_memory])
def test_values_are_looked_at_on_the_workers(tmp_path, client, alone, place):
    adata = cells(1)
    adata.X[N - 1, 3] = np.nan
    messages = []
    for i, given in enumerate((None, client)):
        (tmp_path / str(i)).mkdir()
        query = place(tmp_path / str(i), adata.copy())
        with pytest.raises(ValueError, match=r"from cell 2560 on.*'C'") as error:
            assign(query, alone[0], client=given)
        messages.append(str(error.value))
        with pytest.raises(ValueError, match="'C'"):
            cluster(query, client=given, **SHORT)
        assert not query.obsm
        assert not query.uns
    assert messages[0] == messages[1]


def test_what_can_not_be_read(tmp_path, client, alone, monkeypatch):
    whole = cells(1)
    split = ad.AnnData(array.from_array(whole.X, chunks=(1000, 3)), var=whole.var)
    unknown = array.from_array(whole.X, chunks=(1000, -1))
    unknown = unknown[unknown[:, 0] >= 0]
    with pytest.raises(ValueError, match=r"chunks split the markers, 3 to a cell.*rechunk"):
        cluster(split, client=client)
    with pytest.raises(ValueError, match="unknown sizes"):
        check_chunks(unknown, "`adata.X`")
    # what a worker sees that lacks the folder
    x = zarr_array(tmp_path, whole).X
    shutil.rmtree(tmp_path / "x.zarr")
    monkeypatch.setattr("scmoe._core.cells.check_chunks", lambda x, where: None)
    with pytest.raises(FileNotFoundError, match=r"A worker does not find .*x\.zarr"):
        assign(ad.AnnData(x, obs=whole.obs, var=whole.var), alone[0], client=client)


def test_what_is_no_client(local, alone):
    for function in (cluster, lambda adata, **kw: assign(adata, alone[0], **kw)):
        with pytest.raises(TypeError, match=r"must be a `distributed.Client`.*tcp"):
            function(cells(1), client=local.scheduler_address)
        with distributed.Client(local, set_as_default=False) as closed:
            pass
        with pytest.raises(ValueError, match=r"`client` is closed: make a new one"):
            function(cells(1), client=closed)


def ending(path, chunk):
    """Cells in chunks, of which one ends the process that reads it first."""

    def read(block, block_info=None):
        if block_info[0]["chunk-location"][0] == chunk and not (path / "ended").exists():
            (path / "ended").touch()
            os._exit(1)
        return block

    adata = chunks(path, cells(1))
    adata.X = adata.X.map_blocks(read, dtype=adata.X.dtype)
    return adata


def test_what_a_dead_worker_had_to_do_is_done_again(tmp_path, client, alone):
    query = ending(tmp_path, 2)
    assign(query, alone[0], sample_key="batch", client=client)
    assert (tmp_path / "ended").exists()
    equal(alone[1], query)


def test_workers_that_end_again_and_again(tmp_path, local, client, alone, monkeypatch):
    monkeypatch.setattr(local.scheduler, "allowed_failures", 0)
    query = ending(tmp_path, 0)
    with pytest.raises(RuntimeError, match=r"ended 1 workers.*nothing was written.*memory"):
        assign(query, alone[0], sample_key="batch", client=client)
    assert not query.obsm
    assert not query.uns
    assert list(query.obs) == ["truth", "batch"]
