"""One line of a scanpy workflow: what it writes, and what it leaves alone."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from lightning.pytorch.callbacks import Callback
from scipy import sparse

from scmoe import model
from scmoe.metrics import accuracy
from scmoe.model import MoESimVAE
from scmoe.similarity import Blend, CoAssociation, DensityTree, Graph, Knn, stored_graph
from scmoe.tl import cluster
from scmoe.tl._results import write
from scmoe.tree import Tree


def run(adata, n_clusters=8, *, epochs=2, train_kwargs=None, **kwargs):
    train_kwargs = {"max_epochs": epochs, "accelerator": "cpu", **(train_kwargs or {})}
    return cluster(
        adata, n_clusters=n_clusters, progress=False, train_kwargs=train_kwargs, **kwargs
    )


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that the similarity gets to see."""
    seen = []
    bind = CoAssociation.bind

    def spy(self, adata, profile, **kwargs):
        seen.append(stored_graph(adata, self.neighbors_key))
        return bind(self, adata, profile, **kwargs)

    monkeypatch.setattr(CoAssociation, "bind", spy)
    return seen


# ----------------------------------------------------------------------------------------
# what is written


def test_slots(linked, same):
    key = "mine"
    before = same.look(linked)
    assert run(linked, key_added=key, model_kwargs={"n_latent": 5}) is None

    label = linked.obs[key]
    names = list(label.cat.categories)
    assert names == [str(k) for k in range(len(names))]
    assert all(type(name) is str for name in names)
    assert not label.isna().any()
    assert set(label) == set(names)
    size = label.value_counts().loc[names]
    assert size.is_monotonic_decreasing

    z = linked.obsm[f"X_{key}"]
    assert z.shape == (600, 5)
    assert z.dtype == np.float32
    proba = linked.obsm[f"{key}_proba"]
    assert isinstance(proba, pd.DataFrame)
    assert list(proba.columns) == [str(k) for k in range(8)]
    assert list(proba.index) == list(linked.obs_names)
    assert (proba.dtypes == np.float32).all()
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    assert list(proba.idxmax(1)) == list(label)

    record = linked.uns[key]
    assert set(record) == {
        "params",
        "n_clusters",
        "markers",
        "history",
        "tree",
        "model",
        "version",
        "manifest",
    }
    outlier = linked.obs[f"{key}_outlier"]
    assert outlier.dtype == np.float32
    assert (outlier > 0.9).mean() == pytest.approx(0.1, abs=0.02)
    assert record["n_clusters"] == len(names)
    assert list(record["markers"]) == list(linked.var_names)
    history = record["history"]
    terms = {"loss", "reconstruction", "similarity", "depict", "kl"}
    assert set(history) >= terms | {"occupied_experts", "similar_pairs"}
    assert len(history) == 2
    params = record["params"]
    assert params["n_clusters"] == 8
    assert params["random_state"] == 0
    assert params["similarity"]["name"] == "DensityTree"
    assert params["neighbors"] == "not used"
    assert Tree.from_record(record["tree"]).n_clusters == 5
    assert params["model_kwargs"] == {"n_latent": 5}
    assert params["train_kwargs"]["max_epochs"] == 2

    # nothing else
    del linked.obs[key], linked.obs[f"{key}_outlier"], linked.uns[key]
    del linked.obsm[f"X_{key}"], linked.obsm[f"{key}_proba"]
    same(linked, before)


def test_categories_are_in_natural_order(linked, monkeypatch):
    label = np.array([str(i % 12) for i in range(600)], dtype=object)

    def predict_blocks(*args):
        for place, part, *others in original(*args):
            yield place, {**part, "expert": label[place].astype(int)}, *others

    original = model.predict_blocks
    monkeypatch.setattr(model, "predict_blocks", predict_blocks)
    run(linked, 15)
    assert list(linked.obs["scmoe"].cat.categories) == [str(k) for k in range(12)]
    assert list(linked.obs["scmoe"]) == list(label)
    assert linked.uns["scmoe"]["n_clusters"] == 12


@pytest.mark.slow
def test_finds_the_populations(linked):
    run(linked, 10, epochs=60)
    assert accuracy(linked.obs["population"], linked.obs["scmoe"]) > 0.95


def test_copy(linked, same):
    before = same.look(linked)
    result = run(linked, copy=True)
    same(linked, before)
    assert isinstance(result, ad.AnnData)
    assert {"scmoe"} <= set(result.obs)
    assert {"X_scmoe", "scmoe_proba"} <= set(result.obsm)
    assert "scmoe" in result.uns
    run(linked)
    assert_same_result(result, linked)


