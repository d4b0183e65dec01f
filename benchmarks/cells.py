"""Generated cells: can they be distinguished from real cells?

Half of the cells of a data set are clustered. As many cells as the other half has are drawn from
the clusters, in the proportions of the clusters, and compared with the other half, which the model
has never seen: all together, and cluster by cluster (the model says to which cluster an unseen
cell belongs). No label is used. Beside the model that starts from its groups stands one that is
trained for 2,500 steps from random weights. A seed sets the order of the cells and the split as
well as the random state.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import torch

import scmoe
from benchmarks import cytof
from benchmarks.experiment import attempt, timed
from benchmarks.tables import markdown, measured, spread
from scmoe._core.random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "method", "seed")
SEEDS = 3
SETTINGS: dict = {}

SMALL, MOST = 4_000, 28_000
LEAST = 50
"""Clusters with fewer unseen cells are not compared one by one."""

OURS = "scmoe"
WAYS = {
    OURS: {},
    "scmoe, not calibrated": {"calibrate": False},
    "scmoe, no noise": {"noise": False},
    "scmoe, the paper's: unit prior, gate decides, no noise": {
        "prior": "unit",
        "gate": "network",
        "noise": False,
    },
}
LONG = "scmoe, 2,500 steps from random weights"
METHODS = [*WAYS, LONG, "Gaussian of each cluster", "real cells"]


def gaussians(train: ad.AnnData, label: np.ndarray, n: int, seed: int) -> ad.AnnData:
    """Draw cells from mean and covariance of the markers of each cluster."""
    rng = np.random.default_rng(seed)
    names, counts = np.unique(label, return_counts=True)
    parts = []
    for name, share in zip(names, rng.multinomial(n, counts / counts.sum()), strict=True):
        own = train.X[label == name]
        covariance = np.cov(own.T) if len(own) > own.shape[1] else np.diag(own.var(0))
        covariance += 1e-6 * np.eye(len(covariance))
        parts.append(rng.multivariate_normal(own.mean(0), covariance, share))
    return ad.AnnData(np.concatenate(parts).astype(np.float32), var=train.var.copy())


@torch.no_grad()
def reconstruction_error(model, real: ad.AnnData) -> float:
    """Return the squared error of held-out cells over the variance, mean over the markers."""
    parts = list(model._infer(real, None, None))
    scaled = torch.cat([part["scaled"] for part in parts])
    again = torch.cat(
        [model.module.decode(part["z"], part["expert"], part["batch"]) for part in parts]
    )
    return float(((again - scaled).square().mean(0) / scaled.var(0)).mean())


def measure(real: ad.AnnData, new: ad.AnnData, train: ad.AnnData, model, seed: int) -> dict:
    """Return the report on all cells, and the median over clusters."""
    real.obs["cluster"] = pd.Categorical(model.predict(real))
    new.obs["cluster"] = pd.Categorical(model.predict(new))
    report = scmoe.metrics.generation_report(
        real, new, groupby="cluster", reference=train, n_permutations=200, random_state=seed
    )
    everything = report.loc["all"]
    clusters = report.drop("all")
    clusters = clusters[(clusters["n_real"] >= LEAST) & (clusters["n_generated"] >= LEAST)]
    names = {
        "c2st_auc": "auc",
        "mmd2": "mmd2",
        "marginal_mean": "marginals",
        "correlation": "correlation",
        "nearest_training": "nearest",
        "copies": "copies",
    }
    return {
        **{name: float(everything[column]) for column, name in names.items()},
        "auc_clusters": float(clusters["c2st_auc"].median()),
        "correlation_clusters": float(clusters["correlation"].median()),
        "n_clusters": len(clusters),
    }


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each data set, seed and sampling method."""
    methods = options.choose("methods", METHODS)
    for dataset in options.choose("datasets", cytof.DATASETS):
        x, _ = cytof.load(dataset)
        for seed in options.seeds:
            order = np.random.default_rng(seed).permutation(len(x))[:MOST]
            order = order[:SMALL] if options.size == "small" else order
            half = len(order) // 2
            train, real = (ad.AnnData(x[some]) for some in (order[:half], order[half:]))
            train.obs_names = [f"train-{i}" for i in range(train.n_obs)]

            @functools.cache
            def trained(long: bool, train=train, seed=seed) -> scmoe.model.MoESimVAE:
                how = {"start": False, "max_steps": 2_500} if long else {}
                with seeded(seed):
                    scmoe.model.MoESimVAE.setup_anndata(train)
                    model = scmoe.model.MoESimVAE(train)
                    model.train(enable_progress_bar=False, **how)
                return model

            for method in methods:

                def draw(
                    method=method, trained=trained, train=train, real=real, seed=seed
                ) -> dict:
                    model = trained(method == LONG)
                    if method == "real cells":
                        new, seconds = train.copy(), 0.0
                    elif method == "Gaussian of each cluster":
                        label = model.predict()
                        new, seconds = timed(lambda: gaussians(train, label, real.n_obs, seed))
                    else:
                        how = WAYS.get(method, {})
                        call = functools.partial(
                            model.generate, real.n_obs, random_state=seed, **how
                        )
                        new, seconds = timed(call)
                    found = measure(real, new, train, model, seed)
                    if method in (OURS, LONG):
                        found["reconstruction"] = reconstruction_error(model, real)
                    return {**found, "seconds": seconds}

                identity = dict(zip(KEYS, (dataset, len(order), method, seed), strict=True))
                yield attempt(identity, draw, say)


TEXT = f"""## Generated cells

Half of the cells of a data set train; as many cells are drawn as the other half has and compared
with that half. *AUC*: a classifier that tells real from generated cells, 0.5 if it cannot; for all
cells, and the median over clusters of at least {LEAST} cells. *MMD²*, *marginals* (Wasserstein
distance in standard deviations) and *correlations* (root mean square difference) are 0 for equal
distributions. *Nearest*: distance to the nearest training cell, in units of that of real cells;
*copies*: share that is nearer than nearly all real cells are. *Real cells* are the training cells
themselves: the best that can be had, but for the copies. *Reconstruction*: mean squared error of
unseen cells, as a share of the variance of the markers. See [Metrics](metrics.md).
"""


def section(result: dict) -> str:
    """Return one table for each data set and number of cells."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    columns = ["auc", "auc_clusters", "mmd2", "marginals", "correlation", "nearest", "copies"]
    columns.append("reconstruction")
    table = table.reindex(columns=table.columns.union(columns, sort=False))
    for (dataset, n_cells), rows in table.groupby(["dataset", "n_cells"], sort=False):
        text += f"\n### {dataset}, {n_cells:,} cells\n\n"
        text += markdown(
            [
                "method",
                "AUC",
                "AUC in clusters",
                "MMD²",
                "marginals",
                "correlations",
                "nearest",
                "copies",
                "reconstruction",
                "seeds",
            ],
            (
                [method, *(spread(runs[c], 3) for c in columns), len(runs)]
                for method, runs in sorted(
                    rows.groupby("method"), key=lambda item: METHODS.index(item[0])
                )
            ),
        )
    return text
