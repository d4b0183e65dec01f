"""CyTOF: scmoe with every default against its peers, over several seeds and orders of the cells.

*all cells*: the cells of a data set are clustered together, the labels unseen, and all are scored.

*80/20*: the paper's, for its Bodenmiller wells. scmoe learns from a random 80 % of the cells and
predicts the other 20 %, which it has never seen; the peers, most of which cannot predict, cluster
all cells; everybody is scored on the same 20 %. On the other panels scmoe alone does so, for the
calibration of its probabilities.

In both, populations of at least 30 cells in the whole data set are scored (as in the paper).
Cells without a population are clustered but not scored. A seed sets the order of the cells and
the split as well as the random state of each method. On the Bodenmiller wells only the paper's 10
surface markers are used. Of the two transcriptomes all methods see 50 principal components.

*one population*: made-up cells of a single population, a new draw for each seed. The right number
of clusters is one.
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
from sklearn.metrics import adjusted_rand_score

import scmoe
from benchmarks import peers
from benchmarks.data import levine32_balanced, multicenter, samusik_ramp
from benchmarks.experiment import attempt, timed
from benchmarks.tables import markdown, measured, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "protocol", "method", "seed")
SEEDS = 3

MIN_POPULATION = 30
RARE = (0.001, 0.01)
FINDABLE, FOUND = 0.8, 0.6
TRAIN_SHARE = 0.8
SMALL = 3_000
CUTS = (3.5, 5.0, 7.0, 10.0, 14.0)
"""Significances at which the tree of scmoe is cut."""
UNDECIDED = 0.9
"""Probability below which a cell counts as undecided."""

SETTINGS = {"min_population": MIN_POPULATION, "rare": RARE, "train_share": TRAIN_SHARE}

ALL, SPLIT, ONE = "all cells", "80/20", "one population"


def plate() -> ad.AnnData:
    """Simulate the plate of ``make demo``, with the population of each cell."""
    with tempfile.TemporaryDirectory() as folder:
        scmoe.datasets.simulate_plate(folder, n_wells=4, n_cells=6_000)
        adata = scmoe.io.read_fcs(folder, progress=False)
    scmoe.datasets.population_labels(adata)
    return adata


DATASETS: dict[str, Callable[[], ad.AnnData]] = {
    "bodenmiller H05": functools.partial(scmoe.datasets.bodenmiller, "H05"),
    "bodenmiller H08": functools.partial(scmoe.datasets.bodenmiller, "H08"),
    "samusik RAMP": samusik_ramp,
    "Levine 32, balanced": levine32_balanced,
    "multicenter 01": functools.partial(multicenter, 1),
    "simulated plate": plate,
}
PAPER = ("bodenmiller H05", "bodenmiller H08")
"""Data sets of the protocol 80/20."""

TRANSCRIPTOMES = ("Tabula Muris kidney", "PBMC 68k")
"""Of these the values are principal components of log-normalised counts."""
N_PCS = 50

NULL_SHAPE = (5_000, 10)


def gaussian(seed: int) -> np.ndarray:
    """Return cells whose markers are independent standard normals."""
    return np.random.default_rng(seed).normal(size=NULL_SHAPE)


def counts(seed: int) -> np.ndarray:
    """Return arcsinh (cofactor 5) of negative binomials of size 2 with means from 1 to 100."""
    size, means = 2, np.geomspace(1, 100, NULL_SHAPE[1])
    drawn = np.random.default_rng(seed).negative_binomial(size, size / (size + means), NULL_SHAPE)
    return np.arcsinh(drawn / 5)


NULLS: dict[str, Callable[[int], np.ndarray]] = {
    "one population, Gaussian": gaussian,
    "one population, integers": counts,
}


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return arcsinh values of markers, or components (float32), and populations."""
    if name in TRANSCRIPTOMES:
        from benchmarks import organs

        adata = organs.prepared(name)
        x = sc.pp.pca(adata.X, n_comps=N_PCS, random_state=0)
        return x, adata.obs["population"].to_numpy(dtype=object)
    adata = DATASETS[name]()
    wanted = adata.var["surface"] if "surface" in adata.var else adata.var["kind"] == "mass"
    adata = adata[:, wanted.to_numpy()].copy()
    scmoe.pp.arcsinh(adata, cofactor=5)
    return np.asarray(adata.X, dtype=np.float32), adata.obs["population"].to_numpy(dtype=object)


