"""The number of latent dimensions in a workflow."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import scmoe
from scmoe import _estimate as estimate
from scmoe.tl import latent_dim

QUICK = {"max_epochs": 3, "accelerator": "cpu"}
SMALL = {"n_hidden": 16, "n_layers": 1}


def run(adata, **kwargs):
    kwargs = {"n_latent": 10, "train_kwargs": QUICK, "network_kwargs": SMALL, **kwargs}
    return latent_dim(adata, progress=False, **kwargs)


@pytest.fixture(autouse=True)
def _learned(monkeypatch):
    """Nothing is learned in three epochs; the tests that look at it ask for the real check."""
    monkeypatch.setattr(estimate, "check_learned", lambda codes: None)


@pytest.fixture
def of_rank_3():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(12, 3)))[0].T
    x = rng.normal(size=(1500, 3)) @ axes
    # half of the cells vary along one axis only
    x[750:, :] = np.outer(x[750:] @ axes[0], axes[0])
    x += 0.02 * rng.normal(size=x.shape)
    return ad.AnnData(
        x.astype(np.float32), obs={"half": ["whole"] * 750 + ["line"] * 700 + [None] * 50}
    )


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    adata = scmoe.io.from_array(rng.random((40, 6, 5), dtype=np.float32))
    adata.X[:, 0] = 0
    return adata


# ----------------------------------------------------------------------------------------
# what is found and written


@pytest.mark.slow
def test_known_rank(of_rank_3, monkeypatch):
    monkeypatch.undo()
    run(
        of_rank_3,
        groupby="half",
        train_kwargs={"accelerator": "cpu"},
        network_kwargs={},
    )
    record = of_rank_3.uns["latent_dim"]
    assert record["n_latent"] == 3
    groups = record["groups"]
    assert list(groups.index) == ["line", "whole"]
    assert groups["n_cells"].tolist() == [700, 750]
    assert groups["n_latent"].tolist() == [1, 3]


def test_slots(blobs):
    blobs.obs["population"] = blobs.obs["population"].cat.set_categories(
        ["T", "B", "NK", "mono", "pDC", "none of these"]
    )
    blobs.obs.loc[blobs.obs["population"] == "NK", "population"] = np.nan
    run(blobs, groupby="population", threshold=0.8)
    codes = blobs.obsm["X_latent_dim"]
    assert codes.shape == (600, 10)
    assert codes.dtype == np.float32
    record = blobs.uns["latent_dim"]
    expected = estimate.find_latent_dim(codes, 0.8)
    assert record["n_latent"] == expected.n_latent
    assert record["threshold"] == 0.8
    np.testing.assert_allclose(record["explained"], expected.explained)
    wide = estimate.find_latent_dim(codes, 0.95)
    assert record["n_latent_reconstruction"] == wide.n_latent > expected.n_latent

    groups = record["groups"]
    assert list(groups.index) == ["B", "T", "mono", "pDC"]
    assert groups["n_cells"].tolist() == [150, 270, 60, 30]
    own = estimate.find_latent_dim(codes[(blobs.obs["population"] == "T").to_numpy()], 0.8)
    assert groups.loc["T", "n_latent"] == own.n_latent
    np.testing.assert_allclose(record["groups_explained"][1], own.explained)

    assert list(record["history"]) == ["loss", "reconstruction", "kl"]
    assert len(record["history"]) == 3
    assert record["features"].tolist() == list(blobs.var_names)
    assert record["version"] == scmoe.__version__
    assert record["manifest"]["seed"] == 0
    assert record["params"]["groupby"] == "population"
    assert "padded" not in record
    assert "latent_dim" not in blobs.obs


def test_large_latent_space(blobs):
    run(blobs, n_latent=None)
    assert blobs.obsm["X_latent_dim"].shape == (600, 8)
    assert blobs.uns["latent_dim"]["params"]["n_latent"] == 8


@pytest.mark.parametrize(
    "augment", ["dropout", ["neighbors", "dropout"], {"dropout": {"rate": 0.2}, "neighbors": {}}]
)
def test_changes_of_cells_are_recorded(blobs, tmp_path, augment):
    run(blobs, augment=augment)
    assert not np.allclose(blobs.obsm["X_latent_dim"], run(blobs, copy=True).obsm["X_latent_dim"])
    blobs.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad").uns["latent_dim"]["params"]["augment"]
    assert (list(read) if isinstance(augment, list) else read) == augment


def test_written_to_a_file_and_read(blobs, tmp_path):
    blobs.obs["group"] = ["lone/one"] + ["b"] * 599
    with pytest.warns(UserWarning, match="have no size: 'lone/one'"):
        run(blobs, groupby="group", augment={"share": 0.1})
    blobs.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad").uns["latent_dim"]
    pd.testing.assert_frame_equal(
        read["groups"], blobs.uns["latent_dim"]["groups"], check_index_type=False
    )
    assert read["params"]["augment"] == {"share": 0.1}
    np.testing.assert_array_equal(
        read["groups_explained"], blobs.uns["latent_dim"]["groups_explained"]
    )


def test_groups_without_a_size(blobs):
    blobs.X[:10] = blobs.X[0]
    blobs.obs["group"] = ["same"] * 10 + ["lone"] + ["two"] * 2 + ["rest"] * 587
    with pytest.warns(UserWarning, match="'lone', 'same'"):
        run(blobs, groupby="group")
    table = blobs.uns["latent_dim"]["groups"]
    assert table["n_latent"].isna().to_dict() == {
        "lone": True,
        "rest": False,
        "same": True,
        "two": False,
    }
    # two cells are a line
    assert table.loc["two", "n_latent"] == 1
    assert table["n_cells"].tolist() == [1, 587, 10, 2]
    curves = blobs.uns["latent_dim"]["groups_explained"]
    assert np.isnan(curves[[0, 2]]).all()
    np.testing.assert_allclose(np.nansum(curves, 1)[[1, 3]], 1)


def test_no_group_with_a_size(blobs):
    blobs.obs["own"] = blobs.obs_names
    with pytest.warns(UserWarning, match="have no size"):
        run(blobs, groupby="own")
    assert blobs.uns["latent_dim"]["groups"]["n_latent"].isna().all()


def test_same_seed_same_numbers_and_global_state_stays(blobs):
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (run(blobs, copy=True, augment=True) for _ in range(2))
    np.testing.assert_array_equal(first.obsm["X_latent_dim"], second.obsm["X_latent_dim"])
    other = run(blobs, copy=True, augment=True, random_state=np.random.default_rng(1))
    assert not np.array_equal(first.obsm["X_latent_dim"], other.obsm["X_latent_dim"])
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002


def test_copy_leaves_the_cells_alone(blobs, same):
    before = same.look(blobs)
    done = run(blobs, copy=True)
    same(blobs, before)
    assert run(blobs) is None
    assert done.uns["latent_dim"]["n_latent"] == blobs.uns["latent_dim"]["n_latent"]


def test_what_is_looked_at(blobs):
    blobs.layers["double"] = 2 * blobs.X + 1
    blobs.obsm["X_rep"] = blobs.X[:, :3].copy()
    run(blobs)
    codes = blobs.obsm["X_latent_dim"]
    run(blobs, layer="double")
    # quantiles make them the same but for rounding
    np.testing.assert_allclose(blobs.obsm["X_latent_dim"], codes, atol=1e-3)
    run(blobs, use_rep="X_rep", key_added="of_rep")
    assert blobs.uns["of_rep"]["features"].tolist() == ["X_rep_0", "X_rep_1", "X_rep_2"]
    run(blobs, markers=["CD4", "CD3"], key_added="two")
    assert blobs.uns["two"]["features"].tolist() == ["CD4", "CD3"]
    blobs.var.loc["CD45", "kind"] = "other"
    run(blobs, key_added="of_kind")
    assert "CD45" not in blobs.uns["of_kind"]["features"]


def spy(monkeypatch):
    """What the autoencoder is trained with."""
    calls = []
    real = estimate.train_autoencoder

    def train(scaled, n_latent, architecture, schedule, **kwargs):
        calls.append({"scaled": scaled, "architecture": architecture, **kwargs})
        return real(scaled, n_latent, architecture, schedule, **kwargs)

    monkeypatch.setattr(estimate, "train_autoencoder", train)
    return calls


def test_markers_are_scaled_and_gaussian(blobs, monkeypatch):
    calls = spy(monkeypatch)
    blobs.X[0, 0] = 1e4
    run(blobs)
    assert calls[0]["architecture"].likelihood == "gaussian"
    assert calls[0]["augment"] is None
    inside = (calls[0]["scaled"] >= 0) & (calls[0]["scaled"] <= 1)
    assert inside.mean(0).min() > 0.99
    assert not inside.all()
    run(blobs, network_kwargs={"likelihood": "bernoulli"})
    assert calls[1]["scaled"].min() == 0
    assert calls[1]["scaled"].max() == 1


@pytest.mark.slow
def test_components_keep_their_spreads(monkeypatch, same):
    """Principal components are independent, and only their spreads say which are noise."""
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    spreads = np.r_[3.0, 2.5, 2.0, np.full(17, 0.1)]
    cells = ad.AnnData(np.zeros((1500, 1), np.float32))
    cells.obsm["X_pca"] = (rng.normal(size=(1500, 20)) * spreads).astype(np.float32)
    how = {
        "n_latent": None,
        "train_kwargs": {"max_epochs": 100, "batch_size": 128, "lr": 3e-3, "accelerator": "cpu"},
        "network_kwargs": {"n_hidden": 32, "n_layers": 1},
    }
    run(cells, use_rep="X_pca", **how)
    assert cells.uns["latent_dim"]["n_latent"] == 3
    markers = ad.AnnData(cells.obsm["X_pca"])
    with pytest.raises(ValueError, match=r"in common.*use_rep"):
        run(markers, **how)


def test_images(images, monkeypatch):
    calls = spy(monkeypatch)
    run(images, network="conv", network_kwargs={"width": 2}, augment={"flip": True})
    assert calls[0]["architecture"].image_shape == (6, 5)
    assert calls[0]["architecture"].likelihood == "bernoulli"
    np.testing.assert_array_equal(calls[0]["scaled"], images.X)
    assert calls[0]["augment"].amounts["flip"] is True
    record = images.uns["latent_dim"]
    assert record["padded"] == 8
    assert record["params"]["network"] == "conv"
    # dense networks take images too
    run(images, augment=True)
    assert calls[1]["architecture"].image_shape is None
    assert calls[1]["augment"].image_shape == (6, 5)
    assert "padded" not in images.uns["latent_dim"]
    images.X *= 3
    run(images)
    assert calls[2]["architecture"].likelihood == "gaussian"


# ----------------------------------------------------------------------------------------
# what is refused


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"threshold": 0}, ValueError, "`threshold` must be above 0"),
        ({"threshold": 90}, ValueError, "`threshold`"),
        ({"n_latent": 0}, ValueError, "`n_latent` must be a whole number"),
        ({"n_latent": "many"}, ValueError, "`n_latent`"),
        ({"groupby": "nothing"}, KeyError, r"'nothing' in `\.obs`"),
        ({"groupby": "missing"}, ValueError, "names no group"),
        ({"markers": ["CD99"]}, KeyError, "CD99"),
        ({"layer": "raw"}, KeyError, "raw"),
        ({"use_rep": "X_rep"}, KeyError, "X_rep"),
        ({"network": "deep"}, ValueError, "`network` must be one of"),
        ({"network": "conv"}, KeyError, "image_shape"),
        ({"augment": {"rotation": 3}}, ValueError, "`augment` has no 'rotation'"),
        ({"augment": "much"}, ValueError, "`augment` must be"),
        ({"network_kwargs": {"depth": 3}}, ValueError, "`network_kwargs` has no 'depth'"),
        ({"network_kwargs": {"n_input": 3}}, ValueError, "no 'n_input'"),
        ({"network_kwargs": {"likelihood": "poisson"}}, ValueError, "`likelihood` is 'poisson'"),
        ({"network_kwargs": {"n_hidden": 0}}, ValueError, "n_hidden"),
        ({"train_kwargs": {"epochs": 3}}, ValueError, "`train_kwargs` has no 'epochs'"),
        ({"train_kwargs": {"max_epochs": 0}}, ValueError, "max_epochs"),
        ({"key_added": "mine"}, ValueError, r'would overwrite \.uns\["mine"\]'),
        ({"key_added": "taken"}, ValueError, r'overwrite \.obsm\["X_taken"\]'),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"random_state": None}, ValueError, "random_state"),
    ],
)
def test_refused(blobs, same, kwargs, error, match):
    blobs.obs["missing"] = pd.Series([None] * 600, index=blobs.obs_names, dtype=object)
    blobs.uns["mine"] = {"params": {}, "markers": [], "version": "0"}
    blobs.obsm["X_taken"] = blobs.X[:, :2].copy()
    before = same.look(blobs)
    with pytest.raises(error, match=match):
        run(blobs, **kwargs)
    same(blobs, before)


def test_refused_cells(blobs, same):
    for change, match in [
        (lambda a: a[:1].copy(), "at least 2 cells, got 1"),
        (lambda a: a[:100], "view"),
        (lambda a: a[:, :0].copy(), "no markers to look at"),
        (lambda a: ad.AnnData(a.X.round().astype(int)), "counts"),
        (lambda a: ad.AnnData(np.where(a.X > 5, np.nan, a.X)), "NaN"),
        (
            lambda a: ad.AnnData(a.X.astype(float) * 1e60),
            r"in '0' of the cell at position 0 \(and such values in",
        ),
        (lambda a: ad.AnnData(np.c_[a.X, np.ones((600, 1), np.float32)]), "Constant in all cells"),
    ]:
        cells = change(blobs)
        with pytest.raises(ValueError, match=match):
            run(cells)
        assert not cells.uns
        assert not cells.obsm


def test_images_of_another_shape(images):
    """Their margins look like constant markers, which is not what is wrong."""
    images.uns["image_shape"] = (3, 5)
    with pytest.raises(ValueError, match=r"is \(3, 5\), which does not fit"):
        run(images, network="conv")


def test_images_that_are_no_probabilities(images):
    images.X *= 3
    with pytest.raises(ValueError, match="Bernoulli"):
        run(images, network_kwargs={"likelihood": "bernoulli"})


def test_independent_markers(monkeypatch, same):
    monkeypatch.undo()
    adata = ad.AnnData(np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32))
    before = same.look(adata)
    with pytest.raises(ValueError, match="in common"):
        run(adata)
    same(adata, before)


def test_nothing_is_written_after_an_interruption(blobs, same, monkeypatch):
    run(blobs)
    before = same.look(blobs)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("scmoe._estimate.find_latent_dim", stop)
    with pytest.raises(KeyboardInterrupt):
        run(blobs, random_state=1)
    same(blobs, before)


def test_a_clustering_is_not_overwritten_and_does_not_overwrite(linked):
    run(linked, key_added="mine")
    with pytest.raises(ValueError, match="would overwrite"):
        scmoe.tl.cluster(linked, key_added="mine", n_clusters=5)
    # but an earlier estimate is
    run(linked, key_added="mine", random_state=1)
    assert linked.uns["mine"]["params"]["random_state"] == 1


def test_progress(blobs, capfd):
    run(blobs)
    assert capfd.readouterr() == ("", "")
    latent_dim(blobs, n_latent=5, train_kwargs=QUICK, network_kwargs=SMALL)
    assert "scmoe: Autoencoder (" in capfd.readouterr().err
