"""Coupled mixture VAEs as an scvi-tools model."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scmoe._core.neighbors import neighbor_graph
from scmoe._core.scaling import COMMON
from scmoe._core.settings import as_whole
from scmoe._core.values import check_image_shape, holds_images
from scmoe._estimate import augmentation, default_method
from scmoe.model._base import ExpertModel
from scmoe.model._cplmixvae_module import CplMixVAEModule, CplMixVAESettings, check_counted
from scmoe.model._cplmixvae_stages import (
    FROM_GRAPH,
    FROM_TREE,
    LEAST_SIZE,
    THRESHOLD,
    check_pruning,
    check_start,
    leaves,
    of_graph,
    of_tree,
    places,
    prune,
    stage_epochs,
    start_categories,
)
from scmoe.model._estimates import AUTO
from scmoe.model._predict import predict_cells
from scmoe.model._settings import with_settings
from scmoe.model._states import States, consensus_table
from scmoe.model._training import Training
from scmoe.train import (
    BATCH_KEYS,
    InMemory,
    TermsPlan,
    copied,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

    from scmoe.train import Augment, Batch
    from scmoe.tree import Tree

logger = logging.getLogger("scmoe")

START = 25
"""Categories to prune from, where their number is to be found and there is no tree ..."""

CELLS_OF_CATEGORY = 10
"""... but not more than one for so many cells."""

CLIP = 10.0
"""Norm at which gradients are cut: the scaled distance can be steep."""

FEW_CELLS = 4
"""Cells of a batch for a category, below which the deviation of its probability says little."""


@with_settings
class CplMixVAE(States, ExpertModel):
    r"""Coupled mixture VAEs that agree on the category of a cell (cpl-mixVAE, MMIDAS).

    Several arms, each a VAE of its own, see different copies of the same cell. Each finds a
    category and, given that, a state, which is what varies within the category. Only the
    categories are coupled: what two arms that cannot see each other say alike is no accident.

    .. math:: L = \frac1A\sum_a \left[R_a + \beta\,KL(s_a)\right]
              + \frac\lambda2\,d^2 - \frac\eta A\sum_a H(q_a)

    where :math:`d^2` is the mean squared distance of two arms' categories and H the entropy of
    the categories of a cell. The published text ends before the method; these are the terms of
    the authors' released code, with means over arms and pairs instead of sums, without a
    constant, and with normal instead of uniform noise of the states. By default
    :math:`\lambda = 0.1` and :math:`\eta = 0`, where the released code has 1 and 1: with those
    the arms agree by being unsure.

    Arms that start at random can't agree before they have the same names for their categories,
    and where they do first are a few large ones. So they learn groups of cells first, each those
    of a random half of the cells, which gives names; and from then on what they see and each
    other. What they agree on is then what either half of the cells shows. With up to 50 markers
    the groups are the leaves of a density tree (:class:`scmoe.similarity.DensityTree`). With
    more, with components, counts and images, and where the tree has fewer leaves than there are
    categories, they are communities of the cells' neighbour graph (Louvain, as many as there are
    categories).

    Parameters
    ----------
    adata
        Cells registered with :meth:`setup_anndata`.
    {settings}

    Raises
    ------
    ValueError
        A word that is not among the choices, a number out of range, fewer than 2 categories, a
        likelihood of counts without counts and the other way round.

    Examples
    --------
    >>> scmoe.model.CplMixVAE.setup_anndata(adata)
    >>> model = scmoe.model.CplMixVAE(adata)
    >>> model.train()
    >>> model.predict()

    Notes
    -----
    After training the categories are numbered by their cells, the largest first. A cell has the
    category of the mean log-probability over the arms. Initial weights and batches follow
    ``scvi.settings.seed``. How far the arms agree on each category is in ``model.consensus_``,
    what pruning saw in ``model.pruning_``.
    """

    _module_cls = CplMixVAEModule
    _training_plan_cls = TermsPlan

    def __init__(self, adata: AnnData, *args: Any, **kwargs: Any):
        super().__init__(adata, *args, **kwargs)
        # as asked for: pruning puts what it finds into the settings
        self.n_categories_ = as_whole(self.init_params_["non_kwargs"]["n_categories"])
        self.pruning_: pd.DataFrame | None = None
        self.consensus_: pd.DataFrame | None = None
        if self.settings.n_arms == 1:
            warnings.warn(
                "With one arm nothing is coupled: categories are those of a plain mixture VAE, "
                "and their number can't be found by pruning.",
                UserWarning,
                stacklevel=2,
            )

    def _with_cells(self, settings: CplMixVAESettings) -> CplMixVAESettings:
        images, counts = holds_images(self.adata), self.registry["setup_args"]["counts"]
        likelihood = settings.likelihood
        likelihood = likelihood or ("nb" if counts else "bernoulli" if images else "gaussian")
        scaling = settings.scaling or ("none" if counts else None)
        settings = super()._with_cells(replace(settings, scaling=scaling))
        check_counted(likelihood, settings.scaling, counts=counts)
        n = settings.n_categories
        if n == AUTO:
            n = max(2, min(START, self.adata.n_obs // CELLS_OF_CATEGORY))
        isotropic = settings.scaling == COMMON
        return replace(settings, n_categories=n, likelihood=likelihood, isotropic=isotropic)

    @classmethod
    def setup_anndata(
        cls, adata: AnnData, *, layer: str | None = None, counts: bool = False, **kwargs
    ) -> None:
        """Register the cells.

        Parameters
        ----------
        adata
            Cells, with dense floating-point values on a scale where distances mean something
            (arcsinh, log), or raw counts. All variables are used: subset to markers or genes
            first. Gets a column ``_indices`` in ``.obs``.
        layer
            Layer to use instead of ``.X``.
        counts
            Whether the values are counts, dense or sparse.

        Raises
        ------
        ValueError
            A view, names that are not unique; sparse or integer values, NaN or infinite values
            (names the markers); with ``counts`` values that are negative or no whole numbers.
        KeyError
            No such layer.
        """
        setup_method_args = cls._get_setup_method_args(
            cls=cls, adata=adata, layer=layer, counts=counts
        )
        manager = cls._registered(
            adata,
            layer,
            None,
            setup_method_args,
            counts=counts,
            if_counts="Raw counts, sparse or not, are registered with `counts=True`.",
            **kwargs,
        )
        cls.register_manager(manager)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        start: bool | None = None,
        start_epochs: int | None = None,
        augment: bool | str | Sequence[str] | Mapping[str, Any] = True,
        prune: bool | None = None,
        prune_epochs: int | None = None,
        threshold: float = THRESHOLD,
        batch_size: int | None = None,
        train_size: float = 1.0,
        validation_size: float | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        early_stopping: bool = False,
        plan_kwargs: dict | None = None,
        **trainer_kwargs,
    ) -> None:
        """Train the arms, and prune the categories that they disagree on.

        A round of pruning removes the category with the lowest consensus, together with those
        that have no cell in any arm, and trains on. It ends when the consensus of every category
        reaches the threshold; if that never happens, the number of categories is the one, of
        all down to 2, at which the lowest consensus was best. The model has the weights of that
        round. The released code prunes to the end and takes a number by the jumps of the mean
        consensus, which a few bad categories hardly move.

        Parameters
        ----------
        max_epochs
            None for about 600 steps where the arms may start from leaves of the density tree,
            and 3,000 otherwise; at most 500 epochs.
        start
            Whether the arms learn leaves of the tree, or communities of the neighbour graph
            first, each those of a random half of the cells. None for True where the model was
            not trained yet.
        start_epochs
            How long. None for about 300 or 500 steps, and at most ``max_epochs``, which they are
            not a part of.
        augment
            Whether, and how, each arm sees a copy of its own; the cell itself is what is
            reconstructed. True for the default: an image is turned and shifted a little, a cell
            moves towards one of its neighbours. Or a word, several that follow each other, or a
            dict of words and their amounts, such as
            ``{"neighbors": {"share": 0.5}, "dropout": {"rate": 0.1}}``. A dict of amounts alone
            is of the default.

            ``"neighbors"``
                A step towards one of ``n_neighbors`` (15), of at most a ``share`` (0.5) of the
                way.
            ``"thinning"``
                Of counts: each cell loses a share of them, at most ``share`` (0.5).
            ``"dropout"``
                Features are hidden, at a ``rate`` (0.1): genes and pixels are 0, markers those
                of one of ``n_neighbors`` (15).
            ``"posterior"``
                Cells are drawn anew from a VAE that is trained on them before: ``variance`` (1)
                is a factor on that of the posterior, ``noise`` (1) one on the deviation of what
                the VAE does not explain.
            ``"affine"``
                Of images: ``rotation`` (10 degrees), ``zoom`` (0.1), ``shift`` (0.1) and
                ``flip`` (False).
        prune
            None for True where the number of categories is ``"auto"`` and the model was not
            trained yet.
        prune_epochs
            After each round. None for about 150 or 300 steps.
        threshold
            Consensus that every category must have.
        batch_size
            Cells of a batch. The deviation of each category's probability is that of the batch.
            None for 1,000 where the arms may start from leaves, and 500 otherwise.
        train_size, validation_size, accelerator, devices, early_stopping
            As in scvi-tools; all cells train by default.
        plan_kwargs
            ``{"lr": ..., "betas": ...}`` of Adam, which starts anew in every round. The rate is
            0.002 where the arms may start from leaves, and otherwise 0.001, as in the released
            code.
        **trainer_kwargs
            As in scvi-tools (``enable_progress_bar=False`` silences all bars). Gradients are
            clipped at a norm of 10 unless ``gradient_clip_val`` says otherwise.

        Raises
        ------
        ValueError
            Fewer cells than 2 or than categories; markers that never vary, or values outside 0
            to 1 under a Bernoulli likelihood without scaling; batches of one cell; pruning with
            one arm, or where all cells come to one category; early stopping without validation
            cells; epochs or rates that are none; changes that there are not for such cells, and
            amounts out of range; a VAE of the copies that learns nothing.
        TypeError
            Settings that the training does not have.

        Warns
        -----
        UserWarning
            Batches with fewer than 4 cells for a category.

        Notes
        -----
        Writes ``model.history`` (the terms of the loss), ``model.consensus_`` and, after
        pruning, ``model.pruning_``.
        """
        n_categories = self.settings.n_categories
        x = self._values(n_categories)
        recipe = FROM_TREE if self._may_grow(x.shape[1]) else FROM_GRAPH
        trainer_kwargs.setdefault("gradient_clip_val", CLIP)
        training = Training(
            max_epochs=max_epochs,
            batch_size=recipe.batch_size if batch_size is None else batch_size,
            train_size=train_size,
            validation_size=validation_size,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            plan_kwargs={"lr": recipe.lr, **(plan_kwargs or {})},
            trainer_kwargs=trainer_kwargs,
        )
        training.check(self._training_plan_cls)
        if start is None:
            start = self.module is None
        check_start(start, start_epochs)
        if prune is None:
            prune = isinstance(self.n_categories_, str) and self.module is None
        check_pruning(prune, prune_epochs, threshold, self.settings.n_arms)
        batch_size, progress = training.batch_size, training.progress
        n_train = len(training.split(len(x), np.random.default_rng(0))[0])
        self._check_batch(min(batch_size, n_train), n_categories)
        n_batches = math.ceil(n_train / batch_size)
        stages = stage_epochs(n_batches, max_epochs, start_epochs, prune_epochs, recipe)
        seed = torch.randint(2**31, (1,)).item()
        split = training.split(len(x), np.random.default_rng(seed))
        with self._training(batch_size):
            # fewer cells are no two groups
            start = start and len(x) >= 2 * LEAST_SIZE
            tree = self._leaves(x, seed) if start else None
            if self.module is None:
                if tree is not None:
                    self.settings = replace(self.settings, n_categories=tree.n_clusters)
                self._build()
                self._look_at(x)
            self.module.live.fill_(True)
            scaled, data = self._scaled(x), self._tensors(x)
            near = places(x if self.module.takes_counts else None, scaled, seed)
            copies = self._copies(
                augment, scaled, near, seed, accelerator=accelerator, progress=progress
            )

            def fit(n_epochs: int, taught: Batch | None = None) -> None:
                change = copied(copies, self.module.n_arms)
                batches = InMemory(data, split, batch_size, training=taught, change=change)
                self._fit(n_epochs, batches, **training.to_trainer())

            if start:
                n, n_arms = self.settings.n_categories, self.settings.n_arms
                find = of_graph(neighbor_graph(near), n) if tree is None else of_tree(x, tree)
                taught = torch.from_numpy(start_categories(find, len(x), n, n_arms, seed))
                fit(stages.start, {BATCH_KEYS.TAUGHT: taught})
            fit(stages.main)
            if prune:
                self._prune(partial(fit, stages.prune), threshold)
            with torch.inference_mode():
                self._finish_categories(x)

    def _may_grow(self, n_markers: int) -> bool:
        """Whether a density tree says something of such values."""
        others = holds_images(self.adata), self.registry["setup_args"]["counts"]
        of_markers = not any(others) and self.settings.scaling != COMMON
        return default_method(n_markers, markers=of_markers) == "tree"

    def _leaves(self, x: np.ndarray, seed: int) -> Tree | None:
        """Grow the density tree that the arms start from; None to start from communities."""
        if not self._may_grow(x.shape[1]):
            return None
        open_ = isinstance(self.n_categories_, str) and self.module is None
        return leaves(x, None if open_ else self.settings.n_categories, seed)

    def _check_batch(self, n: int, n_categories: int) -> None:
        if n < 2:
            raise ValueError(
                "A batch of one cell has no deviation, by which the layers of the arms are "
                "normalised: use a larger `batch_size`."
            )
        scaled = self.settings.distance == "scaled"
        if self.settings.n_arms > 1 and scaled and n < FEW_CELLS * n_categories:
            warnings.warn(
                f"Batches of {n} cells are small for {n_categories} categories: the deviations "
                "by which the distance of the arms is scaled will be poor. Use a larger "
                '`batch_size`, fewer categories, or `distance="aitchison"`.',
                UserWarning,
                stacklevel=3,
            )

    def _look_at(self, x: np.ndarray) -> None:
        """Take ranges, means and spreads of the training cells; decoders start with them."""
        self._fit_scaling(x)
        scaled = self.module.scale(torch.from_numpy(x))
        counts = torch.from_numpy(x) if self.module.takes_counts else None
        observed = self.module.observed
        observed.look_at(scaled, together=holds_images(self.adata), counts=counts)
        self.module.arms.say_first(observed.typical(scaled, counts))
        self._number_clusters()

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        """Scale the cells for the networks."""
        with torch.inference_mode():
            return self.module.scale(torch.from_numpy(x).to(self.device)).numpy(force=True)

    def _copies(
        self,
        augment: bool | str | Sequence[str] | Mapping[str, Any],
        scaled: np.ndarray,
        near: np.ndarray,
        seed: int,
        **training: Any,
    ) -> Augment | None:
        """From cells to changed, scaled copies of them."""
        changes = augmentation(
            augment,
            near,
            check_image_shape(self.adata) if holds_images(self.adata) else None,
            seed,
            values=scaled,
            counts=self.module.takes_counts,
            isotropic=self.settings.isotropic,
            **training,
        )
        if changes is None:
            return None
        # the module is another one when categories have gone
        return lambda cells, index: changes(self.module.scale(cells), index)

    def _prune(self, fit, threshold: float) -> None:
        curve, keep, weights = prune(
            self.module,
            lambda: self._predict_array("votes", None, None, None).T,
            lambda: float(self.history["loss_train"].iloc[-1, 0]),
            fit,
            threshold,
        )
        self.module.load_state_dict(weights)
        settings = replace(self.settings, n_categories=len(keep))
        module = CplMixVAEModule(settings).to(self.device)
        module.take(self.module, keep)
        self.module, self.settings = module, settings
        self.pruning_ = curve
        self.estimates_ = {
            **self.estimates_,
            "n_categories": {
                "chosen": len(keep),
                "threshold": threshold,
                **{name: curve[name].to_numpy() for name in curve},
            },
        }
        logger.info("%d categories are left of %d.", len(keep), curve["n_categories"].iloc[0])

    def _finish_categories(self, x: np.ndarray) -> None:
        """Order and describe the categories; what the arms say of each."""
        module = self.module
        if module.takes_counts:
            log_total = torch.from_numpy(np.log(np.maximum(x.sum(1), 1)))
            module.totals[:, 0], module.totals[:, 1] = log_total.mean(), log_total.std()
        self._finish_clusters()
        rows, _ = self._cells(None, None)
        found = predict_cells(module, rows, ("expert", "votes", "entropy"))
        expert, votes, entropy = (found[name] for name in ("expert", "votes", "entropy"))
        k, size = module.n_experts, np.maximum(module.size.numpy(force=True), 1)
        if module.takes_counts:
            log_total = log_total.numpy()
            mean = np.bincount(expert, log_total, k) / size
            square = np.bincount(expert, np.square(log_total - mean[expert]), k) / size
            own = np.bincount(expert, minlength=k) > 0
            module.totals[own] = torch.from_numpy(
                np.stack([mean, np.sqrt(square)], 1)[own].astype(np.float32)
            ).to(self.device)
        self.consensus_ = consensus_table(expert, votes, entropy, k)
