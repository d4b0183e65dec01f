"""The figure of the evidence for the number of clusters."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scmoe import pl


@pytest.fixture
def dense():
    """Two clusters and noise."""
    labels = pd.Categorical(["0", "0", "1", None], categories=["0", "1"])
    table = pd.DataFrame(
        {
            "min_cluster_size": [5, 10, 20],
            "n_clusters": [4, 2, 1],
            "noise": [0.1, 0.25, 0.3],
            "chosen": [False, True, False],
        }
    )
    return ad.AnnData(
        np.zeros((4, 1)),
        obs=pd.DataFrame({"mine": labels}, index=list("abcd")),
        obsm={"X_mine": np.arange(8.0).reshape(4, 2)},
        uns={"mine": {"n_clusters": 2, "method": "density", "noise": 0.25, "evidence": table}},
    )


@pytest.fixture
def stable():
    table = pd.DataFrame(
        {
            "resolution": [0.05, 0.3, 2.0],
            "n_clusters": [2, 4, 30],
            "stable": [2, 4, 1],
            "stability": [1.0, 0.9, 0.4],
            "spread": [0.0, 0.05, 0.1],
            "ari": [1.0, 0.9, 0.5],
            "chosen": [False, True, False],
        }
    )
    record = {"n_clusters": 4, "method": "stability", "noise": 0.0, "evidence": table}
    return ad.AnnData(np.zeros((4, 1)), uns={"n_clusters": record})


def test_density(dense):
    cells, sizes = pl.n_clusters(dense, key="mine", show=False)
    noise, inside = cells.collections
    assert noise.get_offsets().tolist() == [[6, 7]]
    assert to_hex(noise.get_facecolor()[0]) == "#d3d3d3"
    assert inside.get_offsets().tolist() == [[0, 1], [2, 3], [4, 5]]
    first, second, third = inside.get_facecolor()
    assert (first == second).all()
    assert (first != third).any()
    assert [text.get_text() for text in cells.texts] == ["0", "1"]
    chosen, curve = sizes.lines
    assert list(chosen.get_xdata()) == [10, 10]
    assert curve.get_ydata().tolist() == [4, 2, 1]
    assert cells.figure._suptitle.get_text() == "2 clusters by density, 25.0% noise"


def test_sizes_that_are_close_share_a_tick(dense):
    """That of the size which was taken; and no number of clusters is cut off."""
    table = dense.uns["mine"]["evidence"]
    table["min_cluster_size"] = [5, 26, 30]
    table["chosen"] = [False, False, True]
    _, sizes = pl.n_clusters(dense, key="mine", show=False)
    assert [text.get_text() for text in sizes.get_xticklabels()] == ["5", "30"]
    assert sizes.get_ylim()[1] >= 1.1 * 4
    table["n_clusters"] = 0
    _, sizes = pl.n_clusters(dense, key="mine", show=False)
    assert sizes.get_ylim() == (0, 1)


def test_stability(stable):
    communities, again = pl.n_clusters(stable, show=False)
    chosen, there, found = communities.lines
    assert list(chosen.get_xdata()) == [0.3, 0.3]
    assert there.get_ydata().tolist() == [2, 4, 30]
    assert found.get_ydata().tolist() == [2, 4, 1]
    assert again.lines[1].get_ydata().tolist() == [1.0, 0.9, 0.4]
    assert [t.get_text() for t in again.get_xticklabels()] == [
        "0.05",
        "0.1",
        "0.2",
        "0.5",
        "1",
        "2",
    ]
    assert again.figure._suptitle.get_text() == "4 clusters by stability"


def test_tree(stable):
    """As of stability, over another setting; 0 has no place on a logarithmic axis."""
    record = stable.uns["n_clusters"]
    record["method"] = "tree"
    record["evidence"] = record["evidence"].rename(columns={"resolution": "significance"})
    record["evidence"]["significance"] = [0, 3.5, 7]
    clusters, again = pl.n_clusters(stable, show=False)
    chosen, there, found = clusters.lines
    assert list(chosen.get_xdata()) == [3.5, 3.5]
    assert there.get_ydata().tolist() == [2, 4, 30]
    assert found.get_ydata().tolist() == [2, 4, 1]
    assert [text.get_text() for text in clusters.get_legend().get_texts()] == [
        *("clusters", "found again"),
    ]
    assert again.get_xlabel() == "significance"
    assert [text.get_text() for text in again.get_xticklabels()] == ["5"]
    assert again.figure._suptitle.get_text() == "4 clusters by tree"


def test_one_cluster_has_no_choice_to_mark(stable):
    stable.uns["n_clusters"]["evidence"]["chosen"] = False
    stable.uns["n_clusters"]["n_clusters"] = 1
    communities, _ = pl.n_clusters(stable, show=False)
    assert len(communities.lines) == 2
    assert communities.figure._suptitle.get_text() == "1 cluster by stability"


def test_one_dimension_and_one_resolution(dense, stable):
    dense.obsm["X_mine"] = dense.obsm["X_mine"][:, :1]
    cells, _ = pl.n_clusters(dense, key="mine", show=False)
    assert cells.collections[0].get_offsets().tolist() == [[6, 3]]
    evidence = stable.uns["n_clusters"]["evidence"]
    stable.uns["n_clusters"]["evidence"] = evidence[1:2]
    _, again = pl.n_clusters(stable, show=False)
    assert [text.get_text() for text in again.get_xticklabels()] == ["0.3"]


def test_what_is_missing(dense):
    with pytest.raises(KeyError, match=r"scmoe\.tl\.n_clusters"):
        pl.n_clusters(dense)
    del dense.obsm["X_mine"]
    with pytest.raises(KeyError, match="X_mine"):
        pl.n_clusters(dense, key="mine")


def test_saved(stable, tmp_path):
    assert pl.n_clusters(stable, show=False, save=tmp_path / "n.png", title="Mine") is not None
    assert (tmp_path / "n.png").stat().st_size > 1000
    assert pl.n_clusters(stable, return_fig=True)._suptitle.get_text() == "4 clusters by stability"
