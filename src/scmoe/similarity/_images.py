"""What images are compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scmoe._core.cells import check_adata, layer_values
from scmoe._core.random import as_seed
from scmoe._core.values import check_image_shape, check_matrix

if TYPE_CHECKING:
    from anndata import AnnData

BATCH = 4096
"""Images at a time."""


def image_gradients(
    adata: AnnData,
    *,
    straighten: bool = True,
    n_components: int = 64,
    key_added: str = "X_gradients",
    random_state: int | np.random.Generator = 0,
) -> None:
    """Describe images by their strokes rather than by their pixels.

    Pixels of two equal digits differ when one of them leans or lies a pixel to the side.
    Straightened images are described by the directions of their edges around the points of a
    grid (histograms of oriented gradients), and the principal components of that. Nothing is
    learned from labels.

    Parameters
    ----------
    adata
        Images as :func:`scmoe.io.from_array` makes them.
    straighten
        Take the slant of the images out: right for writing, wrong for objects.
    n_components
        Principal components.
    key_added
        Slot in ``.obsm`` that is written.
    random_state
        Seed of the principal components.

    Returns
    -------
    None. Writes ``.obsm[key_added]``, ``(n_obs, n_components)`` float32.

    Raises
    ------
    KeyError
        There is no ``.uns["image_shape"]``.
    ValueError
        The shape does not fit the variables; NaN or infinite values; fewer images than
        components; a view, or cells in a file.

    Examples
    --------
    >>> adata = scmoe.datasets.mnist()
    >>> scmoe.similarity.image_gradients(adata)
    >>> sc.pp.neighbors(adata, use_rep="X_gradients")
    >>> scmoe.tl.cluster(adata, n_clusters=15)
    """
    import torch
    from sklearn.decomposition import PCA

    from scmoe import nn

    check_adata(adata)
    shape = check_image_shape(adata)
    x = layer_values(adata, None)
    check_matrix(x, adata.var_names, "`adata.X`")
    if adata.n_obs < n_components:
        raise ValueError(
            f"{n_components} components need as many images, got {adata.n_obs}; ask for fewer."
        )
    parts = []
    for start in range(0, adata.n_obs, BATCH):
        images = torch.from_numpy(np.asarray(x[start : start + BATCH], dtype=np.float32))
        images = nn.straighten(images, shape) if straighten else images
        parts.append(nn.oriented_gradients(images, shape).numpy())
    gradients = np.concatenate(parts)
    pca = PCA(min(n_components, gradients.shape[1]), random_state=as_seed(random_state))
    adata.obsm[key_added] = pca.fit_transform(gradients).astype(np.float32)
