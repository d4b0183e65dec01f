"""The reliability diagram."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scmoe import pl
from scmoe.metrics import calibration


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet([0.2, 0.2, 0.2], 400)
    label = (rng.random((400, 1)) > proba.cumsum(1)).sum(1)
    names = [f"cell_{i}" for i in range(400)]
    obs = pd.DataFrame({"truth": label.astype(str)}, index=names)
    adata = ad.AnnData(np.zeros((400, 1)), obs=obs)
    adata.obsm["mine_proba"] = pd.DataFrame(proba, index=adata.obs_names, columns=list("012"))
    return adata


def test_bars(cells):
    fig = pl.calibration(cells, "truth", key="mine", n_bins=10, return_fig=True)
    upper, lower = fig.axes
    found = calibration(cells.obsm["mine_proba"], cells.obs["truth"], n_bins=10)
    filled = found.table[found.table["n_cells"] > 0]
    heights = [bar.get_height() for bar in upper.patches]
    np.testing.assert_allclose(heights[: len(filled)], filled["accuracy"])
    np.testing.assert_allclose(heights[len(filled) :], filled["probability"] - filled["accuracy"])
    assert [bar.get_height() for bar in lower.patches] == found.table["n_cells"].tolist()
    assert f"{found.error:.3f}" in fig.get_suptitle()


def test_missing(cells):
    with pytest.raises(KeyError, match=r"scmoe\.tl\.assign"):
        pl.calibration(cells, "truth")
    with pytest.raises(KeyError, match="which holds"):
        pl.calibration(cells, "wrong", key="mine")
