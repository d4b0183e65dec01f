"""Cost of a cell: routed experts, the stages of a run, and steps against a bare loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from lightning.pytorch.callbacks import Callback as Hooks

import scmoe
from benchmarks.tables import markdown, measured
from scmoe.nn import Experts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.experiment import Options

KEYS = ("table", "batch", "experts", "kind", "n_cells", "step")
SEEDS = 1
SETTINGS: dict = {}

N_REPEATS, STEP_REPEATS = 30, 5

SIZES = {"full": (10_000, 40_000, 160_000), "small": (10_000,)}
"""Cells of the runs whose stages are timed."""


class AllExperts(torch.nn.Module):
    """A decoder in which every expert decodes every cell, to measure what routing saves."""

    def __init__(self, experts: Experts):
        super().__init__()
        self.experts = experts

    def forward(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Decode by all experts, and keep the expert of each cell."""
        h = z.expand(self.experts.n_experts, *z.shape)
        last = len(self.experts.weights) - 1
        for i, (weight, bias) in enumerate(
            zip(self.experts.weights, self.experts.biases, strict=True)
        ):
            h = torch.baddbmm(bias, h, weight)
            h = self.experts.activation(h) if i < last else h
        return h[expert, torch.arange(len(z))]


def experts(say: Callable) -> list[dict]:
    """Return microseconds per cell, forward and backward, against K and the batch size."""
    records = []
    for batch in (256, 8192):
        modules = {}
        for k in (10, 25, 100):
            torch.manual_seed(0)
            layer = Experts(k, 9, 64, 32, n_layers=1)
            z = torch.randn(batch, 9)
            # as unequal as cell populations are: the first expert owns a third of the cells
            share = torch.tensor([1 / (i + 1) for i in range(k)])
            expert = torch.multinomial(share, batch, replacement=True)
            modules["routed", k] = (layer, z, expert)
            modules["all experts", k] = (AllExperts(layer), z, expert)
        seconds: dict[tuple, list[float]] = {key: [] for key in modules}
        for _ in range(N_REPEATS):  # in turn, so that a slow moment hits all alike
            for key, (module, z, expert) in modules.items():
                start = time.perf_counter()
                module(z, expert).sum().backward()
                seconds[key].append(time.perf_counter() - start)
                module.zero_grad()
        base = np.median(seconds["routed", 10])
        for (kind, k), times in seconds.items():
            records.append(
                {
                    "batch": batch,
                    "experts": k,
                    "kind": kind,
                    "us_per_cell": round(1e6 * float(np.median(times)) / batch, 3),
                    "relative_to_routed_10": round(float(np.median(times) / base), 2),
                }
            )
            say(
                "batch {batch}, K={experts}, {kind}: {us_per_cell} us a cell, "
                "{relative_to_routed_10}x".format(**records[-1])
            )
    return records


class Steps(Hooks):
    """A callback that measures CPU milliseconds of the steps of a fit."""

    def on_train_start(self, trainer, plan) -> None:
        """Start the timer."""
        self.start = time.process_time()

    def on_train_end(self, trainer, plan) -> None:
        """Stop the timer, and measure as many steps of a bare loop."""
        self.ms = 1e3 * (time.process_time() - self.start) / trainer.global_step
        self.batch, self.bare_ms = trainer.datamodule.batch_size, self.bare(trainer, plan)

    def bare(self, trainer, plan) -> float:
        """Return CPU milliseconds per step of the same module on the same batches."""
        module, clip = plan.module.train(), trainer.gradient_clip_val
        adam = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
        batches, left = trainer.datamodule.train_dataloader(), trainer.global_step
        start = time.process_time()
        while left > 0:
            for batch, _ in zip(batches, range(left), strict=False):
                adam.zero_grad()
                module(batch)[2].loss.backward()
                if clip:
                    torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
                adam.step()
                left -= 1
        return 1e3 * (time.process_time() - start) / trainer.global_step


def _simulated(n_cells: int) -> ad.AnnData:
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 5, (12, 20))
    which = rng.choice(12, n_cells, p=np.arange(1, 13) / 78)
    x = centres[which] + rng.normal(scale=0.5, size=(n_cells, 20))
    return ad.AnnData(x.astype(np.float32))


