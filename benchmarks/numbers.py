"""The number of clusters: which method estimates it, and are the clusters right?

All methods look at the same values: markers on the arcsinh scale, or 50 principal components. A
seed sets the order of the cells as well as the random state. Labels score only.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import scanpy as sc
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_score,
)

import scmoe
from benchmarks import organs, peers, synthetic
from benchmarks.autoencoder import Autoencoder
from benchmarks.cytof import warm_up
from benchmarks.data import coil20, levine32_balanced, multicenter, samusik_ramp
from benchmarks.experiment import attempt, timed
from benchmarks.tables import markdown, measured, spread
from scmoe._core.compat import one_thread
from scmoe._core.random import seeded
from scmoe._estimate import find_n_clusters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import anndata as ad

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "method", "seed")
SEEDS = 5
SETTINGS: dict = {}

SMALL, FULL = 2_000, 20_000
"""Most cells of a data set."""
N_IMAGES = 10_000
N_PCS = 50

CODE_UNITS, HIDDEN, CODE_EPOCHS = 10, (256, 128), 20
"""Of the autoencoder."""

GRID = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40)
"""Numbers of clusters that the simple methods choose from."""
SAMPLE = 3_000
"""Cells by which they choose."""
GAUSSIAN_PCS = 15
"""Dimensions of which full covariances are fitted."""


def images(load: Callable[[], ad.AnnData]) -> tuple[np.ndarray, np.ndarray]:
    adata = load()
    some = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:N_IMAGES])
    return np.asarray(adata.X)[some], adata.obs["label"].to_numpy()[some]


def codes(load: Callable[[], ad.AnnData]) -> tuple[np.ndarray, np.ndarray]:
    """Return the space of the paper: codes of an autoencoder, without augmentation."""
    x, truth = images(load)
    with seeded(0):
        model = Autoencoder(x.shape[1], CODE_UNITS, HIDDEN)
    # on a busy machine the threads of so small nets wait for each other
    with one_thread():
        model.fit(x, 0, CODE_EPOCHS)
        return model.encode(x), truth


def cells(load: Callable[[], ad.AnnData]) -> tuple[np.ndarray, np.ndarray]:
    adata = organs.cytometry(load)
    return np.asarray(adata.X), adata.obs["population"].to_numpy()


def genes(name: str) -> tuple[np.ndarray, np.ndarray]:
    adata = organs.prepared(name)
    return np.asarray(adata.X), adata.obs["population"].to_numpy()


DATASETS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "Tabula Muris kidney": functools.partial(genes, organs.KIDNEY),
    "PBMC 68k": functools.partial(genes, organs.PBMC),
    "COIL20": functools.partial(images, coil20),
    "Levine 32, balanced": functools.partial(cells, levine32_balanced),
    "1 component": functools.partial(synthetic.mixture, 1, 4_000, 0),
    "10 components": functools.partial(synthetic.mixture, 10, 4_000, 0, concentration=5.0),
    "40 components": functools.partial(synthetic.mixture, 40, 4_000, 0, concentration=5.0),
    "10x PBMC": functools.partial(genes, "10x PBMC, no names"),
    "human kidney": functools.partial(genes, "human kidney, no names"),
    "samusik RAMP": functools.partial(cells, samusik_ramp),
    "bodenmiller H08": functools.partial(
        cells, functools.partial(scmoe.datasets.bodenmiller, "H08")
    ),
    "bodenmiller H05": functools.partial(
        cells, functools.partial(scmoe.datasets.bodenmiller, "H05")
    ),
    "MNIST": functools.partial(images, scmoe.datasets.mnist),
    "MNIST, codes": functools.partial(codes, scmoe.datasets.mnist),
    "Fashion-MNIST": functools.partial(images, scmoe.datasets.fashion_mnist),
    "multicenter 01": functools.partial(cells, functools.partial(multicenter, 1)),
}
"""By size, the small ones first."""

OF_COMPONENTS = (
    *("Tabula Muris kidney", "PBMC 68k", "10x PBMC", "human kidney"),
    *("COIL20", "MNIST", "MNIST, codes", "Fashion-MNIST"),
)
"""Whose values are principal components or codes; those of the others are markers."""

TUNED_ON = ("bodenmiller H05", "MNIST")
"""Settings of all methods but the tree."""


@functools.lru_cache(maxsize=4)
def load(name: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values by the rule of scanpy, float32, and the population of each cell."""
    x, truth = DATASETS[name]()
    if len(x) > most:
        some = np.random.default_rng(0).permutation(len(x))[:most]
        x, truth = x[some], truth[some]
    if x.shape[1] > N_PCS:
        x = sc.pp.pca(np.asarray(x, np.float32), n_comps=min(N_PCS, len(x) - 1), random_state=0)
    return np.ascontiguousarray(x, dtype=np.float32), truth.astype(str)


def estimated(x: np.ndarray, seed: int, *, method: str) -> np.ndarray:
    """Return labels by scmoe, -1 for noise, with its one setting."""
    settings = {} if method == "stability" else {"evidence": ()}
    return find_n_clusters(x, settings=settings, method=method, seed=seed).labels


def bic(x: np.ndarray, seed: int) -> np.ndarray:
    """Cluster by the Gaussian mixture with the lowest BIC on a sample of the cells."""
    x = x[:, :GAUSSIAN_PCS].astype(np.float64)
    part = x[np.random.default_rng(seed).permutation(len(x))[:SAMPLE]]
    models = [synthetic.fitted(part, n, "full", seed) for n in GRID if 5 * n <= len(part)]
    return min(models, key=lambda model: model.bic(part)).predict(x)


