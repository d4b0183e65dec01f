"""The loss of quality where a model must estimate the number of clusters.

``tl.cluster`` with the true number of populations, with ``n_clusters="auto"``, and with the
defaults, on the data sets of the experiment *numbers*. A seed sets the order of the cells as well
as the random state. Labels score only, but for the row that is told their number.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scanpy as sc

import scmoe
from benchmarks import numbers
from benchmarks.cytof import warm_up
from benchmarks.experiment import attempt, timed
from benchmarks.tables import markdown, measured, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "method", "seed")
SEEDS = 5
SETTINGS: dict = {}

DATASETS = [name for name in numbers.DATASETS if name not in ("1 component", "MNIST, codes")]
"""A single population is no clustering; the model makes codes of its own."""

TOLD, DEFAULT, FOUND = "told", "default", "auto"
METHODS: dict[str, dict[str, Any]] = {
    "moe-sim-vae, K told": {"model": "moe-sim-vae", "n_clusters": TOLD},
    "moe-sim-vae, K auto": {"model": "moe-sim-vae", "n_clusters": FOUND},
    "moe-sim-vae, K and latent size auto": {
        "model": "moe-sim-vae",
        "n_clusters": FOUND,
        "n_latent": FOUND,
    },
    "moe-sim-vae, at most 25 (default)": {"model": "moe-sim-vae"},
    "moe-vae, K told": {"model": "moe-vae", "n_clusters": TOLD},
    "moe-vae, all auto (default)": {"model": "moe-vae"},
}


def cluster(x: np.ndarray, truth: np.ndarray, seed: int, method: str) -> dict:
    """Return the scores of a clustering."""
    settings = dict(METHODS[method])
    if settings.get("n_clusters") == TOLD:
        settings["n_clusters"] = len(np.unique(truth))
    components = x.shape[1] == numbers.N_PCS
    cells = ad.AnnData(x, obsm={"X_pca": x} if components else {})
    use_rep = "X_pca" if components else "X"
    if settings["model"] == "moe-sim-vae":
        sc.pp.neighbors(cells, use_rep=use_rep, random_state=seed)
    _, seconds = timed(
        lambda: scmoe.tl.cluster(
            cells, use_rep=use_rep, random_state=seed, progress=False, **settings
        )
    )
    record = {**numbers.scores(truth, cells.obs["scmoe"].to_numpy().astype(str))}
    estimates = cells.uns["scmoe"].get("estimates", {})
    record["n_experts"] = int(cells.obsm["scmoe_proba"].shape[1])
    if "n_latent" in estimates:
        record["n_latent"] = int(estimates["n_latent"]["n_latent"])
    return {**record, "seconds": seconds}


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each seed, data set and method."""
    warm_up()
    methods = options.choose("methods", METHODS)
    most = numbers.SMALL if options.size == "small" else numbers.FULL
    for seed in options.seeds:
        for dataset in options.choose("datasets", DATASETS):
            x, truth = numbers.load(dataset, most)
            order = np.random.default_rng(seed).permutation(len(x))
            for method in methods:
                call = functools.partial(cluster, x[order], truth[order], seed, method)
                yield attempt(
                    dict(zip(KEYS, (dataset, len(x), method, seed), strict=True)), call, say
                )


TEXT = f"""## What automatic numbers cost

`scmoe.tl.cluster` with the true number of populations, with numbers that it finds, and with its
defaults, on the values of the experiment above. *loss* is the median over the seeds of the scores
(NMI, weighted F) with the true number less those without it: what not knowing costs. The method
that finds the number was chosen on {" and ".join(numbers.TUNED_ON)}. Median over the seeds, and
the range in brackets.
"""


def section(result: dict) -> str:
    """Return a table for each model."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    for model in ("moe-sim-vae", "moe-vae"):
        names = [name for name in METHODS if METHODS[name]["model"] == model]
        rows = table[table["method"].isin(names)]
        if rows.empty:
            continue
        text += f"\n### {model}\n\n"
        text += markdown(
            ["data", "populations", "method", "K", "NMI", "loss", "weighted F", "loss", "seconds"],
            (
                _row(rows, dataset, name)
                for dataset in DATASETS
                for name in names
                if ((rows["dataset"] == dataset) & (rows["method"] == name)).any()
            ),
        )
        text += _summary(rows, names)
    return text


def _losses(rows, dataset: str, name: str, score: str):
    """Return the loss of each seed, without NaN; positive where the true number is better."""
    of_data = rows[rows["dataset"] == dataset].set_index("seed")
    told = of_data[of_data["method"].str.endswith("K told")]
    return (told[score] - of_data[of_data["method"] == name][score]).dropna()


def _summary(rows, names: list[str]) -> str:
    """Return the mean and the largest of the median losses of the data sets."""
    text = "\nLoss of weighted F, mean over the data sets and largest:\n\n"
    for name in (name for name in names if not name.endswith("K told")):
        median = {
            dataset: float(np.median(losses))
            for dataset in DATASETS
            if len(losses := _losses(rows, dataset, name, "weighted_f"))
        }
        if median:
            worst = max(median, key=median.get)
            mean = np.mean(list(median.values()))
            text += (
                f"- {name.split(', ', 1)[1]}: {mean:+.3f} over {len(median)} data sets; "
                f"{median[worst]:+.3f} on {worst}.\n"
            )
    return text


def _row(rows, dataset: str, name: str) -> list:
    of_data = rows[rows["dataset"] == dataset]
    runs = of_data[of_data["method"] == name].set_index("seed")
    losses = {}
    for score in ("nmi", "weighted_f"):
        loss = _losses(rows, dataset, name, score)
        known = len(loss) and not name.endswith("K told")
        losses[score] = f"{np.median(loss):+.3f}" if known else "–"
    return [
        dataset,
        int(runs["n_populations"].iloc[0]),
        name.split(", ", 1)[1],
        spread(runs["n_clusters"], 0),
        spread(runs["nmi"], 3),
        losses["nmi"],
        spread(runs["weighted_f"], 3),
        losses["weighted_f"],
        f"{np.median(runs['seconds']):.0f}",
    ]
