"""A tree of density valleys, against one that was made by hand."""

from __future__ import annotations

from dataclasses import fields

import anndata as ad
import numpy as np
import pytest
from trees import POPULATIONS, make_clustered, make_stump, make_tree

from scmoe.tree import Tree, grow

X = np.array([values for _, values in POPULATIONS.values()], dtype=np.float32)


def assert_same(one, other):
    for f in fields(Tree):
        a, b = getattr(one, f.name), getattr(other, f.name)
        np.testing.assert_array_equal(a, b)
        if f.name != "markers":
            assert a.dtype == b.dtype


def test_regions():
    tree = make_tree()
    assert (tree.n_splits, tree.n_clusters) == (4, 4)
    assert tree.leaves.tolist() == [4, 5, 6, 7, 8]
    assert tree.parent.tolist() == [-1, 0, 0, 1, 1, 2, 2, 3, 3]
    assert tree.path(0) == []
    assert tree.path(6) == [(0, True), (1, False), (2, True)]
    assert tree.path(7) == [(0, False), (3, False)]
    assert tree.leaves_within(2).tolist() == [4, 5, 6]
    assert tree.leaves_within(8).tolist() == [8]


def test_predict():
    tree = make_tree()
    assert tree.find_leaves(X).tolist() == [4, 6, 5, 7, 8]
    assert tree.predict(X).tolist() == [0, 1, 2, 2, 3]
    # a cell on a threshold is below it
    assert tree.find_leaves(np.array([[1, 9, 9, 0], [2, 2, 3, 0]], np.float32)).tolist() == [7, 5]
    assert make_stump().predict(X).tolist() == [0] * 5


@pytest.mark.parametrize(
    ("how", "into"),
    [
        ({"significance": 0}, [0, 1, 2, 3]),
        # the larger part of cluster 2 is not there where split 2 is undone
        ({"significance": 4.5}, [0, 1, 2, 3]),
        ({"significance": 5.5}, [0, 1, 2, 2]),
        # those of that very significance stay
        ({"significance": 9}, [0, 0, 1, 1]),
        ({"significance": 9.1}, [0, 0, 0, 0]),
        ({"n_clusters": 4}, [0, 1, 2, 3]),
        ({"n_clusters": 3}, [0, 1, 2, 2]),
        ({"n_clusters": 2}, [0, 0, 1, 1]),
        ({"n_clusters": 1}, [0, 0, 0, 0]),
    ],
)
def test_cut(how, into):
    assert make_tree().cut(**how).tolist() == into


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "either `significance` or `n_clusters`"),
        ({"significance": 3, "n_clusters": 2}, "either `significance` or `n_clusters`"),
        ({"significance": -0.1}, "0 or more, got -0.1"),
        ({"significance": np.nan}, "0 or more, got nan"),
        ({"n_clusters": 5}, "has 4 clusters, so it can't be cut at 5"),
        ({"n_clusters": 0}, "can't be cut at 0"),
    ],
)
def test_cuts_that_are_none(how, message):
    with pytest.raises(ValueError, match=message):
        make_tree().cut(**how)


def test_merge():
    tree = make_tree()
    assert_same(tree.merge(np.arange(4)), tree)
    merged = tree.merge(np.array([0, 1, 2, 2]))
    # split 3 sets nothing apart any more
    assert merged.region.tolist() == [0, 2, 3]
    assert merged.threshold.tolist() == [1, 2, 3]
    assert merged.sizes.tolist() == tree.sizes[:3].tolist()
    assert merged.cluster.tolist() == [-1, 2, -1, -1, 0, 2, 1]
    assert merged.predict(X).tolist() == [0, 1, 2, 2, 2]
    # splits 1 and 2 go, and the last one gets another number
    merged = tree.merge(np.array([0, 0, 0, 1]))
    assert merged.region.tolist() == [0, 1]
    assert merged.cluster.tolist() == [-1, -1, 0, 0, 1]
    assert merged.predict(X).tolist() == [0, 0, 0, 0, 1]
    assert_same(tree.merge(np.zeros(4, int)), make_stump())