def assert_same_result(first, second, key="scmoe"):
    np.testing.assert_array_equal(first.obsm[f"{key}_proba"], second.obsm[f"{key}_proba"])
    np.testing.assert_array_equal(first.obsm[f"X_{key}"], second.obsm[f"X_{key}"])
    assert list(first.obs[key]) == list(second.obs[key])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"layer": "raw", "markers": ["CD3", "CD4", "CD19"]},
        {"use_rep": "X_rep", "similarity": Knn(use_rep="X")},
        {"model_kwargs": {"n_latent": 3}, "similarity": CoAssociation(fine_resolutions=())},
    ],
    ids=lambda k: "-".join(k) or "defaults",
)
def test_h5ad(linked, tmp_path, kwargs):
    run(linked, **kwargs)
    linked.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert_same_result(again, linked)
    assert list(again.obs["scmoe"].cat.categories) == list(linked.obs["scmoe"].cat.categories)
    assert list(again.obsm["scmoe_proba"].columns) == list(linked.obsm["scmoe_proba"].columns)
    record = again.uns["scmoe"]
    assert set(record["params"]) == set(linked.uns["scmoe"]["params"])
    np.testing.assert_allclose(record["history"], linked.uns["scmoe"]["history"])
    assert list(record["markers"]) == list(linked.uns["scmoe"]["markers"])


def test_h5ad_after_odd_parameters(linked, tmp_path):
    odd = {"callbacks": [Callback()], "num_sanity_val_steps": 0, "gradient_clip_val": None}
    run(linked, train_kwargs=odd, model_kwargs={"activation": "relu"})
    linked.write_h5ad(tmp_path / "cells.h5ad")
    params = ad.read_h5ad(tmp_path / "cells.h5ad").uns["scmoe"]["params"]
    assert params["model_kwargs"]["activation"] == "relu"
    assert params["train_kwargs"]["max_epochs"] == 2


@pytest.mark.slow
def test_two_results_side_by_side(linked):
    run(linked, key_added="a")
    first = linked.copy()
    run(linked, 2, key_added="b")
    assert_same_result(linked, first, "a")
    assert linked.uns["b"]["n_clusters"] <= 2


@pytest.mark.slow
def test_a_second_run_replaces_the_first(linked):
    run(linked, 12)
    run(linked, 3)
    assert linked.obsm["scmoe_proba"].shape == (600, 3)
    assert linked.uns["scmoe"]["params"]["n_clusters"] == 3
    assert set(linked.obs["scmoe"].cat.categories) <= {"0", "1", "2"}


def test_one_population_is_one_cluster():
    x = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)
    cells = ad.AnnData(x)
    with pytest.warns(UserWarning, match="into one cluster: their density has no clear valley"):
        run(cells, None)
    assert cells.uns["scmoe"]["n_clusters"] == 1
    assert len(cells.uns["scmoe"]["tree"]["threshold"]) == 0


def test_every_expert_has_cells(linked, monkeypatch):
    monkeypatch.setattr("scmoe.model._moesimvae_start.SPARE", 0)
    with pytest.warns(UserWarning, match="All 5 experts own cells"):
        run(linked, None)


def test_two_clusters(linked):
    run(linked, 2, epochs=5)
    assert set(linked.obs["scmoe"]) <= {"0", "1"}
    assert linked.obsm["scmoe_proba"].shape == (600, 2)


# ----------------------------------------------------------------------------------------
# seeds


def global_states():
    numpy = np.random.get_state()  # noqa: NPY002
    return random.getstate(), (numpy[0], numpy[1].tobytes(), *numpy[2:]), torch.get_rng_state()


def test_global_generators_are_given_back(linked):
    before = global_states()
    run(linked)
    after = global_states()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_global_generators_are_given_back_after_an_error(linked):
    before = global_states()
    with pytest.raises(RuntimeError, match="disk"):
        run(linked, train_kwargs={"callbacks": [Breaks()]})
    after = global_states()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


@pytest.mark.slow
def test_global_generators_do_not_decide(linked):
    first = run(linked, copy=True)
    torch.rand(7)
    random.random()
    assert_same_result(run(linked, copy=True), first)


@pytest.mark.slow
def test_seed(linked):
    first, again, other = (run(linked, copy=True, random_state=s) for s in (7, np.int64(7), 8))
    assert_same_result(first, again)
    assert not np.allclose(first.obsm["X_scmoe"], other.obsm["X_scmoe"])
    assert first.uns["scmoe"]["params"]["random_state"] == 7


