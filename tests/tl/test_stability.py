"""Which clusters come again: what is run, what is written, and what is left alone."""

from __future__ import annotations

import hashlib
import json
import sys
from types import ModuleType

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from scmoe import get
from scmoe.similarity import Blend, CoAssociation, Custom, DensityTree, Graph, Labels
from scmoe.tl import _stability_runs, cluster, stability
from scmoe.tl._results import data_hash
from scmoe.tree import Tree

SLOTS = {"scmoe_consensus", "scmoe_ambiguity"}
CPU = {"accelerator": "cpu"}


@pytest.fixture
def calls(monkeypatch):
    """Runs that train nothing: they give the populations, and remember what they were asked."""
    asked = []

    def fake(cells, *, key_added, random_state, progress, **settings):
        asked.append({"seed": random_state, "cells": cells, **settings})
        labels = cells.obs["population"].cat.remove_unused_categories()
        cells.obs[key_added] = labels

    monkeypatch.setattr(_stability_runs, "cluster", fake)
    return asked


@pytest.fixture
def clustered(linked):
    """With what a clustering would have written."""
    linked.obs["scmoe"] = linked.obs["population"].cat.rename_categories(list("01234"))
    linked.uns["scmoe"] = {
        "params": {
            "model": "moe-sim-vae",
            "n_clusters": 7,
            "similarity": CoAssociation(majority=False).to_dict(),
            "neighbors": "given",
            "random_state": 5,
            "model_kwargs": {"n_hidden": 16},
            "train_kwargs": {"max_epochs": 3, "plan_kwargs": {"betas": np.array([0.9, 0.99])}},
        },
        "markers": np.array(["CD3", "CD4"]),
        "version": "0",
    }
    return linked


def run(adata, **kwargs):
    return stability(adata, **{"n_runs": 3, "progress": False, **kwargs})


# ----------------------------------------------------------------------------------------
# what is written


def test_slots(clustered, calls):
    assert run(clustered) is None
    consensus = clustered.obs["scmoe_consensus"]
    assert list(consensus.cat.categories) == list("01234")
    assert (consensus.astype(str) == clustered.obs["scmoe"].astype(str)).all()
    assert clustered.obs["scmoe_ambiguity"].dtype == np.float32
    assert (clustered.obs["scmoe_ambiguity"] == 0).all()
    labels = clustered.obsm["scmoe_runs"]
    assert list(labels) == ["run0", "run1", "run2"]
    assert (labels["run1"].astype(str) == clustered.obs["population"].astype(str)).all()
    record = clustered.uns["scmoe_stability"]
    table = record["clusters"]
    assert list(table.index) == list("01234")
    assert table["n_cells"].tolist() == table["n_consensus"].tolist() == [270, 150, 90, 60, 30]
    assert table["stable"].all()
    for column in ("jaccard", "lower", "upper", "found"):
        assert (table[column] == 1).all()
    assert record["jaccard"].shape == (5, 3)
    runs = record["runs"]
    assert runs["seed"].tolist() == [call["seed"] for call in calls]
    assert runs["n_cells"].tolist() == [600] * 3
    assert runs["n_clusters"].tolist() == [5] * 3
    assert runs["adjusted_rand"].tolist() == [1] * 3
    assert not runs["reference"].any()


@pytest.mark.parametrize("how", ["seeds", "subsets"])
def test_h5ad(clustered, calls, tmp_path, how):
    run(clustered, how=how)
    clustered.write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad")
    for name in ("clusters", "jaccard", "runs"):
        pd.testing.assert_frame_equal(
            back.uns["scmoe_stability"][name], clustered.uns["scmoe_stability"][name]
        )
    pd.testing.assert_frame_equal(back.obsm["scmoe_runs"], clustered.obsm["scmoe_runs"])
    # out of a file too the settings can be read, and the results be written over
    run(back, how=how)
    for call in (calls[0], calls[-1]):
        assert call["similarity"] == CoAssociation(majority=False, random_state=call["seed"])
    assert calls[-1]["train_kwargs"] == calls[0]["train_kwargs"]


