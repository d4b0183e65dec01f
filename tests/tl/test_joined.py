"""Cells of two clusterings that were joined."""

from __future__ import annotations

import anndata as ad
import pytest
from made_up import make_three

import scmoe

TRAIN = {"max_epochs": 2, "accelerator": "cpu"}


def clustered(seed, **kwargs):
    adata = make_three(seed=seed)
    adata.obs_names = [f"{name}-{seed}" for name in adata.obs_names]
    scmoe.tl.cluster(adata, n_clusters=3, progress=False, train_kwargs=TRAIN, **kwargs)
    return adata


@pytest.fixture(scope="module")
def first():
    return clustered(0)


@pytest.fixture(scope="module", params=["cells", "model"])
def joined(first, request):
    other = clustered(1) if request.param == "cells" else clustered(1, model="cpl-mixvae")
    return ad.concat([first, other], uns_merge="unique")


@pytest.mark.parametrize(
    "use",
    [
        lambda adata: scmoe.tl.assign(make_three(), adata),
        lambda adata: scmoe.tl.generate(adata, 5),
        scmoe.tl.stability,
        scmoe.tl.state_genes,
        scmoe.tl.name_clusters,
        scmoe.get.signatures,
        scmoe.get.cluster_proba,
        scmoe.pl.arms,
        scmoe.pl.pruning,
        lambda adata: scmoe.pl.traversal(adata, cluster="0"),
    ],
)
def test_two_clusterings(joined, use):
    with pytest.raises(ValueError, match=r"uns\['scmoe'\]` is not whole.*`ad\.concat`.*assign"):
        use(joined)


def test_joined_cells_can_be_clustered(first):
    joined = ad.concat([first, clustered(1)], uns_merge="unique")
    scmoe.tl.cluster(joined, n_clusters=3, progress=False, train_kwargs=TRAIN)
    assert len(scmoe.tl.generate(joined, 5)) == 5


def test_cells_with_the_clusters_of_one_reference(first):
    query = make_three(seed=2)
    query.obs_names = [f"{name}-2" for name in query.obs_names]
    scmoe.tl.assign(query, first)
    joined = ad.concat([first, query], uns_merge="unique")
    assert len(scmoe.tl.generate(joined, 5)) == 5
    assert list(scmoe.get.signatures(joined).index) == list(joined.obs["scmoe"].cat.categories)