@pytest.mark.slow
def test_generator(linked):
    drawn = int(np.random.default_rng(5).integers(2**31))
    generator = np.random.default_rng(5)
    first = run(linked, copy=True, random_state=generator)
    assert first.uns["scmoe"]["params"]["random_state"] == drawn
    assert_same_result(run(linked, copy=True, random_state=drawn), first)
    # the generator moves on
    second = run(linked, copy=True, random_state=generator)
    assert second.uns["scmoe"]["params"]["random_state"] != drawn
    assert not np.allclose(first.obsm["X_scmoe"], second.obsm["X_scmoe"])


# ----------------------------------------------------------------------------------------
# which graph


@pytest.mark.parametrize("n_features", [8, 60])
def test_builds_a_graph_where_there_is_none(blobs, caplog, graphs, same, n_features):
    if n_features > 8:
        rng = np.random.default_rng(0)
        X = np.concatenate([blobs.X, rng.normal(size=(600, 52), scale=0.1)], axis=1)
        blobs = ad.AnnData(X.astype(np.float32), obs=blobs.obs)
    before = same.look(blobs)
    with caplog.at_level(logging.INFO, logger="scmoe"):
        run(blobs, similarity=CoAssociation())
    said = [r for r in caplog.records if r.name == "scmoe" and "neighbour graph" in r.message]
    assert len(said) == 1
    assert "sc.pp.neighbors" in said[0].message
    assert not blobs.obsp
    assert set(blobs.uns) == {"scmoe"}
    assert blobs.uns["scmoe"]["params"]["neighbors"] != "given"
    assert graphs[0].shape == (600, 600)
    assert 14 <= graphs[0].getnnz(1).mean() <= 30
    population = blobs.obs["population"].cat.codes.to_numpy()
    edges = graphs[0].tocoo()
    assert (population[edges.row] == population[edges.col]).mean() > 0.98
    del blobs.obs["scmoe"], blobs.obs["scmoe_outlier"], blobs.uns["scmoe"]
    del blobs.obsm["X_scmoe"], blobs.obsm["scmoe_proba"]
    same(blobs, before)


def test_says_nothing_where_there_is_a_graph(linked, caplog, graphs):
    run(linked, similarity=CoAssociation())
    assert "No neighbour graph" not in caplog.text
    assert linked.uns["scmoe"]["params"]["neighbors"] == "given"
    np.testing.assert_array_equal(graphs[0].toarray(), linked.obsp["connectivities"].toarray())


def other_graph(adata, key="other"):
    """Another graph in ``.obsp[key]``, along a chain of the cells."""
    n = adata.n_obs
    chain = sparse.diags([np.ones(n - 1)] * 2, [-1, 1], shape=(n, n), format="csr")
    adata.obsp[key] = chain
    return chain.toarray()


def test_obsp(linked, graphs):
    expected = other_graph(linked)
    run(linked, obsp="other")
    np.testing.assert_array_equal(graphs[0].toarray(), expected)
    assert linked.uns["scmoe"]["params"]["obsp"] == "other"


def test_neighbors_key(linked, graphs):
    expected = other_graph(linked, "other_connectivities")
    linked.uns["other"] = {"connectivities_key": "other_connectivities"}
    run(linked, neighbors_key="other")
    np.testing.assert_array_equal(graphs[0].toarray(), expected)
    assert linked.uns["scmoe"]["params"]["neighbors_key"] == "other"


def test_neighbors_key_of_the_similarity(linked, graphs):
    expected = other_graph(linked, "other_connectivities")
    linked.uns["other"] = {"connectivities_key": "other_connectivities"}
    run(linked, similarity=CoAssociation(neighbors_key="other"))
    np.testing.assert_array_equal(graphs[0].toarray(), expected)
    run(linked, similarity=Graph(neighbors_key="other"))


