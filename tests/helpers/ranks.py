"""A clustering in processes that torchrun starts.

``torchrun --nproc-per-node 2 ranks.py FOLDER``: writes ``FOLDER/RANK.npz``, and ``FOLDER/model``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

import scmoe
from scmoe.model import MoESimVAE
from scmoe.tl import _cluster_cells
from scmoe.train import find_processes

sys.path.insert(0, str(Path(__file__).parents[1]))

SETTINGS = {"accelerator": "cpu", "devices": 2, "max_steps": 20, "batch_size": 64}
RANK = int(os.environ.get("RANK", "0"))


def clustered(**kwargs):
    from conftest import make_blobs

    adata = make_blobs()
    scmoe.tl.cluster(adata, progress=False, **{"train_kwargs": SETTINGS, **kwargs})
    return adata


def message(call) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    adata = clustered(save_model=folder / "model")

    looks, survey = [], _cluster_cells.survey
    _cluster_cells.survey = lambda *args: looks.append(RANK) or survey(*args)
    _cluster_cells.SKETCH = 400
    sketched = clustered()

    processes = find_processes("cpu", 2, {})

    def fails():
        raise ValueError(f"this is {RANK}")

    other = sketched[:, :4].copy()
    other.X[0, 0] += RANK
    MoESimVAE.setup_anndata(other)
    model = MoESimVAE(other, 4)
    np.savez(
        folder / f"{RANK}.npz",
        codes=adata.obsm["X_scmoe"],
        history=adata.uns["scmoe"]["history"].to_numpy(),
        sketched=sketched.obsm["X_scmoe"],
        looks=looks,
        first=processes.of_first(lambda: RANK),
        error=message(lambda: processes.of_first(fails)),
        differ=message(lambda: model.train(accelerator="cpu", devices=2)),
        spawned=message(lambda: find_processes("cpu", 2, {"strategy": "ddp_spawn"})),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