OURS, OURS_GRAPH, OURS_TREE = "scmoe", "scmoe, graph of sc.pp.neighbors", "scmoe, density tree"
SCMOE: dict[str, Callable[[], scmoe.similarity.Similarity | None]] = {
    OURS: lambda: None,
    OURS_GRAPH: scmoe.similarity.CoAssociation,
    OURS_TREE: scmoe.similarity.DensityTree,
}
"""The similarity of each of ours. The tree is the default of panels, a graph of components."""


def clustered(x: np.ndarray, seed: int, method: str, components: bool, **how) -> ad.AnnData:
    """Cluster cells by ``tl.cluster``, from markers or from principal components."""
    cells = ad.AnnData(x, obsm={"X_pca": x} if components else {})
    rep = "X_pca" if components else "X"
    if method == OURS_GRAPH:
        sc.pp.neighbors(cells, use_rep=rep, random_state=seed)
    similarity = SCMOE[method]()
    scmoe.tl.cluster(
        cells, similarity=similarity, use_rep=rep, random_state=seed, progress=False, **how
    )
    return cells


def granularity(cells: ad.AnnData) -> dict[str, np.ndarray]:
    """Return the clusters of each cell with the tree cut at coarser significances."""
    found = {}
    for significance in CUTS:
        scmoe.tl.cut(cells, significance=significance, key_added="cut")
        found[f"{significance:g}"] = cells.obs["cut"].to_numpy().astype(str)
    return found


def scmoe_unseen(
    train: np.ndarray, test: np.ndarray, seed: int, method: str = OURS
) -> pd.DataFrame:
    """Return the probabilities of held-out cells; the columns are the clusters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        clustered(train, seed, method, components=False, save_model=path)
        model = scmoe.model.MoESimVAE.load(str(path), ad.AnnData(train), accelerator="cpu")
    return model.predict_proba(ad.AnnData(test))


FORMER = "scmoe 0.1.0"
"""Not run again: its labels were made once, by ``tl.cluster`` of commit 14c3379 on these cells."""

PEERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "FlowSOM, 15 metaclusters": functools.partial(peers.flowsom, n_clusters=15),
    "FlowSOM, 25 metaclusters": functools.partial(peers.flowsom, n_clusters=25),
    "PhenoGraph": peers.phenograph,
    "Leiden, resolution 1": peers.leiden,
    "Leiden, resolution 0.3": functools.partial(peers.leiden, resolution=0.3),
    "CytoVI, Leiden of its codes": peers.cytovi,
    "k-means, 15 clusters": functools.partial(peers.k_means, n_clusters=15),
    "k-means, 25 clusters": functools.partial(peers.k_means, n_clusters=25),
    "Gaussian mixture, 15 components": functools.partial(peers.gaussian_mixture, n_clusters=15),
    "Gaussian mixture, 25 components": functools.partial(peers.gaussian_mixture, n_clusters=25),
}

CEILING = "random forest, told the labels"
"""What there is to reach: a classifier's labels of cells that it has not learned from."""

METHODS = [*SCMOE, FORMER, *PEERS, CEILING]


def scores(truth: np.ndarray, found: np.ndarray, sizes: pd.Series, n_cells: int) -> dict:
    """Return both F-measures, adjusted Rand index, number of clusters, rare populations.

    Parameters
    ----------
    truth, found
        Population (NaN: none) and cluster of the scored cells.
    sizes
        Cells of each population in the whole data set, which decide what is left out and what
        is rare, however many of them are scored.
    n_cells
        Cells of the whole data set.

    Returns
    -------
    ``weighted_f``, ``mean_f1`` and ``ari`` of the populations of at least 30 cells,
    ``n_clusters``, and ``rare``: of each of them that has 0.1 to 1 % of the cells, the F1 with
    the cluster that fits it best.
    """
    large = sizes.index[sizes >= MIN_POPULATION]
    scored = pd.Series(truth).isin(large).to_numpy()
    kept, own = truth[scored].astype(str), found[scored]
    best = scmoe.metrics.f1_table(kept, own).max(axis=1)
    low, high = RARE
    return {
        "weighted_f": scmoe.metrics.weighted_f(kept, own),
        "mean_f1": scmoe.metrics.mean_f1(kept, own),
        "ari": float(adjusted_rand_score(kept, own)),
        "n_clusters": pd.Series(found).nunique(),
        "rare": {
            str(name): round(float(f1), 3)
            for name, f1 in best.items()
            if low <= sizes[name] / n_cells <= high
        },
    }