def test_copy(clustered, calls, same):
    before = same.look(clustered)
    other = run(clustered, copy=True, key_added="mine")
    same(clustered, before)
    assert {"mine_consensus", "mine_ambiguity"} <= set(other.obs)
    assert "mine_stability" in other.uns
    assert "mine_runs" in other.obsm


def test_subsets(clustered, calls):
    run(clustered, how="subsets", share=0.25)
    labels = clustered.obsm["scmoe_runs"]
    assert labels.notna().sum().tolist() == [150] * 3
    assert not labels["run0"].notna().equals(labels["run1"].notna())
    nowhere = labels.isna().all(axis=1)
    assert nowhere.any()
    assert clustered.obs["scmoe_consensus"].isna().equals(nowhere)
    assert clustered.obs["scmoe_ambiguity"].isna().equals(nowhere)
    # the graph is that of the user, among the cells of the run
    cells = calls[0]["cells"]
    block = clustered[cells.obs_names].obsp["connectivities"]
    assert (cells.obsp["connectivities"] != block).nnz == 0
    assert clustered.uns["scmoe_stability"]["params"]["share"] == 0.25


# ----------------------------------------------------------------------------------------
# what is run


def test_settings_are_those_of_the_record(clustered, calls):
    run(clustered)
    first = calls[0]
    assert first["model"] == "moe-sim-vae"
    assert first["n_clusters"] == 7
    assert first["markers"] == ["CD3", "CD4"]
    assert first["similarity"] == CoAssociation(majority=False, random_state=first["seed"])
    assert first["model_kwargs"] == {"n_hidden": 16}
    assert first["train_kwargs"] == {"max_epochs": 3, "plan_kwargs": {"betas": [0.9, 0.99]}}


def test_settings_can_be_replaced(clustered, calls):
    run(
        clustered,
        n_clusters=4,
        similarity=Graph(),
        model_kwargs={"n_latent": 3},
        train_kwargs={"max_epochs": 1},
    )
    first = calls[0]
    assert first["n_clusters"] == 4
    assert first["similarity"] == Graph()
    assert first["model_kwargs"] == {"n_hidden": 16, "n_latent": 3}
    assert first["train_kwargs"]["max_epochs"] == 1
    assert "plan_kwargs" in first["train_kwargs"]


def test_a_preset_replaces_what_it_has(clustered, calls):
    run(clustered, preset="cytof")
    first = calls[0]
    assert first["preset"] == "cytof"
    assert first["n_clusters"] == 7
    assert "similarity" not in first
    assert first["model_kwargs"] == first["train_kwargs"] == {}


def test_seeds(clustered, calls):
    run(clustered)
    seeds = [call["seed"] for call in calls]
    assert len(set(seeds)) == 3
    # more runs begin with those of fewer
    run(clustered, n_runs=5)
    assert [call["seed"] for call in calls][3:6] == seeds
    # the seed of the clustering is none of them
    clustered.uns["scmoe"]["params"]["random_state"] = seeds[0]
    run(clustered)
    assert [call["seed"] for call in calls][-3:-1] == seeds[1:]


def test_every_run_has_another_order_and_a_tree_of_another_seed(clustered, calls):
    clustered.uns["scmoe"]["params"]["similarity"] = DensityTree(depth=0.3).to_dict()
    clustered.uns["scmoe"]["params"]["neighbors"] = "not used"
    run(clustered)
    orders = [list(call["cells"].obs_names) for call in calls]
    assert all(sorted(order) == sorted(clustered.obs_names) for order in orders)
    assert list(clustered.obs_names) not in orders
    assert orders[0] != orders[1]
    for call in calls:
        assert call["similarity"] == DensityTree(depth=0.3, random_state=call["seed"])
        block = clustered[call["cells"].obs_names]
        np.testing.assert_array_equal(call["cells"].X, block.X)
        assert (call["cells"].obsp["connectivities"] != block.obsp["connectivities"]).nnz == 0


def test_a_graph_that_was_built_is_built_again(clustered, calls):
    clustered.uns["scmoe"]["params"]["neighbors"] = "15 nearest, built here"
    run(clustered)
    assert "connectivities" not in calls[0]["cells"].obsp
    assert "connectivities" in clustered.obsp
    run(clustered, neighbors_key="neighbors")
    assert "connectivities" in calls[-1]["cells"].obsp


