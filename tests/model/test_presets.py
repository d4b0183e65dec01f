"""The settings of the papers' experiments, and how a user changes them."""

from __future__ import annotations

import inspect
import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi

import scmoe
from scmoe.model import MoESimVAE, preset
from scmoe.model._presets import _PRESETS
from scmoe.similarity import DensityTree, Knn, Prior, Threshold
from scmoe.tl import cluster, generate

NAMES = sorted(_PRESETS)


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


@pytest.fixture
def ready(blobs):
    """Small images that carry all that a preset may look at."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 0.2, (600, 64)).astype(np.float32)
    for i, code in enumerate(blobs.obs["population"].cat.codes):
        pixels[i, 10 * code : 10 * code + 10] += 0.7
    adata = scmoe.io.from_array(pixels.reshape(-1, 8, 8), obs={"population": blobs.obs.iloc[:, 0]})
    adata.obsm["X_umap"] = blobs.X[:, [0, 3]].copy()
    prior = pd.get_dummies(adata.obs["population"]).astype(np.float32)
    adata.obsm["marker_prior"] = prior
    return adata


SHORT = {"max_steps": 2, "accelerator": "cpu"}
NARROW = {"encoder_channels": (4, 4, 4, 4, 2), "expert_channels": (2, 4, 4, 4)}


# ----------------------------------------------------------------------------------------
# what they say

# experts, batch, code, steps, activation, reconstruction/similarity/KL, rate; supplement B.1-B.4
TABLE = {
    "synthetic": (40, 512, 10, 5_000, "elu", (0.487, 0.487, 0.024), 1e-3),
    "mnist": (10, 128, 68, 20_000, "elu", (0.487, 0.487, 0.024), 1e-4),
    "organs": (7, 256, 20, 20_000, "elu", (1, 0.8, 0.2), 1e-3),
    "cytof": (15, 128, 9, 20_000, "relu", (1, 1, 0), 5e-3),
    "released": (7, 256, 20, 20_000, "elu", (1, 0.8, 0.2), 1e-3),
}
# hidden layers x units of encoder, gate and experts
LAYERS = {
    "synthetic": ((3, 50), (5, 100), (3, 50)),
    "organs": ((1, 100), (1, 100), (1, 100)),
    "cytof": ((3, 20), (5, 9), (3, 20)),
    "released": ((1, 100), (1, 100), (1, 100)),
}


def all_settings(name):
    """Those of a preset, and the model's own where it says nothing."""
    parameters = inspect.signature(MoESimVAE).parameters.values()
    return {p.name: p.default for p in parameters} | preset(name).model_kwargs


