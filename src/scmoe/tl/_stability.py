"""``scmoe.tl.stability``: find the clusters that recur in repeated runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.cells import check_adata, obs_columns
from scmoe._core.keys import Key
from scmoe._core.plain import for_h5ad
from scmoe._core.progress import bar
from scmoe._core.random import as_seed
from scmoe._core.settings import check_whole, is_number, is_whole, one_of
from scmoe.get import tree_values
from scmoe.tl._cluster_record import built_graph, read_request
from scmoe.tl._cluster_request import ClusterRequest
from scmoe.tl._results import check_free, write
from scmoe.tl._stability_runs import Runner
from scmoe.tree import Tree, support

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.metrics import Agreement

logger = logging.getLogger("scmoe")

Repeat = Literal["seeds", "subsets"]

RECORD = {"clusters", "jaccard", "runs", "params"}
"""Entries by which the record of a stability is known."""


def stability(
    adata: AnnData,
    *,
    key: str | None = Key.DEFAULT,
    n_runs: int = 10,
    how: Repeat = "seeds",
    share: float = 0.8,
    key_added: str | None = None,
    random_state: int | np.random.Generator = 0,
    n_jobs: int = 1,
    copy: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> AnnData | None:
    """Measure which clusters recur when the clustering is repeated.

    The clustering is repeated with its recorded settings, with other seeds and another order of
    the cells, and each of its clusters is compared with the clusters of each run. A cluster that
    recurs is not necessarily a population, but a cluster that does not recur is not reliable. It
    takes as long as ``n_runs`` clusterings, or less with several processes.

    Parameters
    ----------
    adata
        Cells.
    key
        The clustering: the ``key_added`` of :func:`scmoe.tl.cluster` with any model, or another
        column of ``.obs`` to compare with runs whose settings are given. None if there is no
        clustering yet: the run that agrees best with all others is the reference then.
    n_runs
        Number of runs, at least 2.
    how
        ``"seeds"``: each run has all cells, in another order and with another seed, also of the
        density tree. ``"subsets"``: each run has a random subset of the cells, drawn without
        replacement, which shows what depends on few cells. A neighbour graph of yours is
        restricted to the subset; a graph that the clustering built is built again. The other
        cells are not assigned: the prediction of the model would not show whether they form
        the cluster by themselves.
    share
        Share of the cells in each subset, between 0 and 1.
    key_added
        Name of the slots that are written; by default ``key``, or ``"scmoe"`` without one.
    random_state
        Seed of the seeds and of the subsets. The seed of the clustering itself is never used for
        a run.
    n_jobs
        Number of runs at a time, each in its own process; -1 for the number of cores. The
        processes share the cores. A process needs some seconds to start, and the memory of one
        clustering.
    copy
        Return an annotated copy and leave ``adata`` unchanged.
    progress
        Show a progress bar over the runs.
    **kwargs
        Arguments of :func:`scmoe.tl.cluster` that replace the recorded ones, such as
        ``train_kwargs={"max_epochs": 20}``; entries of ``model_kwargs`` and ``train_kwargs`` are
        replaced one by one; a ``preset`` replaces both and the similarity. Needed for what a
        record can't hold or must not choose: functions of :class:`scmoe.similarity.Custom`,
        callbacks, folders. A record does not keep arguments that are None. With ``key=None``
        these are all settings.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added + "_consensus"]``
        Cluster of each cell in most runs, with the names of the reference; categorical in natural
        order, NaN for cells that are in no run. Clusters without cells are left out.
    ``.obs[key_added + "_ambiguity"]``
        float32: share of the runs of a cell in which it has another cluster; 0 if all runs agree,
        NaN for cells that are in no run.
    ``.obsm[key_added + "_runs"]``
        Original labels of each run, DataFrame of categoricals ``(n_obs, n_runs)``; NaN for cells
        that are not in the run.
    ``.uns[key_added + "_stability"]``
        ``clusters``, a table by cluster of the reference: ``n_cells``, ``n_consensus`` (cells of
        that name in the consensus), ``jaccard`` (mean over the runs of the best Jaccard index
        with a cluster of the run, among the cells of the run), ``lower`` and ``upper`` (quantiles
        0.025 and 0.975 over the runs), ``found`` (share of the runs with an index of at least
        0.75) and ``stable`` (whether the mean is at least 0.75). ``jaccard``, the indices
        themselves, clusters x runs. ``runs``, a table by run: ``seed``, ``n_cells``,
        ``n_clusters``, ``adjusted_rand`` (with the reference) and ``reference`` (whether it is
        the reference; then its Jaccard indices do not count). ``params`` and ``version``.
    ``.uns[key]["tree"]["support"]``
        If the clustering and its runs have a density tree: the share of the runs whose tree
        separates the two sides of each split, ``(n_splits,)`` float32. Each leaf of the tree of
        a run is assigned to the side with most of its cells; a split recurs if both sides have a
        Jaccard index of at least 0.8 with their leaves.

    Raises
    ------
    ValueError
        Fewer than 2 runs; no processes; an unknown ``how``; ``share`` out of range, or so small
        that there are fewer cells than clusters; a
        clustering that :func:`scmoe.tl.cluster` did not make, with no settings given; settings
        that can't be read back from the record or are not repeated from a record (the message
        says what to give); ``save_model``; slots that are taken; and the errors of
        :func:`scmoe.tl.cluster`.
    KeyError
        No such clustering; its graph is gone.

    Warns
    -----
    UserWarning
        The cells, or their values, are not those that were clustered.

    References
    ----------
    Hennig 2007, *Cluster-wise assessment of cluster stability*: the Jaccard index and the
    threshold of 0.75.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.tl.stability(adata, n_runs=5)
    >>> adata.uns["scmoe_stability"]["clusters"]
    >>> scmoe.pl.stability(adata)
    """
    from scmoe.metrics import agreement

    seed = as_seed(random_state)
    _check_arguments(n_runs, how, share, n_jobs, kwargs)
    check_adata(adata)
    reference = _reference(adata, key)
    key_added = (key or Key.DEFAULT) if key_added is None else key_added
    check_free(
        adata,
        key_added,
        RECORD,
        ("uns", Key.uns.stability(key_added)),
        ("obs", Key.obs.consensus(key_added)),
        ("obs", Key.obs.ambiguity(key_added)),
        ("obsm", Key.obsm.runs(key_added)),
    )
    recorded = key is not None and not _settings_given(adata, key, kwargs)
    request = read_request(adata, key, kwargs) if recorded else ClusterRequest.of_options(kwargs)
    part = share if how == "subsets" else None
    taken = adata.uns[key]["params"].get("random_state") if recorded else None
    taken = int(taken) if is_whole(taken) else -1
    runner = Runner(
        adata,
        request,
        share=part,
        own_graph=recorded
        and built_graph(adata, key)
        and not {"neighbors_key", "obsp", "similarity"} & set(kwargs),
    )
    labels = pd.DataFrame(index=adata.obs_names)
    seeds = runner.seeds(seed, n_runs, taken)
    runs = bar(runner.runs(seeds, n_jobs), "runs", total=n_runs, progress=progress)
    leaves = []
    for number, run in enumerate(runs):
        labels[f"run{number}"] = run.clusters
        leaves.append(run.leaf)

    codes = np.stack([labels[name].cat.codes.to_numpy() for name in labels], axis=1)
    found = agreement(codes, None if reference is None else reference.cat.codes.to_numpy())
    if reference is None:
        reference = labels.iloc[:, found.reference_run]
    names = [str(name) for name in reference.cat.categories]
    result = {
        "clusters": _by_cluster(found, names),
        "jaccard": pd.DataFrame(found.jaccard, index=names, columns=list(labels)),
        "runs": pd.DataFrame(
            {
                "seed": seeds,
                "n_cells": labels.notna().sum().to_numpy(),
                "n_clusters": found.n_clusters,
                "adjusted_rand": found.adjusted_rand,
                "reference": np.arange(n_runs) == found.reference_run,
            },
            index=list(labels),
        ),
        "params": {
            "key": key,
            "n_runs": n_runs,
            "how": how,
            "share": part,
            "random_state": seed,
            "settings": _settings(request),
        },
        "version": version("scmoe"),
    }
    stable = result["clusters"]["stable"]
    logger.info("%d of %d clusters are stable over %d runs.", stable.sum(), len(stable), n_runs)
    supported = _support(adata, key, leaves) if recorded else None
    adata = adata.copy() if copy else adata
    write(
        *([(adata.uns[key]["tree"], "support", supported)] if supported is not None else []),
        (adata.obs, Key.obs.consensus(key_added), _consensus(found, names, adata.obs_names)),
        (adata.obs, Key.obs.ambiguity(key_added), found.ambiguity),
        (adata.obsm, Key.obsm.runs(key_added), labels),
        (adata.uns, Key.uns.stability(key_added), for_h5ad(result)),
    )
    return adata if copy else None


def _support(adata: AnnData, key: str, leaves: list[np.ndarray | None]) -> np.ndarray | None:
    """Return the share of the runs in which each split of the tree recurs; None without trees."""
    record = adata.uns[key]
    if "tree" not in record or any(leaf is None for leaf in leaves):
        return None
    tree = Tree.from_record(record["tree"])
    return support(tree, tree.find_leaves(tree_values(adata, key, tree)), leaves)


def _check_arguments(
    n_runs: Any, how: Any, share: Any, n_jobs: Any, kwargs: Mapping[str, Any]
) -> None:
    check_whole("n_runs", n_runs, 2)
    if n_jobs != -1:
        check_whole("n_jobs", n_jobs, 1, or_else="-1 for all cores")
    one_of(*get_args(Repeat)).check("how", how)
    if not is_number(share) or not 0 < share < 1:
        raise ValueError(f"`share` must be between 0 and 1, got {share!r}.")
    if kwargs.get("save_model") is not None:
        raise ValueError("`save_model` names one folder for all runs; leave it out.")


def _reference(adata: AnnData, key: str | None) -> pd.Series | None:
    """Return the clusters of the reference, categorical, without empty ones."""
    if key is None:
        return None
    if key not in adata.obs:
        raise KeyError(
            f"Did not find the clustering {key!r} in `.obs`, which has {obs_columns(adata)}. Run "
            f"`scmoe.tl.cluster(adata, key_added={key!r})` first, or give `key=None` to compare "
            "runs with each other."
        )
    labels = adata.obs[key]
    if not isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.astype(str).where(labels.notna()).astype("category")
    labels = labels.cat.remove_unused_categories()
    if labels.isna().all():
        raise ValueError(f"`.obs[{key!r}]` has no cluster: it is missing for all cells.")
    return labels


def _settings_given(adata: AnnData, key: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether a clustering of another method is compared with runs whose settings are given."""
    record = adata.uns.get(Key.uns.result(key))
    ours = isinstance(record, Mapping) and "model" in record.get("params", {})
    return bool(kwargs) and not ours


def _by_cluster(found: Agreement, names: list[str]) -> pd.DataFrame:
    inside, given = found.reference, found.consensus
    lower, upper = found.interval.T
    return pd.DataFrame(
        {
            "n_cells": np.bincount(inside[inside >= 0], minlength=len(names)),
            "n_consensus": np.bincount(given[given >= 0], minlength=len(names)),
            "jaccard": found.mean_jaccard,
            "lower": lower,
            "upper": upper,
            "found": found.found,
            "stable": found.stable,
        },
        index=names,
    )


def _consensus(found: Agreement, names: list[str], cells: pd.Index) -> pd.Series:
    labels = pd.Series(pd.Categorical.from_codes(found.consensus, names), index=cells)
    labels = labels.cat.remove_unused_categories()
    return labels.cat.reorder_categories(natsorted(labels.cat.categories))


def _settings(request: ClusterRequest) -> dict[str, Any]:
    """Return the options of the runs for the record."""
    settings = request.given()
    if request.similarity is not None:
        settings["similarity"] = request.similarity.to_dict()
    return settings
