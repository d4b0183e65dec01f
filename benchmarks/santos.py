"""Santos' mixture of VAEs on images: pretraining, the manager, the trained model.

The tables II to IV of the paper, and its relatives as ablations: no pretraining, the losses of
DAMIC and MIXAE, all experts for every image, N2D. No label is seen, and no number of classes
either, but where a row says so. All images of a data set are clustered and scored. A seed sets the
order of the images as well as the random state.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import scvi
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import scmoe
from benchmarks import autoencoder
from benchmarks.data import coil20
from benchmarks.experiment import attempt, in_order_of, timed
from benchmarks.tables import markdown, measured, spread
from scmoe._core.random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import anndata as ad

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_images", "method", "seed")
SEEDS = 5
SMALL = 10_000
N2D_EPOCHS = {"full": 20, "small": 10}

USPS_SIDE, USPS_SIZE = 16, 9_298


def usps_sized() -> ad.AnnData:
    """Return MNIST in the size of USPS: 9,298 images of 16 x 16 averaged pixels."""
    images = scmoe.datasets.mnist()
    some = np.sort(np.random.default_rng(0).permutation(images.n_obs)[:USPS_SIZE])
    x = torch.from_numpy(np.asarray(images.X[some])).view(-1, 1, 28, 28)
    small = torch.nn.functional.interpolate(x, USPS_SIDE, mode="area").squeeze(1).numpy()
    return scmoe.io.from_array(small, obs={"label": images.obs["label"].to_numpy()[some]})


DATASETS: dict[str, Callable[[], ad.AnnData]] = {
    "MNIST": scmoe.datasets.mnist,
    "Fashion-MNIST": scmoe.datasets.fashion_mnist,
    "USPS-sized MNIST": usps_sized,
    "COIL20": coil20,
}
FLIPPED = ("Fashion-MNIST", "COIL20")
"""Data sets whose images are mirrored, as in the paper."""

MODEL = {"n_hidden": 512, "n_layers": 2}
"""Dense networks; the same for all data sets."""

SETTINGS: dict = {"model": MODEL}

FOUND = "scmoe, K found"
TOLD = "scmoe, K told"
DECODED = "scmoe, K found among decoded images"
DENSITY = "scmoe, K found by density"
PAPER = "scmoe, K found, the paper's UMAP and HDBSCAN"
METHODS: dict[str, dict[str, Any]] = {
    FOUND: {},
    DECODED: {"pretrain": {"space": "decoded"}},
    DENSITY: {"pretrain": {"method": "density"}},
    PAPER: {"pretrain": {"method": "santos"}},
    TOLD: {"told": True},
    f"{TOLD}, with augmentation": {"told": True, "augment": True},
    f"{TOLD}, without pretraining": {"told": True, "train": {"pretrain": False}},
    f"{TOLD}, loss of DAMIC": {"told": True, "model": {"loss": "damic"}},
    f"{TOLD}, loss of MIXAE": {"told": True, "model": {"loss": "mixae"}},
    f"{TOLD}, DAMIC without pretraining": {
        "told": True,
        "model": {"loss": "damic", "n_routed": None},
        "train": {"pretrain": False},
    },
    f"{TOLD}, MIXAE without pretraining": {
        "told": True,
        "model": {"loss": "mixae", "n_routed": None},
        "train": {"pretrain": False},
    },
    f"{TOLD}, every image through all experts": {"told": True, "model": {"n_routed": None}},
    f"{TOLD}, convolutions": {
        "told": True,
        "model": {"network": "conv", "activation": "relu"},
        "augment": True,
    },
    "N2D, K told": {},
}
"""What is other than in the first row."""

ABLATED = ("USPS-sized MNIST",)
"""Where all rows are run; elsewhere those of MAIN."""
MAIN = (FOUND, PAPER, TOLD, "N2D, K told")


def scores(truth: np.ndarray, found: np.ndarray, name: str) -> dict:
    return {
        f"{name}_accuracy": scmoe.metrics.accuracy(truth, found),
        f"{name}_nmi": float(normalized_mutual_info_score(truth, found)),
        f"{name}_ari": float(adjusted_rand_score(truth, found)),
    }


def run_model(adata: ad.AnnData, seed: int, variant: dict, *, flip: bool) -> dict:
    """Return the scores of a training after each of its stages."""
    truth = adata.obs["label"].to_numpy().astype(str)
    n_classes = len(np.unique(truth))
    settings = {**MODEL, **variant.get("model", {})}
    training = dict(variant.get("train", {}))
    if not training.get("pretrain", True):
        settings["n_latent"] = 10
    scmoe.model.MoEVAE.setup_anndata(adata)
    augment = {"flip": flip} if variant.get("augment", False) else False
    with seeded(seed):
        scvi.settings.seed = seed
        model = scmoe.model.MoEVAE(adata, n_classes if "told" in variant else "auto", **settings)
        record: dict = {}
        if training.get("pretrain", True):
            _, record["pretraining_seconds"] = timed(
                lambda: model.pretrain(
                    augment=augment, progress=False, **variant.get("pretrain", {})
                )
            )
            record |= of_pretraining(model, truth)
        _, record["training_seconds"] = timed(
            lambda: model.train(augment=augment, enable_progress_bar=False, **training)
        )
    found = model.predict().astype(str)
    best = model.predict(by="reconstruction").astype(str)
    return {
        **record,
        "n_clusters": len(np.unique(found)),
        **scores(truth, found, "final"),
        **scores(truth, best, "reconstruction"),
    }


def of_pretraining(model: scmoe.model.MoEVAE, truth: np.ndarray) -> dict:
    """Return tables II and III: the clusters of pretraining, and the accuracy of the manager."""
    done = model.pretraining
    clear = done.clusters.labels >= 0
    model.module.eval()
    with torch.inference_mode():
        x = torch.from_numpy(np.asarray(model.adata.X, dtype=np.float32))
        logits = torch.cat([model.module.manage(model.module.scale(p)) for p in x.split(4096)])
    return {
        "n_latent": done.shared.n_latents[0],
        "n_latents": list(done.n_latents),
        "n_experts": done.clusters.n_clusters,
        "labelled": float(clear.mean()),
        **scores(truth[clear], done.clusters.labels[clear].astype(str), "labelled"),
        **scores(truth, logits.argmax(1).numpy().astype(str), "manager"),
    }


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each data set, seed and method."""
    for dataset in options.choose("datasets", DATASETS):
        adata = DATASETS[dataset]()
        if options.size == "small" and adata.n_obs > SMALL:
            some = np.random.default_rng(0).permutation(adata.n_obs)[:SMALL]
            adata = adata[some].copy()
        methods = options.choose("methods", METHODS)
        if options.methods is None and dataset not in ABLATED:
            methods = [name for name in methods if name in MAIN]

        def measure(name: str, seed: int, adata: ad.AnnData, dataset=dataset) -> dict:
            if name.startswith("N2D"):
                truth = adata.obs["label"].to_numpy().astype(str)
                labels, seconds = timed(
                    lambda: autoencoder.n2d(
                        np.asarray(adata.X),
                        seed,
                        len(np.unique(truth)),
                        epochs=N2D_EPOCHS[options.size],
                    )
                )
                return {**scores(truth, labels, "final"), "training_seconds": seconds}
            return run_model(adata, seed, METHODS[name], flip=dataset in FLIPPED)

        for seed in options.seeds:
            for method in methods:
                identity = dict(zip(KEYS, (dataset, adata.n_obs, method, seed), strict=True))
                call = functools.partial(measure, method, seed, in_order_of(seed, adata))
                yield attempt(identity, call, say)


