"""``scmoe.tl.assign``: assign new cells to the clusters of a reference, and measure drift."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.cells import check_adata, check_batches, check_copy, obs_columns, table
from scmoe._core.keys import Key
from scmoe._core.plain import for_h5ad
from scmoe._core.text import listing
from scmoe._core.workers import check_client
from scmoe.tl._cut import summed
from scmoe.tl._reference import check_transform, reference_of, reference_rows
from scmoe.tl._results import DataHash, block_hash, check_key, manifest, write

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from distributed import Client

    from scmoe.model import MoESimVAE, Outliers
    from scmoe.tl._reference import Reference

logger = logging.getLogger("scmoe")

DRIFT = 0.25
"""Excess of outliers from which a sample counts as drifted."""

SHIFT = 0.3
"""Share of its range by which a marker may shift; a wrong transform shifts all markers."""

NOISE = 1.63
"""1 % critical value of Kolmogorov's statistic, to be divided by the root of the cells."""

LOOKED_AT = 50_000
"""Number of cells on which the shift of markers is measured ..."""

OF_SAMPLE = 200
"""... but at least this many of each sample, if it has so many."""


def assign(
    query: AnnData,
    reference: AnnData | MoESimVAE | str | PathLike[str],
    *,
    key: str = Key.DEFAULT,
    key_added: str | None = None,
    layer: str | None = None,
    reject: float | None = 0.01,
    sample_key: str = Key.obs.SAMPLE,
    copy: bool = False,
    client: Client | None = None,
) -> AnnData | None:
    """Assign new cells to the clusters of a reference, without training.

    Cells that differ from all reference cells are rejected: they get no label. The outlier score
    of a cell is a share of reference cells (conformal prediction), so ``reject`` is the expected
    share of rejected cells if the query is like the reference.

    Parameters
    ----------
    query
        New cells, with the markers of the reference in any order, transformed like it. They may
        be in a file, as in :func:`scmoe.tl.cluster`.
    reference
        Cells that :func:`scmoe.tl.cluster` clustered, a trained
        :class:`scmoe.model.MoESimVAE`, or the folder of a saved model.
    key
        The ``key_added`` of the clustering of ``reference``.
    key_added
        Name of the slots that are written; by default ``key``.
    layer
        Layer of the query to use; by default the one that was clustered.
    reject
        Share of cells like the reference that may be rejected, between 0 and 1. None rejects
        no cell; a reference without landmarks needs it.
    sample_key
        Column of ``.obs`` with the sample of each cell; drift is measured per sample. Without
        ``.obs["sample"]`` all cells are one sample.
    copy
        Return an annotated copy and leave ``query`` unchanged.
    client
        A ``distributed.Client`` whose workers assign the cells, as in
        :func:`scmoe.tl.cluster`.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added]``
        Cluster of each cell, categorical with the clusters of the reference; NaN if rejected.
    ``.obs[key_added + "_outlier"]``
        Outlier score, float32 in [0, 1]: the share of reference cells that are nearer to their
        neighbours, see :meth:`scmoe.model.MoESimVAE.outlier_score`. A cell above
        ``1 - reject`` is rejected. NaN if the reference has no landmarks.
    ``.obsm["X_" + key_added]``
        Codes, ``(n_obs, n_latent)`` float32.
    ``.obsm[key_added + "_proba"]``
        Probability of every expert, DataFrame ``(n_obs, n_clusters)`` float32, also for
        rejected cells.
    ``.uns[key_added]``
        ``params``, ``markers``, ``version``, ``manifest``, and ``drift``: a table with a row for
        each sample: ``n_cells``, ``rejected`` (share), ``drift`` (from 0, if the outlier scores
        are distributed as in the reference, to 1: the largest excess of cells above a score),
        the ``marker`` that has shifted most, its ``shift`` (mean distance between quantiles; 1
        is the range of the reference), and ``alarm``: whether the drift is above 0.25 or the
        shift above 0.3, with a margin for few cells.

    Raises
    ------
    KeyError
        Markers, the layer, samples or batches that are missing (named), no such clustering.
    ValueError
        A view; ``copy`` of a backed AnnData; names that are not unique, values that a clustering
        would refuse; another cofactor than that of the reference, or compensation of one of the
        two (if the reference is an AnnData with a record of :func:`scmoe.pp.arcsinh`; a model
        has no record); a ``key_added`` whose slots are taken, by a clustering of the query for
        instance; a batch that the encoder does not know; ``reject`` out of range, or not None with
        a reference with ``landmarks=False``; a ``client`` that is closed or
        asynchronous.
    TypeError
        A ``client`` that is not a ``distributed.Client``, such as an address.
    RuntimeError
        A cluster of machines that was lost, or whose workers failed repeatedly.
    scmoe.model.ModelFileError
        A folder without a model of scmoe; a damaged model or record of a clustering.

    Warns
    -----
    UserWarning
        Samples that have drifted from the reference: their labels may be wrong.
    scmoe.pp.ScaleWarning
        The reference was transformed by :func:`scmoe.pp.arcsinh` and the query has no record of
        it; or, whatever the records say, the values of one look raw and those of the other
        transformed.

    Notes
    -----
    Labels are the original names of the clusters, even if the categories were renamed later.

    Rare populations of the reference are rejected more often than others, because their cells
    are far from each other.

    Examples
    --------
    >>> scmoe.tl.cluster(reference)
    >>> scmoe.tl.assign(query, reference)
    >>> query.uns["scmoe"]["drift"]
    >>> scmoe.pl.drift(query)
    """
    import torch

    from scmoe.model import PREDICTIONS, fill_block, predict_blocks

    key_added = key if key_added is None else key_added
    is_number = isinstance(reject, float | int | np.number)
    if reject is not None and not (is_number and 0 < reject < 1):
        raise ValueError(f"`reject` must be between 0 and 1, or None, got {reject!r}.")
    check_client(client)
    check_adata(query, in_memory=False)
    check_key(query, key_added)
    check_copy(query, copy, "query")
    if "model" in query.uns.get(Key.uns.result(key_added), {}):
        raise ValueError(
            f"`query` has a clustering of its own in `.uns[{key_added!r}]`, which would be lost; "
            "choose another `key_added`."
        )
    if sample_key != Key.obs.SAMPLE and sample_key not in query.obs:
        raise KeyError(f"Did not find {sample_key!r} in `.obs`, which has {obs_columns(query)}.")
    if query.n_obs == 0:
        raise ValueError("`query` has no cells.")
    known = reference_of(reference, key)
    if reject is not None and not known.trained.module.outliers.available:
        raise ValueError(
            "The reference was kept with `landmarks=False`, without cells to compare new ones "
            "with, so none can be rejected: give `reject=None`, or train it with landmarks."
        )
    rows, where = reference_rows(query, known, layer, "query", in_memory=False)
    obs, trained = table(query.obs), known.trained
    module = trained.module
    rows = rows.checked(known.markers, where, counts=module.takes_counts)
    rows.client = client or rows.client
    batch = _batches(query, known)
    samples = pd.Series("all cells", obs.index)
    if sample_key in obs:
        samples = obs[sample_key].astype(str)
    sample, sample_names = pd.factorize(samples)
    looked, some = looked_at(sample), []
    found, digest = {}, DataHash(rows.shape, known.markers)
    blocks = predict_blocks(module, rows, PREDICTIONS, batch, None, _hash_and_some, looked)
    for place, part, (of_block, of_looked) in blocks:
        digest.add(of_block)
        some.append(of_looked)
        fill_block(found, len(rows), place, part)
    some = np.concatenate(some)
    check_transform(query, known, layer, some)
    proba = pd.DataFrame(found["proba"], index=query.obs_names, columns=trained.names)
    names, winner = pd.Index(trained.names), found["expert"]
    if trained.merged is not None:
        proba = summed(proba, dict(zip(names, names, strict=True)))
        names, winner = proba.columns, proba.to_numpy().argmax(axis=1)
    rejected = np.zeros(len(rows), bool)
    if reject is not None:
        rejected = found["outlier"] > 1 - reject
    # a listed class without reference cells may still win one
    alive = np.asarray(trained.names, dtype=object)[module.size.numpy(force=True) > 0]
    alive = natsorted({*alive, *names[np.unique(winner)]})
    codes = np.where(rejected, -1, pd.Index(alive).get_indexer(names)[winner])
    with torch.inference_mode():
        position = module.position(torch.from_numpy(some).to(module.low.device))
    drift = drift_table(
        module.outliers,
        found["outlier"],
        position.numpy(force=True),
        looked,
        known.markers,
        sample,
        sample_names,
        rejected,
    )
    result = {
        "params": {
            "reject": reject,
            "layer": layer or known.layer,
            "use_rep": known.use_rep,
            "sample_key": sample_key,
        },
        "drift": drift,
        "markers": known.markers.to_numpy(dtype=str),
        "version": version("scmoe"),
        "manifest": manifest(digest.hex(), model=trained.hash()),
    }
    query = query.copy() if copy else query
    slots = [
        (query.obs, Key.obs.labels(key_added), pd.Categorical.from_codes(codes, categories=alive)),
        (query.obs, Key.obs.outlier(key_added), found["outlier"]),
        (query.obsm, Key.obsm.latent(key_added), found["latent"]),
        (query.obsm, Key.obsm.proba(key_added), proba),
        (query.uns, Key.uns.result(key_added), for_h5ad(result)),
    ]
    if known.colors is not None:
        slots.append((query.uns, f"{key_added}_colors", known.colors))
    write(*slots)
    logger.info("%d of %d cells were rejected.", rejected.sum(), len(rows))
    warn_of_drift(drift)
    return query if copy else None


