"""Results as tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmoe.get import cluster_proba


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
