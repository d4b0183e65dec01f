"""New cells and the clusters of a reference."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from made_up import as_intensities

from scmoe.model import ModelFileError, MoESimVAE
from scmoe.pp import ScaleWarning, arcsinh
from scmoe.tl import assign, cluster, generate
from scmoe.tl._assign import drift_table


def clustered(adata, epochs=40, **kwargs):
    train_kwargs = {"max_epochs": epochs, "accelerator": "cpu"}
    cluster(adata, n_clusters=8, progress=False, train_kwargs=train_kwargs, **kwargs)
    return adata


@pytest.fixture(scope="module")
def reference(linked_once):
    return clustered(linked_once.copy())


@pytest.fixture
def query(linked_once):
    """Cells of the reference, as new ones."""
    return ad.AnnData(
        linked_once.X.copy(),
        obs=linked_once.obs[["population"]].copy(),
        var=linked_once.var[[]].copy(),
    )


def test_cells_of_the_reference_are_found_again(reference, query):
    assert assign(query, reference, reject=None) is None
    pd.testing.assert_series_equal(query.obs["scmoe"], reference.obs["scmoe"])
    np.testing.assert_array_equal(query.obs["scmoe_outlier"], reference.obs["scmoe_outlier"])
    np.testing.assert_array_equal(query.obsm["X_scmoe"], reference.obsm["X_scmoe"])
    pd.testing.assert_frame_equal(query.obsm["scmoe_proba"], reference.obsm["scmoe_proba"])


def test_markers_in_any_order_and_others_between_them(reference, query):
    assign(query, reference)
    order = np.random.default_rng(0).permutation(query.n_vars)
    other = query[:, order].copy()
    other = ad.concat(
        [other, ad.AnnData(np.full((600, 1), 9.0), query.obs[[]], pd.DataFrame(index=["CD99"]))],
        axis=1,
    )
    assign(other, reference)
    np.testing.assert_array_equal(other.obsm["X_scmoe"], query.obsm["X_scmoe"])
    assert other.obs["scmoe"].equals(query.obs["scmoe"])


def test_a_stated_share_is_rejected(reference, query):
    assign(query, reference, reject=0.1)
    outlier = query.obs["scmoe_outlier"]
    rejected = query.obs["scmoe"].isna()
    assert rejected.mean() == pytest.approx(0.1, abs=0.02)
    assert (rejected == (outlier > 0.9)).all()
    drift = query.uns["scmoe"]["drift"]
    assert list(drift.index) == ["all cells"]
    assert drift["rejected"].item() == rejected.mean()
    assert drift["drift"].item() < 0.05


def test_a_population_left_out_is_rejected(linked_once, query):
    known = linked_once[linked_once.obs["population"] != "mono"].copy()
    clustered(known)
    foreign = query[query.obs["population"] == "mono"].copy()
    with pytest.warns(UserWarning, match="1 of 1 samples have drifted") as said:
        assign(foreign, known)
    assert "CD14 has moved most" in str(said[0].message)
    assert foreign.obs["scmoe"].isna().all()
    assert foreign.uns["scmoe"]["drift"]["drift"].item() > 0.95
    assert list(foreign.obs["scmoe"].cat.categories) == list(known.obs["scmoe"].cat.categories)


def test_drift_is_told_sample_by_sample(reference, query):
    query.obs["donor"] = np.repeat(["a", "b", "c"], 200)
    query.X[query.obs["donor"] == "b", 3] += 3
    with pytest.warns(
        UserWarning, match="1 of 3 samples have drifted .*: 'b'.*CD19 has moved most"
    ):
        assign(query, reference, sample_key="donor")
    drift = query.uns["scmoe"]["drift"]
    assert list(drift.index) == ["a", "b", "c"]
    assert list(drift["n_cells"]) == [200] * 3
    assert list(drift["alarm"]) == [False, True, False]
    assert drift.loc["b", "drift"] > 0.5 > 0.15 > drift.loc[["a", "c"], "drift"].max()
    assert drift.loc["b", "marker"] == "CD19"
    # the shift is in units of the range of the reference
    span = np.ptp(np.quantile(reference[:, "CD19"].X, [0.001, 0.999]))
    assert drift.loc["b", "shift"] == pytest.approx(3 / span, rel=0.1)


def test_from_a_model(reference, query):
    work = reference[:, list(reference.var_names)].copy()
    MoESimVAE.setup_anndata(work)
    model = MoESimVAE(work, 6, n_hidden=16)
    model.train(2, accelerator="cpu", enable_progress_bar=False)
    assign(query, model, key_added="mine", reject=None)
    assert list(query.obs["mine"]) == list(model.predict())
    np.testing.assert_array_equal(query.obs["mine_outlier"], model.outlier_score())


def test_from_a_saved_model(linked, query, tmp_path):
    clustered(linked, epochs=2, save_model=tmp_path / "m")
    assign(query, tmp_path / "m", reject=None)
    assert query.obs["scmoe"].equals(linked.obs["scmoe"])
    np.testing.assert_array_equal(query.obsm["X_scmoe"], linked.obsm["X_scmoe"])


def test_through_h5ad(reference, query, tmp_path):
    reference.write_h5ad(tmp_path / "r.h5ad")
    assign(query, ad.read_h5ad(tmp_path / "r.h5ad"), reject=None)
    assert query.obs["scmoe"].equals(reference.obs["scmoe"])
    query.write_h5ad(tmp_path / "q.h5ad")
    again = ad.read_h5ad(tmp_path / "q.h5ad")
    pd.testing.assert_frame_equal(again.uns["scmoe"]["drift"], query.uns["scmoe"]["drift"])


def test_layers_and_representations(linked, query):
    linked.layers["scaled"] = linked.X * 2
    linked.obsm["X_rep"] = linked.X[:, :4].copy()
    clustered(linked, epochs=2, layer="scaled", key_added="of_layer")
    clustered(linked, epochs=2, use_rep="X_rep", key_added="of_rep")
    query.layers["twice"] = query.X * 2
    query.obsm["X_rep"] = query.X[:, :4].copy()
    assign(query, linked, key="of_layer", layer="twice", reject=None)
    assert query.obs["of_layer"].equals(linked.obs["of_layer"])
    assign(query, linked, key="of_rep", reject=None)
    assert query.obs["of_rep"].equals(linked.obs["of_rep"])
    del query.obsm["X_rep"], query.layers["twice"]
    with pytest.raises(KeyError, match=r"'X_rep', which `query.obsm` lacks"):
        assign(query, linked, key="of_rep")
    with pytest.raises(KeyError, match="layer 'scaled'"):
        assign(query, linked, key="of_layer")


def test_batches_that_nobody_has_seen(linked, query):
    linked.obs["plate"] = np.where(np.arange(600) % 2, "p1", "p2")
    clustered(linked, epochs=2, batch_key="plate", key_added="blind")
    assign(query, linked, key="blind", reject=None)
    assert query.obs["blind"].equals(linked.obs["blind"])
    seeing = {"encode_batch": True}
    clustered(linked, epochs=2, batch_key="plate", key_added="seeing", model_kwargs=seeing)
    with pytest.raises(KeyError, match="'plate'"):
        assign(query, linked, key="seeing")
    query.obs["plate"] = "p3"
    with pytest.raises(ValueError, match=r"never seen the batch 'p3'; it knows 'p1', 'p2'"):
        assign(query, linked, key="seeing")
    query.obs["plate"] = linked.obs["plate"]
    assign(query, linked, key="seeing", reject=None)
    assert query.obs["seeing"].equals(linked.obs["seeing"])


@pytest.fixture
def intensities(linked, query):
    """The reference and the query before a transform."""
    return as_intensities(linked), as_intensities(query)


def test_cofactors(intensities):
    linked, query = intensities
    arcsinh(linked, cofactor=5)
    clustered(linked, epochs=2)
    with (
        pytest.warns(ScaleWarning, match="nothing says so.* query goes up to"),
        pytest.warns(UserWarning, match="has moved most"),
    ):
        assign(query, linked, reject=None)
    other = query[:, ::-1].copy()
    del other.uns["scmoe"], other.obsm["X_scmoe"], other.obsm["scmoe_proba"]
    del other.obs["scmoe_outlier"], other.obs["scmoe"]
    arcsinh(other, cofactor=150)
    with pytest.raises(ValueError, match=r"cofactor 150\.0 and not 5.0"):
        assign(other, linked)
    same = query[:, ::-1].copy()
    arcsinh(same, cofactor=5)
    assign(same, linked, reject=None)
    assert same.obs["scmoe"].equals(linked.obs["scmoe"])


def test_scales_without_a_record(reference, query):
    as_intensities(query)
    with (
        pytest.warns(ScaleWarning, match=r"In 'CD3' the query goes up to \d+\.?\d* and the ref"),
        pytest.warns(UserWarning, match="has moved most"),
    ):
        assign(query, reference, reject=None)


def test_colours_go_along(reference, query):
    reference = reference.copy()
    reference.uns["scmoe_colors"] = ["#112233"] * reference.obs["scmoe"].cat.categories.size
    assign(query, reference)
    assert query.uns["scmoe_colors"] == reference.uns["scmoe_colors"]


def test_copy(reference, query, same):
    before = same.look(query)
    annotated = assign(query, reference, copy=True)
    same(query, before)
    assert "scmoe" in annotated.obs


WRONG = {
    "markers": (lambda q: q[:, 2:].copy(), {}, KeyError, "lacks markers .*'CD3', 'CD4'"),
    "view": (lambda q: q[:9], {}, ValueError, "view"),
    "none": (lambda q: q[:0].copy(), {}, ValueError, "no cells"),
    "key": (lambda q: q, {"key": "other"}, KeyError, "Did not find a model in .*other"),
    "reject": (lambda q: q, {"reject": 1.0}, ValueError, "between 0 and 1"),
    "layer": (lambda q: q, {"layer": "raw"}, KeyError, "layer 'raw'"),
    "slash": (lambda q: q, {"key_added": "a/b"}, ValueError, "without '/'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_changes_nothing(reference, query, same, name):
    change, kwargs, error, message = WRONG[name]
    query = change(query)
    before = same.look(query)
    with pytest.raises(error, match=message):
        assign(query, reference, **kwargs)
    same(query, before)


def test_values_that_no_clustering_takes(reference, query):
    query.X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in 'CD56'"):
        assign(query, reference)
    query.X = np.ones(query.shape, dtype=int)
    with pytest.raises(ValueError, match="counts or raw intensities"):
        assign(query, reference)


def test_slots_of_somebody_else(reference, query):
    query.obsm["X_scmoe"] = np.zeros((600, 2))
    with pytest.raises(ValueError, match="would overwrite"):
        assign(query, reference)
    assign(query, reference, key_added="found")
    assign(query, reference, key_added="found")  # its own may be replaced


def test_damaged_records(reference, query, same):
    whole, before = reference.uns["scmoe"], same.look(query)
    model = whole["model"]
    for part, match in (
        ({"model": "x"}, "is no record of a model"),
        ({"model": {**model, "clusters": ["a"] * 5}}, "names of clusters must be different"),
        ({"model": {**model, "batches": ["a", "b"]}}, "1 batches and 2 names"),
        ({"params": 3}, "lacks 'params'"),
        ({"params": {"use_rep": 3}}, "'use_rep' is 3, no name"),
        ({"markers": whole["markers"][:-1]}, "8 markers and 7 names"),
        ({"markers": None}, "lacks 'params' or 'markers'"),
    ):
        strange = ad.AnnData(reference.X, uns={"scmoe": {**whole, **part}})
        for use in (lambda r: assign(query, r), lambda r: generate(r, 3)):
            with pytest.raises(ModelFileError, match=match) as error:
                use(strange)
            assert "uns['scmoe']" in str(error.value)
    for record in ("x", {}, {"params": {}}):
        with pytest.raises(KeyError, match="Did not find a model"):
            assign(query, ad.AnnData(reference.X, uns={"scmoe": record}))
    same(query, before)


def test_without_landmarks(linked, query, tmp_path):
    """No cell is in the model, of the record and of the folder; scores of the run are there."""
    clustered(linked, epochs=1, landmarks=False, save_model=tmp_path / "m")
    assert not linked.uns["scmoe"]["model"]["weights"]["outliers.landmarks"].any()
    assert linked.obs["scmoe_outlier"].notna().all()
    for name, reference in (("of_cells", linked), ("of_folder", tmp_path / "m")):
        with pytest.raises(ValueError, match="give `reject=None`"):
            assign(query, reference, key_added=name)
        assign(query, reference, reject=None, key_added=name)
        assert query.obs[name].astype(str).equals(linked.obs["scmoe"].astype(str))


def test_no_model_at_a_path(query, tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        assign(query, tmp_path / "nowhere")


def test_a_clustering_of_the_query_is_not_lost(reference, query, same):
    clustered(query, epochs=1)
    before = same.look(query)
    with pytest.raises(ValueError, match="a clustering of its own"):
        assign(query, reference)
    same(query, before)
    assign(query, reference, key_added="theirs")


def test_columns_of_others_are_not_overwritten(reference, query, same):
    before = same.look(query)
    for call in (
        lambda: assign(query, reference, key_added="population"),
        lambda: clustered(query, epochs=1, key_added="population"),
    ):
        with pytest.raises(ValueError, match=r"would overwrite \.obs\[\"population\"\]"):
            call()
    same(query, before)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_few_cells_of_the_reference_raise_no_alarm(reference, query, n):
    some = query[np.random.default_rng(0).choice(600, n, replace=False)].copy()
    assign(some, reference, reject=None)
    assert not some.uns["scmoe"]["drift"]["alarm"].any()


def test_samples_that_are_not_there(reference, query):
    with pytest.raises(KeyError, match="'plaet'"):
        assign(query, reference, sample_key="plaet")


def test_a_record_that_joining_has_damaged(intensities):
    linked, query = intensities
    arcsinh(linked, cofactor=5)
    clustered(linked, epochs=1)
    del linked.uns["arcsinh"]["X"]["cofactor"]
    with pytest.raises(ValueError, match="joined from cells with different transforms"):
        assign(query, linked)


def test_compensation_of_one_of_the_two(intensities):
    linked, query = intensities
    arcsinh(linked, cofactor=5)
    clustered(linked, epochs=1)
    arcsinh(query, cofactor=5)
    query.uns["compensated"] = {"X": {}}
    with pytest.raises(ValueError, match="the query was compensated and the other was not"):
        assign(query, linked)


@pytest.mark.parametrize(("moved", "strange"), [(0.0, True), (0.8, False), (0.0, False)])
def test_either_markers_or_cells_that_changed_are_an_alarm(moved, strange):
    """A marker that has moved by 0.8 of its range, or scores of which half are the highest."""
    n, levels = 4000, np.linspace(0, 1, 65)
    rng = np.random.default_rng(0)
    score = rng.random(n)
    if strange:
        score[: n // 2] = 1
    position = rng.random((n, 2)) + np.array([0, moved])
    table = drift_table(
        SimpleNamespace(markers=torch.from_numpy(np.stack([levels, levels], 1))),
        score,
        position,
        np.ones(n, dtype=bool),
        pd.Index(["CD3", "CD4"]),
        np.zeros(n, dtype=int),
        pd.Index(["day 2"]),
        score > 0.99,
    )
    assert table["alarm"].tolist() == [bool(moved or strange)]
    assert (table["shift"].iloc[0] > 0.6) == bool(moved)
