"""Quality floors: what ``tl.cluster`` with every default left alone must reach on real cells.

Unique events in random order; populations of at least 30 cells; labels only score.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from benchmarks.data import levine32_balanced, multicenter, samusik_ramp
from sklearn.metrics import adjusted_rand_score

import scmoe

LEAST = 30


def surface(well: str) -> ad.AnnData:
    adata = scmoe.datasets.bodenmiller(well)
    return adata[:, adata.var["surface"]].copy()


def plate(folder) -> ad.AnnData:
    scmoe.datasets.simulate_plate(folder, n_wells=4, n_cells=6000, random_state=0)
    adata = scmoe.io.read_fcs(folder, progress=False)
    scmoe.datasets.population_labels(adata)
    return adata


SETS = {
    "H05": (lambda _: surface("H05"), 0.97, 0.82),
    "H08": (lambda _: surface("H08"), 0.98, 0.95),
    "RAMP": (lambda _: samusik_ramp(), 0.92, 0.80),
    "Levine 32": (lambda _: levine32_balanced(), 0.88, 0.83),
    "multicentre": (lambda _: multicenter(1), 0.985, 0.98),
    "plate": (lambda tmp_path: plate(tmp_path / "plate"), 0.90, 0.75),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_scores(name, data_dir, tmp_path):
    """Weighted F and mean F1 of the labels of the model, above every peer's on most sets."""
    load, weighted_f, mean_f1 = SETS[name]
    adata = load(tmp_path)
    scmoe.pp.arcsinh(adata, cofactor=5)
    adata = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    scmoe.tl.cluster(adata, random_state=1, progress=False)
    truth, found = adata.obs["population"], adata.obs["scmoe"]
    assert scmoe.metrics.weighted_f(truth, found, min_size=LEAST) >= weighted_f
    assert scmoe.metrics.mean_f1(truth, found, min_size=LEAST) >= mean_f1


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [None, 8])
def test_images(data_dir, n_clusters):
    """Digits by their pixels, also where there are more groups than experts."""
    adata = scmoe.datasets.mnist("test")
    adata = adata[np.random.default_rng(1).permutation(adata.n_obs)[:4000]].copy()
    scmoe.tl.cluster(adata, n_clusters=n_clusters, random_state=1, progress=False)
    assert scmoe.metrics.accuracy(adata.obs["label"], adata.obs["scmoe"]) > 0.7


@pytest.mark.slow
def test_order_and_seed(data_dir):
    """Another order of the cells and another seed give nearly the same labels."""
    adata = surface("H08")
    scmoe.pp.arcsinh(adata, cofactor=5)
    labels = []
    for seed in (0, 1):
        order = np.random.default_rng(seed).permutation(adata.n_obs)
        cells = ad.AnnData(adata.X[order])
        scmoe.tl.cluster(cells, random_state=seed, progress=False)
        labels.append(cells.obs["scmoe"].to_numpy().astype(str)[order.argsort()])
    assert adjusted_rand_score(*labels) > 0.97


@pytest.mark.parametrize("integers", [False, True])
def test_one_population_is_one_cluster(integers):
    rng = np.random.default_rng(0)
    x = rng.normal(2, 1, (2000, 10))
    if integers:
        x = np.arcsinh(rng.poisson(rng.gamma(2, 4, (2000, 10))) / 5)
    adata = ad.AnnData(x.astype(np.float32))
    with pytest.warns(UserWarning, match="one cluster"):
        scmoe.tl.cluster(adata, progress=False)
    assert adata.obs["scmoe"].nunique() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "train", "weighted_f", "mean_f1"),
    [
        (
            "moe-vae",
            {"max_epochs": 40, "pretrain_kwargs": {"max_epochs": 40, "manager_epochs": 40}},
            0.9,
            0.6,
        ),
        ("cpl-mixvae", {"max_epochs": 60}, 0.7, 0.4),
    ],
)
def test_other_models(data_dir, model, train, weighted_f, mean_f1):
    """A part of a well, in few epochs."""
    adata = surface("H05")
    scmoe.pp.arcsinh(adata, cofactor=5)
    adata = adata[np.random.default_rng(3).permutation(adata.n_obs)[:4000]].copy()
    scmoe.tl.cluster(adata, model=model, random_state=1, progress=False, train_kwargs=train)
    truth, found = adata.obs["population"], adata.obs["scmoe"]
    assert scmoe.metrics.weighted_f(truth, found, min_size=LEAST) >= weighted_f
    assert scmoe.metrics.mean_f1(truth, found, min_size=LEAST) >= mean_f1
