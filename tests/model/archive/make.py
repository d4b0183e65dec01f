"""Write tiny trained models and what they predict, for the tests of later versions.

``python tests/model/archive/make.py v3`` made the folder ``v3``, with a folder for each class of
models, as there is in ``v2``; ``v1`` is older and holds one model. A folder is never
written again: a new one is made where the schema of saved models changes.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData
from scipy.sparse import csr_matrix

from scmoe.model import CplMixVAE, MoESimVAE, MoEVAE
from scmoe.similarity import CoAssociation

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def cells() -> AnnData:
    """10 cells, 3 markers, 2 populations."""
    rng = np.random.default_rng(0)
    x = np.repeat([[3, 0, 1], [0, 3, 1]], 5, axis=0) + rng.random((10, 3)) / 2
    adata = AnnData(
        x.astype(np.float32),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(10)]),
        var=pd.DataFrame(index=["CD3", "CD19", "CD45"]),
    )
    same = np.arange(10)[:, None] // 5 == np.arange(10) // 5
    adata.obsp["connectivities"] = csr_matrix(same & ~np.eye(10, dtype=bool), dtype=np.float32)
    return adata


def moe_sim_vae(adata: AnnData) -> MoESimVAE:
    """3 experts of 8 units."""
    MoESimVAE.setup_anndata(adata, similarity=CoAssociation(resolutions=(0.5, 1.0)))
    model = MoESimVAE(adata, 3, n_hidden=8, n_latent=2, min_cells=1, gate_dropout=0.0)
    model.train(50, plan_kwargs={"lr": 0.03}, **QUIET)
    return model


def moe_vae(adata: AnnData) -> MoEVAE:
    """2 experts of 8 units, with latent spaces of their own."""
    MoEVAE.setup_anndata(adata)
    model = MoEVAE(adata, 2, n_latent=[2, 1], n_hidden=8, n_layers=1, min_cells=1)
    rates = {"lr": 0.01, "manager_lr": 0.01}
    model.pretrain(max_epochs=60, manager_epochs=60, accelerator="cpu", progress=False, **rates)
    model.train(30, plan_kwargs=rates, **QUIET)
    return model


def cpl_mixvae(adata: AnnData) -> CplMixVAE:
    """2 arms of 8 units, 2 categories."""
    CplMixVAE.setup_anndata(adata)
    sizes = {"n_hidden": 8, "n_layers": 1, "n_embed": 3}
    model = CplMixVAE(adata, 2, input_dropout=0.0, min_cells=1, **sizes)
    model.train(100, plan_kwargs={"lr": 0.01}, **QUIET)
    return model


MODELS: dict[str, Callable[[AnnData], CplMixVAE | MoESimVAE | MoEVAE]] = {
    "CplMixVAE": cpl_mixvae,
    "MoESimVAE": moe_sim_vae,
    "MoEVAE": moe_vae,
}


def make(folder: Path, train: Callable[[AnnData], CplMixVAE | MoESimVAE | MoEVAE]) -> None:
    """One model, and what it says of its cells."""
    scvi.settings.seed = 0
    adata = cells()
    model = train(adata)
    model.save(folder)
    expected = {
        "x": adata.X,
        "markers": adata.var_names,
        "labels": model.predict(),
        "proba": model.predict_proba().to_numpy(),
        "latent": model.get_latent_representation(),
        "generated": model.generate(5).X,
        "loss": model.history["loss_train"].to_numpy(dtype=float),
    }
    plain = {name: np.asarray(values).tolist() for name, values in expected.items()}
    (folder / "expected.json").write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    place = Path(__file__).with_name(sys.argv[1])
    if place.exists():
        sys.exit(f"{place} is there already; a folder of the archive is never written again.")
    for name, train in MODELS.items():
        make(place / name, train)
