"""A similarity of groups that a test names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scmoe.similarity import Similarity, Target


class KnownGroups(Target):
    """Cells are alike as far as they share groups."""

    def __init__(self, membership: np.ndarray):
        self.membership = membership

    def dense(self, cells: np.ndarray) -> np.ndarray:
        """Agreement of all pairs."""
        share = self.membership[cells]
        agreement = np.minimum(share @ share.T, 1)
        agreement[cells[:, None] == cells[None]] = 1
        return agreement


@dataclass(frozen=True, kw_only=True)
class Groups(Similarity):
    """Groups are the values of a column of ``.obs``, or the columns of a table in ``.obsm``."""

    key: str = "population"

    def bind(self, adata, profile, *, progress=False) -> KnownGroups:
        """Look the groups up."""
        if self.key in adata.obsm:
            return KnownGroups(np.asarray(adata.obsm[self.key], dtype=np.float32))
        return KnownGroups(pd.get_dummies(adata.obs[self.key]).to_numpy(dtype=np.float32))
