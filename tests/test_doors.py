"""What users may give in place of an AnnData, and of names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import make_three
from scipy import sparse

import scmoe
from scmoe.model import CplMixVAE, MoESimVAE, MoEVAE


class MuData:
    """Looks like that of mudata, which is not needed for this."""

    def __init__(self):
        self.mod = {"cyto": None, "rna": None}


DOORS = {
    "cluster": scmoe.tl.cluster,
    "stability": scmoe.tl.stability,
    "n_clusters": scmoe.tl.n_clusters,
    "latent_dim": scmoe.tl.latent_dim,
    "state_genes": scmoe.tl.state_genes,
    "name_clusters": scmoe.tl.name_clusters,
    "generate": lambda adata: scmoe.tl.generate(adata, 5),
    "assign": lambda adata: scmoe.tl.assign(adata, make_three()),
    "arcsinh": scmoe.pp.arcsinh,
    "inverse_arcsinh": scmoe.pp.inverse_arcsinh,
    "compensate": scmoe.pp.compensate,
    "marker_prior": lambda adata: scmoe.pp.marker_prior(adata, {"T": "CD3"}),
    "umap": scmoe.similarity.umap,
    "image_gradients": scmoe.similarity.image_gradients,
    "write_fcs": lambda adata: scmoe.io.write_fcs(adata, "nowhere"),
    "signatures": scmoe.get.signatures,
    "cluster_proba": scmoe.get.cluster_proba,
    "get.state_genes": scmoe.get.state_genes,
    "get.tree": scmoe.get.tree,
    "get.gates": scmoe.get.gates,
    "cut": lambda adata: scmoe.tl.cut(adata, n_clusters=2),
    **{
        f"pl.{name}": getattr(scmoe.pl, name)
        for name in (
            *("arms", "clusters", "images", "latent_dim", "markers", "n_clusters", "prior"),
            *("pruning", "stability", "state_genes", "drift", "tree"),
        )
    },
    "MoESimVAE.setup": MoESimVAE.setup_anndata,
    "MoEVAE.setup": MoEVAE.setup_anndata,
    "CplMixVAE.setup": CplMixVAE.setup_anndata,
    "MoESimVAE": MoESimVAE,
}

OTHERS = {
    "path": (Path("cells.h5ad"), r"Path\. Read the file first: `anndata\.read_h5ad"),
    "str": ("cells.fcs", r"str\. Read the file first: .*`scmoe\.io\.read_fcs"),
    "array": (np.zeros((5, 2)), r"ndarray\. Make one of values"),
    "sparse": (sparse.csr_matrix((5, 2)), r"csr_matrix\. Make one of values"),
    "DataFrame": (pd.DataFrame(np.zeros((5, 2))), r"DataFrame\. Make one of values"),
    "None": (None, "NoneType"),
    "MuData": (MuData(), r"got MuData\. .* such as `mdata\['cyto'\]`; it has 'cyto', 'rna'"),
}


@pytest.mark.parametrize("door", DOORS)
def test_cells_that_are_no_anndata(door):
    for given, message in OTHERS.values():
        with pytest.raises(ValueError, match="must be an AnnData, got") as error:
            DOORS[door](given)
        error.match(message)


def test_references_that_are_none():
    with pytest.raises(ValueError, match=r"`reference` must be an AnnData, got MuData\."):
        scmoe.tl.assign(make_three(), MuData())


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        ("knn", r"`scmoe\.similarity\.Knn\(\)`; got 'knn'"),
        (scmoe.similarity.Threshold, r"`scmoe\.similarity\.Threshold\(\)`; got <class"),
        ([scmoe.similarity.Graph()], r"`scmoe\.similarity\.Blend` mixes two; got \["),
        ([], r"Blend` mixes two; got \[\]"),
        ("", r"such as `scmoe\.similarity\.Graph\(\)`; got ''"),
        (0, "got 0"),
        (False, "got False"),
    ],
)
def test_similarities_that_are_none(similarity, message):
    for take in (scmoe.tl.cluster, MoESimVAE.setup_anndata):
        with pytest.raises(ValueError, match=message):
            take(make_three(), similarity=similarity)


def test_what_models_write_into_obs_is_in_no_message():
    adata = make_three()
    MoESimVAE.setup_anndata(adata)
    assert "_indices" in adata.obs
    with pytest.raises(KeyError, match=r"in `\.obs`, which has \['kind'\]\.\"$"):
        MoESimVAE.setup_anndata(adata, batch_key="plate")
    adata.obs["plate"] = ["one", *["two"] * (adata.n_obs - 1)]
    with pytest.warns(UserWarning, match=r"`\.obs\['plate'\]` 'one' have fewer than 3 cells"):
        MoESimVAE.setup_anndata(adata, batch_key="plate")


def test_names_before_there_are_clusters():
    with pytest.raises(KeyError, match=r"Run `scmoe\.tl\.cluster\(adata, key_added='scmoe'\)`"):
        scmoe.tl.name_clusters(make_three())
    with pytest.raises(KeyError, match=r"'scmoe' in \.obs.*Run `scmoe\.tl\.cluster\(adata\)`"):
        scmoe.io.write_fcs(make_three(), "nowhere")


@pytest.mark.parametrize(("metric", "message"), [("canbera", "'canberra'"), (3, "and .* more")])
def test_metrics_that_are_none(metric, message):
    with pytest.raises(ValueError, match=rf"`metric` must be a metric of umap.*{message}"):
        scmoe.similarity.umap(make_three(), metric=metric)


@pytest.mark.parametrize("size", [1e16, 1e30, -1e30, 1e38])
@pytest.mark.parametrize("model", ["moe-sim-vae", "moe-vae", "cpl-mixvae"])
def test_values_that_are_too_far_for_distances(model, size):
    adata = make_three()
    adata.X[[3, 5], 2] = size
    named = rf"`adata\.X` holds {size:.3g}".replace("+", r"\+")
    with pytest.raises(ValueError, match=rf"{named} in 'CD19' of the cell at position 3 .* 1 oth"):
        scmoe.tl.cluster(adata, model=model, n_clusters=3)
    with pytest.raises(ValueError, match="in 'CD19' of the cell at position 3"):
        MoESimVAE.setup_anndata(adata)


def test_counts_that_are_too_far():
    adata = make_three()
    adata.X = sparse.csr_matrix(np.round(abs(adata.X)))
    adata.X.data[:] = 1e30
    with pytest.raises(ValueError, match=r"holds 1e\+30 in 'CD19' of the cell at position 0"):
        CplMixVAE.setup_anndata(adata, counts=True)


def test_a_cell_far_beyond_all_others_is_an_outlier():
    adata = make_three()
    adata.X[3, 2] = 1e6
    train = {"max_epochs": 5, "accelerator": "cpu"}
    scmoe.tl.cluster(adata, n_clusters=3, progress=False, train_kwargs=train)
    assert adata.obs["scmoe_outlier"].iloc[3] > 0.99


def test_the_setup_of_a_model_can_be_seen(capsys):
    adata = make_three()
    MoEVAE.setup_anndata(adata)
    MoEVAE(adata, 3, n_latent=2).view_anndata_setup()
    assert "Data Registry" in capsys.readouterr().out


def test_one_cluster_is_told():
    adata = make_three()
    train = {"max_epochs": 1, "accelerator": "cpu", "start": False}
    with pytest.warns(UserWarning, match=r"into one cluster: .*\"lr\".*here 0\.003.*`similarity`"):
        scmoe.tl.cluster(
            adata,
            n_clusters=2,
            similarity=scmoe.similarity.CoAssociation(),
            progress=False,
            train_kwargs=train,
        )
    assert adata.uns["scmoe"]["n_clusters"] == 1
