"""How each model is made of what ``scmoe.tl.cluster`` was asked."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scmoe._core.cells import check_batches
from scmoe._core.keys import Key
from scmoe._core.scaling import COMMON
from scmoe._core.text import listing
from scmoe._core.values import holds_images
from scmoe.similarity import check_similarity, with_seed
from scmoe.tl._working import find_graph, graph_of_other_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from scmoe.model._base import ExpertModel
    from scmoe.similarity import Similarity

logger = logging.getLogger("scmoe")

AUTO = "auto"

OF_IMAGES = {"resolutions": (0.2, 0.3, 0.5, 1.0), "fine_resolutions": ()}
"""Partitions of images: no single pixel tells their communities apart, as a marker would."""
"""For numbers that are estimated."""


@dataclass
class Recipe(ABC):
    """A model, with its own defaults for what was not said.

    Parameters
    ----------
    n_clusters, n_latent
        Numbers, ``"auto"``, or None for the default of the model.
    layer
        That the cells are in, None for ``.X``.
    use_rep
        Representation that the features are those of; None or ``"X"`` for markers.
    model_kwargs, train_kwargs
        Passed on.
    """

    n_clusters: int | str | None
    n_latent: int | Sequence[int] | str | None
    layer: str | None
    use_rep: str | None
    model_kwargs: dict[str, Any]
    train_kwargs: dict[str, Any]
    graph: csr_matrix | None = field(default=None, init=False)

    def __post_init__(self):
        self.use_rep = None if self.use_rep == "X" else self.use_rep
        if self.use_rep is not None:
            self.model_kwargs.setdefault("scaling", COMMON)

    @property
    @abstractmethod
    def model_class(self) -> type[ExpertModel]:
        """The class of the model."""

    @property
    def counts(self) -> bool:
        """Whether the values are counts."""
        return False

    @property
    def if_counts(self) -> str:
        """What to do with raw counts that were not called so; empty if the model has no way."""
        return ""

    @property
    def least_clusters(self) -> int:
        """How many clusters there will be at least places for."""
        return 2 if self.n_clusters in (AUTO, None) else self.n_clusters

    @property
    def of_all_cells(self) -> bool:
        """Whether it looks at something that only all cells have, such as a graph of the user."""
        return False

    @abstractmethod
    def look_at(self, adata: AnnData, work: AnnData) -> None:
        """Take what the model needs beside the values, from the user's cells and their copy."""

    @abstractmethod
    def fit(self, work: AnnData, seed: int, progress: bool) -> ExpertModel:
        """The trained model of the working copy."""

    @abstractmethod
    def params(self) -> dict[str, Any]:
        """Parameters of this model alone, for the record."""

    sees: ClassVar[tuple[str, ...]] = ()
    """What this model alone says of cells, as :func:`scmoe.model._predict.see` names it."""

    def beside(self, model: Any, key: str, seen: Mapping[str, np.ndarray]) -> dict[str, dict]:
        """The same by the mapping that it is written to, and key."""
        return {}


