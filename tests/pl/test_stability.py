"""The figure of which clusters come again."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scmoe import pl


@pytest.fixture
def cells():
    """Two clusters over three runs, the second of them in two only."""
    names = ["T", "B" * 60]
    jaccard = pd.DataFrame(
        [[1.0, 0.9, 0.8], [0.2, np.nan, 0.4]], index=names, columns=["run0", "run1", "run2"]
    )
    table = pd.DataFrame(
        {
            "n_cells": [300, 100],
            "jaccard": [0.9, 0.3],
            "lower": [0.805, 0.205],
            "upper": [0.995, 0.395],
            "found": [1.0, 0.0],
            "stable": [True, False],
        },
        index=names,
    )
    return ad.AnnData(
        np.zeros((4, 1)),
        obs=pd.DataFrame(
            {"mine_ambiguity": np.array([0, 0.9, np.nan, 0.3], np.float32)}, index=list("abcd")
        ),
        obsm={"X_umap": np.arange(8.0).reshape(4, 2)},
        uns={"mine_stability": {"clusters": table, "jaccard": jaccard}},
    )


def test_rows(cells):
    indices, sizes = pl.stability(cells, key="mine", show=False)
    _, first, second, means = indices.collections
    assert first.get_offsets()[:, 0].tolist() == [1.0, 0.9, 0.8]
    assert np.ma.masked_invalid(second.get_offsets()[:, 0]).compressed().tolist() == [0.2, 0.4]
    assert to_hex(first.get_facecolor()[0][:3]) != to_hex(second.get_facecolor()[0][:3])
    assert [segment[0, 0] for segment in means.get_segments()] == [0.9, 0.3]
    bars = indices.patches
    assert [bar.get_x() for bar in bars] == [0.805, 0.205]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.19, 0.19])
    assert list(indices.lines[0].get_xdata()) == [0.75, 0.75]
    top, long = [text.get_text() for text in indices.get_yticklabels()]
    assert top == "T"
    assert len(long) == 40
    # the first is on top
    assert indices.get_ylim() == sizes.get_ylim() == (1.5, -0.5)
    assert [bar.get_width() for bar in sizes.patches] == [300, 100]
    assert indices.figure._suptitle.get_text() == "1 of 2 clusters stable over 3 runs"


def test_map(cells):
    for basis in ("umap", "X_umap"):
        *_, ax = pl.stability(cells, key="mine", basis=basis, show=False)
        unknown, known = ax.collections
        assert unknown.get_offsets().tolist() == [[4, 5]]
        # the most ambiguous on top
        np.testing.assert_allclose(known.get_array(), [0, 0.3, 0.9], rtol=1e-6)
        assert known.get_offsets().tolist() == [[0, 1], [6, 7], [2, 3]]
        assert ax.get_xlabel() == "umap 1"


def test_cluster_of_no_run(cells):
    record = cells.uns["mine_stability"]
    record["jaccard"].iloc[1] = np.nan
    record["clusters"].loc[record["clusters"].index[1], ["jaccard", "lower", "upper"]] = np.nan
    fig = pl.stability(cells, key="mine", return_fig=True)
    fig.canvas.draw()


def test_saved(cells, scanpy_settings, tmp_path):
    pl.stability(cells, key="mine", title="these", save="_well.png", show=False)
    assert (tmp_path / "stability_well.png").stat().st_size > 0


def test_missing(cells):
    with pytest.raises(KeyError, match=r"scmoe\.tl\.stability"):
        pl.stability(cells)
    with pytest.raises(KeyError, match="X_umap"):
        pl.stability(cells, key="mine", basis="tsne")
    cells.obsm["X_one"] = np.zeros((4, 1))
    with pytest.raises(ValueError, match="fewer than two"):
        pl.stability(cells, key="mine", basis="one")
    del cells.obs["mine_ambiguity"]
    with pytest.raises(KeyError, match="mine_ambiguity"):
        pl.stability(cells, key="mine", basis="umap")
