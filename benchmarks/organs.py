"""Marker priors: what a table of marker genes adds to the clustering of cells.

The paper's experiment on mouse organs with the labelled data at hand. A cell is positive for a
class if its markers are above their average; cells that are positive for exactly one class are
certain and teach. scmoe learns from a random 80 % of the cells and predicts all; the baselines
cluster all cells; everybody is scored on all cells and on the 20 % that scmoe has never seen. A
seed sets the order of the cells and the split as well as the random state.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import scmoe
from benchmarks import peers
from benchmarks.data import human_kidney, levine32_balanced, pbmc_10x, tabula_muris_kidney
from benchmarks.experiment import attempt, in_order_of, timed
from benchmarks.tables import MISSING, markdown, measured, spread
from scmoe._core.keys import Key
from scmoe.similarity import Blend, CoAssociation, Prior

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("dataset", "table", "method", "seed")
SEEDS = 3

TRAIN_SHARE = 0.8
N_GENES = 500
N_PCS = 50
N_EXPERTS = 15
STEPS = 500
BATCH = 128
WEIGHT = 0.5
WEIGHTS = (0.2, 0.5, 0.95)
"""Weights of the prior that were tried, on `TUNED_ON` alone."""

SETTINGS = {
    "train_share": TRAIN_SHARE,
    "n_genes": N_GENES,
    "n_experts": N_EXPERTS,
    "steps": STEPS,
    "batch_size": BATCH,
    "weight": WEIGHT,
}

LITERATURE, SWAPPED, USELESS = "literature", "two classes swapped", "a gene that marks nothing"
UNDECIDED = "undecided"
PBMC, KIDNEY, LEVINE, WELL = "PBMC 68k", "Tabula Muris kidney", "Levine 32", "bodenmiller H05"
TUNED_ON = PBMC


@dataclass(frozen=True)
class Data:
    """A data set, and the marker genes of the literature."""

    load: Callable[[], ad.AnnData]
    """Makes cells x genes with ``.obs["population"]``."""
    markers: dict[str, list[str]] = field(default_factory=dict)
    """Markers of each class; none where the genes have no names."""
    populations: dict[str, str] = field(default_factory=dict)
    """Class of a population, where it has another name."""
    useless: str = ""
    """A gene that all cells express, for the wrong table."""


def pbmc_68k() -> ad.AnnData:
    """Read 700 cells of scanpy, 765 genes, log-normalised; subsets of T cells are merged.

    Zheng et al. gave each cell the subset of sorted T cells that its profile correlates with
    best; the subsets overlap in it, and CD4 and CD8 have too few reads to tell them apart.
    """
    raw = sc.datasets.pbmc68k_reduced().raw.to_adata()
    labels = raw.obs["bulk_labels"].astype(str)
    raw.obs["population"] = labels.where(~labels.str.match(r"CD[48]\+"), "T")
    return raw


def kidney() -> ad.AnnData:
    """Read mouse kidney, log2 values."""
    return tabula_muris_kidney()


def cytometry(load: Callable[[], ad.AnnData], n_cells: int | None = None) -> ad.AnnData:
    """Return labelled cells of mass cytometry, the markers on the arcsinh scale.

    As in the paper, populations under 30 cells are dropped.
    """
    adata = load()
    adata = adata[adata.obs["population"].notna().to_numpy()]
    if n_cells is not None:
        adata = adata[np.random.default_rng(0).permutation(adata.n_obs)[:n_cells]]
    sizes = adata.obs["population"].value_counts()
    adata = adata[adata.obs["population"].isin(sizes.index[sizes >= 30]).to_numpy()]
    wanted = adata.var["surface"] if "surface" in adata.var else adata.var["kind"] == "mass"
    adata = adata[:, wanted.to_numpy()].copy()
    scmoe.pp.arcsinh(adata, cofactor=5)
    return adata


def counts(load: Callable[[], ad.AnnData]) -> ad.AnnData:
    """Return counts, log-normalised as in the tutorials of scanpy."""
    adata = load()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


DATASETS = {
    # one gene a class, the paper's way; NK cells share theirs with cytotoxic T cells, which
    # have CD3. CD79A, CD3D, NKG7, S100A8, FCER1A: Ding et al. 2020 and Zheng et al. 2017;
    # SPINK2 for CD34+ cells: Popescu et al. 2019
    PBMC: Data(
        pbmc_68k,
        {
            "B": ["CD79A"],
            "T": ["CD3D"],
            "NK": ["NKG7", "CD3D-"],
            "monocyte": ["S100A8"],
            "dendritic": ["FCER1A"],
            "progenitor": ["SPINK2"],
        },
        {
            "CD19+ B": "B",
            "CD56+ NK": "NK",
            "CD14+ Monocyte": "monocyte",
            "Dendritic": "dendritic",
            "CD34+": "progenitor",
        },
        useless="PSMB2",
    ),
    # Kdr and Aqp2: Park et al. 2018; Ptprc is CD45: Trowbridge and Thomas 1994
    KIDNEY: Data(
        kidney,
        {"endothelial": ["Kdr"], "collecting duct": ["Aqp2"], "leukocyte": ["Ptprc"]},
        {
            "endothelial cell": "endothelial",
            "kidney collecting duct epithelial cell": "collecting duct",
        },
        useless="Psmb2",
    ),
    # the gates of Bendall et al. 2011 and Levine et al. 2015
    LEVINE: Data(
        functools.partial(cytometry, levine32_balanced),
        {
            "Basophils": ["CD123", "HLA-DR-", "CD34-"],
            "CD4_T_cells": ["CD3", "CD4", "CD8-"],
            "CD8_T_cells": ["CD3", "CD8", "CD4-"],
            "CD16+_NK_cells": ["CD7", "CD16", "CD3-"],
            "CD16-_NK_cells": ["CD7", "CD16-", "CD3-", "CD34-"],
            "CD34+CD38+CD123+_HSPCs": ["CD34", "CD38", "CD123", "CD19-"],
            "CD34+CD38+CD123-_HSPCs": ["CD34", "CD38", "CD123-", "CD19-"],
            "CD34+CD38lo_HSCs": ["CD34", "CD38-", "CD19-"],
            "Mature_B_cells": ["CD19", "CD20", "CD34-"],
            "Plasma_B_cells": ["CD38", "CD19", "CD20-", "HLA-DR-"],
            "Pre_B_cells": ["CD38", "CD19", "CD20-", "CD34-", "HLA-DR"],
            "Pro_B_cells": ["CD34", "CD19"],
            "Monocytes": ["CD14", "CD33"],
            "pDCs": ["CD123", "HLA-DR", "CD34-", "CD14-"],
        },
        useless="CD47",
    ),
    # the gates of Bodenmiller et al. 2012; CD8 is not among the ten markers
    WELL: Data(
        functools.partial(cytometry, scmoe.datasets.bodenmiller, 5_000),
        {
            "CD4 T": ["CD3", "CD4"],
            "CD8 T": ["CD3", "CD4-"],
            "NK": ["CD7", "CD3-"],
            "B": ["CD20", "CD3-"],
            "monocyte": ["CD14", "CD33"],
            "pDC": ["CD123", "HLA-DR", "CD14-", "CD20-"],
        },
        {"cd4+": "CD4 T", "cd8+": "CD8 T", "nk": "NK", "igm+": "B", "igm-": "B"}
        | {"dendritic": "pDC"}
        | {f"cd14+{rest}": "monocyte" for rest in ("hladrmid", "hladrhigh", "hladr-")},
        useless="CD45",
    ),
    "10x PBMC, no names": Data(functools.partial(counts, pbmc_10x)),
    "human kidney, no names": Data(functools.partial(counts, human_kidney)),
}

ROBUST = (PBMC, KIDNEY)
"""Where incomplete and wrong tables are tried."""


def prepared(name: str) -> ad.AnnData:
    """Return dense values of markers and most variable genes; ``population`` in ``.obs``."""
    data = DATASETS[name]
    adata = data.load()
    if adata.n_vars > 1_000:
        sc.pp.highly_variable_genes(adata, n_top_genes=N_GENES)
        genes = {m.removesuffix("-") for ms in data.markers.values() for m in ms} | {data.useless}
        adata = adata[:, adata.var["highly_variable"] | adata.var_names.isin(genes)]
    x = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
    x = np.asarray(x, dtype=np.float32)
    varies = np.ptp(x, axis=0) > 0
    return ad.AnnData(
        x[:, varies],
        obs=pd.DataFrame(
            {"population": adata.obs["population"].astype(str).to_numpy()}, index=adata.obs_names
        ),
        var=pd.DataFrame(index=adata.var_names[varies]),
    )


def tables(name: str) -> dict[str, dict[str, list[str]]]:
    """Return the table of the literature; incomplete and wrong tables where they are tried."""
    markers = DATASETS[name].markers
    found = {LITERATURE: markers}
    if name not in ROBUST:
        return found
    for left in markers:
        found[f"without {left}"] = {c: genes for c, genes in markers.items() if c != left}
    first, second, *_, last = markers
    swapped = {first: markers[second], second: markers[first]}
    found[SWAPPED] = {c: swapped.get(c, genes) for c, genes in markers.items()}
    found[USELESS] = markers | {last: [DATASETS[name].useless]}
    return found


def components(x: np.ndarray, n: int = N_PCS) -> np.ndarray:
    """Return principal components of 0-1 scaled values, the best for the baselines of the paper.

    Values of few markers are only scaled.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    scaled = (x - low) / np.where(high > low, high - low, 1)
    if x.shape[1] <= n:
        return scaled
    return sc.pp.pca(scaled, n_comps=min(n, len(x) - 1), random_state=0)


