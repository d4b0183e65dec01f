"""New cells of trained clusters."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from made_up import as_intensities
from scipy.stats import ks_2samp, spearmanr

import scmoe
from scmoe.model import MoESimVAE
from scmoe.model._clusters import Description
from scmoe.model._generate import generate_cells
from scmoe.model._moesimvae_module import MoESimVAEModule, MoESimVAESettings
from scmoe.model._record import Trained

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def trained(adata, epochs, **kwargs):
    before = scvi.settings.seed
    scvi.settings.seed = 0
    MoESimVAE.setup_anndata(adata)
    model = MoESimVAE(adata, 8, **kwargs)
    model.train(epochs, **QUIET)
    scvi.settings.seed = before
    return model


@pytest.fixture(scope="module")
def cells(linked_once):
    scmoe.pp.arcsinh(as_intensities(linked_once), cofactor=5)
    return linked_once


@pytest.fixture(scope="module")
def model(cells):
    return trained(cells, 40)


def occupied(model):
    return list(dict.fromkeys(sorted(model.predict())))


def test_what_comes_back(model, cells):
    n_before = cells.obs_names.copy()
    new = model.generate(300)
    assert new.shape == (300, cells.n_vars)
    assert new.X.dtype == np.float32
    assert np.isfinite(new.X).all()
    assert list(new.var_names) == list(cells.var_names)
    assert list(new.obs.columns) == ["scmoe", "scmoe_expert"]
    assert set(new.obs["scmoe"].cat.categories) <= set(occupied(model))
    assert (new.obs["scmoe"].astype(str) == new.obs["scmoe_expert"].astype(str)).all()
    assert not new.obs_names.isin(n_before).any()
    assert new.obs_names.is_unique
    assert new.obsm["X_scmoe"].shape == (300, 9)
    assert new.uns["generated"] == {
        "gate": "requested",
        "prior": "fitted",
        "noise": True,
        "calibrate": True,
    }


def test_clusters_look_like_themselves(model, cells):
    """Medians of generated markers are those of the cells, and the model agrees."""
    label = model.predict()
    for cluster in occupied(model):
        new = model.generate(500, [cluster])
        own = cells[label == cluster]
        if own.n_obs < 20:
            continue
        gap = np.abs(np.median(new.X, 0) - np.median(own.X, 0))
        assert gap.max() < 0.35 * np.ptp(cells.X, axis=0).max()
        assert (model.predict(new) == cluster).mean() > 0.8


def test_values_stay_within_those_of_the_cells(model, cells):
    new = model.generate(2000)
    np.testing.assert_array_less(cells.X.min(0) - 1e-4, new.X.min(0))
    np.testing.assert_array_less(new.X.max(0), cells.X.max(0) + 1e-4)


def test_the_transform_is_recorded_and_can_be_undone(model, cells):
    new = model.generate(50)
    before = new.X.copy()
    assert new.uns["arcsinh"] is not cells.uns["arcsinh"]
    scmoe.pp.inverse_arcsinh(new)
    np.testing.assert_allclose(new.X, 5 * np.sinh(before), rtol=1e-5)
    assert "arcsinh" in cells.uns


def test_shares_follow_the_clusters(model):
    counts = model.generate(4000).obs["scmoe"].value_counts()
    label = model.predict()
    for cluster in occupied(model):
        expected = (label == cluster).mean()
        assert abs(counts.get(cluster, 0) / 4000 - expected) < 4 * np.sqrt(0.25 / 4000)


def test_numbers_for_each_cluster(model):
    first, second = occupied(model)[:2]
    new = model.generate({first: 7, second: 3})
    assert new.obs["scmoe"].value_counts().to_dict() == {first: 7, second: 3}
    assert len(model.generate(5, first)) == 5


def test_same_seed_same_cells_whatever_was_drawn_before(model):
    state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = model.generate(100, random_state=3)
    np.random.rand(5), torch.rand(5)  # noqa: NPY002
    assert np.array_equal(first.X, model.generate(100, random_state=3).X)
    assert not np.array_equal(first.X, model.generate(100, random_state=4).X)
    torch.set_rng_state(state[1])
    model.generate(10)
    assert torch.equal(torch.get_rng_state(), state[1])


def test_unit_prior_is_the_papers(model):
    """Codes around the means with spread 1, whatever the spread of the cluster."""
    cluster = occupied(model)[0]
    z = model.generate(4000, [cluster], prior="unit").obsm["X_scmoe"]
    mean = model.module.means[model.cluster_names_.index(cluster)].numpy()
    np.testing.assert_allclose(z.mean(0), mean, atol=0.08)
    np.testing.assert_allclose(z.std(0), 1, atol=0.06)


def test_fitted_prior_has_the_spread_of_the_codes(model):
    label, codes = model.predict(), model.get_latent_representation()
    cluster = occupied(model)[0]
    of_cells = codes[label == cluster]
    z = model.generate(20_000, [cluster]).obsm["X_scmoe"]
    d, n = z.shape[1], len(of_cells)
    np.testing.assert_allclose(z.mean(0), of_cells.mean(0), atol=0.1)
    scale = np.abs(np.cov(of_cells.T)).max()
    np.testing.assert_allclose(np.cov(z.T), np.cov(of_cells.T), atol=scale * (0.1 + d / n))


def test_gate_decides(model):
    """With the paper's gate, the expert is the gate's choice for the code."""
    new = model.generate(500, gate="network", prior="unit")
    with torch.inference_mode():
        logits = model.module.gate(torch.from_numpy(new.obsm["X_scmoe"]))
    logits = logits.masked_fill(~model.module.live, -torch.inf)
    chosen = np.asarray(model.cluster_names_)[logits.argmax(1)]
    assert (new.obs["scmoe_expert"].astype(str) == chosen).all()


def test_noise_is_what_the_experts_leave_unexplained(model, cells):
    """Covariances of the errors over the cells of a cluster, shrunk to those of all."""
    module = model.module
    with torch.inference_mode():
        outputs = module.inference(torch.from_numpy(cells.X))
        logits = module.experts(outputs["z"], outputs["expert"])
        missed = outputs["scaled"] - logits.sigmoid()
    k = int(outputs["expert"].mode().values)
    own = missed[outputs["expert"] == k]
    pooled = missed.T @ missed / len(missed)
    expected = (own.T @ own + 8 * pooled) / (len(own) + 8)
    torch.testing.assert_close(module.residuals[k], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(module.spread[k], own.square().mean(0).sqrt())

    asked, batch = np.full(20_000, k), np.zeros(20_000, int)
    bare, noisy = (
        module.draw(asked, batch, np.random.default_rng(0), noise=n)["scaled"]
        for n in (False, True)
    )
    torch.testing.assert_close((noisy - bare).T.cov(), expected, rtol=0.1, atol=2e-4)


def test_calibrated_markers_are_distributed_as_the_cells(model, cells):
    label, cluster = model.predict(), occupied(model)[0]
    new, raw = (model.generate(4000, [cluster], calibrate=c).X for c in (True, False))
    for j in range(cells.n_vars):
        own = cells.X[label == cluster, j]
        assert ks_2samp(new[:, j], own).statistic < 0.08
        # a monotone map: the order of the cells is as it was
        assert spearmanr(new[:, j], raw[:, j]).statistic > 0.98


@pytest.mark.parametrize("how", [{"noise": False}, {"prior": "unit"}])
def test_calibration_is_refused_where_it_does_not_fit(model, how):
    with pytest.raises(ValueError, match="`calibrate` needs"):
        model.generate(10, calibrate=True, **how)
    assert not model.generate(10, **how).uns["generated"]["calibrate"]


def test_unit_prior_is_refused_without_kl(linked):
    model = trained(linked, 1, kl_weight=0.0)
    with pytest.raises(ValueError, match="kl_weight=0"):
        model.generate(10, prior="unit")
    assert len(model.generate(10)) == 10  # fitted after the training


@pytest.mark.parametrize(
    ("n", "clusters", "error", "match"),
    [
        (0, None, ValueError, "whole number from 1"),
        (-1, None, ValueError, "whole number from 1"),
        (2.5, None, ValueError, "whole number from 1"),
        (True, None, ValueError, "whole number from 1"),
        (10, ["nobody"], KeyError, "no cluster 'nobody'"),
        (10, [], ValueError, "empty"),
        (10, ["0", "0"], ValueError, "twice"),
        ({"0": 0}, None, ValueError, "whole number from 1"),
        ({"0": 1}, ["0"], ValueError, "leave `clusters` out"),
    ],
)
def test_bad_requests(model, n, clusters, error, match):
    with pytest.raises(error, match=match):
        model.generate(n, clusters)


def test_words(model):
    with pytest.raises(ValueError, match="`gate` must be one of"):
        model.generate(1, gate="open")
    with pytest.raises(ValueError, match="`prior` must be one of"):
        model.generate(1, prior="flat")


def test_empty_cluster(model):
    empty = [c for c in model.cluster_names_ if c not in occupied(model)]
    assert empty
    with pytest.raises(ValueError, match="No cell belongs to"):
        model.generate(10, [empty[0]])


def test_before_training(linked):
    MoESimVAE.setup_anndata(linked)
    with pytest.raises(RuntimeError, match="untrained model"):
        MoESimVAE(linked, 4).generate(10)


def test_names_avoid_those_of_the_cells(model, cells):
    names = cells.obs_names.copy()
    cells.obs_names = [f"generated-{i}" for i in range(cells.n_obs)]
    new = model.generate(600)
    taken = new.obs_names.isin(cells.obs_names).any()
    cells.obs_names = names
    assert not taken


def test_rare_cluster_borrows_spread(settings):
    """A covariance of two cells is singular; with what clusters have on average it is not."""
    torch.manual_seed(0)
    module = MoESimVAEModule(
        MoESimVAESettings(n_input=6, n_experts=3, n_latent=3, **settings)
    ).eval()
    z = torch.randn(102, 3)
    expert = torch.tensor([0] * 100 + [1] * 2)
    description = Description(module)
    with torch.inference_mode():
        for some in (slice(0, 60), slice(60, 102)):
            description.add(
                {
                    "z": z[some],
                    "expert": expert[some],
                    "proba": torch.nn.functional.one_hot(expert[some], 3).float(),
                    "scaled": torch.rand(102, 6)[some],
                    "position": torch.rand(102, 6)[some],
                    "batch": torch.zeros(102, 1)[some],
                }
            )
        description.write()
    assert module.size.tolist() == [100, 2, 0]
    torch.testing.assert_close(module.means[:2], torch.stack([z[:100].mean(0), z[100:].mean(0)]))
    big, small = ((c - c.mean(0)).T @ (c - c.mean(0)) for c in (z[:100], z[100:]))
    pooled = (big + small) / 102
    torch.testing.assert_close(module.covariances[0], (big + 3 * pooled) / 103)
    torch.testing.assert_close(module.covariances[1], (small + 3 * pooled) / 5)
    new = generate_cells(
        Trained(module, ["a", "b", "c"], ["0"]),
        AnnData(np.zeros((1, 6), np.float32)),
        50,
        ["b"],
        key="scmoe",
        layer=None,
        batch_key=None,
        batch=None,
        gate="requested",
        prior="fitted",
        noise=None,
        calibrate=None,
        random_state=0,
    )
    assert np.isfinite(new.X).all()