def test_functions_are_asked_about_the_numbers_of_all_cells(clustered, calls):
    asked = []

    def function(cells):
        asked.append(cells)
        return np.eye(len(cells))

    given = Blend(Custom(function), Labels("population"))
    run(clustered, how="subsets", similarity=given)
    first = calls[0]["similarity"].first
    target = first.bind(calls[0]["cells"], None)
    target.dense(np.array([0, 1, 2]))
    names = clustered.obs_names[asked[0]]
    assert list(names) == list(calls[0]["cells"].obs_names[:3])


def test_without_a_clustering(linked, calls):
    run(linked, key=None, model="moe-vae", n_clusters=5)
    assert calls[0]["model"] == "moe-vae"
    assert calls[0]["n_clusters"] == 5
    record = linked.uns["scmoe_stability"]
    assert record["runs"]["reference"].tolist() == [True, False, False]
    # in the names of that run
    assert list(record["clusters"].index) == ["T", "B", "NK", "mono", "pDC"]
    assert record["jaccard"]["run0"].isna().all()
    assert "scmoe" not in linked.uns
    assert "key" not in record["params"]


def test_clusters_of_others_with_settings(linked, calls):
    """A population that is cut by hand, and one that is not."""
    hand = linked.obs["population"].astype(str).to_numpy()
    cut = np.flatnonzero(hand == "T")[:100]
    hand[cut] = "T2"
    linked.obs["hand"] = hand
    run(linked, key="hand", model="moe-vae")
    table = linked.uns["hand_stability"]["clusters"]
    assert not table.loc["T2", "stable"]
    assert table.loc["T2", "jaccard"] == pytest.approx(100 / 270)
    assert table.loc["T2", "n_consensus"] == 0
    assert table.loc["B", "stable"]
    # what no run shows has no cells
    assert "T2" not in linked.obs["hand_consensus"].cat.categories


# ----------------------------------------------------------------------------------------
# mistakes


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"n_runs": 1}, ValueError, "n_runs"),
        ({"n_runs": 2.0}, ValueError, "n_runs"),
        ({"how": "bootstrap"}, ValueError, "how"),
        ({"how": "subsets", "share": 1.0}, ValueError, "share"),
        ({"share": 0}, ValueError, "share"),
        ({"share": np.nan}, ValueError, "share"),
        ({"how": "subsets", "share": 0.01}, ValueError, "fewer cells \\(6\\) than .* \\(7\\)"),
        ({"key": "other"}, KeyError, "key=None"),
        ({"key": "population"}, ValueError, "not written by `scmoe.tl.cluster`"),
        ({"model": "moe-vae"}, ValueError, "is a clustering by 'moe-sim-vae'"),
        ({"key_added": "a/b"}, ValueError, "key_added"),
        ({"random_state": -1}, ValueError, "random_state"),
        ({"n_jobs": 0}, ValueError, "n_jobs.*-1 for all cores"),
        ({"n_jobs": 1.5}, ValueError, "n_jobs"),
    ],
)
def test_mistakes(clustered, calls, same, kwargs, error, message):
    before = same.look(clustered)
    with pytest.raises(error, match=message):
        run(clustered, **kwargs)
    same(clustered, before)
    assert not calls


def test_slots_of_others(clustered, calls):
    clustered.obs["scmoe_consensus"] = 1.0
    with pytest.raises(ValueError, match="scmoe_consensus"):
        run(clustered)
    run(clustered, key_added="mine")


