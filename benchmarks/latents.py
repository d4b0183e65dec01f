"""Latent dimensions: is the estimate reproducible, and does it recover a known rank?

`scmoe.tl.latent_dim` on cells, images, and on made-up values whose rank is known: 5,000 cells of
30 markers that are a random matrix times 2, 3, 5 or 8 independent Gaussians, and noise of a tenth
of their spread. A seed sets the order of the cells as well as the random state. Labels are used
for the sizes of the populations only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc

import scmoe
from benchmarks import cytof
from benchmarks.experiment import attempt, in_order_of, timed
from benchmarks.tables import MISSING, markdown, measured, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "method", "seed")
SEEDS = 5
SETTINGS: dict = {"known_noise": 0.1}

SMALL = 10_000
BATCH = 256
LEAST = 30
"""Cells of a population whose size is shown."""

RANKS = {f"known, rank {rank}": rank for rank in (2, 3, 5, 8)}
IMAGES = ("MNIST",)
CELLS = ("bodenmiller H05", "bodenmiller H08", "samusik RAMP")
DATASETS = [*RANKS, *CELLS, "PBMC 68k", *IMAGES]
TRIED = ("bodenmiller H05", "samusik RAMP", *IMAGES)
"""Data on which other settings than the defaults are tried."""

CONV = {"network": "conv"}
METHODS: dict[str, dict] = {
    "as it comes": {},
    "1,000 steps": {"steps": 1_000},
    "2,000 steps": {"steps": 2_000},
    "8,000 steps": {"steps": 8_000},
    "from 30 dimensions": {"n_latent": 30},
    "from 100 dimensions": {"n_latent": 100},
    "Bernoulli": {"network_kwargs": {"likelihood": "bernoulli"}},
    "augmented": {"augment": True},
    "convolutions": CONV,
    "convolutions, augmented": {**CONV, "augment": True},
}


def known(rank: int, seed: int) -> ad.AnnData:
    """Return values of a known rank."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5_000, rank)) @ rng.normal(size=(rank, 30))
    x += SETTINGS["known_noise"] * x.std(0) * rng.normal(size=x.shape)
    return ad.AnnData(x.astype(np.float32))


def load(dataset: str, size: str, seed: int) -> ad.AnnData:
    """Read cells or images, with `population` in `.obs` where it is known."""
    if dataset in RANKS:
        return known(RANKS[dataset], seed)
    if dataset == "PBMC 68k":
        cells = sc.datasets.pbmc68k_reduced()
        return ad.AnnData(cells.X, obs=cells.obs[["bulk_labels"]].set_axis(["population"], axis=1))
    if dataset in IMAGES:
        images = scmoe.datasets.mnist()
        images.obs["population"] = images.obs["label"]
        some = np.random.default_rng(0).permutation(images.n_obs)
        return images[some[: SMALL if size == "small" else None]].copy()
    x, truth = cytof.load(dataset)
    cells = ad.AnnData(x)
    cells.obs["population"] = truth
    return cells


def methods_of(dataset: str) -> list[str]:
    """Return the methods: images start from 100 dimensions and a Bernoulli likelihood."""
    if dataset in RANKS:
        return ["as it comes", "1,000 steps", "from 100 dimensions", "Bernoulli"]
    if dataset in IMAGES:
        return [name for name in METHODS if name not in ("Bernoulli", "from 100 dimensions")]
    if dataset in TRIED:
        return [name for name in METHODS if METHODS[name].get("network") != "conv"]
    return ["as it comes"]


def measure(cells: ad.AnnData, method: str, seed: int) -> dict:
    """Return the dimensions for both thresholds, of cells and populations, and seconds."""
    settings = dict(METHODS[method])
    steps = settings.pop("steps", None)
    if steps is not None:
        epochs = math.ceil(steps / math.ceil(cells.n_obs / BATCH))
        settings["train_kwargs"] = {"max_epochs": epochs}
    groupby = "population" if "population" in cells.obs else None
    _, seconds = timed(
        lambda: scmoe.tl.latent_dim(
            cells, groupby=groupby, random_state=seed, progress=False, **settings
        )
    )
    found = cells.uns["latent_dim"]
    record = {
        "n_latent": found["n_latent"],
        "n_latent_reconstruction": found["n_latent_reconstruction"],
        "in_use": int((cells.obsm["X_latent_dim"].var(0) > 0.01).sum()),
        "loss": float(found["history"]["loss"].iloc[-1]),
        "seconds": seconds,
    }
    if groupby is not None:
        sizes = found["groups"].query("n_cells >= @LEAST")["n_latent"].astype(int)
        record["populations"] = sizes.to_dict()
    return record


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each data set, setting and seed."""
    for seed in options.seeds:
        for dataset in options.choose("datasets", DATASETS):
            cells = in_order_of(seed, load(dataset, options.size, seed))
            for method in options.choose("methods", METHODS):
                if method not in methods_of(dataset):
                    continue
                identity = dict(zip(KEYS, (dataset, cells.n_obs, method, seed), strict=True))

                def call(cells=cells, method=method, seed=seed) -> dict:
                    return measure(cells.copy(), method, seed)

                yield attempt(identity, call, say)


TEXT = """## Latent sizes

`scmoe.tl.latent_dim`, dimensions for 90 and 95 % of the variance of the codes: median and range
over the seeds. It starts from as many dimensions as there are markers, at most 100, the
paper's. *In use*: those whose codes have a variance above 0.01. *Loss*: minus the bound on the
log-likelihood, by marker; smaller is better.
*Populations*: the smallest and the largest size (90 %) of a population of at least 30 cells,
medians over the seeds. *Known* values are of 30 markers, a random matrix times as many
independent Gaussians as the rank says and noise of a tenth of their spread.
"""


def section(result: dict) -> str:
    """Return one table."""
    table = measured(result["records"])
    if table.empty:
        return TEXT
    head = ["data", "cells", "", "90 %", "95 %", "in use", "loss", "populations", "seconds"]
    rows = (
        [dataset, f"{n_cells:,}", method, spread(runs["n_latent"], 0)]
        + [spread(runs["n_latent_reconstruction"], 0), spread(runs["in_use"], 0)]
        + [spread(runs["loss"], 3), _populations(runs), spread(runs["seconds"], 0), len(runs)]
        for (dataset, n_cells, method), runs in table.groupby(
            ["dataset", "n_cells", "method"], sort=False
        )
    )
    return TEXT + "\n" + markdown([*head, "seeds"], rows)


def _populations(runs) -> str:
    sizes = [sizes for sizes in runs["populations"] if isinstance(sizes, dict)]
    if not sizes:
        return MISSING
    medians = [np.median([of_seed[name] for of_seed in sizes]) for name in sizes[0]]
    return f"{min(medians):.0f}–{max(medians):.0f}"
