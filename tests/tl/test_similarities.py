"""Every similarity as an argument of one line, and in what that line writes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scmoe.pp import marker_prior
from scmoe.similarity import (
    Blend,
    CoAssociation,
    Custom,
    Differ,
    Graph,
    Knn,
    Labels,
    Prior,
    Similarity,
    Threshold,
)
from scmoe.tl import cluster, generate


def run(adata, similarity, n_clusters=8, *, epochs=2, **kwargs):
    cluster(
        adata,
        n_clusters=n_clusters,
        similarity=similarity,
        progress=False,
        train_kwargs={"max_epochs": epochs, "accelerator": "cpu"},
        **kwargs,
    )
    return adata


@pytest.fixture
def linked(linked):
    """With everything that a similarity may look at."""
    labels = linked.obs["population"].astype(object)
    labels.iloc[::2] = np.nan
    linked.obs["labels"] = pd.Categorical(labels)
    linked.obs["sample"] = np.where(np.arange(600) % 3 == 0, "ill", "healthy")
    linked.obsm["X_umap"] = linked.X[:, :2].copy()
    marker_prior(linked, {"T": "CD3", "B": "CD19", "mono": "CD14"})
    return linked


def parity(cells):
    """What a user's module may hold."""
    return (cells[:, None] + cells) % 2 == 0


def kind(similarity):
    """Name a test; the repr of a function would differ between processes."""
    return type(similarity).__name__


SIMILARITIES = [
    CoAssociation(resolutions=(0.1, 1.0), fine_resolutions=(4.0,)),
    Graph(),
    Knn(),
    Threshold(distance=1.0),
    Labels("labels"),
    Prior(mode="pairs", train_on="all"),
    Blend(Differ("sample", groups=("ill", "healthy")), Graph(), weight=0.2),
    Blend(Blend(Labels("labels"), Knn()), Prior(), weight=0.6),
    Custom(parity),
]


@pytest.mark.slow
@pytest.mark.parametrize("similarity", SIMILARITIES, ids=kind)
def test_a_file_keeps_all(linked, similarity, tmp_path):
    run(linked, similarity)
    expected = generate(linked, 12)
    linked.write_h5ad(tmp_path / "cells.h5ad")
    loaded = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(generate(loaded, 12).X, expected.X)
    assert list(loaded.obs["scmoe"]) == list(linked.obs["scmoe"])
    pd.testing.assert_frame_equal(loaded.obsm["scmoe_proba"], linked.obsm["scmoe_proba"])
    values = loaded.uns["scmoe"]["params"]["similarity"]
    assert values["name"] == type(similarity).__name__
    if not isinstance(similarity, Custom):
        assert Similarity.from_dict(values) == similarity
    # which is enough to do it again
    again = similarity if isinstance(similarity, Custom) else Similarity.from_dict(values)
    run(loaded, again, key_added="again")
    assert list(loaded.obs["again"]) == list(linked.obs["scmoe"])


@pytest.mark.parametrize("similarity", [Blend(Labels("labels"), Graph()), Prior()], ids=kind)
def test_nothing_but_the_result_is_written(linked, similarity, same):
    before = same.look(linked)
    run(linked, similarity)
    assert {"scmoe", "scmoe_outlier"} == set(linked.obs) - set(before["obs"])
    del linked.obs["scmoe"], linked.obs["scmoe_outlier"]
    del linked.obsm["X_scmoe"], linked.obsm["scmoe_proba"]
    del linked.uns["scmoe"]
    same(linked, before)


def test_classes_name_the_clusters(linked, tmp_path):
    run(linked, Prior(), epochs=40)
    assert list(linked.obsm["scmoe_proba"])[:4] == ["T", "B", "mono", "0"]
    known = linked.obsm["marker_prior"].sum(axis=1) == 1
    told = linked.obsm["marker_prior"].idxmax(axis=1)
    assert (linked.obs["scmoe"].astype(str) == told)[known].mean() > 0.95
    # strings in natural order, as for numbers
    names = list(linked.obs["scmoe"].cat.categories)
    assert names == sorted(names)
    assert linked.uns["scmoe"]["n_clusters"] == len(names)


@pytest.mark.slow
def test_a_local_function(blobs):
    code = blobs.obs["population"].cat.codes.to_numpy()

    def same_population(cells):
        return code[cells][:, None] == code[cells]

    run(blobs, Custom(same_population), epochs=50)
    counts = pd.crosstab(blobs.obs["scmoe"], blobs.obs["population"])
    assert counts.max(axis=1).sum() > 540
    assert "<locals>" in blobs.uns["scmoe"]["params"]["similarity"]["function"]


def test_a_function_that_fails(blobs, same):
    before = same.look(blobs)
    with pytest.raises(ValueError, match=r"not symmetric"):
        run(blobs, Custom(lambda cells: cells[:, None] < cells))
    same(blobs, before)


def test_a_blend_looks_at_the_graph_of_its_parts(linked):
    labels = Labels("population")
    linked.obsp["mine"] = linked.obsp.pop("connectivities")
    run(linked, Blend(labels, Graph()), obsp="mine")
    assert linked.uns["scmoe"]["params"]["neighbors"] == "given"
    run(linked, Blend(labels, Knn()))
    assert linked.uns["scmoe"]["params"]["neighbors"] == "not used"


def flat_prior(adata):
    adata.obsm["marker_prior"] = np.zeros((600, 3), np.float32)


def single_class(adata):
    adata.obsm["marker_prior"] = np.ones((600, 1), np.float32)


def one_label(adata):
    adata.obs["labels"] = "T"


def no_prior(adata):
    del adata.obsm["marker_prior"]


def no_labels(adata):
    del adata.obs["labels"]


MISTAKES = [
    (flat_prior, {"similarity": Prior()}, ValueError, "no certain cell"),
    (single_class, {"similarity": Prior()}, ValueError, "one column"),
    (no_prior, {"similarity": Prior()}, KeyError, r"'marker_prior'.*scmoe\.pp\.marker_prior"),
    (no_prior, {"similarity": Blend(Prior(), Graph())}, KeyError, "'marker_prior'"),
    (one_label, {"similarity": Labels("labels")}, ValueError, "all labels are 'T'"),
    (no_labels, {"similarity": Labels("labels")}, KeyError, "'labels'"),
    (None, {"similarity": Prior(), "n_clusters": 2}, ValueError, "3 classes, more than the 2"),
    (None, {"similarity": Blend(Prior(), Prior())}, ValueError, "Both parts"),
    (None, {"similarity": Prior(), "obsp": "connectivities"}, ValueError, "does not look at"),
    (None, {"similarity": "graph"}, ValueError, r"`similarity` must be .*'graph'"),
    (None, {"similarity": Graph}, ValueError, "`similarity` must be"),
    (None, {"model_kwargs": {"likelihood": "x"}}, ValueError, "`likelihood`"),
    (None, {"model_kwargs": {"scaling": "none"}}, ValueError, "outside 0 to 1 in 'CD3'"),
    (None, {"model_kwargs": {"network": "conv"}}, KeyError, "image_shape"),
]


@pytest.mark.parametrize(("spoil", "kwargs", "error", "match"), MISTAKES)
def test_mistakes(linked, same, spoil, kwargs, error, match):
    if spoil is not None:
        spoil(linked)
    before = same.look(linked)
    with pytest.raises(error, match=match):
        run(linked, **{"similarity": Knn(), **kwargs})
    same(linked, before)
