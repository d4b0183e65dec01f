from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from scmoe import datasets
from scmoe.datasets import _images

FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def write_idx(path, values, *, kind=8, shape=None):
    """An idx file, written by hand as its description says."""
    shape = values.shape if shape is None else shape
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))
    return path


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    ("load", "classes"),
    [(datasets.mnist, ["0", "1"]), (datasets.fashion_mnist, ["T-shirt/top", "Trouser"])],
)
def test_test_images(load, classes, tmp_path):
    adata = load("test")
    assert adata.shape == (10_000, 784)
    assert adata.X.dtype == np.float32
    assert (adata.X.min(), adata.X.max()) == (0, 1)
    assert list(adata.uns["image_shape"]) == [28, 28]
    assert adata.uns["value_scale"] == 255
    assert set(adata.obs["split"]) == {"test"}
    assert list(adata.obs["label"].cat.categories[:2]) == classes
    assert adata.obs["label"].nunique() == 10
    assert (adata.obs_names[0], adata.obs_names[-1]) == ("60000", "69999")
    adata[:10].copy().write_h5ad(tmp_path / "x.h5ad")


@pytest.mark.usefixtures("real_data")
def test_digits_have_their_labels():
    # the test images are known to begin with 7, 2, 1, 0, 4 and to have 1,135 ones
    labels = datasets.mnist("test").obs["label"]
    assert list(labels[:5]) == ["7", "2", "1", "0", "4"]
    assert (labels == "1").sum() == 1135


@pytest.mark.usefixtures("real_data")
def test_clothes_have_their_labels():
    # the test images are known to begin with an ankle boot, and to be balanced
    labels = datasets.fashion_mnist("test").obs["label"]
    assert labels.iloc[0] == "Ankle boot"
    assert labels.cat.codes.iloc[0] == 9
    assert set(labels.value_counts()) == {1000}


@pytest.fixture
def originals(elsewhere, monkeypatch):
    """The four files of a data set as they are downloaded: 3 images to train, 2 to test."""
    arrays = {
        "train-images-idx3": np.arange(18, dtype=np.uint8).reshape(3, 3, 2),
        "train-labels-idx1": np.array([5, 0, 4], dtype=np.uint8),
        "t10k-images-idx3": np.arange(100, 112, dtype=np.uint8).reshape(2, 3, 2),
        "t10k-labels-idx1": np.array([7, 2], dtype=np.uint8),
    }
    asked = []

    def fetch(name):
        asked.append(name)
        stem = name.split("/")[1].removesuffix("-ubyte.gz")
        return write_idx(elsewhere / f"{stem}.gz", arrays[stem])

    monkeypatch.setattr(_images, "fetch", fetch)
    return asked


def test_original_files(originals):
    adata = datasets.mnist()
    assert originals == [f"mnist/{name}-ubyte.gz" for name in FILES]
    assert list(adata.uns["image_shape"]) == [3, 2]
    np.testing.assert_array_equal(np.round(adata.X[0] * 255), np.arange(6))
    np.testing.assert_array_equal(np.round(adata.X[4] * 255), np.arange(106, 112))
    assert list(adata.obs["label"]) == ["5", "0", "4", "7", "2"]
    assert list(adata.obs["split"]) == ["train"] * 3 + ["test"] * 2
    assert list(adata.obs_names) == ["0", "1", "2", "3", "4"]


def test_only_the_split_is_downloaded(originals):
    adata = datasets.fashion_mnist("test")
    assert originals == ["fmnist/t10k-images-idx3-ubyte.gz", "fmnist/t10k-labels-idx1-ubyte.gz"]
    assert list(adata.obs["label"]) == ["Sneaker", "Pullover"]
    assert list(adata.obs["label"].cat.codes) == [7, 2]


def test_invalid_idx(tmp_path):
    values = np.zeros((2, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="not an idx file of bytes"):
        _images.read_idx(write_idx(tmp_path / "floats.gz", values, kind=13))
    with pytest.raises(ValueError, match=r"6 values, but states the shape \(2, 4\)"):
        _images.read_idx(write_idx(tmp_path / "short.gz", values, shape=(2, 4)))
    for raw in (b"", b"\0\0\x08", b"\0\0\x08\x02\0\0"):
        (tmp_path / "cut.gz").write_bytes(gzip.compress(raw))
        with pytest.raises(ValueError, match="not an idx file of bytes"):
            _images.read_idx(tmp_path / "cut.gz")


@pytest.mark.parametrize("load", [datasets.mnist, datasets.fashion_mnist])
def test_unknown_split(load):
    with pytest.raises(ValueError, match="'all', 'train' or 'test', not 'validation'"):
        load("validation")


def test_wrong_file(elsewhere):
    folder = elsewhere / "data"
    folder.mkdir()
    (folder / "mnist.npz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"not the published file 'mnist\.npz'"):
        datasets.mnist()
