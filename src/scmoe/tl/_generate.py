"""``scmoe.tl.generate``: new cells of the clusters of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData

from scmoe._core.keys import Key
from scmoe._core.text import listing
from scmoe.tl._reference import read_clustering

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np


def generate(
    adata: AnnData,
    n: int | Mapping[str, int],
    *,
    clusters: Sequence[str] | None = None,
    key: str = Key.DEFAULT,
    batch: str | None = None,
    gate: str = "requested",
    prior: str = "fitted",
    noise: bool | None = None,
    calibrate: bool | None = None,
    random_state: int | np.random.Generator = 0,
) -> AnnData:
    """Draw new cells of clusters (Kopf et al. 2021).

    Codes are drawn around the mean of a cluster and decoded by its expert. No draw is rejected.

    Parameters
    ----------
    adata
        Cells that :func:`scmoe.tl.cluster` clustered; they stay as they are.
    n
        Number of cells in all, or a mapping of clusters to the number of cells of each.
    clusters
        Clusters to draw from, in proportion to their sizes; all by default.
    key
        The ``key_added`` of the clustering.
    batch
        Where the clustering had a ``batch_key``: the batch that the cells shall look as if they
        came from. None for batches in proportion to their cells in each cluster.
    gate
        Whose expert decodes: ``"requested"``, that of the cluster asked for, or ``"network"``,
        the one to which the gate sends the code, as in the paper.
    prior
        What codes are drawn from: ``"fitted"``, Gaussians with the means and covariances of
        the clusters' own codes, or ``"unit"``, the paper's Gaussians of unit spread around the
        means.
    noise
        Add what an expert leaves unexplained in its cluster: Gaussian noise with the covariance
        of its errors (independent for each marker beyond 128 markers). None for True, and for
        False with images.
    calibrate
        Map each marker so that it is distributed in a cluster as among the cells there, their
        quantiles to those; what markers have to do with each other stays. Needs ``noise``, the
        fitted prior and at most 128 markers. None for True where that is so.
    random_state
        Seed; the same seed gives the same cells.

    Returns
    -------
    New cells, on the scale of the values that were clustered:

    ``.X``
        ``(n, n_markers)`` float32, and the same in ``.layers`` where a layer was clustered.
        Values stay within the range of the training cells (with ``likelihood="gaussian"``
        they need not).
    ``.obs[key]``, ``.obs[key + "_expert"]``
        Categorical: the cluster asked for, and the one whose expert decoded.
    ``.obs[batch_key]``
        Categorical, the batch, where the clustering had a ``batch_key``.
    ``.obsm["X_" + key]``
        The codes that were decoded, ``(n, n_latent)`` float32.
    ``.uns``
        The record of :func:`scmoe.pp.arcsinh`, by which :func:`scmoe.pp.inverse_arcsinh` finds
        the way back, and how the cells were drawn.

    Raises
    ------
    KeyError
        No such clustering, cluster or batch, or a marker that was clustered is missing.
    ValueError
        A record that is damaged (:class:`scmoe.model.ModelFileError`); a cluster without cells; no
        cells asked for; ``prior="unit"`` where the model was trained
        with ``kl_weight=0``, which teaches its codes no unit spread; ``calibrate`` where it
        cannot be.

    Notes
    -----
    Names are ``generated-0``, ``generated-1``, ..., never those of cells in ``adata``.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> new = scmoe.tl.generate(adata, 1000, clusters=["0"])
    >>> scmoe.metrics.generation_report(adata, new, groupby="scmoe")
    """
    from scmoe.model._generate import generate_cells

    trained, params, markers = read_clustering(adata, key)
    of_variables = "use_rep" not in params or params["use_rep"] == "X"
    missing = markers.difference(adata.var_names, sort=False)
    if of_variables and len(missing):
        raise KeyError(
            f"The clusters in `.uns[{key!r}]` are of markers that are missing in `.var_names`: "
            f"{listing(list(missing))}."
        )
    template = AnnData(
        obs=pd.DataFrame(index=adata.obs_names),
        var=adata.var.loc[markers].copy() if of_variables else pd.DataFrame(index=markers),
        uns=dict(adata.uns) if of_variables else {},
    )
    return generate_cells(
        trained,
        template,
        n,
        clusters,
        key=key,
        layer=params.get("layer"),
        batch_key=params.get("batch_key"),
        batch=batch,
        gate=gate,
        prior=prior,
        noise=noise,
        calibrate=calibrate,
        random_state=random_state,
    )
