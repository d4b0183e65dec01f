"""Augmented cells: which augmentations keep the cell type, and how much they help coupled arms.

`scmoe.model.CplMixVAE` with the true number of populations, with arms that see the cell itself and
with arms that see copies of every kind. A seed sets the order of the cells as well as the random
state. Labels score only, but for their number.

Whether a copy keeps its label: the 15 nearest of the clean cells, without the copy's own, vote.
They are sought among scaled markers, among principal components of log-normalised counts, and
among gradients of straightened digits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scvi
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from benchmarks import numbers
from benchmarks.cytof import warm_up
from benchmarks.data import pbmc_10x
from benchmarks.experiment import attempt, timed
from benchmarks.tables import markdown, measured, spread
from scmoe import nn
from scmoe._core.random import seeded
from scmoe.model import CplMixVAE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "method", "seed")
SEEDS = 3
SETTINGS: dict = {}

SMALL, FULL = 600, 10_000
"""Most cells of a data set."""
SMALL_STEPS = 60
N_VOTES = 15
JUDGED = 2_000
"""Cells whose copies are judged."""
N_PCS = 30

NETWORKS = ("posterior",)
METHODS: dict[str, Any] = {
    "none": False,
    "neighbors": "neighbors",
    "thinning": "thinning",
    "dropout": "dropout",
    "neighbors, thinning": ["neighbors", "thinning"],
    "neighbors, dropout": ["neighbors", "dropout"],
    "affine": "affine",
    "posterior": "posterior",
}


@dataclass(frozen=True)
class Kind:
    """A kind of data: its augmentations, and the space in which neighbours are searched."""

    methods: tuple[str, ...]
    space: Callable[[np.ndarray], Callable[[torch.Tensor], np.ndarray]]
    setup: dict[str, Any]
    image_shape: tuple[int, ...] | None = None


def as_they_are(clean: np.ndarray) -> Callable[[torch.Tensor], np.ndarray]:
    return lambda x: x.numpy()


def components(clean: np.ndarray) -> Callable[[torch.Tensor], np.ndarray]:
    """Return principal components of log-normalised counts; cells are log1p of counts."""
    counts = np.expm1(clean)
    typical = np.median(counts.sum(1))

    def normalized(x: np.ndarray) -> np.ndarray:
        counts = np.expm1(x)
        return np.log1p(typical * counts / counts.sum(1, keepdims=True).clip(1))

    pca = PCA(min(N_PCS, *clean.shape), random_state=0).fit(normalized(clean))
    return lambda x: pca.transform(normalized(x.numpy()))


def gradients(clean: np.ndarray) -> Callable[[torch.Tensor], np.ndarray]:
    """Return the directions of the edges of deskewed digits."""
    shape = (28, 28)
    return lambda x: nn.oriented_gradients(nn.straighten(x, shape), shape).numpy()


COMMON = ("none", "dropout", *NETWORKS)
MARKERS = Kind((*COMMON, "neighbors", "neighbors, dropout"), as_they_are, {})
COUNTS = Kind(
    (*COMMON, "neighbors", "thinning", "neighbors, thinning"), components, {"counts": True}
)
DIGITS = Kind((*COMMON, "affine"), gradients, {}, (28, 28))


def counts() -> tuple[np.ndarray, np.ndarray]:
    adata = pbmc_10x()
    return adata.X.toarray(), adata.obs["population"].to_numpy()


DATASETS: dict[str, tuple[Callable[[], tuple[np.ndarray, np.ndarray]], Kind]] = {
    "Levine 32, balanced": (numbers.DATASETS["Levine 32, balanced"], MARKERS),
    "samusik RAMP": (numbers.DATASETS["samusik RAMP"], MARKERS),
    "10x PBMC": (counts, COUNTS),
    "MNIST": (numbers.DATASETS["MNIST"], DIGITS),
}


class Watched(CplMixVAE):
    """A model that keeps the augmentation of its arms."""

    def _copies(self, *args, **kwargs):
        self.copies = super()._copies(*args, **kwargs)
        return self.copies


def votes(where: np.ndarray, truth: np.ndarray, copies: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return the label of each copy by its neighbouring cells, without its own cell."""
    near = NearestNeighbors(n_neighbors=N_VOTES + 1).fit(where)
    found = near.kneighbors(copies, return_distance=False)
    others = [row[row != i][:N_VOTES] for row, i in zip(found, own, strict=True)]
    names, codes = np.unique(truth, return_inverse=True)
    return names[[np.bincount(codes[row]).argmax() for row in others]]


