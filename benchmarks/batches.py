"""Batches: do they form clusters of their own, and can cells of a batch be generated?

Two batches of cells of the same populations: the markers of the second one are stretched and
shifted at random (each by a factor of 0.8 to 1.25 and by up to one unit of arcsinh), as another
staining or instrument would. scmoe clusters both together, with and without `batch_key`, and
builds its graph itself. Then cells of each batch are generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from sklearn.metrics import normalized_mutual_info_score

import scmoe
from benchmarks import cytof
from benchmarks.experiment import attempt
from benchmarks.tables import markdown, measured, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "method", "seed")
SEEDS = 3
SETTINGS: dict = {}

SMALL = 2_000
METHODS = {"without": None, "batch_key": "batch"}


def two_batches(dataset: str, n_cells: int | None, seed: int) -> ad.AnnData:
    """Return two halves of a data set, or two wells; the second is distorted."""
    rng = np.random.default_rng(seed)
    if dataset == "bodenmiller H05 and H08":
        first, second = (cytof.load(f"bodenmiller {well}") for well in ("H05", "H08"))
    else:
        x, truth = cytof.load(dataset)
        order = rng.permutation(len(x))
        first, second = ((x[some], truth[some]) for some in np.array_split(order, 2))
    stretch = rng.uniform(0.8, 1.25, first[0].shape[1])
    shift = rng.uniform(0, 1, first[0].shape[1])
    second = (second[0] * stretch + shift, second[1])
    cells = ad.AnnData(np.concatenate([first[0], second[0]]).astype(np.float32))
    cells.obs["population"] = np.concatenate([first[1], second[1]])
    cells.obs["batch"] = ["first"] * len(first[0]) + ["second"] * len(second[0])
    some = rng.permutation(cells.n_obs)[: n_cells or cells.n_obs]
    return cells[some].copy()


def measure(cells: ad.AnnData, batch_key: str | None, seed: int) -> dict:
    """Cluster, and generate cells of each batch."""
    scmoe.tl.cluster(cells, batch_key=batch_key, random_state=seed, progress=False)
    found = {
        "weighted_f": scmoe.metrics.weighted_f(
            cells.obs["population"], cells.obs["scmoe"], min_size=cytof.MIN_POPULATION
        ),
        "nmi_batch": normalized_mutual_info_score(cells.obs["batch"], cells.obs["scmoe"]),
        "n_clusters": int(cells.obs["scmoe"].nunique()),
    }
    if batch_key is None:
        return found
    means = {
        name: (own.X.mean(0), scmoe.tl.generate(cells, own.n_obs, batch=name).X.mean(0))
        for name, own in ((n, cells[cells.obs["batch"] == n]) for n in ("first", "second"))
    }
    apart = np.abs(means["second"][0] - means["first"][0])
    missed = np.mean([np.abs(real - new) for real, new in means.values()], axis=0)
    return {**found, "missed": float(missed.mean()), "apart": float(apart.mean())}


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each data set, method and seed."""
    datasets = ["bodenmiller H05 and H08", "samusik RAMP"]
    for dataset in options.choose("datasets", datasets):
        for seed in options.seeds:
            cells = two_batches(dataset, SMALL if options.size == "small" else None, seed)
            for method in options.choose("methods", METHODS):
                identity = dict(zip(KEYS, (dataset, cells.n_obs, method, seed), strict=True))

                def call(cells=cells, method=method, seed=seed) -> dict:
                    return measure(cells.copy(), METHODS[method], seed)

                yield attempt(identity, call, say)


TEXT = """## Batches

Two batches of cells, the second one distorted at random, marker by marker; clustered together
with every default, scmoe building its own graph. *NMI with batch*: 0 if clusters say nothing of
batches. *Missed*: how far the mean of a marker in cells generated for a batch is from that
of its real cells (units of arcsinh), and beside it how far the batches are apart.
"""


def section(result: dict) -> str:
    """Return one table."""
    table = measured(result["records"])
    if table.empty:
        return TEXT
    head = ["data", "cells", "", "weighted F", "NMI with batch", "clusters"]
    rows = (
        [dataset, f"{n_cells:,}", method, spread(runs["weighted_f"], 3)]
        + [spread(runs["nmi_batch"], 3), spread(runs["n_clusters"], 0)]
        + [spread(runs["missed"], 2), spread(runs["apart"], 2), len(runs)]
        for (dataset, n_cells, method), runs in table.groupby(
            ["dataset", "n_cells", "method"], sort=False
        )
    )
    return TEXT + "\n" + markdown([*head, "missed", "batches apart", "seeds"], rows)
