"""New cells of trained clusters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from natsort import natsorted

from scmoe._core.compat import one_thread
from scmoe._core.keys import Key
from scmoe._core.random import as_seed
from scmoe._core.settings import is_whole
from scmoe._core.text import listing
from scmoe._core.values import holds_images
from scmoe.model._clusters import draw_batches
from scmoe.model._module import PANEL

if TYPE_CHECKING:
    from scmoe.model._module import DescribedModule
    from scmoe.model._record import Trained

SMALL = 100
"""Markers below which a second thread does not pay."""

BATCH = 8192
"""Cells that are decoded at a time."""

GATES = ("requested", "network")
PRIORS = ("fitted", "unit")
"""Whose word on the expert counts, and what codes are drawn from."""


def generate_cells(
    trained: Trained,
    template: AnnData,
    n: int | Mapping[str, int],
    clusters: Sequence[str] | None,
    *,
    key: str,
    layer: str | None,
    batch_key: str | None,
    batch: str | None,
    gate: str,
    prior: str,
    noise: bool | None,
    calibrate: bool | None,
    random_state: int | np.random.Generator,
) -> AnnData:
    """Draw cells from a trained module; see :func:`scmoe.tl.generate`.

    Parameters
    ----------
    trained
        The module, in which means and covariances were fitted, and the names of its clusters.
    template
        Whose ``.var`` and records of transforms the new cells get, and whose names they avoid.
    key
        Names the slots of clusters and codes.
    layer
        That was trained on, None for ``.X``.
    batch_key
        Column of the batches, None if there are none.
    """
    module, names = trained.module, trained.names
    for value, choices, what in ((gate, GATES, "gate"), (prior, PRIORS, "prior")):
        if value not in choices:
            raise ValueError(f"`{what}` must be one of {choices}, got {value!r}.")
    if prior == "unit" and module.prior_means is None:
        raise ValueError(
            "The model was trained with `kl_weight=0`: nothing made its codes follow Gaussians of "
            'unit spread. Draw from the fitted ones, `prior="fitted"`, or train with a weight.'
        )
    rng = np.random.default_rng(as_seed(random_state))
    requested = _requests(names, module.size.cpu().numpy(), n, clusters, rng)
    batches = _batches(trained, batch, batch_key, requested, rng)
    is_image = holds_images(template)
    noise = not is_image if noise is None else noise
    possible = noise and prior == "fitted" and module.quantiles.numel() > 0
    if calibrate and not possible:
        raise ValueError(
            "`calibrate` needs `noise`, the fitted prior and a panel of at most "
            f"{PANEL} markers: cells drawn in another way have other distributions."
        )
    calibrate = possible if calibrate is None else calibrate
    drawn = _draw(module, requested, batches, rng, calibrate, gate=gate, prior=prior, noise=noise)
    categories = natsorted(set(names))
    names = np.asarray(names, dtype=object)
    stem = "generated"
    while template.obs_names.str.startswith(f"{stem}-").any():
        stem += "_"
    x = drawn["x"]
    adata = AnnData(
        x,
        obs=pd.DataFrame(
            {
                Key.obs.labels(key): pd.Categorical(names[requested], categories=categories),
                Key.obs.expert(key): pd.Categorical(names[drawn["expert"]], categories=categories),
            },
            index=[f"{stem}-{i}" for i in range(len(x))],
        ),
        var=template.var.copy(),
        obsm={Key.obsm.latent(key): drawn["latent"]},
        layers={} if layer is None else {layer: x.copy()},
    )
    if batch_key is not None:
        values = np.asarray(trained.batches, dtype=object)[batches]
        adata.obs[batch_key] = pd.Categorical(values, categories=trained.batches)
    if is_image:
        adata.uns[Key.uns.IMAGE_SHAPE] = template.uns[Key.uns.IMAGE_SHAPE]
    if layer is None and Key.uns.VALUE_SCALE in template.uns:
        adata.uns[Key.uns.VALUE_SCALE] = template.uns[Key.uns.VALUE_SCALE]
    # the transform of what was clustered, for both places that the new values are in
    transform = template.uns.get(Key.uns.ARCSINH, {}).get(layer or "X")
    if transform is not None:
        places = ["X"] if layer is None else ["X", layer]
        adata.uns[Key.uns.ARCSINH] = {place: copy.deepcopy(transform) for place in places}
    adata.uns[Key.uns.GENERATED] = {
        "gate": gate,
        "prior": prior,
        "noise": noise,
        "calibrate": calibrate,
    }
    for column in (Key.obs.labels(key), Key.obs.expert(key)):
        adata.obs[column] = adata.obs[column].cat.remove_unused_categories()
    return adata


def _requests(
    names: Sequence[str],
    size: np.ndarray,
    n: int | Mapping[str, int],
    clusters: Sequence[str] | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the requested expert of each new cell, ``(n,)``, sorted."""
    # several experts may be one cluster
    alive = list(dict.fromkeys(name for name, s in zip(names, size, strict=True) if name and s))
    if isinstance(n, Mapping):
        if clusters is not None:
            raise ValueError("`n` names the clusters already; leave `clusters` out.")
        asked, counts = [str(c) for c in n], list(n.values())
    else:
        asked, counts = ([clusters] if isinstance(clusters, str) else clusters), [n]
        asked = alive if asked is None else [str(c) for c in asked]
    unknown = [c for c in asked if c not in names]
    if unknown:
        raise KeyError(f"There is no cluster {listing(unknown)}; there are {listing(alive)}.")
    empty = [c for c in asked if c not in alive]
    if empty:
        raise ValueError(
            f"No cell belongs to {listing(empty)}, so there is nothing to draw from; clusters "
            f"with cells are {listing(alive)}."
        )
    if not asked or len(set(asked)) < len(asked):
        raise ValueError("`clusters` is empty or names a cluster twice.")
    if not all(is_whole(c) and c >= 1 for c in counts):
        raise ValueError(f"The number of cells must be a whole number from 1, got {n!r}.")
    names = np.asarray(names, dtype=object)
    experts = [np.flatnonzero((names == c) & (size > 0)) for c in asked]
    if not isinstance(n, Mapping):
        sizes = np.array([size[e].sum() for e in experts])
        counts = rng.multinomial(n, sizes / sizes.sum())
    of_each = [
        rng.multinomial(k, size[e] / size[e].sum()) for k, e in zip(counts, experts, strict=True)
    ]
    return np.sort(np.repeat(np.concatenate(experts), np.concatenate(of_each)))