TEXT = f"""## Santos' mixture of VAEs

`scmoe.model.MoEVAE` on images, without augmentation and with dense networks (two hidden layers of
{MODEL["n_hidden"]} units) and about 4,000 steps of 256 images for each of its networks, where the
paper has augmentation, convolutions and 1,000 epochs. Numbers of clusters and latent sizes are
found unless a row says *K told*. All images are scored, those that pretraining calls noise too,
except under *labelled*. Median over the seeds, and the range in brackets.

Published (tables II to IV, means of five runs): MNIST 10 experts, 96 % labelled, accuracy of those
.978, manager .967 (NMI .922, ARI .927), in the end .97; Fashion-MNIST 11 experts, 48 % labelled,
.673, manager .623 (.685, .528), in the end .68.

*Manager* is the accuracy of the manager after pretraining, *final* that of the trained model, *by
reconstruction* that of the expert which explains an image best.
"""


def section(result: dict) -> str:
    """Return one table for each data set."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    order = list(METHODS)
    for (dataset, n), rows in table.groupby(["dataset", "n_images"], sort=False):
        text += f"\n### Santos: {dataset}, {n:,} images\n\n"
        text += markdown(
            [
                "method",
                "latent",
                "K",
                "labelled",
                "ACC of those",
                "manager",
                "final ACC",
                "NMI",
                "ARI",
                "by reconstruction",
                "seconds",
                "seeds",
            ],
            (
                [
                    method,
                    _spread(runs, "n_latent", 0),
                    _spread(runs, "n_experts", 0),
                    _spread(runs, "labelled", 2),
                    _spread(runs, "labelled_accuracy", 3),
                    _spread(runs, "manager_accuracy", 3),
                    _spread(runs, "final_accuracy", 3),
                    _spread(runs, "final_nmi", 3),
                    _spread(runs, "final_ari", 3),
                    _spread(runs, "reconstruction_accuracy", 3),
                    _seconds(runs),
                    len(runs),
                ]
                for method, runs in sorted(
                    rows.groupby("method"), key=lambda item: order.index(item[0])
                )
            ),
        )
    return text


def _spread(runs, name: str, digits: int) -> str:
    values = runs[name].dropna() if name in runs else []
    return spread(values, digits) if len(values) else "–"


def _seconds(runs) -> str:
    total = runs["training_seconds"]
    if "pretraining_seconds" in runs:
        total = total + runs["pretraining_seconds"].fillna(0)
    return f"{np.median(total):.0f}"