@pytest.mark.parametrize("make", [make_tree, make_stump])
def test_record_in_a_file(make, tmp_path):
    adata = make_clustered(make())
    adata.write_h5ad(tmp_path / "cells.h5ad")
    record = ad.read_h5ad(tmp_path / "cells.h5ad").uns["scmoe"]["tree"]
    assert_same(Tree.from_record(record), make())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "it is None"),
        ("tree", "it is 'tree'"),
        ({"region": ...}, r"lacks \['region'\]"),
        ({"threshold": np.zeros(3)}, r"sizes of \['threshold'\] do not agree"),
        ({"weights": np.ones((4, 3))}, r"sizes of \['weights'\]"),
        ({"weights": np.ones(16)}, r"sizes of \['weights'\]"),
        ({"sizes": np.zeros((4, 3), int)}, r"sizes of \['sizes'\]"),
        ({"cluster": np.zeros(5, int)}, r"sizes of \['cluster'\]"),
        ({"region": np.array([0, 2, 3, 1.5])}, "'region' is array"),
        ({"region": np.array([0, 2, 3, 2**40])}, "'region' is array"),
        ({"region": np.array([0, 2, 3, np.nan])}, "'region' is array"),
        ({"region": "0231"}, "'region' is '0231'"),
        ({"region": [[0], [2, 3], 1]}, "'region'"),
        ({"markers": np.arange(4)}, "'markers' is array"),
        ({"weights": np.full((4, 4), 1e300)}, "'weights' is array"),
        ({"threshold": np.array([1, np.inf, 3, 1])}, "'threshold' is array"),
        ({"significance": np.array(list("abcd"))}, "'significance' is array"),
        # a region that is cut twice, that comes too late, that goes round, below 0
        ({"region": np.array([0, 2, 2, 1])}, "do not describe a tree"),
        ({"region": np.array([0, 2, 8, 1])}, "do not describe a tree"),
        ({"region": np.array([1, 2, 3, 0])}, "do not describe a tree"),
        ({"region": np.array([0, 2, 3, -1])}, "do not describe a tree"),
        ({"markers": np.array(["a", "a", "b", "c"])}, "do not describe a tree"),
        ({"weights": np.zeros((4, 4))}, "do not describe a tree"),
        ({"weights": -np.eye(4)}, "do not describe a tree"),
        ({"sizes": np.full((4, 2), -1)}, "do not describe a tree"),
        # a leaf without a cluster, a cluster that is cut, one that is left out
        ({"cluster": np.array([-1, -1, -1, -1, 0, 2, 1, -1, 3])}, "do not describe a tree"),
        ({"cluster": np.array([-1, 2, -1, -1, 0, 2, 1, 2, 3])}, "do not describe a tree"),
        ({"cluster": np.array([-1, -1, -1, -1, 0, 2, 1, 2, 4])}, "do not describe a tree"),
    ],
)
def test_records_that_are_damaged(change, message):
    record = change
    if isinstance(change, dict):
        record = {**make_tree().to_record(), **change}
        record = {name: value for name, value in record.items() if value is not ...}
    with pytest.raises(ValueError, match=f"damaged: .*{message}"):
        Tree.from_record(record)


def test_high_is_where_the_heaviest_marker_is():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [3, 3, 0], [0, 3, 3]])
    x = (centres.repeat(200, 0) + rng.normal(scale=0.4, size=(600, 3))).astype(np.float32)
    tree = grow(x, np.array(["a", "b", "c"]))
    assert tree.n_clusters == 3
    heaviest = np.abs(tree.weights).argmax(1)
    assert (tree.weights[np.arange(tree.n_splits), heaviest] > 0).all()
    assert np.bincount(tree.predict(x)).tolist() == [200, 200, 200]
    assert_same(Tree.from_record(tree.to_record()), tree)
