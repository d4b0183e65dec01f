"""Coupled mixture VAEs: benefit and cost of coupling, meaning of consensus and states.

`scmoe.tl.cluster(adata, model="cpl-mixvae")` with the number of populations found or told, with
one arm, without the start from communities, and with the terms of the released code. A seed sets
the order of the cells as well as the random state. Labels score only, but for their number.
"""

from __future__ import annotations

import functools
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from scvi import REGISTRY_KEYS
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import scmoe
from benchmarks import numbers
from benchmarks.augmentation import counts
from benchmarks.cytof import warm_up
from benchmarks.experiment import attempt, timed
from benchmarks.tables import MISSING, markdown, measured, spread
from scmoe._core.compat import one_thread
from scmoe._core.random import seeded
from scmoe.model import CplMixVAE
from scmoe.model._cplmixvae_module import CplMixVAEModule
from scmoe.train import BATCH_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "n_cells", "method", "seed")
SEEDS = 5
SETTINGS: dict = {}

SMALL, FULL = 1_000, 10_000
"""Most cells of a data set."""
SMALL_EPOCHS = 20
SIDE = 28
LEAST = 30
"""Cells of a category, below which nothing is said of its states."""

TOLD = "told"
AUTO_K, TOLD_K, ONE_ARM = "coupled, K auto", "coupled, K told", "one arm, K told"
METHODS: dict[str, dict[str, Any]] = {
    AUTO_K: {},
    TOLD_K: {"n_clusters": TOLD},
    ONE_ARM: {"n_clusters": TOLD, "model_kwargs": {"n_arms": 1}},
    f"{TOLD_K}, without the start": {"n_clusters": TOLD, "train_kwargs": {"start": False}},
    f"{TOLD_K}, scaled distance": {
        "n_clusters": TOLD,
        "model_kwargs": {"distance": "scaled", "coupling_weight": 0.02},
    },
    f"{TOLD_K}, released distance and weights": {
        "n_clusters": TOLD,
        "model_kwargs": {"distance": "scaled", "coupling_weight": 1.0, "entropy_weight": 1.0},
    },
}
"""Arguments of ``tl.cluster``."""
MAIN = tuple(METHODS)[:4]


@dataclass(frozen=True)
class Data:
    """A data set, and the options of ``tl.cluster`` for it."""

    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    components: bool = False
    images: bool = False
    ablated: bool = False
    """Whether the methods beyond the main ones are run."""


def known(name: str, **how: Any) -> tuple[str, Data]:
    """Read a data set of the experiment *numbers*, with all of its cells."""
    return name, Data(functools.partial(numbers.load, name, numbers.FULL), **how)


DATASETS: dict[str, Data] = dict(
    [
        known("Levine 32, balanced", ablated=True),
        known("Tabula Muris kidney", components=True, ablated=True),
        known("PBMC 68k", components=True, ablated=True),
        known("10x PBMC", components=True),
        known("samusik RAMP"),
        ("10x PBMC, counts", Data(counts, {"likelihood": "nb"})),
        known("bodenmiller H05"),
        ("MNIST", Data(functools.partial(numbers.images, scmoe.datasets.mnist), images=True)),
    ]
)
"""By what a run takes, the quick ones first."""

COST = "cost"
ARMS, CATEGORIES = (1, 2, 4, 8), (10, 25, 50, 100)
COST_CELLS, COST_MARKERS, COST_BATCH = 20_000, 40, 500
REPEATS = {"full": 40, "small": 3}
ADAM = 4
"""Numbers that Adam keeps for a weight: itself, its gradient and two moments."""


# -- clusters ------------------------------------------------------------------------------


