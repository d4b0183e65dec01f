"""Images: clusters of digits, clothes and objects, with and without a similarity.

No label is seen, but for the number of classes, which all methods but Leiden are told, as in the
papers. All images of a data set are clustered and scored. A seed sets the order of the images as
well as the random state.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import scmoe
from benchmarks import autoencoder, peers
from benchmarks.data import coil20
from benchmarks.experiment import attempt, in_order_of, timed
from benchmarks.tables import markdown, measured, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import anndata as ad

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_images", "method", "seed")
SEEDS = 3
SETTINGS: dict = {}

DATASETS: dict[str, Callable[[], ad.AnnData]] = {
    "MNIST": scmoe.datasets.mnist,
    "Fashion-MNIST": scmoe.datasets.fashion_mnist,
    "COIL20": coil20,
}
WRITING = ("MNIST",)
"""Straightening is for writing: clothes and objects do not lean."""

SMALL = 10_000
N2D_EPOCHS = {"full": 20, "small": 10}
STEPS = {"full": 4_000, "small": 1_500}
MAX_EPOCHS = 200
"""Of data sets so small that as many steps would see them for longer."""

BATCH = 256

GRADIENTS, PIXELS = "UMAP of gradients", "UMAP of pixels"


def model_settings(n_classes: int) -> dict:
    """Return the settings of the dense networks, the same for all data sets."""
    return {
        "n_clusters": n_classes,
        "model_kwargs": {"n_hidden": 512, "n_latent": 20},
        "train_kwargs": {"batch_size": BATCH, "plan_kwargs": {"lr": 1e-3}},
    }


def embed(adata: ad.AnnData, kind: str, seed: int, *, writing: bool) -> None:
    """Write the embedding of the similarity to ``.obsm["X_umap"]``."""
    use_rep = "X"
    if kind == GRADIENTS:
        if "X_gradients" not in adata.obsm:
            scmoe.similarity.image_gradients(adata, straighten=writing)
        use_rep = "X_gradients"
    dimensions = {"n_components": 5, "min_dist": 0.0} if kind == GRADIENTS else {}
    scmoe.similarity.umap(
        adata, metric="euclidean", use_rep=use_rep, random_state=seed, **dimensions
    )


def neighbours(n_classes: int) -> int:
    """Return a number of neighbours: most images of a class in a batch (the paper: 10 of 12.8)."""
    return max(round(0.8 * BATCH / n_classes), 1)


def scmoe_labels(adata: ad.AnnData, seed: int, steps: int, *, similar: bool = True) -> np.ndarray:
    """Cluster by neighbours within the batch, on the given embedding."""
    n_classes = adata.obs["label"].nunique()
    settings = model_settings(n_classes)
    settings["train_kwargs"]["max_steps"] = min(steps, MAX_EPOCHS * (adata.n_obs // BATCH))
    if not similar:
        settings["model_kwargs"]["similarity_weight"] = 0.0
    scmoe.tl.cluster(
        adata,
        similarity=scmoe.similarity.Knn(n_neighbors=neighbours(n_classes)),
        random_state=seed,
        progress=False,
        **settings,
    )
    return adata.obs["scmoe"].to_numpy().astype(str)


def mixture_labels(adata: ad.AnnData, seed: int) -> np.ndarray:
    """Cluster by a Gaussian mixture on the embedding alone, without a model."""
    n_classes = adata.obs["label"].nunique()
    x = np.asarray(adata.obsm["X_umap"], dtype=np.float64)
    return peers.gaussian_mixture(x, seed, n_classes)


def leiden_labels(adata: ad.AnnData, seed: int) -> np.ndarray:
    return peers.leiden(np.asarray(adata.obsm["X_gradients"]), seed, resolution=0.3)


METHODS = {
    f"scmoe, {GRADIENTS}": GRADIENTS,
    f"Gaussian mixture, {GRADIENTS}": GRADIENTS,
    f"scmoe, {PIXELS} (the paper's)": PIXELS,
    f"Gaussian mixture, {PIXELS}": PIXELS,
    "scmoe without similarity": PIXELS,
    "N2D": None,
    "k-means of pixels": None,
    "Leiden, resolution 0.3, graph of gradients": GRADIENTS,
}
"""The embedding that each looks at."""


def find(name: str, adata: ad.AnnData, seed: int, size: str) -> np.ndarray:
    """Return the labels of all images."""
    n_classes = adata.obs["label"].nunique()
    if name.startswith("scmoe"):
        similar = "without" not in name
        return scmoe_labels(adata, seed, STEPS[size], similar=similar)
    if name.startswith("Gaussian"):
        return mixture_labels(adata, seed)
    if name.startswith("Leiden"):
        return leiden_labels(adata, seed)
    if name == "N2D":
        return autoencoder.n2d(np.asarray(adata.X), seed, n_classes, epochs=N2D_EPOCHS[size])
    return peers.k_means(np.asarray(adata.X), seed, n_classes)


def separation(adata: ad.AnnData) -> dict:
    """Return the distance (MMD) of the classes in the codes, and that of halves of a class."""
    table = scmoe.metrics.mmd_table(
        adata.obsm["X_scmoe"], adata.obs["label"].to_numpy(), max_cells=500
    ).to_numpy()
    between = table[~np.eye(len(table), dtype=bool)]
    return {
        "mmd2_between_least": float(between.min()),
        "mmd2_between_median": float(np.median(between)),
        "mmd2_within_largest": float(np.diag(table).max()),
    }


def measure(name: str, adata: ad.AnnData, seed: int, size: str) -> dict:
    """Cluster all images, and score the clusters by the classes."""
    truth = adata.obs["label"].to_numpy()
    found, seconds = timed(lambda: find(name, adata, seed, size))
    return {
        "accuracy": scmoe.metrics.accuracy(truth, found),
        "nmi": float(normalized_mutual_info_score(truth, found)),
        "ari": float(adjusted_rand_score(truth, found)),
        "n_clusters": len(np.unique(found)),
        "seconds": seconds,
        **(separation(adata) if name.startswith("scmoe") else {}),
    }


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each data set, seed and method."""
    methods = options.choose("methods", METHODS)
    for dataset in options.choose("datasets", DATASETS):
        adata, writing = DATASETS[dataset](), dataset in WRITING
        if options.size == "small" and adata.n_obs > SMALL:
            some = np.random.default_rng(0).permutation(adata.n_obs)[:SMALL]
            adata = adata[some].copy()
        for seed in options.seeds:
            shuffled = in_order_of(seed, adata)
            present = None
            for method in methods:
                kind = METHODS[method]
                if kind is not None and kind != present:
                    embed(shuffled, kind, seed, writing=writing)
                    present = kind
                identity = dict(zip(KEYS, (dataset, adata.n_obs, method, seed), strict=True))
                call = functools.partial(measure, method, shuffled, seed, options.size)
                yield attempt(identity, call, say)


