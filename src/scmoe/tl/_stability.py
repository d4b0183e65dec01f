"""``scmoe.tl.stability``: which clusters come again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.cells import check_adata, obs_columns
from scmoe._core.keys import Key
from scmoe._core.progress import bar
from scmoe._core.random import as_seed
from scmoe._core.settings import check_whole, is_number, is_whole
from scmoe.get import tree_values
from scmoe.tl._recorded import NOT_REPEATED, built_graph, settings_of
from scmoe.tl._runs import Runner
from scmoe.tl._slots import check_free, plain, write
from scmoe.tree import Tree, support

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe._estimate import Agreement

logger = logging.getLogger("scmoe")

HOW = ("seeds", "subsets")

RECORD = {"clusters", "jaccard", "runs", "params"}
"""What the record of a stability holds."""


def stability(
    adata: AnnData,
    *,
    key: str | None = Key.DEFAULT,
    n_runs: int = 10,
    how: str = "seeds",
    share: float = 0.8,
    key_added: str | None = None,
    random_state: int | np.random.Generator = 0,
    n_jobs: int = 1,
    copy: bool = False,
    progress: bool = True,
    **kwargs: Any,
) -> AnnData | None:
    """Which clusters come again when the clustering is run again.

    The clustering is repeated with other seeds and the cells in another order, with the settings
    that are recorded of it, and each of its clusters is looked for in each run. A cluster that is
    found again is not thereby a population, but one that is not found again is none that you
    should build on. It takes as long as ``n_runs`` clusterings, or, with several processes, a
    part of that.

    Parameters
    ----------
    adata
        Cells.
    key
        The clustering to look at: the ``key_added`` of :func:`scmoe.tl.cluster`, of any model.
        Or any other column of ``.obs`` that is to be compared with runs whose settings are
        given. None where there is no clustering yet: the run that agrees best with all others is
        the reference then.
    n_runs
        How often to cluster, at least 2.
    how
        ``"seeds"``: all cells, each time in another order and with another seed, also of the
        density tree. ``"subsets"``: each run has a random subset of the cells instead, drawn
        without replacement, and tells so what hangs on few cells. A neighbour graph of yours is
        restricted to the subset; one that the clustering built is built anew. The other cells
        are left out of the run: where its model would put them says what the model has learned,
        not whether the cells form that cluster by themselves.
    share
        Share of the cells in each subset, between 0 and 1.
    key_added
        Names the slots that are written; by default ``key``, or ``"scmoe"`` without one.
    random_state
        Seed of the seeds and of the subsets. The seed of the clustering itself is never among
        those of the runs.
    n_jobs
        Runs at a time, each in a process of its own; -1 for as many as there are cores. The
        cores are shared out among them. A process takes some seconds to start, and the memory
        of one clustering.
    copy
        Return an annotated copy and leave ``adata`` alone.
    progress
        Show a progress bar over the runs.
    **kwargs
        Arguments of :func:`scmoe.tl.cluster` that replace those recorded, such as
        ``train_kwargs={"max_epochs": 20}``; entries of ``model_kwargs`` and ``train_kwargs`` are
        replaced one by one, by a ``preset`` all of them and the similarity. Needed for what a
        record can't hold, or what no record shall choose: functions of
        :class:`scmoe.similarity.Custom`, callbacks, folders; it does not tell None from what
        was not said either. With ``key=None``
        all of the settings.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added + "_consensus"]``
        What most runs say of each cell, in the names of the reference; categorical in natural
        order, NaN for cells that are in no run. Clusters that no cell is given to are left out.
    ``.obs[key_added + "_ambiguity"]``
        float32: share of the runs of a cell that put it elsewhere; 0 where all agree, NaN for
        cells that are in no run.
    ``.obsm[key_added + "_runs"]``
        The labels of every run as they were given there, DataFrame of categoricals
        ``(n_obs, n_runs)``; NaN for cells that are not in the run.
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
        Where the clustering and its runs have a density tree: the share of the runs whose tree
        sets the two sides of each split apart, ``(n_splits,)`` float32. Each leaf of a run's
        tree is given to the side that has most of its cells; a split is found again where both
        sides have a Jaccard index of at least 0.8 with what they are given.

    Raises
    ------
    ValueError
        Fewer than 2 runs; no processes; an unknown ``how``; ``share`` out of range, or so small
        that there are fewer cells than clusters; a
        clustering that :func:`scmoe.tl.cluster` did not make, with no settings given; settings
        that can't be read back from the record, or are not repeated from one (it says what to
        give); ``save_model``; slots that are taken; and what :func:`scmoe.tl.cluster` raises.
    KeyError
        No such clustering; its graph is gone.

    Warns
    -----
    UserWarning
        The cells, or their values, are not those that were clustered.

    References
    ----------
    Hennig 2007, *Cluster-wise assessment of cluster stability*: the Jaccard index, and 0.75.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> scmoe.tl.stability(adata, n_runs=5)
    >>> adata.uns["scmoe_stability"]["clusters"]
    >>> scmoe.pl.stability(adata)
    """
    from scmoe._estimate import agreement

    seed = as_seed(random_state)
    _check_asked(n_runs, how, share, n_jobs, kwargs)
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
    settings = settings_of(adata, key, kwargs) if recorded else dict(kwargs)
    part = share if how == "subsets" else None
    taken = adata.uns[key]["params"].get("random_state") if recorded else None
    taken = int(taken) if is_whole(taken) else -1
    runner = Runner(
        adata,
        settings,
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
            "settings": {**settings, "similarity": _plain_similarity(settings)},
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
        (adata.uns, Key.uns.stability(key_added), plain(result)),
    )
    return adata if copy else None


def _support(adata: AnnData, key: str, leaves: list[np.ndarray | None]) -> np.ndarray | None:
    """How often each split of the clustering's tree came again; None without trees."""
    record = adata.uns[key]
    if "tree" not in record or any(leaf is None for leaf in leaves):
        return None
    tree = Tree.from_record(record["tree"])
    return support(tree, tree.find_leaves(tree_values(adata, key, tree)), leaves)


def _check_asked(
    n_runs: Any, how: Any, share: Any, n_jobs: Any, kwargs: Mapping[str, Any]
) -> None:
    check_whole("n_runs", n_runs, 2)
    if n_jobs != -1:
        check_whole("n_jobs", n_jobs, 1, or_else="-1 for all cores")
    if how not in HOW:
        raise ValueError(f"`how` must be one of {HOW}, got {how!r}.")
    if not is_number(share) or not 0 < share < 1:
        raise ValueError(f"`share` must be between 0 and 1, got {share!r}.")
    folders = [name for name in NOT_REPEATED if kwargs.get(name) is not None]
    if folders:
        raise ValueError(f"`{folders[0]}` names one folder for all runs; leave it out.")


def _reference(adata: AnnData, key: str | None) -> pd.Series | None:
    """The clusters to look at, categorical, none of them empty."""
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
    """Whether a clustering of somebody else is compared with runs that are described."""
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


def _plain_similarity(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    similarity = settings.get("similarity")
    return None if similarity is None else similarity.to_dict()