def follows(adata, caplog, **kwargs):
    """What a clustering follows, by its record and by what it says."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="scmoe"):
        run(adata, **kwargs)
    params = adata.uns["scmoe"]["params"]
    said = [r.message for r in caplog.records if r.message.startswith("Clusters follow ")]
    return params["similarity"]["name"], params["neighbors"], *said


TREE = "Clusters follow the valleys of the density (DensityTree)"
GRAPH = "Clusters follow the neighbour graph, {} (CoAssociation)."
OTHER = TREE + ", not the neighbour graph in `.obsp`, which `neighbors_key` or `obsp` would name."


def test_tree_where_there_is_no_graph(blobs, caplog):
    assert follows(blobs, caplog) == ("DensityTree", "not used", TREE + ".")
    assert not blobs.obsp


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"n_pcs": 0}], ids=str)
def test_tree_where_the_graph_is_of_the_same_values(blobs, caplog, how):
    """Of up to 50 variables, scanpy looks at these, whatever principal components there are."""
    sc.pp.pca(blobs, n_comps=4)
    sc.pp.neighbors(blobs, transformer="sklearn", **how)
    assert follows(blobs, caplog) == ("DensityTree", "not used", OTHER)
    chosen = follows(blobs, caplog, markers=["CD3", "CD4", "CD19"])
    assert chosen == ("DensityTree", "not used", OTHER)


def test_tree_where_nothing_says_what_the_graph_is_of(linked, caplog):
    assert follows(linked, caplog) == ("DensityTree", "not used", OTHER)


@pytest.mark.slow
@pytest.mark.parametrize("rep", ["X_pca", "X_int"])
def test_graph_of_another_representation(blobs, caplog, graphs, rep):
    """Principal components, or what a correction of batches wrote."""
    sc.pp.pca(blobs, n_comps=4)
    blobs.obsm["X_int"] = blobs.obsm["X_pca"] + 1
    sc.pp.neighbors(blobs, use_rep=rep, transformer="sklearn")
    said = GRAPH.format(f"made of {rep}, not of X")
    assert follows(blobs, caplog) == ("CoAssociation", "given", said)
    np.testing.assert_array_equal(graphs[0].toarray(), blobs.obsp["connectivities"].toarray())
    said = GRAPH.format("as the values are those of a representation, not of markers")
    assert follows(blobs, caplog, use_rep=rep) == ("CoAssociation", "given", said)
    other = "X_int" if rep == "X_pca" else "X_pca"
    said = GRAPH.format(f"made of {rep}, not of {other}")
    assert follows(blobs, caplog, use_rep=other) == ("CoAssociation", "given", said)


@pytest.mark.slow
def test_representation_without_a_graph(blobs, caplog):
    """Components and codes have no markers to cut by: a graph is built."""
    blobs.obsm["X_rep"] = blobs.X[:, :4].copy()
    said = GRAPH.format("as the values are those of a representation, not of markers")
    assert follows(blobs, caplog, use_rep="X_rep") == (
        "CoAssociation",
        "15 nearest, built here",
        said,
    )
    tree = follows(blobs, caplog, use_rep="X_rep", similarity=DensityTree())
    assert tree == ("DensityTree", "not used")


def test_graph_of_the_components_of_many_variables(blobs, caplog):
    rng = np.random.default_rng(0)
    x = np.concatenate([blobs.X, rng.normal(size=(600, 52), scale=0.1)], axis=1)
    blobs = ad.AnnData(x.astype(np.float32), obs=blobs.obs)
    sc.pp.pca(blobs, n_comps=10)
    sc.pp.neighbors(blobs, transformer="sklearn")
    said = GRAPH.format("made of X_pca, not of X")
    assert follows(blobs, caplog) == ("CoAssociation", "given", said)


@pytest.mark.slow
def test_a_graph_that_was_asked_for(linked, caplog):
    said = GRAPH.format("the one that was asked for")
    for asked in ({"neighbors_key": "neighbors"}, {"obsp": "connectivities"}):
        assert follows(linked, caplog, **asked) == ("CoAssociation", "given", said)


@pytest.mark.slow
def test_a_similarity_that_was_asked_for(blobs, caplog):
    sc.pp.neighbors(blobs, use_rep="X", transformer="sklearn")
    assert follows(blobs, caplog, similarity=CoAssociation()) == ("CoAssociation", "given")
    sc.pp.pca(blobs, n_comps=4)
    sc.pp.neighbors(blobs, use_rep="X_pca", transformer="sklearn")
    assert follows(blobs, caplog, similarity=DensityTree()) == ("DensityTree", "not used")


@pytest.mark.slow
def test_seed_of_the_tree(blobs):
    """That of the clustering by default; one that was given stays."""
    run(blobs, random_state=7)
    assert blobs.uns["scmoe"]["params"]["similarity"]["random_state"] == 7
    run(blobs, random_state=7, similarity=DensityTree(random_state=3))
    assert blobs.uns["scmoe"]["params"]["similarity"]["random_state"] == 3


# ----------------------------------------------------------------------------------------
# which values


def markers_of(adata, key="scmoe"):
    return list(adata.uns[key]["markers"])


def test_markers(linked):
    chosen = ["CD56", "CD3", "CD19"]
    run(linked, markers=chosen)
    assert markers_of(linked) == chosen
    alone = linked[:, chosen].copy()
    run(alone)
    assert_same_result(alone, linked)


def test_one_marker_as_a_string(linked):
    run(linked, markers="CD3")
    assert markers_of(linked) == ["CD3"]


def test_channels_that_are_no_markers_are_left_out(linked):
    linked.var["kind"] = ["mass", "mass", "time", "fluor", "copy", "mass", "other", "mass"]
    linked.X[:, 2] = np.nan  # nobody looks there
    run(linked)
    assert markers_of(linked) == ["CD3", "CD4", "CD19", "CD14", "CD45"]
    run(linked, markers=["CD3", "CD56"])
    assert markers_of(linked) == ["CD3", "CD56"]


def test_kinds_that_tell_nothing_apart(linked):
    linked.var["kind"] = "protein"
    run(linked)
    assert markers_of(linked) == list(linked.var_names)


@pytest.mark.slow
def test_layer(linked):
    linked.layers["good"] = linked.X.copy()
    expected = run(linked, copy=True)
    linked.X[:] = np.nan
    run(linked, layer="good")
    assert_same_result(linked, expected)
    assert linked.uns["scmoe"]["params"]["layer"] == "good"


@pytest.mark.slow
@pytest.mark.parametrize("as_frame", [False, True])
def test_use_rep(linked, as_frame):
    rep = linked.X[:, :4].copy()
    linked.obsm["X_rep"] = pd.DataFrame(rep, index=linked.obs_names) if as_frame else rep
    alone = ad.AnnData(rep, obs=linked.obs, obsp={"connectivities": linked.obsp["connectivities"]})
    linked.X = sparse.csr_matrix(linked.X)  # nobody looks there
    run(linked, use_rep="X_rep")
    run(alone, similarity=CoAssociation(), model_kwargs={"scaling": "common"})
    assert_same_result(linked, alone)
    assert markers_of(linked) == [f"X_rep_{i}" for i in range(4)]


@pytest.mark.slow
def test_scaling_of_a_representation_is_a_matter_of_choice(linked):
    linked.obsm["X_rep"] = linked.X[:, :4].copy()
    run(linked, use_rep="X_rep", model_kwargs={"scaling": "quantile"})
    assert linked.uns["scmoe"]["params"]["model_kwargs"] == {"scaling": "quantile"}
    linked.obsm["X_umap"] = linked.X[:, :2].copy()
    for preset, scaling in (("cytof", "common"), ("synthetic", "minmax")):
        run(linked, use_rep="X_rep", preset=preset)
        assert linked.uns["scmoe"]["params"]["model_kwargs"]["scaling"] == scaling


@pytest.mark.slow
def test_use_rep_x_is_the_default(linked):
    assert_same_result(run(linked, use_rep="X", copy=True), run(linked, copy=True))


def test_kwargs_reach_the_model(linked, tmp_path):
    run(linked, model_kwargs={"n_latent": 3}, train_kwargs={"batch_size": 100})
    assert linked.obsm["X_scmoe"].shape == (600, 3)


# ----------------------------------------------------------------------------------------
# the saved model


@pytest.mark.slow
def test_saved_model_gives_the_labels(linked, tmp_path):
    run(linked, save_model=tmp_path / "model")
    model = MoESimVAE.load(str(tmp_path / "model"), linked.copy(), accelerator="cpu")
    assert list(model.predict()) == list(linked.obs["scmoe"])
    proba = linked.obsm["scmoe_proba"]
    np.testing.assert_allclose(model.predict_proba(), proba, atol=1e-6)
    some = linked[::3].copy()
    np.testing.assert_allclose(model.predict_proba(some), proba.iloc[::3], atol=1e-5)


def test_saved_model_of_some_markers(linked, tmp_path):
    chosen = ["CD56", "CD3", "CD19"]
    run(linked, markers=chosen, save_model=tmp_path / "model")
    adata = linked[:, chosen].copy()
    model = MoESimVAE.load(str(tmp_path / "model"), adata, accelerator="cpu")
    assert list(model.predict()) == list(linked.obs["scmoe"])
    # and of cells with all markers
    assert list(model.predict(linked.copy())) == list(linked.obs["scmoe"])


@pytest.mark.slow
def test_number_of_threads_is_given_back(linked):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run(linked)
        assert torch.get_num_threads() == 2
        with pytest.raises(RuntimeError, match="disk"):
            run(linked, train_kwargs={"callbacks": [Breaks()]})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_folder_of_the_model_that_exists_is_said_before_training(linked, tmp_path, same):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("keep")
    before = same.look(linked)
    with pytest.raises(ValueError, match=r"`save_model`.*model' exists"):
        run(linked, save_model=tmp_path / "model", train_kwargs={"callbacks": [Breaks()]})
    same(linked, before)
    assert (tmp_path / "model" / "mine.txt").read_text() == "keep"


# ----------------------------------------------------------------------------------------
# mistakes: a named error, and adata as it was


def set_x(row, column, value):
    def spoil(adata):
        adata.X[row, column] = value

    return spoil


def constant(adata):
    adata.X[:, [1, 6]] = 0.5


def duplicate_cells(adata):
    adata.obs_names = ["twice", "twice", *adata.obs_names[2:]]


def duplicate_markers(adata):
    adata.var_names = ["CD3", "CD3", *adata.var_names[2:]]


def sparse_x(adata):
    adata.X = sparse.csr_matrix(adata.X)


def integer_x(adata):
    adata.X = (100 * adata.X).astype(np.int64)


def no_x(adata):
    adata.X = None


def negative_graph(adata):
    adata.obsp["connectivities"].data[3] = -1


def graph_with_nan(adata):
    adata.obsp["connectivities"].data[3] = np.nan


def empty_graph(adata):
    adata.obsp["connectivities"] = sparse.csr_matrix((600, 600))


def lost_graph(adata):
    del adata.obsp["connectivities"]


def nan_in_rep(adata):
    adata.obsm["X_rep"][3, 1] = np.nan


def nan_in_layer(adata):
    adata.layers["raw"][3, 1] = np.nan


def constant_in_rep(adata):
    adata.obsm["X_rep"][:, 2] = 1


MISTAKES = [
    (set_x(0, 0, -np.inf), {}, ValueError, r"NaN or infinite values in 'CD3'"),
    (nan_in_layer, {"layer": "raw"}, ValueError, r"layers\['raw'\].*NaN .*'CD4'"),
    (nan_in_rep, {"use_rep": "X_rep"}, ValueError, r"obsm\['X_rep'\].*NaN .*'X_rep_1'"),
    (constant, {}, ValueError, r"Constant in all cells: 'CD4', 'CD123'"),
    (constant_in_rep, {"use_rep": "X_rep"}, ValueError, r"Constant in all cells: 'X_rep_2'"),
    (duplicate_cells, {}, ValueError, r"Cell names are not unique: 'twice'.*obs_names_make"),
    (duplicate_markers, {}, ValueError, r"Marker names are not unique: 'CD3'"),
    (sparse_x, {}, ValueError, r"`adata\.X` is sparse"),
    (integer_x, {}, ValueError, r"`adata\.X` holds int64 values.*scmoe\.pp\.arcsinh"),
    (no_x, {}, ValueError, r"`adata\.X` is empty"),
    (negative_graph, {"similarity": CoAssociation()}, ValueError, "negative"),
    (graph_with_nan, {"similarity": CoAssociation()}, ValueError, "NaN or infinite weights"),
    (empty_graph, {"similarity": CoAssociation()}, ValueError, "no edge"),
    (None, {"n_clusters": 1}, ValueError, "at least 2.*got 1"),
    (None, {"n_clusters": 601}, ValueError, r"fewer cells \(600\) than clusters \(601\)"),
    (None, {"layer": "counts"}, KeyError, r"layer 'counts'.*\['raw'\]"),
    (None, {"use_rep": "X_pca"}, KeyError, r"'X_pca'.*X_rep"),
    (None, {"markers": ["CD3", "CD99"]}, KeyError, r"'CD99'"),
    (None, {"markers": []}, ValueError, "`markers` is empty"),
    (None, {"markers": ["CD3"], "use_rep": "X_rep"}, ValueError, "`markers`"),
    (None, {"obsp": "mine"}, KeyError, r"'mine'.*connectivities"),
    (None, {"neighbors_key": "mine"}, KeyError, r"'mine'.*sc\.pp\.neighbors"),
    (lost_graph, {"neighbors_key": "neighbors"}, KeyError, "'connectivities'"),
    (None, {"similarity": Graph(neighbors_key="mine")}, KeyError, r"'mine'"),
    (None, {"similarity": Knn(use_rep="X_tsne")}, KeyError, "'X_tsne'"),
    (nan_in_rep, {"similarity": Knn(use_rep="X_rep")}, ValueError, "X_rep"),
    (None, {"obsp": "connectivities", "neighbors_key": "neighbors"}, ValueError, "both"),
    (None, {"layer": "raw", "use_rep": "X_rep"}, ValueError, "both"),
    (None, {"random_state": -1}, ValueError, "`random_state`"),
    (None, {"random_state": np.random.RandomState(0)}, ValueError, "`random_state`"),
    (None, {"model_kwargs": {"n_layers": 3}}, TypeError, "n_layers"),
]


def test_sizes_are_looked_at_before_a_graph_is_built(linked, monkeypatch):
    del linked.obsp["connectivities"]
    monkeypatch.setattr("scmoe.tl._cluster_models.build_graph", lambda *args: 1 / 0)
    with pytest.raises(ValueError, match='`n_latent` must be "auto", or a whole number'):
        run(linked, n_latent="3")


@pytest.mark.parametrize(("spoil", "kwargs", "error", "match"), MISTAKES)
def test_mistakes(linked, same, spoil, kwargs, error, match):
    if spoil is not None:
        spoil(linked)
    before = same.look(linked)
    with pytest.raises(error, match=match):
        run(linked, **kwargs)
    same(linked, before)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_clusters": True}, '`n_clusters` must be "auto", or a whole number of at least 2'),
        ({"n_latent": [2, 0]}, "`n_latent` must be .*a list"),
        ({"layer": 3}, "`layer` must be a string"),
        ({"model_kwargs": [("n_hidden", 3)]}, "`model_kwargs` must be a mapping"),
        ({"landmarks": "yes"}, "`landmarks` must be True or False"),
        ({"progress": 1}, "`progress` must be True or False"),
    ],
)
def test_options_of_another_kind(linked, options, match):
    with pytest.raises(ValueError, match=match):
        cluster(linked, **options)


def test_graph_of_the_wrong_shape(linked, same):
    # only past anndata's own checks can it get there
    good = linked.obsp["connectivities"]
    before = same.look(linked)
    linked._obsp["connectivities"] = wrong = sparse.eye(500, format="csr")
    with pytest.raises(ValueError, match=r"(?s)shape.*\(500, 500\).*\(600, 600\)"):
        run(linked)
    assert linked._obsp["connectivities"] is wrong
    linked._obsp["connectivities"] = good
    same(linked, before)


def test_too_few_cells(linked, same):
    adata = linked[:1].copy()
    before = same.look(adata)
    with pytest.raises(ValueError, match="at least 2 cells, got 1"):
        run(adata, 2)
    same(adata, before)


def test_fewer_cells_than_clusters(linked, same):
    adata = linked[:7].copy()
    before = same.look(adata)
    with pytest.raises(ValueError, match=r"fewer cells \(7\) than clusters \(8\)"):
        run(adata, 8)
    same(adata, before)


def test_view(linked, same):
    before = same.look(linked)
    view = linked[:300]
    with pytest.raises(ValueError, match=r"view.*adata\.copy\(\)"):
        run(view)
    assert view.is_view
    same(linked, before)


class Breaks(Callback):
    """Fail in the middle of the training."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise RuntimeError("the disk is full")


