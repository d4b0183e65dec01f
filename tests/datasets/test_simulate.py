from __future__ import annotations

import numpy as np
import pytest

from scmoe.datasets import population_labels, simulate_plate
from scmoe.io import read_fcs

SURFACE = ["CD3", "CD45", "CD4", "CD20", "CD33", "CD123", "CD14", "IgM", "HLA-DR", "CD7"]


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plate")
    simulate_plate(folder)
    return folder


@pytest.fixture
def adata(plate):
    adata = read_fcs(plate)
    population_labels(adata)
    return adata


def test_plate(plate, adata):
    assert sorted(path.name for path in plate.iterdir()) == [f"A0{i}.fcs" for i in range(1, 5)]
    assert adata.n_obs == 48_000
    assert list(adata.var_names[adata.var["kind"] == "mass"]) == SURFACE
    assert adata.var["kind"].value_counts().to_dict() == {"mass": 10, "other": 5, "time": 1}
    assert (adata[:, SURFACE].X >= 0).all()
    for record in adata.uns["fcs"].values():
        assert list(record["repairs"]) == []


def test_populations_are_as_uneven_as_in_blood(adata):
    share = adata.obs["population"].value_counts(normalize=True)
    assert len(share) == 14
    assert 0.28 < share.iloc[0] < 0.38
    assert 0.0005 < share.iloc[-1] < 0.002
    assert share.index[0] == "CD4 T cells"


def test_populations_differ_and_overlap(adata):
    from sklearn.metrics import f1_score
    from sklearn.neighbors import KNeighborsClassifier

    values = np.arcsinh(adata[:, SURFACE].X / 5)
    labels = adata.obs["population"].astype(str).to_numpy()
    well = adata.obs["sample"].to_numpy()
    train, test = np.flatnonzero(well == "A01")[:4000], np.flatnonzero(well == "A02")[:2000]
    model = KNeighborsClassifier(15).fit(values[train], labels[train])
    score = f1_score(labels[test], model.predict(values[test]), average="weighted")
    assert 0.9 < score < 0.99


def test_wells_differ(adata):
    means = adata.to_df()[SURFACE].groupby(adata.obs["sample"], observed=True).mean()
    assert (means.std() > 0).all()


def test_same_seed_same_bytes(tmp_path):
    first = [p.read_bytes() for p in simulate_plate(tmp_path / "a", n_wells=2, n_cells=200)]
    again = [p.read_bytes() for p in simulate_plate(tmp_path / "b", n_wells=2, n_cells=200)]
    other = simulate_plate(tmp_path / "c", n_wells=2, n_cells=200, random_state=1)
    assert first == again
    assert first[0] != other[0].read_bytes()
    assert first[0] != first[1]
    rng = np.random.default_rng(0)
    third = simulate_plate(tmp_path / "d", n_wells=2, n_cells=200, random_state=rng)
    assert first == [path.read_bytes() for path in third]


def test_names_of_wells(tmp_path):
    paths = simulate_plate(tmp_path, n_wells=13, n_cells=1)
    assert [path.name for path in paths[11:]] == ["A12.fcs", "B01.fcs"]


@pytest.mark.parametrize("kwargs", [{"n_wells": 0}, {"n_wells": 97}, {"n_cells": 0}])
def test_numbers_out_of_range(tmp_path, kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        simulate_plate(tmp_path, **kwargs)


def test_labels_without_a_table(adata):
    for record in adata.uns["fcs"].values():
        record["keywords"] = record["keywords"].drop(index="populations")
    values = adata.X.copy()
    values[0, -1], values[1, -1] = 0, np.nan
    adata.X = values
    population_labels(adata, key_added="code")
    assert list(adata.obs["code"].cat.categories) == [str(i) for i in range(1, 15)]
    assert adata.obs["code"].isna().sum() == 2


def test_labels_that_cannot_be_read(adata):
    with pytest.raises(KeyError, match="gate"):
        population_labels(adata, channel="gate")
    with pytest.raises(ValueError, match="not whole numbers"):
        population_labels(adata, channel="DNA1")
    adata.uns["fcs"]["A01"]["keywords"].loc["populations", "value"] = "1=T"
    with pytest.raises(ValueError, match=r"A01.*does not name"):
        population_labels(adata)
