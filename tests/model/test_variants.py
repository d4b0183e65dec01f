"""Every variant of the model: it trains, and it does what its name says."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS

from scmoe.model import MoESimVAE
from scmoe.nn import cluster_kl, cluster_means, depict, depict_target, posterior_kl, reconstruction
from scmoe.similarity import Custom, Knn, Threshold
from scmoe.train import BATCH_KEYS

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
TERMS = ("reconstruction", "similarity", "depict", "kl")


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def build(adata, n_experts=6, *, similarity=None, seed=0, **kwargs):
    scvi.settings.seed = seed
    MoESimVAE.setup_anndata(adata, similarity=similarity or Knn(use_rep="X"))
    return MoESimVAE(adata, n_experts, **{"n_hidden": 16, "n_latent": 4, **kwargs})


def trained(adata, n_experts=6, epochs=1, *, train=None, **kwargs):
    model = build(adata, n_experts, **kwargs)
    model.train(epochs, **{**QUIET, **(train or {})})
    return model


def only(module, term):
    module.weights = {name: float(name == term) for name in TERMS}


def a_batch(adata, n=40):
    torch.manual_seed(1)
    return {
        REGISTRY_KEYS.X_KEY: torch.from_numpy(adata.X[:n].copy()),
        BATCH_KEYS.SIMILARITY: (torch.rand(n, n) < 0.2).float(),
    }


def reached(tensor):
    return tensor.grad is not None and bool((tensor.grad != 0).any())


# ----------------------------------------------------------------------------------------
# each trains

VARIANTS = [
    {"activation": "relu"},
    {"batch_norm": True},
    {"scaling": "minmax"},
    {"likelihood": "gaussian"},
    {"means": "learned", "kl_weight": 0.5},
    {"kl": "paper", "kl_weight": 0.5},
    {"depict_target": "released", "gate_dropout": 0.0},
    {"depict_target": "dec"},
    {"code_noise": 0.0},
    {"code_noise": "learned"},
    {"code_noise": "learned", "means": "learned", "batch_norm": True, "likelihood": "gaussian"},
    {"gate_hidden": 9, "expert_hidden": 5, "gate_layers": 3, "expert_layers": 2},
    {"reconstruction_weight": 0.0, "kl_weight": 0.0, "depict_weight": 0.0},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_trains(blobs, variant, tmp_path):
    model = trained(blobs, epochs=2, **variant)
    for name in ("loss", *TERMS):
        assert np.isfinite(model.history[f"{name}_train"].to_numpy(float)).all()
    proba, z = model.predict_proba(), model.get_latent_representation()
    assert z.shape == (600, 4)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    # whatever the batch
    np.testing.assert_allclose(model.predict_proba(batch_size=7), proba, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(blobs[5:6].copy()), proba[5:6], atol=1e-5)
    new = model.generate(20)
    assert np.isfinite(new.X).all()
    beyond = np.maximum(new.X - blobs.X.max(0), blobs.X.min(0) - new.X)
    assert beyond.max() < 1e-5
    # and after a detour by disk
    model.save(str(tmp_path / "m"))
    loaded = MoESimVAE.load(str(tmp_path / "m"), blobs.copy(), accelerator="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(), proba)
    np.testing.assert_array_equal(loaded.generate(20).X, new.X)


# ----------------------------------------------------------------------------------------
# means


def test_learned_means_are_taught_by_the_kl_term_alone(blobs):
    module = build(blobs, means="learned").module
    for term in TERMS:
        module.zero_grad()
        only(module, term)
        module(a_batch(blobs))[2].loss.backward()
        assert reached(module.centres) == (term == "kl")


def test_with_learned_means_the_kl_term_leaves_the_gate_alone(blobs):
    """Means of the batch are weighted by the gate, so that these do teach it."""
    for means, expected in (("learned", False), ("em", True)):
        module = build(blobs, means=means).module
        only(module, "kl")
        module(a_batch(blobs))[2].loss.backward()
        assert reached(module.gate.out.weight) == expected


def test_learned_means_are_what_codes_are_compared_with(blobs):
    module = build(blobs, means="learned").module.eval()
    inference, _, output = module(a_batch(blobs))
    expected = cluster_kl(inference["z"], inference["expert"], module.centres)
    torch.testing.assert_close(output.extra_metrics["kl"], expected)
    assert not torch.isclose(
        expected,
        cluster_kl(
            inference["z"],
            inference["expert"],
            cluster_means(inference["z"], inference["proba"]),
        ),
    )


def test_learned_means_go_with_their_experts(blobs):
    module = build(blobs, means="learned").module
    before = module.centres.detach().clone()
    order = torch.tensor([2, 0, 1, 5, 4, 3])
    module.reorder(order)
    torch.testing.assert_close(module.centres.detach(), before[order])


def test_what_is_drawn_from_are_the_means_of_the_codes(blobs):
    """Also where other means were learned: these follow the codes, not the reverse."""
    model = trained(blobs, epochs=5, means="learned", kl_weight=0.2)
    expected = cluster_means(
        torch.from_numpy(model.get_latent_representation()),
        torch.from_numpy(model.predict_proba().to_numpy()),
    )
    torch.testing.assert_close(model.module.means, expected, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------------------
# noise


def test_learned_noise(blobs):
    module = build(blobs, code_noise="learned").module
    batch = a_batch(blobs)
    assert module.encoder.out.out_features == 8
    for term in ("reconstruction", "similarity", "kl"):
        module.zero_grad()
        only(module, term)
        module.train()(batch)[2].loss.backward()
        of_scale = module.encoder.out.weight.grad[4:]
        assert (of_scale != 0).any(), term
    x = batch[REGISTRY_KEYS.X_KEY]
    with torch.no_grad():
        module.encoder.out.bias[4:] = torch.tensor([-3.0, -1.0, 0.0, 1.0])
        module.encoder.out.weight[4:] = 0
        outputs = module.inference(x[:1].repeat(20_000, 1))
    torch.testing.assert_close(
        outputs["z"].std(0), torch.tensor([-3.0, -1.0, 0.0, 1.0]).exp(), rtol=0.03, atol=0
    )


def test_predictions_use_the_code_without_noise(blobs):
    module = build(blobs, code_noise="learned").module.eval()
    x = a_batch(blobs)[REGISTRY_KEYS.X_KEY]
    outputs = module.inference(x)
    assert torch.equal(outputs["z"], outputs["loc"])
    expected = module.encoder(module.scale(x))[:, :4]
    torch.testing.assert_close(outputs["z"], expected)


def test_kl_of_learned_noise_is_that_of_each_cell(blobs):
    module = build(blobs, code_noise="learned", means="learned").module
    inference, _, output = module(a_batch(blobs))
    expected = posterior_kl(
        inference["loc"], inference["log_scale"], inference["expert"], module.centres
    )
    torch.testing.assert_close(output.extra_metrics["kl"], expected)


# ----------------------------------------------------------------------------------------
# terms


def test_directions_of_the_kl_term(blobs):
    values = {}
    for kl in ("released", "paper"):
        module = build(blobs, kl=kl).module.eval()
        inference, _, output = module(a_batch(blobs))
        z, expert = inference["z"], inference["expert"]
        means = cluster_means(z, inference["proba"])
        values[kl] = output.extra_metrics["kl"].item()
        assert values[kl] == pytest.approx(cluster_kl(z, expert, means, kl).item())
    # a new encoder's codes are narrow, which the printed direction punishes harder
    assert values["paper"] > 2 * values["released"]


def test_targets_of_depict(blobs):
    module = build(blobs, gate_dropout=0.0).module.eval()
    values = {}
    for kind in ("paper", "released", "dec"):
        module.depict_target = kind
        only(module, "depict")
        module.zero_grad()
        inference, _, output = module(a_batch(blobs))
        output.loss.backward()
        expected = depict(depict_target(inference["proba"], kind), inference["logits"])
        torch.testing.assert_close(output.loss, expected)
        values[kind] = output.loss.item(), module.gate.out.weight.grad.clone()
    assert values["paper"][0] == pytest.approx(values["released"][0])
    assert not torch.allclose(values["paper"][1], values["released"][1])
    assert values["dec"][0] != pytest.approx(values["paper"][0])


def test_without_dropout_both_passes_are_one(blobs):
    """What the authors' program does: the noisy pass is not noisy."""
    module = build(blobs, gate_dropout=0.0, code_noise=0.0, depict_target="released").module
    only(module, "depict")
    assert len({module.train()(a_batch(blobs))[2].loss.item() for _ in range(3)}) == 1


