"""New cells: is the stated share rejected, and are foreign cells?

*left out*: a population is taken out. scmoe learns from 80 % of the other cells, with every
default; the remaining 20 % should be rejected at the stated rate, the cells of the population as
often as possible. Populations are left out one at a time, those of at least 1 % of the cells.

*patients*: the first patient's unstimulated sample of BCR-XL is the reference, and the samples of
all patients, unstimulated and stimulated, are assigned to it, by the ten surface markers of the
panel. Two samples of the reference's own panel are spoiled on purpose: one is not transformed as
the reference was (cofactor 150), in one two markers are swapped.

*panels*: cells of other laboratories, with the markers that both panels have.

A seed sets the order of the reference's cells as well as the random state.
"""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.metrics import roc_auc_score

import scmoe
from benchmarks import cytof
from benchmarks.data import levine32_balanced, multicenter, samusik_ramp
from benchmarks.experiment import attempt, in_order_of
from benchmarks.tables import MISSING, markdown, measured, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("test", "reference", "query", "seed")
SEEDS = 3
SETTINGS: dict = {}

DATASETS = ("bodenmiller H05", "bodenmiller H08", "samusik RAMP")
LEFT_OUT, PATIENTS, PANELS = "left out", "patients", "panels"
LEAST_SHARE = 0.01
TRAIN_SHARE = 0.8
RATES = (0.01, 0.05)
SMALL = 4_000
SURFACE = ["CD3", "CD45", "CD4", "CD20", "CD33", "CD123", "CD14", "IgM", "HLA-DR", "CD7"]
SWAPPED = ["CD3", "CD20"]


def clustered(x: np.ndarray, names: list[str], seed: int) -> ad.AnnData:
    """Cluster a reference in random order: ``sc.pp.neighbors``, then every default."""
    cells = in_order_of(seed, ad.AnnData(np.ascontiguousarray(x)))
    cells.var_names = names
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    scmoe.tl.cluster(cells, random_state=seed, progress=False)
    return cells


def scored(x: np.ndarray, reference: ad.AnnData) -> ad.AnnData:
    """Assign new cells by the markers of the reference; drift is measured without a warning."""
    query = ad.AnnData(np.ascontiguousarray(x))
    query.var_names = reference.var_names
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*drifted from the reference")
        scmoe.tl.assign(query, reference)
    return query


def rejected(score: np.ndarray, of: str) -> dict:
    """Return the share of rejected cells at each stated rate."""
    return {f"{of}_{rate}": float((score > 1 - rate).mean()) for rate in RATES}


def left_out(x: np.ndarray, truth: np.ndarray, foreign: str, seed: int) -> dict:
    """Train without a population and measure how much of it is rejected."""
    rng = np.random.default_rng(seed)
    known = rng.permutation(np.flatnonzero(truth != foreign))
    n_train = int(TRAIN_SHARE * len(known))
    reference = clustered(x[known[:n_train]], [f"m{i}" for i in range(x.shape[1])], seed)
    own, others = (
        scored(x[some], reference).obs["scmoe_outlier"].to_numpy()
        for some in (known[n_train:], truth == foreign)
    )
    score = np.concatenate([own, others])
    return {
        "n_foreign": len(others),
        "auc": float(roc_auc_score(np.arange(len(score)) >= len(own), score)),
        **rejected(own, "known"),
        **rejected(others, "foreign"),
    }


def drifted(x: np.ndarray, reference: ad.AnnData) -> dict:
    """Return the rejected share and the drift of a sample."""
    query = scored(x, reference)
    row = query.uns["scmoe"]["drift"].iloc[0]
    return {
        "n_cells": len(x),
        **rejected(query.obs["scmoe_outlier"].to_numpy(), "known"),
        "drift": float(row["drift"]),
        "marker": row["marker"],
        "shift": float(row["shift"]),
    }


def patients() -> dict[str, np.ndarray]:
    """Read the samples of BCR-XL, by name: surface markers, raw values."""
    folder = Path(os.environ["SCMOE_DATA_DIR"]) / "bcr_xl"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scmoe.io.FCSRepairWarning)
        cells = scmoe.io.read_fcs(folder)
    x, sample = cells[:, SURFACE].X, cells.obs["sample"]
    names = [name.removeprefix("PBMC8_30min_") for name in sample.cat.categories]
    return {name: np.asarray(x[sample.cat.codes == i]) for i, name in enumerate(names)}


