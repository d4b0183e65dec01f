"""The same seed gives the same bits, whatever else the process did before."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch

from scmoe._core.random import one_at_a_time, seeded
from scmoe.similarity import CoAssociation, Graph, Knn, Labels
from scmoe.tl import assign, cluster, generate

WAYS = {
    "tree": {},
    "graph given": {"similarity": CoAssociation()},
    "graph built": {"use_rep": "X_rep", "similarity": CoAssociation()},
    "Graph": {"similarity": Graph()},
    "Knn": {"similarity": Knn(use_rep="X_rep", n_neighbors=5)},
    "Labels": {"similarity": Labels("population")},
    "part of the cells": {"train_kwargs": {"train_size": 0.8}},
    "batches": {"batch_key": "plate"},
    "learned noise": {"model_kwargs": {"code_noise": "learned", "gate_dropout": 0.5}},
}


def results(adata, **kwargs):
    """All that the functions of ``tl`` compute, as arrays."""
    adata = adata.copy()
    train_kwargs = {"max_epochs": 2, "accelerator": "cpu", **kwargs.pop("train_kwargs", {})}
    if kwargs.get("use_rep"):
        del adata.obsp["connectivities"]
    cluster(
        adata, n_clusters=6, random_state=7, progress=False, train_kwargs=train_kwargs, **kwargs
    )
    new = generate(adata, 50, random_state=7)
    query = adata[::-1].copy()
    assign(query, adata, key_added="found")
    return {
        "labels": adata.obs["scmoe"].to_numpy(str),
        "latent": adata.obsm["X_scmoe"],
        "proba": adata.obsm["scmoe_proba"].to_numpy(),
        "outlier": adata.obs["scmoe_outlier"].to_numpy(),
        "generated": new.X,
        "assigned": query.obsm["X_found"],
    }


def disturb():
    """What a notebook may have done in the meantime."""
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    torch.rand(1000)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float32)
    other = ad.AnnData(np.random.default_rng(1).random((60, 4)).astype(np.float32))
    sc.pp.neighbors(other, use_rep="X", n_neighbors=5)
    cluster(other, n_clusters=2, progress=False, train_kwargs={"max_epochs": 1})


@pytest.fixture
def cells(linked):
    linked.obs["plate"] = pd.Categorical(np.where(np.arange(600) % 3, "p1", "p2"))
    linked.obsm["X_rep"] = linked.X[:, :4].copy()
    return linked


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_whatever_ran_before(cells, way):
    threads = torch.get_num_threads()
    first = results(cells, **WAYS[way])
    try:
        disturb()
        second = results(cells, **WAYS[way])
    finally:
        torch.set_num_threads(threads)
    for name in first:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)


SCRIPT = """
import sys, numpy as np, anndata as ad
from scmoe.tl import cluster
adata = ad.read_h5ad(sys.argv[1])
kwargs = {"max_epochs": 2, "accelerator": "cpu"}
cluster(adata, n_clusters=6, random_state=7, progress=False, train_kwargs=kwargs)
np.savez(sys.argv[2], labels=adata.obs["scmoe"].to_numpy(str), latent=adata.obsm["X_scmoe"])
"""


@pytest.mark.slow
def test_in_another_process(cells, tmp_path):
    first = results(cells)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "cells.h5ad", tmp_path / "found.npz"],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
    )
    found = np.load(tmp_path / "found.npz")
    for name in found:
        np.testing.assert_array_equal(found[name], first[name], err_msg=name)


@pytest.mark.slow
def test_in_two_threads(cells):
    """Each gives the bits of a call by itself, and leaves the process as it was."""
    calls = [cells.copy() for _ in range(3)]
    alone = [results(adata, model_kwargs={"n_latent": d}) for d, adata in enumerate(calls, 2)]
    threads, levels = torch.get_num_threads(), logging.getLogger("scvi").level
    filters, state = list(warnings.filters), torch.get_rng_state()
    ready = threading.Barrier(len(calls))

    def run(task):
        ready.wait()
        return results(task[1], model_kwargs={"n_latent": task[0]})

    with ThreadPoolExecutor(len(calls)) as pool:
        found = list(pool.map(run, enumerate(calls, 2)))
    for one, other in zip(alone, found, strict=True):
        for name in one:
            np.testing.assert_array_equal(other[name], one[name], err_msg=name)
    assert (torch.get_num_threads(), logging.getLogger("scvi").level) == (threads, levels)
    assert warnings.filters == filters
    assert torch.equal(torch.get_rng_state(), state)


# Python 3.12 warns of forks beside threads, which is what this is about
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_in_the_middle_of_a_clustering():
    """A process that is forked while a thread has its turn has turns of its own."""
    with one_at_a_time():
        child = multiprocessing.get_context("fork").Process(target=_take_a_turn)
        started = threading.Thread(target=child.start)
        started.start()
        started.join()
        child.join(20)
        alive = child.is_alive()
        child.kill()
    assert not alive
    assert child.exitcode == 0


def _take_a_turn():
    with seeded(1):
        pass


def test_seeds_differ(cells):
    cluster(cells, n_clusters=6, random_state=1, progress=False, train_kwargs={"max_epochs": 1})
    first = cells.obsm["X_scmoe"]
    cluster(cells, n_clusters=6, random_state=2, progress=False, train_kwargs={"max_epochs": 1})
    assert (cells.obsm["X_scmoe"] != first).any()


@pytest.mark.slow
def test_manifest(cells):
    similarity, train_kwargs = CoAssociation(), {"max_epochs": 1, "accelerator": "cpu"}
    how = {"n_clusters": 4, "similarity": similarity, "train_kwargs": train_kwargs}
    cluster(cells, random_state=3, progress=False, **how)
    record = cells.uns["scmoe"]["manifest"]
    assert record["seed"] == 3
    assert record["versions"]["torch"] == torch.__version__
    assert {"scmoe", "scvi-tools", "anndata", "numpy"} <= set(record["versions"])

    def hashes(adata, **kwargs):
        cluster(adata, progress=False, **how, **kwargs)
        return [adata.uns["scmoe"]["manifest"][name] for name in ("data", "graph")]

    data, graph = record["data"], record["graph"]
    assert hashes(cells) == [data, graph]
    other = cells.copy()
    other.obsp["connectivities"] = other.obsp["connectivities"] * 0.5
    assert hashes(other)[0] == data
    assert hashes(other)[1] != graph
    changed = cells.copy()
    changed.X[5, 5] += 1e-6
    assert hashes(changed)[0] != data
    renamed = cells.copy()
    renamed.var_names = [f"{name}-A" for name in cells.var_names]
    assert hashes(renamed)[0] != data
