"""Random changes as a user asks for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.data import levine32_balanced, pbmc_10x
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

import scmoe
from scmoe import _estimate as estimate
from scmoe._core.random import seeded
from scmoe._core.scaling import rescaled
from scmoe._estimate import _augmentation, augmentation
from scmoe.nn import (
    Augments,
    DropoutAugment,
    ImageAugment,
    NeighborAugment,
    PosteriorAugment,
    ThinAugment,
)


def cells(n=50, d=4):
    return np.random.default_rng(0).random((n, d)).astype(np.float32)


def test_none():
    assert augmentation(False, cells(), None, 0) is None


def test_of_images():
    made = augmentation({"rotation": 30, "flip": True}, cells(), (2, 2), 0)
    assert isinstance(made, ImageAugment)
    assert made.amounts == {"rotation": 30, "zoom": 0.1, "shift": 0.1, "flip": True}
    assert augmentation(True, cells(), (2, 2), 0).amounts["rotation"] == 10


def test_of_cells():
    x = cells()
    made = augmentation({"n_neighbors": 3, "share": 1.0}, x, None, 0)
    assert isinstance(made, NeighborAugment)
    assert made.share == 1
    distances = ((x[:, None] - x) ** 2).sum(2)
    expected = distances.argsort(1)[:, 1:4]
    np.testing.assert_array_equal(made.neighbors, expected)
    assert augmentation(True, x, None, 0).neighbors.shape == (50, 15)
    # of few cells all others are neighbours
    assert augmentation(True, x[:5], None, 0).neighbors.shape == (5, 4)


def test_neighbours_of_cells_on_another_scale():
    x = cells()
    values = x * np.float32([1, 1, 1, 1000])
    made = augmentation({"n_neighbors": 3}, x, None, 0, values=values)
    np.testing.assert_array_equal(made.neighbors, augmentation(True, x, None, 0).neighbors[:, :3])
    np.testing.assert_array_equal(made.x, values)


@pytest.mark.parametrize(
    ("augment", "shape", "match"),
    [
        ({"angle": 3}, (2, 2), r"no 'angle'; for images it has 'flip', 'rotation'"),
        ({"rotation": 3}, None, r"no 'rotation'; for cells it has 'n_neighbors', 'share'"),
        ({"share": 2}, None, "share"),
        ({"zoom": 1}, (2, 2), "zoom"),
        ({"n_neighbors": 0}, None, "n_neighbors"),
        ({"n_neighbors": 2.5}, None, "n_neighbors"),
        ("much", None, r"one or more of 'neighbors', 'dropout', 'posterior' "),
        ("thinning", None, r"augmentations of cells\), .*got 'thinning'"),
        ("neighbors", (2, 2), r"augmentations of images\), .*got 'neighbors'"),
        (["dropout", "rotation"], None, "got 'rotation'"),
        ([], None, r"got \[\]"),
        (3, None, "`augment` must be .*got 3"),
        (None, None, "got None"),
        ({"neighbors": {}, "share": 0.2}, None, "got 'share'"),
        ({"neighbors": 0.2}, None, r"`augment\['neighbors'\]` must be a dict of amounts, got 0.2"),
        ({"neighbors": {"rate": 1}}, None, "no 'rate'; it has 'n_neighbors', 'share'"),
        ({"dropout": {"rate": 2}}, None, "`rate` is 2"),
        ({"dropout": {"n_neighbors": 0}}, None, "n_neighbors"),
        ({"dropout": {"n_neighbors": 3}}, (2, 2), "is for markers"),
    ],
)
def test_bad_amounts(augment, shape, match):
    with pytest.raises(ValueError, match=match):
        estimate.augmentation(augment, cells(), shape, 0)


def read(augment, shape=None, **kwargs):
    return augmentation(augment, cells(), shape, 0, **kwargs)


def test_words():
    assert isinstance(read("neighbors"), NeighborAugment)
    assert isinstance(read("affine", (2, 2)), ImageAugment)
    assert isinstance(read("thinning", counts=True), ThinAugment)
    assert read("thinning", counts=True).logged
    assert isinstance(read(["dropout"]), DropoutAugment)
    assert read({"dropout": {"rate": 0.3}}).rate == 0.3
    # markers are those of neighbours; genes and pixels are 0
    assert read("dropout").neighbors.shape == (50, 15)
    assert read({"dropout": {"n_neighbors": 4}}).neighbors.shape == (50, 4)
    assert read("dropout", counts=True).x is None
    assert read("dropout", (2, 2)).x is None


@pytest.mark.parametrize(
    "augment",
    [
        ["neighbors", "dropout"],
        ("neighbors", "dropout"),
        {"neighbors": {"share": 0.2}, "dropout": {}},
    ],
)
def test_changes_follow_each_other_as_they_are_named(augment):
    made = read(augment)
    assert isinstance(made, Augments)
    first, second = made.augments
    assert isinstance(first, NeighborAugment)
    assert isinstance(second, DropoutAugment)
    assert first.share == (0.2 if isinstance(augment, dict) else 0.5)
    assert first.neighbors is second.neighbors


def test_the_network_of_the_copies_is_seeded(monkeypatch):
    monkeypatch.setattr(_augmentation, "N_STEPS", 400)
    x = types()[0]
    before = torch.get_rng_state()
    how = {"posterior": {"variance": 2, "noise": 0.5}}
    first, again = (
        augmentation(how, x, None, 3, accelerator="cpu", progress=False) for _ in range(2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(first, PosteriorAugment)
    assert (first.variance, first.noise) == (2, 0.5)
    other = again.network.state_dict()
    for name, weights in first.network.state_dict().items():
        assert torch.equal(weights, other[name]), name


def test_the_network_is_on_the_scale_of_the_batches(monkeypatch):
    monkeypatch.setattr(_augmentation, "N_STEPS", 400)
    scaled = types()[0]
    values = 100 * scaled + 7
    made = augmentation(
        "posterior", scaled, None, 0, values=values, accelerator="cpu", progress=False
    )
    copies = made(torch.from_numpy(values), torch.arange(len(values))).numpy()
    assert np.corrcoef(copies.ravel(), values.ravel())[0, 1] > 0.9
    assert abs(copies.mean() - values.mean()) < 10


@pytest.mark.parametrize(
    ("augment", "match"),
    [
        ({"posterior": {"variance": -1}}, "`variance` is -1"),
        ({"posterior": {"noise": "much"}}, "`noise` is 'much'"),
    ],
)
def test_amounts_are_refused_before_anything_is_trained(monkeypatch, augment, match):
    monkeypatch.setattr(_augmentation, "train_autoencoder", None)
    with pytest.raises(ValueError, match=match):
        read(augment)


def test_cells_that_have_nothing_in_common(monkeypatch):
    monkeypatch.setattr(_augmentation, "N_STEPS", 100)
    x = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    with pytest.raises(ValueError, match="nothing that markers have in common"):
        augmentation("posterior", x, None, 0, accelerator="cpu", progress=False)


def types(n=300):
    """Cells of three types, 0 to 1."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 3
    x = 0.2 + 0.5 * np.eye(3).repeat(2, 1)[kind] + rng.normal(scale=0.05, size=(n, 6))
    return x.astype(np.float32), kind


