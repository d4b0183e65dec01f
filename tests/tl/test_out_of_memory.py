"""Cells that are in a file, or too many to learn from all of them."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import scmoe
from scmoe.get import tree
from scmoe.tl import _assign, _cluster_cells, assign, cluster

SHORT = {"n_clusters": 6, "progress": False, "train_kwargs": {"max_steps": 20}}
N, SKETCH = 3000, 1000


def cells(seed: int = 0) -> ad.AnnData:
    """Four populations of 8 markers in two batches, and a column that is no marker."""
    centres = 3 * np.random.default_rng(0).normal(size=(4, 8))
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, N, p=[0.5, 0.3, 0.15, 0.05])
    x = centres[truth] + rng.normal(size=(N, 8))
    x = np.column_stack([np.arange(N), x]).astype(np.float32)
    kinds = ["time", *["mass"] * 8]
    return ad.AnnData(
        x,
        obs=pd.DataFrame(
            {"truth": truth.astype(str), "batch": pd.Categorical(rng.choice(["a", "b"], N))},
            index=[f"cell{i}" for i in range(N)],
        ),
        var=pd.DataFrame({"kind": kinds}, index=["time", *"ABCDEFGH"]),
    )


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Let a sketch, and blocks, be smaller than the cells of a test."""
    patch.setattr(_cluster_cells, "SKETCH", SKETCH)
    patch.setattr("scmoe._core.rows.CHUNK", 512)
    patch.setattr("scmoe._core.rows.VALUES", 1)


@pytest.fixture
def small(monkeypatch):
    shrink(monkeypatch)


def results(adata: ad.AnnData) -> dict:
    """All that a clustering or an assignment says of cells."""
    obs = adata.obs if isinstance(adata.obs, pd.DataFrame) else adata.obs.to_memory()
    return {
        "labels": obs["scmoe"].astype(str).to_numpy(),
        "outlier": obs["scmoe_outlier"].to_numpy(),
        "latent": np.asarray(adata.obsm["X_scmoe"]),
        "proba": adata.obsm["scmoe_proba"].to_numpy(),
    }


def same(one: dict, other: dict) -> None:
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def backed(path, adata):
    adata.write_h5ad(path / "cells.h5ad")
    return ad.read_h5ad(path / "cells.h5ad", backed="r")


def zarr_array(path, adata):
    zarr = pytest.importorskip("zarr")
    x = zarr.create_array(path / "x.zarr", shape=adata.shape, dtype="f4", chunks=(700, 9))
    x[:] = adata.X
    return ad.AnnData(x, obs=adata.obs, var=adata.var)


def lazy(path, adata):
    pytest.importorskip("dask")
    with warnings.catch_warnings():
        # anndata 0.12: of the format that zarr will have
        warnings.simplefilter("ignore")
        adata.write_zarr(path / "cells.zarr")
    return ad.experimental.read_lazy(path / "cells.zarr")


def chunks(path, adata):
    array = pytest.importorskip("dask.array")
    x = array.from_array(adata.X, chunks=(700, -1))
    return ad.AnnData(x, obs=adata.obs.copy(), var=adata.var)


PLACES = [backed, zarr_array, lazy, chunks]