# -- methods: train cells (the prior in .obsm), all cells, seed -> labels of all cells ----------


def fitted(
    train: ad.AnnData, cells: ad.AnnData, seed: int, similarity: Any, **settings: Any
) -> np.ndarray:
    """Return labels of ``cells`` by scmoe trained on ``train``, on the genes that vary there."""
    varies = np.ptp(train.X, axis=0) > 0
    train, cells = train[:, varies].copy(), cells[:, varies]
    if similarity.needs_graph:
        train.obsm["X_pcs"] = components(train.X)
        sc.pp.neighbors(train, use_rep="X_pcs", random_state=seed, transformer="sklearn")
    scvi.settings.seed = seed
    scmoe.model.MoESimVAE.setup_anndata(train, similarity=similarity)
    model = scmoe.model.MoESimVAE(train, **settings)
    model.train(max_steps=STEPS, batch_size=BATCH, accelerator="cpu", enable_progress_bar=False)
    return model.predict(ad.AnnData(cells.X, var=cells.var)).astype(str)


def with_prior(train: ad.AnnData, cells: ad.AnnData, seed: int, *, released=False) -> np.ndarray:
    """Cluster by the protocol of the papers: trained on certain cells, one expert per class."""
    settings = scmoe.model.preset("released").model_kwargs if released else {}
    settings["n_experts"] = train.obsm[Key.obsm.PRIOR].shape[1]
    return fitted(train, cells, seed, Prior(), **settings)