class PressesCtrlC(Callback):
    """Send a real SIGINT from another thread, then go on until it arrives."""

    def __init__(self):
        self.sent = False

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 1 and not self.sent:
            self.sent = True
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        if self.sent:
            time.sleep(0.01)


@pytest.mark.slow
def test_interrupt_in_the_middle_of_training(linked, same):
    before, states = same.look(linked), global_states()
    handler = signal.getsignal(signal.SIGINT)
    callback = PressesCtrlC()
    with pytest.raises(KeyboardInterrupt):
        run(linked, epochs=500, train_kwargs={"callbacks": [callback]})
    assert callback.sent
    same(linked, before)
    assert signal.getsignal(signal.SIGINT) is handler
    assert global_states()[:2] == states[:2]
    # and the next run works
    run(linked)
    assert "scmoe" in linked.obs


def test_error_in_the_middle_of_training(linked, same):
    before = same.look(linked)
    with pytest.raises(RuntimeError, match="the disk is full"):
        run(linked, train_kwargs={"callbacks": [Breaks()]})
    same(linked, before)


def test_error_while_results_are_collected(linked, same, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "fill_block", fail)
    before = same.look(linked)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(linked)
    same(linked, before)


@pytest.mark.slow
def test_earlier_result_survives_a_failed_run(linked, same):
    run(linked)
    before = same.look(linked)
    with pytest.raises(RuntimeError, match="the disk is full"):
        run(linked, 5, train_kwargs={"callbacks": [Breaks()]})
    same(linked, before)