@pytest.fixture(scope="module")
def in_memory():
    """A clustering, and an assignment by it, of cells in memory."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        reference, query = cells(), cells(1)
        cluster(reference, batch_key="batch", **SHORT)
        assign(query, reference, sample_key="batch")
    return reference, query


@pytest.mark.parametrize("place", PLACES)
def test_cells_in_a_file_have_the_same_clusters(tmp_path, small, place, in_memory):
    for inside, seed in zip(in_memory, (0, 1), strict=True):
        (tmp_path / str(seed)).mkdir()
        outside = place(tmp_path / str(seed), cells(seed))
        if seed == 0:
            cluster(outside, batch_key="batch", **SHORT)
        else:
            assign(outside, in_memory[0], sample_key="batch")
        same(results(inside), results(outside))
        for entry in ("manifest", "tree", "drift"):
            assert str(inside.uns["scmoe"].get(entry)) == str(outside.uns["scmoe"].get(entry))


def test_a_sketch_is_learned_from(small, caplog):
    adata = cells()
    with caplog.at_level("INFO", logger="scmoe"):
        cluster(adata, **SHORT)
    assert f"sketch of {SKETCH} of {N} cells" in caplog.text
    assert adata.uns["scmoe"]["params"]["n_learned"] == SKETCH
    assert adata.obs["scmoe"].notna().all()
    assert adjusted_rand_score(adata.obs["truth"], adata.obs["scmoe"]) > 0.9
    # the tree counts all cells
    first = tree(adata).iloc[0]
    assert first["n_low"] + first["n_high"] == N
    assert adata.uns["scmoe"]["tree"]["labels"].to_numpy().sum() == N
    labels = adata.obs["scmoe"].cat
    counts = adata.uns["scmoe"]["tree"]["labels"][list(labels.categories)].sum()
    assert list(counts) == list(np.bincount(labels.codes))


@pytest.mark.parametrize("model", ["moe-vae", "cpl-mixvae"])
def test_every_model_learns_from_a_sketch(small, model):
    adata, train = cells(), {"max_epochs": 2}
    if model == "moe-vae":
        train["pretrain"] = False
    cluster(adata, model=model, n_clusters=4, n_latent=2, progress=False, train_kwargs=train)
    assert adata.uns["scmoe"]["params"]["n_learned"] == SKETCH
    assert adata.obs["scmoe"].notna().all()
    if model == "cpl-mixvae":
        assert adata.uns["scmoe"]["categories"]["n_cells"].sum() == N


def test_cells_of_a_graph_are_all_learned_from(small):
    adata = cells()[:1500, 1:].copy()
    scmoe.tl._graph.add_graph(adata)
    cluster(adata, neighbors_key="neighbors", **SHORT)
    assert adata.uns["scmoe"]["params"]["n_learned"] == adata.n_obs


def test_a_sketch_does_not_depend_on_the_order(monkeypatch):
    monkeypatch.setattr(_cluster_cells, "SKETCH", 300)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 3)).astype(np.float32)
    x[:1000] = x[0]
    batch = np.repeat([0, 1], [2950, 50])

    def drawn(order):
        rows = scmoe._core.rows.Rows(x[order])
        key = _cluster_cells.survey(rows, pd.Index(["A", "B", "C"]), 3).key
        return order[_cluster_cells.draw_sketch(key, 3, batch[order])]

    one, other = drawn(np.arange(3000)), drawn(rng.permutation(3000))
    # copies of one cell are as good as each other, and not all of them are drawn
    assert set(one[one >= 1000]) == set(other[other >= 1000])
    assert (one < 1000).sum() == (other < 1000).sum() < 150
    assert (one >= 2950).sum() == 50
    assert len(set(one)) == len(one) <= 350


def test_a_rare_population_is_in_a_sketch():
    n = 1_000_000
    key = np.random.default_rng(0).normal(size=n)
    kept = [(_cluster_cells.draw_sketch(key, seed) < n // 2000).sum() for seed in range(5)]
    assert min(kept) >= 30


def test_values_are_looked_at_when_they_are_read(tmp_path, small):
    for column, value, message in ((3, np.nan, "'C'"), (5, 1e20, "Beyond")):
        adata = cells()
        adata.X[N - 1, column] = value
        lazily = backed(tmp_path, adata)
        with pytest.raises(ValueError, match=message):
            cluster(lazily, **SHORT)
        assert not lazily.obsm
        assert "scmoe" not in lazily.obs
        lazily.file.close()
    adata = cells()
    adata.X[:, 4] = 1
    with pytest.raises(ValueError, match="Constant in all cells: 'D'"):
        cluster(backed(tmp_path, adata), **SHORT)


def test_what_can_not_be_read(tmp_path):
    adata = backed(tmp_path, cells())
    for function in (lambda **kw: cluster(adata, **kw), lambda **kw: assign(adata, adata, **kw)):
        with pytest.raises(ValueError, match="backed by a file"):
            function(copy=True)
    adata.file.close()
    with pytest.raises(ValueError, match="which is closed: read it again"):
        cluster(adata)
    array = pytest.importorskip("dask.array")
    whole = cells()
    split = ad.AnnData(array.from_array(whole.X, chunks=(1000, 3)), var=whole.var)
    with pytest.raises(ValueError, match=r"chunks split the markers, 3 to a cell.*rechunk"):
        cluster(split)
    zarr = pytest.importorskip("zarr")
    part = zarr.create_array(
        tmp_path / "part.zarr", shape=whole.shape, dtype="f4", chunks=(700, 9)
    )
    part[:2000] = whole.X[:2000]
    part = ad.AnnData(part, obs=whole.obs, var=whole.var)
    with pytest.raises(ValueError, match=r"lacks 2 of its 5 chunks: it is being written"):
        cluster(part)
    assert not part.obsm
    unknown = array.from_array(whole.X, chunks=(1000, -1))
    unknown = unknown[unknown[:, 0] >= 0]
    with pytest.raises(ValueError, match="unknown sizes"):
        scmoe._core.cells.check_chunks(unknown, "`adata.X`")


def test_drift_of_many_cells_is_that_of_some(monkeypatch):
    monkeypatch.setattr(_assign, "LOOKED_AT", 1000)
    sample = np.repeat([0, 1, 2], [9000, 100, 1])
    looked = _assign.looked_at(sample)
    assert 800 < looked[:9000].sum() < 1200
    assert looked[9000:].all()