def test_what_the_record_cannot_hold(clustered, calls):
    params = clustered.uns["scmoe"]["params"]
    params["similarity"] = Blend(Custom(lambda cells: np.eye(len(cells))), Graph()).to_dict()
    with pytest.raises(ValueError, match=r"function .*similarity=\.\.\."):
        run(clustered)
    params["similarity"] = {"name": "Mine", "weight": 2}
    with pytest.raises(ValueError, match=r"'Mine'.*similarity=\.\.\."):
        run(clustered)
    run(clustered, similarity=Graph())
    # what it says of that is said when it is bound
    run(clustered, how="subsets", similarity=Custom("nowhere:function"))
    assert calls[-1]["similarity"] == Custom("nowhere:function")

    params["similarity"] = Graph().to_dict()
    callback = np.array(["<lightning.Callback object at 0x7f>"])
    params["train_kwargs"] = {"callbacks": callback}
    with pytest.raises(ValueError, match=r"callbacks.*was a Python object"):
        run(clustered)
    run(clustered, train_kwargs={"callbacks": []})
    params["train_kwargs"] = {"pretrain_kwargs": {"schedule": "Schedule(max_epochs=3)"}}
    with pytest.raises(ValueError, match=r"schedule.*Give it again, in `train_kwargs`"):
        run(clustered)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"save_model": "PATH", "copy": True, "key_added": "x"}, None),
        ({"train_kwargs": {"default_root_dir": "PATH"}}, r"default_root_dir.*not repeated"),
        ({"train_kwargs": {"log_save_dir": "PATH"}}, r"log_save_dir.*not repeated"),
        ({"train_kwargs": {"logger": True}}, r"logger.*not repeated"),
        ({"train_kwargs": {"ckpt_path": "PATH"}}, r"ckpt_path.*not repeated"),
        ({"train_kwargs": {"callbacks": ["os:system"]}}, r"callbacks.*not repeated"),
        (
            {"train_kwargs": {"plan_kwargs": {"lr": 1, "optimizer": "x"}}},
            "plan_kwargs.*mapping of",
        ),
        ({"train_kwargs": {"max_epochs": "PATH"}}, "max_epochs.*must be a whole number"),
        ({"train_kwargs": {"estimate_kwargs": {"a": [print]}}}, "estimate_kwargs.*numbers, words"),
        ({"train_kwargs": 3}, "is no mapping"),
        ({"model_kwargs": {"adata": "x"}}, "adata.*not repeated"),
        ({"model_kwargs": {"n_hidden": 1e9}}, "n_hidden.*must be a whole number"),
        ({"model_kwargs": {"n_experts": 5}}, "n_experts.*not repeated"),
        ({"n_clusters": "PATH"}, "n_clusters.*must be"),
        ({"layer": ["a"]}, "layer.*must be a string"),
        ({"model": "os:system"}, "model.*must be one of"),
        (
            {"similarity": {"name": "Custom", "function": "trap_of_mine:near"}},
            "no name is looked up",
        ),
        ({"similarity": {"name": "Knn", "use_rep": 3}}, "`use_rep` must be a string"),
        ({"similarity": "Graph"}, "Unknown similarity"),
        ({"similarity": {"name": ["Graph"]}}, "Unknown similarity"),
    ],
)
def test_records_of_strangers(clustered, calls, tmp_path, monkeypatch, change, match):
    """What a record says is repeated if it is a setting, and never a path or a function."""
    place, called = str(tmp_path / "place"), []
    trap = ModuleType("trap_of_mine")
    exec("def near(cells): called.append(1)", trap.__dict__)
    trap.called = called
    monkeypatch.setitem(sys.modules, "trap_of_mine", trap)
    text = json.dumps(change, default=repr).replace("PATH", place)
    change = change if "print" in text else json.loads(text)
    clustered.uns["scmoe"]["params"] |= change
    if match is None:
        run(clustered)
        assert not {"save_model", "copy", "key_added"} & set(calls[-1])
    else:
        with pytest.raises(ValueError, match=match):
            run(clustered)
        assert not calls
    assert not called
    assert not list(tmp_path.iterdir())


def test_damaged_records(clustered, calls):
    whole = clustered.uns["scmoe"]
    for damaged in ("x", [], {**whole, "params": "x"}, {**whole, "markers": np.arange(3)}):
        clustered.uns["scmoe"] = damaged
        with pytest.raises(ValueError, match=r"settings of one|not repeated"):
            run(clustered)
    clustered.uns["scmoe"] = {**whole, "manifest": "x"}
    whole["params"]["random_state"] = "x"
    run(clustered)


def test_a_graph_that_is_gone(clustered, calls):
    del clustered.obsp["connectivities"]
    with pytest.raises(KeyError, match="which is gone"):
        run(clustered)
    assert not calls


