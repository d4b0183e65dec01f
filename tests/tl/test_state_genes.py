"""What moves with the state within clusters."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from scmoe import get
from scmoe.model._record import from_record
from scmoe.model._states import arm_states
from scmoe.tl import cluster, state_genes

SMALL = {"n_hidden": 16, "n_layers": 1, "n_embed": 4}
# arms that use their states: nothing is hidden from them, and none of few units can die
OPEN = {**SMALL, "n_embed": 8, "activation": "elu", "input_dropout": 0.0}
LONG = {
    "max_epochs": 200,
    "batch_size": 100,
    "augment": False,
    "plan_kwargs": {"lr": 5e-3},
    "accelerator": "cpu",
}
SHORT = {"max_epochs": 10, "batch_size": 100, "accelerator": "cpu"}
COLUMNS = [
    *("cluster", "marker", "dimension", "rank"),
    *("effect", "lower", "upper", "pvalue", "pvalue_adjusted"),
    *("r2_min", "r2_max", "reliability", "decoded_change", "decoded_range", "n_cells"),
]


def make_two(n=400, seed=0):
    """Two types; within the second, CD38 rises with a hidden factor and CD45 falls with it."""
    rng = np.random.default_rng(seed)
    kind, factor = np.arange(n) % 2, rng.uniform(0, 3, n)
    x = rng.normal(scale=0.2, size=(n, 6)) + 3 * np.eye(2)[kind].repeat(3, 1)
    x[:, 1] += np.where(kind == 1, factor, 0)
    x[:, 4] -= np.where(kind == 1, factor / 3, 0)
    return AnnData(
        x.astype(np.float32),
        obs=pd.DataFrame(
            {"kind": kind.astype(str), "factor": factor},
            index=[f"cell{seed}-{i}" for i in range(n)],
        ),
        var=pd.DataFrame(index=["CD3", "CD38", "CD5", "CD19", "CD45", "CD22"]),
    )


def coupled(adata, model_kwargs=None, train_kwargs=None, **kwargs):
    return cluster(
        adata,
        model="cpl-mixvae",
        n_clusters=2,
        progress=False,
        model_kwargs={**SMALL, **(model_kwargs or {})},
        train_kwargs={**SHORT, **(train_kwargs or {})},
        **kwargs,
    )


@pytest.fixture(scope="module")
def learned_once():
    adata = make_two()
    coupled(adata, OPEN, LONG)
    return adata


@pytest.fixture
def learned(learned_once):
    return learned_once.copy()


@pytest.fixture
def short():
    adata = make_two()
    coupled(adata)
    return adata


def second(adata):
    """The cluster of the type that something moves in."""
    return adata.obs.loc[adata.obs["kind"] == "1", "scmoe"].astype(str).mode()[0]


def test_the_marker_that_moves_is_the_first(learned):
    assert state_genes(learned, progress=False) is None
    name = second(learned)
    table = get.state_genes(learned, cluster=name)
    assert list(table) == COLUMNS
    first = table[table["marker"] == "CD38"]
    assert (first["rank"] == 1).all()
    assert first["r2_min"].iloc[0] > 0.8
    strongest = first.loc[first["effect"].abs().idxmax()]
    assert abs(strongest["effect"]) > 0.9
    assert strongest["reliability"] > 0.5
    assert strongest["pvalue_adjusted"] < 1e-10
    assert strongest["decoded_range"] > 1
    assert np.sign(strongest["decoded_change"]) == np.sign(strongest["effect"])
    # the other that moves is the next, the other way
    other = table[(table["rank"] == 2) & (table["dimension"] == strongest["dimension"])].iloc[0]
    assert other["marker"] == "CD45"
    assert np.sign(other["effect"]) == -np.sign(strongest["effect"])
    assert (table.loc[table["rank"] > 2, "r2_max"] < 0.1).all()
    # the state is the hidden factor
    own = learned.obs["scmoe"] == name
    state = learned.obsm["scmoe_state"][own, int(strongest["dimension"])]
    assert abs(stats.spearmanr(state, learned.obs["factor"][own]).statistic) > 0.9


def test_numbers_are_those_of_each_cluster(learned):
    state_genes(learned, progress=False)
    table = learned.uns["scmoe_state_genes"]["table"]
    assert len(table) == 2 * 6 * 2
    found = arm_states(from_record(learned.uns["scmoe"]["model"]), learned.X)
    for name in ("0", "1"):
        own = (learned.obs["scmoe"] == name).to_numpy()
        rows = table[table["cluster"] == name]
        assert (rows["n_cells"] == own.sum()).all()
        assert rows["rank"].tolist() == np.repeat(np.arange(1, 7), 2).tolist()
        assert rows["dimension"].tolist() == [0, 1] * 6
        assert (rows["r2_min"].diff().dropna() <= 0).all()
        assert (rows["r2_min"] <= rows["r2_max"]).all()
        for _, row in rows.iterrows():
            state = found.mean[0, own, row["dimension"]]
            x = learned.X[own, learned.var_names.get_loc(row["marker"])]
            np.testing.assert_allclose(row["effect"], stats.spearmanr(state, x)[0], atol=1e-9)
            assert row["lower"] <= row["effect"] <= row["upper"]
            noise = found.variance[0, own, row["dimension"]].mean()
            np.testing.assert_allclose(
                row["reliability"], state.var() / (state.var() + noise), rtol=1e-4
            )
    np.testing.assert_allclose(
        table["pvalue_adjusted"], stats.false_discovery_control(table["pvalue"])
    )


def test_cells_that_were_not_clustered(learned, tmp_path):
    new = make_two(seed=1)
    state_genes(new, reference=learned, progress=False)
    assert set(new.uns) == {"scmoe_state_genes"}
    table = get.state_genes(new, cluster=second(learned))
    assert table["marker"].iloc[0] == "CD38"
    assert new.uns["scmoe_state_genes"]["params"]["reference"]
    # markers in another order, and one too many
    extra = AnnData(np.ones((400, 1), np.float32), obs=new.obs, var=pd.DataFrame(index=["CD1"]))
    mixed = ad.concat([extra, new[:, ::-1]], axis=1)
    mixed.obs = new.obs
    state_genes(mixed, reference=learned, progress=False)
    pd.testing.assert_frame_equal(get.state_genes(mixed, cluster=second(learned)), table)


def test_a_saved_model_is_a_reference(tmp_path):
    adata = make_two()
    coupled(adata, save_model=tmp_path / "m")
    state_genes(adata, progress=False)
    again = make_two()
    state_genes(again, reference=tmp_path / "m", progress=False)
    pd.testing.assert_frame_equal(get.state_genes(again), get.state_genes(adata))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_markers_that_were_not_clustered(kind):
    adata = make_two()
    counts = np.random.default_rng(0).poisson(3, (400, 6))
    adata.layers["counts"] = kind(counts)
    coupled(adata, markers=["CD3", "CD38", "CD19", "CD45"])
    state_genes(adata, markers=["CD5", "CD38"], progress=False)
    table = get.state_genes(adata)
    known = table["marker"] == "CD38"
    assert table.loc[known, "decoded_range"].notna().all()
    assert table.loc[~known, ["decoded_range", "decoded_change"]].isna().all(axis=None)
    assert table["effect"].notna().all()
    state_genes(adata, markers="CD5", layer="counts", progress=False)
    row = get.state_genes(adata).iloc[0]
    own = (adata.obs["scmoe"] == row["cluster"]).to_numpy()
    expected = stats.spearmanr(adata.obsm["scmoe_state"][own, 0], counts[own, 2])[0]
    np.testing.assert_allclose(row["effect"], expected, atol=1e-6)


def test_counts_are_compared_at_equal_totals():
    adata = make_two()
    rng = np.random.default_rng(0)
    adata.X = rng.poisson(4 * np.clip(adata.X, 0.2, None) * rng.lognormal(0, 0.5, (400, 1)))
    coupled(adata, {"likelihood": "nb"})
    state_genes(adata, progress=False)
    row = get.state_genes(adata, dimension=0).iloc[0]
    own = (adata.obs["scmoe"] == row["cluster"]).to_numpy()
    x = adata.X[own, adata.var_names.get_loc(row["marker"])] / adata.X[own].sum(1)
    expected = stats.spearmanr(adata.obsm["scmoe_state"][own, 0], x)[0]
    np.testing.assert_allclose(row["effect"], expected, atol=1e-6)
    assert row["decoded_range"] >= abs(row["decoded_change"])


def test_components_have_no_markers_that_the_decoder_knows():
    adata = make_two()
    adata.var["kind"] = ["mass"] * 5 + ["time"]
    adata.obsm["X_rep"] = adata.X[:, :4] @ np.eye(4, 3, dtype=np.float32)
    coupled(adata, use_rep="X_rep")
    state_genes(adata, progress=False)
    table = get.state_genes(adata)
    assert set(table["marker"]) == set(adata.var_names[:5])
    assert table["decoded_range"].isna().all()


def test_constant_markers_are_the_last(learned):
    own = (learned.obs["scmoe"] == "0").to_numpy()
    layer = learned.X.copy()
    layer[own, 0] = 1
    learned.layers["flat"] = layer
    state_genes(learned, layer="flat", progress=False)
    rows = get.state_genes(learned, cluster="0").iloc[-2:]
    assert (rows["marker"] == "CD3").all()
    assert rows[["effect", "lower", "pvalue", "pvalue_adjusted", "r2_min"]].isna().all(axis=None)
    assert get.state_genes(learned, cluster="1")["effect"].notna().all()


def test_nothing_but_constant_markers(learned):
    learned.layers["flat"] = np.ones(learned.shape)
    state_genes(learned, layer="flat", progress=False)
    table = get.state_genes(learned)
    assert table[["effect", "pvalue", "pvalue_adjusted"]].isna().all(axis=None)
    assert table["rank"].iloc[:2].tolist() == [1, 1]
    assert table["marker"].iloc[0] == "CD3"


def test_one_arm():
    adata = make_two()
    with pytest.warns(UserWarning, match="With one arm"):
        coupled(adata, {"n_arms": 1})
    state_genes(adata, progress=False)
    table = get.state_genes(adata)
    np.testing.assert_array_equal(table["r2_min"], table["r2_max"])


def test_small_clusters_are_left_out(learned, same):
    keep = np.r_[np.flatnonzero(learned.obs["scmoe"] == "0"), np.arange(12)]
    few = learned[np.unique(keep)].copy()
    with pytest.warns(UserWarning, match="fewer than 20 cells are left out: '1'") as said:
        state_genes(few, progress=False)
    assert said[0].filename == __file__
    assert set(get.state_genes(few)["cluster"]) == {"0"}
    # each dimension wants five cells
    fewer = learned[:30].copy()
    before = same.look(fewer)
    with pytest.raises(ValueError, match="No cluster has 20 cells"):
        state_genes(fewer, progress=False)
    same(fewer, before)


def test_through_a_file(short, tmp_path):
    kept = state_genes(short, copy=True, progress=False, key_added="mine")
    assert "mine_state_genes" not in short.uns
    kept.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(
        get.state_genes(again, key="mine"), get.state_genes(kept, key="mine")
    )
    state_genes(again, progress=False, key_added="mine")


def test_other_values_are_noticed(learned, same):
    learned.X = 2 * learned.X
    before = same.look(learned)
    with pytest.raises(ValueError, match="values are not those that 'scmoe' was made of"):
        state_genes(learned, progress=False)
    same(learned, before)


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        ({"key": "other"}, KeyError, "Did not find a model in"),
        ({"markers": ["CD3", "CD99"]}, KeyError, "'CD99'"),
        ({"markers": []}, ValueError, "no markers to look at"),
        ({"markers": ["CD3", "CD3"]}, ValueError, "named twice"),
        ({"layer": "raw"}, KeyError, "layer 'raw'"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"key_added": "taken"}, ValueError, "would overwrite"),
        ({"layer": "holes"}, ValueError, "NaN or infinite"),
        ({"reference": "nowhere"}, ValueError, "nowhere"),
    ],
)
def test_bad_input_changes_nothing(short, same, how, error, match):
    short.uns["taken_state_genes"] = {"a": 1}
    short.layers["holes"] = np.where(np.eye(400, 6), np.nan, short.X)
    before = same.look(short)
    with pytest.raises(error, match=match):
        state_genes(short, progress=False, **how)
    same(short, before)


def test_other_models_have_no_states(short):
    kwargs = {"model_kwargs": {"n_hidden": 16, "n_layers": 1}, "progress": False}
    cluster(
        short,
        model="moe-vae",
        n_clusters=2,
        n_latent=2,
        key_added="vaes",
        train_kwargs={**SHORT, "pretrain": False},
        **kwargs,
    )
    with pytest.raises(ValueError, match=r"not those of `model=\"cpl-mixvae\"`"):
        state_genes(short, key="vaes", progress=False)


def test_missing_markers_are_named(short):
    with pytest.raises(KeyError, match=r"`adata` lacks markers that were clustered: 'CD3'"):
        state_genes(short[:, 1:].copy(), progress=False)


def test_tables_that_are_none_are_named(learned):
    with pytest.raises(KeyError, match=r"run `scmoe.tl.state_genes"):
        get.state_genes(learned)
    state_genes(learned, progress=False)
    with pytest.raises(KeyError, match="no cluster '9'; there are '0'"):
        get.state_genes(learned, cluster="9")
    with pytest.raises(KeyError, match="no dimension 2; there are '0', '1'"):
        get.state_genes(learned, dimension=2)
    assert set(get.state_genes(learned, cluster=1)["cluster"]) == {"1"}
