"""CyTOF: scmoe with every default against its peers, in one run, over several seeds.

Protocol: the cells of a data set are clustered together, the labels unseen. Scored are the
populations of at least 30 cells (as in the paper); ungated cells are clustered but not scored.
A seed sets the order of the cells as well as the random state of each method. On
the Bodenmiller wells only the paper's 10 surface markers are used.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc

import scmoe
from benchmarks import peers

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_POPULATION = 30

DATASETS: dict[str, Callable[[], ad.AnnData]] = {
    "bodenmiller H05": functools.partial(scmoe.datasets.bodenmiller, "H05"),
    "bodenmiller H08": functools.partial(scmoe.datasets.bodenmiller, "H08"),
    "samusik RAMP": scmoe.datasets.samusik_ramp,
    "multicenter 01": functools.partial(scmoe.datasets.multicenter, 1),
}


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Arcsinh values of the markers (float32), and the population of each cell (NaN: none)."""
    adata = DATASETS[name]()
    if "surface" in adata.var:
        adata = adata[:, adata.var["surface"]].copy()
    scmoe.pp.arcsinh(adata, cofactor=5)
    return np.asarray(adata.X, dtype=np.float32), adata.obs["population"].to_numpy(dtype=object)


def scmoe_alone(x: np.ndarray, seed: int) -> np.ndarray:
    """(a) ``tl.cluster`` as it comes."""
    cells = ad.AnnData(x)
    scmoe.tl.cluster(cells, random_state=seed, progress=False)
    return cells.obs["scmoe"].to_numpy().astype(str)


def scmoe_after_neighbors(x: np.ndarray, seed: int) -> np.ndarray:
    """(b) ``tl.cluster`` after ``sc.pp.neighbors`` with its defaults."""
    cells = ad.AnnData(x)
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    scmoe.tl.cluster(cells, random_state=seed, progress=False)
    return cells.obs["scmoe"].to_numpy().astype(str)


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "scmoe (a) as it comes": scmoe_alone,
    "scmoe (b) after sc.pp.neighbors": scmoe_after_neighbors,
    "FlowSOM, 15 metaclusters": peers.flowsom,
    "PhenoGraph": peers.phenograph,
    "Leiden, resolution 1": peers.leiden,
    "Leiden, resolution 0.3": functools.partial(peers.leiden, resolution=0.3),
}


def run(datasets: list[str], methods: list[str], seeds: list[int], say: Callable) -> list[dict]:
    """One record for each data set, method and seed."""
    # numba compiles the neighbour search at its first use: not in anybody's time
    scmoe_after_neighbors(np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32), 0)
    records = []
    for dataset in datasets:
        x, truth = load(dataset)
        for method in methods:
            for seed in seeds:
                # graph partitions depend on the order of the cells: a seed is an order, too
                order = np.random.default_rng(seed).permutation(len(x))
                start = time.perf_counter()
                found = METHODS[method](x[order], seed)
                seconds = time.perf_counter() - start
                records.append(
                    {
                        "dataset": dataset,
                        "n_cells": len(x),
                        "method": method,
                        "seed": seed,
                        "weighted_f": scmoe.metrics.weighted_f(
                            truth[order], found, min_size=MIN_POPULATION
                        ),
                        "mean_f1": scmoe.metrics.mean_f1(
                            truth[order], found, min_size=MIN_POPULATION
                        ),
                        "n_clusters": len(np.unique(found)),
                        "seconds": round(seconds, 2),
                    }
                )
                say(
                    "{dataset} | {method} | seed {seed}: {weighted_f:.3f} {mean_f1:.3f} "
                    "{n_clusters} clusters, {seconds:.1f} s".format(**records[-1])
                )
    return records