# -- what a session of an analyst runs into ------------------------------------------------


def with_time(blobs):
    """Blobs as the FCS reader gives them, with a clock that outweighs every marker."""
    time = np.random.default_rng(0).uniform(0, 1e5, (blobs.n_obs, 1)).astype(np.float32)
    var = pd.concat([blobs.var, pd.DataFrame({"kind": ["time"]}, index=["Time"])])
    return ad.AnnData(np.hstack([blobs.X, time]), obs=blobs.obs.copy(), var=var)


def test_a_graph_of_all_channels_is_replaced_and_said(blobs, graphs):
    adata = with_time(blobs)
    sc.pp.neighbors(adata, use_rep="X", transformer="sklearn")
    with pytest.warns(UserWarning, match=r"'Time', which are no markers"):
        run(adata, similarity=CoAssociation())
    edges = graphs[0].tocoo()
    population = adata.obs["population"].cat.codes.to_numpy()
    assert (population[edges.row] == population[edges.col]).mean() > 0.98
    assert "Time" in adata.uns["scmoe"]["params"]["neighbors"]


def test_a_graph_of_markers_is_taken_though_there_is_time(blobs, graphs):
    adata = with_time(blobs)
    adata.obsm["X_markers"] = adata.X[:, :-1].copy()
    sc.pp.neighbors(adata, use_rep="X_markers", transformer="sklearn")
    run(adata)
    assert adata.uns["scmoe"]["params"]["neighbors"] == "given"