def test_every_preset_is_in_the_table():
    assert sorted(TABLE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_supplement(name):
    settings, train = all_settings(name), preset(name).train_kwargs
    weights = tuple(settings[f"{t}_weight"] for t in ("reconstruction", "similarity", "kl"))
    assert TABLE[name] == (
        settings["n_experts"],
        train["batch_size"],
        settings["n_latent"],
        train["max_steps"],
        settings["activation"],
        weights,
        train["plan_kwargs"]["lr"],
    )
    # "cluster" weighs the similarity and DEPICT alike
    assert settings["depict_weight"] == settings["similarity_weight"]
    assert train["plan_kwargs"]["betas"] == (0.9, 0.99)
    assert settings["code_noise"] == 1
    assert settings["gate_dropout"] == (0.0 if name == "released" else 0.5)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_layers_are_those_of_the_supplement(name):
    s = all_settings(name)
    units = s["n_hidden"], s["gate_hidden"] or s["n_hidden"], s["expert_hidden"] or s["n_hidden"]
    layers = s["encoder_layers"], s["gate_layers"], s["expert_layers"]
    assert tuple(zip(layers, units, strict=True)) == LAYERS[name]
    assert s["network"] == "dense"


def test_layers_of_the_digits():
    s = all_settings("mnist")
    assert s["network"] == "conv"
    assert tuple(s["encoder_channels"]) == (64, 128, 128, 64, 8)
    assert s["expert_channels"][0] * 7 * 7 == 392
    assert tuple(s["expert_channels"][1:]) == (128, 64, 32)
    assert (s["gate_layers"], s["gate_hidden"]) == (3, 200)


def test_similarities_are_the_papers():
    assert preset("synthetic").similarity == preset("cytof").similarity == Threshold(distance=2.0)
    assert preset("mnist").similarity == Knn(n_neighbors=10)
    assert preset("organs").similarity == preset("released").similarity == Prior()


def test_released_is_what_the_program_ran():
    settings = all_settings("released")
    assert not settings["batch_norm"]
    assert settings["means"] == "learned"
    assert settings["kl"] == settings["depict_target"] == "released"
    different = {k for k, v in settings.items() if all_settings("organs")[k] != v}
    assert different == {"batch_norm", "gate_dropout", "means", "depict_target"}


def test_a_preset_is_a_copy():
    mine = preset("organs")
    mine.model_kwargs["n_latent"] = 2
    mine.train_kwargs["plan_kwargs"]["lr"] = 7
    for name in ("organs", "released"):
        assert preset(name).model_kwargs["n_latent"] == 20
        assert preset(name).train_kwargs["plan_kwargs"]["lr"] == 1e-3


@pytest.mark.parametrize("name", ["organ", "", "MNIST"])
def test_unknown(name, blobs):
    match = rf"no preset {name!r}.*'cytof', 'mnist', 'organs', 'released', 'synthetic'"
    with pytest.raises(ValueError, match=match):
        preset(name)
    with pytest.raises(ValueError, match=match):
        cluster(blobs, preset=name)
    assert list(blobs.obs) == ["population"]


# ----------------------------------------------------------------------------------------
# they run


@pytest.mark.parametrize("name", NAMES)
def test_trains(ready, name):
    found = preset(name)
    MoESimVAE.setup_anndata(ready, similarity=found.similarity)
    kwargs = found.model_kwargs | ({} if name == "mnist" else {"scaling": "none"})
    model = MoESimVAE(ready, **kwargs)
    train = {**found.train_kwargs, **SHORT, "enable_progress_bar": False}
    model.train(**train)
    assert model.trainer.global_step == 2
    for term in ("loss", "reconstruction", "similarity", "depict", "kl"):
        assert np.isfinite(model.history[f"{term}_train"].to_numpy(float)).all()
    assert len(set(model.cluster_names_)) == found.model_kwargs["n_experts"]
    proba = model.predict_proba()
    np.testing.assert_allclose(model.predict_proba(batch_size=100), proba, atol=1e-5)


@pytest.mark.parametrize("name", ["synthetic", "organs", "cytof", "released"])
def test_one_line_on_markers(blobs, name):
    blobs.obsm["X_umap"] = blobs.X[:, [0, 3]].copy()
    scmoe.pp.marker_prior(blobs, {"T": "CD3", "B": "CD19"})
    cluster(blobs, preset=name, train_kwargs=SHORT, progress=False)
    params = blobs.uns["scmoe"]["params"]
    assert params["preset"] == name
    assert params["n_clusters"] == preset(name).model_kwargs["n_experts"]
    assert params["train_kwargs"]["max_steps"] == 2
    if name in ("organs", "released"):
        assert list(blobs.obsm["scmoe_proba"])[:2] == ["T", "B"]


@pytest.mark.parametrize("name", NAMES)
def test_results_survive_a_file(ready, name, tmp_path):
    """Cells drawn from what was written and read are the same to the last digit."""
    narrow = NARROW if name == "mnist" else {"scaling": "none"}
    cluster(ready, preset=name, model_kwargs=narrow, train_kwargs=SHORT, progress=False)
    expected = generate(ready, 20, random_state=5)
    ready.write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
    loaded = ad.read_h5ad(tmp_path / "cells.h5ad")
    again = generate(loaded, 20, random_state=5)
    np.testing.assert_array_equal(again.X, expected.X)
    pd.testing.assert_frame_equal(again.obs, expected.obs)
    params = loaded.uns["scmoe"]["params"]
    assert scmoe.similarity.Similarity.from_dict(params["similarity"]) == preset(name).similarity
    # and once more
    loaded.write_h5ad(tmp_path / "again.h5ad")


# ----------------------------------------------------------------------------------------
# what the user says comes first


class Asked(Exception):
    """Enough is known."""


@pytest.fixture
def asked(monkeypatch):
    """What the model and its training are asked for."""
    found = {}

    def init(self, adata, n_experts=25, **kwargs):
        found.update(n_experts=n_experts, model=kwargs, similarity=None)

    def train(self, *args, **kwargs):
        found.update(train=kwargs)
        raise Asked

    setup = MoESimVAE.setup_anndata.__func__

    def spy(cls, adata, *, similarity, **kwargs):
        found.update(kind=similarity)
        return setup(cls, adata, similarity=similarity, **kwargs)

    monkeypatch.setattr(MoESimVAE, "__init__", init)
    monkeypatch.setattr(MoESimVAE, "train", train)
    monkeypatch.setattr(MoESimVAE, "setup_anndata", classmethod(spy))

    def ask(adata, **kwargs):
        with pytest.raises(Asked):
            cluster(adata, progress=False, **kwargs)
        return found

    return ask


def test_preset_alone(ready, asked):
    found, expected = asked(ready, preset="mnist"), preset("mnist")
    model_kwargs = dict(expected.model_kwargs)
    assert found["n_experts"] == model_kwargs.pop("n_experts")
    assert found["model"] == model_kwargs
    # the paper's training starts from random weights
    expected = {"enable_progress_bar": False, "start": False, **expected.train_kwargs}
    assert found["train"] == expected
    assert found["kind"] == preset("mnist").similarity


def test_arguments_replace_what_the_preset_says(ready, asked):
    found = asked(
        ready,
        preset="cytof",
        n_clusters=4,
        similarity=Knn(n_neighbors=3),
        model_kwargs={"n_latent": 3, "code_noise": 0.1},
        train_kwargs={"batch_size": 77, "max_steps": 9},
    )
    assert found["n_experts"] == 4
    assert found["kind"] == Knn(n_neighbors=3)
    expected = preset("cytof")
    assert found["model"]["n_latent"] == 3
    assert found["model"]["code_noise"] == 0.1
    assert found["model"]["gate_hidden"] == 9
    assert found["train"]["batch_size"] == 77
    assert found["train"]["max_steps"] == 9
    assert found["train"]["plan_kwargs"] == expected.train_kwargs["plan_kwargs"]


def test_epochs_replace_the_steps_of_a_preset(ready, asked):
    found = asked(ready, preset="organs", train_kwargs={"max_epochs": 3})
    assert found["train"]["max_epochs"] == 3
    assert "max_steps" not in found["train"]
    found = asked(ready, preset="organs", train_kwargs={"max_epochs": None})
    assert found["train"]["max_steps"] == 20_000


@pytest.mark.parametrize("name", [None, "organs"])
def test_epochs_with_steps_are_a_mistake_with_a_preset_too(ready, name):
    before = list(ready.obs), list(ready.obsm), list(ready.uns)
    with pytest.raises(ValueError, match="both `max_epochs` and `max_steps`"):
        cluster(
            ready,
            preset=name,
            n_clusters=8,
            similarity=Knn(),
            progress=False,
            model_kwargs={"scaling": "none"},
            train_kwargs={"max_epochs": 1, "max_steps": 1},
        )
    assert (list(ready.obs), list(ready.obsm), list(ready.uns)) == before


def test_without_a_preset_nothing_is_set(linked, asked):
    found = asked(linked)
    assert found["n_experts"] is None
    assert found["model"] == {}
    assert found["train"] == {"enable_progress_bar": False}
    assert found["kind"] == DensityTree()


def test_a_preset_says_what_it_misses(blobs):
    for name, slot in (("mnist", "image_shape"), ("organs", "marker_prior"), ("cytof", "X_umap")):
        with pytest.raises(KeyError, match=slot):
            cluster(blobs, preset=name, train_kwargs=SHORT, progress=False)
    assert list(blobs.obs) == ["population"]
    assert not blobs.uns


def test_settings_are_plain_though_numpy_computed_them(blobs):
    """Such as the number of populations of another data set."""
    cluster(
        blobs,
        n_clusters=np.int64(4),
        similarity=Knn(use_rep="X"),
        progress=False,
        model_kwargs={
            "n_latent": np.int32(3),
            "kl_weight": np.float32(0.5),
            "batch_norm": np.True_,
        },
        train_kwargs=SHORT,
    )
    settings = json.loads(blobs.uns["scmoe"]["model"]["settings"])
    assert (settings["n_experts"], settings["n_latent"], settings["kl_weight"]) == (4, 3, 0.5)
    assert len(generate(blobs, 3)) == 3
