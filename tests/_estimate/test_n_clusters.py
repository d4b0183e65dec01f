"""One door to all estimates."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import sparse

from scmoe._estimate import (
    METHODS,
    advice,
    at_least_two,
    default_method,
    find_clusters,
    find_n_clusters,
)
from scmoe._estimate._clusters import by_size
from scmoe._estimate._n_clusters import santos


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 9]])
    return (centres[np.arange(150) % 3] + rng.normal(size=(150, 3))).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_all_methods(codes, method):
    quick = {"n_samples": 3} if method == "stability" else {}
    found = find_n_clusters(codes, settings=quick, method=method, seed=1)
    assert found.n_clusters == 3
    assert found.method == method
    assert at_least_two(found) is found
    assert found.evidence["n_clusters"] == 3
    assert found.evidence["table"]["chosen"].sum() == 1


def test_the_tree_is_for_panels():
    assert default_method(50, markers=True) == "tree"
    assert default_method(51, markers=True) == "stability"
    assert default_method(9, markers=False) == "stability"


def test_settings_of_the_paper(codes):
    assert santos(70_000)["n_neighbors"] == 233
    assert santos(1_000)["n_neighbors"] == 100
    found = find_n_clusters(codes, settings={"n_neighbors": 20, "evidence": ()}, method="santos")
    assert found.settings == {
        "min_cluster_size": 5,
        "n_neighbors": 20,
        "n_components": 2,
        "min_dist": 0.1,
    }


def test_fewer_than_two_clusters_raise_where_asked():
    codes = np.random.default_rng(0).normal(size=(300, 5))
    found = find_n_clusters(codes, settings={"n_samples": 3})
    with pytest.raises(ValueError, match=r'Only one cluster .* `method="density"`'):
        at_least_two(found)
    with pytest.raises(ValueError, match=r"Only one cluster .* another `significance`"):
        find_clusters(codes, method="tree")


def test_nothing_but_noise():
    codes = np.random.default_rng(0).normal(size=(60, 2))
    settings = {"min_cluster_size": 55, "evidence": ()}
    found = find_n_clusters(codes, settings=settings, method="density")
    assert re.search(r'No cluster .* `method="stability"`', advice(found))
    assert found.n_clusters == 0
    assert found.noise == 1
    assert found.proba.shape == (60, 0)


def test_what_a_method_looks_at(codes):
    graph = sparse.identity(150, format="csr")
    with pytest.raises(ValueError, match="`method` must be one of"):
        find_n_clusters(codes, method="elbow")
    with pytest.raises(ValueError, match="either `codes` or a `graph`"):
        find_n_clusters()
    with pytest.raises(ValueError, match="either `codes` or a `graph`"):
        find_n_clusters(codes, graph)
    with pytest.raises(ValueError, match="and no graph"):
        find_n_clusters(codes, graph, method="density")
    with pytest.raises(ValueError, match="takes `codes`"):
        find_n_clusters(method="santos")


def test_numbers_by_size():
    labels, old = by_size(np.array([5, 2, 2, -1, 7, 7, 2]))
    assert labels.tolist() == [2, 0, 0, -1, 1, 1, 0]
    assert old.tolist() == [2, 7, 5]
    # equally large: the first among the cells first
    assert by_size(np.array([3, 1]))[0].tolist() == [0, 1]
    nothing, old = by_size(np.array([-1, -1]))
    assert nothing.tolist() == [-1, -1]
    assert len(old) == 0
