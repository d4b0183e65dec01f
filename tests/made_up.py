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
