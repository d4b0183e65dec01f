"""Experts that belong to classes: weak supervision by markers, by labels, by samples."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scvi
from lightning.pytorch.callbacks import Callback
from scvi import REGISTRY_KEYS
from sklearn.metrics import adjusted_rand_score

from scmoe.metrics import accuracy
from scmoe.model import MoESimVAE
from scmoe.pp import marker_prior
from scmoe.similarity import Blend, CoAssociation, Differ, Graph, Labels, Prior, Threshold
from scmoe.train import BATCH_KEYS

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
MARKERS = {"T": "CD3", "B": "CD19", "NK": "CD56", "mono": "CD14", "pDC": "CD123"}


@pytest.fixture(autouse=True, scope="module")
def _seed_is_given_back():
    before = scvi.settings.seed
    yield
    scvi.settings.seed = before


def trained(adata, similarity, n_experts=8, epochs=2, *, train=None, **kwargs):
    scvi.settings.seed = 0
    MoESimVAE.setup_anndata(adata, similarity=similarity)
    model = MoESimVAE(adata, n_experts, **kwargs)
    model.train(epochs, **{**QUIET, **(train or {})})
    return model


def one_hot(adata, classes, names=None):
    """The truth of the cells of some classes, zeros for the others, as a prior."""
    truth = pd.DataFrame({c: adata.obs["population"] == c for c in classes}, dtype=np.float32)
    truth.columns = names or classes
    return truth.set_index(adata.obs_names)


class Cells(Callback):
    """Which cells train, and what is known of them."""

    def __init__(self):
        self.cells, self.keys = [], set()

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        data = trainer.datamodule.data[REGISTRY_KEYS.X_KEY]
        same = (batch[REGISTRY_KEYS.X_KEY][:, None] == data).all(2)
        self.cells.append(same.int().argmax(1).numpy())
        self.keys |= set(batch)

    @property
    def seen(self):
        return np.unique(np.concatenate(self.cells))


# ----------------------------------------------------------------------------------------
# classes and experts


@pytest.fixture(scope="module")
def cells(linked_once):
    marker_prior(linked_once, MARKERS)
    return linked_once


@pytest.fixture(scope="module")
def looks():
    return Cells()


@pytest.fixture(scope="module")
def model(cells, looks):
    return trained(cells, Prior(), epochs=60, train={"callbacks": [looks]})


def test_experts_have_the_names_of_the_classes(model, cells):
    proba = model.predict_proba()
    assert list(proba.columns) == [*MARKERS, "0", "1", "2"]
    assert list(proba.idxmax(axis=1)) == list(model.predict())
    known = np.flatnonzero(cells.obsm["marker_prior"].sum(axis=1) == 1)
    told = cells.obsm["marker_prior"].idxmax(axis=1).to_numpy()
    assert (model.predict() == told)[known].mean() > 0.98


def test_only_certain_cells_train_and_all_are_predicted(model, cells, looks):
    known = np.flatnonzero(cells.obsm["marker_prior"].sum(axis=1) == 1)
    assert 0 < len(known) < cells.n_obs
    assert set(looks.seen) <= set(known)
    assert len(looks.seen) > 0.95 * len(known)
    assert BATCH_KEYS.CLASSES in looks.keys
    assert BATCH_KEYS.SIMILARITY not in looks.keys, "pairs that nobody asks for"
    assert len(model.predict()) == cells.n_obs
    np.testing.assert_array_equal(np.sort(model.train_indices), known)


def test_everybody_trains_if_told_so(cells):
    looks = Cells()
    trained(cells, Prior(train_on="all"), epochs=8, train={"callbacks": [looks]})
    assert len(looks.seen) > 590


def test_split_of_the_certain_cells(cells):
    known = np.flatnonzero(cells.obsm["marker_prior"].sum(axis=1) == 1)
    model = trained(cells, Prior(), 6, train={"train_size": 0.75, "check_val_every_n_epoch": 1})
    n_train = int(np.ceil(0.75 * len(known)))
    assert len(model.train_indices) == n_train
    assert len(model.validation_indices) == len(known) - n_train
    both = np.concatenate([model.train_indices, model.validation_indices])
    np.testing.assert_array_equal(np.sort(both), known)
    assert len(model.test_indices) == cells.n_obs - len(known)
    assert len(model.predict()) == cells.n_obs


def test_classes_keep_their_order_whatever_their_sizes(blobs):
    """From the rarest to the most frequent: by size they would be turned round."""
    order = ["pDC", "mono", "NK", "B", "T"]
    blobs.obsm["marker_prior"] = one_hot(blobs, order)
    model = trained(blobs, Prior(), 9, epochs=60)
    assert model.cluster_names_ == [*order, "0", "1", "2", "3"]
    assert accuracy(blobs.obs["population"], model.predict()) > 0.98
    assert (model.predict() == blobs.obs["population"].astype(str)).mean() > 0.98
    sizes = model.module.size.tolist()
    assert sizes[:5] == sorted(sizes[:5])
    assert sizes[5:] == sorted(sizes[5:], reverse=True)


def test_free_experts_are_numbered_past_the_names_of_classes(blobs):
    blobs.obsm["marker_prior"] = one_hot(blobs, ["T", "B", "NK"], ["0", "2", "NK"])
    model = trained(blobs, Prior(), 6, epochs=40)
    assert model.cluster_names_ == ["0", "2", "NK", "1", "3", "4"]
    label = model.predict()
    assert (label[blobs.obs["population"] == "B"] == "2").all()


def test_listed_classes_are_never_retired(blobs):
    model_of = {"T": 1.0, "B": 1.0, "pDC": 1.0}
    blobs.obsm["marker_prior"] = one_hot(blobs, list(model_of))
    model = trained(blobs, Prior(), 6, epochs=2, min_cells=10_000)
    assert model.module.live.tolist() == [True, True, True, False, False, False]
    proba = model.predict_proba()
    assert (proba[["0", "1", "2"]] == 0).all(axis=None)
    assert set(model.predict()) <= set(model_of)


def test_class_without_cells_cannot_be_drawn(blobs):
    prior = one_hot(blobs, ["T", "B"])
    prior["nobody"] = np.float32(0)
    blobs.obsm["marker_prior"] = prior
    model = trained(blobs, Prior(), 4, epochs=40)
    assert model.cluster_names_[2] == "nobody"
    assert "nobody" not in model.predict()
    with pytest.raises(ValueError, match="No cell belongs to 'nobody'"):
        model.generate(10, ["nobody"])
    new = model.generate(50, ["B"])
    assert set(new.obs["scmoe"]) == {"B"}
    assert (model.predict(new) == "B").mean() > 0.9


def test_fewer_experts_than_classes(blobs):
    blobs.obsm["marker_prior"] = one_hot(blobs, list(MARKERS))
    MoESimVAE.setup_anndata(blobs, similarity=Prior())
    model = MoESimVAE(blobs, 4)
    with pytest.raises(ValueError, match=r"5 classes, more than the 4 experts"):
        model.train(1, **QUIET)
    assert not model.is_trained
    # and as many are enough
    assert trained(blobs, Prior(), 5).cluster_names_ == list(MARKERS)


def test_pairs_of_a_prior_name_nobody(cells):
    looks = Cells()
    model = trained(cells, Prior(mode="pairs"), train={"callbacks": [looks]})
    assert model.cluster_names_ == [str(k) for k in range(8)]
    assert BATCH_KEYS.CLASSES not in looks.keys


def test_saved_model_knows_the_names(model, cells, tmp_path):
    label, proba = model.predict(), model.predict_proba()
    model.save(str(tmp_path / "m"))
    loaded = MoESimVAE.load(str(tmp_path / "m"), cells.copy(), accelerator="cpu")
    assert loaded.cluster_names_ == model.cluster_names_
    pd.testing.assert_frame_equal(loaded.predict_proba(), proba)
    np.testing.assert_array_equal(loaded.predict(), label)
    # also for cells without a prior
    new = cells[::5].copy()
    del new.obsm["marker_prior"]
    np.testing.assert_array_equal(loaded.predict(new), label[::5])
    # and goes on
    loaded.train(1, **QUIET)
    assert loaded.cluster_names_ == model.cluster_names_


def test_same_seed_same_result(cells):
    first, second = (trained(cells, Prior(), epochs=3).predict_proba() for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_classes_follow_the_order_of_the_table(cells):
    """The other way round, the same cells are known and the same names come back."""
    turned = cells.copy()
    marker_prior(turned, dict(reversed(MARKERS.items())))
    model = trained(turned, Prior(), 5, epochs=40)
    assert model.cluster_names_ == list(MARKERS)[::-1]
    known = turned.obsm["marker_prior"].sum(axis=1).to_numpy() == 1
    told = turned.obsm["marker_prior"].idxmax(axis=1).to_numpy()
    assert (model.predict() == told)[known].mean() > 0.95


# ----------------------------------------------------------------------------------------
# tables that are not right, with a graph to help


def blended(adata, markers, epochs=40):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No cell is certain for")
        marker_prior(adata, markers)
    return trained(adata, Blend(Prior(), CoAssociation()), 9, epochs)


def test_blend_trains_on_all_cells(cells):
    looks = Cells()
    similarity = Blend(Prior(), CoAssociation())
    trained(cells, similarity, epochs=20, train={"callbacks": [looks]})
    known = cells.obsm["marker_prior"].sum(axis=1).to_numpy() == 1
    assert len(looks.seen) > 590
    assert not known[looks.seen].all()
    assert {BATCH_KEYS.CLASSES, BATCH_KEYS.SIMILARITY, BATCH_KEYS.CLASS_SHARE} <= looks.keys


@pytest.mark.parametrize("missing", ["NK", "pDC"])
def test_a_population_that_nobody_listed_gets_a_free_expert(linked, missing):
    model = blended(linked, {c: m for c, m in MARKERS.items() if c != missing})
    truth, label = linked.obs["population"].astype(str).to_numpy(), model.predict()
    assert adjusted_rand_score(truth, label) > 0.95
    others = [c for c in MARKERS if c != missing]
    assert model.cluster_names_ == [*others, "0", "1", "2", "3", "4"]
    biggest = [c for c in others if (truth == c).sum() >= 90]
    for name in biggest:
        assert (label[truth == name] == name).mean() > 0.95
    if missing == "pDC":
        free = np.isin(label[truth == missing], ["0", "1", "2", "3", "4"])
        assert free.mean() > 0.9


@pytest.mark.parametrize(
    "wrong",
    [{"NK": "CD14", "mono": "CD56"}, {"NK": "CD45"}, {"mono": "CD8"}],
    ids=["swapped", "on-everybody", "of-others"],
)
def test_wrong_markers_do_not_break_the_clusters(linked, wrong):
    """Names may be wrong then, the populations are not."""
    model = blended(linked, {**MARKERS, **wrong})
    assert adjusted_rand_score(linked.obs["population"], model.predict()) > 0.95
    label, truth = model.predict(), linked.obs["population"]
    for name in set(MARKERS) - {"NK", "mono"}:
        assert (label[truth == name] == name).mean() > 0.9


def test_swapped_markers_swap_the_names(linked):
    model = blended(linked, {**MARKERS, "NK": "CD14", "mono": "CD56"})
    truth = linked.obs["population"]
    assert (model.predict()[truth == "NK"] == "mono").mean() > 0.95


# ----------------------------------------------------------------------------------------
# labels and samples


def hide(adata, share):
    """The labels of some cells only."""
    unknown = np.random.default_rng(7).permutation(adata.n_obs)[: int(share * adata.n_obs)]
    label = adata.obs["population"].astype(object)
    label.iloc[unknown] = np.nan
    adata.obs["labels"] = pd.Categorical(label)
    return unknown


def test_labels_of_some_cells_are_found_in_the_others(blobs):
    unknown = hide(blobs, 0.8)
    model = trained(blobs, Labels("labels"), epochs=60)
    assert model.cluster_names_ == [str(k) for k in range(8)]
    truth = blobs.obs["population"].to_numpy()
    assert adjusted_rand_score(truth[unknown], model.predict()[unknown]) > 0.95


def test_nobody_looks_at_the_labels_that_are_held_out(blobs):
    unknown = hide(blobs, 0.7)
    expected = trained(blobs, Labels("labels"), epochs=15).predict_proba()
    shuffled = np.random.default_rng(1).permutation(unknown)
    truth = blobs.obs["population"].astype(object)
    blobs.obs["population"] = truth
    blobs.obs.loc[blobs.obs_names[unknown], "population"] = truth.iloc[shuffled].to_numpy()
    assert (blobs.obs["population"] != truth).any()
    pd.testing.assert_frame_equal(
        trained(blobs, Labels("labels"), epochs=15).predict_proba(), expected
    )
    # those that are given do count
    given = np.setdiff1d(np.arange(600), unknown)
    label = blobs.obs["labels"].astype(object)
    label.iloc[given] = np.random.default_rng(2).permutation(label.iloc[given])
    blobs.obs["labels"] = label
    changed = trained(blobs, Labels("labels"), epochs=15).predict_proba()
    assert not np.allclose(changed, expected)


@pytest.mark.slow
def test_differ_keeps_samples_apart(linked):
    """Two states of one population, alike but for the sample that they are of."""
    t_cells = np.flatnonzero(linked.obs["population"] == "T")
    sample = np.full(600, "other", dtype=object)
    sample[t_cells] = "healthy"
    sample[t_cells[::2]] = "ill"
    linked.obs["sample"] = sample
    linked.X[t_cells[::2], 2] += 1.0
    alike = Threshold(use_rep="X", distance=2.6)
    apart = Blend(Differ("sample", groups=("healthy", "ill")), alike, weight=0.9)

    def agreement(similarity):
        label = trained(linked, similarity, epochs=60).predict()[t_cells]
        return adjusted_rand_score(sample[t_cells], label)

    assert agreement(alike) < 0.1
    assert agreement(apart) > 0.4


@pytest.mark.parametrize(
    ("similarity", "error", "match"),
    [
        (Prior(use_rep="zeros"), ValueError, r"'zeros'.*no certain cell"),
        (Prior(use_rep="same"), ValueError, r"'same'.*all 600 certain cells the same class"),
        (Prior(use_rep="one"), ValueError, r"'one'.*one column"),
        (Prior(use_rep="none"), KeyError, "'none'"),
        (Labels("constant"), ValueError, r"'constant'.*all labels are 'a'"),
        (Labels("unknown"), ValueError, r"'unknown'.*no cell has a label"),
        (Labels("nobody"), KeyError, "'nobody'"),
        (Differ("constant"), ValueError, "at least two groups"),
        (Differ("population", groups=("T", "plasma")), ValueError, "No cell has 'plasma'"),
        (Blend(Prior(use_rep="truth"), Prior(use_rep="truth")), ValueError, "Both parts"),
        (Blend(Prior(use_rep="zeros"), Graph()), ValueError, "no certain cell"),
    ],
    ids=repr,
)
def test_mistakes(linked, similarity, error, match):
    eye = np.eye(3, dtype=np.float32)
    linked.obsm["zeros"] = np.zeros((600, 3), np.float32)
    linked.obsm["same"] = eye[np.ones(600, int)]
    linked.obsm["one"] = np.ones((600, 1), np.float32)
    linked.obsm["truth"] = one_hot(linked, list(MARKERS))
    linked.obs["constant"] = "a"
    linked.obs["unknown"] = np.nan
    MoESimVAE.setup_anndata(linked, similarity=similarity)
    slots = {name: set(getattr(linked, name)) for name in ("obs", "obsm", "uns")}
    model = MoESimVAE(linked, 8)
    with pytest.raises(error, match=match):
        model.train(1, **QUIET)
    assert not model.is_trained
    assert {name: set(getattr(linked, name)) for name in slots} == slots


def test_a_gene_of_two_classes(blobs):
    with pytest.raises(ValueError, match=r"'CD3' is a marker of 'T' and of 'NK'"):
        marker_prior(blobs, {"T": "CD3", "NK": ["CD3", "CD56"]})
    assert "marker_prior" not in blobs.obsm