def test_gaussian_likelihood_is_the_squared_error(blobs):
    module = build(blobs, likelihood="gaussian").module.eval()
    inference, generative, output = module(a_batch(blobs))
    difference = generative["logits"] - inference["scaled"]
    expected = reconstruction(generative["logits"], inference["scaled"], "gaussian").mean()
    torch.testing.assert_close(expected, 0.5 * difference.square().mean())
    torch.testing.assert_close(output.extra_metrics["reconstruction"], expected)
    torch.testing.assert_close(module.expected(generative["logits"]), generative["logits"])


# ----------------------------------------------------------------------------------------
# scaling


@pytest.mark.parametrize("scaling", ["quantile", "minmax", "none"])
def test_scaling(blobs, scaling):
    if scaling == "none":
        blobs.X /= blobs.X.max()
    model = trained(blobs, scaling=scaling)
    low, high = {
        "quantile": np.quantile(blobs.X, [0.001, 0.999], axis=0),
        "minmax": (blobs.X.min(0), blobs.X.max(0)),
        "none": (np.zeros(8), np.ones(8)),
    }[scaling]
    np.testing.assert_allclose(model.module.low, low, atol=1e-5)
    np.testing.assert_allclose(model.module.high, high, atol=1e-5)


def test_default_scaling(blobs):
    assert build(blobs).settings.scaling == "quantile"
    blobs.uns["image_shape"] = np.array([2, 4])
    assert build(blobs).settings.scaling == "none"
    assert build(blobs, scaling="minmax").settings.scaling == "minmax"


