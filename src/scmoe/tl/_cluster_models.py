"""How each published model is built and trained for a request of ``scmoe.tl.cluster``."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scmoe._core.keys import Key
from scmoe._core.scaling import COMMON
from scmoe._core.settings import whole
from scmoe._core.text import listing
from scmoe._core.values import holds_images
from scmoe.similarity import with_seed
from scmoe.tl._cluster_request import AUTO, AUTO_WORD
from scmoe.tl._graph import build_graph, find_graph, graph_of_other_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from scmoe.model import ExpertModel
    from scmoe.similarity import Similarity
    from scmoe.tl._cluster_request import ClusterRequest, ModelName

logger = logging.getLogger("scmoe")

MODEL_OPTIONS = ("similarity", "preset", "neighbors_key", "obsp", "batch_key")
"""Options of a request that not every model has."""

IMAGE_PARTITIONS = {"resolutions": (0.2, 0.3, 0.5, 1.0), "fine_resolutions": ()}
"""Partitions for images: no single pixel separates communities, as a marker does."""


class Builder(ABC):
    """Builds and trains one published model for a request.

    A subclass says what the model needs: its class, its options, its defaults, and what it
    predicts besides clusters and codes.

    Parameters
    ----------
    request
        The request, which was checked.

    Raises
    ------
    ValueError
        Options that the model does not have, or values that it does not accept.
    """

    name: ClassVar[ModelName]
    """Name of the model in a request."""
    options: ClassVar[tuple[str, ...]] = ()
    """Options among :data:`MODEL_OPTIONS` that the model has."""
    predictions: ClassVar[tuple[str, ...]] = ()
    """Outputs of this model alone that are predicted for all cells."""
    if_counts: ClassVar[str] = ""
    """Advice for raw counts that were not declared as counts; empty if the model takes none."""

    request: ClusterRequest
    """The request, completed with the defaults of the model; the record keeps this one."""
    graph: csr_matrix | None = None
    """Neighbour graph that the clusters follow."""
    graph_origin: str | None = None
    """Origin of the graph, for the record."""

    def __init__(self, request: ClusterRequest):
        given = [name for name in MODEL_OPTIONS if getattr(request, name) is not None]
        if unknown := [name for name in given if name not in self.options]:
            raise ValueError(
                f'{listing(unknown)} can\'t go with `model="{request.model}"`: it looks at the '
                'markers alone. Leave it out, or use `model="moe-sim-vae"`.'
            )
        request = replace(
            request,
            model_kwargs=dict(request.model_kwargs or {}),
            train_kwargs=dict(request.train_kwargs or {}),
        )
        request = self.complete(request)
        if request.representation is not None:
            kwargs = {"scaling": COMMON, **request.model_kwargs}
            request = replace(request, model_kwargs=kwargs)
        self.request = request

    @classmethod
    @abstractmethod
    def model_class(cls) -> type[ExpertModel]:
        """Return the class of the model."""

    @abstractmethod
    def complete(self, request: ClusterRequest) -> ClusterRequest:
        """Return the request with the defaults of the model.

        ``model_kwargs`` and ``train_kwargs`` are copies that may be changed.
        """

    @property
    def counts(self) -> bool:
        """Whether the values are counts."""
        return False

    @property
    def needs_all_cells(self) -> bool:
        """Whether the model needs something of all cells, such as a graph of the user."""
        return False

    def prepare(self, adata: AnnData, cells: AnnData) -> None:  # noqa: B027
        """Choose what depends on the slots of the user's cells, such as a neighbour graph.

        Parameters
        ----------
        adata
            Cells of the user.
        cells
            Their working copy.
        """

    def setup(self, cells: AnnData) -> None:
        """Register a working copy of the cells with the class of the model."""
        self.model_class().setup_anndata(cells, layer=self.request.layer)

    def train(self, cells: AnnData) -> ExpertModel:
        """Return a model that is trained on a working copy of the cells."""
        self.setup(cells)
        request = self.request
        model = self.model_class()(cells, request.n_clusters, **request.model_kwargs)
        model.train(**{"enable_progress_bar": request.progress, **request.train_kwargs})
        return model

    def extra_slots(
        self, model: ExpertModel, seen: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, Any]]:
        """Return the slots of :attr:`predictions` by their place, ``obs``, ``obsm`` or ``uns``."""
        return {}


class MoESimVAEBuilder(Builder):
    """Builds MoE-Sim-VAE, whose clusters follow a similarity."""

    name = "moe-sim-vae"
    options = MODEL_OPTIONS

    @classmethod
    def model_class(cls) -> type[ExpertModel]:
        from scmoe.model import MoESimVAE

        return MoESimVAE

    def complete(self, request: ClusterRequest) -> ClusterRequest:
        if request.preset is not None:
            request = _with_preset(request)
        n_experts = request.model_kwargs.pop("n_experts", None)
        if request.n_clusters is None:
            request = replace(request, n_clusters=n_experts)
        if request.n_latent is not None:
            # before the graph is built
            (AUTO_WORD | whole(1)).check("n_latent", request.n_latent)
            request.model_kwargs["n_latent"] = request.n_latent
        return request

    def prepare(self, adata: AnnData, cells: AnnData) -> None:
        from scmoe.similarity import DensityTree

        request = self.request
        self._by_default = request.similarity is None
        similarity = self._default(adata, cells) if self._by_default else request.similarity
        if isinstance(similarity, DensityTree):
            changes = {}
            if request.n_clusters not in (None, AUTO):
                changes["n_clusters"] = request.n_clusters
            if similarity.batch_key is None:
                changes["batch_key"] = request.batch_key
            similarity = replace(similarity, **changes)
        self.request = replace(request, similarity=similarity)
        self.graph, self.graph_origin = find_graph(
            adata, cells, similarity, request.neighbors_key, request.obsp
        )

    def _default(self, adata: AnnData, cells: AnnData) -> Similarity:
        """Return a similarity of the graph that was named or is of other values, else the tree."""
        from scmoe.similarity import CoAssociation, DensityTree

        request, reason = self.request, None
        if request.neighbors_key is not None or request.obsp is not None:
            reason = "the one that was asked for"
        elif (source := graph_of_other_values(adata, request.representation)) is not None:
            reason = f"made of {source}, not of {request.representation or 'X'}"
        elif request.representation is not None:
            reason = "as the values are those of a representation, not of markers"
        elif holds_images(cells):
            reason = "as the values are pixels"
        if reason is not None:
            logger.info("Clusters follow the neighbour graph, %s (CoAssociation).", reason)
            return CoAssociation(**IMAGE_PARTITIONS) if holds_images(cells) else CoAssociation()
        unused = ""
        if "connectivities" in adata.obsp:
            unused = (
                ", not the neighbour graph in `.obsp`, which `neighbors_key` or `obsp` would name"
            )
        logger.info("Clusters follow the valleys of the density (DensityTree)%s.", unused)
        return DensityTree()

    @property
    def needs_all_cells(self) -> bool:
        return self.graph is not None or bool(functions_of(self.request.similarity))

    def setup(self, cells: AnnData) -> None:
        request = self.request
        if self._by_default:
            similarity = with_seed(request.similarity, request.random_state)
            self.request = request = replace(request, similarity=similarity)
        similarity, batch_key = request.similarity, request.batch_key
        if similarity.needs_graph:
            if self.graph is None:
                self.graph = build_graph(
                    cells.X, cells.obs, batch_key, request.random_state, progress=request.progress
                )
            slot = "connectivities"
            if similarity.neighbors_key is not None:
                # the similarity looks the graph up by this name
                slot = Key.obsp.GRAPH
                cells.uns[similarity.neighbors_key] = {"connectivities_key": slot}
            cells.obsp[slot] = self.graph
        if batch_key is not None:
            # categories without cells are no batches
            cells.obs[batch_key] = cells.obs[batch_key].astype(str)
        self.model_class().setup_anndata(
            cells, layer=request.layer, batch_key=batch_key, similarity=similarity
        )


def _with_preset(request: ClusterRequest) -> ClusterRequest:
    """Return the request with the settings of its preset where it has none."""
    from scmoe.model import preset

    found = preset(request.preset)
    of_training, given = found.train_kwargs, request.train_kwargs
    if given.get("max_epochs") is not None and "max_steps" not in given:
        # the epochs of the user replace the steps of the preset
        del of_training["max_steps"]
    plan = {**of_training["plan_kwargs"], **(given.get("plan_kwargs") or {})}
    return replace(
        request,
        similarity=found.similarity if request.similarity is None else request.similarity,
        model_kwargs={**found.model_kwargs, **request.model_kwargs},
        # the training of the paper starts from random weights, whatever the similarity
        train_kwargs={"start": False, **of_training, **given, "plan_kwargs": plan},
    )


def functions_of(similarity: Similarity) -> list[Any]:
    """Return the functions of a similarity that take the positions of cells."""
    from dataclasses import fields

    from scmoe.similarity import Custom, Similarity

    if isinstance(similarity, Custom):
        return [similarity.function]
    parts = [getattr(similarity, f.name) for f in fields(similarity)]
    return [name for p in parts if isinstance(p, Similarity) for name in functions_of(p)]


class MoEVAEBuilder(Builder):
    """Builds Santos' mixture of VAEs, which estimates the numbers that are not given."""

    name = "moe-vae"

    @classmethod
    def model_class(cls) -> type[ExpertModel]:
        from scmoe.model import MoEVAE

        return MoEVAE

    def complete(self, request: ClusterRequest) -> ClusterRequest:
        if request.n_latent is not None:
            request.model_kwargs["n_latent"] = request.n_latent
        return request if request.n_clusters is not None else replace(request, n_clusters=AUTO)


