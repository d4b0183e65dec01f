from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scmoe.io import from_array

BYTES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) * 10
COLOURS = np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2)
FLAT = np.arange(12.0).reshape(3, 4)


def test_grey_images_of_bytes(tmp_path):
    adata = from_array(BYTES)
    assert adata.shape == (2, 12)
    assert adata.X.dtype == np.float32
    assert list(adata.obs_names) == ["0", "1"]
    assert list(adata.var_names[:5]) == ["0_0", "0_1", "0_2", "0_3", "1_0"]
    # row 2, column 1 of the second image: 12 + 2 * 4 + 1 = 21
    assert adata[:, "2_1"].X[1, 0] == np.float32(210 / 255)
    assert list(adata.uns["image_shape"]) == [3, 4]
    assert adata.uns["value_scale"] == 255
    adata.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad")
    images = back.X.reshape(-1, *back.uns["image_shape"]) * back.uns["value_scale"]
    np.testing.assert_array_equal(np.round(images).astype(np.uint8), BYTES)


def test_colour_images_of_floats():
    adata = from_array(COLOURS)
    assert list(adata.var_names[:4]) == ["0_0_0", "0_0_1", "0_1_0", "0_1_1"]
    assert adata[:, "1_2_0"].X[1, 0] == COLOURS[1, 1, 2, 0] == 22
    np.testing.assert_array_equal(adata.X.reshape(COLOURS.shape), COLOURS)
    assert list(adata.uns["image_shape"]) == [2, 3, 2]
    assert "value_scale" not in adata.uns


@pytest.mark.parametrize("shape", [(3, 4), [3, 4, 1], np.array([2, 6])])
def test_flat_images(shape):
    adata = from_array(BYTES.reshape(2, -1), image_shape=shape)
    np.testing.assert_allclose(adata.X, BYTES.reshape(2, -1) / 255, rtol=1e-7)
    assert list(adata.uns["image_shape"]) == list(shape)
    assert adata.var_names[-1] == "_".join(str(size - 1) for size in shape)


def test_what_is_no_image():
    adata = from_array(FLAT)
    np.testing.assert_array_equal(adata.X, FLAT)
    assert adata.X.dtype == np.float32
    assert list(adata.var_names) == ["0", "1", "2", "3"]
    assert not adata.uns
    # bytes that nobody calls an image are numbers
    np.testing.assert_array_equal(from_array(FLAT.astype(np.uint8)).X, FLAT)


def test_the_source_is_left_alone():
    source = FLAT.astype(np.float32)
    adata = from_array(source, scale=2)
    adata.X[:] = 0
    np.testing.assert_array_equal(source, FLAT)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_scale(dtype):
    adata = from_array(BYTES.astype(dtype), scale=100)
    np.testing.assert_allclose(adata.X, BYTES.reshape(2, -1) / 100, rtol=1e-7)
    assert adata.uns["value_scale"] == 100
    assert "value_scale" not in from_array(BYTES, scale=1).uns


def test_tensors():
    torch = pytest.importorskip("torch")
    adata = from_array(torch.as_tensor(BYTES), obs={"label": torch.tensor([7, 3])})
    np.testing.assert_array_equal(adata.X, from_array(BYTES).X)
    assert list(adata.obs["label"]) == ["7", "3"]


def test_labels_are_categorical_in_natural_order(tmp_path):
    angle = np.array([0.5, np.nan, 2.0])
    adata = from_array(
        FLAT,
        obs={
            "label": [10, 9, 10],
            "name": ["b10", None, "b9"],
            "whole": np.array([True, False, True]),
            "ordered": pd.Categorical(["x", "a", "x"], categories=["x", "a", "q"]),
            "angle": angle,
        },
    )
    assert list(adata.obs["label"].cat.categories) == ["9", "10"]
    assert list(adata.obs["label"]) == ["10", "9", "10"]
    assert list(adata.obs["name"].cat.categories) == ["b9", "b10"]
    assert list(adata.obs["name"].isna()) == [False, True, False]
    assert list(adata.obs["whole"]) == ["True", "False", "True"]
    assert list(adata.obs["ordered"].cat.categories) == ["x", "a", "q"]
    np.testing.assert_array_equal(adata.obs["angle"], angle)
    adata.write_h5ad(tmp_path / "x.h5ad")