# ----------------------------------------------------------------------------------------
# do copies keep their type?


def kept(x, label, change, space=lambda x: x, k=15):
    """Share of copies whose neighbours among the clean cells, but for their own, have their label.

    With no change: leave-one-out.
    """
    copies = x
    if change is not None:
        with seeded(0):
            copies = change(torch.from_numpy(x), torch.arange(len(x))).numpy()
    near = NearestNeighbors(n_neighbors=k + 1).fit(space(x))
    found = near.kneighbors(space(copies), return_distance=False)
    right = 0
    for i, row in enumerate(found):
        names, votes = np.unique(label[row[row != i][:k]], return_counts=True)
        right += names[votes.argmax()] == label[i]
    return right / len(x)


@pytest.fixture(scope="module")
def levine(data_dir):
    """1,400 cells of 14 populations, 32 markers scaled to 0 to 1."""
    if not (data_dir / "levine32_balanced_subset.csv.gz").is_file():
        pytest.skip("levine32_balanced_subset.csv.gz is not in SCMOE_DATA_DIR")
    adata = levine32_balanced()
    adata = adata[adata.obs["population"].notna(), adata.var["kind"] == "mass"].copy()
    scmoe.pp.arcsinh(adata, cofactor=5)
    x = rescaled(np.asarray(adata.X, np.float32), "quantile").astype(np.float32)
    return x, adata.obs["population"].to_numpy().astype(str)


