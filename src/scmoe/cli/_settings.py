"""What the user asked for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scmoe._core.keys import Key

SIMILARITIES = ("tree", "coassociation", "graph", "knn", "threshold")
"""Those of ``scmoe.similarity`` that need nothing but the cells."""

SIMILAR, MIXTURE, COUPLED = "moe-sim-vae", "moe-vae", "cpl-mixvae"

MODELS = {SIMILAR: "MoESimVAE", MIXTURE: "MoEVAE", COUPLED: "CplMixVAE"}
"""The classes of ``scmoe.model`` by the words for them."""

PRESETS = ("cytof", "synthetic")
"""Those of ``scmoe.model.preset`` that need nothing but the cells."""

COFACTORS = {"mass": 5.0, "fluor": 150.0}
"""The field's habit, by the kind of channel."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of ``scmoe cluster``, checked for their form but not against the data."""

    files: tuple[str, ...]
    output: Path
    overwrite: bool = False
    model: str = SIMILAR
    n_clusters: int | str | None = None
    n_latent: int | str | None = None
    preset: str | None = None
    similarity: str | None = None
    markers: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    transform: bool | None = None
    cofactor: float | None = None
    cells: str = "auto"
    compensate: bool = False
    spillover: Path | None = None
    join: str = "inner"
    by: str = "marker"
    dataset: int | str = 0
    offsets: str = "auto"
    strict: bool = False
    layer: str | None = None
    batch_key: str | None = None
    key: str = Key.DEFAULT
    seed: int = 0
    max_epochs: int | None = None
    map: bool = True
    fcs: bool = True
    landmarks: bool = True
    quiet: bool = False
    command: str = ""
    """What was typed."""

    @property
    def from_h5ad(self) -> bool:
        """Whether the input is AnnData; else it is FCS."""
        return self.files[0].lower().endswith(".h5ad")

    @property
    def least_clusters(self) -> int:
        """How many clusters there are places for at least."""
        return self.n_clusters if isinstance(self.n_clusters, int) else 2

    @property
    def compensates(self) -> bool:
        """Whether spillover is undone; a matrix that is given says so too."""
        return self.compensate or self.spillover is not None

    def of_results(self) -> dict[str, Any]:
        """Return what decides the results, as JSON can hold it: two equal runs may go on."""
        beside = ("output", "overwrite", "cells", "quiet", "command")
        told = {name: value for name, value in asdict(self).items() if name not in beside}
        return json.loads(json.dumps(told, default=str))