def test_values_that_are_not_scaled_yet(blobs):
    blobs.X /= blobs.X.max()
    blobs.X[3, 2] = 1.5
    blobs.X[4, 5] = -0.25
    model = build(blobs, scaling="none")
    match = r"from -0\.25 to 1\.5, outside 0 to 1 in 'CD8', 'CD14'.*quantile"
    with pytest.raises(ValueError, match=match):
        model.train(1, **QUIET)
    assert not model.is_trained


def test_gaussian_values_need_no_scale(blobs):
    """They are neither clipped on the way in nor on the way out."""
    blobs.X = 10 * blobs.X - 20
    model = trained(blobs, epochs=40, scaling="none", likelihood="gaussian")
    x = torch.from_numpy(blobs.X)
    torch.testing.assert_close(model.module.scale(x), x)
    torch.testing.assert_close(model.module.unscale(x), x)
    new = model.generate(2000)
    assert np.abs(new.X.mean(0) - blobs.X.mean(0)).max() < 2
    assert new.X.min() < -5
    assert new.X.max() > 10


def test_a_constant_marker_needs_no_scale(blobs):
    blobs.X /= blobs.X.max()
    blobs.X[:, 3] = 0.25
    assert len(trained(blobs, scaling="none").predict()) == 600
    for scaling in ("quantile", "minmax"):
        with pytest.raises(ValueError, match="Constant in all cells: 'CD19'"):
            trained(blobs, scaling=scaling)


# ----------------------------------------------------------------------------------------
# batch normalisation


def test_running_statistics_decide_afterwards(blobs):
    model = trained(blobs, epochs=3, batch_norm=True)
    statistics = {k: v.clone() for k, v in model.module.state_dict().items() if "running" in k}
    assert len(statistics) == 4
    shifted = AnnData(blobs.X[blobs.obs["population"] == "B"].copy(), var=blobs.var)
    alone = model.get_latent_representation(shifted)
    among = model.get_latent_representation()[blobs.obs["population"] == "B"]
    np.testing.assert_allclose(alone, among, atol=1e-5)
    for name, before in statistics.items():
        assert torch.equal(model.module.state_dict()[name], before)
        assert not torch.allclose(before, torch.full_like(before, float("var" in name)))


@pytest.mark.parametrize("split", [{}, {"train_size": 33 / 65, "check_val_every_n_epoch": 1}])
def test_last_batch_of_one_cell(blobs, split):
    """65 cells or 33 train in batches of 32, 32 or 1 are left for the last one."""
    model = trained(
        blobs[:65].copy(),
        3,
        similarity=Threshold(use_rep="X", distance=5),
        batch_norm=True,
        train={"batch_size": 32, **split},
    )
    assert np.isfinite(model.history["loss_train"].to_numpy(float)).all()
    assert np.isfinite(model.get_latent_representation()).all()


def test_a_batch_of_one_cell_has_no_statistics(blobs):
    module = build(blobs, batch_norm=True).module.train()
    x = torch.from_numpy(blobs.X)
    module.inference(x)
    before = {k: v.clone() for k, v in module.state_dict().items() if "running" in k}
    assert module.inference(x[:1])["z"].isfinite().all()
    for name, value in before.items():
        assert torch.equal(module.state_dict()[name], value)