def own_population(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return whether each cell is of the most frequent population of its cluster."""
    table = pd.crosstab(truth, found)
    return truth == table.idxmax()[found].to_numpy()


def of_consensus(right: np.ndarray, consensus: np.ndarray | None, entropy: np.ndarray) -> dict:
    """Return the accuracy of cells where the arms agree and where not, and that by entropy.

    ``auc_entropy`` is the probability that a wrong cell has a larger entropy than a right one.
    """
    record: dict[str, Any] = {"right": float(right.mean())}
    if consensus is not None:
        agree = consensus == 1
        record["agree"] = float(agree.mean())
        record["right_agree"] = float(right[agree].mean()) if agree.any() else None
        record["right_disagree"] = float(right[~agree].mean()) if not agree.all() else None
    if 0 < right.mean() < 1:
        record["auc_entropy"] = float(roc_auc_score(~right, entropy))
    return record


# -- states --------------------------------------------------------------------------------


def shapes(x: np.ndarray, side: int = SIDE) -> dict[str, np.ndarray]:
    """Return slant and upright width of written digits, ``(n,)``, from their image moments.

    The slant is the shear mu11 / mu02; the width is the spread across what is left when it is
    taken away, in pixels.
    """
    ink = x.reshape(-1, side, side).astype(np.float64)
    total = ink.sum((1, 2))
    rows, columns = ink.sum(2) / total[:, None], ink.sum(1) / total[:, None]
    place = np.arange(side)
    across = place - (columns @ place)[:, None]
    down = place - (rows @ place)[:, None]
    mu20 = (columns * across**2).sum(1)
    mu02 = (rows * down**2).sum(1)
    mu11 = np.einsum("nyx,ny,nx->n", ink, down, across) / total
    slant = mu11 / mu02
    return {"slant": slant, "width": np.sqrt(np.maximum(mu20 - mu11 * slant, 0))}


def explained(state: np.ndarray, value: np.ndarray) -> float:
    """Return R² of the linear regression of a value on the states."""
    design = np.column_stack([np.ones(len(state)), state])
    fitted = design @ np.linalg.lstsq(design, value, rcond=None)[0]
    return float(1 - np.var(value - fitted) / np.var(value))


def of_states(x: np.ndarray, found: np.ndarray, state: np.ndarray) -> dict:
    """Return R² of slant and width by the states within the categories, means weighted by cells.

    ``pca_``: as much by as many principal components of the category's pixels.
    """
    values, parts, sizes = shapes(x), [], []
    for name in np.unique(found):
        own = np.flatnonzero(found == name)
        if len(own) < LEAST:
            continue
        components = PCA(state.shape[1], svd_solver="arpack", random_state=0).fit_transform(x[own])
        part = {}
        for what, value in values.items():
            part[f"r2_{what}"] = explained(state[own], value[own])
            part[f"pca_r2_{what}"] = explained(components, value[own])
            for prefix, codes in (("", state[own]), ("pca_", components)):
                rho = [abs(spearmanr(dim, value[own]).statistic) for dim in codes.T]
                part[f"{prefix}spearman_{what}"] = float(np.nanmax(rho))
        parts.append(part)
        sizes.append(len(own))
    table = pd.DataFrame(parts)
    return {name: float(np.average(table[name], weights=sizes)) for name in table}


def cluster(
    x: np.ndarray, truth: np.ndarray, seed: int, method: str, data: Data, size: str
) -> dict:
    """Return the scores of a clustering, of its arms and of its states."""
    settings = dict(METHODS[method])
    if settings.get("n_clusters") == TOLD:
        settings["n_clusters"] = len(np.unique(truth))
    settings["model_kwargs"] = {**data.model_kwargs, **settings.get("model_kwargs", {})}
    if size == "small":
        few = {"max_epochs": SMALL_EPOCHS, "prune_epochs": 2}
        settings["train_kwargs"] = {**settings.get("train_kwargs", {}), **few}
    cells = ad.AnnData(np.array(x), obsm={"X_pca": x} if data.components else {})
    if data.images:
        cells.uns["image_shape"] = np.array([SIDE, SIDE])
    with warnings.catch_warnings():
        # of one arm, and of batches that are small for the scaled distance: it is known
        warnings.filterwarnings("ignore", "With one arm|Batches of", UserWarning)
        _, seconds = timed(
            lambda: scmoe.tl.cluster(
                cells,
                model="cpl-mixvae",
                use_rep="X_pca" if data.components else "X",
                random_state=seed,
                progress=False,
                **settings,
            )
        )
    found = cells.obs["scmoe"].to_numpy().astype(str)
    categories = pd.DataFrame(cells.uns["scmoe"]["categories"])
    coupled = "scmoe_arm_consensus" in cells.obs
    record = {
        **numbers.scores(truth, found),
        "accuracy": scmoe.metrics.accuracy(truth, found),
        **of_consensus(
            own_population(truth, found),
            cells.obs["scmoe_arm_consensus"].to_numpy() if coupled else None,
            cells.obs["scmoe_entropy"].to_numpy(),
        ),
    }
    if coupled:
        record["consensus"] = float(categories["consensus"][categories["n_cells"] > 0].mean())
    if data.images:
        record |= of_states(x, found, cells.obsm["scmoe_state"])
    return {**record, "seconds": seconds}


# -- cost ----------------------------------------------------------------------------------


@dataclass
class Step:
    """Optimiser steps of one or several modules on the same cells."""

    modules: list[CplMixVAEModule]
    tensors: dict[str, torch.Tensor]

    def __post_init__(self):
        self.adams = [torch.optim.Adam(module.parameters(), 1e-3) for module in self.modules]

    def __call__(self) -> None:
        """Make one step of each module."""
        for module, adam in zip(self.modules, self.adams, strict=True):
            adam.zero_grad()
            module(self.tensors)[-1].loss.backward()
            adam.step()

    def held(self) -> int:
        """Return the bytes of weights and states of Adam, and those of activations.

        A loop has forgotten the one when it comes to the next.
        """
        weights = [p for module in self.modules for p in module.parameters()]
        places = {p.untyped_storage().data_ptr() for p in weights}
        return ADAM * sum(p.numel() * p.element_size() for p in weights) + max(
            self._kept(module, places) for module in self.modules
        )

    def _kept(self, module: CplMixVAEModule, places: set[int]) -> int:
        kept: dict[int, tuple[int, torch.Tensor]] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in places:
                # held, so that no other tensor comes to the same place
                kept[storage.data_ptr()] = storage.nbytes(), tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            module(self.tensors)
        return sum(size for size, _ in kept.values())


def step_of(cells: ad.AnnData, n_arms: int, n_categories: int, *, loop: bool = False) -> Step:
    """Return a step of all arms together, or of as many models of one arm in a loop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "With one arm", UserWarning)
        CplMixVAE.setup_anndata(cells)
        model = CplMixVAE(cells, n_categories, n_arms=1 if loop else n_arms, scaling="none")
    modules = []
    for _ in range(n_arms if loop else 1):
        module = CplMixVAEModule(model.settings)
        module.observed.look_at(torch.from_numpy(cells.X), together=False, counts=None)
        modules.append(module.train())
    x = torch.from_numpy(cells.X[:COST_BATCH])
    seen = x.expand(1 if loop else n_arms, -1, -1).clone()
    return Step(modules, {REGISTRY_KEYS.X_KEY: x, BATCH_KEYS.ARMS: seen})


