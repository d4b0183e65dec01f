"""The documentation page, made from the results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """# Benchmarks

Made by `make bench` from `benchmarks/results/`; do not edit by hand. Every method saw the same
values in the same run, with the settings that its users start from; scmoe ran with every default.
Hyper-parameters were chosen on the Bodenmiller wells and on samusik RAMP. Scores are explained in
[Metrics](metrics.md).
"""

CYTOF = """
## CyTOF

Median over the seeds, and the range in brackets. All cells of a data set are clustered together
without labels; populations of at least 30 cells are scored, ungated cells are not. Bodenmiller:
the paper's 10 surface markers. A seed sets the order of the cells and the random state.
"""

COST = """
## Cost

Experts, forward and backward, with cells spread over the experts as unevenly as populations are.
*Routed* is what scmoe does; *all experts* decodes every cell by every expert and keeps one result,
as the authors' code does. The ratio is to the routed layer with 10 experts, in the same run.
"""

STAGES = """
Seconds of the stages of a clustering of simulated cells with 20 markers:
"""


def _spread(values: pd.Series, digits: int) -> str:
    low, mid, high = np.min(values), np.median(values), np.max(values)
    return f"{mid:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def cytof_tables(result: dict) -> str:
    """One table for each data set."""
    table = pd.DataFrame(result["records"])
    text = CYTOF
    for dataset, rows in table.groupby("dataset", sort=False):
        seeds = ", ".join(map(str, sorted(rows["seed"].unique())))
        text += f"\n### {dataset}: {rows['n_cells'].iloc[0]:,} cells, seeds {seeds}\n\n"
        text += "| method | weighted F | mean F1 | clusters | seconds |\n"
        text += "| --- | --- | --- | --- | --- |\n"
        for method, runs in rows.groupby("method", sort=False):
            text += (
                f"| {method} | {_spread(runs['weighted_f'], 3)} | {_spread(runs['mean_f1'], 3)} "
                f"| {_spread(runs['n_clusters'], 0)} | {np.median(runs['seconds']):.1f} |\n"
            )
    return text


def _markdown(records: list[dict]) -> str:
    table = pd.DataFrame(records)
    lines = ["| " + " | ".join(table.columns) + " |", "| --- " * table.shape[1] + "|"]
    lines += ["| " + " | ".join(str(v) for v in row) + " |" for row in table.to_numpy(object)]
    return "\n".join(lines) + "\n"


def write(results: Path, page: Path) -> None:
    """Write the page from whatever results there are."""
    text = HEAD
    machine = ""
    if (path := results / "cytof.json").exists():
        result = json.loads(path.read_text())
        text += cytof_tables(result)
        machine = result["machine"]
    if (path := results / "cost.json").exists():
        result = json.loads(path.read_text())
        text += COST + "\n" + _markdown(result["records"]["experts"])
        text += STAGES + "\n" + _markdown(result["records"]["stages"])
        machine = result["machine"]
    text += f"\nMachine: {machine}. Times on a shared machine are rough; compare within a table.\n"
    page.write_text(text)