def warm_up() -> None:
    """Let numba compile the neighbour search, which no method is to be timed for."""
    x = np.random.default_rng(0).normal(size=(5000, 5)).astype(np.float32)
    sc.pp.neighbors(ad.AnnData(x), use_rep="X")


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each data set, seed, method and protocol."""
    methods = options.choose("methods", [m for m in METHODS if m != FORMER])
    warm_up()
    for dataset in options.choose("datasets", [*DATASETS, *TRANSCRIPTOMES, *NULLS]):
        own = [m for m in methods if m != OURS_TREE or dataset in TRANSCRIPTOMES]
        if dataset in NULLS:
            yield from _nulls(dataset, own, options, say)
            continue
        x, truth = load(dataset)
        if options.size == "small":
            some = np.random.default_rng(0).permutation(len(x))[:SMALL]
            x, truth = x[some], truth[some]
        for seed in options.seeds:
            # graph partitions depend on the order of the cells: a seed is an order, too
            order = np.random.default_rng(seed).permutation(len(x))
            for method in own:
                yield from _records(dataset, x[order], truth[order], method, seed, say)


def _nulls(
    dataset: str, methods: list[str], options: Options, say: Callable[[str], None]
) -> Iterator[dict]:
    """Return records of a single population; the classifier has nothing to learn."""
    for seed in options.seeds:
        x = NULLS[dataset](seed).astype(np.float32)
        for method in (m for m in methods if m != CEILING):

            def call(x=x, method=method, seed=seed) -> dict:
                found, seconds = timed(lambda: _labels(x, method, seed))
                return {"n_clusters": len(np.unique(found)), "seconds": seconds}

            yield attempt(
                dict(zip(KEYS, (dataset, len(x), ONE, method, seed), strict=True)), call, say
            )


def _labels(x: np.ndarray, method: str, seed: int) -> np.ndarray:
    if method in PEERS:
        return PEERS[method](x, seed)
    return clustered(x, seed, method, components=False).obs["scmoe"].to_numpy().astype(str)


def _records(
    dataset: str, x: np.ndarray, truth: np.ndarray, method: str, seed: int, say: Callable
) -> Iterator[dict]:
    """Return records of all protocols of one method; the cells are in random order."""
    sizes = pd.Series(truth).value_counts()
    n_train = int(TRAIN_SHARE * len(x))

    @functools.cache
    def labelled() -> tuple[np.ndarray, float]:
        if method == CEILING:
            return timed(lambda: peers.told(x, truth, seed, MIN_POPULATION))
        return timed(lambda: _labels(x, method, seed))

    def all_cells() -> dict:
        cuts = {}
        if method in SCMOE:
            cells, seconds = timed(lambda: clustered(x, seed, method, dataset in TRANSCRIPTOMES))
            found = cells.obs["scmoe"].to_numpy().astype(str)
            if "tree" in cells.uns["scmoe"]:
                cuts = granularity(cells)
        else:
            found, seconds = labelled()
        told = {
            at: {what: scored[what] for what in ("n_clusters", "weighted_f", "mean_f1")}
            for at, labels in cuts.items()
            for scored in [scores(truth, labels, sizes, len(x))]
        }
        return {
            **scores(truth, found, sizes, len(x)),
            **({"cuts": told} if told else {}),
            "seconds": seconds,
        }

    def split() -> dict:
        if method in PEERS:
            found, seconds = labelled()
            return {**scores(truth[n_train:], found[n_train:], sizes, len(x)), "seconds": seconds}
        proba, seconds = timed(lambda: scmoe_unseen(x[:n_train], x[n_train:], seed, method))
        unseen = truth[n_train:]
        found = proba.columns.to_numpy().astype(str)[proba.to_numpy().argmax(axis=1)]
        return {
            **scores(unseen, found, sizes, len(x)),
            **trust(proba, unseen, sizes),
            "seconds": seconds,
        }

    protocols = {ALL: all_cells}
    if (dataset in PAPER and method != CEILING) or (method == OURS and dataset in DATASETS):
        protocols[SPLIT] = split
    for protocol, call in protocols.items():
        yield attempt(
            dict(zip(KEYS, (dataset, len(x), protocol, method, seed), strict=True)), call, say
        )


def trust(proba: pd.DataFrame, truth: np.ndarray, sizes: pd.Series) -> dict:
    """Return the calibration of the probabilities, of cells of the scored populations.

    Returns
    -------
    ``calibration_error`` (expected calibration error), ``undecided`` (share of cells), and the
    shares of ``right_decided`` and ``right_undecided`` cells that are right.
    """
    large = sizes.index[sizes >= MIN_POPULATION]
    of_large = pd.Series(truth).where(pd.Series(truth).isin(large))
    found = scmoe.metrics.calibration(proba, of_large, n_bins=10)
    table = found.table
    unsure = table["high"] <= UNDECIDED + 1e-9
    right = (table["accuracy"] * table["n_cells"]).fillna(0)
    return {
        "calibration_error": found.error,
        "undecided": float(table.loc[unsure, "n_cells"].sum() / found.n_cells),
        "right_decided": float(right[~unsure].sum() / max(1, table.loc[~unsure, "n_cells"].sum())),
        "right_undecided": float(right[unsure].sum() / max(1, table.loc[unsure, "n_cells"].sum())),
    }


TEXT = f"""## CyTOF