def costs(size: str) -> dict[str, dict]:
    """Return microseconds per cell and step, and bytes, by method; methods take turns."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 1, (10, COST_MARKERS))
    x = centres[rng.integers(10, size=COST_CELLS)] + rng.normal(
        scale=0.1, size=(COST_CELLS, COST_MARKERS)
    )
    cells = ad.AnnData(np.clip(x, 0, 1).astype(np.float32))
    asked = [(a, k, False) for a in ARMS for k in CATEGORIES]
    asked += [(a, CATEGORIES[0], True) for a in ARMS[1:]]
    with one_thread(), seeded(0):
        steps = {what: step_of(cells, *what[:2], loop=what[2]) for what in asked}
        spent: dict[tuple, list[float]] = {what: [] for what in asked}
        for repeat in range(REPEATS[size] + 1):  # in turn, so that a slow moment hits all alike
            for what, step in steps.items():
                start = time.perf_counter()
                step()
                if repeat:  # the first of each is a warming up
                    spent[what].append(time.perf_counter() - start)
        held = {what: step.held() for what, step in steps.items()}
    base = asked[0]
    return {
        f"A={a}, K={k}" + (", a loop over single arms" if loop else ""): {
            "n_arms": a,
            "n_categories": k,
            "loop": loop,
            "us_per_cell": round(1e6 * float(np.median(spent[a, k, loop])) / COST_BATCH, 2),
            "time_ratio": round(float(np.median(spent[a, k, loop]) / np.median(spent[base])), 2),
            "mib": round(held[a, k, loop] / 2**20, 2),
            "memory_ratio": round(held[a, k, loop] / held[base], 2),
        }
        for a, k, loop in asked
    }


# -- the experiment ------------------------------------------------------------------------


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each seed, data set and method; the costs once."""
    warm_up()
    methods = options.choose("methods", METHODS)
    asked = options.choose("datasets", [*DATASETS, COST])
    most = SMALL if options.size == "small" else FULL
    for seed in options.seeds:
        for dataset in (name for name in asked if name != COST):
            data = DATASETS[dataset]
            x, truth = data.load()
            some = np.random.default_rng(0).permutation(len(x))[:most]
            order = np.random.default_rng(seed).permutation(some)
            x, truth = np.asarray(x[order], np.float32), truth[order].astype(str)
            for method in methods:
                if method not in MAIN and not data.ablated:
                    continue
                call = functools.partial(cluster, x, truth, seed, method, data, options.size)
                yield attempt(
                    dict(zip(KEYS, (dataset, len(x), method, seed), strict=True)), call, say
                )
    if COST in asked:
        for method, record in costs(options.size).items():
            yield attempt(
                {"dataset": COST, "n_cells": COST_CELLS, "method": method, "seed": 0},
                lambda record=record: record,
                say,
            )


