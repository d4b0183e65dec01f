"""Synthetic cells: how many components of a Gaussian mixture are recovered.

The paper draws its mixtures in 100 dimensions "with randomly sampled parameters" and no more is
said than that the weights are equal. :func:`mixture` says how they are drawn here.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import scmoe
from benchmarks.experiment import attempt, timed
from benchmarks.tables import markdown, measured, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "n_components", "method", "seed")
SEEDS = 3

N_FEATURES = 100
# 15 neighbours of a cell are nearly always of its component: 99.8 % of them with 40 components
# and 4,000 cells. At 0.5 it is 49 %, and only a fit of the covariances tells them apart.
SEPARATION = 1.0
N_EXPERTS = 40
SPREAD = (0.5, 2.0)

SETTINGS = {"n_features": N_FEATURES, "separation": SEPARATION}

SIZES = {
    "full": (10_000, (2, 5, 10, 15, 20, 23, 25, 30, 40, 50, 70, 100)),
    "small": (4_000, (2, 10, 23, 40)),
}
"""Cells, and numbers of components."""

DATASETS = {"equal weights": None, "random weights": 5.0}
"""Concentration of the Dirichlet distribution of the weights; None for equal ones."""

BIC_GRID = (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 70, 100)
"""Numbers of components that the information criterion may choose from."""


def mixture(
    n_components: int,
    n_cells: int,
    seed: int,
    *,
    n_features: int = N_FEATURES,
    separation: float = SEPARATION,
    concentration: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the parameters of a Gaussian mixture, then cells from it.

    Means are drawn from N(0, ``separation``² I). Each component has a covariance of its own,
    ``Q diag(s²) Qᵀ``: Q a uniformly random rotation, the standard deviations s log-uniform
    between 0.5 and 2. Two means are about ``separation * sqrt(2 * n_features)`` apart. Weights
    are equal, or drawn from a symmetric Dirichlet distribution.

    Parameters
    ----------
    n_components
        Components. Each gets at least one cell.
    n_cells
        Cells.
    seed
        Determines the parameters and the cells.
    n_features
        Dimensions.
    separation
        Standard deviation of the means.
    concentration
        Of the Dirichlet distribution; None for equal weights.

    Returns
    -------
    Cells x features, float32, and the component of each cell, int64, in random order.

    Raises
    ------
    ValueError
        No component, or fewer cells than components.
    """
    if not 1 <= n_components <= n_cells:
        raise ValueError(f"Cannot draw {n_cells} cells from {n_components} components.")
    rng = np.random.default_rng(seed)
    means = rng.normal(scale=separation, size=(n_components, n_features))
    weights = np.full(n_components, 1 / n_components)
    if concentration is not None:
        weights = rng.dirichlet(np.full(n_components, concentration))
    component = np.append(
        np.arange(n_components), rng.choice(n_components, n_cells - n_components, p=weights)
    )
    rng.shuffle(component)
    x = np.empty((n_cells, n_features), dtype=np.float32)
    for k, mean in enumerate(means):
        # the signs make the rotation uniform: QR alone prefers some
        q, r = np.linalg.qr(rng.normal(size=(n_features, n_features)))
        q *= np.sign(np.diag(r))
        scales = np.exp(rng.uniform(*np.log(SPREAD), size=n_features))
        cells = np.flatnonzero(component == k)
        x[cells] = mean + (rng.normal(size=(len(cells), n_features)) * scales) @ q.T
    return x, component


def scmoe_labels(
    x: np.ndarray, n_components: int, seed: int, *, exact: bool = False
) -> np.ndarray:
    """Cluster by ``tl.cluster`` with 40 experts, a fifth more than components, or as many."""
    return _clustered(ad.AnnData(x), n_components if exact else n_experts(n_components), seed)


