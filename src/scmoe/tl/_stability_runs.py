"""Repeated runs of a clustering, on copies of the cells in another order."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from scmoe._core.cells import layer_names
from scmoe._core.random import one_at_a_time
from scmoe.get import tree_values
from scmoe.similarity import with_seed
from scmoe.tl._cluster import cluster
from scmoe.tree import Tree

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.similarity import Similarity
    from scmoe.tl._cluster_request import ClusterRequest

logger = logging.getLogger("scmoe")

_NAME = "a run of stability"

SHARED = 1_000_000
"""Size in bytes from which processes share an array."""


class Run(NamedTuple):
    """Result of a run."""

    clusters: pd.Categorical
    """Cluster of each cell, NaN for cells that are not in the run."""
    leaf: np.ndarray | None
    """Leaf of each cell in the density tree of the run, -1 for the others; None without one."""


class Runner:
    """Repeats a clustering on copies of the cells.

    Parameters
    ----------
    adata
        Cells of the user, which are not changed.
    request
        What to cluster and how.
    share
        Share of the cells in each run; None for all.
    own_graph
        Whether each run builds its own graph, even if there is a graph.
    """

    def __init__(
        self,
        adata: AnnData,
        request: ClusterRequest,
        *,
        share: float | None = None,
        own_graph: bool = False,
    ):
        self.request = request
        self.share = share
        self.n_obs = adata.n_obs
        self.cells = _shallow_copy(adata, own_graph)
        if share is not None:
            self._check_size()

    @property
    def n_drawn(self) -> int:
        """Number of cells of a run."""
        return self.n_obs if self.share is None else round(self.share * self.n_obs)

    def _check_size(self) -> None:
        least = self.request.least_clusters
        if self.n_drawn < least:
            raise ValueError(
                f"A subset of {self.share:g} of {self.n_obs} cells has fewer cells "
                f"({self.n_drawn}) than there are clusters ({least}); use a larger `share`, or a "
                "smaller `n_clusters`."
            )

    @staticmethod
    def seeds(seed: int, n_runs: int, taken: int) -> list[int]:
        """Draw different seeds but ``taken``; more runs begin with the seeds of fewer runs."""
        rng = np.random.default_rng(seed)
        found: list[int] = []
        while len(found) < n_runs:
            drawn = int(rng.integers(2**31))
            if drawn != taken and drawn not in found:
                found.append(drawn)
        return found

    def runs(self, seeds: list[int], n_jobs: int) -> Iterator[Run]:
        """Iterate over the runs, with ``n_jobs`` processes at a time.

        Processes get the cells once, as files mapped into memory, copied when written to.
        """
        jobs = Parallel(n_jobs, return_as="generator", max_nbytes=SHARED, mmap_mode="c")
        # the others would repeat the messages of the first run
        return jobs(delayed(self.run)(seed, quiet=n > 0) for n, seed in enumerate(seeds))

    def run(self, seed: int, *, quiet: bool) -> Run:
        """Return one run, of all cells or of a subset, in random order."""
        chosen = order_of(self.n_obs, seed)[: self.n_drawn]
        cells, options = self.cells[chosen].copy(), self.request.given()
        if self.request.similarity is not None:
            similarity = _of_subset(self.request.similarity, chosen)
            options["similarity"] = with_seed(similarity, seed)
        with _quiet(quiet):
            cluster(cells, key_added=_NAME, random_state=seed, progress=False, **options)
        found = cells.obs[_NAME].cat
        codes = np.full(self.n_obs, -1)
        codes[chosen] = found.codes
        names = [str(name) for name in found.categories]
        leaf, record = None, cells.uns.get(_NAME, {})
        if "tree" in record:
            leaf = np.full(self.n_obs, -1, dtype=np.int32)
            tree = Tree.from_record(record["tree"])
            leaf[chosen] = tree.find_leaves(tree_values(cells, _NAME, tree))
        return Run(pd.Categorical.from_codes(codes, names), leaf)


def order_of(n_obs: int, seed: int) -> np.ndarray:
    """Return the order of the cells in a run, ``(n_obs,)``."""
    return np.random.default_rng(seed).permutation(n_obs)


def _shallow_copy(adata: AnnData, own_graph: bool = False) -> AnnData:
    """Return an AnnData that shares arrays with another one, with separate slots for results."""
    graphs = dict(adata.obsp)
    if own_graph:
        graphs.pop("connectivities", None)
    return ad.AnnData(
        adata.X,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        layers={name: adata.layers[name] for name in layer_names(adata)},
        obsp=graphs,
    )


def _of_subset(similarity: Similarity, chosen: np.ndarray) -> Similarity:
    """Return a similarity of some cells; its functions get positions among all cells."""
    from scmoe.similarity import Custom, Similarity

    if isinstance(similarity, Custom):
        if isinstance(similarity.function, str):
            # it raises the error of a missing function itself
            return similarity
        function = similarity.function
        return Custom(lambda cells: function(chosen[cells]))
    parts = {
        f.name: _of_subset(value, chosen)
        for f in fields(similarity)
        if isinstance(value := getattr(similarity, f.name), Similarity)
    }
    return replace(similarity, **parts) if parts else similarity


@contextmanager
def _quiet(yes: bool) -> Iterator[None]:
    """Suppress the messages of a run that repeat those of the first one."""

    def louder(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    if not yes:
        yield
        return
    logger.addFilter(louder)
    try:
        with one_at_a_time(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings(
                "ignore", category=UserWarning, module=r"scmoe\.tl\._stability_runs"
            )
            yield
    finally:
        logger.removeFilter(louder)
