"""Does `scmoe.tl.stability` reveal clusters that depend on the random seed?

Each model clusters labelled cells, and :func:`scmoe.tl.stability` runs it five times more. Are the
clusters that come again those that are populations, and the ambiguous cells those that are wrong?
Then clusters are made up: a population is cut in two, and the same runs judge the halves. A seed
sets the order of the cells, the random state and the cuts. Labels score only.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score, roc_auc_score

import scmoe
from benchmarks import numbers
from benchmarks.coupled import own_population
from benchmarks.cytof import warm_up
from benchmarks.experiment import attempt, timed
from benchmarks.tables import MISSING, markdown, measured, spread
from scmoe.metrics import agreement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "method", "seed")
SEEDS = 3
N_RUNS = 5
SETTINGS: dict = {"n_runs": N_RUNS}

SMALL, FULL = 600, 2_000
"""Most cells of a data set."""
SMALL_EPOCHS = 10
STABLE = 0.75
"""Mean Jaccard index from which a cluster is called stable."""
LEAST = 60
"""Cells of a population that is cut."""

DATASETS = ("Levine 32, balanced", "bodenmiller H05", "samusik RAMP")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "moe-sim-vae": ("moe-sim-vae", {}),
    "cpl-mixvae": ("cpl-mixvae", {}),
    "cpl-mixvae, in one fit": ("cpl-mixvae", {"together": True}),
    "moe-vae": ("moe-vae", {}),
}
"""Models with their defaults, and how they are run again."""

CUTS = ("at random", "across a random direction", "across the largest spread")


def halves(x: np.ndarray, cut: str, rng: np.random.Generator) -> np.ndarray:
    """Return which of the cells ``(n, d)`` are in the second half, ``(n,)`` bool.

    At random, or by the median along a direction: a random one, or the first principal component.
    """
    if cut == CUTS[0]:
        place = rng.permutation(len(x)).astype(float)
    elif cut == CUTS[1]:
        place = x @ rng.normal(size=x.shape[1])
    else:
        place = np.linalg.svd(x - x.mean(0), full_matrices=False)[0][:, 0]
    return place > np.median(place)


def made_up(x: np.ndarray, truth: np.ndarray, runs: np.ndarray, seed: int) -> dict[str, float]:
    """Return Jaccard indices of populations, and of the halves of each population.

    Parameters
    ----------
    x, truth
        Cells and their populations.
    runs
        Clusters of each run, ``(n, R)`` int.
    seed
        Of the cuts.

    Returns
    -------
    For each cut the mean and the largest of the halves' mean Jaccard indices and the share under
    0.75; the same of the whole populations; and ``untouched``, the largest change of that of a
    population when another one is cut.
    """
    rng = np.random.default_rng(seed)
    codes, names = pd.factorize(truth, sort=True)
    whole = agreement(runs, codes).mean_jaccard
    large = np.flatnonzero(np.bincount(codes) >= LEAST)
    record = {"whole": float(whole[large].mean()), "whole_stable": _stable(whole[large])}
    changed = 0.0
    for cut in CUTS:
        found = []
        for population in large:
            own = np.flatnonzero(codes == population)
            invented = codes.copy()
            invented[own[halves(x[own], cut, rng)]] = len(names)
            judged = agreement(runs, invented).mean_jaccard
            found += [judged[population], judged[-1]]
            others = np.arange(len(names)) != population
            changed = max(changed, float(np.abs(judged[:-1] - whole)[others].max()))
        record |= {
            f"{cut}: mean": float(np.mean(found)),
            f"{cut}: largest": float(np.max(found)),
            f"{cut}: stable": _stable(np.array(found)),
        }
    return record | {"untouched": changed}


def _stable(jaccard: np.ndarray) -> float:
    return float((jaccard >= STABLE).mean())


def judge(x: np.ndarray, truth: np.ndarray, seed: int, method: str, size: str) -> dict[str, Any]:
    """Return the stability of a clustering, and of artificially halved clusters."""
    cells = ad.AnnData(np.array(x))
    model, how = METHODS[method]
    how = {"n_runs": N_RUNS, "random_state": seed, "progress": False, **how}
    settings: dict[str, Any] = {"model": model}
    if size == "small":
        few = {"max_epochs": SMALL_EPOCHS}
        few |= {"prune_epochs": 2} if model == "cpl-mixvae" else {}
        settings["train_kwargs"] = few
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        _, seconds = timed(
            lambda: scmoe.tl.cluster(cells, random_state=seed, progress=False, **settings)
        )
        _, of_runs = timed(lambda: scmoe.tl.stability(cells, **how))
    found = cells.obs["scmoe"].to_numpy().astype(str)
    result, runs = cells.uns["scmoe_stability"], cells.obsm["scmoe_runs"]
    table = scmoe.metrics.f1_table(truth, found)
    real = table.max()[list(result["clusters"].index)].to_numpy()
    jaccard = result["clusters"]["jaccard"].to_numpy()
    stable = jaccard >= STABLE
    wrong = ~own_population(truth, found)
    ambiguity = cells.obs["scmoe_ambiguity"].to_numpy()
    codes = np.stack([runs[name].cat.codes.to_numpy() for name in runs], axis=1).astype(np.int64)
    of_each = [scmoe.metrics.weighted_f(truth, runs[name].to_numpy().astype(str)) for name in runs]
    voted = cells.obs["scmoe_consensus"].to_numpy().astype(str)
    return {
        "n_clusters": len(stable),
        "n_stable": int(stable.sum()),
        "f_stable": float(real[stable].mean()) if stable.any() else None,
        "f_unstable": float(real[~stable].mean()) if not stable.all() else None,
        "spearman": _correlation(jaccard, real),
        "ambiguous": float((ambiguity > 0).mean()),
        "wrong": float(wrong.mean()),
        "auc": float(roc_auc_score(wrong, ambiguity)) if 0 < wrong.mean() < 1 else None,
        "weighted_f": scmoe.metrics.weighted_f(truth, found),
        "weighted_f_runs": float(np.mean(of_each)),
        "weighted_f_consensus": scmoe.metrics.weighted_f(truth, voted),
        "adjusted_rand": float(result["runs"]["adjusted_rand"].mean()),
        "adjusted_rand_truth": float(adjusted_rand_score(truth, found)),
        **made_up(x, truth, codes, seed),
        "jaccard": [round(float(value), 3) for value in jaccard],
        "f": [round(float(value), 3) for value in real],
        "seconds": seconds + of_runs,
        "seconds_runs": of_runs,
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return the correlation of Spearman, None where it is undefined."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each seed, data set and method."""
    warm_up()
    methods = options.choose("methods", METHODS)
    most = SMALL if options.size == "small" else FULL
    for seed in options.seeds:
        for dataset in options.choose("datasets", DATASETS):
            x, truth = numbers.load(dataset, most)
            order = np.random.default_rng(seed).permutation(len(x))
            for method in methods:
                call = functools.partial(judge, x[order], truth[order], seed, method, options.size)
                yield attempt(
                    dict(zip(KEYS, (dataset, len(x), method, seed), strict=True)), call, say
                )