# ----------------------------------------------------------------------------------------
# how long, and how fast


@pytest.mark.parametrize(
    ("batch_size", "max_steps"), [(256, 1), (256, 7), (200, 7), (600, 5), (1000, 3), (599, 4)]
)
def test_steps(blobs, batch_size, max_steps):
    """600 cells in batches of 256: two full ones, the rest is left out."""
    model = build(blobs)
    model.train(max_steps=max_steps, batch_size=batch_size, **QUIET)
    assert model.trainer.global_step == max_steps
    assert np.isfinite(model.history["loss_train"].to_numpy(float)).all()
    assert len(model.predict()) == 600


def test_steps_of_a_part_of_the_cells(blobs):
    model = build(blobs)
    model.train(max_steps=5, batch_size=100, train_size=0.25, **QUIET)
    assert model.trainer.global_step == 5


def test_rates_of_adam(blobs):
    seen = []
    model = build(blobs)
    model.train(1, plan_kwargs={"lr": 0.05, "betas": (0.5, 0.6)}, **QUIET)
    for group in model.trainer.optimizers[0].param_groups:
        seen.append((group["lr"], group["betas"]))
    assert seen == [(0.05, (0.5, 0.6))]


# ----------------------------------------------------------------------------------------
# a function of the user


def test_a_local_function_guides(blobs, tmp_path):
    """The very function is called, though only its name can be saved."""
    code = blobs.obs["population"].cat.codes.to_numpy()
    asked = []

    def same_population(cells):
        asked.append(len(cells))
        return code[cells][:, None] == code[cells]

    model = trained(blobs, 8, 40, similarity=Custom(same_population), n_hidden=64, seed=1)
    assert asked
    assert model.similarity.function is same_population
    label = model.predict()
    main = [np.bincount(code[label == k]).max() for k in set(label)]
    assert sum(main) / 600 > 0.9
    model.save(str(tmp_path / "m"))
    loaded = MoESimVAE.load(str(tmp_path / "m"), blobs.copy(), accelerator="cpu")
    np.testing.assert_array_equal(loaded.predict(), label)
    with pytest.raises(ValueError, match="is missing"):
        loaded.train(1, **QUIET)
    assert "<locals>" in loaded.similarity.function


# ----------------------------------------------------------------------------------------
# mistakes


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"network": "transformer"}, ValueError, r"`network` must be .*'transformer'"),
        ({"activation": "tanh"}, ValueError, r"`activation` must be .*'tanh'"),
        ({"likelihood": "poisson"}, ValueError, r"`likelihood` must be .*'poisson'"),
        ({"scaling": "z"}, ValueError, r"`scaling` must be .*'z'"),
        ({"means": "fixed"}, ValueError, r"`means` must be .*'fixed'"),
        ({"kl": "none"}, ValueError, r"`kl` must be .*'none'"),
        ({"depict_target": "sqrt"}, ValueError, r"`depict_target` must be .*'sqrt'"),
        ({"code_noise": "x"}, ValueError, r"`code_noise` must be a number or \"learned\".*'x'"),
        ({"network": "conv"}, KeyError, r"image_shape.*scmoe\.io\.from_array"),
        ({"n_experts": 1}, ValueError, "at least 2, or None, got 1"),
    ],
)
def test_mistakes(blobs, kwargs, error, match):
    MoESimVAE.setup_anndata(blobs)
    before = blobs.X.copy(), list(blobs.obs), list(blobs.uns)
    with pytest.raises(error, match=match):
        MoESimVAE(blobs, **kwargs)
    np.testing.assert_array_equal(blobs.X, before[0])
    assert (list(blobs.obs), list(blobs.uns)) == before[1:]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"max_epochs": 3, "max_steps": 3}, "both `max_epochs` and `max_steps`"),
        ({"max_steps": 0}, "`max_steps` must be at least 1, got 0"),
        ({"max_steps": -1}, "`max_steps` must be at least 1, got -1"),
        ({"early_stopping": True}, "validation cells"),
    ],
)
def test_mistakes_in_training(blobs, kwargs, match):
    model = build(blobs)
    with pytest.raises(ValueError, match=match):
        model.train(**kwargs, **QUIET)
    assert not model.is_trained


def test_what_is_no_similarity(blobs):
    for wrong in ("graph", Knn):
        with pytest.raises(ValueError, match=r"`similarity` must be .*scmoe\.similarity"):
            MoESimVAE.setup_anndata(blobs, similarity=wrong)
    assert "_indices" not in blobs.obs
