"""MoE-Sim-VAE that finds its number of experts and its latent size itself."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from scipy import sparse
from sklearn.neighbors import kneighbors_graph

import scmoe
from scmoe._core.files import checksum
from scmoe._core.rows import Rows
from scmoe.metrics import accuracy
from scmoe.model import ModelFileError, MoESimVAE, read_trained
from scmoe.model._estimates import check_number, read_settings
from scmoe.model._predict import PREDICTIONS, predict_cells
from scmoe.similarity import Blend, CoAssociation, DensityTree, Knn, Prior

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
QUICK = {"max_epochs": 60, "n_samples": 3, "resolutions": [0.05, 0.2, 0.5, 1.0]}
"""Of the estimates."""


@pytest.fixture(autouse=True)
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    """Of the autoencoder, so that few epochs teach it enough."""
    schedule = scmoe.model._estimates.Schedule

    def hasty(max_epochs, **kwargs):
        return schedule(max_epochs, **{**kwargs, "batch_size": 50, "lr": 5e-3})

    monkeypatch.setattr("scmoe.model._estimates.Schedule", hasty)


def build(adata, n_experts="auto", *, seed=0, similarity=None, **kwargs):
    scvi.settings.seed = seed
    similarity = similarity or CoAssociation(resolutions=(0.2, 1.0))
    MoESimVAE.setup_anndata(adata, similarity=similarity)
    return MoESimVAE(adata, n_experts, **{"n_latent": "auto", "n_hidden": 16, **kwargs})


def train(model, epochs=3, estimates=QUICK, **kwargs):
    model.train(epochs, estimate_kwargs=estimates, **{**QUIET, **kwargs})
    return model


@pytest.fixture(scope="module")
def linked_few(linked_once):
    """Every third cell of the four large populations, with a graph among them."""
    few = linked_once[linked_once.obs["population"] != "pDC"][::3].copy()
    graph = kneighbors_graph(few.X, 10)
    few.obsp["connectivities"] = sparse.csr_matrix(graph.maximum(graph.T), dtype=np.float32)
    return few


@pytest.fixture
def few(linked_few):
    return linked_few.copy()


# ----------------------------------------------------------------------------------------
# what is estimated


def test_both_numbers(few):
    model = build(few)
    assert model.module is None
    assert model.settings.n_experts == model.settings.n_latent == "auto"
    train(model, 150)
    n_experts, n_latent = model.module.n_experts, model.module.means.shape[1]
    assert model.settings.n_experts == n_experts == 4
    assert model.settings.n_latent == n_latent
    assert 2 <= n_latent <= 5
    assert set(model.estimates_) == {"n_clusters", "n_latent"}
    assert model.estimates_["n_clusters"]["n_clusters"] == n_experts
    assert model.estimates_["n_clusters"]["method"] == "stability"
    assert model.estimates_["n_clusters"]["settings"]["n_samples"] == 3
    assert list(model.estimates_["n_clusters"]["table"]["resolution"]) == QUICK["resolutions"]
    assert model.estimates_["n_latent"]["n_latent"] == n_latent
    assert len(model.estimates_["n_latent"]["explained"]) == 8
    assert model.cluster_names_ == [str(k) for k in range(4)]
    assert model.predict_proba().shape == (190, 4)
    assert accuracy(few.obs["population"], model.predict()) > 0.9


@pytest.mark.parametrize(
    ("n_experts", "n_latent", "estimated"),
    [("auto", 3, "n_clusters"), (6, "auto", "n_latent")],
)
def test_one_number(few, n_experts, n_latent, estimated):
    model = train(build(few, n_experts, n_latent=n_latent), 1)
    assert set(model.estimates_) == {estimated}
    if estimated == "n_clusters":
        assert model.module.means.shape == (4, 3)
    else:
        assert model.module.n_experts == 6


def test_nothing_to_estimate(few):
    model = train(build(few, 4, n_latent=2), 1)
    assert model.estimates_ == {}


def test_training_goes_on_with_what_was_found(few, monkeypatch):
    model = train(build(few, n_latent=3), 1)
    evidence = model.estimates_
    monkeypatch.setattr("scmoe.model._moesimvae.estimate_n_clusters", lambda *a, **k: 1 / 0)
    train(model, 2)
    assert model.estimates_ is evidence
    assert len(model.history["loss_train"]) == 3


@pytest.mark.slow
def test_seeds(few):
    first, second = (train(build(few.copy(), seed=3), 2) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(), second.predict_proba())
    pd.testing.assert_frame_equal(
        first.estimates_["n_clusters"]["table"], second.estimates_["n_clusters"]["table"]
    )
    np.testing.assert_array_equal(
        first.estimates_["n_latent"]["explained"], second.estimates_["n_latent"]["explained"]
    )
    other = train(build(few.copy(), seed=4), 2)
    codes = [model.get_latent_representation() for model in (first, second, other)]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


# ----------------------------------------------------------------------------------------
# what is looked at


@pytest.fixture
def looked_at(monkeypatch):
    """Values and graphs that the number of clusters is estimated from."""
    from scmoe._estimate import _n_clusters

    seen, find = [], _n_clusters.find_n_clusters

    def spy(codes, graph, *args, **kwargs):
        seen.append((codes, graph))
        return find(codes, graph, *args, **kwargs)

    monkeypatch.setattr(_n_clusters, "find_n_clusters", spy)
    return seen


def two_halves(n):
    """A graph in which the first half of the cells knows the second half not."""
    same = np.arange(n)[:, None] // (n // 2) == np.arange(n) // (n // 2)
    near = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) < 20
    return sparse.csr_matrix(same & near & ~np.eye(n, dtype=bool), dtype=np.float32)


@pytest.mark.parametrize("blended", [False, True])
def test_the_graph_that_the_similarity_names(few, looked_at, blended):
    few.obsp["halves"] = two_halves(190)
    few.uns["of_halves"] = {"connectivities_key": "halves"}
    similarity = CoAssociation(resolutions=(0.2, 1.0), neighbors_key="of_halves")
    if blended:
        similarity = Blend(Knn(use_rep="X"), similarity)
    model = build(few, similarity=similarity, n_latent=2)
    train(model, 1, {**QUICK, "resolutions": [0.05]})
    codes, graph = looked_at[-1]
    assert codes is None
    assert (graph != few.obsp["halves"]).nnz == 0
    assert model.module.n_experts == 2


def test_a_graph_that_is_not_there(few):
    del few.obsp["connectivities"]
    model = build(few, n_latent=2)
    with pytest.raises(KeyError, match="neighbors"):
        train(model)
    assert model.module is None


def test_values_where_the_similarity_needs_no_graph(few, looked_at):
    del few.obsp["connectivities"]
    how = {**QUICK, "method": "stability"}
    model = train(build(few, similarity=Knn(use_rep="X"), n_latent=2), 1, how)
    codes, _ = looked_at[-1]
    low, high = np.quantile(few.X, [0.001, 0.999], axis=0)
    np.testing.assert_allclose(codes, (few.X - low) / (high - low), rtol=1e-4, atol=1e-5)
    assert model.module.n_experts == 4


def test_the_tree_is_the_default_of_markers(few, looked_at):
    """As they are: what scales them would move its nodes."""
    model = train(build(few, similarity=Knn(use_rep="X"), n_latent=2), 1, {})
    codes, graph = looked_at[-1]
    np.testing.assert_array_equal(codes, few.X)
    assert graph is None
    assert model.estimates_["n_clusters"]["method"] == "tree"
    assert model.module.n_experts == 4
    components = build(few, similarity=Knn(use_rep="X"), n_latent=2, scaling="common")
    train(components, 1, {})
    assert components.estimates_["n_clusters"]["method"] == "stability"


def test_the_tree_of_the_similarity_knows_its_number(few, looked_at):
    model = train(build(few, similarity=DensityTree(), n_latent=2), 1, {})
    assert not looked_at
    assert model.module.n_experts == model.tree.n_clusters == 4
    record = model.estimates_["n_clusters"]
    assert record["method"] == "tree"
    assert record["n_clusters"] == 4
    assert record["settings"] == {"significance": 3.5}
    assert record["table"]["n_clusters"].iloc[0] == 4
    assert record["table"]["chosen"].sum() == 1
    coarse = train(build(few, similarity=DensityTree(n_clusters=3), n_latent=2), 1, {})
    assert coarse.module.n_experts == 3


def test_a_tree_of_other_settings_is_grown(few, looked_at):
    model = build(few, similarity=DensityTree(), n_latent=2)
    train(model, 1, {"min_cluster_size": 20})
    assert len(looked_at) == 1
    assert model.estimates_["n_clusters"]["settings"]["min_cluster_size"] == 20


def test_a_tree_of_one_leaf():
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    model = build(AnnData(x), similarity=DensityTree(), n_latent=2)
    with pytest.raises(ValueError, match="Only one cluster was found by method 'tree'"):
        train(model, 1, {})
    assert model.module is None
    assert model.estimates_ == {}


def test_another_method_looks_at_values_not_at_the_graph(few, looked_at):
    how = {"method": "density", "n_neighbors": 10, "min_cluster_size": 8, "evidence": []}
    model = train(build(few, n_latent=2), 1, how)
    codes, graph = looked_at[-1]
    assert codes.shape == (190, 8)
    assert graph is None
    assert model.estimates_["n_clusters"]["method"] == "density"
    assert model.estimates_["n_clusters"]["settings"]["n_neighbors"] == 10
    assert model.module.n_experts == 4


@pytest.mark.parametrize(("likelihood", "expected"), [(None, "bernoulli"), ("gaussian",) * 2])
def test_images_are_of_their_own_likelihood(monkeypatch, likelihood, expected):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(30, 5, 4)).astype(np.float32)
    images[:, 0] = 0
    if likelihood == "gaussian":
        images *= 3
    adata = scmoe.io.from_array(images)
    seen = {}

    def estimate(scaled, architecture, **kwargs):
        seen["scaled"], seen["architecture"] = scaled, architecture
        return 2, {"n_latent": 2}

    monkeypatch.setattr("scmoe.model._moesimvae.estimate_latent_dim", estimate)
    kwargs = {} if likelihood is None else {"likelihood": likelihood}
    train(build(adata, 2, similarity=Knn(use_rep="X"), **kwargs), 1)
    assert seen["architecture"].likelihood == expected
    np.testing.assert_allclose(seen["scaled"], adata.X)


def test_the_autoencoder_is_wide_enough(few, monkeypatch):
    seen = []

    def estimate(scaled, architecture, **kwargs):
        seen.append((architecture, kwargs))
        return 2, {"n_latent": 2}

    monkeypatch.setattr("scmoe.model._moesimvae.estimate_latent_dim", estimate)
    train(build(few, 4), 1, {"threshold": 0.7, "max_epochs": 9})
    architecture, kwargs = seen[0]
    assert architecture.n_hidden == 128
    assert architecture.likelihood == "gaussian"
    assert kwargs["threshold"] == 0.7
    assert kwargs["max_epochs"] == 9
    assert not kwargs["progress"]


# ----------------------------------------------------------------------------------------
# files


def test_there_and_back(few, tmp_path):
    model = train(build(few), 3)
    model.save(tmp_path / "m")
    again = MoESimVAE.load(tmp_path / "m", few.copy(), accelerator="cpu")
    np.testing.assert_array_equal(again.predict_proba(), model.predict_proba())
    np.testing.assert_array_equal(again.generate(9).X, model.generate(9).X)
    assert again.settings == model.settings
    assert again.init_params_ == model.init_params_
    assert again.init_params_["non_kwargs"]["n_latent"] == "auto"
    assert again.init_params_["non_kwargs"]["n_experts"] == "auto"
    assert again.estimates_.keys() == model.estimates_.keys()
    for name, record in model.estimates_.items():
        for key, value in record.items():
            if isinstance(value, pd.DataFrame):
                pd.testing.assert_frame_equal(again.estimates_[name][key], value)
            else:
                np.testing.assert_array_equal(again.estimates_[name][key], value)
    trained, _ = read_trained(tmp_path / "m")
    proba = predict_cells(trained.module, Rows(few.X), PREDICTIONS)["proba"]
    np.testing.assert_allclose(proba, model.predict_proba(), atol=1e-6)
    for twin in (model, again):
        torch.manual_seed(5)
        twin.train(1, **QUIET)
    np.testing.assert_array_equal(again.predict_proba(), model.predict_proba())


def test_names_of_classes_come_back(few, tmp_path):
    few.obsm["prior"] = pd.DataFrame(
        {name: (few.obs["population"] == name).astype(float) for name in ("B", "NK")},
        index=few.obs_names,
    )
    prior = Prior(use_rep="prior", train_on="all")
    similarity = Blend(prior, CoAssociation(resolutions=(0.2, 1.0)))
    model = train(build(few, similarity=similarity, n_latent=2), 100)
    assert model.cluster_names_[:2] == ["B", "NK"]
    model.save(tmp_path / "m")
    again = MoESimVAE.load(tmp_path / "m", few.copy(), accelerator="cpu")
    assert again.cluster_names_ == model.cluster_names_
    np.testing.assert_array_equal(again.predict(), model.predict())


def test_before_it_is_trained(few, tmp_path, capsys):
    model = build(few)
    repr(model)
    assert "n_experts='auto', n_latent='auto'" in capsys.readouterr().out
    for name in ("predict", "predict_proba", "get_latent_representation", "outlier_score"):
        with pytest.raises(RuntimeError, match="untrained model"):
            getattr(model, name)()
    with pytest.raises(RuntimeError, match="untrained model"):
        model.generate(3)
    with pytest.raises(ValueError, match="has numbers to estimate and no networks yet"):
        model.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_file_without_numbers(few, tmp_path):
    """Whose settings are still to be estimated can hold no weights."""
    model = train(build(few), 1)
    model.save(tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    content = json.loads(path.read_text())
    content["attributes"]["module_settings_"]["n_experts"] = "auto"
    rest = {k: v for k, v in content.items() if k not in ("schema", "schema_version", "sha256")}
    path.write_text(json.dumps({**content, "sha256": checksum(rest)}))
    with pytest.raises(ModelFileError, match=r"settings .*are damaged"):
        MoESimVAE.load(tmp_path / "m", few.copy(), accelerator="cpu")
    with pytest.raises(ModelFileError, match=r"settings .*are damaged"):
        read_trained(tmp_path / "m")


# ----------------------------------------------------------------------------------------
# failures, and trainings that were killed


class Fails(Callback):
    def __init__(self, epoch=1):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("the plug was pulled")


@pytest.mark.parametrize("step", ["estimate_latent_dim", "estimate_n_clusters"])
def test_an_interrupt_while_estimating(few, monkeypatch, step):
    model = build(few)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"scmoe.model._moesimvae.{step}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(model)
    assert model.module is None
    assert model.estimates_ == {}
    assert model.settings.n_experts == "auto"
    train(model, 1)
    assert model.module.n_experts == 4


# ----------------------------------------------------------------------------------------
# what can't be


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"n_sample": 3}, "`method='stability'` has no 'n_sample'; it has min_cluster_size"),
        ({"method": "density", "share": 0.5}, "`method='density'` has no 'share'"),
        ({"method": "elbow"}, "`method` must be one of"),
        ({"threshold": 2}, "`threshold` must be above 0 and at most 1"),
        ({"threshold": "much"}, "`threshold` must be a number"),
        ({"seed": 3}, "has no 'seed'"),
        ({"graph": 3}, "has no 'graph'"),
        ({"max_epochs": 0}, "`max_epochs` must be"),
        ({"share": 2}, "`share` must be between 0 and 1"),
    ],
)
def test_settings_of_the_estimates(few, how, match, monkeypatch):
    model = build(few)
    if "share" not in match:
        monkeypatch.setattr("scmoe.model._estimates.train_autoencoder", lambda *a, **k: 1 / 0)
    with pytest.raises(ValueError, match=match):
        train(model, 1, {**({} if "max_epochs" in how else {"max_epochs": 30}), **how})
    assert model.module is None


def test_settings_of_the_estimates_where_nothing_is_estimated(few):
    model = build(few, 3, n_latent=2)
    with pytest.raises(ValueError, match="`method` must be one of"):
        train(model, 1, {"method": "elbow"})


def test_settings_are_told_apart():
    given = {"threshold": 0.8, "max_epochs": 3, "share": 0.5}
    of_latent, of_clusters = read_settings(given, "stability")
    assert of_latent == {"threshold": 0.8, "max_epochs": 3}
    assert of_clusters == {"method": "stability", "share": 0.5}
    given = {"method": "santos", "min_dist": 0.2}
    assert read_settings(given, "stability") == ({}, given)
    assert given == {"method": "santos", "min_dist": 0.2}


def test_no_groups_at_all():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4)).astype(np.float32)
    model = build(AnnData(x), similarity=Knn(use_rep="X"), n_latent=2)
    how = {"method": "stability", "resolutions": [0.01], "n_samples": 2}
    with pytest.raises(ValueError, match="cluster was found by method 'stability'"):
        train(model, 1, how)
    assert model.module is None


def test_markers_that_have_nothing_in_common():
    x = np.random.default_rng(0).uniform(size=(600, 6)).astype(np.float32)
    model = build(AnnData(x), 3, similarity=Knn(use_rep="X"))
    with pytest.raises(ValueError, match="nothing that markers have in common"):
        train(model, 1, {"max_epochs": 4})
    assert model.module is None


def test_few_cells(few):
    model = build(few[:9].copy(), similarity=Knn(use_rep="X"), n_latent=2)
    with pytest.raises(ValueError, match="can't be estimated from 9 cells"):
        train(model, 1, {})


@pytest.mark.parametrize("value", ["many", "AUTO", 1, 2.0, True, np.array([2, 3]), [2]])
def test_numbers_that_are_none(few, value):
    with pytest.raises(ValueError, match='`n_experts` must be "auto" or a whole number'):
        build(few, value)
    with pytest.raises(ValueError, match='`n` must be "auto" or a whole number'):
        check_number("n", value, 2)


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(9), "auto", np.str_("auto")])
def test_numbers(value):
    check_number("n", value, 2)