TEXT = f"""## Images

All images of a data set, without labels; the number of classes is told. scmoe with dense networks
(two hidden layers of 512) and the paper's similarity, the nearest neighbours within a batch of
{BATCH}, on two embeddings: *UMAP of pixels*, the paper's protocol, and *UMAP of gradients*, our
own: `scmoe.similarity.image_gradients` (edges of straightened images). A Gaussian mixture on
the same embedding shows what the similarity knows before any model. N2D is our implementation,
with {N2D_EPOCHS["full"]} epochs for its autoencoder instead of its authors' 1,000. Median over the
seeds, and the range in brackets. Times are without the embedding.

Published: MoE-Sim-VAE .975 ACC and .935 NMI on MNIST; N2D .979 and .942 on MNIST, .672 ACC on
Fashion-MNIST; Santos .97 on MNIST and .68 on Fashion-MNIST.

*MMD*: squared maximum mean discrepancy of the codes between two classes (least and median over the
pairs), and the largest between two halves of one class.
"""


def section(result: dict) -> str:
    """Return one table for each data set and number of images."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    for (dataset, n), rows in table.groupby(["dataset", "n_images"], sort=False):
        text += f"\n### {dataset}, {n:,} images\n\n"
        text += markdown(
            ["method", "ACC", "NMI", "ARI", "MMD between", "within", "seconds", "seeds"],
            (
                [
                    method,
                    spread(runs["accuracy"], 3),
                    spread(runs["nmi"], 3),
                    spread(runs["ari"], 3),
                    _between(runs),
                    _number(runs["mmd2_within_largest"], 3),
                    f"{np.median(runs['seconds']):.0f}",
                    len(runs),
                ]
                for method, runs in sorted(
                    rows.groupby("method"), key=lambda item: list(METHODS).index(item[0])
                )
            ),
        )
    return text


def _number(values, digits: int) -> str:
    values = values.dropna()
    return f"{np.median(values):.{digits}f}" if len(values) else "–"


def _between(runs) -> str:
    least, median = runs["mmd2_between_least"].dropna(), runs["mmd2_between_median"].dropna()
    return f"{np.median(least):.2f}, {np.median(median):.2f}" if len(least) else "–"