**Figures from before are void.** The files of a Bodenmiller well list most NK cells twice, in two
gates. Every listed event used to be a cell here, so that NK cells had two labels, one of which was
wrong whatever their cluster (a weighted F near .92 was all that could be reached), and two
populations of the mean F1 could not be told apart. Now each event is one cell; gates that share
more than half of the smaller one are one population (`cd14-surf-`, `cd14+surf-` and `nk`); the few
cells of two other gates are clustered and not scored. That leaves 14,067 and 13,414 cells, see
`scmoe.datasets.bodenmiller`. Samusik RAMP and multicenter 01 are what they were.

Median over the seeds, and the range in brackets. A seed sets the order of the cells, the split and
the random state. *All cells*: the cells of a data set are clustered together without labels and
all are scored. *80/20*, the paper's for its wells: scmoe learns from 80 % of the cells and
predicts the others, which it has never seen; the peers cluster all cells; everybody is scored on
the same 20 %. Populations of at least {MIN_POPULATION} cells in the data set are scored, cells
without a population are not. Bodenmiller: the paper's 10 surface markers. The transcriptomes are
{N_PCS} principal components. Seconds are CPU seconds.

The last row is the ceiling: a random forest that is told the labels, and its labels of cells that
it has not learned from ({peers.FOLDS} folds). *Rare*: of the populations of {100 * RARE[0]:g} to
{100 * RARE[1]:g} % of the cells that the forest finds (F1 of at least {FINDABLE}), the share that
a method finds (F1 of a cluster at least {FOUND}). {FORMER} is the first release (commit 14c3379),
on the same cells in the same orders. CytoVI is trained as in its tutorial, but for at most
{peers.CYTOVI_STEPS:,} steps.
"""

TRUST_TEXT = f"""
### Are the probabilities right?

Of cells that scmoe has not learned from (80/20): the expected calibration error of the probability
of a cell's cluster, against whether the population that most cells of the cluster belong to is its
own; the share of undecided cells (probability below {UNDECIDED:g}); and the shares of decided and
of undecided cells that are right. A cluster of two populations is wrong for the cells of the
smaller one whatever its probabilities, so the error is one of the clusters, too.

"""

CUT_TEXT = """
### Granularity

The tree of scmoe, cut at coarser significances by `scmoe.tl.cut` without training again: number of
clusters, weighted F / mean F1. The default is 3.5.

"""

ONE_TEXT = f"""
### One population

