"""The markers by which clusters differ, against values by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe.get import signatures
from scmoe.get._signatures import UNASSIGNED, effects, labels_of, standing_out


def test_labels_of(six_cells):
    assert list(labels_of(six_cells, "k")) == ["0", "0", "0", "1", "1", UNASSIGNED]
    assert list(labels_of(six_cells[:5].copy(), "k").cat.categories) == ["0", "1"]


def test_effects(six_cells):
    effect = effects(six_cells, "k", ["CD3", "Time"])
    # Time of "0": mean 1, of the others 4; CD3 of "1": 6 against 4
    assert effect.loc["0", "Time"] == pytest.approx(-3 / np.std([1, 1, 1, 3, 5, 4]))
    assert effect.loc["1", "CD3"] == pytest.approx(2 / np.std([0, 2, 10, 5, 7, 4]))
    # one cluster has nothing to differ from, and a constant marker tells nothing
    assert effects(six_cells[:3].copy(), "k", ["CD3", "Time"]).to_numpy().tolist() == [[0, 0]]


def test_effects_of_what_was_not_measured(six_cells):
    six_cells.X[:3, 0] = np.nan
    effect = effects(six_cells, "k", ["CD3"])
    assert effect.loc["0", "CD3"] == 0
    assert effect.loc["1", "CD3"] == pytest.approx(2 / np.std([5, 7, 4]))


def test_standing_out():
    effect = pd.DataFrame(
        [[0.4, 0.5, 2.0, -0.5, -0.4], [-3.0, -1.0, -2.0, 0.0, 0.0]],
        index=["0", "1"],
        columns=list("abcde"),
    )
    found = standing_out(effect)
    assert (found["0"].high, found["0"].low) == (["c", "b"], ["d"])
    assert (found["1"].high, found["1"].low) == ([], ["a", "c", "b"])


def test_signatures(six_cells):
    table = signatures(six_cells, "k", markers=["Time", "CD3"])
    # cells without a cluster count among the others, and have no row
    assert list(table.index) == ["0", "1"]
    assert list(table) == ["n_cells", "high", "low", "Time", "CD3"]
    assert table["n_cells"].tolist() == [3, 2]
    pd.testing.assert_frame_equal(
        table[["Time", "CD3"]],
        effects(six_cells, "k", ["Time", "CD3"]).iloc[:2],
        check_names=False,
    )
    assert table["high"].tolist() == ["", "Time, CD3"]
    assert table["low"].tolist() == ["Time", ""]


def test_markers_called_like_a_column(six_cells):
    six_cells.var_names = ["high", "low"]
    table = signatures(six_cells, "k", markers=["high", "low"])
    assert list(table) == ["n_cells", "high", "low", "high (marker)", "low (marker)"]


def test_markers_that_are_looked_at(six_cells):
    assert list(signatures(six_cells, "k"))[3:] == ["CD3"]
    six_cells.layers["twice"] = np.column_stack([six_cells.X[:, 1], six_cells.X[:, 1]])
    six_cells.uns["k"] = {"markers": np.array(["Time", "CD3"]), "params": {"layer": "twice"}}
    table = signatures(six_cells, "k")
    assert list(table)[3:] == ["Time", "CD3"]
    assert (table["CD3"] == table["Time"]).all()
    # components are no markers
    six_cells.uns["k"] = {"markers": np.array(["X_pca_0"]), "params": {"use_rep": "X_pca"}}
    assert list(signatures(six_cells, "k"))[3:] == ["CD3"]


def test_clusters_of_others(six_cells):
    six_cells.obs["leiden"] = [1, 1, 2, 2, 2, 2]
    assert list(signatures(six_cells, "leiden").index) == ["1", "2"]


def test_mistakes(six_cells):
    for kwargs, error, message in (
        ({"key": "other"}, KeyError, "other"),
        ({"key": "k", "markers": ["CD4"]}, KeyError, "CD4"),
        ({"key": "k", "markers": []}, ValueError, "no markers"),
        ({"key": "k", "markers": ["CD3", "CD3"]}, ValueError, "twice"),
        ({"key": "k", "layer": "raw"}, KeyError, "raw"),
    ):
        with pytest.raises(error, match=message):
            signatures(six_cells, **kwargs)
    six_cells.var["kind"] = "time"
    with pytest.raises(ValueError, match="no markers"):
        signatures(six_cells, "k")
    six_cells.obs["k"] = pd.Categorical([None] * 6, categories=["0"])
    with pytest.raises(ValueError, match="no cluster"):
        signatures(six_cells, "k", markers="CD3")