def test_values_that_have_changed(clustered, calls):
    x, names = clustered[:, ["CD3", "CD4"]].X, ["CD3", "CD4"]
    # as records of before blocks had hashes have it
    former = hashlib.sha256(repr((x.shape, names)).encode() + x.astype("<f4").tobytes())
    for data in (data_hash(x, names), former.hexdigest()):
        clustered.uns["scmoe"]["manifest"] = {"data": data}
        run(clustered)
    clustered.X = clustered.X + 1
    with pytest.warns(UserWarning, match="not those that 'scmoe' was made of"):
        run(clustered)


def test_interruption(clustered, monkeypatch, same):
    done = []

    def fake(cells, *, key_added, **settings):
        if done:
            raise KeyboardInterrupt
        cells.obs[key_added] = cells.obs["population"]
        done.append(1)

    monkeypatch.setattr(_stability_runs, "cluster", fake)
    before = same.look(clustered)
    with pytest.raises(KeyboardInterrupt):
        run(clustered)
    same(clustered, before)


def test_clusters_that_were_assigned(clustered, calls):
    """The record of new cells has no settings."""
    clustered.uns["scmoe"] = {"params": {"reject": 0.01}, "markers": [], "version": "0"}
    with pytest.raises(ValueError, match=r"not written by `scmoe\.tl\.cluster`"):
        run(clustered)


# ----------------------------------------------------------------------------------------
# with real training


@pytest.mark.slow
def test_a_cluster_that_a_seed_invents(linked, same):
    """A blob that is cut at random is exposed by runs that train."""
    how = {"max_epochs": 40, "batch_size": 50, **CPU}
    cluster(linked, n_clusters=8, train_kwargs=how, progress=False)
    found = linked.obs["scmoe"].astype(str).to_numpy()
    rng = np.random.default_rng(0)
    found[(found == "0") & (rng.random(len(found)) < 0.4)] = "invented"
    linked.obs["scmoe"] = pd.Categorical(found)
    before = same.look(linked)
    other = run(linked, n_runs=2, copy=True)
    same(linked, before)
    table = other.uns["scmoe_stability"]["clusters"]
    assert not table.loc["invented", "stable"]
    assert not table.loc["0", "stable"]
    assert table.loc[["1", "2", "3", "4"], "stable"].all()
    assert adjusted_rand_score(other.obs["scmoe_consensus"], linked.obs["population"]) == 1


PRETRAIN = {
    "max_epochs": 50,
    "manager_epochs": 3,
    "batch_size": 50,
    "lr": 5e-3,
    "method": "stability",
    "n_samples": 3,
}
MIXTURE = {
    "model": "moe-vae",
    "model_kwargs": {"n_hidden": 16, "n_layers": 1},
    "train_kwargs": {"max_epochs": 2, "batch_size": 50, "pretrain_kwargs": PRETRAIN, **CPU},
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["seeds", "subsets"])
def test_support_of_splits(linked, tmp_path, how):
    """The populations are there in every run, a split of one of them in none."""
    settings = {"max_steps": 2, **CPU}
    cluster(linked, layer="raw", train_kwargs=settings, progress=False)
    record = linked.uns["scmoe"]["tree"]
    tree = Tree.from_record(record)
    high = tree.leaves[tree.cluster[tree.leaves] == 0][0]
    invented = {
        "region": np.append(tree.region, high),
        "weights": np.vstack([tree.weights, np.eye(8)[7]]),
        "threshold": np.append(tree.threshold, 10.0),
        "significance": np.append(tree.significance, 4),
        "depth": np.append(tree.depth, 0.4),
        "sizes": np.vstack([tree.sizes, [135, 135]]),
        "cluster": np.append(np.where(np.arange(9) == high, -1, tree.cluster), [0, 0]),
    }
    record.update(invented)
    other = run(linked, n_runs=2, how=how, copy=True)
    assert "support" not in record
    found = other.uns["scmoe"]["tree"]["support"]
    assert found.dtype == np.float32
    assert found.tolist() == [1, 1, 1, 1, 0]
    assert "support" not in get.tree(linked)
    assert get.tree(other)["support"].tolist() == [1, 1, 1, 1, 0]
    other.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad").uns["scmoe"]["tree"]
    assert Tree.from_record(again).n_splits == len(again["support"]) == 5