def blended(train: ad.AnnData, cells: ad.AnnData, seed: int, *, weight=WEIGHT) -> np.ndarray:
    """Cluster by prior and neighbour graph, with more experts than classes."""
    similarity = Blend(Prior(), CoAssociation(), weight=weight)
    return fitted(train, cells, seed, similarity, n_experts=N_EXPERTS)


def with_graph(train: ad.AnnData, cells: ad.AnnData, seed: int) -> np.ndarray:
    """Cluster by the neighbour graph alone."""
    return fitted(train, cells, seed, CoAssociation(), n_experts=N_EXPERTS)


def rule(train: ad.AnnData, cells: ad.AnnData, seed: int) -> np.ndarray:
    """Cluster by the prior alone; undecided cells are another cluster."""
    prior = cells.obsm[Key.obsm.PRIOR]
    certain = prior.sum(axis=1) == 1
    return prior.idxmax(axis=1).where(certain, UNDECIDED).to_numpy().astype(str)


def classifier(train: ad.AnnData, cells: ad.AnnData, seed: int) -> np.ndarray:
    """Classify by logistic regression on the same certain cells, without VAE and experts."""
    prior = train.obsm[Key.obsm.PRIOR]
    certain = (prior.sum(axis=1) == 1).to_numpy()
    low, high = train.X.min(axis=0), train.X.max(axis=0)
    spread_ = np.where(high > low, high - low, 1)
    model = LogisticRegression(C=1.0, max_iter=1_000)
    model.fit((train.X[certain] - low) / spread_, prior[certain].idxmax(axis=1))
    return model.predict((cells.X - low) / spread_).astype(str)