@pytest.fixture(scope="module")
def pbmc(data_dir):
    """1,000 cells of 8 populations: log1p of counts, and a space that knows their totals."""
    if not (data_dir / "scrna" / "pbmc_10x_top2000.h5").is_file():
        pytest.skip("pbmc_10x_top2000.h5 is not in SCMOE_DATA_DIR")
    adata = pbmc_10x()
    some = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:1000])
    counts, label = adata.X[some].toarray(), adata.obs["population"].to_numpy()[some]

    def shares(logged):
        counts = np.expm1(logged)
        return np.log1p(3000 * counts / counts.sum(1, keepdims=True).clip(1))

    logged = np.log1p(counts).astype(np.float32)
    components = PCA(30, random_state=0).fit(shares(logged))
    return logged, label.astype(str), lambda logged: components.transform(shares(logged))


@pytest.mark.parametrize(
    ("gentle", "loss", "strong"),
    [
        ("neighbors", 0.02, {"neighbors": {"n_neighbors": 700, "share": 1.0}}),
        ("dropout", 0.03, {"dropout": {"n_neighbors": 700, "rate": 0.8}}),
        (["neighbors", "dropout"], 0.04, {"dropout": {"n_neighbors": 700, "rate": 0.8}}),
    ],
)
def test_copies_of_cells_keep_their_type(levine, gentle, loss, strong):
    x, label = levine
    clean = kept(x, label, None)
    assert clean > 0.9
    assert kept(x, label, augmentation(gentle, x, None, 0)) > clean - loss
    assert kept(x, label, augmentation(strong, x, None, 0)) < clean - 0.2


@pytest.mark.slow
def test_copies_out_of_a_network_keep_their_type(levine):
    x, label = levine
    clean = kept(x, label, None)
    quiet, strong = {"accelerator": "cpu", "progress": False}, {"posterior": {"variance": 25}}
    assert kept(x, label, augmentation("posterior", x, None, 0, **quiet)) > clean - 0.05
    assert kept(x, label, augmentation(strong, x, None, 0, **quiet)) < clean - 0.2


@pytest.mark.parametrize(
    ("gentle", "loss", "strong", "lost"),
    [
        ("neighbors", 0.02, {"neighbors": {"n_neighbors": 500, "share": 1.0}}, 0.1),
        # a cell is known by few of its counts
        ("thinning", 0.02, {"thinning": {"share": 1.0}}, 0.06),
        ("dropout", 0.03, {"dropout": {"rate": 0.8}}, 0.3),
    ],
)
def test_copies_of_counts_keep_their_type(pbmc, gentle, loss, strong, lost):
    x, label, space = pbmc
    clean = kept(x, label, None, space)
    assert clean > 0.85
    made = [
        augmentation(how, space(x), None, 0, values=x, counts=True) for how in (gentle, strong)
    ]
    assert kept(x, label, made[0], space) > clean - loss
    assert kept(x, label, made[1], space) < clean - lost