TEXT = f"""## Coupled mixture VAEs

`scmoe.tl.cluster(adata, model="cpl-mixvae")`: markers on the arcsinh scale, {numbers.N_PCS}
principal components of genes, counts of genes (negative binomial), or pixels; at most {FULL:,}
cells. *K auto*: pruned from 25 categories; *K told*: the number of populations. *One arm* is not
coupled with anything. *Without the start*: the arms do not learn communities of the neighbour
graph first. *Scaled distance*: of the released code, at a coupling weight of 0.02. *Released
distance and weights*: the same with coupling and entropy weights of 1. Median over the seeds, and
the range in brackets.

*consensus*: mean over the categories. A cell is *right* if it is of the population that has most
cells in its cluster, so with fewer clusters than populations some are wrong whatever the arms say;
*right: agree* and *disagree*: the share of right cells where all arms agree and where they do not.
*AUC*: the probability that a wrong cell has a larger entropy than a right one.

The text of the paper that was at hand ends before its experiments, and no source gave figures of
JointVAE or CascadeVAE that could be cited: none are compared here. The paper's data are MNIST,
dSprites and neurons of the mouse; ours are MNIST and blood, bone marrow and kidney cells. Its arms
see copies that a network learns to make; ours by default see turned images and steps towards
neighbours, which need no training before (the section on copies compares them).
"""

STATES = """
### States of digits

Slant (mu11 / mu02 of the ink) and upright width (the spread across when the slant is taken away)
of each digit, within each category: R² of their linear regression on the two dimensions of the
state, and the largest absolute Spearman correlation with one dimension; means over categories,
weighted by their cells. In brackets the same of two principal components of the category's pixels.
A dimension of a state is free to turn, so R² is the fairer figure.
"""

