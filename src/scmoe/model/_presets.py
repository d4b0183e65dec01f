"""The settings of the papers' experiments, by name.

Numbers are those of the supplement (B.1 to B.4) of Kopf et al. 2020, arXiv:1910.07763.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scmoe.similarity import Knn, Prior, Threshold

if TYPE_CHECKING:
    from scmoe.similarity import Similarity


@dataclass(frozen=True)
class Preset:
    """The settings of an experiment: ``MoESimVAE(adata, **model_kwargs)``, and so on."""

    similarity: Similarity
    """For ``setup_anndata``."""
    model_kwargs: dict[str, Any]
    """For :class:`MoESimVAE`; ``n_experts`` is among them."""
    train_kwargs: dict[str, Any]
    """For its ``train``."""


_ADAM = {"betas": (0.9, 0.99)}
_WEIGHTS = {
    "reconstruction_weight": 0.487,
    "similarity_weight": 0.487,
    "depict_weight": 0.487,
    "kl_weight": 0.024,
}
_ORGANS = Preset(
    Prior(),
    {
        "n_experts": 7,
        "n_latent": 20,
        "n_hidden": 100,
        "encoder_layers": 1,
        "gate_layers": 1,
        "expert_layers": 1,
        "batch_norm": True,
        "gate_dropout": 0.5,
        "code_noise": 1.0,
        "scaling": "minmax",
        "reconstruction_weight": 1.0,
        "similarity_weight": 0.8,
        "depict_weight": 0.8,
        "kl_weight": 0.2,
    },
    {"batch_size": 256, "max_steps": 20_000, "plan_kwargs": {"lr": 1e-3, **_ADAM}},
)
_PRESETS = {
    "synthetic": Preset(
        Threshold(distance=2.0),
        {
            "n_experts": 40,
            "n_latent": 10,
            "n_hidden": 50,
            "encoder_layers": 3,
            "gate_hidden": 100,
            "gate_layers": 5,
            "expert_layers": 3,
            "batch_norm": True,
            "gate_dropout": 0.5,
            "code_noise": 1.0,
            "scaling": "minmax",
            **_WEIGHTS,
        },
        {"batch_size": 512, "max_steps": 5_000, "plan_kwargs": {"lr": 1e-3, **_ADAM}},
    ),
    "mnist": Preset(
        Knn(n_neighbors=10),
        {
            "n_experts": 10,
            "n_latent": 68,
            "network": "conv",
            "gate_hidden": 200,
            "gate_layers": 3,
            "batch_norm": True,
            "gate_dropout": 0.5,
            "code_noise": 1.0,
            **_WEIGHTS,
        },
        {"batch_size": 128, "max_steps": 20_000, "plan_kwargs": {"lr": 1e-4, **_ADAM}},
    ),
    "organs": _ORGANS,
    "cytof": Preset(
        Threshold(distance=2.0),
        {
            "n_experts": 15,
            "n_latent": 9,
            "n_hidden": 20,
            "encoder_layers": 3,
            "gate_hidden": 9,
            "gate_layers": 5,
            "expert_layers": 3,
            "activation": "relu",
            "batch_norm": True,
            "gate_dropout": 0.5,
            "code_noise": 1.0,
            "reconstruction_weight": 1.0,
            "similarity_weight": 1.0,
            "depict_weight": 1.0,
            "kl_weight": 0.0,
        },
        {"batch_size": 128, "max_steps": 20_000, "plan_kwargs": {"lr": 5e-3, **_ADAM}},
    ),
    "released": Preset(
        _ORGANS.similarity,
        {
            **_ORGANS.model_kwargs,
            # in the authors' program neither dropout nor batch normalisation acts
            "batch_norm": False,
            "gate_dropout": 0.0,
            "means": "learned",
            "kl": "released",
            "depict_target": "released",
        },
        _ORGANS.train_kwargs,
    ),
}


def preset(name: str) -> Preset:
    """Return the settings of one of the papers' experiments, as a copy that may be changed.

    Parameters
    ----------
    name
        ``"synthetic"``, ``"mnist"``, ``"organs"`` or ``"cytof"`` as printed in the supplement, or
        ``"released"``, the organs as the authors' program really ran them.

    Returns
    -------
    Similarity, parameters of the model and of its training.

    Raises
    ------
    ValueError
        No such experiment.

    Notes
    -----
    ``"organs"`` and ``"released"`` have the paper's 7 experts: with another number of classes say
    so, ``n_clusters=5``. ``"synthetic"``, ``"mnist"`` and ``"cytof"`` look at a UMAP in
    ``.obsm["X_umap"]`` (:func:`scmoe.similarity.umap`), the others at a prior
    (:func:`scmoe.pp.marker_prior`). ``"cytof"`` is that of the Bodenmiller wells; for those of
    Weber & Robinson the paper had 25 experts, 30,000 steps and a learning rate of 0.001. These are
    settings to compare with, not to start from: with ``"cytof"`` the narrow gate under its dropout
    was seen to give a single cluster.

    Examples
    --------
    >>> scmoe.tl.cluster(adata, preset="organs", n_clusters=5)
    """
    if name not in _PRESETS:
        raise ValueError(f"There is no preset {name!r}; there are {sorted(_PRESETS)}.")
    return copy.deepcopy(_PRESETS[name])
