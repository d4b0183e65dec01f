"""``scmoe.tl.latent_dim``: estimate the number of latent dimensions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from natsort import natsorted

from scmoe._core.cells import check_adata, obs_columns
from scmoe._core.keys import Key
from scmoe._core.plain import for_h5ad
from scmoe._core.random import as_seed
from scmoe._core.scaling import COMMON, rescaled
from scmoe._core.settings import one_of
from scmoe._core.text import listing
from scmoe._core.values import check_image_shape, check_unit_interval, check_varied, holds_images
from scmoe.tl._results import check_key, data_hash, manifest, write
from scmoe.tl._values import check_scale, working_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scmoe._estimate import Architecture, LatentDim, Schedule

logger = logging.getLogger("scmoe")

NetworkName = Literal["dense", "conv"]

RECORD = {"params", "version", "explained"}
"""Entries by which the record of a latent size is known."""


def latent_dim(
    adata: AnnData,
    *,
    groupby: str | None = None,
    threshold: float = 0.90,
    n_latent: int | None = None,
    markers: Sequence[str] | None = None,
    layer: str | None = None,
    use_rep: str | None = None,
    network: NetworkName = "dense",
    augment: bool | str | Sequence[str] | Mapping[str, Any] = False,
    key_added: str = Key.LATENT_DIM,
    random_state: int | np.random.Generator = 0,
    copy: bool = False,
    progress: bool = True,
    network_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
) -> AnnData | None:
    """Estimate the size of the latent space that cells need (Santos, section III.B).

    A variational autoencoder with far more dimensions than needed is trained on all cells. Its
    loss prunes the dimensions that are not needed; the estimate is the smallest number of
    principal components that explain 90 % of the variance of the codes. Results are written
    after everything has succeeded: after an error or an interruption ``adata`` is unchanged.

    Parameters
    ----------
    adata
        Cells, with dense floating-point values on a scale on which distances are meaningful:
        see :func:`scmoe.pp.arcsinh`.
    groupby
        Column of ``.obs`` with groups, such as clusters, whose latent sizes are estimated too:
        separately for each group, from the codes of the same autoencoder. Cells without a group
        are ignored. A group of n cells has at most n - 1 dimensions.
    threshold
        Share of the variance of the codes to keep, above 0 and at most 1: the paper's is 0.90
        for clustering and 0.95 for reconstruction.
    n_latent
        Size of the large latent space. None for the paper's 100, or for the number of features if
        that is smaller.
    markers, layer, use_rep
        As in :func:`scmoe.tl.cluster`.
    network
        ``"dense"``, or ``"conv"`` for images, whose shape is in ``.uns["image_shape"]``.
        Convolutions need squares with a side of a power of two; images are padded with zeros.
    augment
        Augment cells at random during training. True for the defaults: images are rotated, scaled
        and shifted a little, cells are moved towards one of their 15 nearest neighbours. A dict
        sets amounts: ``rotation`` (degrees), ``zoom``, ``shift`` (shares), ``flip`` (bool) of
        images, ``n_neighbors`` and ``share`` of cells. Strings name other augmentations, see
        :meth:`scmoe.model.CplMixVAE.train`.
    key_added
        Name of the slots that are written.
    random_state
        Seed. The same seed gives the same numbers on the same machine; global random states
        are restored.
    copy
        Return an annotated copy and leave ``adata`` unchanged.
    progress
        Show a progress bar.
    network_kwargs
        Settings of the networks: ``n_hidden`` (128) and ``n_layers`` (2) if dense, ``width`` (8,
        filters of the first convolutions; None for the width of the image, as in the paper) if
        not, ``activation`` (``"elu"`` or ``"relu"``), ``likelihood`` (``"bernoulli"`` or
        ``"gaussian"``), ``kl``; see ``scmoe.nn.Autoencoders``.
    train_kwargs
        Settings of the training: ``max_epochs`` (None for about 800 steps, or 4,000 with images
        and components), ``batch_size`` (1,024, or 256), ``lr`` (0.003, the peak of one cycle,
        or 0.001), ``accelerator``.

    Returns
    -------
    None, or the copy. Writes

    ``.uns[key_added]``
        ``n_latent`` (the size for ``threshold``), ``n_latent_reconstruction`` (for 95 %),
        ``threshold``, ``explained`` (share of the variance by principal component);
        with ``groupby``, ``groups`` (DataFrame by group: ``n_cells``, ``n_latent``,
        ``n_latent_reconstruction``) and ``groups_explained`` (in the same order, groups x
        components, NaN where a group has no more); ``history`` (of the training), ``features``
        (names of the features), ``params``, ``version`` and ``manifest``; for images the
        ``padded`` side.
    ``.obsm["X_" + key_added]``
        Codes in the large latent space, means of the posteriors, ``(n_obs, n_latent)`` float32.

    Raises
    ------
    ValueError
        Cells that :func:`scmoe.tl.cluster` rejects; a threshold or a setting out of range; a
        ``key_added`` whose slots are taken; a column without any group; markers that have
        nothing in common, so that the autoencoder uses no dimension.
    KeyError
        An unknown layer, representation, marker or column; no shape of images.

    Warns
    -----
    UserWarning
        Groups of a single cell, or of identical cells, which have no size.

    Notes
    -----
    The size is an estimate and depends on the initial weights: for 10 markers of cytometry it
    was 6 or 7 by default and 4 or 5 from 100 dimensions. For values of a known rank it was that
    rank.

    Images in 0 to 1 have a Bernoulli likelihood, all other values a Gaussian likelihood with a
    learned variance for each marker. A Bernoulli likelihood hides the rank of continuous values:
    the estimate for simulated values of rank 3 was 1, and nothing was learned from values of
    rank 8.

    Examples
    --------
    >>> scmoe.tl.latent_dim(adata)
    >>> adata.uns["latent_dim"]["n_latent"]
    >>> scmoe.pl.latent_dim(adata)
    """
    import scmoe._estimate as estimate

    seed = as_seed(random_state)
    estimate.check_threshold(threshold)
    check_adata(adata)
    check_key(adata, key_added, RECORD)
    labels = None if groupby is None else _groups(adata, groupby)
    work = working_copy(adata, markers, layer, use_rep)
    check_scale(adata, work, markers, use_rep)
    one_of(*get_args(NetworkName)).check("network", network)
    if network == "conv":
        # checked before the values: images of another shape seem to have constant markers
        check_image_shape(work)
    components = use_rep not in (None, "X")
    scaled = _scaled(work, components)
    of_network = {"isotropic": components, **(network_kwargs or {})}
    architecture, schedule = _settings(work, scaled, network, of_network, train_kwargs)
    if architecture.likelihood == "bernoulli":
        if holds_images(work):
            check_unit_interval(scaled, work.var_names)
        scaled = scaled.clip(0, 1)
    n_latent = estimate.large_latent(work.n_vars) if n_latent is None else n_latent
    shape = check_image_shape(work) if holds_images(work) else None
    changes = estimate.augmentation(
        augment,
        scaled,
        shape,
        seed,
        isotropic=architecture.isotropic,
        accelerator=schedule.accelerator,
        progress=progress,
    )
    trained, history = estimate.train_autoencoder(
        scaled,
        n_latent,
        architecture,
        schedule,
        augment=changes,
        seed=seed,
        progress=progress,
    )
    codes = estimate.encode(trained, scaled)
    estimate.check_learned(codes)
    found = estimate.find_latent_dim(codes, threshold)
    result = {
        "n_latent": found.n_latent,
        "n_latent_reconstruction": _reconstruction(found),
        "threshold": found.threshold,
        "explained": found.explained,
        "history": history,
        "features": work.var_names.to_numpy(dtype=str),
        "params": {
            "groupby": groupby,
            "n_latent": n_latent,
            "layer": layer,
            "use_rep": use_rep,
            "network": network,
            "augment": dict(augment) if isinstance(augment, Mapping) else augment,
            "random_state": seed,
            "network_kwargs": dict(network_kwargs or {}),
            "train_kwargs": dict(train_kwargs or {}),
        },
        "version": version("scmoe"),
        "manifest": manifest(data_hash(work.X, work.var_names), seed=seed),
    }
    if architecture.image_shape is not None:
        from scmoe.nn import padded_side

        result["padded"] = padded_side(architecture.image_shape)
    if labels is not None:
        of_groups = estimate.find_group_dims(codes, labels, threshold)
        result |= _tables(of_groups, labels)
    logger.info("%d of %d latent dimensions are needed.", found.n_latent, n_latent)
    adata = adata.copy() if copy else adata
    write(
        (adata.obsm, Key.obsm.latent(key_added), codes),
        (adata.uns, Key.uns.result(key_added), for_h5ad(result)),
    )
    return adata if copy else None


def _groups(adata: AnnData, groupby: str) -> np.ndarray:
    """Return the group of each cell as text, None for cells without a group."""
    if groupby not in adata.obs:
        raise KeyError(f"Did not find {groupby!r} in `.obs`, which has {obs_columns(adata)}.")
    column = adata.obs[groupby]
    if column.isna().all():
        raise ValueError(f"`.obs[{groupby!r}]` names no group: it is missing for all cells.")
    return np.where(column.isna(), None, column.astype(str).astype(object))


def _scaled(work: AnnData, components: bool) -> np.ndarray:
    """Scale markers to 0 to 1 by their quantiles, components by common ones; images stay."""
    images = holds_images(work)
    if work.n_obs < 2:
        raise ValueError(f"Latent dimensions need at least 2 cells, got {work.n_obs}.")
    check_varied(work.X, work.var_names, constant=images)
    scaling = "none" if images else COMMON if components else "quantile"
    return rescaled(work.X, scaling)


def _settings(
    work: AnnData,
    scaled: np.ndarray,
    network: str,
    network_kwargs: Mapping[str, Any] | None,
    train_kwargs: Mapping[str, Any] | None,
) -> tuple[Architecture, Schedule]:
    """Return the settings of networks and training: defaults for the values, then those given."""
    from scmoe._estimate import LARGE_STEPS, Architecture, Schedule

    of_network, of_training = dict(network_kwargs or {}), dict(train_kwargs or {})
    ours = {"n_input", "image_shape", "n_steps", "cycle"}
    for name, given, kind in (
        ("network_kwargs", of_network, Architecture),
        ("train_kwargs", of_training, Schedule),
    ):
        known = [field.name for field in fields(kind) if field.name not in ours]
        if unknown := set(given) - set(known):
            raise ValueError(
                f"`{name}` has no {', '.join(map(repr, sorted(unknown)))}; there is "
                f"{', '.join(map(repr, known))}."
            )
    binary = holds_images(work) and scaled.min() >= 0 and scaled.max() <= 1
    of_network.setdefault("likelihood", "bernoulli" if binary else "gaussian")
    shape = check_image_shape(work) if network == "conv" else None
    architecture = Architecture(scaled.shape[1], shape, **of_network)
    of_markers = not (holds_images(work) or architecture.isotropic)
    return architecture, Schedule(**{**(LARGE_STEPS if of_markers else {}), **of_training})


def _reconstruction(found: LatentDim) -> int:
    from scmoe._estimate import RECONSTRUCTION, count_dims

    return count_dims(found.explained, RECONSTRUCTION)


def _tables(found: dict[str, LatentDim | None], labels: np.ndarray) -> dict[str, Any]:
    """Return a table of groups in natural order, and the variance shares of their components."""
    names = natsorted(found)
    without = [name for name in names if found[name] is None]
    if without:
        warnings.warn(
            f"Groups of a single cell, or of cells that are all the same, have no size: "
            f"{listing(without)}.",
            UserWarning,
            stacklevel=3,
        )
    dims = [found[name] for name in names]
    table = pd.DataFrame(
        {
            "n_cells": [int((labels == name).sum()) for name in names],
            "n_latent": pd.array([d and d.n_latent for d in dims], dtype="Int64"),
            "n_latent_reconstruction": pd.array(
                [d and _reconstruction(d) for d in dims], dtype="Int64"
            ),
        },
        index=pd.Index(names, dtype=object),
    )
    most = max((len(d.explained) for d in dims if d), default=0)
    explained = np.full((len(names), most), np.nan)
    for row, d in zip(explained, dims, strict=True):
        if d is not None:
            row[: len(d.explained)] = d.explained
    return {"groups": table, "groups_explained": explained}
