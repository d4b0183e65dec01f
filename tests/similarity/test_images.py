"""Features that images are compared by."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import kneighbors_graph

import scmoe
from scmoe.similarity import image_gradients


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return scmoe.io.from_array(rng.random((40, 16, 16)).astype(np.float32))


def test_what_is_written(images):
    before = images.X.copy()
    image_gradients(images, n_components=5)
    assert images.obsm["X_gradients"].shape == (40, 5)
    assert images.obsm["X_gradients"].dtype == np.float32
    np.testing.assert_array_equal(images.X, before)
    again = images.copy()
    image_gradients(again, n_components=5, key_added="again", straighten=False)
    assert not np.allclose(again.obsm["again"], again.obsm["X_gradients"])


def test_batches_change_nothing(images, monkeypatch):
    image_gradients(images, n_components=5)
    monkeypatch.setattr("scmoe.similarity._embedding.IMAGES_AT_A_TIME", 7)
    image_gradients(images, n_components=5, key_added="X_parts")
    np.testing.assert_allclose(images.obsm["X_parts"], images.obsm["X_gradients"], atol=1e-5)


def test_neighbours_of_digits_are_more_often_the_same_digit(data_dir):
    digits = scmoe.datasets.mnist("test")[:2000].copy()
    image_gradients(digits)
    label = digits.obs["label"].to_numpy()

    def same(x):
        graph = kneighbors_graph(x, 10).tocoo()
        return (label[graph.row] == label[graph.col]).mean()

    assert same(digits.obsm["X_gradients"]) > same(digits.X) + 0.08


def test_bad_input(images):
    with pytest.raises(ValueError, match="need as many images"):
        image_gradients(images, n_components=41)
    wrong = images.copy()
    wrong.uns["image_shape"] = np.array([16, 17])
    with pytest.raises(ValueError, match=r"\(16, 17\).*256"):
        image_gradients(wrong, n_components=5)
    del wrong.uns["image_shape"]
    with pytest.raises(KeyError, match="image_shape"):
        image_gradients(wrong, n_components=5)
    assert "X_gradients" not in wrong.obsm
