"""States within the categories of coupled mixtures, and what decoders make of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scmoe._core.keys import Key
from scmoe._core.settings import is_number, is_whole
from scmoe._core.text import listing
from scmoe._core.values import holds_images
from scmoe.metrics import category_consensus
from scmoe.model._predict import Predictions, of_cells, outputs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scmoe.model._module import DescribedModule
    from scmoe.model._record import Trained


def living(trained: Trained) -> list[str]:
    """Clusters with cells."""
    sizes = trained.module.size.tolist()
    return [name for name, size in zip(trained.clusters, sizes, strict=True) if size]


def expert_of(trained: Trained, cluster: str) -> int:
    """Position of a cluster; KeyError where there is none of that name."""
    if str(cluster) not in trained.clusters:
        raise KeyError(f"There is no cluster {cluster!r}; there are {listing(living(trained))}.")
    return trained.clusters.index(str(cluster))


def check_steps(n: int, name: str) -> None:
    """Raise ValueError for fewer steps than 2."""
    if not is_whole(n) or n < 2:
        raise ValueError(f"`{name}` must be a whole number from 2, got {n!r}.")


@torch.inference_mode()
def walk(
    module: DescribedModule,
    expert: int,
    origin: np.ndarray,
    dims: Sequence[int],
    positions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode expected values along latent dimensions of an expert.

    Parameters
    ----------
    module
        A trained module.
    expert
        Which decodes.
    origin
        Where the dimensions stay that are not walked along, ``(d,)``.
    dims
        The dimensions to walk along, one after the other.
    positions
        Codes in each of them, ``(n_dims, n_steps)``.

    Returns
    -------
    In the units of the input, and scaled, both ``(n_dims * n_steps, n_input)`` float32.
    """
    n_dims, n_steps = positions.shape
    codes = torch.zeros(n_dims, n_steps, module.means.shape[1])
    codes[..., : len(origin)] = torch.from_numpy(np.asarray(origin, dtype=np.float32))
    for i, dimension in enumerate(dims):
        codes[i, :, dimension] = torch.from_numpy(positions[i].astype(np.float32))
    codes = codes.flatten(0, 1).to(module.means.device)
    module.eval()
    which = torch.full((len(codes),), expert, device=codes.device)
    scaled = module.decode(codes, which)
    return module.in_units(scaled).numpy(force=True), scaled.numpy(force=True)


def steps_as_cells(
    x: np.ndarray,
    cluster: str,
    dims: Sequence[int],
    positions: np.ndarray,
    stem: str,
    template: AnnData,
    layer: str | None,
) -> AnnData:
    """Make an AnnData of traversals: ``.obs`` has ``cluster``, ``dimension`` and ``position``."""
    obs = {
        Key.obs.CLUSTER: pd.Categorical([str(cluster)] * len(x)),
        "dimension": np.repeat(dims, positions.shape[1]),
        "position": positions.ravel().astype(np.float32),
    }
    return as_cells(x, obs, stem, template, layer)


def as_cells(
    x: np.ndarray, obs: dict[str, Any], stem: str, template: AnnData, layer: str | None
) -> AnnData:
    """Make an AnnData of decoded values, with variables and layer of the training cells."""
    made = AnnData(
        x,
        obs=pd.DataFrame(obs, index=[f"{stem}-{i}" for i in range(len(x))]),
        var=template.var.copy(),
        layers={} if layer is None else {layer: x.copy()},
    )
    if holds_images(template):
        made.uns[Key.uns.IMAGE_SHAPE] = template.uns[Key.uns.IMAGE_SHAPE]
    return made


STEPS = 11
"""Of a traversal."""

QUANTILES = (0.05, 0.95)
"""Of the states of a cluster, between which a traversal goes."""


@dataclass(frozen=True)
class ArmStates:
    """What every arm says of cells, given the cluster on which they agree."""

    expert: np.ndarray
    """Position of the cluster of each cell, ``(n,)``."""
    mean: np.ndarray
    """Expected states, ``(n_arms, n, n_state)``."""
    variance: np.ndarray
    """How uncertain the arms are about them."""


