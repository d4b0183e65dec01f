"""Classes of cells from markers."""

from __future__ import annotations

import logging

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scmoe.pp import marker_prior

# averages: A 1, B 2, C 1, HLA-DR 1, Foo- 1.5
X = np.array(
    [
        # A, B, C, HLA-DR, Foo-
        [4, 0, 0, 0, 0],
        [0, 8, 0, 0, 3],
        [0, 0, 4, 0, 0],
        [0, 0, 0, 4, 3],
    ],
    dtype=np.float32,
)
GENES = ["A", "B", "C", "HLA-DR", "Foo-"]


@pytest.fixture
def adata():
    return ad.AnnData(
        X.copy(), obs=pd.DataFrame(index=list("wxyz")), var=pd.DataFrame(index=GENES)
    )


def prior(adata, markers, **kwargs):
    marker_prior(adata, markers, **kwargs)
    return adata.obsm["marker_prior"].to_numpy()


def test_what_is_written(adata, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="scmoe"):
        assert marker_prior(adata, {"a": "A", "b": ["B+"], 3: ["C", "HLA-DR-"]}) is None
    frame = adata.obsm["marker_prior"]
    assert list(frame.columns) == ["a", "b", "3"]
    assert list(frame.index) == list("wxyz")
    assert (frame.dtypes == np.float32).all()
    np.testing.assert_array_equal(frame, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert "3 cells certain, 0 ambiguous, 1 negative" in caplog.text
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    pd.testing.assert_frame_equal(again.obsm["marker_prior"], frame)
    record = again.uns["marker_prior"]
    assert dict(record["params"]) == {"combine": "all", "shared": False}
    assert list(record["classes"]) == ["a", "b", "3"]
    assert list(record["markers"]) == ["A+", "B+", "C+, HLA-DR-"]
    assert list(record["certain"]) == [1, 1, 1]
    assert (record["n_certain"], record["n_ambiguous"], record["n_negative"]) == (3, 0, 1)


def test_copy_key_and_layer(adata):
    adata.layers["turned"] = X[::-1].copy()
    copied = marker_prior(adata, {"a": "A", "b": "B"}, layer="turned", key_added="mine", copy=True)
    assert not adata.obsm
    assert not adata.uns
    np.testing.assert_array_equal(copied.obsm["mine"], [[0, 0], [0, 0], [0, 1], [1, 0]])
    assert copied.uns["mine"]["params"]["layer"] == "turned"
    np.testing.assert_array_equal(adata.X, X)


def test_above_the_average_not_at_it(adata):
    # A is 1, 2, 3, 2 with an average of 2
    adata.X[:, 0] = [1, 2, 3, 2]
    np.testing.assert_array_equal(prior(adata, {"a": "A", "b": "B"})[:, 0], [0, 0, 1, 0])
    # at the average is not above it
    np.testing.assert_array_equal(prior(adata, {"a": "A-", "c": "C"})[:, 0], [1, 1, 0, 1])


def test_names_that_hold_signs(adata):
    found = prior(adata, {"dr": "HLA-DR", "foo": ["Foo-", "HLA-DR-"]})
    np.testing.assert_array_equal(found, [[0, 0], [0, 1], [0, 0], [1, 0]])
    # "Foo-" is a gene, so its negative is "Foo--", and "Foo-+" is what it is itself
    found = prior(adata, {"not foo": ["Foo--", "A"], "foo": ["Foo-+", "B"]})
    np.testing.assert_array_equal(found, [[1, 0], [0, 1], [0, 0], [0, 0]])
    assert list(adata.uns["marker_prior"]["markers"]) == ["Foo--, A+", "Foo-+, B+"]


def test_ambiguous_cells_and_shared_genes(adata):
    markers = {"a": ["A-", "B-"], "dr": ["Foo-", "B-"], "b": "B"}
    with pytest.warns(UserWarning, match="certain for 'dr'"):
        found = prior(adata, markers)
    np.testing.assert_array_equal(found, [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
    record = adata.uns["marker_prior"]
    assert list(record["certain"]) == [1, 0, 1]
    assert (record["n_certain"], record["n_ambiguous"], record["n_negative"]) == (2, 1, 1)

    both = {"old": ["Foo-", "B"], "new": ["Foo-", "HLA-DR"]}
    with pytest.raises(ValueError, match=r"'Foo-'.*'old'.*'new'.*shared=True"):
        marker_prior(adata, both)
    np.testing.assert_array_equal(
        prior(adata, both, shared=True), [[0, 0], [1, 0], [0, 0], [0, 1]]
    )


def test_mean_of_standardised_values(adata):
    rng = np.random.default_rng(0)
    adata = ad.AnnData(rng.gamma(2, size=(200, 4)).astype(np.float32))
    adata.var_names = list("ABCD")
    z = (adata.X - adata.X.mean(0)) / adata.X.std(0)
    found = prior(adata, {"ab": ["A", "B"], "cd": ["C", "D-"]}, combine="mean")
    np.testing.assert_array_equal(found[:, 0], z[:, 0] + z[:, 1] > 0)
    np.testing.assert_array_equal(found[:, 1], z[:, 2] - z[:, 3] > 0)
    one = {"a": "A", "b": "B"}
    np.testing.assert_array_equal(prior(adata, one, combine="mean"), prior(adata, one))


def test_mean_finds_a_cell_that_lost_a_marker(adata):
    # a drop-out of one of three genes
    adata.X[:, :3] = [[3, 3, 0], [0, 0, 0], [0, 0, 0], [0, 0, 3]]
    markers = {"a": ["A", "B", "C"], "dr": ["HLA-DR", "Foo-"]}
    with pytest.warns(UserWarning, match="certain for 'a'"):
        assert prior(adata, markers)[0, 0] == 0
    assert prior(adata, markers, combine="mean")[0, 0] == 1


def test_table_says_the_same_as_a_mapping(adata):
    mapping = {"a": ["A", "Foo--"], "b": ["A", "B"], "dr": ["HLA-DR", "A-"]}
    # the second cell has both A and B
    adata.X[1, 0] = 4
    expected = prior(adata, mapping, shared=True)
    np.testing.assert_array_equal(expected, [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
    table = pd.DataFrame(
        {
            "A": [1, 1, -1],
            "B": [0, 1, np.nan],
            "HLA-DR": [np.nan, 0, 1],
            "Foo-": [-1, np.nan, 0],
            "C": [0, 0, 0],
        },
        index=list(mapping),
    )
    np.testing.assert_array_equal(prior(adata, table), expected)
    nullable = table.astype("Int64")
    np.testing.assert_array_equal(prior(adata, nullable), expected)


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        (sparse.csr_matrix, np.float32),
        (sparse.csc_matrix, np.float64),
        (sparse.csr_array, np.int32),
        (np.asfortranarray, np.int32),
    ],
)
def test_any_form_of_matrix(adata, form, dtype):
    markers = {"a": ["A", "B-"], "b": "B", "c": "C"}
    expected = prior(adata, markers)
    adata.X = form(X.astype(dtype))
    np.testing.assert_array_equal(prior(adata, markers), expected)
    assert sparse.issparse(adata.X) == (form is not np.asfortranarray)
    adata.layers["l"] = adata.X
    adata.X = np.zeros_like(X)
    np.testing.assert_array_equal(prior(adata, markers, layer="l"), expected)


def test_genes_that_are_not_named_do_not_matter(adata):
    adata.X[:, 4] = np.nan
    prior(adata, {"a": "A", "b": "B"})
    with pytest.raises(ValueError, match=r"NaN or infinite values in 'Foo-'"):
        marker_prior(adata, {"a": "A", "b": "Foo--"})


AB = {"a": "A", "b": "B"}


@pytest.mark.parametrize(
    ("markers", "kwargs", "error", "match"),
    [
        (AB, {"combine": "any"}, ValueError, "`combine`"),
        (AB, {"key_added": ""}, ValueError, "`key_added`"),
        (AB, {"layer": "raw"}, KeyError, "'raw'"),
        (["A", "B"], {}, ValueError, "mapping of classes.*not list"),
        ({"a": 1, "b": "B"}, {}, ValueError, "'a' must have a list of genes"),
        ({"a": ["A", None], "b": "B"}, {}, ValueError, "'a' must have a list of genes"),
        ({"a": "A"}, {}, ValueError, "at least two classes, got 1"),
        ({}, {}, ValueError, "at least two classes, got 0"),
        ({"a": "A", "b": []}, {}, ValueError, "'b' has no gene"),
        ({"a": ["A", "A+"], "b": "B"}, {}, ValueError, "'a' names 'A' twice"),
        ({"a": ["A", "A-"], "b": "B"}, {}, ValueError, "'A' as positive and as negative"),
        ({"a": "A", "b": ["B", "A"]}, {}, ValueError, "'A' is a marker of 'a' and of 'b'"),
        ({"a": "A-", "b": ["A-"]}, {}, ValueError, "'a' and 'b' have the same markers"),
        ({"a": ["A", "B"], "b": ["B", "A"]}, {"shared": True}, ValueError, "same markers"),
        ({1: "A", "1": "B"}, {}, ValueError, "must differ"),
        ({"": "A", "b": "B"}, {}, ValueError, "must not be empty"),
        ({"B/plasma": "A", "b": "B"}, {}, ValueError, "'B/plasma'"),
        ({"a": ["A", "B"], "b": ["C", "HLA-DR"]}, {}, ValueError, "No cell is certain: 4.*mean"),
        (pd.DataFrame({"A": [1, 2]}), {}, ValueError, "holds '2' for 'A' of class '1'"),
        (pd.DataFrame({"A": [1, "+"]}), {}, ValueError, r"holds '\+' for 'A' of class '1'"),
        (pd.DataFrame({"A": [1, -1], "Z": 0}), {}, KeyError, "'Z'"),
        (pd.DataFrame({"A": [1, 0], "B": [1, np.nan]}), {}, ValueError, "'1' has no gene"),
        (pd.DataFrame({"A": [1, -1]}, index=["a", "a"]), {}, ValueError, "rows.*'a'"),
        (pd.DataFrame([[1, 1], [-1, 0]], columns=["A", "A"]), {}, ValueError, "columns.*'A'"),
        (pd.DataFrame(), {}, ValueError, "at least two classes"),
    ],
)
def test_errors_leave_the_cells_alone(adata, markers, kwargs, error, match):
    with pytest.raises(error, match=match):
        marker_prior(adata, markers, **kwargs)
    assert not adata.obsm
    assert not adata.uns
    np.testing.assert_array_equal(adata.X, X)


def test_unknown_genes_are_all_named(adata):
    adata.var_names = ["Cd79a", "Cd3e", "Cd3g", "HLA-DR", "Foo-"]
    with pytest.raises(KeyError, match="Cd") as error:
        marker_prior(adata, {"B": ["CD79A"], "T": ["Cd3d-", "Xyzzy"], "dr": "HLA-DR"})
    message = str(error.value)
    assert "'CD79A' (did you mean Cd79a" in message
    assert "'Cd3d-' (did you mean " in message
    assert "Cd3e" in message
    assert "'Xyzzy'." in message


def test_constant_genes(adata):
    adata.X[:, 0] = 0.1
    with pytest.raises(ValueError, match=r"Constant in all cells.*'A'"):
        marker_prior(adata, AB)


def test_views_and_names(adata):
    with pytest.raises(ValueError, match="view"):
        marker_prior(adata[:3], AB)
    adata.var_names = ["A", "B", "B", "C", "D"]
    with pytest.raises(ValueError, match="not unique: 'B'"):
        marker_prior(adata, AB)


def test_backed(adata, tmp_path):
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(ValueError, match="backed"):
        marker_prior(backed, AB)
    backed.file.close()


def test_populations_are_found(blobs):
    markers = {"T": "CD3", "B": "CD19", "NK": ["CD56", "CD8"], "mono": "CD14"}
    markers["pDC"] = ["CD123", "CD4", "CD14-", "CD3-"]
    marker_prior(blobs, markers)
    found = blobs.obsm["marker_prior"]
    certain = found.sum(axis=1) == 1
    assert certain.mean() > 0.8
    agree = found.idxmax(axis=1)[certain] == blobs.obs["population"].astype(str)[certain]
    assert agree.mean() > 0.99


def test_real_cells_with_their_markers(data_dir):
    """Signature genes made of the labels of half of the PBMC name the other half."""
    with h5py.File(data_dir / "scrna" / "pbmc_10x_top2000.h5") as file:
        counts, y = file["X"][:], file["Y"][:]
    counts = counts[:, counts.sum(0) > 0]
    x = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4).astype(np.float32)
    x -= x.mean(0)
    known = np.arange(len(y)) % 2 == 0
    classes = np.unique(y)
    means = np.stack([x[known & (y == c)].mean(0) for c in classes])
    means /= x.std(0)
    lead = means - np.sort(means, axis=0)[-2]
    markers = {f"c{c}": [f"g{j}" for j in np.argsort(-lead[i])[:5]] for i, c in enumerate(classes)}
    adata = ad.AnnData(sparse.csr_matrix(np.log1p(counts)))
    adata.var_names = [f"g{j}" for j in range(adata.n_vars)]
    found = prior(adata, markers, combine="mean")
    certain = (found.sum(1) == 1) & ~known
    right = classes[found.argmax(1)] == y
    assert certain.sum() > 300
    assert right[certain].mean() > 0.7
