"""Names of clusters, against names by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe._core.cluster_names import names_of

MARKERS = ["CD3", "CD4", "CD8", "CD19", "CD45"]


def effects(*rows):
    return pd.DataFrame(rows, columns=MARKERS, index=[str(k) for k in range(len(rows))])


def named(table, max_markers=3, sizes=None):
    sizes = pd.Series(range(len(table), 0, -1) if sizes is None else sizes, index=table.index)
    # of a great many cells
    return list(names_of(table, sizes / 1e5, max_markers).values())


def test_high_before_low_in_the_order_of_markers():
    table = effects([1.0, 1.5, -2.0, -1.0, 0.1], [-1.5, -1.0, 0.0, 2.5, 0.0])
    assert named(table) == ["CD3+ CD4+ CD8-", "CD19+ CD3- CD4-"]
    assert named(table, 1) == ["CD4+", "CD19+"]
    assert named(table, 9) == ["CD3+ CD4+ CD8- CD19-", "CD19+ CD3- CD4-"]


def test_equals_are_taken_in_the_order_of_markers():
    table = effects([1.0, 1.09, 1.0, 0, 0], [0, 0, 0, 1, 0])
    assert named(table, 1)[0] == "CD3+"
    table.loc["0", "CD4"] = 1.11
    assert named(table, 1)[0] == "CD4+"


def test_limits():
    table = effects([1.0, 0.99, 0, 0, 0], [0, 0, -1.0, -0.99, 0])
    assert named(table) == ["CD3+", "CD8-"]


def test_further_markers_tell_equals_apart():
    # CD8 differs most; 0.45 would not enter a name, but has a sign here
    table = effects([2, 0, 0.45, 0.3, 0], [2, 0, -0.2, 0, 0.1], [0, 0, 0, 2, 0])
    assert named(table) == ["CD3+ CD8+", "CD3+", "CD19+"]
    # a sign on each side
    table.loc["1", "CD8"] = -0.5
    assert named(table) == ["CD3+ CD8+", "CD3+ CD8-", "CD19+"]


def test_a_sign_by_a_hair_tells_nothing():
    table = effects([2, 0, 0.41, 0, 0], [2, 0, 0.39, 0, 0])
    assert named(table) == ["CD3+ (1)", "CD3+ (2)"]


def test_effects_grow_with_the_size_of_a_cluster():
    """The mean of CD8 is the same in both: 0.3 below that of all cells."""
    table = effects([2, 0, -0.6, 0, 0], [2, 0, -0.3 / 0.99, 0, 0])
    shares = pd.Series([0.5, 0.01], index=table.index)
    assert list(names_of(table, shares, 1).values()) == ["CD3+ (1)", "CD3+ (2)"]


def test_three_of_a_name():
    table = effects([2, 1, 0, 0, 0], [2, 0, 1, 0, 0], [2, 0, 0, 0, 0])
    assert named(table, 1) == ["CD3+ CD4+", "CD3+ CD8+", "CD3+"]


def test_numbers_are_by_size():
    table = effects([2, 0, 0, 0, 0], [2, 0.1, 0, 0, 0], [0, 0, 0, 1, 0])
    assert named(table, sizes=[10, 30, 5]) == ["CD3+ (2)", "CD3+ (1)", "CD19+"]
    # of the same size, by the effects
    assert named(table, sizes=[10, 10, 5]) == ["CD3+ (2)", "CD3+ (1)", "CD19+"]


def test_nothing_stands_out():
    assert named(effects([0, 0, 0, 0, 0])) == ["no marker"]
    table = effects([0, 0, 0, 0, 0], [0, 0, 0.3, 0, 0], [0, 0, 2, 0, 0])
    assert named(table) == ["no marker (1)", "no marker (2)", "CD8+"]


def test_little_stands_out():
    # one weak marker, a high one first
    table = effects([0.5, 0.9, -0.95, 0, 0], [0, -0.5, 0, 0, -0.7], [0, 0, 0, 2, 2])
    assert named(table) == ["CD4+", "CD45-", "CD19+ CD45+"]


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_clusters_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    # coarse, so that many are equal
    table = effects(*rng.normal(size=(12, 5)).round(0))
    sizes = pd.Series(rng.permutation(12) / 100, index=table.index)
    names = names_of(table, sizes, 2)
    assert len(set(names.values())) == 12
    mixed = table.iloc[rng.permutation(12)] + 1e-9 * rng.normal(size=(12, 5))
    assert names_of(mixed, sizes[mixed.index], 2) == names


def test_gates_go_first():
    table = effects([1.0, 1.5, -2.0, -1.0, 0.1], [-1.5, -1.0, 0.0, 2.5, 0.0])
    shares = pd.Series([0.5, 0.5], index=table.index)

    # what is left for others are those that stand out
    gates = {"0": {"CD45": -1}, "1": {"CD8": 1, "gone": -1}}
    assert list(names_of(table, shares, 3, gates).values()) == [
        "CD3+ CD4+ CD45-",
        "CD8+ CD19+ CD3-",
    ]
    # the most telling one, whatever the means say
    gates = {"0": {"CD4": -1, "CD3": 1}}
    assert list(names_of(table, shares, 1, gates).values()) == ["CD4-", "CD19+"]
    # gates by which two are called alike
    gates = {"0": {"CD3": -1}, "1": {"CD3": -1}}
    names = list(names_of(table, shares, 1, gates).values())
    assert names == ["CD3- CD19-", "CD19+ CD3-"]
