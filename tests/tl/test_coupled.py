"""Coupled mixture VAEs as one line of a workflow."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from made_up import make_three
from scipy import sparse

from scmoe.model import CplMixVAE
from scmoe.tl import assign, cluster, generate, name_clusters, state_genes

HOW = {"max_epochs": 3, "batch_size": 80, "accelerator": "cpu"}
SMALL = {"n_hidden": 16, "n_layers": 1, "n_embed": 4}
RECORD = {
    *("params", "n_clusters", "markers", "history", "model", "version", "manifest"),
    "categories",
}


@pytest.fixture
def three():
    return make_three((70, 50, 40))


def coupled(adata, **kwargs):
    train_kwargs = {**HOW, **kwargs.pop("train_kwargs", {})}
    model_kwargs = {**SMALL, **kwargs.pop("model_kwargs", {})}
    return cluster(
        adata,
        **{"model": "cpl-mixvae", "n_clusters": 3, "progress": False, **kwargs},
        model_kwargs=model_kwargs,
        train_kwargs=train_kwargs,
    )


def test_slots(three):
    before = set(three.obs), set(three.obsm), set(three.uns)
    assert coupled(three, key_added="mine", n_latent=3) is None
    assert set(three.obs) - before[0] == {
        *("mine", "mine_outlier", "mine_arm_consensus", "mine_entropy"),
    }
    assert set(three.obsm) - before[1] == {
        *("X_mine", "mine_proba", "mine_state", "mine_votes"),
    }
    assert set(three.uns) - before[2] == {"mine"}
    assert three.obsm["X_mine"].shape == (160, 4)
    assert three.obsm["mine_state"].shape == (160, 3)
    assert three.obs["mine_arm_consensus"].dtype == np.float32
    votes = three.obsm["mine_votes"]
    assert votes.dtype == np.int16
    np.testing.assert_array_equal(votes[:, 0] == votes[:, 1], three.obs["mine_arm_consensus"] == 1)
    assert set(three.obs["mine_arm_consensus"]) <= {0, 1}
    values = three.obsm["mine_proba"].to_numpy(float)
    entropy = -(values * np.log(np.maximum(values, 1e-30))).sum(1)
    np.testing.assert_allclose(three.obs["mine_entropy"], entropy, atol=1e-5)
    record = three.uns["mine"]
    assert set(record) == RECORD
    assert record["categories"]["n_cells"].sum() == 160
    assert record["model"]["class"] == "CplMixVAE"
    assert record["params"]["n_latent"] == 3
    assert {"loss", "coupling", "entropy", "kl"} <= set(record["history"])


def test_numbers_are_pruned_unless_they_are_given(three):
    coupled(three, n_clusters=None, train_kwargs={"prune_epochs": 2})
    record = three.uns["scmoe"]
    found = record["estimates"]["n_categories"]
    assert found["chosen"] == three.obsm["scmoe_proba"].shape[1]
    assert found["chosen"] in found["n_categories"]
    assert len(found["n_categories"]) == len(found["consensus"]) == len(found["loss"])
    assert record["params"]["n_clusters"] == "auto"


def test_through_a_file_to_new_cells(three, tmp_path):
    coupled(three, save_model=tmp_path / "m")
    three.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.obsm["scmoe_state"], three.obsm["scmoe_state"])
    first, second = (generate(adata, 40, random_state=3) for adata in (three, again))
    np.testing.assert_array_equal(first.X, second.X)
    model = CplMixVAE.load(tmp_path / "m", make_three((70, 50, 40)), accelerator="cpu")
    np.testing.assert_array_equal(model.predict(), three.obs["scmoe"].astype(str))
    for reference in (again, model, tmp_path / "m"):
        query = make_three((70, 50, 40))
        assign(query, reference, reject=None)
        np.testing.assert_array_equal(query.obs["scmoe"].astype(str), three.obs["scmoe"])


def test_same_seed_same_labels(three):
    one, other = (coupled(three, copy=True, random_state=5) for _ in range(2))
    pd.testing.assert_frame_equal(one.obsm["scmoe_proba"], other.obsm["scmoe_proba"])
    np.testing.assert_array_equal(one.obsm["scmoe_state"], other.obsm["scmoe_state"])


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_counts(three, kind):
    counts = np.random.default_rng(1).poisson(5 * np.clip(three.X, 0.2, None))
    counts[:, 5] = 0
    three.layers["counts"] = kind(counts)
    coupled(three, layer="counts", model_kwargs={"likelihood": "nb"})
    made = generate(three, 20)
    np.testing.assert_array_equal(made.X, made.X.round())
    assert (made.X >= 0).all()
    query = three.copy()
    del query.uns["scmoe"], query.obs["scmoe"], query.obs["scmoe_outlier"]
    for name in ("X_scmoe", "scmoe_proba", "scmoe_state", "scmoe_votes"):
        del query.obsm[name]
    del query.obs["scmoe_entropy"], query.obs["scmoe_arm_consensus"]
    assign(query, three, reject=None)
    np.testing.assert_array_equal(query.obs["scmoe"].astype(str), three.obs["scmoe"].astype(str))


def test_counts_need_a_likelihood_of_counts(three):
    three.X = np.random.default_rng(1).poisson(5, three.shape)
    with pytest.raises(ValueError, match=r'look like counts.*"likelihood": "nb"'):
        coupled(three)
    three.X = sparse.csr_matrix(three.X.astype(np.float32))
    with pytest.raises(ValueError, match=r'is sparse.*"likelihood": "nb"'):
        coupled(three)
    three.X = three.X.toarray() - 5.0
    with pytest.raises(ValueError, match=r"are no counts.* leave out .*the likelihood"):
        coupled(three, model_kwargs={"likelihood": "nb"})
    assert not three.uns


def test_one_arm_has_no_consensus(three):
    with pytest.warns(UserWarning, match="With one arm"):
        coupled(three, model_kwargs={"n_arms": 1})
    assert "scmoe_arm_consensus" not in three.obs
    assert "scmoe_votes" not in three.obsm
    assert "scmoe_entropy" in three.obs


def test_what_was_made_of_the_clusters_before_is_named(three, recwarn):
    coupled(three)
    name_clusters(three)
    state_genes(three, progress=False)
    # the same again
    coupled(three)
    assert not [w for w in recwarn if "others now" in str(w.message)]
    # the same clusters with other states
    three.obsm["X_scmoe"][0] += 1
    with pytest.warns(UserWarning, match=r"still is \.uns\['scmoe_state_genes'\]:"):
        coupled(three)
    three.obs["scmoe"] = "T" + three.obs["scmoe"].astype(str)
    with pytest.warns(UserWarning, match=r"\.obs\['scmoe_names'\], \.uns\['scmoe_state_genes'"):
        coupled(three)
    # another name
    coupled(three, key_added="other")
    assert len([w for w in recwarn if "others now" in str(w.message)]) == 0


def test_what_another_model_does_not_say_goes(three):
    coupled(three)
    cluster(
        three,
        model="moe-vae",
        n_clusters=3,
        n_latent=2,
        progress=False,
        model_kwargs={"n_hidden": 16, "n_layers": 1},
        train_kwargs={**HOW, "pretrain": False},
    )
    assert not {"scmoe_arm_consensus", "scmoe_entropy"} & set(three.obs)
    assert not {"scmoe_state", "scmoe_votes"} & set(three.obsm)
    assert "categories" not in three.uns["scmoe"]


@pytest.mark.parametrize("slot", ["mine_arm_consensus", "mine_entropy"])
def test_columns_of_others_are_not_overwritten(three, slot):
    three.obs[slot] = 1.0
    with pytest.raises(ValueError, match="would overwrite"):
        coupled(three, key_added="mine")


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"n_latent": "auto"}, "which nothing estimates"),
        ({"n_clusters": 1}, "`n_clusters`"),
        ({"model_kwargs": {"n_categories": 4}}, "Give `n_categories` as `n_clusters`"),
        ({"model_kwargs": {"n_state": 4}, "n_latent": 2}, "Give `n_state` as `n_latent`"),
        ({"batch_key": "kind"}, "looks at the markers alone"),
        ({"preset": "cytof"}, "looks at the markers alone"),
    ],
)
def test_what_does_not_go_together_is_named(three, how, match):
    with pytest.raises(ValueError, match=match):
        coupled(three, **how)
    assert not three.uns
