"""How many clusters there are: what it writes, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from benchmarks.data import levine32_balanced
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

import scmoe
from scmoe.similarity import DensityTree
from scmoe.tl import cluster, n_clusters

DATA = Path(os.environ.get("SCMOE_DATA_DIR", "nowhere"))


def run(adata, method="stability", **kwargs):
    quick = {"n_samples": 3} if method == "stability" else {"evidence": []}
    quick |= kwargs.pop("method_kwargs", {})
    return n_clusters(adata, method=method, method_kwargs=quick, progress=False, **kwargs)


# ----------------------------------------------------------------------------------------
# what is written


@pytest.mark.parametrize("method", ["tree", "stability", "density"])
def test_slots(linked, method):
    assert run(linked, method, key_added="mine") is None
    record = linked.uns["mine"]
    assert record["n_clusters"] == 5
    assert record["method"] == method
    assert {"noise", "evidence", "settings", "params", "features", "version", "manifest"} <= set(
        record
    )
    labels = linked.obs["mine"]
    assert list(labels.cat.categories) == ["0", "1", "2", "3", "4"]
    assert (labels.value_counts(sort=False).diff().dropna() <= 0).all()
    inside = labels.notna()
    assert adjusted_rand_score(linked.obs["population"][inside], labels[inside]) == 1
    assert record["noise"] == 1 - inside.mean()
    proba = linked.obsm["mine_proba"]
    assert list(proba.columns) == list(labels.cat.categories)
    assert proba.index.equals(linked.obs_names)
    assert (proba.dtypes == np.float32).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert ("X_mine" in linked.obsm) == (method == "density")


@pytest.mark.parametrize("method", ["tree", "stability", "density"])
def test_h5ad(linked, method, tmp_path):
    run(linked, method)
    linked.write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(
        back.uns["n_clusters"]["evidence"], linked.uns["n_clusters"]["evidence"]
    )
    assert back.uns["n_clusters"]["n_clusters"] == 5
    # and can be written over
    run(back, method)


def test_copy(linked, same):
    before = same.look(linked)
    other = run(linked, copy=True)
    same(linked, before)
    assert other.uns["n_clusters"]["n_clusters"] == 5


def test_what_an_earlier_run_wrote_is_gone(linked):
    run(linked, "density")
    assert "X_n_clusters" in linked.obsm
    run(linked, "stability")
    assert "X_n_clusters" not in linked.obsm
    assert linked.uns["n_clusters"]["method"] == "stability"


@pytest.mark.slow
def test_same_seed_same_answer(linked):
    first, second = (run(linked, "density", copy=True, random_state=3) for _ in range(2))
    other = run(linked, "density", copy=True, random_state=4)
    assert not np.array_equal(other.obsm["X_n_clusters"], first.obsm["X_n_clusters"])
    np.testing.assert_array_equal(first.obsm["X_n_clusters"], second.obsm["X_n_clusters"])
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    run(linked, "density")
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


# ----------------------------------------------------------------------------------------
# what it looks at


def test_graph_of_the_user(linked):
    # two halves without an edge between them
    half = np.arange(linked.n_obs) < 300
    block = sparse.csr_matrix(np.equal.outer(half, half).astype(np.float32))
    linked.obsp["halves"] = block
    linked.uns["mine"] = {"connectivities_key": "halves"}
    for named in ({"obsp": "halves"}, {"neighbors_key": "mine"}):
        run(linked, **named)
        assert linked.uns["n_clusters"]["n_clusters"] == 2
        assert linked.uns["n_clusters"]["params"]["neighbors"] == "given"
        assert adjusted_rand_score(half, linked.obs["n_clusters"]) == 1
        assert len(linked.uns["n_clusters"]["features"]) == 0


def test_the_graph_needs_no_values(linked):
    linked.X = sparse.csr_matrix(linked.X)
    run(linked)
    assert linked.uns["n_clusters"]["n_clusters"] == 5


def test_values_that_are_named_go_before_the_graph(linked):
    linked.obsm["X_two"] = np.where(linked.obs["population"] == "T", 9.0, 0.0)[:, None]
    linked.obsm["X_two"] = linked.obsm["X_two"] + np.random.default_rng(0).normal(size=(600, 2))
    run(linked, use_rep="X_two")
    assert linked.uns["n_clusters"]["n_clusters"] == 2
    assert list(linked.uns["n_clusters"]["features"]) == ["X_two_0", "X_two_1"]


def test_channels_that_are_no_markers_are_left_out(blobs):
    blobs.var["kind"] = ["mass"] * 7 + ["time"]
    run(blobs, "density")
    assert len(blobs.uns["n_clusters"]["features"]) == 7


@pytest.mark.parametrize(("n_vars", "features"), [(60, "X_pca_0"), (50, "0")])
def test_scanpys_rule(n_vars, features):
    rng = np.random.default_rng(0)
    cells = ad.AnnData(rng.normal(size=(60, n_vars)).astype(np.float32))
    cells.X[:30] += 5
    cells.obsm["X_pca"] = cells.X[:, :3].copy()
    run(cells, "density")
    assert cells.uns["n_clusters"]["features"][0] == features


def test_many_variables_become_principal_components():
    rng = np.random.default_rng(0)
    cells = ad.AnnData(rng.normal(size=(60, 80)).astype(np.float32))
    cells.X[:30] += 5
    run(cells, "density")
    assert cells.uns["n_clusters"]["n_clusters"] == 2
    assert len(cells.uns["n_clusters"]["features"]) == 80
    assert "X_pca" not in cells.obsm


# ----------------------------------------------------------------------------------------
# the method where none is named


def default(adata, **kwargs):
    n_clusters(adata, progress=False, **kwargs)
    return adata.uns["n_clusters"]["method"]


def test_the_tree_of_a_panel(linked):
    """The tree that a clustering of the same markers starts from, and not the graph."""
    linked.obsp["connectivities"] = sparse.identity(linked.n_obs, format="csr")
    assert default(linked, random_state=3) == "tree"
    record = linked.uns["n_clusters"]
    assert record["n_clusters"] == 5
    assert record["params"]["neighbors"] == "not used"
    assert list(record["features"]) == list(linked.var_names)
    cells = ad.AnnData(np.asarray(linked.X), var=linked.var)
    target = DensityTree(random_state=3).bind(cells, np.asarray(linked.X))
    found = linked.obsm["n_clusters_proba"].to_numpy().argmax(1)
    np.testing.assert_array_equal(found, target.membership.argmax(1))
    assert default(linked, layer="raw") == "tree"
    assert default(linked, use_rep="X", min_cluster_size=30) == "tree"
    assert record["n_clusters"] == 5


@pytest.mark.slow
def test_the_graph_where_one_is_named(linked):
    assert default(linked, obsp="connectivities") == "stability"
    assert default(linked, neighbors_key="neighbors") == "stability"
    assert linked.uns["n_clusters"]["params"]["neighbors"] == "given"


@pytest.mark.slow
def test_the_graph_of_other_values(linked):
    """Such as a representation in which batches are integrated."""
    linked.uns["neighbors"]["params"] = {"n_neighbors": 10, "use_rep": "X_rep"}
    assert default(linked) == "stability"
    assert linked.uns["n_clusters"]["params"]["neighbors"] == "given"
    # values that are named go before the graph
    assert default(linked, markers=list(linked.var_names[:7])) == "tree"
    linked.uns["neighbors"]["params"]["use_rep"] = "X"
    assert default(linked) == "tree"


@pytest.mark.slow
def test_no_tree_of_what_are_no_markers(linked):
    assert default(linked, use_rep="X_rep") == "stability"
    linked.uns["image_shape"] = [2, 4]
    assert default(linked, use_rep="X") == "stability"


@pytest.mark.filterwarnings("ignore:By their names")
@pytest.mark.parametrize("with_pca", [True, False])
def test_a_wide_panel(with_pca):
    rng = np.random.default_rng(0)
    cells = ad.AnnData(rng.normal(size=(60, 60)).astype(np.float32))
    cells.X[:30] += 5
    if with_pca:
        cells.obsm["X_pca"] = cells.X[:, :3].copy()
    assert default(cells, method_kwargs={"n_samples": 2}) == "stability"
    assert default(cells, markers=["1", "2", "3"]) == "tree"
    assert list(cells.uns["n_clusters"]["features"]) == ["1", "2", "3"]
    assert cells.uns["n_clusters"]["n_clusters"] == 2


# ----------------------------------------------------------------------------------------
# fewer than two


def test_one_cluster_is_written_with_a_warning():
    cells = ad.AnnData(np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32))
    with pytest.warns(UserWarning, match="Only one cluster") as caught:
        run(cells)
    assert caught[-1].filename == __file__
    assert cells.uns["n_clusters"]["n_clusters"] == 1
    assert (cells.obs["n_clusters"] == "0").all()


def test_no_cluster_is_written_with_a_warning(tmp_path):
    cells = ad.AnnData(np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32))
    run(cells, "density", min_cluster_size=5)
    assert "n_clusters_proba" in cells.obsm
    with pytest.warns(UserWarning, match="No cluster"):
        run(cells, "density", min_cluster_size=55)
    assert cells.uns["n_clusters"]["n_clusters"] == 0
    assert cells.obs["n_clusters"].isna().all()
    assert "n_clusters_proba" not in cells.obsm
    cells.write_h5ad(tmp_path / "cells.h5ad")


# ----------------------------------------------------------------------------------------
# errors change nothing


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"method": "elbow"}, ValueError, "`method` must be one of"),
        ({"method": "density", "obsp": "connectivities"}, ValueError, "not at a graph"),
        ({"use_rep": "X_rep", "obsp": "connectivities"}, ValueError, "can't go together"),
        ({"obsp": "x", "neighbors_key": "neighbors"}, ValueError, "both"),
        ({"obsp": "missing"}, KeyError, "missing"),
        ({"neighbors_key": "missing"}, KeyError, "missing"),
        ({"use_rep": "X_missing"}, KeyError, "X_missing"),
        ({"layer": "missing"}, KeyError, "missing"),
        ({"layer": "raw", "use_rep": "X_rep"}, ValueError, "both"),
        ({"markers": ["CD99"]}, KeyError, "CD99"),
        ({"key_added": "population"}, ValueError, "overwrite"),
        ({"key_added": "rep"}, ValueError, "overwrite"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"min_cluster_size": 0}, ValueError, "`min_cluster_size`"),
        ({"method": "tree", "obsp": "connectivities"}, ValueError, "not at a graph"),
        (
            {"method": "tree", "method_kwargs": {"significance": -1}},
            ValueError,
            "`significance` must be 0 or more",
        ),
        ({"random_state": -1}, ValueError, "`random_state`"),
    ],
)
def test_errors(linked, same, kwargs, error, match):
    before = same.look(linked)
    with pytest.raises(error, match=match):
        run(linked, **kwargs)
    same(linked, before)


@pytest.mark.filterwarnings("ignore::scmoe.pp.ScaleWarning")
def test_values_that_say_nothing(blobs, same):
    blobs.layers["nan"] = np.where(np.arange(8) == 2, np.nan, blobs.X).astype(np.float32)
    blobs.layers["flat"] = np.ones_like(blobs.X)
    blobs.layers["huge"] = blobs.X * np.float32(1e25)
    for layer, match in (
        ("nan", "CD8"),
        ("flat", "same for all cells"),
        ("huge", "no distances between cells"),
    ):
        before = same.look(blobs)
        with pytest.raises(ValueError, match=match):
            run(blobs, layer=layer)
        same(blobs, before)
    with pytest.raises(ValueError, match="9 cells"):
        run(blobs[:9].copy(), "density")
    with pytest.raises(ValueError, match="view"):
        run(blobs[:100])


def test_does_not_write_over_a_clustering_nor_the_other_way_round(linked):
    run(linked, key_added="mine")
    with pytest.raises(ValueError, match="overwrite"):
        cluster(linked, key_added="mine", progress=False)
    linked.uns["other"] = {"params": {}, "markers": [], "version": ""}
    with pytest.raises(ValueError, match="overwrite"):
        run(linked, key_added="other")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="SCMOE_DATA_DIR names no folder of real data")
def test_real_cells():
    cells = levine32_balanced()
    cells = cells[cells.obs["population"].notna()].copy()
    scmoe.pp.arcsinh(cells, cofactor=5)
    for method, least in (("stability", 0.6), ("tree", 0.75)):
        run(cells, method)
        assert 9 <= cells.uns["n_clusters"]["n_clusters"] <= 20
        assert adjusted_rand_score(cells.obs["population"], cells.obs["n_clusters"]) > least