class CplMixVAEBuilder(Builder):
    """Builds coupled mixture VAEs, which prune their categories unless the number is given."""

    name = "cpl-mixvae"
    predictions = ("z", "votes", "entropy")
    if_counts = (
        'Raw counts, sparse or not, are taken with `model_kwargs={"likelihood": "nb"}` '
        '(or "zinb").'
    )

    @classmethod
    def model_class(cls) -> type[ExpertModel]:
        from scmoe.model import CplMixVAE

        return CplMixVAE

    def complete(self, request: ClusterRequest) -> ClusterRequest:
        if isinstance(request.n_latent, str):
            raise ValueError(
                '`n_latent="auto"` can\'t go with `model="cpl-mixvae"`: it is the size of the '
                "states, which nothing estimates. Give a number."
            )
        if request.n_latent is not None:
            request.model_kwargs["n_state"] = request.n_latent
        return request if request.n_clusters is not None else replace(request, n_clusters=AUTO)

    @property
    def counts(self) -> bool:
        return takes_counts(self.request)

    def setup(self, cells: AnnData) -> None:
        self.model_class().setup_anndata(cells, layer=self.request.layer, counts=self.counts)

    def extra_slots(
        self, model: ExpertModel, seen: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, Any]]:
        from scmoe.model import consensus_of, consensus_table

        key = self.request.key_added
        of_cells = {Key.obs.entropy(key): seen["entropy"]}
        arrays = {Key.obsm.state(key): seen["z"]}
        votes = seen["votes"]
        if votes.shape[1] > 1:
            of_cells[Key.obs.arm_consensus(key)] = consensus_of(votes)
            arrays[Key.obsm.votes(key)] = votes.astype(np.int16)
        table = consensus_table(seen["expert"], votes, seen["entropy"], model.module.n_experts)
        categories = {name: table[name].to_numpy() for name in table}
        return {"obs": of_cells, "obsm": arrays, "uns": {"categories": categories}}


def takes_counts(request: ClusterRequest) -> bool:
    """Whether the values of a request are counts."""
    from scmoe.model import COUNTS

    return (request.model_kwargs or {}).get("likelihood") in COUNTS


BUILDERS: dict[str, type[Builder]] = {
    builder.name: builder for builder in (MoESimVAEBuilder, MoEVAEBuilder, CplMixVAEBuilder)
}
"""Builders by the name of the model."""