def test_saved_model_of_a_layer_asks_for_the_layer(linked, tmp_path):
    run(linked, layer="raw", save_model=tmp_path / "m")
    loaded = MoESimVAE.load(str(tmp_path / "m"), linked)
    assert list(loaded.predict()) == list(linked.obs["scmoe"])
    with pytest.raises(KeyError, match="raw"):
        loaded.predict(ad.AnnData(linked.X, obs=linked.obs, var=linked.var))


@pytest.mark.slow
def test_cells_are_let_go(linked):
    run(linked)
    stores = MoESimVAE._setup_adata_manager_store, MoESimVAE._per_instance_manager_store
    before = [len(store) for store in stores]
    run(linked, key_added="again")
    assert [len(store) for store in stores] == before


def test_key_added_must_be_a_name(linked):
    with pytest.raises(ValueError, match="key_added"):
        run(linked, key_added=3)


def test_save_model_with_use_rep(linked, tmp_path):
    with pytest.raises(ValueError, match="use_rep"):
        run(linked, use_rep="X_rep", save_model=tmp_path / "m")


def test_a_similarity_without_graph_refuses_one(linked):
    linked.obsm["X_umap"] = linked.X[:, :2].copy()
    with pytest.raises(ValueError, match="does not look at a neighbour graph"):
        run(linked, similarity=Knn(), obsp="connectivities")
    run(linked, similarity=Knn())
    assert linked.uns["scmoe"]["params"]["neighbors"] == "not used"