@dataclass
class SimilarityRecipe(Recipe):
    """MoE-Sim-VAE; see :func:`scmoe.tl.cluster` for the parameters."""

    similarity: Similarity | None
    preset: str | None
    neighbors_key: str | None
    obsp: str | None
    batch_key: str | None

    def __post_init__(self):
        from scmoe.model._estimates import check_number

        of_preset = self._take_preset()
        super().__post_init__()
        if self.similarity is None:
            self.similarity = of_preset
        if self.similarity is not None:
            check_similarity(self.similarity)
        of_preset = self.model_kwargs.pop("n_experts", None)
        self.n_clusters = of_preset if self.n_clusters is None else self.n_clusters
        if self.n_latent is not None:
            # before the graph is made
            check_number("n_latent", self.n_latent, 1)
            self.model_kwargs["n_latent"] = self.n_latent

    def _take_preset(self) -> Similarity | None:
        """Put what is given on top of what a preset says; its similarity."""
        if self.preset is None:
            return None
        from scmoe.model import preset

        found = preset(self.preset)
        of_training, given = found.train_kwargs, self.train_kwargs
        if given.get("max_epochs") is not None and "max_steps" not in given:
            # the user's epochs instead of the preset's steps
            del of_training["max_steps"]
        plan = {**of_training["plan_kwargs"], **(given.get("plan_kwargs") or {})}
        self.model_kwargs = {**found.model_kwargs, **self.model_kwargs}
        # the paper's training is one from random weights, whatever the similarity
        self.train_kwargs = {"start": False, **of_training, **given, "plan_kwargs": plan}
        return found.similarity

    @property
    def model_class(self) -> type[ExpertModel]:
        from scmoe.model import MoESimVAE

        return MoESimVAE

    def look_at(self, adata: AnnData, work: AnnData) -> None:
        from scmoe.similarity import DensityTree

        self.by_default = self.similarity is None
        if self.by_default:
            self.similarity = self._default(adata, work)
        if isinstance(self.similarity, DensityTree):
            told = {}
            if self.n_clusters not in (None, AUTO):
                told["n_clusters"] = self.n_clusters
            if self.similarity.batch_key is None:
                told["batch_key"] = self.batch_key
            self.similarity = replace(self.similarity, **told)
        self.graph, self.origin = find_graph(
            adata, work, self.similarity, self.neighbors_key, self.obsp
        )

    @property
    def of_all_cells(self) -> bool:
        from scmoe.tl._recorded import functions_of

        return self.graph is not None or bool(functions_of(self.similarity))

    def _default(self, adata: AnnData, work: AnnData) -> Similarity:
        """The graph that the user asked for or made of other values; else the tree."""
        from scmoe.similarity import CoAssociation, DensityTree

        reason = None
        if self.neighbors_key is not None or self.obsp is not None:
            reason = "the one that was asked for"
        elif (source := graph_of_other_values(adata, self.use_rep)) is not None:
            reason = f"made of {source}, not of {self.use_rep or 'X'}"
        elif self.use_rep not in (None, "X"):
            reason = "as the values are those of a representation, not of markers"
        elif holds_images(work):
            reason = "as the values are pixels"
        if reason is not None:
            logger.info("Clusters follow the neighbour graph, %s (CoAssociation).", reason)
            return CoAssociation(**OF_IMAGES) if holds_images(work) else CoAssociation()
        beside = ""
        if "connectivities" in adata.obsp:
            beside = (
                ", not the neighbour graph in `.obsp`, which `neighbors_key` or `obsp` would name"
            )
        logger.info("Clusters follow the valleys of the density (DensityTree)%s.", beside)
        return DensityTree()

    def fit(self, work: AnnData, seed: int, progress: bool) -> ExpertModel:
        from scmoe.tl._neighbors import build_graph

        if self.by_default:
            self.similarity = with_seed(self.similarity, seed)
        if self.similarity.needs_graph:
            if self.graph is None:
                self.graph = build_graph(work.X, work.obs, self.batch_key, seed, progress=progress)
            slot = "connectivities"
            if self.similarity.neighbors_key is not None:
                # the name by which the similarity will ask for the graph
                slot = Key.obsp.GRAPH
                work.uns[self.similarity.neighbors_key] = {"connectivities_key": slot}
            work.obsp[slot] = self.graph
        if self.batch_key is not None:
            # categories without cells are no batches
            work.obs[self.batch_key] = work.obs[self.batch_key].astype(str)
        self.model_class.setup_anndata(
            work, layer=self.layer, batch_key=self.batch_key, similarity=self.similarity
        )
        model = self.model_class(work, n_experts=self.n_clusters, **self.model_kwargs)
        model.train(**{"enable_progress_bar": progress, **self.train_kwargs})
        return model

    def params(self) -> dict[str, Any]:
        return {
            "preset": self.preset,
            "similarity": self.similarity.to_dict(),
            "neighbors": self.origin,
            "neighbors_key": self.neighbors_key,
            "obsp": self.obsp,
            "batch_key": self.batch_key,
        }


@dataclass
class MixtureRecipe(Recipe):
    """Santos' mixture of VAEs, which estimates what it is not told."""

    def __post_init__(self):
        super().__post_init__()
        # as many as the model's own argument says, where it was given as that
        self.n_clusters = AUTO if self.n_clusters is None else self.n_clusters
        if self.n_latent is not None:
            self.model_kwargs["n_latent"] = self.n_latent

    @property
    def model_class(self) -> type[ExpertModel]:
        from scmoe.model import MoEVAE

        return MoEVAE

    def look_at(self, adata: AnnData, work: AnnData) -> None:
        """The values are all that it looks at."""

    def fit(self, work: AnnData, seed: int, progress: bool) -> ExpertModel:
        self.model_class.setup_anndata(work, layer=self.layer)
        model = self.model_class(work, n_experts=self.n_clusters, **self.model_kwargs)
        model.train(**{"enable_progress_bar": progress, **self.train_kwargs})
        return model

    def params(self) -> dict[str, Any]:
        return {}