def scmoe_preset(x: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Cluster by the settings of the paper: a distance of 2 on a Euclidean UMAP."""
    cells = ad.AnnData(x)
    scmoe.similarity.umap(cells, metric="euclidean", random_state=seed)
    return _clustered(cells, n_experts(n_components), seed, preset="synthetic")


def n_experts(n_components: int) -> int:
    """Return 40 as in the paper, or a fifth more than there are components."""
    return max(N_EXPERTS, math.ceil(1.2 * n_components))


def _clustered(cells: ad.AnnData, n_clusters: int, seed: int, **kwargs) -> np.ndarray:
    scmoe.tl.cluster(cells, n_clusters=n_clusters, random_state=seed, progress=False, **kwargs)
    return cells.obs["scmoe"].to_numpy().astype(str)


def fitted(x: np.ndarray, n_components: int, covariance: str, seed: int) -> GaussianMixture:
    """Fit a Gaussian mixture, also without convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(
            n_components, covariance_type=covariance, reg_covar=1e-3, random_state=seed
        ).fit(x)


def true_number(x: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Cluster by a Gaussian mixture with the true number of components."""
    return fitted(x, n_components, "full", seed).predict(x)


def bic_number(x: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Cluster by the Gaussian mixture whose number and covariance have the lowest BIC."""
    models = (
        fitted(x, n, covariance, seed)
        for covariance in ("full", "diag")
        for n in BIC_GRID
        if n <= len(x)
    )
    return min(models, key=lambda model: model.bic(x)).predict(x)


METHODS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "scmoe": scmoe_labels,
    "scmoe, the paper's settings": scmoe_preset,
    "scmoe, true number of experts": functools.partial(scmoe_labels, exact=True),
    "Gaussian mixture, true number": true_number,
    "Gaussian mixture, BIC": bic_number,
}


def scores(truth: np.ndarray, found: np.ndarray) -> dict:
    """Return both F-measures and the number of clusters."""
    return {
        "weighted_f": scmoe.metrics.weighted_f(truth, found),
        "mean_f1": scmoe.metrics.mean_f1(truth, found),
        "n_clusters": len(np.unique(found)),
    }


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each kind of weights, number of components, seed and method."""
    n_cells, numbers = SIZES[options.size]
    methods = options.choose("methods", METHODS)

    def measure(name: str, x: np.ndarray, truth: np.ndarray, n: int, seed: int) -> dict:
        found, seconds = timed(lambda: METHODS[name](x, n, seed))
        return {**scores(truth, found), "seconds": seconds}

    for dataset in options.choose("datasets", DATASETS):
        for n in numbers:
            for seed in options.seeds:
                x, truth = mixture(n, n_cells, seed, concentration=DATASETS[dataset])
                for method in methods:
                    identity = dict(zip(KEYS, (dataset, n_cells, n, method, seed), strict=True))
                    call = functools.partial(measure, method, x, truth, n, seed)
                    yield attempt(identity, call, say)


TEXT = f"""## Synthetic mixtures

Gaussian mixtures in {N_FEATURES} dimensions with random parameters: means from
N(0, {SEPARATION}² I), a random rotation of standard deviations between {SPREAD[0]} and
{SPREAD[1]} for each component, weights equal or from a Dirichlet distribution. scmoe is given
{N_EXPERTS} experts, or a fifth more than there are components; it is not told their number, but
where the name says so. With *the paper's settings* two cells are alike within a distance of 2 on
a UMAP. The Gaussian mixture of scikit-learn is told the true number, or chooses number and kind of
covariance by BIC. The paper reports that the number is found up to 23 components, and an F near 1
up to 30; it does not say how far apart the components are. Median over the seeds, and the range in
brackets.
"""


def section(result: dict) -> str:
    """Return one table for each kind of weights and number of cells."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    for (dataset, n_cells), rows in table.groupby(["dataset", "n_cells"], sort=False):
        text += f"\n### {dataset[0].upper()}{dataset[1:]}, {n_cells:,} cells\n\n"
        text += markdown(
            ["components", "method", "clusters", "weighted F", "mean F1", "seconds", "seeds"],
            (
                [
                    n,
                    method,
                    spread(runs["n_clusters"], 0),
                    spread(runs["weighted_f"], 3),
                    spread(runs["mean_f1"], 3),
                    f"{np.median(runs['seconds']):.1f}",
                    len(runs),
                ]
                for n, same in rows.groupby("n_components")
                for method, runs in sorted(
                    same.groupby("method"), key=lambda item: list(METHODS).index(item[0])
                )
            ),
        )
    return text
