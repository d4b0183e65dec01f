"""Tables of a clustering: probabilities and signatures, against values by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe._core.signatures import effects
from scmoe.get import cluster_proba, signatures


@pytest.fixture
def clustered(blobs):
    """A result of five experts, of which three own cells."""
    proba = np.random.default_rng(0).dirichlet(np.ones(5), 600).astype(np.float32)
    proba[:, [2, 4]] /= 100
    proba /= proba.sum(1, keepdims=True)
    frame = pd.DataFrame(proba, index=blobs.obs_names, columns=list("01234"))
    best = frame[["0", "1", "3"]].idxmax(axis=1)
    for key in ("scmoe", "mine"):
        blobs.obs[key] = pd.Categorical(best, categories=["0", "1", "3"])
        blobs.obsm[f"{key}_proba"] = frame if key == "scmoe" else frame / 2
    return blobs


@pytest.mark.parametrize("key", ["scmoe", "mine"])
def test_live_clusters_only(clustered, key):
    table = cluster_proba(clustered, key=key)
    assert list(table.columns) == ["0", "1", "3"]
    assert list(table.index) == list(clustered.obs_names)
    assert (table.dtypes == np.float32).all()
    np.testing.assert_array_equal(table, clustered.obsm[f"{key}_proba"][["0", "1", "3"]])
    assert (table.sum(1) <= 1 + 1e-6).all()


def test_default_key(clustered):
    pd.testing.assert_frame_equal(cluster_proba(clustered), cluster_proba(clustered, key="scmoe"))


@pytest.mark.parametrize("key", ["scmoe", "other"])
def test_no_such_clustering(blobs, key):
    with pytest.raises(KeyError, match=rf"'{key}_proba'.*scmoe\.tl\.cluster"):
        cluster_proba(blobs, key=key)


def test_labels_without_probabilities(clustered):
    del clustered.obs["mine"]
    with pytest.raises(KeyError, match="mine"):
        cluster_proba(clustered, key="mine")


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


def test_invalid_arguments_of_signatures(six_cells):
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
