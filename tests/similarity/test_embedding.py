"""The paper's two similarities against brute force, and the UMAP that they look at."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scmoe.similarity import Knn, Threshold, umap


@pytest.fixture
def cells():
    return np.random.default_rng(2).permutation(600)[:60]


def distances(points):
    return np.linalg.norm(points[:, None].astype(float) - points[None], axis=2)


@pytest.mark.parametrize("k", [1, 4, 59, 100])
def test_knn_against_brute_force(linked, cells, k):
    d = distances(linked.obsm["X_umap"][cells])
    np.fill_diagonal(d, np.inf)
    expected = np.eye(60)
    for i, row in enumerate(d):
        for j in np.argsort(row)[: min(k, 59)]:
            expected[i, j] = expected[j, i] = 1
    s = Knn(n_neighbors=k).bind(linked, linked.X).dense(cells)
    np.testing.assert_array_equal(s, expected)


def test_knn_looks_within_the_batch_only(linked, cells):
    s = Knn(n_neighbors=3).bind(linked, linked.X).dense(cells)
    # however far apart the cells of a batch are, everyone has three neighbours
    assert ((s.sum(1) - 1) >= 3).all()


def test_knn_of_identical_cells():
    points = np.zeros((5, 2), np.float32)
    adata = AnnData(points)
    s = Knn(use_rep="X", n_neighbors=2).bind(adata, points).dense(np.arange(5))
    np.testing.assert_array_equal(s.diagonal(), 1)
    assert ((s.sum(1) - 1) >= 2).all()


@pytest.mark.parametrize("distance", [0.2, 0.7, 3.0])
def test_threshold_against_brute_force(linked, cells, distance):
    d = distances(linked.obsm["X_umap"][cells])
    s = Threshold(distance=distance).bind(linked, linked.X).dense(cells)
    clear = np.abs(d - distance) > 1e-4
    np.testing.assert_array_equal(s[clear], (d < distance)[clear])


@pytest.mark.parametrize("cls", [Knn, Threshold])
def test_use_rep_x_is_what_the_model_is_trained_on(linked, cells, cls):
    profile = linked.X[:, ::-1] * 2
    linked.obsm["profile"] = profile
    np.testing.assert_array_equal(
        cls(use_rep="X").bind(linked, profile).dense(cells),
        cls(use_rep="profile").bind(linked, linked.X).dense(cells),
    )


@pytest.mark.parametrize("cls", [Knn, Threshold])
def test_any_array_or_table_of_obsm(linked, cells, cls):
    expected = cls().bind(linked, linked.X).dense(cells)
    embedding = linked.obsm["X_umap"]
    linked.obsm["frame"] = pd.DataFrame(embedding, index=linked.obs_names, columns=["x", "y"])
    linked.obsm["fortran"] = np.asfortranarray(embedding, dtype=np.float64)
    for key in ("frame", "fortran"):
        again = cls(use_rep=key).bind(linked, linked.X).dense(cells)
        np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("cls", [Knn, Threshold])
def test_errors(linked, cls):
    with pytest.raises(KeyError, match=r"'X_tsne'.*X_umap.*scmoe.similarity.umap"):
        cls(use_rep="X_tsne").bind(linked, linked.X)
    for value in (np.nan, np.inf):
        linked.obsm["X_umap"][3, 1] = value
        with pytest.raises(ValueError, match=r"X_umap.*NaN or infinite"):
            cls().bind(linked, linked.X)


@pytest.mark.parametrize("metric", ["canberra", "euclidean"])
def test_umap(blobs, metric):
    adata = blobs[:60].copy()
    before = adata.X.copy()
    assert umap(adata, metric=metric, n_components=3, n_neighbors=10) is None
    embedding = adata.obsm["X_umap"]
    assert embedding.shape == (60, 3)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    np.testing.assert_array_equal(adata.X, before)
    umap(
        adata,
        metric=metric,
        n_components=3,
        n_neighbors=10,
        key_added="again",
    )
    np.testing.assert_array_equal(adata.obsm["again"], embedding)


def test_umap_of_a_representation_and_its_metric(blobs):
    adata = blobs[:60].copy()
    adata.obsm["rep"] = adata.X[:, :3] + 1
    umap(adata, use_rep="rep", key_added="canberra")
    umap(adata, use_rep="rep", key_added="euclidean", metric="euclidean")
    umap(adata, use_rep="rep", key_added="other seed", random_state=1)
    assert not np.allclose(adata.obsm["canberra"], adata.obsm["euclidean"])
    assert not np.allclose(adata.obsm["canberra"], adata.obsm["other seed"])


def test_umap_errors(blobs):
    with pytest.raises(KeyError, match="'X_pca'"):
        umap(blobs, use_rep="X_pca")
    with pytest.raises(ValueError, match="at least 3 cells"):
        umap(blobs[:2].copy())
    blobs.X[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        umap(blobs)
    assert "X_umap" not in blobs.obsm


def test_copies_of_a_cell_are_no_neighbours(blobs):
    """A batch drawn with replacement: copies are alike, and take no neighbour's place."""
    target = Knn(use_rep="X", n_neighbors=3).bind(blobs, blobs.X)
    cells = np.arange(40)
    once = target.dense(cells)
    twice = target.dense(np.concatenate([cells, cells[:5]]))
    np.testing.assert_array_equal(twice[:40, :40], once)
    np.testing.assert_array_equal(twice[40:, :40], once[:5])
