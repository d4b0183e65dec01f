"""Cells that tests make up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_three(sizes: Sequence[int] = (90, 60, 50), seed: int = 0) -> AnnData:
    """Cells of three types, with two of six markers each; the type is in ``.obs["kind"]``."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(kind)
    x = 3 * np.eye(3).repeat(2, 1)[kind] + rng.normal(scale=0.3, size=(len(kind), 6))
    return AnnData(
        x.astype(np.float32),
        obs=pd.DataFrame({"kind": kind.astype(str)}, index=[f"cell{i}" for i in range(len(kind))]),
        var=pd.DataFrame(index=["CD3", "CD4", "CD19", "CD20", "CD14", "CD33"]),
    )


def as_intensities(adata: AnnData) -> AnnData:
    """The cells before an arcsinh with cofactor 5, by which ``.X`` may have come about."""
    adata.X = 5 * np.sinh(adata.X)
    return adata


COUPLED = {
    "n_categories": 4,
    "n_arms": 2,
    "n_state": 2,
    "n_embed": 3,
    "n_hidden": 8,
    "n_layers": 1,
    "activation": "relu",
    "likelihood": "gaussian",
    "input_dropout": 0.0,
    "state_dropout": 0.0,
    "coupling_weight": 3.0,
    "entropy_weight": 0.5,
    "kl_weight": 2.0,
    "distance": "scaled",
    "sharpness": None,
    "temperature": 1.0,
    "hard": False,
}
"""Settings of a small module of coupled arms, in which nothing is hidden."""
