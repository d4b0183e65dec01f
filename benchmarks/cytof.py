"""CyTOF: scmoe with every default against its peers, over several seeds and in two protocols.

*all cells*: the cells of a data set are clustered together, the labels unseen, and all are scored.

*80/20*: the paper's for the Bodenmiller wells. scmoe learns from a random 80 % of the cells and
predicts the other 20 %, which it has never seen; the peers, most of which cannot predict, cluster
all cells; everybody is scored on the same 20 %.

In both, populations of at least 30 cells in the whole data set are scored (as in the paper); those
under 50 cells also apart, since a mean over populations hangs on them. Ungated cells are clustered
but not scored. A seed sets the order of the cells and the split as well as the random state of
each method. On the Bodenmiller wells only the paper's 10 surface markers are used.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

import scmoe
from benchmarks import peers
from benchmarks.experiment import attempt, timed
from benchmarks.tables import MISSING, markdown, measured, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "protocol", "method", "seed")
SEEDS = 10

MIN_POPULATION = 30
RARE = 50
TRAIN_SHARE = 0.8
SMALL = 3_000

SETTINGS = {"min_population": MIN_POPULATION, "rare": RARE, "train_share": TRAIN_SHARE}

ALL, SPLIT = "all cells", "80/20"

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


def _cells(x: np.ndarray, seed: int, neighbors: bool) -> ad.AnnData:
    cells = ad.AnnData(x)
    if neighbors:
        sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    return cells


def scmoe_labels(x: np.ndarray, seed: int, *, neighbors: bool) -> np.ndarray:
    """``tl.cluster``: (a) as it comes, or (b) after ``sc.pp.neighbors`` with its defaults."""
    cells = _cells(x, seed, neighbors)
    scmoe.tl.cluster(cells, random_state=seed, progress=False)
    return cells.obs["scmoe"].to_numpy().astype(str)


def scmoe_unseen(train: np.ndarray, test: np.ndarray, seed: int, *, neighbors: bool) -> np.ndarray:
    """The same, trained on some cells, and its labels of others."""
    cells = _cells(train, seed, neighbors)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        scmoe.tl.cluster(cells, random_state=seed, progress=False, save_model=path)
        model = scmoe.model.MoESimVAE.load(str(path), ad.AnnData(train), accelerator="cpu")
    return model.predict(ad.AnnData(test)).astype(str)


SCMOE = {"scmoe (a) as it comes": False, "scmoe (b) after sc.pp.neighbors": True}
"""Whether ``sc.pp.neighbors`` goes before."""

PEERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "FlowSOM, 15 metaclusters": functools.partial(peers.flowsom, n_clusters=15),
    "PhenoGraph": peers.phenograph,
    "Leiden, resolution 1": peers.leiden,
    "Leiden, resolution 0.3": functools.partial(peers.leiden, resolution=0.3),
    "k-means, 15 clusters": functools.partial(peers.k_means, n_clusters=15),
    "k-means, 25 clusters": functools.partial(peers.k_means, n_clusters=25),
    "Gaussian mixture, 15 components": functools.partial(peers.gaussian_mixture, n_clusters=15),
    "Gaussian mixture, 25 components": functools.partial(peers.gaussian_mixture, n_clusters=25),
}

METHODS = [*SCMOE, *PEERS]


def scores(truth: np.ndarray, found: np.ndarray, sizes: pd.Series) -> dict:
    """Both F-measures, those of common and of rare populations, and the number of clusters.

    Parameters
    ----------
    truth, found
        Population (NaN: none) and cluster of the scored cells.
    sizes
        Cells of each population in the whole data set, which decide what is left out and what
        is rare, however many of them are scored.

    Returns
    -------
    ``weighted_f`` and ``mean_f1`` of the populations of at least 30 cells, ``mean_f1_from_50``
    of those of at least 50, and ``mean_f1_under_50`` and ``n_under_50`` of all that are smaller
    (without a lower bound; the first None where there are none).
    """
    size = pd.Series(truth).map(sizes).to_numpy(dtype=float)

    def of_at_least(least: int) -> np.ndarray:
        return np.where(size >= least, truth, None)

    matched = scmoe.metrics.match_table(truth, found)
    rare = matched.loc[sizes[matched.index] < RARE, "f1"]
    return {
        "weighted_f": scmoe.metrics.weighted_f(of_at_least(MIN_POPULATION), found),
        "mean_f1": scmoe.metrics.mean_f1(of_at_least(MIN_POPULATION), found),
        "mean_f1_from_50": scmoe.metrics.mean_f1(of_at_least(RARE), found),
        "mean_f1_under_50": float(rare.mean()) if len(rare) else None,
        "n_under_50": len(rare),
        "n_clusters": len(np.unique(found)),
    }


def warm_up() -> None:
    """Let numba compile the neighbour search, which is not to be in anybody's time."""
    x = np.random.default_rng(0).normal(size=(5000, 5)).astype(np.float32)
    sc.pp.neighbors(ad.AnnData(x), use_rep="X")


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """One record for each data set, seed, method and protocol."""
    methods = options.choose("methods", METHODS)
    warm_up()
    for dataset in options.choose("datasets", DATASETS):
        x, truth = load(dataset)
        if options.size == "small":
            some = np.random.default_rng(0).permutation(len(x))[:SMALL]
            x, truth = x[some], truth[some]
        for seed in options.seeds:
            # graph partitions depend on the order of the cells: a seed is an order, too
            order = np.random.default_rng(seed).permutation(len(x))
            identity = {"dataset": dataset, "n_cells": len(x)}
            for method in methods:
                yield from _records(identity, x[order], truth[order], method, seed, say)