def steps(say: Callable) -> Iterator[dict]:
    """Return CPU milliseconds per step of each model, and the share of a bare loop."""
    model = scmoe.model
    tree = {"similarity": scmoe.similarity.DensityTree()}
    asked = {
        "MoESimVAE, started": (model.MoESimVAE, tree, {"max_steps": 200, "start": True}),
        "MoESimVAE, all pairs": (model.MoESimVAE, tree, {"max_epochs": 2, "start": False}),
        "MoEVAE": (model.MoEVAE, {}, {"max_epochs": 2, "pretrain": False}),
        "CplMixVAE": (
            model.CplMixVAE,
            {},
            {"max_epochs": 3, "start": False, "prune": False, "augment": False},
        ),
    }
    for name, (kind, setup, settings) in asked.items():
        cells, spent = _simulated(25_000), []
        kind.setup_anndata(cells, **setup)
        made = kind(cells, 14, **({"n_latent": 5} if kind is model.MoEVAE else {}))
        for _ in range(STEP_REPEATS + 1):  # in turn, so that a slow moment hits both
            clock = Steps()
            made.train(callbacks=[clock], accelerator="cpu", enable_progress_bar=False, **settings)
            spent.append((clock.ms, clock.bare_ms))
        fit, bare = np.array(spent[1:]).T  # the first is a warming up
        record = {
            "step": name,
            "batch": clock.batch,
            "cpu_ms": round(float(np.median(fit)), 2),
            "bare_over_fit": round(float(np.median(bare / fit)), 2),
        }
        say("{step}: {cpu_ms} ms a step, a bare loop {bare_over_fit} of it".format(**record))
        yield record


def _timed(record: dict, name: str, call: Callable):
    start = time.perf_counter()
    result = call()
    record[name] = round(time.perf_counter() - start, 2)
    return result


def _stages(n_cells: int) -> dict:
    cells = _simulated(n_cells)
    record = {"n_cells": n_cells}
    _timed(record, "graph", lambda: sc.pp.neighbors(cells, use_rep="X"))
    similarity = scmoe.similarity.CoAssociation()
    _timed(record, "similarity", lambda: similarity.bind(cells, cells.X))
    scmoe.model.MoESimVAE.setup_anndata(cells)
    model = scmoe.model.MoESimVAE(cells)
    _timed(record, "train, with similarity", lambda: model.train(enable_progress_bar=False))
    _timed(record, "predict", model.predict)
    record["train, us a cell visit"] = round(
        1e6
        * (record["train, with similarity"] - record["similarity"])
        / (len(model.history["loss_train"]) * n_cells),
        1,
    )
    record["predict, us a cell"] = round(1e6 * record["predict"] / n_cells, 2)
    return record


def stages(numbers: tuple[int, ...], say: Callable) -> Iterator[dict]:
    """Return seconds of graph, similarity, training and prediction against the number of cells."""
    _stages(10_000)  # numba compiles the neighbour search at its first use
    for n_cells in numbers:
        record = _stages(n_cells)
        say(str(record))
        yield record


def run(options: Options, say: Callable[[str], None]) -> Iterator[dict]:
    """Return the records of the tables; ``--datasets`` chooses tables, seeds have no effect."""
    tables = {
        "experts": lambda: experts(say),
        "stages": lambda: stages(SIZES[options.size], say),
        "steps": lambda: steps(say),
    }
    for name in options.choose("datasets", tables):
        for record in tables[name]():
            yield {"table": name, **record}


TEXT = """## Cost

Experts, forward and backward, with cells spread over the experts as unevenly as populations are.
*Routed* is what scmoe does; *all experts* decodes every cell by every expert and keeps one result,
as the authors' code does. The ratio is to the routed layer with 10 experts, in the same run.
"""

STAGES = """
Seconds of the stages of a clustering of simulated cells with 20 markers:
"""


STEPS = """
CPU milliseconds of a step of each model on 25,000 cells, and what a bare loop of torch with the
same module, batches and optimiser needs, as a share of it:
"""


def section(result: dict) -> str:
    """Return all tables."""
    text, table = TEXT, measured(result["records"])
    for name, head in {"experts": "", "stages": STAGES, "steps": STEPS}.items():
        rows = table[table["table"] == name].drop(columns="table").dropna(axis=1, how="all")
        if len(rows):
            text += head + "\n" + markdown(rows.columns, rows.convert_dtypes().to_numpy(object))
    return text
