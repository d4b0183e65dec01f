"""The top of the page: scmoe and the best peers, in a table and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import cytof
from benchmarks.numbers import TUNED_ON
from benchmarks.tables import markdown, measured

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """Comparable records of one experiment.

    Parameters
    ----------
    title, section
        What was measured, and the heading under which all of it stands.
    experiment, metric, where
        The results, the column, and a query for the records.
    ours
        The method of ours. Peers are all whose names do not begin with scmoe.
    by
        Column with the data sets; None for means over them.
    smaller
        Whether less is better.
    """

    title: str
    section: str
    experiment: str
    metric: str
    ours: str
    where: str = "seed >= 0"
    by: str | None = "dataset"
    smaller: bool = False

    def medians(self, records: list[dict]) -> pd.DataFrame:
        """Return medians over the seeds, one row for each data set, one column for each method."""
        table = measured(records).query(self.where, engine="python")
        table = table[~table["method"].isin(CEILINGS)]
        medians = table.pivot_table(
            self.metric, self.by or "dataset", "method", aggfunc="median", sort=False
        )
        if self.by is None:
            medians = medians.mean().to_frame(f"mean of {len(medians)} data sets").T
        if self.ours not in medians:
            # a part of the methods was run
            return medians.iloc[:0]
        others = ~medians.columns.str.startswith("scmoe") | (medians.columns == self.ours)
        medians = medians.loc[medians[self.ours].notna(), others]
        return medians[medians.drop(columns=self.ours).notna().any(axis=1)]

    def best(self, peers: pd.Series) -> str:
        """Return the name of the best peer on a data set."""
        return peers.idxmin() if self.smaller else peers.idxmax()


CEILINGS = ("real cells", cytof.CEILING)
"""What there is to reach, not peers."""

CYTOF = (cytof.OURS, 'protocol == "all cells"')
COMPARISONS = (
    Comparison("weighted F", "CyTOF", "cytof", "weighted_f", *CYTOF),
    Comparison("mean F1", "CyTOF", "cytof", "mean_f1", *CYTOF),
    Comparison("seconds", "CyTOF", "cytof", "seconds", *CYTOF, smaller=True),
    Comparison(
        "weighted F, by components",
        "Synthetic mixtures",
        "synthetic",
        "weighted_f",
        "scmoe",
        'dataset == "equal weights" and n_cells == 10000',
        by="n_components",
    ),
    Comparison("ACC", "Images", "images", "accuracy", "scmoe, UMAP of gradients"),
    Comparison(
        "weighted F, unseen cells",
        "Marker priors",
        "organs",
        "test_weighted_f",
        "scmoe, prior and graph",
        'table == "literature"',
    ),
    Comparison(
        "AUC of a classifier, at best 0.5",
        "Generated cells",
        "cells",
        "auc",
        "scmoe",
        smaller=True,
    ),
    Comparison(
        "NMI",
        "The number of clusters",
        "numbers",
        "nmi",
        "stability",
        f'n_populations > 1 and not dataset.str.match("{"|".join(TUNED_ON)}") and '
        'method not in ("density", "santos")',
        by=None,
    ),
    Comparison(
        "ACC, number told", "Santos' mixture of VAEs", "santos", "final_accuracy", "scmoe, K told"
    ),
)

HEAD = """
## In short

Our figure and that of the best peer, medians over the seeds; the better one is bold. The peer is
the best of several in each line, chosen by the score that is shown; ours is one method for all
lines of a section. Conditions, ranges and all that was tried stand in the sections.

"""


def table(results: dict[str, dict]) -> str:
    """Return the summary as markdown; nothing where there is nothing to compare."""
    lines = []
    for each in COMPARISONS:
        if each.experiment not in results:
            continue
        digits = 1 if each.metric == "seconds" else 3
        for name, row in each.medians(results[each.experiment]["records"]).iterrows():
            peers = row.drop(each.ours).dropna()
            peer = each.best(peers)
            pair = [row[each.ours], peers[peer]]
            ahead = min(pair) if each.smaller else max(pair)
            values = [f"**{v:.{digits}f}**" if v == ahead else f"{v:.{digits}f}" for v in pair]
            where = f"[{each.section}](#{anchor(each.section)})"
            lines.append([where, each.title, name, *values, peer])
    if not lines:
        return ""
    return markdown(["what", "measure", "data", "scmoe", "best peer", "which"], lines)


def anchor(section: str) -> str:
    """Return the anchor that MyST gives a heading."""
    kept = "".join(c for c in section.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def draw(results: dict[str, dict], path: Path) -> None:
    """Draw all methods of the summary, a panel for each comparison, into an SVG file."""
    panels = [
        (each, each.medians(results[each.experiment]["records"]))
        for each in COMPARISONS
        if each.experiment in results
    ]
    panels = [(each, medians) for each, medians in panels if len(medians)]
    # text stays text, and the same results give the same bytes
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "scmoe", "font.size": 9}):
        figure = Figure(figsize=(10, 9), layout="constrained")
        axes = figure.subplots(3, 3).ravel()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for ax, (each, medians) in zip(axes, panels, strict=False):
            for y, (_, row) in enumerate(medians.iterrows()):
                peers = row.drop(each.ours).dropna()
                ax.plot(peers, [y] * len(peers), "o", color="0.7", markersize=5, label="peers")
                best = peers[each.best(peers)]
                ax.plot(best, y, "o", mec="0.2", mfc="0.7", markersize=7, label="best peer")
                ax.plot(row[each.ours], y, "D", color="C3", markersize=6, label="scmoe")
            ax.set_yticks(range(len(medians)), [str(name) for name in medians.index])
            ax.set_ylim(len(medians) - 0.5, -0.5)
            ax.set_title(f"{each.section}\n{each.title}", fontsize=9)
            ax.set_xlabel("← better" if each.smaller else "better →", color="0.4")
            ax.grid(axis="y", color="0.93")
            ax.set_axisbelow(True)
            if each.metric == "seconds":
                ax.set_xscale("log")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles[:3], labels[:3], loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