@dataclass
class CoupledRecipe(Recipe):
    """Coupled mixture VAEs, which prune their categories unless told how many there are."""

    def __post_init__(self):
        super().__post_init__()
        self.n_clusters = AUTO if self.n_clusters is None else self.n_clusters
        if self.n_latent is not None:
            if self.n_latent == AUTO:
                raise ValueError(
                    '`n_latent="auto"` can\'t go with `model="cpl-mixvae"`: it is the size of the '
                    "states, which nothing estimates. Give a number."
                )
            self.model_kwargs["n_state"] = self.n_latent

    @property
    def model_class(self) -> type[ExpertModel]:
        from scmoe.model import CplMixVAE

        return CplMixVAE

    @property
    def counts(self) -> bool:
        from scmoe.model._module import COUNTS

        return self.model_kwargs.get("likelihood") in COUNTS

    @property
    def if_counts(self) -> str:
        return (
            'Raw counts, sparse or not, are taken with `model_kwargs={"likelihood": "nb"}` '
            '(or "zinb").'
        )

    def look_at(self, adata: AnnData, work: AnnData) -> None:
        """The values are all that it looks at."""

    def fit(self, work: AnnData, seed: int, progress: bool) -> ExpertModel:
        self.model_class.setup_anndata(work, layer=self.layer, counts=self.counts)
        model = self.model_class(work, n_categories=self.n_clusters, **self.model_kwargs)
        model.train(**{"enable_progress_bar": progress, **self.train_kwargs})
        return model

    def params(self) -> dict[str, Any]:
        return {}

    sees = ("z", "votes", "entropy")

    def beside(self, model: Any, key: str, seen: Mapping[str, np.ndarray]) -> dict[str, dict]:
        from scmoe.model._states import consensus_of, consensus_table

        of_cells = {Key.obs.entropy(key): seen["entropy"]}
        arrays = {Key.obsm.state(key): seen["z"]}
        votes = seen["votes"]
        if votes.shape[1] > 1:
            of_cells[Key.obs.arm_consensus(key)] = consensus_of(votes)
            arrays[Key.obsm.votes(key)] = votes.astype(np.int16)
        table = consensus_table(seen["expert"], votes, seen["entropy"], model.module.n_experts)
        return {
            "obs": of_cells,
            "obsm": arrays,
            "uns": {
                "categories": {name: table[name].to_numpy() for name in table},
            },
        }


MODELS = {
    "moe-sim-vae": SimilarityRecipe,
    "moe-vae": MixtureRecipe,
    "cpl-mixvae": CoupledRecipe,
}
"""Recipes by the name of the model."""


def make_recipe(
    adata: AnnData,
    model: str,
    *,
    model_kwargs: dict[str, Any] | None,
    train_kwargs: dict[str, Any] | None,
    similar: dict[str, Any],
    **common: Any,
) -> Recipe:
    """The recipe of a model.

    Parameters
    ----------
    adata
        The user's cells.
    model
        Its name.
    model_kwargs, train_kwargs
        As given.
    similar
        What only MoE-Sim-VAE knows; None where nothing was said.
    **common
        What all models know.

    Raises
    ------
    ValueError
        An unknown model, options that it does not have, or an invalid number of clusters.
    """
    from scmoe.model._estimates import check_number

    if model not in MODELS:
        raise ValueError(f"`model` must be one of {tuple(MODELS)}, got {model!r}.")
    model_kwargs = dict(model_kwargs or {})
    for theirs, ours in (
        ("n_experts", "n_clusters"),
        ("n_categories", "n_clusters"),
        ("n_latent", "n_latent"),
        ("n_state", "n_latent"),
    ):
        if theirs in model_kwargs and (ours == "n_clusters" or common[ours] is not None):
            raise ValueError(f"Give `{theirs}` as `{ours}`, not in `model_kwargs`.")
    if common["n_clusters"] is not None:
        check_number("n_clusters", common["n_clusters"], 2)
    if similar.get("batch_key") is not None:
        check_batches(adata, similar["batch_key"])
    common = {**common, "model_kwargs": model_kwargs, "train_kwargs": dict(train_kwargs or {})}
    if model == "moe-sim-vae":
        return SimilarityRecipe(**common, **similar)
    asked = [name for name, value in similar.items() if value is not None]
    if asked:
        raise ValueError(
            f'{listing(asked)} can\'t go with `model="{model}"`: it looks at the markers alone. '
            'Leave it out, or use `model="moe-sim-vae"`.'
        )
    return MODELS[model](**common)
