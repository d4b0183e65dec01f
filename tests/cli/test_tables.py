"""The clusters in numbers, against values by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe._core.signatures import UNASSIGNED
from scmoe.cli._tables import abundance, cluster_table, most_different, samples_of, write_table


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


def test_names_of_clusters(six_cells):
    table = cluster_table(six_cells, "k", ["Time", "CD3"])
    assert list(table["name"]) == ["Time-", "Time+", ""]
    # what has a name keeps it
    six_cells.obs["k"] = six_cells.obs["k"].cat.rename_categories({"0": "T", "1": "B"})
    assert list(cluster_table(six_cells, "k", ["CD3"])["name"]) == ["T", "B", ""]


@pytest.mark.parametrize(
    "own", ["cluster", "name", "cells", "share", "median_probability", "consensus"]
)
def test_markers_called_like_a_column(six_cells, own):
    six_cells.var_names = [own, f"{own} (marker)"]
    table = cluster_table(six_cells, "k", list(six_cells.var_names))
    assert list(table["cells"]) == [3, 2, 1]
    assert list(table[f"{own} (marker 2)"]) == [2, 6, 4]
    assert list(table[f"{own} (marker)"]) == [1, 4, 4]
    assert table.reset_index().columns.is_unique


def test_abundance(six_cells):
    table = abundance(six_cells, "k")
    assert list(table) == ["sample", "cluster", "cells", "share"]
    assert table.iloc[:3].to_numpy().tolist() == [
        ["a", "0", 2, 1],
        ["a", "1", 0, 0],
        ["a", UNASSIGNED, 0, 0],
    ]
    assert table["cells"].tolist() == [2, 0, 0, 1, 2, 1]
    np.testing.assert_allclose(table["share"], [1, 0, 0, 0.25, 0.5, 0.25])
    # two files that call their samples alike
    six_cells.obs["file"] = pd.Categorical(list("xyxxxx"))
    assert list(samples_of(six_cells).cat.categories) == ["x: a", "x: b", "y: a"]
    del six_cells.obs["sample"], six_cells.obs["file"]
    assert abundance(six_cells, "k")["sample"].unique().tolist() == ["all cells"]
    assert abundance(six_cells, "k")["share"].tolist() == [1 / 2, 1 / 3, 1 / 6]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('=HYPERLINK("x")', '\'=HYPERLINK("x")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-CD3", "'-CD3"),
        (" =1", "' =1"),
        ("a;=1", "a;'=1"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("name\udcff", "name\\udcff"),
        ("CD4-", "CD4-"),
        ("-1.5", "-1.5"),
        ("Größe 細胞 אב", "Größe 細胞 אב"),
    ],
)
def test_names_do_nothing_in_a_spreadsheet(tmp_path, text, written):
    write_table(pd.DataFrame({"sample": [text], text: [-1.5]}), tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", dtype={"sample": str})
    assert list(table) == ["sample", written]
    assert table.iloc[0].tolist() == [written, -1.5]


def test_most_different():
    effect = pd.DataFrame({"a": [0.1, 0.0], "b": [0.0, -2.0], "c": [1.0, 0.0], "d": [0.0, 0.0]})
    shares = pd.Series([0.5, 0.5])
    assert most_different(effect, shares, 2) == ["b", "c"]
    assert most_different(effect, shares, 9) == ["a", "b", "c", "d"]
    # a cluster of a dozen cells does not decide, and a copy of what is there tells nothing
    effect = pd.DataFrame(
        {
            "CD3": [2.0, -2.0, 0.0, 0.0],
            "TCR": [2.0, -2.0, 0.0, 0.0],
            "CD19": [0.0, 0.8, -1.6, 0.0],
            "odd": [0.0, 0.0, 0.0, 9.0],
        }
    )
    shares = pd.Series([0.3, 0.3, 0.399, 0.001])
    assert most_different(effect, shares, 2) == ["CD3", "CD19"]