@dataclass(frozen=True)
class Traversal:
    """What a decoder says along dimensions of the state."""

    dims: list[int]
    positions: np.ndarray
    """``(n_dims, n_steps)``."""
    values: np.ndarray
    """In the units of the input, ``(n_dims, n_steps, n_input)``."""
    scaled: np.ndarray
    """The same, scaled so that nearly all training cells lie from 0 to 1."""


@torch.inference_mode()
def arm_states(trained: Trained, x: np.ndarray) -> ArmStates:
    """States of cells x markers, float32, in every arm of coupled mixture VAEs."""
    module, parts = trained.module, []
    for found in outputs_of(module, x):
        parts.append((found["expert"], *module.states(found["embedded"], found["expert"])))
    expert, mean, variance = zip(*parts, strict=True)
    return ArmStates(
        torch.cat(expert).numpy(force=True),
        torch.cat(mean, 1).numpy(force=True),
        torch.cat(variance, 1).numpy(force=True),
    )


def traverse(
    trained: Trained,
    cluster: str,
    states: np.ndarray,
    *,
    dims: int | Sequence[int] | None = None,
    n_steps: int = STEPS,
    quantiles: tuple[float, float] = QUANTILES,
) -> Traversal:
    """Decode along the state of a cluster; see :meth:`CplMixVAE.traverse`.

    Parameters
    ----------
    trained
        Coupled mixture VAEs.
    cluster
        Whose cells.
    states
        States of its cells in the first arm, ``(n_cells, n_state)``.
    """
    expert = expert_of(trained, cluster)
    check_steps(n_steps, "n_steps")
    dims = check_dims(dims, states.shape[1])
    ends = _check_quantiles(quantiles)
    if not len(states):
        raise ValueError(
            f"No cell belongs to {str(cluster)!r}, so it has no states; clusters with cells are "
            f"{', '.join(map(repr, living(trained)))}."
        )
    low, high = np.quantile(states[:, dims], ends, axis=0)
    positions = np.linspace(low, high, int(n_steps), axis=1)
    found = walk(trained.module, expert, np.median(states, axis=0), dims, positions)
    return Traversal(dims, positions, *(x.reshape(*positions.shape, -1) for x in found))


def check_dims(dims: int | Sequence[int] | None, n_state: int) -> list[int]:
    """Dimensions of the state, all for None; ValueError for others, and for none at all."""
    if dims is None:
        return list(range(n_state))
    asked = [dims] if is_whole(dims) else list(dims)
    if not asked or not all(is_whole(d) and 0 <= d < n_state for d in asked):
        raise ValueError(f"The state has the dimensions 0 to {n_state - 1}, got {dims!r}.")
    if len(set(asked)) < len(asked):
        raise ValueError(f"`dims` names a dimension twice: {dims!r}.")
    return [int(d) for d in asked]


def _check_quantiles(quantiles: tuple[float, float]) -> tuple[float, float]:
    ends = tuple(quantiles) if isinstance(quantiles, tuple | list | np.ndarray) else ()
    if len(ends) != 2 or not all(is_number(q) for q in ends) or not 0 <= ends[0] < ends[1] <= 1:
        raise ValueError(f"`quantiles` must be two numbers from 0 to 1, got {quantiles!r}.")
    return ends


def consensus_of(votes: np.ndarray) -> np.ndarray:
    """Share of the pairs of arms that agree, ``(n,)`` float32, by their votes ``(n, n_arms)``."""
    n_arms = votes.shape[1]
    same = (votes[:, :, None] == votes[:, None]).sum((1, 2)) - n_arms
    return (same / (n_arms * (n_arms - 1))).astype(np.float32)


