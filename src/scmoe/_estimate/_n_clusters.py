"""Estimates of the number of clusters, by name of the method."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

from scmoe._core.neighbors import N_PCS_FROM, neighbor_graph
from scmoe._core.text import listing
from scmoe._estimate._clusters import Found, check_codes
from scmoe._estimate._density import density_clusters
from scmoe._estimate._stability import stable_clusters
from scmoe._estimate._tree import tree_clusters

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from scipy.sparse import csr_matrix

FUNCTIONS = {
    "stability": stable_clusters,
    "tree": tree_clusters,
    "density": density_clusters,
    "santos": density_clusters,
}

Method = Literal["stability", "tree", "density", "santos"]

NOT_SETTINGS = {"codes", "graph", "n_clusters", "seed", "progress"}
"""Parameters of the methods that are not settings."""

METHODS = tuple(FUNCTIONS)
"""Names of the methods."""


def default_method(n_features: int, *, markers: bool) -> Literal["tree", "stability"]:
    """Return the default method: the tree for the markers of a panel, else stability.

    Parameters
    ----------
    n_features
        Number of features.
    markers
        Whether each feature is meaningful by itself, unlike pixels and principal components.
    """
    return "tree" if markers and n_features <= N_PCS_FROM else "stability"


def find_n_clusters(
    codes: np.ndarray | None = None,
    graph: csr_matrix | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    method: Method = "stability",
    seed: int = 0,
    progress: bool = False,
) -> Found:
    """Estimate the number of clusters.

    Parameters
    ----------
    codes
        ``(n, d)`` values in which distances mean something. Not needed for ``"stability"`` with
        a graph.
    graph
        ``(n, n)`` weights of a neighbour graph, for ``"stability"``; None for one of the codes.
    settings
        Keyword arguments of the method.
    method
        ``"stability"`` (:func:`stable_clusters`), ``"tree"`` (:func:`tree_clusters`),
        ``"density"`` (:func:`density_clusters`), or ``"santos"``: ``"density"`` with the
        settings of the paper.
    seed
        The same seed gives the same answer.
    progress
        Show a progress bar.

    Returns
    -------
    The clusters; there may be fewer than two.

    Raises
    ------
    ValueError
        An unknown method or setting; neither codes nor a graph; a graph for a method that takes
        codes; the errors of the method.
    """
    settings = settings or {}
    check_method(method, settings)
    if method == "stability":
        if (codes is None) == (graph is None):
            raise ValueError('`method="stability"` takes either `codes` or a `graph`.')
        if graph is None:
            graph = neighbor_graph(check_codes(codes))
        return stable_clusters(graph, seed=seed, progress=progress, **settings)
    if codes is None or graph is not None:
        raise ValueError(f"`method={method!r}` takes `codes`, and no graph.")
    if method == "santos":
        settings = {**santos(len(codes)), **settings}
    found = FUNCTIONS[method](codes, seed=seed, progress=progress, **settings)
    return replace(found, method=method)


def check_method(method: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for an unknown method or an unknown setting of the method."""
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
    known = sorted(set(signature(FUNCTIONS[method]).parameters) - NOT_SETTINGS)
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(
            f"`method={method!r}` has no {listing(unknown)}; it has {', '.join(known)}."
        )


def santos(n_cells: int) -> dict[str, Any]:
    """Return the settings of Santos: neighbours by eq. 10, else the defaults of the libraries."""
    return {
        "n_neighbors": max(n_cells // 300, 100),
        "n_components": 2,
        "min_dist": 0.1,
        "min_cluster_size": 5,
    }


def find_clusters(
    codes: np.ndarray | None = None,
    graph: csr_matrix | None = None,
    *,
    method: Method = "stability",
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> Found:
    """Find at least two clusters, see :func:`find_n_clusters`; else ValueError with advice."""
    return at_least_two(
        find_n_clusters(codes, graph, settings, method=method, seed=seed, progress=progress)
    )


def at_least_two(found: Found) -> Found:
    """Return the clusters; ValueError with advice where there are fewer than two."""
    if found.n_clusters < 2:
        raise ValueError(advice(found))
    return found


def advice(found: Found) -> str:
    """Return advice for fewer than two clusters."""
    number = "No cluster was" if found.n_clusters == 0 else "Only one cluster was"
    other = "density" if found.method == "stability" else "stability"
    setting = "significance" if found.method == "tree" else "min_cluster_size"
    return (
        f"{number} found by method {found.method!r}: these values have no groups that it "
        f'can separate. Give the number of clusters, try `method="{other}"` or another '
        f"`{setting}` (in `scmoe.tl.cluster` they are `estimate_kwargs`, with "
        '`model="moe-vae"` `pretrain_kwargs`, of `train_kwargs`), or look at values in which the '
        "groups are further apart."
    )
