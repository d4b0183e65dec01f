"""Populations that models find in real cells: floors, in another order of the cells."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scvi

import scmoe
from scmoe.metrics import mean_f1, weighted_f
from scmoe.model import CplMixVAE, MoEVAE

DATA = Path(os.environ.get("SCMOE_DATA_DIR", "nowhere"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="SCMOE_DATA_DIR names no folder of real data"),
]

N_CELLS, LEAST = 4000, 30
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def well():
    """Cells of a well in random order, ten surface markers, populations of some size."""
    cells = scmoe.datasets.bodenmiller("H05")
    cells = cells[cells.obs["population"].notna(), cells.var["surface"]]
    cells = cells[np.random.default_rng(3).permutation(cells.n_obs)[:N_CELLS]].copy()
    size = cells.obs["population"].value_counts()
    cells = cells[cells.obs["population"].isin(size.index[size >= LEAST])].copy()
    scmoe.pp.arcsinh(cells, cofactor=5)
    before = scvi.settings.seed
    scvi.settings.seed = 1
    yield cells
    scvi.settings.seed = before


def test_moevae(well):
    MoEVAE.setup_anndata(well)
    model = MoEVAE(well)
    model.train(40, pretrain_kwargs={"max_epochs": 40, "manager_epochs": 40}, **QUIET)
    truth, found = well.obs["population"].to_numpy().astype(str), model.predict()
    print(weighted_f(truth, found), mean_f1(truth, found))
    assert weighted_f(truth, found) > 0.9
    assert mean_f1(truth, found) > 0.7


def test_cplmixvae(well):
    CplMixVAE.setup_anndata(well)
    model = CplMixVAE(well)
    model.train(60, **QUIET)
    truth, found = well.obs["population"].to_numpy().astype(str), model.predict()
    print(weighted_f(truth, found), mean_f1(truth, found))
    assert weighted_f(truth, found) > 0.7
    assert mean_f1(truth, found) > 0.4
