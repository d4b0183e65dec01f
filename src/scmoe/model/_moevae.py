"""Santos' mixture of VAEs as an scvi-tools model."""

from __future__ import annotations

import logging
import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scmoe._core.scaling import COMMON, rescaled
from scmoe._core.settings import as_whole
from scmoe._core.values import check_image_shape, holds_images
from scmoe._estimate import (
    CLUSTERING,
    LARGE_STEPS,
    MIN_CELLS,
    Architecture,
    Schedule,
    augmentation,
    check_cells,
    check_method,
    check_threshold,
    default_method,
)
from scmoe.model._base import ExpertModel
from scmoe.model._estimates import AUTO
from scmoe.model._moevae_module import MoEVAEModule, MoEVAESettings, latent_sizes
from scmoe.model._moevae_pretraining import SPACES, Pretraining, pretrain, teach_manager
from scmoe.model._moevae_probing import Probing
from scmoe.model._settings import with_settings
from scmoe.model._training import Training
from scmoe.nn import padded_side
from scmoe.train import (
    InMemory,
    MixturePlan,
    changed,
    check_rate,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from scmoe.train import Augment

logger = logging.getLogger("scmoe")

MANAGER_LR = 0.1
"""Learning rate of the manager, which has learned, as a share of that of the experts."""

FEW_CELLS = 500
"""With fewer, clusters of decoded cells were seen to be parts of true ones."""

MAX_EPOCHS = 100
"""A default training sees every cell at most so often, Santos' number."""


@with_settings
class MoEVAE(Probing, ExpertModel):
    r"""Mixture of VAEs that finds the number of clusters and the latent sizes (Santos).

    Every cluster is a complete VAE with a latent size of its own; a manager looks at a cell and
    says whose it is. Before they are built, a plain VAE of all cells tells how many dimensions
    the data need, its codes how many clusters there are and what they are, and each cluster how
    many dimensions it needs; the manager learns these clusters. Then all experts and the manager
    are trained together.

    Parameters
    ----------
    adata
        Cells registered with :meth:`setup_anndata`.
    {settings}

    Raises
    ------
    ValueError
        A word that is not among the choices, a number out of range, fewer than 2 experts,
        latent sizes for another number of experts.
    KeyError
        Convolutions without an ``image_shape``.

    Examples
    --------
    >>> scmoe.model.MoEVAE.setup_anndata(adata)
    >>> model = scmoe.model.MoEVAE(adata)
    >>> model.train()
    >>> model.predict()

    Notes
    -----
    After training the experts are numbered by the cells that they own, the largest first.
    Initial weights and batches follow ``scvi.settings.seed``. What was estimated is in
    ``model.estimates_``.
    """

    _module_cls = MoEVAEModule
    _training_plan_cls = MixturePlan

    def __init__(self, adata: AnnData, *args: Any, **kwargs: Any):
        super().__init__(adata, *args, **kwargs)
        # as asked for: pretraining and training put what they find into the settings
        self.n_experts_ = as_whole(self.init_params_["non_kwargs"]["n_experts"])
        self._asked_latents = self.settings.n_latents
        self.pretraining: Pretraining | None = None
        if self.settings.image_shape is not None:
            self.estimates_["image_side"] = padded_side(self.settings.image_shape)

    def _with_cells(self, settings: MoEVAESettings) -> MoEVAESettings:
        settings = super()._with_cells(settings)
        images = holds_images(self.adata)
        return replace(
            settings,
            likelihood=settings.likelihood or ("bernoulli" if images else "gaussian"),
            n_latents=latent_sizes(settings.n_latent, settings.n_experts),
            image_shape=check_image_shape(self.adata) if settings.network == "conv" else None,
            isotropic=settings.scaling == COMMON,
        )

    @classmethod
    def setup_anndata(cls, adata: AnnData, *, layer: str | None = None, **kwargs) -> None:
        """Register the cells.

        Parameters
        ----------
        adata
            Cells, with dense floating-point values on a scale where distances mean something
            (arcsinh, log). All variables are used: subset to markers first. Gets a column
            ``_indices`` in ``.obs``.
        layer
            Layer to use instead of ``.X``.

        Raises
        ------
        ValueError
            A view, names that are not unique, sparse or integer values, NaN or infinite
            values (names the markers).
        KeyError
            No such layer.
        """
        setup_method_args = cls._get_setup_method_args(cls=cls, adata=adata, layer=layer)
        cls.register_manager(cls._registered(adata, layer, None, setup_method_args, **kwargs))

    def pretrain(
        self,
        *,
        max_epochs: int | None = None,
        manager_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        manager_lr: float | None = None,
        augment: bool | str | Sequence[str] | Mapping[str, Any] | None = None,
        threshold: float = CLUSTERING,
        space: str | None = None,
        method: str | None = None,
        accelerator: str = "auto",
        progress: bool = True,
        **settings: Any,
    ) -> None:
        """Estimate what was not given, find clusters and teach the manager; steps 1 to 8.

        1. A VAE with 100 latent dimensions. 2. The latent dimension finder
        (:func:`scmoe.tl.latent_dim`). 3. A VAE of that size. 4., 5. The clusters
        (:func:`scmoe.tl.n_clusters`) that it shows, or, with up to 50 markers, those of the
        markers themselves. If the number of experts was given, the tree is cut there; where there
        is no tree, or one with fewer leaves, it is a Gaussian mixture on a UMAP. 6. The manager
        learns these clusters, without the cells of none. 7. The latent dimensions of each
        cluster, from the codes of the first VAE. 8. The mixture is built: experts start from
        random weights.

        Parameters
        ----------
        max_epochs, manager_epochs
            None for about 800 steps each, with images and components 4,000, and at most 1,000
            epochs, Santos' number.
        batch_size, lr, manager_lr
            Of Adam. None for 1,024 cells and rates that rise to 0.003 and fall again; with
            images and components for 256 and 0.001.
        augment
            Changes cells at random while a network learns: True, False, words or amounts, as in
            :func:`scmoe.tl.latent_dim`. None for True with convolutions, as Santos has it, and
            False with dense networks: on digits their codes then followed the place instead of
            the digit.
        threshold
            Share of the variance that the latent dimension finder keeps.
        space
            Where clusters are sought: among the ``"values"`` as they are, the ``"codes"``, as
            Santos has it, or what the VAE makes of them, ``"decoded"``. A VAE gives every
            dimension that it uses the same spread, however little it changes a cell; what it
            decodes is the cell without its noise, on the scale on which cells differ. None for
            values where they are markers of a tree, for codes with images, whose pixels say
            little about what is alike, and for decoded cells otherwise.
        method, **settings
            How clusters are found, see :func:`scmoe.tl.n_clusters`. None for ``"tree"`` with up
            to 50 markers and no ``space`` or that of the values, and for ``"stability"``
            otherwise.
        accelerator
            As in scvi-tools.
        progress
            Show progress bars.

        Raises
        ------
        ValueError
            Fewer than two clusters, or codes that are all the same, with advice; fewer than 10
            cells; settings that the method does not have; as :meth:`train`.

        Notes
        -----
        A model that is trained already has to be trained anew. A VAE of a few hundred cells may
        learn them by heart, and its clusters are too many then: three clear groups of 200 cells
        came out as twelve, those of 600 as three.
        """
        check_threshold(threshold)
        if not (space is None or space in SPACES):
            raise ValueError(f"`space` must be one of {SPACES}, got {space!r}.")
        of_images = holds_images(self.adata)
        if method is None:
            of_markers = (
                not of_images and self.settings.scaling != COMMON and space in (None, "values")
            )
            method = default_method(self.adata.n_vars, markers=of_markers)
        if space is None:
            space = "values" if method == "tree" else "codes" if of_images else "decoded"
        check_method(method, settings)
        given = {"max_epochs": max_epochs, "batch_size": batch_size, "lr": lr}
        schedule = self._schedule(accelerator=accelerator, **given)
        manager_lr = schedule.lr if manager_lr is None else manager_lr
        check_rate("manager_lr", manager_lr)
        of_manager = replace(schedule, max_epochs=manager_epochs, lr=manager_lr)
        x = self._values(self.n_experts_)
        n_experts = None if self.n_experts_ == AUTO else self.n_experts_
        if n_experts is None:
            check_cells(len(x))
        elif len(x) < MIN_CELLS:
            raise ValueError(
                f"Pretraining needs at least {MIN_CELLS} cells, got {len(x)}. With `n_latent` "
                "given too, `train(pretrain=False)` does without."
            )
        if len(x) < FEW_CELLS:
            logger.warning(
                "%d cells are few for a VAE, which may learn them by heart and then show too many "
                "clusters. `MoESimVAE` needs fewer.",
                len(x),
            )
        scaled = rescaled(x, self.settings.scaling)
        if self.settings.likelihood == "bernoulli":
            scaled = scaled.clip(0, 1)
        seed = torch.randint(2**31, (1,)).item()
        architecture = Architecture(
            **{f.name: getattr(self.settings, f.name) for f in fields(Architecture)}
        )
        changes = self._changes(augment, scaled, seed, accelerator=accelerator, progress=progress)
        done = pretrain(
            x,
            scaled,
            architecture,
            schedule,
            n_experts=n_experts,
            n_latents=self._asked_latents,
            threshold=threshold,
            space=space,
            method=method,
            settings=settings,
            augment=changes,
            seed=seed,
            progress=progress,
        )
        n_shared = done.shared.n_latents[0]
        sizes = ", ".join(map(str, done.n_latents))
        logger.info("Step 8 of 9: %d experts, of %s dimensions.", len(done.n_latents), sizes)
        built = replace(self.settings, n_latents=done.n_latents, n_shared=n_shared)
        module = MoEVAEModule(built)
        module.shared = done.shared
        for name in ("centre", "spread"):
            getattr(module.experts, name).copy_(getattr(done.shared, name))
        size = torch.from_numpy(done.clusters.proba.sum(0))
        module.expected.copy_(size / size.sum())
        teach_manager(
            module,
            scaled,
            done.clusters,
            of_manager,
            augment=changes,
            seed=seed,
            progress=progress,
        )
        self.module, self.settings, self.pretraining = module, built, done
        self._fit_scaling(x)
        self.estimates_ = {**self.estimates_, **done.evidence}
        self._number_clusters()
        self.is_trained_ = False

    def train(
        self,
        max_epochs: int | None = None,
        *,
        pretrain: bool = True,
        pretrain_kwargs: dict[str, Any] | None = None,
        augment: bool | str | Sequence[str] | Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        train_size: float = 1.0,
        validation_size: float | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        early_stopping: bool = False,
        plan_kwargs: dict | None = None,
        **trainer_kwargs,
    ) -> None:
        r"""Pretrain if that has not been done, then train experts and manager together; step 9.

        Parameters
        ----------
        max_epochs
            None for about 800 steps, with images and components 4,000, and at most 100 epochs,
            Santos' number.
        pretrain
            Call :meth:`pretrain` first, if nobody has. Without it the numbers of experts and of
            dimensions must be given, and the manager starts from random weights: results differ
            much from seed to seed.
        pretrain_kwargs
            Passed to :meth:`pretrain`.
        augment
            As in :meth:`pretrain`.
        batch_size
            None for 1,024 cells; with images and components 256.
        train_size, validation_size, accelerator, devices
            As in scvi-tools; all cells train by default.
        early_stopping
            Stop when the loss of the validation cells no longer falls; needs ``train_size``
            below 1.
        plan_kwargs
            ``{"lr": ..., "manager_lr": ..., "hardening": ..., "cycle": ...}``: Santos has 1e-4
            for both rates; here that of the experts rises to 3e-3, that of the manager, which
            has learned, to 3e-4, and both fall again; with images and components they are 1e-3
            and 1e-4 throughout. ``hardening``
            is the share of the training over which :math:`\alpha` rises to its value.
        **trainer_kwargs
            As in scvi-tools (``enable_progress_bar=False`` silences all bars).

        Raises
        ------
        ValueError
            Fewer cells than 2 or than experts; markers that never vary, or values outside 0 to
            1 under a Bernoulli likelihood without scaling; numbers to estimate without
            pretraining; early stopping without validation cells; epochs or rates that are
            none; as :meth:`pretrain`.
        TypeError
            Settings that the training does not have.

        Notes
        -----
        Writes ``model.history``: the terms of the loss and the experts with cells in a batch.
        """
        x = self._values(self.n_experts_)
        schedule = self._schedule()
        training = Training(
            max_epochs=max_epochs,
            batch_size=schedule.batch_size if batch_size is None else batch_size,
            train_size=train_size,
            validation_size=validation_size,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            plan_kwargs=plan_kwargs,
            trainer_kwargs=trainer_kwargs,
        )
        training.check(self._training_plan_cls)
        rates = {"lr": schedule.lr, "manager_lr": MANAGER_LR * schedule.lr}
        training.plan_kwargs = {**rates, "cycle": schedule.cycle, **(plan_kwargs or {})}
        # before pretraining takes its time
        n_train = len(training.split(len(x), np.random.default_rng(0))[0])
        progress = training.progress
        if self.module is None and pretrain:
            self.pretrain(
                **{
                    "augment": augment,
                    "accelerator": accelerator,
                    "progress": progress,
                    **(pretrain_kwargs or {}),
                }
            )
        # drawn after pretraining, so that pretraining by hand leads to the same
        rng = np.random.default_rng(torch.randint(2**31, (1,)).item())
        if max_epochs is None:
            n_batches = math.ceil(n_train / training.batch_size)
            max_epochs = min(math.ceil(schedule.n_steps / n_batches), MAX_EPOCHS)
        logger.info("Step 9 of 9: experts and manager together.")
        with self._training(training.batch_size):
            if self.module is None:
                self._build_without_pretraining(x)
            self.module.live.fill_(True)
            changes = self._changes(
                augment, None, 0, x, accelerator=accelerator, progress=progress
            )
            batches = InMemory(
                self._tensors(x),
                training.split(len(x), rng),
                training.batch_size,
                change=changed(changes),
            )
            self._fit(max_epochs, batches, **training.to_trainer())
            self._finish_clusters()
            n_latents = self.module.experts.n_latents
            self.settings = self.module.settings = replace(self.settings, n_latents=n_latents)

    def _schedule(self, **given: Any) -> Schedule:
        """How networks are trained: what is given, on top of what suits the values."""
        of_markers = not holds_images(self.adata) and self.settings.scaling != COMMON
        given = {name: value for name, value in given.items() if value is not None}
        suits = LARGE_STEPS if of_markers else {}
        return Schedule(**{**suits, **given})

    def _changes(
        self,
        augment: bool | str | Sequence[str] | Mapping[str, Any] | None,
        scaled: np.ndarray | None,
        seed: int,
        values: np.ndarray | None = None,
        **training: Any,
    ) -> Augment | None:
        """Make the requested augmentation, of scaled cells or of their values.

        The cells are scaled here where only their values are given.
        """
        shape = check_image_shape(self.adata) if holds_images(self.adata) else None
        augment = self.settings.image_shape is not None if augment is None else augment
        if augment is False:
            return None
        if scaled is None:
            scaled = self.module.scale(torch.from_numpy(values).to(self.device)).numpy(force=True)
        isotropic = self.settings.isotropic
        return augmentation(
            augment, scaled, shape, seed, values=values, isotropic=isotropic, **training
        )

    def _build_without_pretraining(self, x: np.ndarray) -> None:
        n_latents = self.settings.n_latents
        if self.n_experts_ == AUTO or n_latents is None:
            raise ValueError(
                "Without pretraining `n_experts` and `n_latent` can't be estimated: give both, or "
                "use `pretrain=True`."
            )
        if len(n_latents) == 1:
            n_latents = n_latents * self.n_experts_
        self.settings = replace(self.settings, n_latents=n_latents)
        self._build()
        self._fit_scaling(x)
        scaled = self.module.scale(torch.from_numpy(x))
        self.module.experts.look_at(scaled, together=holds_images(self.adata))
        self._number_clusters()
