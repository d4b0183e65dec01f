"""Images: convolutions, margins that never vary, and new images."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scvi
from scipy.sparse import csr_matrix
from sklearn.neighbors import kneighbors_graph

import scmoe
from scmoe.metrics import accuracy
from scmoe.model import MoESimVAE
from scmoe.similarity import Knn

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {
    "network": "conv",
    "encoder_channels": (4, 4, 4, 4, 2),
    "expert_channels": (2, 8, 4, 4),
    "n_latent": 4,
    "n_hidden": 16,
}
"""The paper's layers, narrow."""


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def make_bars(n=60, shape=(8, 8), seed=0):
    """Standing and lying bars within a dark margin."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, *shape), np.float32)
    stands = np.arange(n) % 2 == 0
    height, width = shape[:2]
    for image, is_standing in zip(images, stands, strict=True):
        if is_standing:
            image[1:-1, width // 2 - 1 : width // 2 + 1] = rng.uniform(0.6, 1)
        else:
            image[height // 2 - 1 : height // 2 + 1, 1:-1] = rng.uniform(0.6, 1)
        image[1:-1, 1:-1] += rng.uniform(0, 0.2, image[1:-1, 1:-1].shape)
    label = np.where(stands, "standing", "lying")
    adata = scmoe.io.from_array(images.clip(0, 1), obs={"label": label})
    spot = np.where(stands, 0.0, 5.0)[:, None] + rng.normal(scale=0.5, size=(n, 2))
    adata.obsm["X_umap"] = spot.astype(np.float32)
    graph = kneighbors_graph(spot, 8)
    adata.obsp["connectivities"] = csr_matrix(graph.maximum(graph.T), dtype=np.float32)
    return adata


@pytest.fixture
def bars():
    return make_bars()


def trained(adata, n_experts=3, epochs=2, *, train=None, **kwargs):
    scvi.settings.seed = 0
    MoESimVAE.setup_anndata(adata, similarity=Knn())
    model = MoESimVAE(adata, n_experts, **{**SMALL, **kwargs})
    model.train(epochs, **{**QUIET, "batch_size": 32, **(train or {})})
    return model


@pytest.mark.parametrize("network", ["conv", "dense"])
def test_shapes(bars, network):
    model = trained(bars, network=network)
    assert np.isfinite(model.history["loss_train"].to_numpy(float)).all()
    assert model.get_latent_representation().shape == (60, 4)
    np.testing.assert_allclose(model.predict_proba().sum(axis=1), 1, rtol=1e-5)
    new = model.generate(7)
    assert new.shape == (7, 64)
    assert list(new.var_names) == list(bars.var_names)
    np.testing.assert_array_equal(new.uns["image_shape"], [8, 8])
    assert new.uns["generated"]["noise"] == False  # noqa: E712 (may be numpy's)
    assert 0 <= new.X.min() <= new.X.max() <= 1


def test_predictions_do_not_depend_on_the_batch(bars):
    model = trained(bars, batch_norm=True)
    proba = model.predict_proba()
    np.testing.assert_allclose(model.predict_proba(batch_size=1), proba, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(bars[3:5].copy()), proba[3:5], atol=1e-5)


def test_new_images_need_no_shape(bars):
    """The model knows it."""
    model = trained(bars)
    new = ad.AnnData(bars.X.copy(), var=bars.var)
    np.testing.assert_array_equal(model.predict(new), model.predict())


def test_colours():
    adata = make_bars(shape=(8, 12, 3))
    assert list(adata.uns["image_shape"]) == [8, 12, 3]
    new = trained(adata).generate(5)
    assert new.shape == (5, 8 * 12 * 3)
    np.testing.assert_array_equal(new.uns["image_shape"], [8, 12, 3])


def test_shapes_of_a_file(bars, tmp_path):
    """What an h5ad gives back as the shape of an image is one."""
    bars.uns["image_shape"] = np.array([8, 8])
    bars.write_h5ad(tmp_path / "bars.h5ad")
    loaded = ad.read_h5ad(tmp_path / "bars.h5ad")
    np.testing.assert_array_equal(trained(loaded).predict_proba(), trained(bars).predict_proba())


def test_saved_model_is_the_same(bars, tmp_path):
    model = trained(bars, epochs=5, batch_norm=True, means="learned", kl_weight=0.1)
    model.save(str(tmp_path / "m"))
    loaded = MoESimVAE.load(str(tmp_path / "m"), bars.copy(), accelerator="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(), model.predict_proba())
    np.testing.assert_array_equal(loaded.generate(9).X, model.generate(9).X)
    model.save(str(tmp_path / "with_cells"), save_anndata=True)
    alone = MoESimVAE.load(str(tmp_path / "with_cells"), accelerator="cpu")
    np.testing.assert_array_equal(alone.predict_proba(), model.predict_proba())


def test_same_seed_same_result(bars):
    first, second = (trained(bars.copy(), batch_norm=True) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(), second.predict_proba())
    np.testing.assert_array_equal(first.generate(4).X, second.generate(4).X)


@pytest.mark.slow
def test_kinds_of_images_come_apart_and_are_drawn(bars):
    model = trained(bars, n_experts=2, epochs=100, train={"plan_kwargs": {"lr": 5e-3}})
    label = model.predict()
    assert accuracy(bars.obs["label"], label) == 1
    for kind in ("standing", "lying"):
        own = bars.obs["label"] == kind
        cluster = label[own.to_numpy()][0]
        new = model.generate(100, [cluster]).X.mean(axis=0)
        distance = {
            other: np.abs(new - bars.X[bars.obs["label"] == other].mean(axis=0)).mean()
            for other in ("standing", "lying")
        }
        assert distance[kind] < 0.5 * max(distance.values())


# ----------------------------------------------------------------------------------------
# as one line


@pytest.mark.parametrize("network", ["conv", "dense"])
@pytest.mark.parametrize("similarity", [None, Knn()], ids=["graph", "embedding"])
def test_one_line(bars, network, similarity):
    assert (np.ptp(bars.X, axis=0) == 0).any(), "margins are constant"
    scmoe.tl.cluster(
        bars,
        n_clusters=3,
        similarity=similarity,
        progress=False,
        model_kwargs={**SMALL, "network": network},
        train_kwargs={"max_epochs": 3, "batch_size": 32, "accelerator": "cpu"},
    )
    new = scmoe.tl.generate(bars, 11)
    np.testing.assert_array_equal(new.uns["image_shape"], [8, 8])
    assert new.shape == (11, 64)
    assert 0 <= new.X.min() <= new.X.max() <= 1
    np.testing.assert_array_equal(bars.uns["image_shape"], [8, 8])


def test_features_of_images_are_no_images(bars):
    """A representation is scaled as markers are, and what is drawn from it has no shape."""
    scmoe.similarity.image_gradients(bars, n_components=6)
    scmoe.tl.cluster(
        bars,
        n_clusters=3,
        use_rep="X_gradients",
        similarity=Knn(use_rep="X_gradients"),
        progress=False,
        train_kwargs={"max_epochs": 3, "accelerator": "cpu"},
    )
    new = scmoe.tl.generate(bars, 11)
    assert new.shape == (11, 6)
    assert "image_shape" not in new.uns
    assert new.uns["generated"]["noise"]


# ----------------------------------------------------------------------------------------
# mistakes


@pytest.mark.parametrize(
    ("shape", "error", "match"),
    [
        (None, KeyError, r"uns\['image_shape'\].*scmoe\.io\.from_array"),
        ([8, 9], ValueError, r"uns\['image_shape'\].*\(8, 9\).*64"),
        ([64], ValueError, r"\(64,\).*64"),
        ([8, 8, 2], ValueError, r"\(8, 8, 2\).*64"),
        ([2, 32], ValueError, "multiples of 4"),
        ([-8, -8], ValueError, r"\(-8, -8\)"),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["model", "tl"])
def test_shapes_that_do_not_fit(bars, shape, error, match, whole):
    if shape is None:
        del bars.uns["image_shape"]
        bars = bars[:, np.ptp(bars.X, axis=0) > 0].copy()
    else:
        bars.uns["image_shape"] = np.array(shape)
    before = bars.copy()

    def run():
        if whole:
            scmoe.tl.cluster(
                bars, n_clusters=3, similarity=Knn(), progress=False, model_kwargs=SMALL
            )
        else:
            MoESimVAE.setup_anndata(bars, similarity=Knn())
            MoESimVAE(bars, 3, **SMALL)

    with pytest.raises(error, match=match):
        run()
    np.testing.assert_array_equal(bars.X, before.X)
    assert list(bars.obsm) == ["X_umap"]
    if whole:
        assert list(bars.obs) == list(before.obs)
        assert list(bars.uns) == list(before.uns)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"encoder_channels": (4, 4)}, r"`channels` is \(4, 4\).*5 numbers"),
        ({"expert_channels": (4, 0, 4, 4)}, r"expert_channels.*of at least 1, got \(4, 0, 4, 4\)"),
    ],
)
def test_channels_that_do_not_fit(bars, kwargs, match):
    MoESimVAE.setup_anndata(bars, similarity=Knn())
    with pytest.raises(ValueError, match=match):
        MoESimVAE(bars, 3, **{**SMALL, **kwargs})


def test_bytes_are_not_scaled_yet(bars):
    bars.X = bars.X * np.float32(255)
    with pytest.raises(ValueError, match=r"outside 0 to 1 in '1_1'.*scmoe\.io\.from_array"):
        trained(bars)


def test_black_images(bars):
    bars.X[:] = 0
    with pytest.raises(ValueError, match="Constant in all cells"):
        trained(bars)


@pytest.mark.slow
def test_real_digits(data_dir):
    """A few hundred MNIST images through convolutions: the loss falls."""
    adata = scmoe.datasets.mnist()[::300].copy()
    adata.obsm["X_umap"] = adata.X @ np.random.default_rng(0).normal(size=(784, 5)) / 28
    model = trained(adata, n_experts=10, epochs=4, train={"batch_size": 64})
    loss = model.history["reconstruction_train"].to_numpy(float).ravel()
    assert loss[-1] < 0.8 * loss[0]
    new = model.generate(3)
    np.testing.assert_array_equal(new.uns["image_shape"], [28, 28])