def silhouette(x: np.ndarray, seed: int) -> np.ndarray:
    """Cluster by k-means with the largest mean silhouette on a sample of the cells."""
    part = np.random.default_rng(seed).permutation(len(x))[:SAMPLE]
    found = [
        KMeans(n, n_init=3, random_state=seed).fit_predict(x) for n in GRID if 5 * n <= len(x)
    ]
    return max(found, key=lambda labels: silhouette_score(x[part], labels[part]))


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "stability": functools.partial(estimated, method="stability"),
    "tree": functools.partial(estimated, method="tree"),
    "density": functools.partial(estimated, method="density"),
    "santos": functools.partial(estimated, method="santos"),
    "Leiden, resolution 1": peers.leiden,
    "Gaussian mixture, BIC": bic,
    "k-means, silhouette": silhouette,
}


def scores(truth: np.ndarray, found: np.ndarray) -> dict:
    """Return the numbers of clusters and populations, agreement of labels, share of noise.

    Noise is no cluster, but scored as one more.
    """
    noise = found.astype(str) == "-1"
    return {
        "n_clusters": len(np.unique(found[~noise])),
        "n_populations": len(np.unique(truth)),
        "nmi": float(normalized_mutual_info_score(truth, found)),
        "ari": float(adjusted_rand_score(truth, found)),
        "weighted_f": scmoe.metrics.weighted_f(truth, found),
        "noise": float(noise.mean()),
    }


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each seed, data set and method."""
    warm_up()
    methods = options.choose("methods", METHODS)
    most = SMALL if options.size == "small" else FULL
    for seed in options.seeds:
        for dataset in options.choose("datasets", DATASETS):
            x, truth = load(dataset, most)
            order = np.random.default_rng(seed).permutation(len(x))
            for method in methods:

                def call(x=x[order], truth=truth[order], method=method, seed=seed) -> dict:
                    found, seconds = timed(lambda: METHODS[method](x, seed))
                    return {**scores(truth, found), "seconds": seconds}

                yield attempt(
                    dict(zip(KEYS, (dataset, len(x), method, seed), strict=True)), call, say
                )


TEXT = f"""## The number of clusters

Nobody is told it. All methods see the same values: markers on the arcsinh scale, or {N_PCS}
principal components of genes or pixels; populations of at least 30 cells for cytometry.
*tree*, *stability*, *density* and *santos* are the methods of `scmoe.tl.n_clusters`; by default
*tree* is taken for markers, and *stability* for principal components. The settings of the last
three were chosen on {" and ".join(TUNED_ON)}, and with a look at simulated clouds without groups,
those of *tree* on all sets of cytometry below. *santos* has the settings of the paper, which were
made for codes of an autoencoder and not for principal components; *MNIST, codes* are those of a
small dense one after {CODE_EPOCHS} epochs. BIC and silhouette choose among
{", ".join(map(str, GRID))}.
Noise is scored as one more cluster. Median over the seeds, and the range in brackets; a seed sets
the order of the cells and the random state.

The number of populations is how many names somebody gave; there need not be as many groups in
the values.
"""


def section(result: dict) -> str:
    """Return one table for each data set, and one with the errors of the numbers."""
    text, table = TEXT, measured(result["records"])
    if table.empty:
        return text
    table["off"] = np.abs(np.log2(table["n_clusters"].clip(lower=0.5) / table["n_populations"]))
    ran = [name for name in DATASETS if name in set(table["dataset"])]
    shown = [name for name in METHODS if name in set(table["method"])]
    text += "\n### All data sets\n\nFound numbers of clusters.\n\n" + markdown(
        ["data", "populations", *shown],
        [
            [name, int(rows["n_populations"].iloc[0])]
            + [spread(rows.loc[rows["method"] == m, "n_clusters"], 0) for m in shown]
            for name, rows in ((name, table[table["dataset"] == name]) for name in ran)
        ],
    )
    # of a single population NMI and ARI are all or nothing
    unseen = table[~table["dataset"].str.startswith(TUNED_ON) & (table["n_populations"] > 1)]
    components = unseen["dataset"].isin(OF_COMPONENTS)
    text += (
        "\nMeans over the data sets on which no setting was chosen but the tree's, and that have "
        "more than one population, of the medians over the seeds. *Off*: by how many doublings "
        "the number of clusters misses the number of populations.\n"
    )
    for what, rows in (("Markers", unseen[~components]), ("Components", unseen[components])):
        medians = rows.groupby(["dataset", "method"])[["off", "nmi", "ari", "weighted_f"]].median()
        means = medians.groupby("method").mean()
        if not len(means):
            continue
        text += f"\n{what} ({rows['dataset'].nunique()} data sets):\n\n" + markdown(
            ["method", "off", "NMI", "ARI", "weighted F"],
            (
                [m, f"{means['off'][m]:.2f}"]
                + [f"{means[c][m]:.3f}" for c in ("nmi", "ari", "weighted_f")]
                for m in shown
                if m in means.index
            ),
        )
    for name in ran:
        rows = table[table["dataset"] == name]
        text += f"\n### {name}: {rows['n_cells'].iloc[0]:,} cells\n\n" + markdown(
            ["method", "clusters", "NMI", "ARI", "weighted F", "noise", "seconds", "seeds"],
            (
                [m, spread(runs["n_clusters"], 0)]
                + [spread(runs[c], 3) for c in ("nmi", "ari", "weighted_f")]
                + [spread(runs["noise"], 2), f"{np.median(runs['seconds']):.1f}", len(runs)]
                for m, runs in ((m, rows[rows["method"] == m]) for m in shown)
                if len(runs)
            ),
        )
    return text
