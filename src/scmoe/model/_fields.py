"""Registered fields that scvi-tools does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data.fields import NumericalObsField

if TYPE_CHECKING:
    from anndata import AnnData


class IndexField(NumericalObsField):
    """The position of each cell, by which batches look their similarity up.

    It is written at every registration: a subset or a query that carries the positions of
    another AnnData along would be matched with the wrong cells.
    """

    COLUMN = "_indices"

    def __init__(self):
        super().__init__(REGISTRY_KEYS.INDICES_KEY, self.COLUMN)

    def register_field(self, adata: AnnData) -> dict:
        """Number the cells."""
        adata.obs[self.COLUMN] = np.arange(adata.n_obs)
        return super().register_field(adata)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Number the cells of the other AnnData."""
        adata_target.obs[self.COLUMN] = np.arange(adata_target.n_obs)
        return super().transfer_field(state_registry, adata_target, **kwargs)