Made-up cells in which there is nothing to find, {NULL_SHAPE[0]:,} with {NULL_SHAPE[1]} markers, a
new draw for each seed: independent normals, and the arcsinh of integers (negative binomials with
means from 1 to 100). Number of clusters; the right one is 1.

"""


def section(result: dict) -> str:
    """Return one table for each data set and protocol, and one for a single population."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    alone = table["protocol"] == ONE
    for (dataset, n_cells, protocol), rows in sorted(
        table[~alone].groupby(["dataset", "n_cells", "protocol"]), key=_place
    ):
        text += f"\n### {dataset}: {n_cells:,} cells, {protocol}\n\n"
        findable = _findable(rows) if protocol == ALL else []
        text += markdown(
            [
                "method",
                "weighted F",
                "mean F1",
                "ARI",
                *([f"rare, of {len(findable)}"] if findable else []),
                "clusters",
                "seconds",
                "seeds",
            ],
            (
                [
                    method,
                    *(spread(runs[score], 3) for score in ("weighted_f", "mean_f1", "ari")),
                    *([_share_found(runs, findable)] if findable else []),
                    spread(runs["n_clusters"], 0),
                    f"{np.median(runs['seconds']):.1f}",
                    len(runs),
                ]
                for method, runs in _by_method(rows)
            ),
        )
    ours = table[table["method"] == OURS]
    if "calibration_error" in ours:
        text += TRUST_TEXT + _trust(ours[ours["calibration_error"].notna()])
    if "cuts" in ours:
        text += CUT_TEXT + _granularity(ours[ours["cuts"].notna()])
    if alone.any():
        text += ONE_TEXT + _one_population(table[alone])
    return text


def _trust(rows: pd.DataFrame) -> str:
    columns = ["calibration_error", "undecided", "right_decided", "right_undecided"]
    return markdown(
        ["data", "calibration error", "undecided", "right if decided", "if undecided", "seeds"],
        (
            [name, *(spread(runs[column], 3) for column in columns), len(runs)]
            for name, runs in rows.groupby("dataset", sort=False)
        ),
    )


def _granularity(rows: pd.DataFrame) -> str:
    def cell(runs: pd.DataFrame, at: str) -> str:
        told = pd.DataFrame([cuts[at] for cuts in runs["cuts"]])
        n, weighted, mean = told[["n_clusters", "weighted_f", "mean_f1"]].median()
        return f"{n:g}: {weighted:.3f} / {mean:.3f}"

    levels = [f"{significance:g}" for significance in CUTS]
    return markdown(
        ["data", *levels, "seeds"],
        (
            [name, *(cell(runs, at) for at in levels), len(runs)]
            for name, runs in rows.groupby("dataset", sort=False)
        ),
    )


def _by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = ((method, rows[rows["method"] == method]) for method in METHODS)
    return [(method, runs) for method, runs in groups if len(runs)]


def _place(group: tuple) -> tuple:
    dataset, n_cells, protocol = group[0]
    return [*DATASETS, *TRANSCRIPTOMES].index(dataset), -n_cells, (ALL, SPLIT).index(protocol)


def _findable(rows: pd.DataFrame) -> list[str]:
    """Return the rare populations that the classifier finds, by the median over its seeds."""
    runs = list(rows.loc[rows["method"] == CEILING, "rare"])
    names = runs[0] if runs else []
    return [name for name in names if np.median([run[name] for run in runs]) >= FINDABLE]


def _share_found(runs: pd.DataFrame, findable: list[str]) -> str:
    found = [np.mean([run[name] >= FOUND for name in findable]) for run in runs["rare"]]
    return spread(pd.Series(found), 2)


def _one_population(table: pd.DataFrame) -> str:
    shown = [name for name in NULLS if name in set(table["dataset"])]
    return markdown(
        ["method", *(name.split(", ")[1] for name in shown), "seconds", "seeds"],
        (
            [
                method,
                *(spread(runs.loc[runs["dataset"] == name, "n_clusters"], 0) for name in shown),
                f"{np.median(runs['seconds']):.1f}",
                runs["seed"].nunique(),
            ]
            for method, runs in _by_method(table)
        ),
    )
