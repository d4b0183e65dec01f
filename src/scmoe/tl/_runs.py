"""The same clustering again and again, on cells of its own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

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
    from collections.abc import Mapping

    from anndata import AnnData

    from scmoe.similarity import Similarity

logger = logging.getLogger("scmoe")

_NAME = "a run of stability"

SHARED = 1_000_000
"""Bytes of an array from which processes share it."""


class Run(NamedTuple):
    """What a run says of the cells."""

    clusters: pd.Categorical
    """Cluster of each cell, NaN for cells that are not in the run."""
    leaf: np.ndarray | None
    """Leaf of each cell in the density tree of the run, -1 for the others; None without one."""


class Runner:
    """Clusters a copy of some cells.

    Parameters
    ----------
    adata
        The user's cells, which are not touched.
    settings
        Arguments of :func:`scmoe.tl.cluster`.
    share
        Share of the cells in each run; None for all.
    own_graph
        Whether each run builds its graph, whatever graph there is.
    """

    def __init__(
        self,
        adata: AnnData,
        settings: Mapping[str, Any],
        *,
        share: float | None = None,
        own_graph: bool = False,
    ):
        self.settings = dict(settings)
        self.share = share
        self.n_obs = adata.n_obs
        self.cells = _light(adata, own_graph)
        if share is not None:
            self._check_size()

    @property
    def n_drawn(self) -> int:
        """Cells of a run."""
        return self.n_obs if self.share is None else round(self.share * self.n_obs)

    def _check_size(self) -> None:
        least = self.settings.get("n_clusters")
        least = least if isinstance(least, int | np.integer) else 2
        if self.n_drawn < least:
            raise ValueError(
                f"A subset of {self.share:g} of {self.n_obs} cells has fewer cells "
                f"({self.n_drawn}) than there are clusters ({least}); use a larger `share`, or a "
                "smaller `n_clusters`."
            )

    @staticmethod
    def seeds(seed: int, n_runs: int, taken: int) -> list[int]:
        """Different seeds, none of them ``taken``; more runs begin with those of fewer."""
        rng = np.random.default_rng(seed)
        found: list[int] = []
        while len(found) < n_runs:
            drawn = int(rng.integers(2**31))
            if drawn != taken and drawn not in found:
                found.append(drawn)
        return found

    def runs(self, seeds: list[int], n_jobs: int) -> Iterator[Run]:
        """Each run in turn, of which so many processes work at a time.

        Processes get the cells once, as files in memory that they may write to for themselves.
        """
        jobs = Parallel(n_jobs, return_as="generator", max_nbytes=SHARED, mmap_mode="c")
        # what the first run says, the others need not say again
        return jobs(delayed(self.run)(seed, quiet=n > 0) for n, seed in enumerate(seeds))

    def run(self, seed: int, *, quiet: bool) -> Run:
        """One run, of cells in an order of its own: all of them, or as many as are drawn."""
        chosen = order_of(self.n_obs, seed)[: self.n_drawn]
        cells, settings = self.cells[chosen].copy(), dict(self.settings)
        if settings.get("similarity") is not None:
            similarity = _of_subset(settings["similarity"], chosen)
            settings["similarity"] = with_seed(similarity, seed)
        with _quiet(quiet):
            cluster(cells, key_added=_NAME, random_state=seed, progress=False, **settings)
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
    """The order of the cells in a run, ``(n_obs,)``."""
    return np.random.default_rng(seed).permutation(n_obs)


def _light(adata: AnnData, own_graph: bool = False) -> AnnData:
    """Cells that share their arrays with the user's, with places for results of their own."""
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
    """A similarity whose functions are still asked about the numbers of all cells."""
    from scmoe.similarity import Custom, Similarity

    if isinstance(similarity, Custom):
        if isinstance(similarity.function, str):
            # found nowhere, which it says itself
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
    """Let a run say nothing that the first one has said already."""

    def louder(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    if not yes:
        yield
        return
    logger.addFilter(louder)
    try:
        with one_at_a_time(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", category=UserWarning, module=r"scmoe\.tl\._runs")
            yield
    finally:
        logger.removeFilter(louder)