RULE, CLASSIFIER = "the rule itself", "logistic regression on the rule's cells"
ALONE, RELEASED = "scmoe, prior", 'scmoe, prior, settings "released"'
BLEND, GRAPH = "scmoe, prior and graph", "scmoe, graph"

TAUGHT: dict[str, Callable[[ad.AnnData, ad.AnnData, int], np.ndarray]] = {
    RULE: rule,
    CLASSIFIER: classifier,
    ALONE: with_prior,
    RELEASED: functools.partial(with_prior, released=True),
    BLEND: blended,
}
"""Those that see the prior."""

TRIED = {
    f"{BLEND}, weight {weight}": functools.partial(blended, weight=weight)
    for weight in WEIGHTS
    if weight != WEIGHT
}

BASELINES: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "Louvain": peers.louvain,
    "hierarchical (Ward)": peers.ward,
    "Gaussian mixture": peers.gaussian_mixture,
    "HDBSCAN": peers.hdbscan,
    "k-means": peers.k_means,
    "fuzzy c-means": peers.fuzzy_c_means,
}

METHODS = [*TAUGHT, *TRIED, GRAPH, *BASELINES]

SCREENED_PCS = (10, 20, 50)
FUZZIFIERS = (1.1, 1.5, 2.0)
SCREEN_LIMIT = 2_000


def screened(name: str, x: np.ndarray, seed: int, n: int) -> Iterator[np.ndarray]:
    """Return labels by a baseline with each setting of a small grid."""
    call = BASELINES[name]
    sizes = SCREENED_PCS if len(x) <= SCREEN_LIMIT else (N_PCS,)
    for size in dict.fromkeys(min(size, x.shape[1], len(x) - 1) for size in sizes):
        pcs = np.asarray(components(x, size), dtype=np.float32)
        options = [{}]
        if name == "fuzzy c-means":
            options = [{"fuzzifier": m} for m in FUZZIFIERS]
        for option in options:
            yield call(pcs, seed, n, **option)


# -- scores ------------------------------------------------------------------------------------


