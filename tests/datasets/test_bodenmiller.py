from __future__ import annotations

import itertools

import numpy as np
import pytest

from scmoe import datasets
from scmoe.datasets import _bodenmiller


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(("well", "n_cells"), [("H05", 14_067), ("H08", 13_414)])
def test_bodenmiller(well, n_cells, tmp_path):
    adata = datasets.bodenmiller(well)
    assert adata.shape == (n_cells, 35)
    assert adata.var["surface"].sum() == 10
    assert adata.obs["population"].nunique() == 12
    assert {"cd4+", "nk", "cd14+hladrmid"} <= set(adata.obs["population"].cat.categories)
    assert set(adata.obs["sample"]) == {well}
    assert set(adata.obs["file"]) == set(adata.uns["fcs"])
    assert adata.obs_names.is_unique
    assert adata.X.dtype == np.float32
    adata.write_h5ad(tmp_path / "x.h5ad")


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    ("well", "nk", "dendritic", "without"), [("H05", 1_923, 40, 18), ("H08", 1_976, 15, 15)]
)
def test_an_event_of_several_gates_is_one_cell(well, nk, dendritic, without):
    adata = datasets.bodenmiller(well)
    assert len(np.unique(adata.X, axis=0)) == adata.n_obs
    population = adata.obs["population"]
    assert (population == "nk").sum() == nk
    assert (population == "dendritic").sum() == dendritic
    assert population.isna().sum() == without
    # gates that share more than half of the smaller one are one population, and no others
    held = adata.obs["gates"].str.get_dummies(" & ")
    assert held.sum().sum() == {"H05": 15_792, "H08": 15_252}[well]  # what the files list
    one_population = {
        pair
        for pair in itertools.combinations(held, 2)
        if held[[*pair]].all(axis=1).sum() > held[[*pair]].sum().min() / 2
    }
    assert one_population == {("cd14+surf-", "nk"), ("cd14-surf-", "nk")}
    assert (population[held["cd14-surf-"] == 1].dropna() == "nk").all()
    # a cell without a population is one of two, and its file is one of its gates
    assert adata.obs["gates"][population.isna()].str.contains(" & ").all()
    gate = adata.obs["file"].str.removeprefix("Staurosporine_").str.removesuffix(f"_{well}")
    assert all(a in b.split(" & ") for a, b in zip(gate, adata.obs["gates"], strict=True))


def test_rows_are_equal_byte_by_byte():
    x = np.array([[2, 1], [1, np.nan], [2, 1], [1, np.nan], [1, 2]], dtype=np.float32)
    first, which = _bodenmiller._unique_rows(x)
    assert first.tolist() == [0, 1, 4]
    assert which.tolist() == [0, 1, 0, 1, 2]


def test_unknown_well():
    with pytest.raises(ValueError, match="H05, H08"):
        datasets.bodenmiller("H99")
