"""``scmoe.tl.state_genes``: find the markers that vary with the state within each cluster."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from natsort import natsorted
from scipy import sparse

from scmoe._core.cells import check_adata, layer_values
from scmoe._core.keys import Key
from scmoe._core.plain import for_h5ad
from scmoe._core.progress import bar
from scmoe._core.signatures import measured_markers
from scmoe._core.text import listing
from scmoe.tl._reference import check_transform, reference_of, reference_values
from scmoe.tl._results import check_free, find_model, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import Any

    from anndata import AnnData

    from scmoe.model import ArmStates, CplMixVAE
    from scmoe.tl._reference import Reference

RECORD = {"table", "clustering", "params"}
"""Entries by which the record of state genes is known."""

LEAST = 20
"""Least number of cells of a cluster for correlations ..."""

PER_DIMENSION = 5
"""... and least number of cells per dimension of the state."""

BLOCK = 4_000_000
"""Largest number of values of a cluster in memory at a time."""

COLUMNS = [
    *("cluster", "marker", "dimension", "rank"),
    *("effect", "lower", "upper", "pvalue", "pvalue_adjusted"),
    *("r2_min", "r2_max", "reliability", "decoded_change", "decoded_range", "n_cells"),
]
"""Columns of the table, in order."""


def state_genes(
    adata: AnnData,
    *,
    key: str = Key.DEFAULT,
    reference: AnnData | CplMixVAE | str | PathLike[str] | None = None,
    markers: Sequence[str] | None = None,
    layer: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
    progress: bool = True,
) -> AnnData | None:
    r"""Find the markers that vary with the state within each cluster of ``"cpl-mixvae"``.

    Coupled mixture VAEs explain the variation within a cluster by a continuous state. This
    function correlates the values of the markers with the state, separately in each cluster.
    Markers are ranked by the share of their variance that the state explains, in the arm that
    explains least.

    **Use the ranks and the effect sizes, not the p-values,** for the cells that were clustered:
    the states were fitted to the values that they are compared with, so a p-value may be small by
    chance. With ``reference`` the cells are new to the model. Then a p-value is valid for marker
    and state, but the state is still computed from the markers, and a state that follows a
    single marker always correlates with it. Only for ``markers`` that were not clustered does a
    small p-value show that more than the marker itself varies. Evidence for a state is that
    several markers vary with it and that the arms agree on them.

    Parameters
    ----------
    adata
        Cells that :func:`scmoe.tl.cluster` clustered with ``model="cpl-mixvae"``, or, with
        ``reference``, any with the same markers.
    key
        The ``key_added`` of the clustering.
    reference
        A clustering of other cells, a :class:`scmoe.model.CplMixVAE`, or the folder of a saved
        model, which gives ``adata`` its clusters and states without training.
    markers
        Variables to test, also ones that were not clustered. By default those of the clustering
        or, after ``use_rep``, all channels that are not technical.
    layer
        Layer of their values; by default the one that was clustered. Counts that were clustered
        are normalised to the median total and transformed by ``log1p``.
    key_added
        Name of the slot; by default ``key``.
    copy
        Return an annotated copy and leave ``adata`` unchanged.
    progress
        Show a progress bar.

    Returns
    -------
    None, or the copy. Writes

    ``.uns[key_added + "_state_genes"]``
        ``table``, which :func:`scmoe.get.state_genes` gives, with a row for each cluster, marker
        and dimension of the state in the first arm; ``clustering`` (``key``), ``params`` and
        ``version``. Columns:

        ``cluster``, ``marker``, ``dimension``
            Cluster, marker and dimension of the row; clusters have their original names.
        ``rank``
            Rank of the marker in its cluster, from 1, by ``r2_min``.
        ``effect``, ``lower``, ``upper``
            Spearman's correlation of the marker with the dimension, and its 95 % interval over
            cells (Fisher's z). The sign of a dimension is arbitrary, but
            markers with opposite signs vary in opposite directions. NaN for a marker that is
            constant in the cluster.
        ``pvalue``, ``pvalue_adjusted``
            Two-sided p-value of independence, and the same adjusted for all rows
            (Benjamini-Hochberg).
        ``r2_min``, ``r2_max``
            Share of the variance of the marker in the cluster that a linear function of the state
            explains, in the arm with the least and in the arm with the largest share. It does
            not depend on rotations or reflections of the state, by which arms may differ. It
            includes the uncertainty of the arm about the state, so an arm that does not use its
            state has 0.
        ``reliability``
            Share of the variance of the dimension in the cluster that is between cells and not
            uncertainty. Near 0 the dimension is not in use, and rank correlations, which do not
            depend on its variance, are not meaningful.
        ``decoded_change``, ``decoded_range``
            Change of the decoded marker between the 5 % and 95 % quantile of the dimension, in the
            units of the clustered values: last minus first, and largest minus smallest value;
            see :meth:`scmoe.model.CplMixVAE.traverse`. NaN for markers that were not clustered.
        ``n_cells``
            Number of cells of the cluster.

    Raises
    ------
    KeyError
        No such clustering, marker or layer.
    ValueError
        A clustering by another model, which has no states; values that are NaN or infinite, or,
        without ``reference``, no longer those that were clustered; no cluster with enough
        cells; a ``key_added`` whose slot is taken; with ``reference``, as
        :func:`scmoe.tl.assign` about transforms.

    Warns
    -----
    UserWarning
        Clusters with fewer than 20 cells, or 5 for each dimension, which are left out.

    Notes
    -----
    A state is identified only up to rotation and sign, so one process may be spread over two
    dimensions, which then are correlated within the cluster. In that case the correlation shows
    everything that varies along with a dimension, and the decoder the effect of this dimension
    alone. A correlation is not a cause: gradients of doublets, of cell size or towards a
    neighbouring type change markers, too.

    Examples
    --------
    >>> train, test = adata[::2].copy(), adata[1::2].copy()
    >>> scmoe.tl.cluster(train, model="cpl-mixvae")
    >>> scmoe.tl.state_genes(test, reference=train)
    >>> scmoe.get.state_genes(test, cluster="0")
    """
    from scmoe.model import arm_states

    check_adata(adata)
    key_added = key if key_added is None else key_added
    check_free(adata, key_added, RECORD, ("uns", Key.uns.state_genes(key_added)))
    known = _known(adata, reference, key)
    x = reference_values(adata, known, None, "adata")
    if reference is not None:
        check_transform(adata, known, None, x)
    values = _Values(adata, known, x, markers, layer)
    states = arm_states(known.trained, x)
    if reference is None:
        _check_same(adata, key, states)
    table = _table(values, states, known, progress)
    result = {
        "table": table,
        "clustering": key,
        "params": {"reference": reference is not None, "layer": values.layer},
        "version": version("scmoe"),
    }
    adata = adata.copy() if copy else adata
    write((adata.uns, Key.uns.state_genes(key_added), for_h5ad(result)))
    return adata if copy else None


def _known(adata: AnnData, reference: Any, key: str) -> Reference:
    """Return the clustering with the states; ValueError if it has none."""
    from scmoe.model import CplMixVAEModule

    if reference is None:
        find_model(adata, key)
    known = reference_of(adata if reference is None else reference, key)
    if not isinstance(known.trained.module, CplMixVAEModule):
        raise ValueError(
            'The clusters are not those of `model="cpl-mixvae"`, and have no states: cluster '
            "by it first, or name that clustering as `key`."
        )
    return known


class _Values:
    """Values that are compared with states, in blocks of markers."""

    def __init__(
        self,
        adata: AnnData,
        known: Reference,
        clustered: np.ndarray,
        markers: Sequence[str] | None,
        layer: str | None,
    ):
        if markers is None:
            own = known.use_rep is None
            names = list(known.markers) if own else measured_markers(adata, [])
        else:
            names = [markers] if isinstance(markers, str) else [str(m) for m in markers]
        unknown = [name for name in names if name not in adata.var_names]
        if unknown:
            raise KeyError(f"Did not find {listing(unknown)} in `.var_names`.")
        if not names or len(set(names)) < len(names):
            raise ValueError("There are no markers to look at, or one is named twice.")
        self.names = names
        self.layer = known.layer if layer is None else layer
        x = layer_values(adata, self.layer)[:, adata.var_names.get_indexer(names)]
        self.x = x.tocsr() if sparse.issparse(x) else np.asarray(x)
        self.total = None
        if known.trained.module.takes_counts and self.layer == known.layer:
            self.total = np.maximum(clustered.sum(1, dtype=float), 1)[:, None]
            self.typical = np.median(self.total)
        # positions among the outputs of the decoder; none if it decodes components
        decoded = known.markers if known.use_rep is None else pd.Index([])
        self.decoded = decoded.get_indexer(names)
        finite = np.isfinite(self.x.data if sparse.issparse(self.x) else self.x)
        if not finite.all():
            raise ValueError(
                "There are NaN or infinite values among the markers to look at; name others, or "
                "remove those cells."
            )

    def blocks(self, own: np.ndarray):
        """Iterate over the values of some cells, float64, in blocks of markers."""
        n_blocks = -(-len(own) * len(self.names) // BLOCK)
        for columns in np.array_split(np.arange(len(self.names)), n_blocks):
            x = self.x[own][:, columns]
            x = (x.toarray() if sparse.issparse(x) else x).astype(float)
            # divide first, so that equal shares stay equal
            yield x if self.total is None else np.log1p(self.typical * (x / self.total[own]))


def _check_same(adata: AnnData, key: str, states: ArmStates) -> None:
    """Raise ValueError if the states of the cells are not those that were written."""
    written = adata.obsm.get(Key.obsm.state(key))
    if written is None or written.shape != states.mean.shape[1:]:
        return
    # cells between two clusters may change cluster on another machine
    same = np.isclose(written, states.mean[0], rtol=1e-2, atol=1e-2).all(1)
    if same.mean() < 0.99:
        raise ValueError(
            f"The values are not those that {key!r} was made of: by them {(~same).sum()} of "
            f"{len(same)} cells have other states than `.obsm[{Key.obsm.state(key)!r}]`. Take "
            "them back, or cluster again."
        )


def _table(values: _Values, states: ArmStates, known: Reference, progress: bool) -> pd.DataFrame:
    """Return the table of all clusters with enough cells."""
    names, n_state = known.trained.clusters, states.mean.shape[2]
    least = max(LEAST, PER_DIMENSION * n_state)
    there = {name: np.flatnonzero(states.expert == k) for k, name in enumerate(names)}
    there = {name: there[name] for name in natsorted(there) if len(there[name])}
    enough = {name: own for name, own in there.items() if len(own) >= least}
    few = [name for name in there if name not in enough]
    if not enough:
        raise ValueError(f"No cluster has {least} cells, which correlations need.")
    if few:
        warnings.warn(
            f"Clusters with fewer than {least} cells are left out: {listing(few)}.",
            UserWarning,
            stacklevel=3,
        )
    shown = bar(enough.items(), "states", total=len(enough), progress=progress)
    table = pd.concat([_of_cluster(*item, values, states, known) for item in shown])
    table = table.reset_index(drop=True)
    known_p = table["pvalue"].notna()
    table["pvalue_adjusted"] = np.nan
    if known_p.any():
        from scipy.stats import false_discovery_control

        adjusted = false_discovery_control(table.loc[known_p, "pvalue"])
        table.loc[known_p, "pvalue_adjusted"] = adjusted
    for column, categories in (("cluster", list(enough)), ("marker", values.names)):
        table[column] = pd.Categorical(table[column], categories=categories)
    return table[COLUMNS]


def _of_cluster(
    name: str, own: np.ndarray, values: _Values, states: ArmStates, known: Reference
) -> pd.DataFrame:
    """Return the rows of a cluster, by rank and dimension."""
    from scmoe._estimate import trends, variance_explained
    from scmoe.model import traverse

    mean, variance = states.mean[:, own].astype(float), states.variance[:, own].astype(float)
    found, shares = [], []
    for x in values.blocks(own):
        found.append(trends(mean[0], x))
        shares.append([variance_explained(s, x, v) for s, v in zip(mean, variance, strict=True)])
    shares = np.concatenate(shares, 1)
    decoded = np.full((mean.shape[2], 2, len(values.names)), np.nan)
    seen = values.decoded >= 0
    if seen.any():
        path = traverse(known.trained, name, mean[0]).values[:, :, values.decoded[seen]]
        decoded[:, 0, seen], decoded[:, 1, seen] = path[:, -1] - path[:, 0], np.ptp(path, axis=1)
    spread = mean[0].var(0)
    n_state, n = mean.shape[2], len(values.names)
    least = shares.min(0)
    order = np.argsort(np.where(np.isnan(least), np.inf, -least), kind="stable")
    rank = np.empty(n, int)
    rank[order] = np.arange(1, n + 1)

    def rows(array: np.ndarray) -> np.ndarray:
        """Arrange dimensions x markers as rows, by rank."""
        return np.broadcast_to(array, (n_state, n))[:, order].T.ravel()

    of_trends = {
        column: rows(np.concatenate([getattr(part, column) for part in found], 1))
        for column in ("effect", "lower", "upper", "pvalue")
    }
    return pd.DataFrame(
        {
            "cluster": name,
            "marker": np.repeat(np.asarray(values.names, dtype=object)[order], n_state),
            "dimension": rows(np.arange(n_state)[:, None]),
            "rank": rows(rank),
            **of_trends,
            "r2_min": rows(least),
            "r2_max": rows(shares.max(0)),
            "reliability": rows((spread / (spread + variance[0].mean(0)))[:, None]),
            "decoded_change": rows(decoded[:, 0]),
            "decoded_range": rows(decoded[:, 1]),
            "n_cells": len(own),
        }
    )