def test_an_interrupt_between_two_slots_leaves_none(linked, same):
    before = same.look(linked)

    class Interrupted(dict):
        def __setitem__(self, key, value):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(
            (linked.obs, "scmoe", 1), (linked.obsm, "X_scmoe", linked.X), (Interrupted(), "a", 1)
        )
    same(linked, before)


# ----------------------------------------------------------------------------------------
# what belongs to somebody else


@pytest.mark.parametrize("key", ["umap", "neighbors", "a/b"])
def test_slots_of_others_are_not_overwritten(linked, same, key):
    linked.obsm["X_umap"] = linked.X[:, :2].copy()
    before = same.look(linked)
    with pytest.raises(ValueError, match="`key_added"):
        run(linked, key_added=key)
    same(linked, before)


@pytest.mark.slow
def test_a_result_of_ours_is_replaced(linked):
    run(linked)
    run(linked, random_state=1)
    assert linked.uns["scmoe"]["params"]["random_state"] == 1


def test_two_names_for_the_graph(linked):
    linked.uns["mine"] = {"connectivities_key": "connectivities"}
    similarity = CoAssociation(neighbors_key="mine")
    for named in ({"neighbors_key": "neighbors"}, {"obsp": "connectivities"}):
        with pytest.raises(ValueError, match="names its graph already"):
            run(linked, similarity=similarity, **named)


def test_a_named_graph_does_not_hide_another(linked, monkeypatch):
    """Both parts of a blend see the graph that they ask for."""
    linked.obsp["other"] = sparse.csr_matrix(([1.0, 1.0], ([0, 1], [1, 0])), shape=(600, 600))
    linked.uns["mine"] = {"connectivities_key": "other"}
    seen = {}
    bind = Graph.bind

    def watched(self, adata, profile, **kwargs):
        target = bind(self, adata, profile, **kwargs)
        seen[self.obsp or self.neighbors_key] = target.graph.nnz
        return target

    monkeypatch.setattr(Graph, "bind", watched)
    blend = Blend(Graph(neighbors_key="mine"), Graph(obsp="connectivities"))
    run(linked, similarity=blend)
    assert seen == {"mine": 2, "connectivities": linked.obsp["connectivities"].nnz}


def test_number_of_experts_has_one_name(linked):
    with pytest.raises(ValueError, match="n_clusters"):
        run(linked, model_kwargs={"n_experts": 4})


def test_a_place_for_the_model_is_looked_for_first(linked, tmp_path, same):
    (tmp_path / "file").write_text("")
    before = same.look(linked)
    with pytest.raises(ValueError, match="no folder that can be written to"):
        run(linked, save_model=tmp_path / "file" / "m")
    same(linked, before)