def test_no_support_without_a_tree(linked):
    how = {"max_steps": 2, **CPU}
    cluster(linked, similarity=Graph(), n_clusters=5, train_kwargs=how, progress=False)
    run(linked, n_runs=2)
    assert "tree" not in linked.uns["scmoe"]


@pytest.mark.slow
def test_mixture_of_vaes_of_subsets(linked):
    linked = linked[:200].copy()
    cluster(linked, n_clusters="auto", **MIXTURE, progress=False)
    run(linked, n_runs=2, how="subsets")
    record = linked.uns["scmoe_stability"]
    assert len(record["clusters"]) == linked.obs["scmoe"].nunique()
    assert record["runs"]["n_cells"].tolist() == [160, 160]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, np.asarray])
def test_counts(linked, kind, recwarn):
    linked = linked[:200].copy()
    counts = np.random.default_rng(0).poisson(np.exp(np.clip(linked.X, -2, 2)))
    linked.layers["counts"] = kind(counts)
    settings = {
        "model": "cpl-mixvae",
        "layer": "counts",
        "n_clusters": 3,
        "model_kwargs": {"likelihood": "nb", "n_hidden": 16, "n_layers": 1},
        "train_kwargs": {"max_epochs": 2, **CPU},
    }
    cluster(linked, **settings, progress=False)
    run(linked, n_runs=2, how="subsets")
    assert linked.uns["scmoe_stability"]["runs"]["n_cells"].tolist() == [160, 160]
    assert not [w for w in recwarn if "are not those that" in str(w.message)]
    linked.layers["counts"] = kind(counts + 1)
    with pytest.warns(UserWarning, match="are not those that 'scmoe' was made of"):
        run(linked, n_runs=2)


@pytest.mark.slow
def test_processes_find_what_one_process_finds(linked, monkeypatch, same):
    # as with many cells: processes share the arrays in place of having copies
    monkeypatch.setattr(_stability_runs, "SHARED", 0)
    settings = {"model": "cpl-mixvae", "n_clusters": 5, "train_kwargs": {"max_epochs": 4, **CPU}}
    cluster(linked, **settings, progress=False)
    before = same.look(linked)
    alone, beside = (run(linked, n_jobs=n, how="subsets", copy=True) for n in (1, 2))
    same(linked, before)
    labels = alone.obsm["scmoe_runs"]
    assert not labels["run0"].equals(labels["run1"])
    pd.testing.assert_frame_equal(labels, beside.obsm["scmoe_runs"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rep": "X_rep"},
        {"layer": "raw", "n_latent": 3, "markers": ["CD3", "CD4", "CD8"]},
        {"similarity": Blend(Labels("population"), Graph(neighbors_key="neighbors"))},
        {"batch_key": "batch", "neighbors_key": "neighbors"},
        {"preset": "cytof", "similarity": CoAssociation()},
        {"obsp": "connectivities", "n_clusters": "auto"},
        {**MIXTURE, "n_clusters": 4, "n_latent": (2, 3, 2, 2)},
        {**MIXTURE, "n_clusters": None, "n_latent": "auto"},
    ],
)
def test_a_run_with_the_seed_of_the_clustering_is_the_clustering(linked, settings, monkeypatch):
    """So nothing that matters is lost on the way through the record."""
    linked = linked[:200].copy()
    linked.obs["batch"] = np.where(np.arange(200) % 2, "a", "b")
    how = {"max_steps": 8, "batch_size": 50, **CPU}
    cluster(linked, **{"n_clusters": 6, "train_kwargs": how, **settings}, progress=False)
    codes = linked.obsm["X_scmoe"]
    again = []

    def noting(cells, **kwargs):
        cluster(cells, **kwargs)
        again.append(cells.obsm[f"X_{kwargs['key_added']}"])

    monkeypatch.setattr(_stability_runs, "cluster", noting)
    monkeypatch.setattr(_stability_runs, "order_of", lambda n_obs, seed: np.arange(n_obs))
    monkeypatch.setattr(_stability_runs.Runner, "seeds", staticmethod(lambda *args: [0, 1]))
    run(linked, n_runs=2)
    np.testing.assert_array_equal(again[0], codes)
    assert not np.array_equal(again[1], codes)