def _left_out(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    for dataset in options.choose("datasets", DATASETS):
        x, truth = cytof.load(dataset)
        # cells of no population are no reference, and no foreign ones either
        named = pd.notna(truth)
        x, truth = x[named], truth[named]
        if options.size == "small":
            some = np.random.default_rng(0).choice(len(x), SMALL, replace=False)
            x, truth = x[some], truth[some]
        names, counts = np.unique(truth.astype(str), return_counts=True)
        for foreign in names[counts >= LEAST_SHARE * len(x)]:
            for seed in options.seeds:
                identity = dict(zip(KEYS, (LEFT_OUT, dataset, foreign, seed), strict=True))
                call = functools.partial(left_out, x, truth.astype(str), foreign, seed)
                yield attempt(identity, call, say)


def _patients(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    samples = patients()
    first = next(name for name in samples if name.endswith("Reference"))
    x = {name: np.arcsinh(values / 5) for name, values in samples.items()}
    x["the reference, cofactor 150"] = np.arcsinh(samples[first] / 150)
    swapped = x[first].copy()
    a, b = (SURFACE.index(name) for name in SWAPPED)
    swapped[:, [a, b]] = swapped[:, [b, a]]
    x[f"the reference, {SWAPPED[0]} and {SWAPPED[1]} swapped"] = swapped
    for seed in options.seeds:
        reference = clustered(x[first], SURFACE, seed)
        for name, values in x.items():
            identity = dict(zip(KEYS, (PATIENTS, first, name, seed), strict=True))
            yield attempt(identity, functools.partial(drifted, values, reference), say)


def _panels(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    ours = scmoe.datasets.bodenmiller("H05")
    scmoe.pp.arcsinh(ours, cofactor=5)
    others = {
        "bodenmiller H08": scmoe.datasets.bodenmiller("H08"),
        "levine 32, human bone marrow": levine32_balanced(),
        "multicenter 01": multicenter(1),
        "samusik RAMP, mouse bone marrow": samusik_ramp(),
    }
    for name, other in others.items():
        scmoe.pp.arcsinh(other, cofactor=5)
        shared = [m for m in SURFACE if m in other.var_names]
        for seed in options.seeds:
            reference = clustered(ours[:, shared].X, shared, seed)
            query = f"{name}, {len(shared)} markers"
            identity = dict(zip(KEYS, (PANELS, "bodenmiller H05", query, seed), strict=True))
            call = functools.partial(drifted, np.asarray(other[:, shared].X), reference)
            yield attempt(identity, call, say)


TESTS = {LEFT_OUT: _left_out, PATIENTS: _patients, PANELS: _panels}


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return one record for each reference, query and seed."""
    for test in options.choose("methods", TESTS):
        yield from TESTS[test](options, say)


TEXT = f"""## New cells

`scmoe.tl.assign` says of each new cell how unlike the reference it is, and rejects a stated share
of cells that are like it. In the first table a population is left out of training: *known* is the
share of unseen cells of the other populations that is rejected, which should be the stated rate;
*foreign* is the share of the cells of the population left out. Where populations cannot be told
apart by the markers at hand, nothing strange is there to be found. AUC: how well the outlier
score parts the two. All settings are defaults.

The other tables show whole samples: the share that is rejected at 1 %, *drift* (a warning above
{scmoe.tl.DRIFT:g}, and a little more for few cells), and the marker that has moved most, with its
*shift* (a warning above {scmoe.tl.SHIFT:g} of the range of the marker).
"""


def _rates(runs) -> list[str]:
    return [
        spread(runs[f"{of}_{rate}"], 3) if f"{of}_{rate}" in runs else MISSING
        for rate in RATES
        for of in ("known", "foreign")
    ]


def section(result: dict) -> str:
    """Return a table for each test."""
    text = TEXT
    table = measured(result["records"])
    if table.empty:
        return text
    first = table[table["test"] == LEFT_OUT]
    for reference, rows in first.groupby("reference", sort=False):
        text += f"\n### {reference}, a population left out\n\n"
        head = ["left out", "cells", "AUC"]
        head += [f"{of}, at {rate:.0%}" for rate in RATES for of in ("known", "foreign")]
        text += markdown(
            [*head, "seeds"],
            (
                [name, f"{int(runs['n_foreign'].iloc[0]):,}", spread(runs["auc"], 3)]
                + [*_rates(runs), len(runs)]
                for name, runs in rows.groupby("query", sort=False)
            ),
        )
    for test, title in ((PATIENTS, "BCR-XL"), (PANELS, "Other panels")):
        for reference, rows in table[table["test"] == test].groupby("reference"):
            text += f"\n### {title}, reference {reference}\n\n"
            text += markdown(
                ["sample", "cells", "rejected at 1 %", "drift", "marker", "its shift", "seeds"],
                (
                    [name, f"{int(runs['n_cells'].iloc[0]):,}", spread(runs["known_0.01"], 3)]
                    + [spread(runs["drift"], 2), ", ".join(sorted(set(runs["marker"])))]
                    + [spread(runs["shift"], 2), len(runs)]
                    for name, runs in rows.groupby("query", sort=False)
                ),
            )
    return text
