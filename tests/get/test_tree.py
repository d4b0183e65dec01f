"""The tree of a clustering as tables."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from trees import make_clustered, make_stump

from scmoe.get import gates, tree


@pytest.fixture
def clustered():
    return make_clustered()


def test_tree(clustered):
    table = tree(clustered)
    assert table["markers"].tolist() == ["CD3", "CD4", "CD8", "0.8 CD19 - 0.6 CD4"]
    assert table["threshold"].tolist() == [1, 2, 3, 1]
    assert table["significance"].tolist() == [9, 8, 4, 5]
    assert table["depth"].tolist() == [0.1, 0.2, 0.5, 0.3]
    assert table["n_low"].tolist() == [20, 40, 10, 15]
    assert table["n_high"].tolist() == [80, 40, 30, 5]
    assert table["parent"].tolist() == [-1, 0, 1, 0]
    assert table["side"].tolist() == ["", "high", "low", "low"]
    assert table["low"].tolist() == ["B, rest", "T8, rest", "rest", "rest"]
    assert table["high"].tolist() == ["T4, T8, rest", "T4", "T8", "B"]
    assert table.index.tolist() == [0, 1, 2, 3]
    assert table.index.name == "split"


def test_gates(clustered):
    table = gates(clustered)
    assert table["gates"].to_dict() == {
        "B": "CD19+ (> 1)",
        "T4": "CD4+ (> 2)",
        "T8": "CD8+ (> 3)",
        "rest": "CD4- (< 2), CD8- (< 3), CD19- (< 1)",
    }
    assert table["f1"].tolist() == [1, 1, 1, 1]
    assert table["n_cells"].tolist() == [5, 40, 30, 25]
    assert table.index.name == "cluster"


def test_one_population():
    stump = make_clustered(make_stump())
    table = tree(stump)
    assert len(table) == 0
    assert list(table) == list(tree(make_clustered()))
    assert gates(stump).to_numpy().tolist() == [["all cells", 1.0, 100]]


def test_where_the_values_are(clustered):
    table = gates(clustered)
    clustered.layers["scaled"] = clustered.X
    clustered.X = np.zeros_like(clustered.X)
    clustered.uns["scmoe"]["params"]["layer"] = "scaled"
    pd.testing.assert_frame_equal(gates(clustered), table)
    # in another order, among others
    more = clustered[:, ["CD8", "CD3", "CD19", "CD4"]].copy()
    pd.testing.assert_frame_equal(gates(more), table)
    # a representation
    rep = ad.AnnData(np.zeros((100, 1), np.float32), obs=clustered.obs, uns=dict(clustered.uns))
    rep.obsm["X_rep"] = clustered.layers["scaled"]
    rep.uns["scmoe"] = {**rep.uns["scmoe"], "params": {"use_rep": "X_rep"}}
    pd.testing.assert_frame_equal(gates(rep), table)
    rep.obsm["X_rep"] = rep.obsm["X_rep"][:, :2]
    with pytest.raises(ValueError, match="does not have the 4 columns"):
        gates(rep)
    del rep.obsm["X_rep"]
    with pytest.raises(KeyError, match="'X_rep', which was clustered"):
        gates(rep)


def test_clusters_that_were_renamed(clustered):
    clustered.obs["scmoe"] = clustered.obs["scmoe"].cat.rename_categories({"B": 7, "T4": "CD4 T"})
    assert tree(clustered)["high"].tolist() == ["CD4 T, T8, rest", "CD4 T", "T8", "7"]
    assert gates(clustered)["gates"].loc[["7", "CD4 T"]].tolist() == ["CD19+ (> 1)", "CD4+ (> 2)"]


def test_some_of_the_cells(clustered):
    some = clustered[clustered.obs["scmoe"].isin(["T4", "rest"])].copy()
    assert tree(some)["high"].tolist() == tree(clustered)["high"].tolist()
    # one gate is enough now
    assert gates(some)["gates"].to_dict() == {"T4": "CD4+ (> 2)", "rest": "CD4- (< 2)"}


def test_cells_without_a_label(clustered):
    """They are not in the cluster, and count as such."""
    clustered.obs.loc[clustered.obs_names[:10], "scmoe"] = np.nan
    table = gates(clustered)
    assert table["n_cells"].tolist() == [5, 30, 30, 25]
    assert table.loc["T4", "f1"] == pytest.approx(2 * 30 / (30 + 40))


@pytest.mark.parametrize("ask", [tree, gates])
def test_clusterings_without_a_tree(clustered, ask):
    with pytest.raises(KeyError, match=r"Did not find a clustering in `\.uns\['leiden'\]`"):
        ask(clustered, "leiden")
    del clustered.uns["scmoe"]["tree"]
    clustered.uns["scmoe"]["params"]["similarity"]["name"] = "Graph"
    with pytest.raises(KeyError, match=r"'scmoe' by Graph follows no tree\. .*DensityTree\(\)"):
        ask(clustered)
    clustered.uns["scmoe"]["params"] = {"model": "moe-vae"}
    with pytest.raises(KeyError, match=r"'scmoe' follows no tree"):
        ask(clustered)


@pytest.mark.parametrize(
    "counts",
    [
        None,
        np.eye(4),
        pd.DataFrame(np.zeros((3, 4), int), columns=list("abcd")),
        pd.DataFrame(np.zeros((4, 2), int), columns=list("aa")),
        pd.DataFrame(np.zeros((4, 2)), columns=list("ab")),
    ],
)
def test_damaged_records(clustered, counts):
    clustered.uns["scmoe"]["tree"]["labels"] = counts
    for ask in (tree, gates):
        with pytest.raises(ValueError, match=r"`adata\.uns\['scmoe'\]\['tree'\]` is damaged"):
            ask(clustered)


def test_values_that_are_gone(clustered):
    with pytest.raises(KeyError, match="'CD19'"):
        gates(clustered[:, :3].copy())
    clustered.X[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in 'CD3'"):
        gates(clustered)
    del clustered.obs["scmoe"]
    with pytest.raises(KeyError, match=r"clusters 'scmoe' in `\.obs`"):
        tree(clustered)


def test_batches_that_the_tree_aligns(clustered):
    table = gates(clustered)
    clustered.uns["scmoe"]["params"]["similarity"]["batch_key"] = "plate"
    with pytest.raises(KeyError, match=r"'plate' in `\.obs`: the tree aligns its batches"):
        gates(clustered)
    # the same cells on two plates, one of which measures more
    clustered.obs["plate"] = "one"
    both = ad.concat([clustered, clustered], uns_merge="same", index_unique="-")
    both.uns = clustered.uns
    both.obs["plate"] = ["one"] * 100 + ["two"] * 100
    both.X[100:] += 0.5
    found = gates(both)
    assert found["f1"].tolist() == table["f1"].tolist()
    assert found["n_cells"].tolist() == [10, 80, 60, 50]
