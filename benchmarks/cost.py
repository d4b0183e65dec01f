"""What a cell costs: routed experts against the number of experts, and the stages of a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
import torch

import scmoe
from scmoe.nn import Experts

if TYPE_CHECKING:
    from collections.abc import Callable

N_REPEATS = 30


class AllExperts(torch.nn.Module):
    """Every expert decodes every cell, then one is chosen: what routing saves."""

    def __init__(self, experts: Experts):
        super().__init__()
        self.experts = experts

    def forward(self, z: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        """Decode by all experts, keep each cell's own."""
        h = z.expand(self.experts.n_experts, *z.shape)
        last = len(self.experts.weights) - 1
        for i, (weight, bias) in enumerate(
            zip(self.experts.weights, self.experts.biases, strict=True)
        ):
            h = torch.baddbmm(bias, h, weight)
            h = self.experts.activation(h) if i < last else h
        return h[expert, torch.arange(len(z))]


def experts(say: Callable) -> list[dict]:
    """Microseconds for a cell, forward and backward, against K and the batch."""
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


def _timed(record: dict, name: str, call: Callable):
    start = time.perf_counter()
    result = call()
    record[name] = round(time.perf_counter() - start, 2)
    return result


def _stages(n_cells: int) -> dict:
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 5, (12, 20))
    which = rng.choice(12, n_cells, p=np.arange(1, 13) / 78)
    x = (centres[which] + rng.normal(scale=0.5, size=(n_cells, 20))).astype(np.float32)
    cells = ad.AnnData(x)
    record = {"n_cells": n_cells}
    _timed(record, "graph", lambda: sc.pp.neighbors(cells, use_rep="X"))
    similarity = scmoe.similarity.CoAssociation()
    _timed(record, "similarity", lambda: similarity.bind(cells, x))
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


def stages(say: Callable) -> list[dict]:
    """Seconds of graph, similarity, training and prediction against the number of cells."""
    _stages(10_000)  # numba compiles the neighbour search at its first use
    records = []
    for n_cells in (10_000, 40_000, 160_000):
        records.append(_stages(n_cells))
        say(str(records[-1]))
    return records


def run(say: Callable) -> dict[str, list[dict]]:
    """Both tables."""
    return {"experts": experts(say), "stages": stages(say)}