def _hash_and_some(
    x: np.ndarray, _: dict[str, np.ndarray], looked: np.ndarray
) -> tuple[bytes, np.ndarray]:
    """Return the hash of a block, and those of its cells that drift is measured on."""
    return block_hash(x), x[looked]


def _batches(query: AnnData, known: Reference) -> np.ndarray | None:
    """Return the number of the batch of each cell, if the encoder uses it."""
    if not known.trained.module.encode_batch:
        return None
    check_batches(query, known.batch_key)
    batches = table(query.obs)[known.batch_key].astype(str)
    unknown = set(batches) - set(known.trained.batches)
    if unknown:
        raise ValueError(
            f"The encoder has never seen the batch {listing(natsorted(unknown))}; it knows "
            f"{listing(known.trained.batches)}. A model with `encode_batch=False` does without."
        )
    return pd.Index(known.trained.batches).get_indexer(batches)


def looked_at(sample: np.ndarray) -> np.ndarray:
    """Draw the cells on which shifts are measured, ``(n,)`` bool: all, or a share of each sample.

    Parameters
    ----------
    sample
        Sample of each cell, ``(n,)`` integers from 0.
    """
    if len(sample) <= LOOKED_AT:
        return np.ones(len(sample), dtype=bool)
    share = np.maximum(LOOKED_AT / len(sample), OF_SAMPLE / np.bincount(sample))
    found = np.random.default_rng(0).random(len(sample)) < share[sample]
    # at least one cell of each sample
    found[np.unique(sample, return_index=True)[1]] = True
    return found


