"""The clusters in numbers, against values by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scmoe.cli._tables import cluster_table, composition, most_telling
from scmoe.get._signatures import UNASSIGNED


def test_cluster_table(six_cells):
    table = cluster_table(six_cells, "k", ["CD3"])
    assert list(table.index) == ["0", "1", UNASSIGNED]
    assert list(table["cells"]) == [3, 2, 1]
    np.testing.assert_allclose(table["share"], [1 / 2, 1 / 3, 1 / 6])
    np.testing.assert_allclose(table["median_probability"], [0.8, 0.85, 0.5])
    assert list(table["CD3"]) == [2, 6, 4]
    # a technical channel is shown only if it was asked for
    assert "Time" not in table
    assert list(cluster_table(six_cells, "k", ["Time"])["Time"]) == [1, 4, 4]


def test_consensus_of_arms(six_cells):
    assert "consensus" not in cluster_table(six_cells, "k", ["CD3"])
    # in the order of the columns of the probabilities, which need not be that of the names
    six_cells.obsm["k_proba"] = six_cells.obsm["k_proba"][["1", "0"]]
    six_cells.uns["k"] = {"categories": {"consensus": np.array([0.25, 0.5])}}
    table = cluster_table(six_cells, "k", ["CD3"])
    np.testing.assert_array_equal(table["consensus"], [0.5, 0.25, np.nan])
    # one arm has nobody to agree with
    six_cells.uns["k"] = {"categories": {"consensus": np.array([np.nan, np.nan])}}
    assert "consensus" not in cluster_table(six_cells, "k", ["CD3"])


def test_composition(six_cells):
    shares = composition(six_cells, "k")
    np.testing.assert_allclose(shares.loc["a"], [1, 0, 0])
    np.testing.assert_allclose(shares.loc["b"], [0.25, 0.5, 0.25])
    assert composition(six_cells[:2].copy(), "k") is None
    del six_cells.obs["sample"]
    assert composition(six_cells, "k") is None


def test_most_telling():
    effect = pd.DataFrame({"a": [0.1, 0.0], "b": [0.0, -2.0], "c": [1.0, 0.0], "d": [0.0, 0.0]})
    assert most_telling(effect, 2) == ["b", "c"]
    assert most_telling(effect, 9) == ["a", "b", "c", "d"]
