"""MoE-Sim-VAE as an scvi-tools model."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from scmoe._core.scaling import COMMON, rescaled
from scmoe._core.values import check_image_shape, holds_images
from scmoe._estimate import Architecture, at_least_two, default_method, grown_clusters
from scmoe.model import _moesimvae_start as from_groups
from scmoe.model._base import ExpertModel
from scmoe.model._clusters import name_classes
from scmoe.model._estimates import (
    AUTO,
    STABILITY,
    TREE,
    estimate_latent_dim,
    estimate_n_clusters,
    read_settings,
)
from scmoe.model._moesimvae_module import MoESimVAEModule, MoESimVAESettings
from scmoe.model._settings import with_settings
from scmoe.model._training import Training
from scmoe.similarity import DensityTree, Similarity, check_similarity, stored_graph
from scmoe.train import (
    SimilarBatches,
    SimilarityPlan,
    find_processes,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from scmoe.similarity import Target
    from scmoe.train import Processes
    from scmoe.tree import Tree

logger = logging.getLogger("scmoe")

N_STEPS = 2500
"""Optimiser steps of a default training that starts from random weights."""

N_EXPERTS = 25
"""Experts where neither the user nor the similarity says how many."""

BATCH_SIZE = 256
"""Cells in a batch of a training that starts from random weights."""

OWN = {"method": TREE}
"""Estimates of the number of clusters that the tree of the similarity answers."""

LEAST_HIDDEN = 128
"""Units of the autoencoder that finds the latent size: a narrow one would find its own width."""

MIN_EPOCHS = 2
"""Every cell is seen at least this often, however many cells there are."""


@with_settings
class MoESimVAE(ExpertModel):
    r"""Mixture-of-experts similarity VAE (Kopf et al. 2021).

    An encoder maps each cell to a code; a gate assigns the code softly to one of K experts,
    taught by a similarity between cells that the user chooses; the expert of a cell
    reconstructs it. So every cluster is also a decoder of its own.

    Parameters
    ----------
    adata
        Cells registered with :meth:`setup_anndata`.
    {settings}

    Raises
    ------
    ValueError
        A word that is not among the choices, a number out of range, fewer than 2 experts,
        convolutions without an ``image_shape``, or with one that does not fit.

    Examples
    --------
    >>> scmoe.model.MoESimVAE.setup_anndata(adata, similarity=scmoe.similarity.DensityTree())
    >>> model = scmoe.model.MoESimVAE(adata)
    >>> model.train()
    >>> adata.obs["cluster"] = model.predict()

    Notes
    -----
    After training the experts are numbered by the cells that they own, the largest first, and
    means and covariances of the clusters are estimated from the codes of all cells (eq. 6). A
    similarity of classes (:class:`scmoe.similarity.Prior`) gives its names to the first experts,
    in its order.
    Initial weights and batches follow ``scvi.settings.seed``.
    """

    _module_cls = MoESimVAEModule
    _training_plan_cls = SimilarityPlan

    def __init__(self, adata: AnnData, *args: Any, **kwargs: Any):
        super().__init__(adata, *args, **kwargs)
        self.tree: Tree | None = None
        self._model_summary_string += f", similarity {self.similarity}"
        if isinstance(self.settings.n_experts, int) and self.settings.n_latent != AUTO:
            self._build()
            self._number_clusters()

    def _with_cells(self, settings: MoESimVAESettings) -> MoESimVAESettings:
        settings = super()._with_cells(settings)
        conv = settings.network == "conv"
        if settings.encode_batch and conv:
            raise ValueError('`encode_batch` needs `network="dense"`.')
        shape = check_image_shape(self.adata) if conv else None
        return replace(settings, n_batch=self.summary_stats.n_batch, image_shape=shape)

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        similarity: Similarity | dict[str, Any] | None = None,
        **kwargs,
    ) -> None:
        """Register the cells and the similarity that shall guide the clusters.

        Parameters
        ----------
        adata
            Cells, with dense floating-point values on a scale where distances mean something
            (arcsinh, log). All variables are used: subset to markers first. Gets a column
            ``_indices`` in ``.obs``.
        layer
            Layer to use instead of ``.X``.
        batch_key
            Column of ``.obs`` with the batch of each cell (plate, donor, instrument), which the
            experts get to know: what sets batches apart need not be in the codes. The
            similarity decides about the clusters, so it should not set batches apart either.
        similarity
            See :mod:`scmoe.similarity`; :class:`~scmoe.similarity.DensityTree` by default, with
            the batches.

        Raises
        ------
        ValueError
            A view, names that are not unique, sparse or integer values, NaN or infinite
            values (names the markers), cells without a batch.
        KeyError
            No such layer or column.
        """
        similarity = DensityTree(batch_key=batch_key) if similarity is None else similarity
        if isinstance(similarity, dict):
            similarity = Similarity.from_dict(similarity)
        check_similarity(similarity)
        setup_method_args = cls._get_setup_method_args(
            cls=cls,
            adata=adata,
            layer=layer,
            batch_key=batch_key,
            similarity=similarity.to_dict(),
        )
        manager = cls._registered(adata, layer, batch_key, setup_method_args, **kwargs)
        # the registry holds plain values, which a callable is not
        manager.similarity = similarity
        cls.register_manager(manager)

    @property
    def similarity(self) -> Similarity:
        """The similarity that was registered; another one guides further training."""
        return self.adata_manager.similarity

    @similarity.setter
    def similarity(self, similarity: Similarity) -> None:
        check_similarity(similarity)
        self.adata_manager.similarity = similarity
        self.registry["setup_args"]["similarity"] = similarity.to_dict()

    def train(
        self,
        max_epochs: int | None = None,
        *,
        max_steps: int | None = None,
        start: bool | None = None,
        batch_size: int | None = None,
        train_size: float = 1.0,
        validation_size: float | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        early_stopping: bool = False,
        plan_kwargs: dict | None = None,
        estimate_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs,
    ) -> None:
        """Train all parts together (eq. 11).

        Parameters
        ----------
        max_epochs
            None for 200 steps after a start, else for about 2,500 steps and at least 2 epochs.
        max_steps
            Stop after this many steps, the papers' number of iterations; not together with
            ``max_epochs``.
        start
            Whether to start from the groups of the similarity (``Target.membership``)
            instead of random weights, see the notes. None for True where the model was not
            trained yet, and the similarity knows groups. Of more groups than there are experts
            the closest are merged.
        batch_size
            Cells in a batch, of each device; None for 512 after a start, else 256. All pairs of a
            batch are compared up to 1,024 cells; in larger ones and after a start those within
            blocks of 32 random cells, or those that the similarity lists.
        train_size, validation_size
            Shares of the cells, as in scvi-tools; all cells train by default.
        early_stopping
            Stop when the loss of the validation cells (``validation_loss``, all terms) no longer
            falls; needs ``train_size`` below 1.
        plan_kwargs
            ``{"lr": ..., "betas": ...}`` of Adam. Without ``"lr"`` the rate is 0.003, and after
            a start it rises to 0.002 and falls to nearly 0.
        estimate_kwargs
            For numbers that are ``"auto"``: ``threshold`` and ``max_epochs`` of the autoencoder
            (:func:`scmoe.tl.latent_dim`), ``method`` and the settings of the method
            (:func:`scmoe.tl.n_clusters`). Where nothing is said of the clusters, the tree of a
            :class:`~scmoe.similarity.DensityTree` is asked for its own number. ``"stability"``
            looks at the graph that the similarity names, ``"tree"`` at the markers, the others
            at the scaled markers.
        accelerator, devices, **trainer_kwargs
            As in scvi-tools (``enable_progress_bar=False`` silences the bar). ``"auto"`` stays on
            the CPU for the default steps of small networks, which take a core less time than a
            GPU takes to start. Several ``devices``
            divide every batch among them (Lightning's DDP), see the notes.

        Raises
        ------
        ValueError
            Fewer than 2 cells, fewer cells than experts, fewer experts than classes; markers
            that never vary, or, without scaling, values outside 0 to 1 under a Bernoulli
            likelihood; early stopping without validation cells; ``max_epochs`` with
            ``max_steps``, or ``max_steps`` below 1; invalid ``max_epochs`` or learning rate;
            ``start=True`` where there is nothing to start from; numbers
            to estimate where there are fewer than two clusters, or nothing that markers have in
            common. With several devices: more of them than cells, a ``strategy`` that can't be
            used (says which can), processes that have different cells, early stopping.
        RuntimeError
            A process of a training on several devices failed.
        TypeError
            Settings that the training does not have.
        KeyError
            The similarity needs a slot that ``adata`` lacks.

        Notes
        -----
        Writes ``model.history``: the terms of the loss, the experts with cells in a batch and
        the similar partners of a cell within its batch, means over each epoch.

        A start solves for the last layers of all parts, whose hidden layers stay random: codes
        are principal components, white within the groups (ridge regression); the gate is a
        linear discriminant analysis of the groups; each expert is the mean of its group and a
        Newton step from there. Then all parts train together with one more term, the
        cross-entropy of the gate with the groups (``"groups_train"``, with the weight of the
        similarity). Small groups are drawn more often; the reconstruction counts all cells
        alike. In the end the gate alone learns the groups (300 steps), and a last Newton step
        fits each expert to the cells that it owns. Convolutional
        experts have no such start and no such step: codes and gate start from the groups, and
        the training is as long as one from random weights.

        On n devices a step sees n batches of ``batch_size`` cells, and there are as many steps
        where their number is a default or ``max_steps``. The loss is that of one device with all
        these cells, up to what is told of them in pairs (all pairs of the cells of one device)
        and to cells that a similarity knows nothing of (means over those that it knows are
        taken on each device); batch normalisation sees the cells of its device unless
        ``sync_batchnorm=True``. The tree, the start and what follows the joint steps are made
        once. ``strategy`` is by default ``"ddp_spawn"``, in notebooks ``"ddp_notebook"``, and
        ``"ddp"`` where torchrun or SLURM has started a process for each device.
        """
        x = self._values(self.settings.n_experts)
        if max_epochs is not None and max_steps is not None:
            raise ValueError("You can't specify both `max_epochs` and `max_steps`.")
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, got {max_steps}.")
        training = Training(
            max_epochs=max_epochs,
            batch_size=BATCH_SIZE if batch_size is None else batch_size,
            train_size=train_size,
            validation_size=validation_size,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            plan_kwargs=plan_kwargs,
            trainer_kwargs=trainer_kwargs,
        )
        training.check(self._training_plan_cls, several=True)
        if not (start is None or isinstance(start, bool)):
            raise ValueError(f"`start` must be True, False or None, got {start!r}.")
        # also where there is nothing to estimate, and before the partitions of a graph
        read_settings(estimate_kwargs or {}, self._default_method())
        processes = find_processes(accelerator, devices, trainer_kwargs)
        if processes.n > 1:
            if early_stopping:
                raise ValueError("`early_stopping` needs a training on one device.")
            processes.check_cells(x)
        progress = training.progress
        target = processes.of_first(lambda: self.similarity.bind(self.adata, x, progress=progress))
        if self.module is None:
            self.tree = getattr(target, "tree", None)
            how = estimate_kwargs or {}
            self.settings, self.estimates_ = processes.of_first(
                lambda: self._estimate(x, target, accelerator, progress, how)
            )
            self._build()
            self._number_clusters()
        if len(target.class_names) > self.module.n_experts:
            raise ValueError(
                f"The similarity names {len(target.class_names)} classes, more than the "
                f"{self.module.n_experts} experts."
            )
        if start is not False:
            whole = target
            target = processes.of_first(lambda: self._merge_surplus_groups(whole, x))
        self.tree, groups = getattr(target, "tree", None), target.membership
        start = self._starts_from_groups(start, groups)
        # convolutions have all to learn
        short = start and from_groups.can_start_experts(self.module)
        if batch_size is None and short:
            training.batch_size = from_groups.BATCH_SIZE
        by_default = max_epochs is None and max_steps is None
        if (accelerator, devices) == ("auto", "auto") and short and by_default:
            training.accelerator = "cpu" if from_groups.is_quick(self.module) else "auto"
        if start:
            # a rate that is given is the peak of the cycle
            components = self.settings.scaling == COMMON and not holds_images(self.adata)
            lr = from_groups.LR_OF_COMPONENTS if components else from_groups.LR
            training.plan_kwargs = {"lr": lr, "cycle": True, **(plan_kwargs or {})}
        seed = processes.of_first(lambda: torch.randint(2**31, (1,)).item())
        rng = np.random.default_rng(seed)
        split = training.split(self.adata.n_obs, rng, target.cells)
        n_train = len(split[0])
        if n_train < processes.n:
            raise ValueError(f"{processes.n} devices are too many for {n_train} cells that train.")
        # of all devices together
        whole_batch = training.batch_size * processes.n
        if short and by_default:
            max_steps = from_groups.N_STEPS
        if max_steps is not None:
            trainer_kwargs["max_steps"] = max_steps
            # enough of them also where a last batch that is not full is left out
            max_epochs = math.ceil(max_steps / max(n_train // whole_batch, 1))
        elif max_epochs is None:
            max_epochs = max(math.ceil(N_STEPS / math.ceil(n_train / whole_batch)), MIN_EPOCHS)
        with self._training(training.batch_size):
            if not self.is_trained:
                self._fit_scaling(x)
            self.module.live.fill_(True)
            self.module.train()
            if start:
                cells = self._starting_cells(x, groups, split[0], rng)
                from_groups.start(self.module, cells, rng)
            batches = SimilarBatches(
                self._tensors(x),
                split,
                training.batch_size,
                target=target,
                rng=rng,
                started=start,
            )
            with processes.training(training.to_trainer()) as how:
                self._fit(max_epochs, batches, **how)
            # the processes that Lightning starts have let go of copies
            batches.teardown("fit")
            if processes.from_start:
                # scvi-tools would take the first device for all
                self.to_device(self.trainer.strategy.root_device)
            if start:
                from_groups.finish(self.module, cells)
            self._finish_classes(target)
            if processes.from_start:
                self._take_first(processes)

    def _take_first(self, processes: Processes) -> None:
        """Take the model of the first process: other devices may round otherwise."""
        state = {name: value.cpu() for name, value in self.module.state_dict().items()}
        found = state, self.cluster_names_, self.history_
        state, self.cluster_names_, self.history_ = processes.of_first(lambda: found)
        self.module.load_state_dict(state)

    def _merge_surplus_groups(self, target: Target, x: np.ndarray) -> Target:
        """Merge groups of which there are more than experts, where the target knows how."""
        groups, n_experts = target.membership, self.module.n_experts
        if groups is None or groups.shape[1] <= n_experts:
            return target
        merged = target.merged(n_experts, x)
        if merged is None:
            return target
        logger.info(
            "The similarity has %d groups: the closest are merged to %d, one an expert.",
            groups.shape[1],
            merged.membership.shape[1],
        )
        return merged

    def _starts_from_groups(self, start: bool | None, groups: np.ndarray | None) -> bool:
        """Whether to start from the groups of the similarity; raises where that is asked for."""
        if start is False or (start is None and self.is_trained):
            return False
        n_experts, reason = self.module.n_experts, None
        if groups is None:
            reason = "the similarity knows no groups"
        elif groups.shape[1] > n_experts:
            reason = f"the similarity has {groups.shape[1]} groups, more than {n_experts} experts"
        if reason is None:
            return True
        if start:
            raise ValueError(f"There is nothing to start from: {reason}. Leave out `start`.")
        if groups is not None:
            logger.warning("The model starts from random weights: %s.", reason)
        return False

    def _starting_cells(
        self, x: np.ndarray, groups: np.ndarray, cells: np.ndarray, rng: np.random.Generator
    ) -> from_groups.Cells:
        """Choose the training cells that the start is computed from."""
        chosen, weight = from_groups.choose_cells(groups, cells, rng)
        batch = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY))[chosen]
        return from_groups.Cells(
            self.module.scale(torch.from_numpy(x[chosen])),
            torch.from_numpy(batch.astype(np.float32)).view(-1, 1),
            torch.from_numpy(groups[chosen]),
            torch.from_numpy(weight.astype(np.float32)),
        )

    def _default_method(self) -> str:
        """How the number of clusters is estimated where no method is named."""
        if self.similarity.needs_graph:
            return STABILITY
        if isinstance(self.similarity, DensityTree):
            return TREE
        of_markers = self.settings.scaling != COMMON and not holds_images(self.adata)
        return default_method(self.adata.n_vars, markers=of_markers)

    def _estimate(
        self,
        x: np.ndarray,
        target: Target,
        accelerator: str,
        progress: bool,
        how: dict[str, Any],
    ) -> tuple[MoESimVAESettings, dict[str, Any]]:
        """Estimate the numbers that were not given; returns the settings, and the evidence."""
        of_latent, of_clusters = read_settings(how, self._default_method())
        settings, found, evidence = self.settings, {}, {}
        scaled = rescaled(x, settings.scaling)
        seed = torch.randint(2**31, (1,)).item()
        if settings.n_latent == AUTO:
            conv = settings.image_shape is not None
            likelihood = settings.likelihood if holds_images(self.adata) else "gaussian"
            architecture = Architecture(
                n_input=x.shape[1],
                image_shape=settings.image_shape,
                n_hidden=max(settings.n_hidden, LEAST_HIDDEN),
                activation="relu" if conv else settings.activation,
                likelihood=likelihood,
                isotropic=settings.scaling == COMMON,
            )
            found["n_latent"], evidence["n_latent"] = estimate_latent_dim(
                scaled.clip(0, 1) if likelihood == "bernoulli" else scaled,
                architecture,
                seed=seed,
                progress=progress,
                accelerator=accelerator,
                **of_latent,
            )
        if settings.n_experts is None:
            groups = target.membership
            known = N_EXPERTS if groups is None else groups.shape[1] + from_groups.SPARE
            found["n_experts"] = known
        elif settings.n_experts == AUTO and self.tree is not None and of_clusters == OWN:
            clusters = grown_clusters(self.tree, target.membership, self.similarity.significance)
            found["n_experts"] = at_least_two(clusters).n_clusters
            evidence["n_clusters"] = clusters.evidence
        elif settings.n_experts == AUTO:
            graph = None
            if self.similarity.needs_graph:
                graph = stored_graph(self.adata, self.similarity.neighbors_key)
            values = x if of_clusters["method"] == TREE else scaled
            found["n_experts"], evidence["n_clusters"] = estimate_n_clusters(
                values, graph, seed=seed, progress=progress, **of_clusters
            )
        return replace(settings, **found), evidence

    @torch.inference_mode()
    def _finish_classes(self, target: Target) -> None:
        """Name the first clusters by the classes of the similarity, and finish all."""
        names = name_classes(self.module, target, self._outputs, self.adata.n_obs)
        self._finish_clusters(names)