def _records(
    identity: dict, x: np.ndarray, truth: np.ndarray, method: str, seed: int, say: Callable
) -> Iterator[dict]:
    """Both protocols of one method; the cells are in random order."""
    sizes = pd.Series(truth).value_counts()
    n_train = int(TRAIN_SHARE * len(x))
    train, test = x[:n_train], x[n_train:]

    @functools.cache
    def labelled() -> tuple[np.ndarray, float]:
        if method in PEERS:
            return timed(lambda: PEERS[method](x, seed))
        return timed(lambda: scmoe_labels(x, seed, neighbors=SCMOE[method]))

    def all_cells() -> dict:
        found, seconds = labelled()
        return {**scores(truth, found, sizes), "seconds": seconds}

    def split() -> dict:
        if method in PEERS:
            found, seconds = labelled()
            found = found[n_train:]
        else:
            found, seconds = timed(
                lambda: scmoe_unseen(train, test, seed, neighbors=SCMOE[method])
            )
        return {**scores(truth[n_train:], found, sizes), "seconds": seconds}

    for protocol, call in {ALL: all_cells, SPLIT: split}.items():
        yield attempt(
            {**identity, "protocol": protocol, "method": method, "seed": seed}, call, say
        )


TEXT = f"""## CyTOF

Median over the seeds, and the range in brackets. Two protocols. *All cells*: the cells of a data
set are clustered together without labels and all are scored. *80/20*, the paper's: scmoe learns
from 80 % of the cells and predicts the others, which it has never seen; the peers cluster all
cells; everybody is scored on the same 20 %. Populations of at least {MIN_POPULATION} cells in the
data set are scored, ungated cells are not. The mean F1 is also given for populations of at least
{RARE} cells and, apart, for all that are smaller. Bodenmiller: the paper's 10 surface markers. A
seed sets the order of the cells, the split and the random state.
"""


def section(result: dict) -> str:
    """One table for each data set and protocol."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    for column in ("mean_f1_from_50", "mean_f1_under_50", "n_under_50"):
        # what was run before these were measured
        table[column] = table[column].astype(float) if column in table else np.nan
    for (dataset, n_cells, protocol), rows in sorted(
        table.groupby(["dataset", "n_cells", "protocol"]), key=_place
    ):
        text += f"\n### {dataset}: {n_cells:,} cells, {protocol}\n\n"
        runs_of = {method: rows[rows["method"] == method] for method in METHODS}
        text += markdown(
            [
                "method",
                "weighted F",
                "mean F1",
                f"mean F1, from {RARE}",
                f"mean F1, under {RARE}",
                "clusters",
                "seconds",
                "seeds",
            ],
            (
                [
                    method,
                    spread(runs["weighted_f"], 3),
                    spread(runs["mean_f1"], 3),
                    spread(runs["mean_f1_from_50"], 3),
                    _rare(runs),
                    spread(runs["n_clusters"], 0),
                    f"{np.median(runs['seconds']):.1f}",
                    len(runs),
                ]
                for method, runs in runs_of.items()
                if len(runs)
            ),
        )
    return text


def _place(group: tuple) -> tuple:
    dataset, n_cells, protocol = group[0]
    return list(DATASETS).index(dataset), -n_cells, (ALL, SPLIT).index(protocol)


def _rare(runs: pd.DataFrame) -> str:
    """Score and number of the rare populations; a split may leave some of them untested."""
    if runs["mean_f1_under_50"].isna().all():
        return MISSING
    return f"{spread(runs['mean_f1_under_50'], 3)} of {np.nanmedian(runs['n_under_50']):.0f}"
