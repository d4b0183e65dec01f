"""Cluster FCS files of a simulated plate, or your own files.

Writes ``cells.h5ad``, ``summary.json``, ``clusters.png``, ``tree.png`` and ``markers.png``, and
prints the clusters with their gates.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

import scmoe

GATED_FILE = re.compile(r"[^_]+_(?P<population>.+)_[A-H]\d\d")
"""One gated population a file, as Bodenmiller et al. name them: treatment, population, well."""

COFACTOR = {"mass": 5, "fluor": 150}
"""The field's habit for mass and fluorescence cytometry."""

MIN_POPULATION = 30
"""Populations with fewer cells are left out of the scores, as in the paper."""


class Stages:
    """Print the stages of the demo, and keep their seconds."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str):
        """Measure the seconds of the block."""
        print(f"[{name}]", flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def label(adata) -> None:
    """Set ``.obs["population"]`` by a label channel, or by files of one gate each."""
    if "label" in adata.var_names:
        scmoe.datasets.population_labels(adata)
        return
    gates = [GATED_FILE.fullmatch(str(s)) for s in adata.obs["sample"].cat.categories]
    if len(gates) > 1 and all(gates):
        names = {gate.string: gate["population"] for gate in gates}
        adata.obs["population"] = adata.obs["sample"].astype(str).map(names).astype("category")


def cluster_table(adata) -> pd.DataFrame:
    """Return size, share and gates of every cluster."""
    gates = scmoe.get.gates(adata, key="scmoe")
    size = adata.obs["scmoe"].value_counts(sort=False)
    share = (100 * size / size.sum()).round(2)
    return pd.DataFrame(
        {"cells": size, "%": share, "F1": gates["f1"].round(2), "gates": gates["gates"]}
    )


def run(
    data: Path | None,
    out: Path,
    *,
    seed: int = 0,
    n_clusters: int | None = None,
    n_cells: int = 6000,
    max_epochs: int | None = None,
) -> dict:
    """Run the demo, and return the content of ``summary.json``."""
    out.mkdir(parents=True, exist_ok=True)
    stage = Stages()
    if data is None:
        with stage("simulate"):
            data = out / "plate"
            scmoe.datasets.simulate_plate(data, n_wells=4, n_cells=n_cells, random_state=seed)
    with stage("read"):
        adata = scmoe.io.read_fcs(data)
        label(adata)
    with stage("arcsinh"):
        kinds = adata.var["kind"].value_counts().reindex(list(COFACTOR), fill_value=0)
        scmoe.pp.arcsinh(adata, cofactor=COFACTOR[kinds.idxmax()])
    if not adata.var["kind"].isin(list(COFACTOR)).any():
        raise ValueError(f"{data}: no channel is a marker")
    with stage("cluster"):
        epochs = {"max_epochs": max_epochs}
        scmoe.tl.cluster(adata, n_clusters=n_clusters, random_state=seed, train_kwargs=epochs)
    labelled = "population" in adata.obs
    scores = {"weighted_f": None, "mean_f1": None}
    if labelled:
        truth, found = adata.obs["population"], adata.obs["scmoe"]
        scores = {
            "weighted_f": scmoe.metrics.weighted_f(truth, found, min_size=MIN_POPULATION),
            "mean_f1": scmoe.metrics.mean_f1(truth, found, min_size=MIN_POPULATION),
        }
        scores = {name: round(float(value), 4) for name, value in scores.items()}
    with stage("figures"):
        color = ["scmoe", "population"] if labelled else ["scmoe"]
        scmoe.pl.clusters(adata, color=color, show=False, save=out / "clusters.png")
        scmoe.pl.tree(adata, key="scmoe", show=False, save=out / "tree.png")
        scmoe.pl.markers(adata, show=False, save=out / "markers.png")
    with stage("write"):
        adata.write_h5ad(out / "cells.h5ad")
    summary = {
        "n_cells": adata.n_obs,
        "n_clusters": int(adata.uns["scmoe"]["n_clusters"]),
        **scores,
        "seconds_per_stage": stage.seconds,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")

    print(f"\n{cluster_table(adata).to_string()}\n")
    if labelled:
        table = scmoe.metrics.match_table(truth, found, min_size=MIN_POPULATION)
        print(f"{table.round(2).to_string()}\n")
        print("weighted F {weighted_f:.3f}   mean F1 {mean_f1:.3f}".format(**scores))
    print(f"{adata.n_obs:,} cells, {summary['n_clusters']} clusters; seconds: {stage.seconds}")
    names = ["cells.h5ad", "summary.json", "clusters.png", "tree.png", "markers.png"]
    print("written: " + ", ".join(str(out / name) for name in names))
    return summary


def main() -> int:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="FCS file or directory of FCS files")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-cells", type=int, default=6000, help="cells of a simulated well")
    parser.add_argument("--max-epochs", type=int, help="fewer for a quick look")
    parser.add_argument("--n-clusters", type=int, help="upper bound")
    args = parser.parse_args()
    options = vars(args)
    try:
        run(options.pop("data"), options.pop("out"), **options)
    except (ValueError, FileNotFoundError) as error:  # FCSReadError is a ValueError
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
