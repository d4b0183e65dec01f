"""Numbers that a model estimates when it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scmoe._core.settings import is_whole
from scmoe._estimate import (
    CLUSTERING,
    LARGE_STEPS,
    Architecture,
    Schedule,
    check_learned,
    check_method,
    check_threshold,
    encode,
    find_clusters,
    find_latent_dim,
    large_latent,
    train_autoencoder,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from scipy.sparse import csr_matrix

AUTO = "auto"
"""For numbers that are estimated."""

STABILITY, TREE = "stability", "tree"
"""The method that looks at a graph, and the one that looks at markers as they are."""

OF_LATENT = ("threshold", "max_epochs")
"""Settings of the estimate of the latent size; all others are of the number of clusters."""


def check_number(name: str, value: Any, least: int) -> None:
    """Raise ValueError for what is neither ``"auto"`` nor a whole number that is large enough."""
    is_auto = isinstance(value, str) and value == AUTO
    if not is_auto and not (is_whole(value) and value >= least):
        raise ValueError(
            f'`{name}` must be "auto" or a whole number of at least {least}, got {value!r}.'
        )


def read_settings(given: Mapping[str, Any], method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the latent size and how the number of clusters shall be estimated.

    ``method`` is the one where none is given. Raises ValueError for a threshold out of range, an
    unknown method, and for what neither has.
    """
    of_latent = {name: given[name] for name in OF_LATENT if name in given}
    of_clusters = {"method": method, **given}
    for name in of_latent:
        del of_clusters[name]
    check_threshold(of_latent.get("threshold", CLUSTERING))
    method = of_clusters.pop("method")
    check_method(method, of_clusters)
    return of_latent, {"method": method, **of_clusters}


def estimate_latent_dim(
    scaled: np.ndarray,
    architecture: Architecture,
    *,
    seed: int,
    progress: bool,
    threshold: float = CLUSTERING,
    max_epochs: int | None = None,
    accelerator: str = "auto",
) -> tuple[int, dict[str, Any]]:
    """Estimate the latent size by the latent dimension finder; return the evidence too.

    Parameters
    ----------
    scaled
        Cells x features float32.
    architecture
        Of the VAE with a large latent space.
    seed, progress
        Of its training.
    threshold
        Share of the variance to keep.
    max_epochs, accelerator
        As in ``scmoe._estimate.Schedule``.
    """
    of_markers = {} if architecture.isotropic else LARGE_STEPS
    schedule = Schedule(max_epochs, accelerator=accelerator, **of_markers)
    network, _ = train_autoencoder(
        scaled,
        large_latent(scaled.shape[1]),
        architecture,
        schedule,
        seed=seed,
        progress=progress,
        description="Latent dimensions",
    )
    codes = encode(network, scaled)
    check_learned(codes)
    found = find_latent_dim(codes, threshold)
    return found.n_latent, found.evidence


def estimate_n_clusters(
    codes: np.ndarray,
    graph: csr_matrix | None,
    *,
    seed: int,
    progress: bool,
    method: str,
    **settings: Any,
) -> tuple[int, dict[str, Any]]:
    """Estimate the number of clusters, at least two; return the evidence too.

    Parameters
    ----------
    codes
        Cells x features.
    graph
        Their neighbour graph, for ``"stability"``; None for one of the codes.
    seed, progress
        As in ``scmoe._estimate.find_clusters``.
    method, **settings
        Passed to it.
    """
    of_graph = graph is not None and method == STABILITY
    known = {"graph": graph} if of_graph else {"codes": codes}
    found = find_clusters(**known, method=method, seed=seed, progress=progress, **settings)
    return found.n_clusters, found.evidence