def drift_table(
    outliers: Outliers,
    score: np.ndarray,
    position: np.ndarray,
    looked: np.ndarray,
    markers: pd.Index,
    sample: np.ndarray,
    names: pd.Index,
    rejected: np.ndarray,
) -> pd.DataFrame:
    """Compare each sample with the reference, see :func:`scmoe.tl.assign`.

    Parameters
    ----------
    outliers
        Outlier scores of the reference.
    score, sample, rejected
        Outlier score, position of the sample among ``names``, and whether a cell is rejected,
        ``(n,)``.
    position
        Scaled markers of the cells of ``looked``, ``(n_looked, n_markers)``.
    looked
        Cells on which shifts are measured, ``(n,)`` bool.
    markers, names
        Names of the markers, and of the samples.
    """
    known = outliers.markers.numpy(force=True)
    levels = np.linspace(0, 1, len(known))
    of_position = sample[looked]
    rows = {}
    for number, name in enumerate(names):
        own = sample == number
        moved = np.quantile(position[of_position == number], levels, axis=0) - known
        moved = np.abs(moved).mean(0)
        rows[name] = {
            "n_cells": int(own.sum()),
            "rejected": float(rejected[own].mean()),
            "drift": _excess(score[own]),
            "marker": str(markers[moved.argmax()]),
            "shift": float(moved.max()),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    chance = NOISE / np.sqrt(table["n_cells"])
    table["alarm"] = (table["drift"] > DRIFT + chance) | (table["shift"] > SHIFT + chance)
    return table


def _excess(score: np.ndarray) -> float:
    """Return the one-sided Kolmogorov-Smirnov distance of scores from uniform ones.

    The scores of the reference are uniform. NaN without scores.
    """
    if np.isnan(score).any():
        return float("nan")
    below = np.arange(len(score)) / len(score)
    return float(max((np.sort(score) - below).max(), 0.0))


def warn_of_drift(drift: pd.DataFrame) -> None:
    """Warn of samples whose labels may be wrong."""
    drifted = drift[drift["alarm"]]
    if drifted.empty:
        return
    # a reference without landmarks gives shifts but no drift
    worst = str(drifted["drift"].fillna(drifted["shift"]).idxmax())
    row = drifted.loc[worst]
    warnings.warn(
        f"{len(drifted)} of {len(drift)} samples have drifted from the reference: "
        f"{listing(list(drifted.index))}. Worst is {worst!r}: {row['rejected']:.1%} of its cells "
        f"are rejected, and {row['marker']} has moved most, by {row['shift']:.2f} of its range. "
        'Their labels may be wrong; see `.uns[key]["drift"]`.',
        UserWarning,
        stacklevel=3,
    )