def scores(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Return both F-measures, NMI and ARI."""
    return {
        "weighted_f": scmoe.metrics.weighted_f(truth, found),
        "mean_f1": scmoe.metrics.mean_f1(truth, found),
        "nmi": float(normalized_mutual_info_score(truth, found)),
        "ari": float(adjusted_rand_score(truth, found)),
    }


def named_right(truth: np.ndarray, found: np.ndarray, classes: dict[str, str]) -> np.ndarray:
    """Return whether each cell has the name of its class."""
    return pd.Series(truth).replace(classes).to_numpy() == found


def evaluate(
    name: str, cells: ad.AnnData, found: np.ndarray, test: np.ndarray, *, named: bool
) -> dict:
    """Return scores on all cells and on the test cells, and the accuracy of the names."""
    truth = cells.obs["population"].to_numpy()
    result = scores(truth, found)
    result |= {f"test_{key}": value for key, value in scores(truth[test], found[test]).items()}
    result["n_clusters"] = len(np.unique(found))
    if named:
        certain = (cells.obsm[Key.obsm.PRIOR].sum(axis=1) == 1).to_numpy()
        right = named_right(truth, found, DATASETS[name].populations)
        result["certain"] = float(certain.mean())
        result["right_certain"] = float(right[certain].mean())
        result["right_others"] = float(right[~certain].mean())
    return result


def left_out(name: str, cells: ad.AnnData, found: np.ndarray, left: str, table: dict) -> dict:
    """Return the best F1 of a class, and its share of cells in clusters without an entry."""
    truth = cells.obs["population"].replace(DATASETS[name].populations).to_numpy()
    of = truth == left
    best = scmoe.metrics.f1_table(truth, found).loc[left].max()
    return {
        "left_out_f1": float(best),
        "left_out_free": float((~np.isin(found[of], list(table))).mean()),
    }


def primed(cells: ad.AnnData, train: np.ndarray, table: dict) -> tuple[ad.AnnData, ad.AnnData]:
    """Return training cells and all cells with their priors, each by its own averages."""
    some = cells[train].copy()
    if table:
        scmoe.pp.marker_prior(some, table, shared=True)
        cells = scmoe.pp.marker_prior(cells, table, shared=True, copy=True)
    return some, cells


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each data set, table, method and seed."""
    methods = options.choose("methods", METHODS)
    for dataset in options.choose("datasets", DATASETS):
        listed = prepared(dataset)
        for seed in options.seeds:
            cells = in_order_of(seed, listed)
            train, test = np.split(np.arange(cells.n_obs), [int(TRAIN_SHARE * cells.n_obs)])
            # whatever the table, it is the same
            graph = functools.cache(
                functools.partial(
                    timed, functools.partial(with_graph, cells[train].copy(), cells, seed)
                )
            )
            for table, markers in tables(dataset).items():
                if table != LITERATURE and (seed > 0 or options.size == "small"):
                    continue
                some, every = primed(cells, train, markers)
                for method in applicable(dataset, table, methods):
                    identity = dict(zip(KEYS, (dataset, table, method, seed), strict=True))
                    call = functools.partial(
                        measure, dataset, some, every, test, markers, method, seed, graph
                    )
                    yield attempt(identity, call, say)


def applicable(dataset: str, table: str, methods: list[str]) -> list[str]:
    """Return the methods whose result depends on this table."""
    if not DATASETS[dataset].markers:
        allowed = {GRAPH, *BASELINES}
    elif table != LITERATURE:
        allowed = {RULE, ALONE, BLEND}
        if table not in (SWAPPED, USELESS):
            # it sees no table, but says how well the class is found without one
            allowed |= {GRAPH}
    else:
        allowed = {*TAUGHT, GRAPH, *BASELINES, *(TRIED if dataset == TUNED_ON else ())}
    return [method for method in methods if method in allowed]


def measure(
    dataset: str,
    some: ad.AnnData,
    every: ad.AnnData,
    test: np.ndarray,
    table: dict,
    method: str,
    seed: int,
    graph: Callable[[], tuple[np.ndarray, float]],
) -> dict[str, Any]:
    """Run a method and score it; a baseline has its best setting on the test cells."""
    if method in BASELINES:
        n = every.obs["population"].nunique()
        tried, seconds = timed(lambda: list(screened(method, every.X, seed, n)))
        truth = every.obs["population"].to_numpy()[test]
        found = max(tried, key=lambda labels: scmoe.metrics.weighted_f(truth, labels[test]))
    elif method == GRAPH:
        found, seconds = graph()
    else:
        found, seconds = timed(lambda: (TAUGHT | TRIED)[method](some, every, seed))
    named = method in {*TAUGHT, *TRIED}
    result = evaluate(dataset, every, found, test, named=named)
    if table:
        for left in set(DATASETS[dataset].markers) - set(table):
            result |= left_out(dataset, every, found, left, table)
    return {**result, "seconds": seconds}


TEXT = f"""## Marker priors

The paper's seven mouse organs, with the labelled data at hand: a table of markers from the
literature, a cell positive for a class if its markers are above their average
(`scmoe.pp.marker_prior`), and cells that are positive for exactly one class as teachers. The
full organ data are not among them. scmoe learns from {TRAIN_SHARE:.0%} of the cells and predicts
all; the baselines, which cannot predict, cluster all. *Unseen* scores are on the cells that
scmoe did not learn from, the others on all cells. Median over the seeds, and the range in
brackets.

- *The rule itself* needs no model: cells that it cannot decide are one cluster more.
- *Logistic regression* learns from the rule's certain cells, as scmoe does with the prior alone.
- *Prior* is the paper's protocol, an expert for each class, with our defaults or with the
  settings of the authors' program. *Prior and graph* is `Blend(Prior(), CoAssociation(),
  weight={WEIGHT})` with {N_EXPERTS} experts. {WEIGHT} is the default; other weights are listed for
  {TUNED_ON}.
- All of scmoe ran {STEPS} steps with batches of {BATCH}, not the paper's 20,000 with 256, and with
  our optimiser's settings.
- The baselines are told the true number of populations where they ask for one and see principal
  components of 0-1 scaled values. As in the paper, the best of a small grid *by the labels of
  the unseen cells* is shown ({", ".join(map(str, SCREENED_PCS))} components; the fuzzifier of
  fuzzy c-means): this favours them. Over {SCREEN_LIMIT:,} cells they have {N_PCS} components.

*Right names* is the share of cells that carry the name of their class, among those that the rule
is certain of and among the others: what a model adds to the rule is in the second. RNA: the
markers and the {N_GENES} most variable genes, where there are more than 1,000. In the well, one
population has no class, and pDC have hardly a cell. Two data sets come without names of genes.
No marker can be looked up there, and only what needs no table was run.

Markers. Blood: Ding et al. 2020 and Zheng et al. 2017, SPINK2 of progenitors Popescu et al.
2019. Kidney: Park et al. 2018, Ptprc (CD45) Trowbridge and Thomas 1994. Mass cytometry: the
gates of Bendall et al. 2011, Levine et al. 2015 and Bodenmiller et al. 2012. The labels of
{PBMC} are themselves guesses: the sorted population that a profile correlates with best. Its T
cell subsets were merged beforehand.
"""

ROBUST_TEXT = """
### Incomplete and wrong tables

One class is left out at a time, or two classes have each other's markers, or a class has a gene
that all cells express. One seed. *Left-out class*: its best F1, and the share of its cells in
clusters that no class of the table names; with the graph alone no cluster has a name.

"""


def section(result: dict) -> str:
    """Return a table for each data set, and one of the incomplete and wrong tables."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    for column in ("right_certain", "right_others", "left_out_f1", "left_out_free"):
        table[column] = table[column].astype(float) if column in table else np.nan
    full = table[table["table"] == LITERATURE]
    for dataset in DATASETS:
        if len(rows := full[full["dataset"] == dataset]):
            text += f"\n### {dataset}\n\n" + _of_data(rows)
    if len(rows := table[table["dataset"].isin(ROBUST) & (table["seed"] == 0)]):
        text += ROBUST_TEXT + _of_tables(rows)
    return text


def _of_data(rows: pd.DataFrame) -> str:
    shown = {
        "weighted_f": "weighted F",
        "mean_f1": "mean F1",
        "nmi": "NMI",
        "ari": "ARI",
        "test_weighted_f": "weighted F, unseen",
        "test_nmi": "NMI, unseen",
        "right_certain": "right names, certain",
        "right_others": "right names, others",
    }
    runs_of = {method: rows[rows["method"] == method] for method in METHODS}
    return markdown(
        ["method", *shown.values(), "clusters", "seconds", "seeds"],
        (
            [
                method,
                *(spread(runs[column], 3) for column in shown),
                spread(runs["n_clusters"], 0),
                f"{np.median(runs['seconds']):.1f}",
                len(runs),
            ]
            for method, runs in runs_of.items()
            if len(runs)
        ),
    )


def _of_tables(rows: pd.DataFrame) -> str:
    chosen = rows[rows["method"].isin([RULE, ALONE, BLEND, GRAPH])]
    # records of a later run of some methods come last
    place = {column: list(dict.fromkeys(chosen[column])) for column in ("dataset", "table")}
    place["method"] = METHODS
    chosen = chosen.sort_values(
        [*place], key=lambda values: values.map(place[values.name].index), kind="stable"
    )
    columns = ["weighted_f", "mean_f1", "nmi", "right_others", "left_out_f1", "left_out_free"]
    return markdown(
        [
            *("data", "table", "method", "weighted F", "mean F1", "NMI", "right names, others"),
            *("left-out class, F1", "in free clusters"),
        ],
        (
            [
                row.dataset,
                row.table,
                row.method,
                *(_one(row.method, column, getattr(row, column)) for column in columns),
            ]
            for row in chosen.itertuples()
        ),
    )


def _one(method: str, column: str, value: float) -> str:
    nameless = method == GRAPH and column in ("right_others", "left_out_free")
    return MISSING if nameless or np.isnan(value) else f"{value:.3f}"