COSTS = f"""
### Cost of arms and categories

An optimiser step, forward and back, with {COST_BATCH} cells of {COST_MARKERS} made-up markers on
one core, by that of one arm and 10 categories ({{us}} microseconds for a cell, {{mib}} MiB).
Memory: weights with gradients and both moments of Adam, and what a step keeps for the way back.
*A loop*: as many models of one arm, one after the other, each of which has forgotten the way back
of the one before; they are not coupled. The way to the cells, and making the copies, comes on top.
"""


def section(result: dict) -> str:
    """Return a table for each data set, one of states, and one of costs."""
    text, table = TEXT, measured(result["records"])
    if table.empty:
        return text
    for dataset in (name for name in DATASETS if name in set(table["dataset"])):
        rows = table[table["dataset"] == dataset]
        text += f"\n### {dataset}, coupled: {rows['n_cells'].iloc[0]:,} cells, "
        text += f"{rows['n_populations'].iloc[0]:.0f} populations\n\n" + markdown(
            [
                "method",
                "K",
                "NMI",
                "ARI",
                "weighted F",
                "consensus",
                "agree",
                "right: agree",
                "disagree",
                "AUC",
                "seconds",
                "seeds",
            ],
            (
                _row(method, runs)
                for method, runs in ((m, rows[rows["method"] == m]) for m in METHODS)
                if len(runs)
            ),
        )
    if "r2_slant" in table and table["r2_slant"].notna().any():
        text += STATES + "\n" + _states(table[table["r2_slant"].notna()])
    costs = table[table["dataset"] == COST]
    return text + _costs(costs) if len(costs) else text


def _column(runs: pd.DataFrame, name: str, digits: int = 3) -> str:
    return spread(runs[name].astype(float), digits) if name in runs else MISSING


def _row(method: str, runs: pd.DataFrame) -> list:
    scores = ("nmi", "ari", "weighted_f", "consensus", "agree", "right_agree", "right_disagree")
    return [
        method,
        spread(runs["n_clusters"], 0),
        *(_column(runs, name) for name in scores),
        _column(runs, "auc_entropy", 2),
        f"{np.median(runs['seconds']):.0f}",
        len(runs),
    ]


def _states(rows: pd.DataFrame) -> str:
    figures = [f"{score}_{what}" for what in ("slant", "width") for score in ("r2", "spearman")]
    return markdown(
        ["method", "R², slant", "Spearman", "R², width", "Spearman", "seeds"],
        (
            [
                method,
                *(
                    f"{_column(runs, name, 2)} [{np.median(runs[f'pca_{name}']):.2f}]"
                    for name in figures
                ),
                len(runs),
            ]
            for method, runs in ((m, rows[rows["method"] == m]) for m in METHODS)
            if len(runs)
        ),
    )


def _costs(rows: pd.DataFrame) -> str:
    cell = rows.set_index("method")
    base = cell.loc[f"A={ARMS[0]}, K={CATEGORIES[0]}"]
    text = COSTS.format(us=base["us_per_cell"], mib=base["mib"]) + "\n"
    lines = []
    for what in ("time", "memory"):
        for k in CATEGORIES:
            ratios = [f"{cell[f'{what}_ratio'][f'A={a}, K={k}']:.1f}" for a in ARMS]
            lines.append([what, f"K = {k}", *ratios])
        looped = [f"A={a}, K={CATEGORIES[0]}, a loop over single arms" for a in ARMS[1:]]
        ratios = [f"{cell[f'{what}_ratio'][name]:.1f}" for name in looped]
        lines.append([what, f"K = {CATEGORIES[0]}, a loop", "1.0", *ratios])
    return text + markdown(["", "categories", *(f"A = {a}" for a in ARMS)], lines)
