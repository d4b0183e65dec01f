"""Clusters that are called after their markers."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from trees import make_clustered

from scmoe.tl import name_clusters

NAMES = {
    "T": "CD3+ CD4+ CD19-",
    "B": "CD19+ CD3- CD4-",
    "NK": "CD8+ CD56+ CD4-",
    "mono": "CD14+ CD45-",
    "pDC": "CD123+ CD45-",
}


def test_slots(blobs):
    assert name_clusters(blobs, key="population") is None
    labels = blobs.obs["population_names"]
    assert blobs.uns["population_names"]["names"]["name"].to_dict() == NAMES
    assert (labels.astype(str) == blobs.obs["population"].map(NAMES).astype(str)).all()
    assert list(labels.cat.categories) == sorted(
        NAMES.values(), key=list(labels.cat.categories).index
    )
    record = blobs.uns["population_names"]
    assert record["names"]["n_cells"].tolist() == [270, 150, 90, 60, 30]


def test_clusters_with_other_numbers(blobs):
    blobs.obs["one"] = blobs.obs["population"].cat.rename_categories(list("01234"))
    blobs.obs["two"] = blobs.obs["population"].cat.rename_categories(list("31402"))
    blobs.obs["two"] = blobs.obs["two"].cat.reorder_categories(list("01234"))
    for key in ("one", "two"):
        name_clusters(blobs, key=key)
    pd.testing.assert_series_equal(
        blobs.obs["one_names"], blobs.obs["two_names"], check_names=False
    )


def test_halves_of_a_population_are_numbered(blobs):
    halves = blobs.obs["population"].astype(str).to_numpy()
    cells = np.flatnonzero(halves == "T")
    halves[cells[:100]] = "T small"
    blobs.obs["halves"] = halves
    name_clusters(blobs, key="halves", max_markers=1)
    names = blobs.uns["halves_names"]["names"]["name"]
    assert names["T"].endswith(" (1)")
    assert names["T small"].endswith(" (2)")
    assert names.is_unique


def test_cells_without_a_cluster(blobs, tmp_path):
    some = blobs.obs["population"].isin(["T", "B"])
    blobs.obs["some"] = blobs.obs["population"].where(some).cat.remove_unused_categories()
    name_clusters(blobs, key="some", key_added="mine")
    assert blobs.obs["mine"].isna().equals(~some)
    assert blobs.obs["mine"].nunique() == 2
    blobs.write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_series_equal(back.obs["mine"], blobs.obs["mine"])
    # written over
    name_clusters(back, key="some", key_added="mine", markers=["CD19", "CD4"], max_markers=1)
    assert back.uns["mine"]["names"]["name"].to_dict() == {"T": "CD4+", "B": "CD19+"}


def test_copy(blobs, same):
    before = same.look(blobs)
    other = name_clusters(blobs, key="population", copy=True)
    same(blobs, before)
    assert "population_names" in other.obs


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"key": "other"}, KeyError, "other"),
        ({"markers": ["CD9"]}, KeyError, "CD9"),
        ({"markers": []}, ValueError, "no markers"),
        ({"max_markers": 0}, ValueError, "max_markers"),
        ({"max_markers": 1.5}, ValueError, "max_markers"),
        ({"layer": "raw"}, KeyError, "raw"),
        ({"key_added": "population"}, ValueError, "overwrite"),
        ({"key_added": "a/b"}, ValueError, "key_added"),
    ],
)
def test_mistakes(blobs, same, kwargs, error, message):
    before = same.look(blobs)
    with pytest.raises(error, match=message):
        name_clusters(blobs, **{"key": "population", **kwargs})
    same(blobs, before)


def test_names_have_the_colors_of_their_clusters(blobs):
    blobs.uns["population_colors"] = own = ["#000001", "#000002", "#000003", "#000004", "#000005"]
    name_clusters(blobs, key="population")
    colors = dict(zip(blobs.obs["population"].cat.categories, own, strict=True))
    names = blobs.obs["population_names"].cat.categories
    found = dict(zip(names, blobs.uns["population_names_colors"], strict=True))
    assert found == {NAMES[population]: color for population, color in colors.items()}


def test_signs_of_gates():
    adata = make_clustered()
    name_clusters(adata, max_markers=1)
    # the gates of the rest are CD4-, CD8- and CD19-, of which the first tells most
    assert adata.uns["scmoe_names"]["names"]["name"].to_dict() == {
        "B": "CD19+",
        "T4": "CD4+",
        "T8": "CD8+",
        "rest": "CD4-",
    }
    # without the markers of the tree there are means, as for clusters of others
    name_clusters(adata[:, ["CD3", "CD19"]].copy(), max_markers=1)
    adata.uns["scmoe"]["params"]["use_rep"] = "X_pca"
    name_clusters(adata, max_markers=1)
    assert adata.uns["scmoe_names"]["names"]["name"]["rest"] == "CD3-"