TEXT = f"""## Clusters that do not come again

`scmoe.tl.cluster` with every default, and `scmoe.tl.stability` with {N_RUNS} runs, on at most
{FULL:,} labelled cells; seconds are those of all {N_RUNS + 1} clusterings, of which all but the
first are one fit where that is said. *stable*: clusters with
a mean Jaccard index of at least {STABLE}. *F*: F1 of a cluster with the population that fits it
best, mean over the clusters that are stable and over the others; *rank correlation* of it with the
Jaccard index over the clusters (Spearman). A cell is *wrong* if it is not of the population that
has most cells in its cluster; *AUC*: the probability that a wrong cell is more ambiguous than a
right one, half for equal ones. *Weighted F* of the clustering, of the runs (mean), and of what
most runs say of each cell. Median over the seeds, and the range in brackets.

A cluster that holds two populations in every run is stable, and its cells are not ambiguous
though some are wrong: runs tell what a seed has done, and not what the model can't tell apart.
"""

CUT = f"""
### Clusters that were made up

Each population of at least {LEAST} cells is cut in two of equal size and the same runs judge the
halves: mean Jaccard index of all halves, the largest of any, and the share of the halves that
would pass for stable; beside them the mean and that share of the uncut populations. A half of a
cluster that all runs find whole has an index of 0.5; it passes only where runs cut the population
at the same place. Each cluster is judged by itself, so what is not cut keeps its index (largest
change: {{untouched}}). A population that a model never finds has a small index too, cut or not:
stability tells what does not come again, and not what is no population.
"""


def section(result: dict) -> str:
    """Return a table of each data set, one of all clusters, and one of halved clusters."""
    text, table = TEXT, measured(result["records"])
    if table.empty:
        return text
    groups = [
        (dataset, method, rows)
        for dataset in DATASETS
        for method in METHODS
        if len(rows := table[(table["dataset"] == dataset) & (table["method"] == method)])
    ]
    text += "\n" + markdown(
        [
            "data",
            "cells",
            "model",
            "clusters",
            "stable",
            "F, stable",
            "F, others",
            "rank correlation",
            "wrong",
            "AUC",
            "weighted F",
            "of the runs",
            "of the vote",
            "seconds",
            "seeds",
        ],
        (_row(*group) for group in groups),
    )
    text += _all_clusters(table)
    text += CUT.format(untouched=f"{table['untouched'].max():.3f}") + "\n"
    columns = [f"{cut}: {what}" for cut in CUTS for what in ("mean", "largest", "stable")]
    heads = [head for cut in CUTS for head in (f"cut {cut}: mean", "largest", "share stable")]
    return text + markdown(
        ["data", "model", "uncut: mean", "share stable", *heads],
        (
            [
                dataset,
                method,
                *(_column(rows, name, 2) for name in ("whole", "whole_stable", *columns)),
            ]
            for dataset, method, rows in groups
        ),
    )


def _all_clusters(table: pd.DataFrame) -> str:
    """Return the correlation over the clusters of all data sets and seeds of a model."""
    lines = []
    for method in METHODS:
        rows = table[table["method"] == method]
        if len(rows) and (
            value := _correlation(np.concatenate([*rows["jaccard"]]), np.concatenate([*rows["f"]]))
        ):
            n = sum(map(len, rows["f"]))
            lines.append(f"- {method}: {value:.2f} over {n} clusters.\n")
    head = "\nRank correlation over the clusters of all data sets and seeds:\n\n"
    return head + "".join(lines) if lines else ""


def _column(rows: pd.DataFrame, name: str, digits: int) -> str:
    return spread(rows[name].astype(float), digits) if name in rows else MISSING


def _row(dataset: str, method: str, rows: pd.DataFrame) -> list:
    return [
        dataset,
        f"{rows['n_cells'].iloc[0]:,}",
        method,
        *(_column(rows, name, 0) for name in ("n_clusters", "n_stable")),
        *(_column(rows, name, 2) for name in ("f_stable", "f_unstable", "spearman")),
        _column(rows, "wrong", 3),
        _column(rows, "auc", 2),
        *(
            _column(rows, name, 3)
            for name in ("weighted_f", "weighted_f_runs", "weighted_f_consensus")
        ),
        f"{np.median(rows['seconds']):.0f}",
        len(rows),
    ]
