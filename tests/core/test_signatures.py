"""The markers by which clusters differ, against values by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe._core.signatures import UNASSIGNED, effects, labels_of, standing_out


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