def consensus_table(
    expert: np.ndarray, votes: np.ndarray, entropy: np.ndarray, n_categories: int
) -> pd.DataFrame:
    """Consensus of the arms, mean entropy and number of cells of each category.

    Parameters
    ----------
    expert, votes, entropy
        Predictions of all cells, see :func:`scmoe.model._predict.predict_blocks`.
    n_categories
        Number of categories.
    """
    size = np.bincount(expert, minlength=n_categories)
    consensus = category_consensus(votes.T, n_categories) if votes.shape[1] > 1 else np.nan
    mean = np.bincount(expert, entropy, n_categories) / np.maximum(size, 1)
    return pd.DataFrame({"consensus": consensus, "entropy": mean, "n_cells": size})


class States(Predictions):
    """What the arms of coupled mixture VAEs say of cells.

    The model has ``settings`` and ``trained``.
    """

    @of_cells
    def get_state(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the state of each cell within its category, in the first arm.

        States of different categories can't be compared.

        Parameters
        ----------
        {cells}

        Returns
        -------
        ``(n, n_state)`` float32.

        Raises
        ------
        {errors}
        """
        return self._predict_array("z", adata, indices, batch_size)

    @of_cells
    def get_consensus(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the share of the pairs of arms that give a cell the same category.

        Parameters
        ----------
        {cells}

        Returns
        -------
        ``(n,)`` float32.

        Raises
        ------
        {errors}
            Also for a model with one arm.
        """
        if self.settings.n_arms == 1:
            raise ValueError("The model has one arm, which nothing can agree with.")
        return consensus_of(self._predict_array("votes", adata, indices, batch_size))

    @of_cells
    def get_entropy(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the entropy of the categories of each cell, by :meth:`predict_proba`.

        Parameters
        ----------
        {cells}

        Returns
        -------
        ``(n,)`` float32, in nats.

        Raises
        ------
        {errors}
        """
        return self._predict_array("entropy", adata, indices, batch_size)

    @of_cells
    def get_votes(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the category that each arm gives a cell.

        Parameters
        ----------
        {cells}

        Returns
        -------
        ``(n, n_arms)`` int16, positions among ``cluster_names_``.

        Raises
        ------
        {errors}
        """
        return self._predict_array("votes", adata, indices, batch_size).astype(np.int16)

    def traverse(
        self,
        cluster: str,
        *,
        dims: int | Sequence[int] | None = None,
        n_steps: int = STEPS,
        quantiles: tuple[float, float] = QUANTILES,
    ) -> AnnData:
        """Decode along the state of a cluster in the first arm.

        One dimension goes from a low to a high quantile of the states of the cluster's cells,
        the others stay at their medians. A state is identified only up to its sign and to
        rotation: where a dimension starts, and how what varies is dealt out to the dimensions,
        means nothing.

        Parameters
        ----------
        cluster
            Whose cells.
        dims
            Dimensions of the state, or one of them; all by default.
        n_steps
            Steps along each, of the same size.
        quantiles
            Where the first and the last step are.

        Returns
        -------
        ``(n_dims * n_steps, n_vars)`` float32: expected values in the units of the training
        values, without noise, one dimension after the other, with ``.obs["cluster"]``,
        ``.obs["dimension"]`` and ``.obs["position"]`` (the state). Of counts they are means at
        the typical total of the cluster (the geometric mean of its cells), and no whole numbers.

        Raises
        ------
        KeyError
            No such cluster.
        ValueError
            A cluster without cells; dimensions that the state has not; fewer than 2 steps;
            quantiles that are none.

        Examples
        --------
        >>> steps = model.traverse("3", dims=0)
        >>> steps.to_df().agg(np.ptp)  # the range of each marker
        """
        trained = self.trained
        expert_of(trained, cluster)
        states = self.get_state()[self.predict() == str(cluster)]
        how = {"dims": dims, "n_steps": n_steps, "quantiles": quantiles}
        found = traverse(trained, cluster, states, **how)
        return steps_as_cells(
            found.values.reshape(-1, self.adata.n_vars),
            cluster,
            found.dims,
            found.positions,
            "traversal",
            self.adata,
            self.registry["setup_args"]["layer"],
        )