def kept(model: Watched, x: np.ndarray, truth: np.ndarray, kind: Kind, seed: int) -> dict:
    """Return the share of copies with the label of their cell, and the same of the cells.

    ``moved`` is the median distance of copies from their cells, in those of random cells.
    """
    raw = torch.from_numpy(x)
    with torch.inference_mode():
        clean = model.module.scale(raw.to(model.device)).cpu()
    space = kind.space(clean.numpy())
    where = space(clean)
    own = np.random.default_rng(seed).permutation(len(x))[:JUDGED]
    shares = {"kept_clean": np.mean(votes(where, truth, where[own], own) == truth[own])}
    if model.copies is None:
        return {name: float(value) for name, value in shares.items()}
    with seeded(seed):
        index = torch.from_numpy(own)
        copies = space(model.copies(raw[index].to(model.device), index).cpu())
    away = np.linalg.norm(copies - where[own], axis=1)
    random = np.linalg.norm(where[own] - where[np.roll(own, 1)], axis=1)
    shares["kept"] = np.mean(votes(where, truth, copies, own) == truth[own])
    shares["moved"] = np.median(away) / np.median(random)
    return {name: float(value) for name, value in shares.items()}


def cluster(
    x: np.ndarray, truth: np.ndarray, seed: int, method: str, kind: Kind, size: str
) -> dict:
    """Return the scores of a training, and how many copies keep their label."""
    cells = ad.AnnData(np.array(x))
    if kind.image_shape is not None:
        cells.uns["image_shape"] = np.array(kind.image_shape)
    before = scvi.settings.seed
    scvi.settings.seed = seed
    try:
        Watched.setup_anndata(cells, **kind.setup)
        model = Watched(cells, len(np.unique(truth)))
        n_batches = -(-len(x) // 500)
        epochs = {"max_epochs": -(-SMALL_STEPS // n_batches)} if size == "small" else {}
        _, seconds = timed(
            lambda: model.train(augment=METHODS[method], enable_progress_bar=False, **epochs)
        )
    finally:
        scvi.settings.seed = before
    return {
        **numbers.scores(truth, model.predict().astype(str)),
        "consensus": float(np.mean(model.get_consensus())),
        **kept(model, x, truth, kind, seed),
        "seconds": seconds,
    }


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each seed, data set and method.

    The small size has no networks for genes and pixels: they would take longer than all else.
    """
    warm_up()
    methods = options.choose("methods", METHODS)
    most = SMALL if options.size == "small" else FULL
    for seed in options.seeds:
        for dataset in options.choose("datasets", DATASETS):
            load, kind = DATASETS[dataset]
            x, truth = load()
            some = np.random.default_rng(0).permutation(len(x))[:most]
            order = np.random.default_rng(seed).permutation(some)
            x, truth = np.asarray(x[order], np.float32), truth[order].astype(str)
            left_out = () if options.size == "full" or kind is MARKERS else NETWORKS
            for method in methods:
                if method not in kind.methods or method in left_out:
                    continue
                call = functools.partial(cluster, x, truth, seed, method, kind, options.size)
                yield attempt(
                    dict(zip(KEYS, (dataset, len(x), method, seed), strict=True)), call, say
                )


TEXT = f"""## Copies that keep the type

`scmoe.model.CplMixVAE` with the true number of populations and all else as it comes, but for the
changes by which the arms get copies of a cell. *kept*: share of copies whose {N_VOTES} nearest of
the cells, without their own, have the label of their cell; the first row of each table is that of
the cells themselves. They are sought among scaled markers, principal components of log-normalised
counts, and gradients of straightened digits. *moved*: median distance of copies from their cells,
by that of two random cells. *agree*: share of the cells that all pairs of arms give the same
category. Median over the seeds, and the range in brackets.
"""


def section(result: dict) -> str:
    """Return a table for each data set."""
    text, table = TEXT, measured(result["records"])
    if table.empty:
        return text
    for dataset in (name for name in DATASETS if name in set(table["dataset"])):
        rows = table[table["dataset"] == dataset]
        text += f"\n### {dataset}: {rows['n_cells'].iloc[0]:,} cells\n\n" + markdown(
            ["copies", "NMI", "ARI", "weighted F", "agree", "kept", "moved", "seconds", "seeds"],
            (
                _row(method, runs)
                for method, runs in ((m, rows[rows["method"] == m]) for m in METHODS)
                if len(runs)
            ),
        )
    return text


def _row(method: str, runs) -> list:
    share = runs["kept_clean"] if method == "none" else runs["kept"]
    moved = runs["moved"] if "moved" in runs else runs["kept_clean"] * np.nan
    return [
        method,
        *(spread(runs[score], 3) for score in ("nmi", "ari", "weighted_f", "consensus")),
        spread(share, 3),
        spread(moved, 2),
        f"{np.median(runs['seconds']):.0f}",
        len(runs),
    ]
