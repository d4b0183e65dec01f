"""The figure of drift."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scmoe import pl


@pytest.fixture
def query():
    table = pd.DataFrame(
        {
            "n_cells": [900, 500, 700],
            "rejected": [0.012, 0.4, 0.01],
            "drift": [0.03, 0.6, 0.1],
            "marker": ["CD3", "CD45", "CD19"],
            "shift": [0.02, 0.2, 0.5],
            "alarm": [False, True, True],
        },
        index=["s2", "s10", "s1"],
    )
    return ad.AnnData(np.zeros((2, 1)), uns={"mine": {"drift": table}})


def test_a_bar_for_each_sample(query):
    ax = pl.drift(query, key="mine", show=False)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["s10", "s2", "s1"]
    assert [bar.get_width() for bar in ax.patches] == [0.6, 0.03, 0.1]
    colors = [bar.get_facecolor() for bar in ax.patches]
    assert colors[0] == colors[2] != colors[1]
    assert [text.get_text() for text in ax.texts] == [
        "40.0% rejected",
        "1.2% rejected",
        "1.0% rejected, CD19 moved 0.50",
    ]


def test_no_drift(query):
    with pytest.raises(KeyError, match=r"scmoe\.tl\.assign"):
        pl.drift(query)