def _batches(
    trained: Trained,
    batch: str | None,
    batch_key: str | None,
    requested: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the batch that each new cell is generated for, ``(n,)``."""
    if batch is None:
        return draw_batches(trained.module.batches.numpy(force=True)[requested], rng)
    if batch_key is None:
        raise ValueError("The model knows no batches (no `batch_key`); leave `batch` out.")
    if str(batch) not in trained.batches:
        raise KeyError(f"There is no batch {batch!r}; there are {listing(trained.batches)}.")
    return np.full(len(requested), trained.batches.index(str(batch)))


@torch.inference_mode()
def _draw(
    module: DescribedModule,
    requested: np.ndarray,
    batches: np.ndarray,
    rng: np.random.Generator,
    calibrate: bool,
    **how,
) -> dict[str, np.ndarray]:
    """Codes around the means of their clusters, decoded: ``x``, ``latent``, ``expert``."""
    module.eval()
    parts = []
    n_parts = -(-len(requested) // BATCH)
    for part in zip(
        np.array_split(requested, n_parts), np.array_split(batches, n_parts), strict=True
    ):
        with one_thread(module.low.numel() < SMALL):
            drawn = module.draw(*part, rng, **how)
        if calibrate:
            drawn["scaled"] = _calibrated(module, drawn["scaled"], drawn["expert"])
        x = module.unscale(drawn["scaled"])
        parts.append((x, module.place(module.scale(x), drawn["z"]), drawn["expert"]))
    x, latent, expert = (torch.cat(p).numpy(force=True) for p in zip(*parts, strict=True))
    return {"x": x, "latent": latent, "expert": expert}


def _calibrated(
    module: DescribedModule, scaled: torch.Tensor, expert: torch.Tensor
) -> torch.Tensor:
    """Map the quantiles of drawn cells to those of the cluster, marker by marker.

    Order and so the dependence between markers stay as they are.
    """
    drawn, cells = module.quantiles.numpy(force=True)
    values, owner = scaled.numpy(force=True).copy(), expert.numpy(force=True)
    for k in np.unique(owner):
        own = owner == k
        for j in range(values.shape[1]):
            values[own, j] = np.interp(values[own, j], drawn[k, :, j], cells[k, :, j])
    return torch.from_numpy(values).to(scaled.device)
