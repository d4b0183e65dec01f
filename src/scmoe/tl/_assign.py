"""``scmoe.tl.assign``: the clusters of a reference for new cells."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.cells import check_adata, check_batches, check_copy, obs_columns, table
from scmoe._core.keys import Key
from scmoe._core.text import listing
from scmoe._core.workers import check_client
from scmoe.tl._cut import summed
from scmoe.tl._drift import drift_table, looked_at, warn_of_drift
from scmoe.tl._manifest import DataHash, block_hash, manifest
from scmoe.tl._reference import check_transform, reference_of, reference_rows
from scmoe.tl._slots import check_key, plain, write

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from distributed import Client

    from scmoe.model import MoESimVAE
    from scmoe.tl._reference import Reference

logger = logging.getLogger("scmoe")


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
    """Put new cells into the clusters of a reference; nothing is trained.

    Cells that are unlike all reference cells are rejected: they get no label. How unlike a
    cell is, is a share of reference cells (conformal prediction), so ``reject`` is the share
    of cells that are rejected where the query is like the reference.

    Parameters
    ----------
    query
        New cells, with the markers of the reference in any order, transformed as it was. They
        may be in a file, as in :func:`scmoe.tl.cluster`.
    reference
        Cells that :func:`scmoe.tl.cluster` clustered, a trained
        :class:`scmoe.model.MoESimVAE`, or the folder where one was saved.
    key
        The ``key_added`` of the clustering of ``reference``.
    key_added
        Names the slots that are written; by default ``key``.
    layer
        Layer of the query to use; by default the one that was clustered.
    reject
        Share of cells like the reference that may be rejected, between 0 and 1. None rejects
        no cell, which a reference that was kept without landmarks needs.
    sample_key
        Column of ``.obs`` with the sample of each cell, for the figures of drift. Without
        ``.obs["sample"]`` all cells are one sample.
    copy
        Return an annotated copy and leave ``query`` alone.
    client
        A ``distributed.Client``, on whose workers the cells are assigned, as in
        :func:`scmoe.tl.cluster`.

    Returns
    -------
    None, or the copy. Writes

    ``.obs[key_added]``
        Cluster of each cell, categorical with the clusters of the reference; NaN if rejected.
    ``.obs[key_added + "_outlier"]``
        float32 in [0, 1]: the share of reference cells that are nearer to theirs, see
        :meth:`scmoe.model.MoESimVAE.outlier_score`. Above ``1 - reject`` a cell is rejected.
        NaN where the reference was kept without landmarks.
    ``.obsm["X_" + key_added]``
        Codes, ``(n_obs, n_latent)`` float32.
    ``.obsm[key_added + "_proba"]``
        Probability of every expert, DataFrame ``(n_obs, n_clusters)`` float32, of rejected cells
        too.
    ``.uns[key_added]``
        ``params``, ``markers``, ``version``, ``manifest``, and ``drift``: a table with a row for
        each sample: ``n_cells``, ``rejected`` (share), ``drift`` (0 where the outlier scores are
        those of the reference, at most 1: the largest excess of cells above a score), the
        ``marker`` that has moved most, its ``shift`` (mean distance between quantiles; 1 is the
        range of the reference), and ``alarm``: whether the drift is above 0.25 (and a little for
        few cells) or the shift above 0.3.

    Raises
    ------
    KeyError
        Markers, the layer, samples or batches that are missing (named), no such clustering.
    ValueError
        A view; ``copy`` of a backed AnnData; names that are not unique, values that a clustering
        would refuse; another cofactor than that of the reference, or compensation of one of the
        two (where the reference is an AnnData with a record of :func:`scmoe.pp.arcsinh`; a model
        has none); a ``key_added`` whose slots are taken, by a clustering of the query for
        instance; a batch that the encoder does not know; ``reject`` out of range, or not None with
        a reference that was kept with ``landmarks=False``; a ``client`` that is closed or
        asynchronous.
    TypeError
        A ``client`` that is not a ``distributed.Client``, such as an address.
    RuntimeError
        A cluster that was lost, or whose workers ended again and again.
    scmoe.model.ModelFileError
        A folder with no model of ours; a model, or the record of a clustering, that is damaged.

    Warns
    -----
    UserWarning
        For samples that have drifted from the reference: their labels may be wrong.
    scmoe.pp.ScaleWarning
        If the reference was transformed by :func:`scmoe.pp.arcsinh` and the query has no record
        of it; whatever the records say, if the values of one look raw and those of the other
        transformed.

    Notes
    -----
    Labels are the names that the clustering gave; categories that were renamed afterwards keep
    their old names here.

    Rare populations of the reference are rejected more often than others: their cells lie far
    apart.

    Examples
    --------
    >>> scmoe.tl.cluster(reference)
    >>> scmoe.tl.assign(query, reference)
    >>> query.uns["scmoe"]["drift"]
    >>> scmoe.pl.drift(query)
    """
    import torch

    from scmoe.model._predict import SEEN, put, see

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
    blocks = see(module, rows, SEEN, batch, None, _hash_and_some, looked)
    for place, part, (of_block, of_looked) in blocks:
        digest.add(of_block)
        some.append(of_looked)
        put(found, len(rows), place, part)
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
        (query.uns, Key.uns.result(key_added), plain(result)),
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
    """The hash of a block, and those of its cells that are looked at for drift."""
    return block_hash(x), x[looked]


def _batches(query: AnnData, known: Reference) -> np.ndarray | None:
    """Number of the batch of each cell, where the encoder looks at it."""
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
