"""Write a tiny trained model and what it predicts, for the tests of later versions.

``python tests/model/archive/make.py v1`` made the folder ``v1``. A folder is never written
again: a new one is made where the schema of saved models changes.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData
from scipy.sparse import csr_matrix

from scmoe.model import MoESimVAE
from scmoe.similarity import CoAssociation


def make(folder: Path) -> None:
    """10 cells, 5 markers, 2 populations; 3 experts of 8 units."""
    rng = np.random.default_rng(0)
    x = np.repeat([[3, 0, 3, 0, 1], [0, 3, 0, 3, 1]], 5, axis=0) + rng.random((10, 5)) / 2
    adata = AnnData(
        x.astype(np.float32),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(10)]),
        var=pd.DataFrame(index=["CD3", "CD19", "CD4", "CD20", "CD45"]),
    )
    same = np.arange(10)[:, None] // 5 == np.arange(10) // 5
    adata.obsp["connectivities"] = csr_matrix(same & ~np.eye(10, dtype=bool), dtype=np.float32)
    scvi.settings.seed = 0
    MoESimVAE.setup_anndata(adata, similarity=CoAssociation(resolutions=(0.5, 1.0)))
    model = MoESimVAE(adata, 3, n_hidden=8, n_latent=2, min_cells=1, gate_dropout=0.0)
    model.train(50, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"lr": 0.03})
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
    make(place)
