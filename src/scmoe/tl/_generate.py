"""``scmoe.tl.generate``: generate new cells of clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
    gate: Literal["requested", "network"] = "requested",
    prior: Literal["fitted", "unit"] = "fitted",
    noise: bool | None = None,
    calibrate: bool | None = None,
    random_state: int | np.random.Generator = 0,
) -> AnnData:
    """Draw new cells of clusters (Kopf et al. 2021).

    Codes are drawn around the mean of a cluster and decoded by its expert. No sample is rejected.

    Parameters
    ----------
    adata
        Cells that :func:`scmoe.tl.cluster` clustered; they are not changed.
    n
        Total number of cells, or a mapping of clusters to their numbers of cells.
    clusters
        Clusters to draw from, in proportion to their sizes; all by default.
    key
        The ``key_added`` of the clustering.
    batch
        Batch whose effect the cells have, if the clustering had a ``batch_key``. None for batches
        in proportion to their cells in each cluster.
    gate
        Expert that decodes: ``"requested"``, that of the requested cluster, or ``"network"``, the
        one that the gate chooses for the code, as in the paper.
    prior
        Distribution of the codes: ``"fitted"``, Gaussians with the means and covariances of the
        codes of the clusters, or ``"unit"``, the paper's Gaussians of unit variance around the
        means.
    noise
        Add Gaussian noise with the covariance of the reconstruction errors of the expert in its
        cluster (independent noise with more than 128 markers). None for True, and for False
        with images.
    calibrate
        Map the quantiles of each marker in a cluster to those of the cells of the cluster; the
        dependence between markers is kept. Needs ``noise``, the fitted prior and at most 128
        markers. None for True if these conditions hold.
    random_state
        Seed; the same seed gives the same cells.

    Returns
    -------
    New cells, on the scale of the values that were clustered:

    ``.X``
        ``(n, n_markers)`` float32, and the same in ``.layers`` if a layer was clustered.
        Values are within the range of the training cells (not necessarily with
        ``likelihood="gaussian"``).
    ``.obs[key]``, ``.obs[key + "_expert"]``
        Categorical: the requested cluster, and the cluster whose expert decoded.
    ``.obs[batch_key]``
        Categorical, the batch, if the clustering had a ``batch_key``.
    ``.obsm["X_" + key]``
        The codes that were decoded, ``(n, n_latent)`` float32.
    ``.uns``
        The record of :func:`scmoe.pp.arcsinh`, which :func:`scmoe.pp.inverse_arcsinh` needs, and
        the settings of the generation.

    Raises
    ------
    KeyError
        No such clustering, cluster or batch, or a marker that was clustered is missing.
    ValueError
        A record that is damaged (:class:`scmoe.model.ModelFileError`); a cluster without cells; no
        cells requested; ``prior="unit"`` with a model that was trained with ``kl_weight=0``,
        whose codes have no unit variance; ``calibrate`` without its conditions.

    Notes
    -----
    Names are ``generated-0``, ``generated-1``, ..., never those of cells in ``adata``.

    Examples
    --------
    >>> scmoe.tl.cluster(adata)
    >>> new = scmoe.tl.generate(adata, 1000, clusters=["0"])
    >>> scmoe.metrics.generation_report(adata, new, groupby="scmoe")
    """
    from scmoe.model import generate_cells

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