def test_labels_of_a_table():
    table = pd.DataFrame({"label": pd.Categorical([2, 1, 2])}, index=["u", "v", "w"])
    adata = from_array(FLAT, obs=table)
    assert list(adata.obs_names) == ["u", "v", "w"]
    assert list(adata.obs["label"]) == ["2", "1", "2"]
    assert list(adata.obs["label"].cat.categories) == ["1", "2"]
    assert list(from_array(FLAT, obs=table, obs_names="xyz").obs_names) == ["x", "y", "z"]
    # numbers are positions in a table that was cut from another: no names
    cut = pd.DataFrame({"label": [1, 2, 3]}, index=[7, 8, 9])
    assert list(from_array(FLAT, obs=cut).obs_names) == ["0", "1", "2"]


def test_numbers_that_may_be_missing():
    table = pd.DataFrame({"angle": pd.array([0.5, None, 2.0], dtype="Float64")})
    np.testing.assert_array_equal(from_array(FLAT, obs=table).obs["angle"], [0.5, np.nan, 2.0])


def test_names():
    adata = from_array(FLAT, obs_names=["a", "b", "c"], var_names=list("wxyz"))
    assert adata["b", "y"].X[0, 0] == FLAT[1, 2]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros(3), "1 dimensions, shape"),
        (np.zeros((1, 1, 1, 1, 1)), "5 dimensions"),
        (np.zeros((0, 4)), "empty"),
        (np.zeros((4, 0)), "empty"),
        (np.array([["a", "b"]]), "<U1, not real numbers"),
        (np.array([[None, 1]]), "object, not real"),
        (np.zeros((2, 2), complex), "complex128, not real"),
        (sparse.csr_matrix(FLAT), "toarray"),
        (np.zeros((5, 3, 8, 8)), r"channels first.*image_shape=\(3, 8, 8\)"),
        (np.array([[1, 2], [np.nan, 2], [np.inf, 2]]), "2 of 3 rows, the first is row 1"),
        (np.array([[1e300]]), "too large"),
    ],
)
def test_arrays_that_cannot_be_read(X, message):
    with pytest.raises(ValueError, match=message):
        from_array(X)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"image_shape": (3, 4)}, r"`image_shape` \(3, 4\) has 12 values.*have 4"),
        ({"image_shape": (4,)}, "whole numbers from 1 on"),
        ({"image_shape": (2.0, 2.0)}, "whole numbers from 1 on"),
        ({"image_shape": (-2, -2)}, "whole numbers from 1 on"),
        ({"scale": 0}, "positive"),
        ({"scale": np.nan}, "positive"),
        ({"scale": "255"}, "positive"),
        ({"obs": {"label": [1, 2]}}, r"obs\['label'\]` has 2 values, but `X` has 3 rows"),
        ({"obs": {"label": "cat"}}, "0 dimensions"),
        ({"obs": {"label": np.zeros((3, 2))}}, "2 dimensions"),
        ({"obs_names": ["a", "b"]}, "`obs_names` has 2 names, but `X` needs 3"),
        ({"obs_names": ["a", "b", "a"]}, "not unique: a"),
        ({"var_names": ["a"]}, "`var_names` has 1 names, but `X` needs 4"),
    ],
)
def test_what_does_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message):
        from_array(FLAT, **kwargs)


def test_a_shape_that_contradicts_the_array():
    with pytest.raises(ValueError, match=r"\(4, 3\), but the images of `X` are \(3, 4\)"):
        from_array(BYTES, image_shape=(4, 3))
