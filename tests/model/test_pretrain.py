"""Which codes, cells and labels the steps of pretraining look at."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from scmoe._estimate import Architecture, Schedule
from scmoe._estimate._clusters import Found
from scmoe.model import _moevae_pretraining
from scmoe.model._moevae_pretraining import known_clusters, pretrain, teach_manager

# of a cluster that needs many dimensions, of one that needs one, of a single cell, and noise
LABELS = np.repeat([0, 1, 2, -1], [100, 99, 1, 100])


def found(labels=LABELS):
    k = labels.max() + 1
    proba = np.random.default_rng(1).dirichlet(np.ones(k), len(labels)).astype(np.float32)
    return Found("density", labels, proba, pd.DataFrame(), {})


def codes_of(network, scaled):
    """Codes of the large VAE by cluster; those of all others vary along one dimension."""
    rng = np.random.default_rng(0)
    codes = np.zeros((300, network.size), np.float32)
    codes[:, 0] = rng.normal(size=300)
    if network.size == 6:
        codes[:100] = 0.3 * rng.normal(size=(100, 6))
        codes[100:200, 1] = 20
        codes[200:, :3] = 20 * rng.normal(size=(100, 3))
    return codes


@pytest.fixture
def steps(monkeypatch):
    """Nothing is trained; what was asked for is noted."""
    trained = []

    def train_autoencoder(scaled, n_latent, architecture, schedule, **kwargs):
        trained.append((n_latent, kwargs["seed"], kwargs["augment"]))
        return SimpleNamespace(size=n_latent, n_latents=(n_latent,)), None

    monkeypatch.setattr(_moevae_pretraining, "train_autoencoder", train_autoencoder)
    monkeypatch.setattr(_moevae_pretraining, "encode", codes_of)
    monkeypatch.setattr(_moevae_pretraining, "find_clusters", lambda points, **_: found())
    return trained


def run(**kwargs):
    settings = {
        "n_experts": None,
        "n_latents": None,
        "threshold": 0.9,
        "space": "codes",
        "method": "density",
        "settings": {},
        "augment": None,
        "seed": 7,
        "progress": False,
    }
    values = np.ones((300, 6), np.float32)
    scaled = np.zeros((300, 6), np.float32)
    return pretrain(values, scaled, Architecture(6), Schedule(1), **{**settings, **kwargs})


def test_sizes_of_experts_come_from_the_large_vae(steps):
    changes = object()
    done = run(augment=changes)
    assert steps == [(6, 7, changes), (3, 7, changes)]
    assert done.latent.n_latent == 3
    # no more than all cells need, at least 2, and of a single cell that of all
    assert [of.n_latent for of in done.of_clusters] == [6, 1, 3]
    assert done.n_latents == (3, 2, 3)
    np.testing.assert_array_equal(done.codes, codes_of(done.shared, None))
    table = done.evidence["experts"]
    assert list(table["n_cells"]) == [100, 99, 1]
    assert list(table["needed"]) == [6, 1, 3]


@pytest.mark.parametrize(("given", "sizes"), [([4], (4, 4, 4)), ([1, 5, 2], (1, 5, 2))])
def test_sizes_that_are_given_need_one_vae(steps, given, sizes):
    done = run(n_latents=given)
    assert [n for n, _, _ in steps] == [max(given)]
    assert done.n_latents == sizes
    assert done.latent is done.of_clusters is None


@pytest.mark.parametrize("space", ["values", "codes", "decoded"])
def test_where_clusters_are_sought(steps, monkeypatch, space):
    seen = []
    monkeypatch.setattr(_moevae_pretraining, "decode", lambda network, codes: codes + 5)
    monkeypatch.setattr(
        _moevae_pretraining, "find_clusters", lambda points, **_: seen.append(points) or found()
    )
    done = run(space=space)
    (points,) = seen
    expected = {"values": np.ones((300, 6)), "codes": done.codes, "decoded": done.codes + 5}
    np.testing.assert_array_equal(points, expected[space])


def test_a_tree_is_cut_at_a_known_number(caplog):
    rng = np.random.default_rng(1)
    x = 9 * np.eye(3)[np.repeat([0, 1, 2], [80, 60, 40])] + rng.normal(size=(180, 3))
    of = {"seed": 0, "progress": False, "settings": {}}
    two = known_clusters(x, 2, "tree", **of)
    assert (two.method, two.n_clusters) == ("tree", 2)
    assert not caplog.records
    with caplog.at_level("WARNING", logger="scmoe"):
        four = known_clusters(x, 4, "tree", **of)
    assert (four.method, four.n_clusters) == ("mixture", 4)
    assert "no more than 3 populations, not 4" in caplog.text
    assert known_clusters(x, 2, "stability", **of).method == "mixture"


def test_the_manager_learns_soft_labels_of_all_but_noise(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        _moevae_pretraining, "fit", lambda module, data, **kwargs: seen.update(data, **kwargs)
    )
    labels = np.roll(LABELS, 50)
    clusters, x = found(labels), np.random.default_rng(0).random((300, 6))
    changes = object()
    schedule = Schedule(3, batch_size=20, lr=0.5)
    teach_manager(nn.Linear(1, 1), x, clusters, schedule, augment=changes, seed=0, progress=False)
    clear = labels >= 0
    assert seen["x"].dtype == torch.float32
    np.testing.assert_array_equal(seen["x"], x[clear].astype(np.float32))
    np.testing.assert_array_equal(seen["target"], clusters.proba[clear])
    # among all cells, by which neighbours are known
    np.testing.assert_array_equal(seen["index"], np.flatnonzero(clear))
    assert (seen["max_epochs"], seen["batch_size"], seen["lr"]) == (3, 20, 0.5)
    assert seen["augment"] is changes


def test_what_the_manager_draws_follows_the_seed(monkeypatch):
    monkeypatch.setattr(_moevae_pretraining, "fit", lambda *args, **kwargs: torch.rand(3))
    x, of = np.zeros((300, 2), np.float32), Schedule(1)
    first, second, other = (
        teach_manager(nn.Linear(1, 1), x, found(), of, augment=None, seed=seed, progress=False)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_divergence_from_the_soft_labels_by_hand():
    module = nn.Module()
    module.manage = lambda x: x
    p, q = (
        np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]),
        np.array([[0.5, 0.5, 0], [0.2, 0.2, 0.6]]),
    )
    batch = {"x": torch.from_numpy(np.log(p) + 3), "target": torch.from_numpy(q)}
    rows = [np.sum(b[b > 0] * np.log(b[b > 0] / a[b > 0])) for a, b in zip(p, q, strict=True)]
    loss = _moevae_pretraining._Pupil(module).loss(batch)["loss"]
    assert loss.item() == pytest.approx(np.mean(rows))
