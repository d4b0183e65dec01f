"""Numbers that a model estimates when it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scmoe.estimate import (
    CLUSTERING,
    Architecture,
    Schedule,
    at_least_two,
    check_learned,
    encode,
    find_latent_dim,
    find_n_clusters,
    train_autoencoder,
)

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

AUTO = "auto"
"""For numbers that are estimated."""


def check_number(name: str, value: Any, least: int) -> None:
    """Raise ValueError for what is neither ``"auto"`` nor a whole number that is large enough."""
    whole = isinstance(value, int) or (hasattr(value, "dtype") and value.dtype.kind in "iu")
    if value != AUTO and (not whole or isinstance(value, bool) or value < least):
        raise ValueError(f'`{name}` must be "auto" or at least {least}, got {value!r}.')


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
    """Latent size by the latent dimension finder, and the evidence.

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
        As in :class:`scmoe.estimate.Schedule`.
    """
    schedule = Schedule(max_epochs, accelerator=accelerator)
    network, _ = train_autoencoder(
        scaled,
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
    codes: np.ndarray, graph: csr_matrix | None, *, seed: int, progress: bool, **settings: Any
) -> tuple[int, dict[str, Any]]:
    """Number of clusters, at least two, and the evidence.

    Parameters
    ----------
    codes
        Cells x features.
    graph
        Their neighbour graph; None for one of the codes.
    seed, progress
        As in :func:`scmoe.estimate.find_n_clusters`.
    **settings
        Passed to it.
    """
    known = {"codes": codes} if graph is None else {"graph": graph}
    found = at_least_two(find_n_clusters(**known, seed=seed, progress=progress, **settings))
    return found.n_clusters, found.evidence
