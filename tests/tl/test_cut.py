"""Another granularity of a clustering: merged clusters, and what can be done with them."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from trees import make_clustered

import scmoe
from scmoe.model import ModelFileError
from scmoe.tl import cut


@pytest.fixture
def by_hand():
    """The cells of the tree that was made by hand, with probabilities of five experts."""
    adata = make_clustered()
    proba = pd.get_dummies(adata.obs["scmoe"]).astype(np.float32)[["T4", "T8", "rest", "B"]]
    # a T8 cell that two other clusters together explain better
    proba.iloc[40] = [0.0, 0.4, 0.3, 0.3]
    proba["spare"] = np.float32(0)
    adata.obsm["scmoe_proba"] = proba
    return adata


@pytest.fixture(scope="module")
def trained(linked_once):
    scmoe.tl.cluster(linked_once, progress=False, train_kwargs={"max_epochs": 2})
    return linked_once


def test_merged_clusters(by_hand):
    assert cut(by_hand, n_clusters=3) is None
    proba, labels = by_hand.obsm["scmoe_cut_proba"], by_hand.obs["scmoe_cut"]
    # T4, the rest with B, and T8, by size
    before = by_hand.obsm["scmoe_proba"]
    assert list(proba) == ["0", "1", "2"]
    np.testing.assert_allclose(proba["0"], before["T4"])
    np.testing.assert_allclose(proba["1"], before["rest"] + before["B"])
    np.testing.assert_allclose(proba["2"], before["T8"])
    assert (proba.dtypes == np.float32).all()
    assert labels.value_counts().to_dict() == {"0": 40, "1": 31, "2": 29}
    assert labels.iloc[40] == "1"
    record = by_hand.uns["scmoe_cut"]
    assert record["n_clusters"] == 3
    assert record["params"]["key"] == "scmoe"
    assert record["params"]["n_clusters"] == 3
    assert "significance" not in record["params"]
    tree = scmoe.get.tree(by_hand, "scmoe_cut")
    assert tree["markers"].tolist() == ["CD3", "CD4", "CD8"]
    assert tree["low"].tolist() == ["1", "1, 2", "1"]
    gates = scmoe.get.gates(by_hand, "scmoe_cut")["gates"]
    assert gates.to_dict() == {
        "0": "CD4+ (> 2)",
        "1": "CD4- (< 2), CD8- (< 3)",
        "2": "CD8+ (> 3)",
    }


def test_significance_and_cuts_of_cuts(by_hand):
    cut(by_hand, significance=5.5, key_added="three")
    cut(by_hand, significance=8.5, key="three", key_added="two")
    cut(by_hand, significance=8.5, key_added="at once")
    assert by_hand.obs["two"].tolist() == by_hand.obs["at once"].tolist()
    assert by_hand.obs["two"].value_counts().to_dict() == {"0": 69, "1": 31}
    np.testing.assert_allclose(by_hand.obsm["two_proba"], by_hand.obsm["at once_proba"])
    # everything is one, and nothing is merged
    cut(by_hand, significance=100, key_added="one")
    assert by_hand.obs["one"].unique().tolist() == ["0"]
    assert scmoe.get.gates(by_hand, "one")["gates"].tolist() == ["all cells"]
    cut(by_hand, significance=0, key_added="all")
    assert by_hand.obs["all"].nunique() == 4


def test_a_population_that_the_model_gave_no_cluster(by_hand, caplog):
    """T8 cells were left to the cluster of T4."""
    by_hand.obs["scmoe"] = by_hand.obs["scmoe"].astype(str).replace({"T8": "T4"})
    counts = by_hand.uns["scmoe"]["tree"]["labels"]
    counts["T4"] += counts.pop("T8")
    proba = by_hand.obsm["scmoe_proba"]
    proba["T4"] += proba.pop("T8")
    with caplog.at_level(logging.WARNING, "scmoe"):
        cut(by_hand, n_clusters=3)
    assert "There are 2 clusters, not 3" in caplog.text
    assert by_hand.obs["scmoe_cut"].value_counts().to_dict() == {"0": 69, "1": 31}


def test_colors_of_the_largest_parts(by_hand):
    by_hand.uns["scmoe_colors"] = ["#00000b", "#000004", "#000008", "#00000f"]
    cut(by_hand, n_clusters=2)
    # of T4 and T8, and of the rest and B
    assert by_hand.uns["scmoe_cut_colors"] == ["#000004", "#00000f"]


def test_copy_and_file(by_hand, same, tmp_path):
    before = same.look(by_hand)
    other = cut(by_hand, n_clusters=2, copy=True)
    same(by_hand, before)
    other.write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(
        scmoe.get.tree(back, "scmoe_cut"), scmoe.get.tree(other, "scmoe_cut")
    )
    # a name that is taken by a cut is free
    cut(back, n_clusters=3)
    assert back.obs["scmoe_cut"].nunique() == 3


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({}, ValueError, "either `significance` or `n_clusters`"),
        ({"significance": 4, "n_clusters": 2}, ValueError, "either"),
        ({"significance": -1}, ValueError, "`significance` must be a number of at least 0"),
        ({"significance": "4"}, ValueError, "`significance` must be a number"),
        ({"n_clusters": 5}, ValueError, "has 4 clusters, so it can't be cut at 5"),
        ({"n_clusters": 0}, ValueError, "`n_clusters` must be a whole number of at least 1"),
        ({"n_clusters": 2.0}, ValueError, "`n_clusters` must be a whole number"),
        ({"n_clusters": 2, "key": "leiden"}, KeyError, "Did not find a clustering"),
        ({"n_clusters": 2, "key_added": "scmoe"}, ValueError, "overwrite|is what is cut"),
        ({"n_clusters": 2, "key_added": "taken"}, ValueError, "would overwrite"),
        ({"n_clusters": 2, "key_added": "a/b"}, ValueError, "without '/'"),
    ],
)
def test_mistakes(by_hand, same, kwargs, error, message):
    by_hand.obs["taken"] = 1
    before = same.look(by_hand)
    with pytest.raises(error, match=message):
        cut(by_hand, **kwargs)
    same(by_hand, before)


def test_clusterings_without_a_tree(by_hand):
    tree = by_hand.uns["scmoe"].pop("tree")
    with pytest.raises(KeyError, match=r"follows no tree\. .*DensityTree"):
        cut(by_hand, n_clusters=2)
    by_hand.uns["scmoe"]["tree"] = {**tree, "region": np.zeros(4)}
    with pytest.raises(ValueError, match="damaged"):
        cut(by_hand, n_clusters=2)
    by_hand.uns["scmoe"]["tree"] = tree
    del by_hand.obsm["scmoe_proba"]
    with pytest.raises(KeyError, match="probabilities of the clusters of 'scmoe'"):
        cut(by_hand, n_clusters=2)
    with pytest.raises(ValueError, match="is a view"):
        cut(by_hand[:50], n_clusters=2)


def test_a_real_clustering(trained, tmp_path):
    adata = trained.copy()
    assert adata.uns["scmoe"]["tree"]["labels"].to_numpy().sum() == adata.n_obs
    cut(adata, n_clusters=3)
    proba = adata.obsm["scmoe_cut_proba"]
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert proba.idxmax(axis=1).tolist() == adata.obs["scmoe_cut"].tolist()
    assert list(scmoe.get.cluster_proba(adata, key="scmoe_cut")) == list(
        adata.obs["scmoe_cut"].cat.categories
    )
    assert len(adata.uns["scmoe_cut"]["experts"]) == len(adata.uns["scmoe"]["model"]["clusters"])
    # all that takes a clustering, and from a file too
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert len(scmoe.get.signatures(adata, "scmoe_cut")) == 3
    scmoe.pl.tree(adata, key="scmoe_cut", show=False)
    scmoe.pl.markers(adata, key="scmoe_cut", show=False)
    scmoe.tl.name_clusters(adata, key="scmoe_cut")
    with pytest.raises(ValueError, match=r"not written by `scmoe\.tl\.cluster`"):
        scmoe.tl.stability(adata, key="scmoe_cut")


def test_new_cells_of_merged_clusters(trained):
    adata = trained.copy()
    cut(adata, n_clusters=3)
    new = scmoe.tl.generate(adata, {"0": 30, "2": 10}, key="scmoe_cut")
    assert new.obs["scmoe_cut"].value_counts().to_dict() == {"0": 30, "2": 10}
    new = scmoe.tl.generate(adata, 50, key="scmoe_cut")
    assert set(new.obs["scmoe_cut"]) <= set("012")
    # the very cells of the clusters that were not merged
    old = scmoe.tl.generate(adata, 50)
    np.testing.assert_array_equal(old.X, new.X)
    with pytest.raises(KeyError, match="no cluster '9'; there are '0'"):
        scmoe.tl.generate(adata, 5, clusters=["9"], key="scmoe_cut")


def test_cells_are_assigned_to_merged_clusters(trained):
    adata = trained.copy()
    cut(adata, n_clusters=3)
    query = ad.AnnData(adata.X.copy(), var=adata.var.copy())
    scmoe.tl.assign(query, adata, key="scmoe_cut", reject=None)
    assert query.obs["scmoe_cut"].tolist() == adata.obs["scmoe_cut"].tolist()
    found, known = query.obsm["scmoe_cut_proba"], adata.obsm["scmoe_cut_proba"]
    np.testing.assert_allclose(found[list(known)], known, atol=1e-5)
    for damaged in (np.array(["0"]), np.arange(3), "012"):
        adata.uns["scmoe_cut"]["experts"] = damaged
        with pytest.raises(ModelFileError, match="'experts' are no clusters"):
            scmoe.tl.assign(query, adata, key="scmoe_cut", key_added="again")


def test_clusters_that_are_others_now(trained):
    adata = trained.copy()
    cut(adata, n_clusters=2)
    with pytest.warns(UserWarning, match="there still is .*scmoe_cut"):
        scmoe.tl.cluster(adata, n_clusters=2, progress=False, train_kwargs={"max_epochs": 1})
